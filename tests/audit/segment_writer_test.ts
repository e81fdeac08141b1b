import { deepStrictEqual, match, ok, strictEqual, throws } from "node:assert/strict";
import { eventText } from "../../src/audit/event_text.ts";
import { listSegments } from "../../src/audit/segment_files.ts";
import { verifyChain } from "../../src/audit/verify_chain.ts";
import { Fault } from "../../src/faults/fault.ts";
import { numbered, numberedUpTo, TIME_MS, TrailFolder } from "./trail_folder.ts";

function unavailable(words: RegExp): (thrown: unknown) => boolean {
  return (thrown) => {
    ok(thrown instanceof Fault);
    strictEqual(thrown.kind, "unavailable");
    match(thrown.message, words);
    return true;
  };
}

async function requireIntact(folder: TrailFolder, entries: number): Promise<void> {
  const verdict = await verifyChain(folder);
  strictEqual(verdict.finding, undefined);
  strictEqual(verdict.tornTail, undefined);
  strictEqual(verdict.entries, entries);
}

/** A trail of three entries whose checkpoint has not seen the last one, as a kill right behind its write leaves it. */
function lastUnseen(folder: TrailFolder): { before: Uint8Array; last: Uint8Array } {
  folder.write(numberedUpTo(2));
  const before = Deno.readFileSync(folder.segmentPath(1));
  const checkpoint = Deno.readFileSync(folder.checkpointPath);
  folder.write([numbered(3)]);
  Deno.writeFileSync(folder.checkpointPath, checkpoint);
  return { before, last: Deno.readFileSync(folder.segmentPath(1)).subarray(before.length) };
}

Deno.test("a torn tail at every byte of the last line is cut off and no earlier entry with it", async () => {
  await using folder = new TrailFolder();
  const { before, last } = lastUnseen(folder);
  const checkpoint = Deno.readFileSync(folder.checkpointPath);
  for (let kept = 0; kept < last.length; kept++) {
    for (const zeros of kept % 16 === 0 ? [0, 7] : [0]) {
      const torn = new Uint8Array(before.length + kept + zeros);
      torn.set(before);
      torn.set(last.subarray(0, kept), before.length);
      Deno.writeFileSync(folder.segmentPath(1), torn);
      Deno.writeFileSync(folder.checkpointPath, checkpoint);
      const writer = folder.openWriter();
      try {
        strictEqual(writer.head.seq, 2);
        deepStrictEqual(Deno.readFileSync(folder.segmentPath(1)), before);
        writer.append([{ timeMs: TIME_MS, text: eventText(numbered(4)) }]);
      } finally {
        writer.close();
      }
      deepStrictEqual(folder.numbers(), [1, 2, 4]);
    }
  }
  await requireIntact(folder, 3);
});

Deno.test("a whole entry that the checkpoint has not seen yet is kept", async () => {
  await using folder = new TrailFolder();
  lastUnseen(folder);
  folder.write([numbered(4)]);
  deepStrictEqual(folder.numbers(), [1, 2, 3, 4]);
  await requireIntact(folder, 4);
});

Deno.test("a segment that a crash left empty is gone on with", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3), 600);
  Deno.writeFileSync(folder.segmentPath(3), new Uint8Array());
  folder.write(numberedUpTo(5, 4), 600);
  deepStrictEqual(listSegments(folder.directory), [1, 2, 3]);
  deepStrictEqual(folder.numbers(), [1, 2, 3, 4, 5]);
  await requireIntact(folder, 5);
});

Deno.test("a checkpoint that fell segments behind, as after a power loss, still leads to the end", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3), 600);
  const checkpoint = Deno.readFileSync(folder.checkpointPath); // in segment 2
  folder.write(numberedUpTo(9, 4), 600);
  Deno.writeFileSync(folder.checkpointPath, checkpoint);
  folder.write([numbered(10)], 600);
  await requireIntact(folder, 10);
});

const REFUSED: { state: string; spoil: (folder: TrailFolder) => void; words: RegExp }[] = [
  {
    state: "whose last whole entry was edited",
    spoil: (folder) =>
      folder.setLines(folder.lines().with(2, folder.lines()[2]?.replace("2026", "2025") ?? "")),
    words: /audit-000001\.jsonl line 3 is no entry as it was written \(hash_wrong\)/,
  },
  {
    state: "with a bad line in its middle",
    spoil: (folder) => folder.setLines(folder.lines().with(1, "{")),
    words: /audit-000001\.jsonl line 2 is no entry as it was written \(not_json\)/,
  },
  {
    state: "with zero bytes in its middle",
    spoil: (folder) => folder.setLines(folder.lines().toSpliced(1, 0, "\0\0\0")),
    words: /line 2 is no entry/,
  },
  {
    state: "with an entry dropped",
    spoil: (folder) => folder.setLines(folder.lines().toSpliced(1, 1)),
    words: /line 2 does not continue the chain \(seq_ahead\)/,
  },
  {
    state: "whose end was cut",
    spoil: (folder) => folder.setLines(folder.lines().slice(0, 2)),
    words: /ends before entry 3, which the checkpoint has seen/,
  },
  {
    state: "whose last, checkpointed entry was torn",
    spoil: (folder) =>
      Deno.truncateSync(folder.segmentPath(1), Deno.statSync(folder.segmentPath(1)).size - 1),
    words: /ends before entry 3, which the checkpoint has seen/,
  },
  {
    state: "whose only segment was removed",
    spoil: (folder) => Deno.removeSync(folder.segmentPath(1)),
    words: /audit-000001\.jsonl, which holds the checkpoint's entry, is missing/,
  },
  {
    state: "whose first segment was renamed",
    spoil: (folder) => Deno.renameSync(folder.segmentPath(1), folder.segmentPath(2)),
    words: /segment audit-000001\.jsonl is missing/,
  },
  {
    state: "whose checkpoint was removed",
    spoil: (folder) => Deno.removeSync(folder.checkpointPath),
    words: /it is missing though the trail has entries/,
  },
  {
    state: "whose checkpoint was damaged",
    spoil: (folder) => Deno.writeTextFileSync(folder.checkpointPath, "{}"),
    words: /its text is damaged/,
  },
];

for (const { state, spoil, words } of REFUSED) {
  Deno.test(`a trail ${state} is refused and left as it is`, async () => {
    await using folder = new TrailFolder();
    folder.write(numberedUpTo(3));
    spoil(folder);
    const seen = contents(folder);
    throws(() => folder.openWriter(), unavailable(words));
    deepStrictEqual(contents(folder), seen);
  });
}

function contents(folder: TrailFolder): [string, string][] {
  return [folder.directory, folder.checkpointDirectory].flatMap((directory) =>
    [...Deno.readDirSync(directory)].map(({ name }): [string, string] => [
      name,
      Deno.readTextFileSync(`${directory}/${name}`),
    ])
  );
}

Deno.test("a trail whose entries were all taken away is not begun anew when its checkpoint is damaged as well", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  Deno.removeSync(folder.segmentPath(1));
  Deno.writeTextFileSync(folder.checkpointPath, "{}");
  throws(() => folder.openWriter(), unavailable(/damaged/));
});

Deno.test("a trail is opened by one writer at a time", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter();
  try {
    throws(() => folder.openWriter(), unavailable(/another Portcullis runs on this data folder/));
  } finally {
    writer.close();
  }
  folder.write([numbered(1)]);
  await requireIntact(folder, 1);
});

Deno.test("segments grow to their bound and no further, and a batch is never split", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter(600);
  const batch = (numbers: number[]) =>
    writer.append(numbers.map((number) => ({ timeMs: TIME_MS, text: eventText(numbered(number)) })));
  try {
    batch([1]);
    batch([2]);
    batch([3, 4]); // would not fit any more
    batch([5, 6, 7, 8, 9]); // larger than a segment
    batch([10]);
  } finally {
    writer.close();
  }
  deepStrictEqual(listSegments(folder.directory).map((number) => folder.lines(number).length), [2, 2, 5, 1]);
  await requireIntact(folder, 10);
});

Deno.test("the trail's files are readable and writable by their owner only", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(2));
  for (const path of [folder.segmentPath(1), folder.checkpointPath]) {
    strictEqual((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
  }
});

Deno.test("a probe leaves no trace in the trail", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(2));
  const before = contents(folder);
  const writer = folder.openWriter();
  writer.probe();
  writer.close();
  deepStrictEqual(contents(folder), before);
});

const CHANGED: { act: string; change: (folder: TrailFolder) => void }[] = [
  { act: "deleted", change: (folder) => Deno.removeSync(folder.segmentPath(1)) },
  {
    act: "replaced by a copy",
    change: (folder) => {
      Deno.copyFileSync(folder.segmentPath(1), `${folder.root}/copy`);
      Deno.renameSync(`${folder.root}/copy`, folder.segmentPath(1));
    },
  },
  {
    act: "appended to by someone else",
    change: (folder) => Deno.writeTextFileSync(folder.segmentPath(1), "x", { append: true }),
  },
  { act: "shortened", change: (folder) => Deno.truncateSync(folder.segmentPath(1), 3) },
];

for (const { act, change } of CHANGED) {
  Deno.test(`an append fails when the segment was ${act} under the writer`, async () => {
    await using folder = new TrailFolder();
    const writer = folder.openWriter();
    try {
      const append = () => writer.append([{ timeMs: TIME_MS, text: eventText(numbered(1)) }]);
      append();
      change(folder);
      throws(append, unavailable(/replaced or changed|No such file/));
      strictEqual(writer.usable, false);
      throws(append, unavailable(/closed/));
    } finally {
      writer.close();
    }
    if (act !== "replaced by a copy") throws(() => folder.openWriter(), unavailable(/Cannot open/));
    strictEqual((await verifyChain(folder)).entries <= 1, true);
  });
}

Deno.test("an append fails when the checkpoint was deleted under the writer", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter();
  try {
    Deno.removeSync(folder.checkpointPath);
    throws(
      () => writer.append([{ timeMs: TIME_MS, text: eventText(numbered(1)) }]),
      unavailable(/No such file/),
    );
  } finally {
    writer.close();
  }
});
