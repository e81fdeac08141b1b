import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { eventText } from "../../src/audit/event_text.ts";
import { CHAIN_START, type ChainHead, extendChain } from "../../src/audit/hash_chain.ts";
import { type ChainVerdict, verifyChain } from "../../src/audit/verify_chain.ts";
import { numbered, numberedUpTo, TrailFolder } from "./trail_folder.ts";

const TIME = "2026-01-02T03:04:05.006Z";

/** A line that continues the chain behind `after`, made by someone who knows how. */
function forged(after: string | undefined, number: number): string {
  const head: ChainHead = after === undefined ? CHAIN_START : JSON.parse(after);
  return extendChain(head, TIME, eventText(numbered(number))).line.trimEnd();
}

/** "kind segment:line seq" of the finding. */
function foundIn({ finding }: ChainVerdict): string {
  return finding === undefined
    ? "nothing"
    : `${finding.kind} ${finding.segment}:${finding.line} ${finding.seq}`;
}

Deno.test("verifyChain finds nothing in a trail as it was written, over several segments", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(9), 800);
  const verdict = await verifyChain(folder);
  strictEqual(foundIn(verdict), "nothing");
  strictEqual(verdict.entries, 9);
  ok(verdict.segments > 2);
  strictEqual(verdict.firstTime, TIME);
  strictEqual(verdict.lastTime, TIME);
  strictEqual(verdict.tornTail, undefined);
  deepStrictEqual(verdict.head, { seq: 9, hash: folder.entries().at(-1)?.hash });
  strictEqual(verdict.checkpoint?.hash, verdict.head.hash);
});

Deno.test("verifyChain accepts a trail without entries that was opened once", async () => {
  await using folder = new TrailFolder();
  folder.write([]);
  const verdict = await verifyChain(folder);
  strictEqual(foundIn(verdict), "nothing");
  strictEqual(verdict.entries, 0);
});

// Each tampers with six entries in one segment.
const TAMPERINGS: { act: string; lines: (lines: string[]) => (string | undefined)[]; found: string }[] = [
  {
    act: "an edited event",
    lines: (lines) => lines.with(2, lines[2]?.replace('"reason":"3"', '"reason":"4"') ?? ""),
    found: "edited audit-000001.jsonl:3 3",
  },
  {
    act: "an edited hash",
    lines: (lines) => lines.with(2, lines[2]?.replace(/"hash":"...../, '"hash":"00000') ?? ""),
    found: "edited audit-000001.jsonl:3 3",
  },
  {
    act: "an edited previous hash",
    lines: (lines) => lines.with(2, lines[2]?.replace(/"previous":"...../, '"previous":"00000') ?? ""),
    found: "edited audit-000001.jsonl:3 3",
  },
  {
    act: "an edited number",
    lines: (lines) => lines.with(2, lines[2]?.replace('"seq":3', '"seq":4') ?? ""),
    found: "edited audit-000001.jsonl:3 3",
  },
  {
    act: "an edited time",
    lines: (lines) => lines.with(2, lines[2]?.replace("2026-", "2025-") ?? ""),
    found: "edited audit-000001.jsonl:3 3",
  },
  {
    act: "an added space",
    lines: (lines) => lines.with(2, lines[2]?.replace('"seq":3', '"seq": 3') ?? ""),
    found: "edited audit-000001.jsonl:3 3",
  },
  {
    act: "an empty line",
    lines: (lines) => lines.toSpliced(2, 0, ""),
    found: "edited audit-000001.jsonl:3 3",
  },
  {
    act: "a dropped entry",
    lines: (lines) => lines.toSpliced(2, 1),
    found: "missing audit-000001.jsonl:3 4",
  },
  {
    act: "a dropped first entry",
    lines: (lines) => lines.slice(1),
    found: "missing audit-000001.jsonl:1 2",
  },
  {
    act: "two swapped entries",
    lines: ([one, two, three, ...rest]) => [one, three, two, ...rest],
    found: "missing audit-000001.jsonl:2 3",
  },
  {
    act: "a duplicated entry",
    lines: ([one, two, ...rest]) => [one, two, two, ...rest],
    found: "out_of_place audit-000001.jsonl:3 2",
  },
  {
    act: "an inserted entry with a right hash",
    lines: ([one, two, ...rest]) => [one, two, forged(two, 99), ...rest],
    found: "out_of_place audit-000001.jsonl:4 3",
  },
  {
    act: "an entry replaced by one with a right hash",
    lines: ([one, two, _three, ...rest]) => [one, two, forged(two, 99), ...rest],
    found: "replaced audit-000001.jsonl:4 4",
  },
  {
    act: "the last entry replaced by one with a right hash",
    lines: (lines) => lines.with(5, forged(lines[4], 99)),
    found: "rewritten audit-000001.jsonl:6 6",
  },
  {
    act: "a restart in the middle",
    lines: ([one, two, three]) => [one, two, three, forged(undefined, 1)],
    found: "restarted audit-000001.jsonl:4 1",
  },
  {
    act: "a cut end",
    lines: (lines) => lines.slice(0, 5),
    found: "cut audit-000001.jsonl:0 6",
  },
  {
    act: "all entries taken away",
    lines: () => [],
    found: "cut audit-000001.jsonl:0 1",
  },
  {
    act: "a shorter trail written anew",
    lines: () => [forged(undefined, 1)],
    found: "cut audit-000001.jsonl:0 2",
  },
  {
    act: "a longer trail written anew",
    lines: () => {
      const lines: string[] = [];
      for (let number = 1; number <= 9; number++) lines.push(forged(lines.at(-1), number * 10));
      return lines;
    },
    found: "rewritten audit-000001.jsonl:6 6",
  },
];

for (const { act, lines, found } of TAMPERINGS) {
  Deno.test(`verifyChain finds ${act}`, async () => {
    await using folder = new TrailFolder();
    folder.write(numberedUpTo(6));
    folder.setLines(lines(folder.lines()).map((line) => line ?? ""));
    const verdict = await verifyChain(folder);
    strictEqual(foundIn(verdict), found);
    notStrictEqual(verdict.finding?.words, "");
  });
}

Deno.test("verifyChain finds a removed segment: the first, one between and the last", async () => {
  const found: string[] = [];
  for (const removed of [1, 2, 3]) {
    await using folder = new TrailFolder();
    folder.write(numberedUpTo(6), 600); // two entries a segment
    deepStrictEqual([1, 2, 3].map((number) => folder.lines(number).length), [2, 2, 2]);
    Deno.removeSync(folder.segmentPath(removed));
    found.push(foundIn(await verifyChain(folder)));
  }
  deepStrictEqual(found, [
    "segment_missing audit-000001.jsonl:0 1",
    "segment_missing audit-000002.jsonl:0 3",
    "cut audit-000003.jsonl:0 5",
  ]);
});

Deno.test("verifyChain finds a removed segment whose gap was closed by renaming", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(6), 600);
  Deno.renameSync(folder.segmentPath(3), folder.segmentPath(2));
  strictEqual(foundIn(await verifyChain(folder)), "missing audit-000002.jsonl:1 5");
});

Deno.test("verifyChain finds a missing and a damaged checkpoint", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const bytes = Deno.readFileSync(folder.checkpointPath);
  Deno.writeFileSync(folder.checkpointPath, bytes.with(20, (bytes[20] ?? 0) ^ 1));
  strictEqual(foundIn(await verifyChain(folder)), "checkpoint_unreadable checkpoint.json:0 4");
  Deno.removeSync(folder.checkpointPath);
  strictEqual(foundIn(await verifyChain(folder)), "checkpoint_missing checkpoint.json:0 4");
});

Deno.test("verifyChain finds that the folder is missing", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  Deno.removeSync(folder.directory, { recursive: true });
  strictEqual(foundIn(await verifyChain(folder)), "unreadable :0 1");
});

Deno.test("verifyChain finds a segment that is a link", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  Deno.renameSync(folder.segmentPath(1), `${folder.root}/elsewhere`);
  Deno.symlinkSync(`${folder.root}/elsewhere`, folder.segmentPath(1));
  strictEqual(foundIn(await verifyChain(folder)), "unreadable :0 1");
});

Deno.test("verifyChain reports a torn tail apart, and finds nothing else wrong", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const whole = Deno.readTextFileSync(folder.segmentPath(1));
  const next = forged(folder.lines()[2], 4);
  for (
    const tail of [next.slice(0, 1), next.slice(0, 100), next, "\0".repeat(5_000), `${next.slice(0, 9)}\0\0`]
  ) {
    Deno.writeTextFileSync(folder.segmentPath(1), whole + tail);
    const verdict = await verifyChain(folder);
    strictEqual(foundIn(verdict), "nothing");
    deepStrictEqual(verdict.tornTail, { segment: "audit-000001.jsonl", line: 4, bytes: tail.length });
    strictEqual(verdict.entries, 3);
  }
});

Deno.test("verifyChain does not take a torn entry for harmless when the checkpoint has seen it", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  Deno.truncateSync(folder.segmentPath(1), Deno.statSync(folder.segmentPath(1)).size - 1);
  strictEqual(foundIn(await verifyChain(folder)), "cut audit-000001.jsonl:0 3");
});

Deno.test("verifyChain does not take half a line for a torn tail when a segment follows", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(6), 600);
  Deno.writeTextFileSync(folder.segmentPath(1), "{", { append: true });
  strictEqual(foundIn(await verifyChain(folder)), "edited audit-000001.jsonl:3 3");
});

Deno.test("verifyChain finds every change of a single byte, and the writer refuses each such trail untouched", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(5), 900);
  const originals = [1, 2].map((number) => Deno.readFileSync(folder.segmentPath(number)));
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(1, 2),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      async (number, at, mask) => {
        const original = originals[number - 1] ?? new Uint8Array();
        const index = at % original.length;
        const changed = original.with(index, (original[index] ?? 0) ^ mask);
        Deno.writeFileSync(folder.segmentPath(number), changed);
        try {
          notStrictEqual((await verifyChain(folder)).finding, undefined);
          // At its start the writer reads from the checkpoint's segment on only.
          if (number === 2) {
            const opened = openingFails(folder);
            match(opened, /^Cannot open the audit trail: /);
            deepStrictEqual(Deno.readFileSync(folder.segmentPath(2)), changed);
          }
        } finally {
          Deno.writeFileSync(folder.segmentPath(number), original);
        }
      },
    ),
    { numRuns: 300 },
  );
  strictEqual(foundIn(await verifyChain(folder)), "nothing");
});

function openingFails(folder: TrailFolder): string {
  try {
    folder.openWriter().close();
    return "it opened";
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : "no Error";
  }
}

Deno.test("verifyChain reads lines that cross the borders of its pieces and reports progress to the end", async () => {
  await using folder = new TrailFolder();
  const events = Array.from(
    { length: 60 },
    (_, index) => ({ ...numbered(index), reason: "é".repeat(20_000 + index) }),
  );
  folder.write(events, 100_000_000);
  const steps: [number, number][] = [];
  const verdict = await verifyChain({
    ...options(folder),
    progress: (done, total) => steps.push([done, total]),
  });
  strictEqual(foundIn(verdict), "nothing");
  strictEqual(verdict.entries, 60);
  const { size } = Deno.statSync(folder.segmentPath(1));
  ok(steps.length > 2);
  ok(steps.every(([done], index) => done >= (steps[index - 1]?.[0] ?? 0)));
  deepStrictEqual(steps.at(-1), [size, size]);
});

Deno.test("verifyChain stops at a line that is longer than any batch", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(2));
  Deno.writeFileSync(folder.segmentPath(1), new Uint8Array(9 * 1024 * 1024), { append: true });
  strictEqual(foundIn(await verifyChain(folder)), "edited audit-000001.jsonl:3 3");
});

function options({ directory, checkpointDirectory }: TrailFolder) {
  return { directory, checkpointDirectory };
}
