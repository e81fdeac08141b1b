import { deepStrictEqual, match, ok, strictEqual, throws } from "node:assert/strict";
import { encodeCheckpoint } from "../../../src/audit/trail/checkpoint.ts";
import { CompactRange } from "../../../src/audit/trail/merkle_tree.ts";
import { intentStepOf } from "../../../src/audit/trail/open_intents.ts";
import { openEvent } from "../../../src/audit/trail/sealed_event.ts";
import {
  formatHeader,
  listSegments,
  parseHeader,
  type SegmentHeader,
} from "../../../src/audit/trail/segment_files.ts";
import { stubName, stubText } from "../../../src/audit/trail/segment_stub.ts";
import { noteSigner, signNote } from "../../../src/audit/trail/signed_note.ts";
import type { UnwrittenEvent } from "../../../src/audit/trail/segment_writer.ts";
import type { TreeHead } from "../../../src/audit/trail/tree_head.ts";
import { verifyChain } from "../../../src/audit/verify/verify_chain.ts";
import { encodeUtf8 } from "../../../src/encoding/utf8.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { rewriteTrail } from "../forged_trail.ts";
import { mixedUpTo, thin } from "../thinned_trail.ts";
import {
  numbered,
  numberedUpTo,
  signingKeyOf,
  TIME_MS,
  TRAIL_KEYS,
  TrailFolder,
  unwritten,
} from "../trail_folder.ts";

const DAY_MS = 86_400_000;

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
  folder.writeAndDie([numbered(3)]);
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
        writer.append([unwritten(numbered(4))]);
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
  folder.write(numberedUpTo(3), 900);
  Deno.writeFileSync(folder.segmentPath(3), new Uint8Array());
  folder.write(numberedUpTo(5, 4), 900);
  deepStrictEqual(listSegments(folder.directory), [1, 2, 3]);
  deepStrictEqual(folder.numbers(), [1, 2, 3, 4, 5]);
  await requireIntact(folder, 5);
});

Deno.test("a checkpoint that fell segments behind, as after a power loss, still leads to the end", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3), 900);
  const checkpoint = Deno.readFileSync(folder.checkpointPath); // in segment 2
  folder.write(numberedUpTo(9, 4), 900);
  Deno.writeFileSync(folder.checkpointPath, checkpoint);
  folder.write([numbered(10)], 900);
  await requireIntact(folder, 10);
});

const REFUSED: { state: string; spoil: (folder: TrailFolder) => void; words: RegExp }[] = [
  {
    state: "whose last whole entry was edited",
    spoil: (folder) =>
      folder.setLines(folder.lines().with(3, folder.lines()[3]?.replace("2026", "2025") ?? "")),
    words: /audit-000001\.jsonl line 4 is no entry as it was written \(hash_wrong\)/,
  },
  {
    state: "with a bad line in its middle",
    spoil: (folder) => folder.setLines(folder.lines().with(2, "{")),
    words: /audit-000001\.jsonl line 3 is no entry as it was written \(not_json\)/,
  },
  {
    state: "with zero bytes in its middle",
    spoil: (folder) => folder.setLines(folder.lines().toSpliced(2, 0, "\0\0\0")),
    words: /line 3 is no entry/,
  },
  {
    state: "with an entry dropped",
    spoil: (folder) => folder.setLines(folder.lines().toSpliced(2, 1)),
    words: /line 3 does not continue the chain \(seq_ahead\)/,
  },
  {
    state: "whose end was cut",
    spoil: (folder) => folder.setLines(folder.lines().slice(0, 3)),
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
  // A header and two entries.
  const writer = folder.openWriter(800);
  const batch = (numbers: number[]) => writer.append(numbers.map((number) => unwritten(numbered(number))));
  try {
    batch([1]);
    batch([2]);
    batch([3, 4]); // would not fit any more
    batch([5, 6, 7, 8, 9]); // larger than a segment
    batch([10]);
    writer.sign();
  } finally {
    writer.close();
  }
  deepStrictEqual(listSegments(folder.directory).map((number) => folder.lines(number).length), [3, 3, 6, 2]);
  await requireIntact(folder, 10);
});

// --- Headers -------------------------------------------------------------------------------------------------------

function headers(folder: TrailFolder): SegmentHeader[] {
  return listSegments(folder.directory).map((number) => {
    const header = parseHeader(encodeUtf8(folder.lines(number)[0] ?? ""));
    if (!header.ok) throw new Error(header.reason);
    return header.value;
  });
}

Deno.test("every segment begins with what stands before it", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(7), 1_000);
  const entries = folder.entries();
  const found = headers(folder);
  ok(found.length > 2);
  for (const [index, { segment, origin, seq, previous, range, open, time }] of found.entries()) {
    strictEqual(segment, index + 1);
    strictEqual(origin, found[0]?.origin);
    strictEqual(previous, entries[seq - 1]?.hash ?? "0".repeat(64));
    const tree = new CompactRange();
    for (const { hash } of entries.slice(0, seq)) tree.append(hash);
    deepStrictEqual(range, tree.hashes);
    deepStrictEqual(open, []);
    strictEqual(time, "2026-01-02T03:04:05.006Z");
  }
});

Deno.test("a header torn at any byte is written again, also one without its line feed or with zeros behind it", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(4), 900);
  const checkpoint = Deno.readFileSync(folder.checkpointPath);
  const signed = Deno.readFileSync(folder.signedPath);
  folder.writeAndDie([numbered(5)], 900);
  const whole = Deno.readFileSync(folder.segmentPath(3));
  const headerBytes = whole.indexOf(0x0a) + 1;
  for (let kept = 0; kept <= headerBytes; kept++) {
    for (const zeros of kept % 16 === 0 ? [0, 7] : [0]) {
      Deno.writeFileSync(folder.segmentPath(3), new Uint8Array(kept + zeros));
      using file = Deno.openSync(folder.segmentPath(3), { write: true });
      file.writeSync(whole.subarray(0, kept));
      Deno.writeFileSync(folder.checkpointPath, checkpoint);
      Deno.writeFileSync(folder.signedPath, signed);
      folder.writeAndDie([numbered(6)], 900);
      deepStrictEqual(folder.numbers(), [1, 2, 3, 4, 6]);
    }
  }
  deepStrictEqual(headers(folder).map(({ seq }) => seq), [0, 2, 4]);
  folder.write([]);
  await requireIntact(folder, 5);
});

const SPOILT_HEADERS: {
  state: string;
  of: number;
  spoil: (header: SegmentHeader) => SegmentHeader;
  words: RegExp;
}[] = [
  {
    state: "another number of entries",
    of: 2,
    spoil: (header) => ({ ...header, seq: header.seq + 1, range: header.range }),
    words: /has no compact range of 3 entries/,
  },
  {
    state: "another entry before it",
    of: 2,
    spoil: (header) => ({ ...header, previous: "ab".repeat(32) }),
    words: /does not continue the chain \(previous_wrong\)/,
  },
  {
    state: "another compact range",
    of: 2,
    spoil: (header) => ({ ...header, range: ["ab".repeat(32)] }),
    words: /is not the entry that the checkpoint has seen/,
  },
  {
    state: "another segment's number",
    of: 2,
    spoil: (header) => ({ ...header, segment: 3 }),
    words: /is the header of another segment/,
  },
  {
    state: "another origin",
    of: 2,
    spoil: (header) => ({ ...header, origin: "other/trail" }),
    words: /it is another trail than the one that a signed checkpoint has seen/,
  },
  {
    state: "entries before the first segment",
    of: 1,
    spoil: (header) => ({ ...header, seq: 1, range: ["ab".repeat(32)], open: [1] }),
    words: /does not continue the trail \(seq\)/,
  },
];

for (const { state, of, spoil, words } of SPOILT_HEADERS) {
  Deno.test(`a trail with a header that names ${state} is refused`, async () => {
    await using folder = new TrailFolder();
    // The checkpoint's segment is the one with the header, and the reading begins there.
    folder.write(numberedUpTo(of === 1 ? 2 : 4), 900);
    const header = headers(folder)[of - 1];
    ok(header !== undefined);
    folder.setLines(folder.lines(of).with(0, formatHeader(spoil(header))), of);
    throws(() => folder.openWriter(), unavailable(words));
  });
}

Deno.test("a header that does not go on where the segment before it ends is refused", async () => {
  for (const spoil of SPOILT_HEADERS.slice(1, 3).map((each) => each.spoil)) {
    await using folder = new TrailFolder();
    folder.write(numberedUpTo(2), 900);
    const checkpoint = Deno.readFileSync(folder.checkpointPath); // in segment 1
    folder.write(numberedUpTo(4, 3), 900);
    Deno.writeFileSync(folder.checkpointPath, checkpoint);
    const [, header] = headers(folder);
    ok(header !== undefined);
    folder.setLines(folder.lines(2).with(0, formatHeader(spoil(header))), 2);
    throws(() => folder.openWriter(), unavailable(/audit-000002.jsonl line 1 does not continue the trail/));
  }
});

Deno.test("a trail of the format before is refused with what to do, and left as it is", async () => {
  await using folder = new TrailFolder();
  Deno.writeTextFileSync(
    folder.segmentPath(1),
    '{"event":{"reason":"signal","type":"server.stopped"},"hash":"b112702c33975a15da78dc58e06316a77f769cfbd45e27c50a4585df9e637f1a",' +
      '"previous":"0000000000000000000000000000000000000000000000000000000000000000","seq":1,"time":"2026-01-02T03:04:05.006Z"}\n',
  );
  Deno.writeTextFileSync(folder.checkpointPath, "{}".padEnd(256));
  const seen = contents(folder);
  throws(
    () => folder.openWriter(),
    unavailable(/verify it with the version that wrote it, then move audit and/),
  );
  deepStrictEqual(contents(folder), seen);
});

Deno.test("a segment that went as a whole is no gap where its stub stands, and one where none does", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(7), 900);
  const [, second, third] = headers(folder);
  ok(second !== undefined && third !== undefined);
  Deno.removeSync(folder.segmentPath(2));
  throws(() => folder.openWriter(900), unavailable(/segment audit-000002.jsonl is missing/));
  const text = stubText({
    origin: second.origin,
    segment: 2,
    first: second.seq + 1,
    last: third.seq,
    earliest: second.time,
    latest: second.time,
    previous: second.previous,
    hash: third.previous,
    rangeBefore: second.range,
    rangeAfter: third.range,
    removed: third.seq - second.seq,
    classes: ["activity", "security"],
    file: undefined,
    replaced: "ab".repeat(32),
    made: second.time,
  });
  const signer = noteSigner(TRAIL_KEYS.name, TRAIL_KEYS.signing.pkcs8);
  Deno.writeTextFileSync(`${folder.directory}/${stubName(2)}`, signNote(text, [signer]));
  folder.write([numbered(8)], 900);
  await requireIntact(folder, 8);
});

// --- What a trail must have reached ---------------------------------------------------------------------------------

/** Three segments, a day each, each with a signed checkpoint at its end. */
function threeDays(folder: TrailFolder): void {
  const writer = folder.openWriter();
  for (const [day, first] of [1, 4, 7].entries()) {
    for (const event of numberedUpTo(first + 2, first)) {
      writer.append([unwritten(event, TIME_MS + day * DAY_MS)]);
    }
    writer.sign();
  }
  writer.close();
}

Deno.test("entries that were written anew are refused where the newest signed checkpoint is of an older segment", async () => {
  await using folder = new TrailFolder();
  threeDays(folder);
  rewriteTrail(folder, [[numbered(1), numbered(666), numbered(3)], numberedUpTo(6, 4), numberedUpTo(9, 7)]);
  const [first = ""] = Deno.readTextFileSync(folder.signedPath).split("\n");
  Deno.writeTextFileSync(folder.signedPath, `${first}\n`);
  throws(
    () => folder.openWriter(),
    unavailable(/audit-000001.jsonl line 4 is not the entry that a signed checkpoint has seen/),
  );
});

Deno.test("entries without any signed checkpoint are refused, but for those that a kill before the first one leaves", async () => {
  await using folder = new TrailFolder();
  threeDays(folder);
  Deno.removeSync(folder.signedPath);
  throws(() => folder.openWriter(), unavailable(/it has 9 entries, and no checkpoint that a key of this/));
  await using young = new TrailFolder();
  young.writeAndDie(numberedUpTo(3));
  young.write([numbered(4)]);
  await requireIntact(young, 4);
  await using large = new TrailFolder();
  const writer = large.openWriter();
  writer.append(numberedUpTo(10_001).map((event) => unwritten(event)));
  writer.close();
  throws(() => large.openWriter(), unavailable(/it has 10001 entries, and no checkpoint/));
});

Deno.test("a checkpoint that a key of nobody known has signed stands for none", async () => {
  await using folder = new TrailFolder();
  threeDays(folder);
  throws(
    () => folder.openWriter(undefined, { keys: { ...TRAIL_KEYS, signing: signingKeyOf(9) } }),
    unavailable(/no checkpoint that a key of this installation has signed/),
  );
});

Deno.test("a trail that is behind what is remembered of it is refused, and so is another one", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const writer = folder.openWriter();
  const { remembered } = writer;
  writer.close();
  const signed = remembered.signed ?? remembered.reached;
  ok(signed !== undefined);
  strictEqual(signed.size, 3);
  const refused = (head: TreeHead, words: RegExp) => {
    for (const name of ["signed", "reached"]) {
      throws(() => folder.openWriter(undefined, { remembered: { [name]: head } }), unavailable(words));
    }
  };
  refused({ ...signed, size: 4 }, /it ends before entry 4, which the server remembers/);
  refused({ ...signed, root: "ab".repeat(32) }, /is not the entry that the server remembers/);
  refused({ ...signed, size: 2 }, /line 3 is not the entry that the server remembers/);
  refused({ ...signed, origin: "other/trail" }, /it is another trail than the one that the server remembers/);
  folder.openWriter(undefined, { remembered }).close();
  Deno.removeSync(folder.signedPath);
  throws(
    () => folder.openWriter(undefined, { remembered }),
    unavailable(
      /signed checkpoints were taken away: the newest one is of 0 entries, and the server remembers one of 3/,
    ),
  );
  Deno.removeSync(folder.segmentPath(1));
  Deno.removeSync(folder.checkpointPath);
  refused(signed, /there is none, and the server remembers one of 3 entries/);
  deepStrictEqual([...Deno.readDirSync(folder.checkpointDirectory)].map(({ name }) => name), ["trail.vkey"]);
});

// --- What a power cut leaves ---------------------------------------------------------------------------------------

/** A trail of 20 entries and, behind them, a batch of 60 that was never acknowledged, of which the first page did not reach the disk. */
function withHole(folder: TrailFolder): { readonly durableBytes: number } {
  folder.write(numberedUpTo(20));
  const durableBytes = Deno.statSync(folder.segmentPath(1)).size;
  const checkpoint = Deno.readFileSync(folder.checkpointPath);
  const writer = folder.openWriter();
  writer.append(numberedUpTo(80, 21).map((event) => unwritten(event)));
  writer.close();
  Deno.writeFileSync(folder.checkpointPath, checkpoint);
  const bytes = Deno.readFileSync(folder.segmentPath(1));
  bytes.fill(0, durableBytes, Math.ceil(durableBytes / 4096) * 4096);
  Deno.writeFileSync(folder.segmentPath(1), bytes);
  return { durableBytes };
}

Deno.test("a batch of which only later pages reached the disk is cut off as a whole", async () => {
  await using folder = new TrailFolder();
  const { durableBytes } = withHole(folder);
  const { finding, tornTail } = await verifyChain(folder);
  deepStrictEqual([finding, tornTail?.line], [undefined, 22]);
  folder.openWriter().close();
  strictEqual(Deno.statSync(folder.segmentPath(1)).size, durableBytes);
  folder.write([numbered(21)]);
  deepStrictEqual(folder.numbers().slice(-2), [20, 21]);
  await requireIntact(folder, 21);
});

Deno.test("zero bytes in what a checkpoint has seen are no hole of a power cut", async () => {
  await using folder = new TrailFolder();
  withHole(folder);
  const writer = folder.openWriter();
  writer.append(numberedUpTo(23, 21).map((event) => unwritten(event)));
  writer.close();
  const bytes = Deno.readFileSync(folder.segmentPath(1));
  bytes.fill(0, bytes.length - 400, bytes.length - 300);
  Deno.writeFileSync(folder.segmentPath(1), bytes);
  throws(() => folder.openWriter(), unavailable(/is no entry as it was written/));
  ok((await verifyChain(folder)).finding !== undefined);
});

for (const classes of [["activity"], ["activity", "security"]] as const) {
  Deno.test(`a checkpoint that a power cut put back into a segment that was thinned meanwhile (${classes}) still leads to the end`, async () => {
    await using folder = new TrailFolder();
    const writer = folder.openWriter();
    for (const event of mixedUpTo(4)) writer.append([unwritten(event)]);
    const checkpoint = Deno.readFileSync(folder.checkpointPath);
    for (const event of mixedUpTo(6, 5)) writer.append([unwritten(event, TIME_MS + 100 * DAY_MS)]);
    writer.sign();
    writer.close();
    thin(folder, 1, classes);
    Deno.writeFileSync(folder.checkpointPath, checkpoint);
    folder.write([numbered(7)]);
    await requireIntact(folder, 7);
  });
}

Deno.test("a trail that begins behind what its checkpoint has seen is refused where nobody has signed for what is there", async () => {
  await using folder = new TrailFolder();
  threeDays(folder);
  thin(folder, 1, ["activity", "security"]);
  Deno.writeTextFileSync(folder.signedPath, "");
  Deno.writeFileSync(
    folder.checkpointPath,
    encodeCheckpoint({ seq: 1, hash: "ab".repeat(32), root: "cd".repeat(32), segment: "audit-000001.jsonl" }),
  );
  throws(() => folder.openWriter(), unavailable(/it begins behind entry 1, which the checkpoint has seen/));
});

Deno.test("lines for entries that were taken out are refused where no stub says that they may be", async () => {
  await using folder = new TrailFolder();
  threeDays(folder);
  thin(folder, 1, ["security"], false);
  const [, header] = headers(folder);
  ok(header !== undefined);
  const { seq, previous, range } = header;
  const root = new CompactRange(seq, range).root();
  Deno.writeFileSync(
    folder.checkpointPath,
    encodeCheckpoint({ seq, hash: previous, root, segment: "audit-000001.jsonl" }),
  );
  folder.openWriter().close();
  Deno.removeSync(`${folder.directory}/${stubName(1)}`);
  throws(() => folder.openWriter(), unavailable(/there is no stub that says they may be/));
});

// --- Days ----------------------------------------------------------------------------------------------------------

Deno.test("a new UTC day begins a new segment, a clock that goes back does not", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter();
  const days = [0, 0, 1, 0, -3, 1, 2];
  for (const [index, day] of days.entries()) {
    writer.append([unwritten(numbered(index + 1), TIME_MS + day * DAY_MS)]);
  }
  writer.sign();
  writer.close();
  deepStrictEqual(headers(folder).map(({ seq, time }) => [seq, time.slice(0, 10)]), [
    [0, "2026-01-02"],
    [2, "2026-01-03"],
    [6, "2026-01-04"],
  ]);
  await requireIntact(folder, 7);
});

Deno.test("the day that a segment began on is known again after a restart", async () => {
  await using folder = new TrailFolder();
  const append = (number: number, day: number) => {
    const writer = folder.openWriter();
    writer.append([unwritten(numbered(number), TIME_MS + day * DAY_MS)]);
    writer.close();
  };
  append(1, 0);
  append(2, 0);
  append(3, 1);
  deepStrictEqual(headers(folder).map(({ seq }) => seq), [0, 2]);
});

// --- Intents -------------------------------------------------------------------------------------------------------

const step = (type: "inference.started" | "inference.finished", request: string): UnwrittenEvent => ({
  timeMs: TIME_MS,
  text: `{"request":"${request}","type":"${type}"}`,
  class: "activity",
  step: intentStepOf({ type, request }),
});
const SEALING = { id: "akey_s", raw: new Uint8Array(32).fill(9) };

for (const sealed of [false, true]) {
  const options = {
    sealed,
    keys: { ...TRAIL_KEYS, sealing: SEALING },
    sealingKeys: new Map([[SEALING.id, SEALING.raw]]),
  };
  Deno.test(`intents without outcome are found again, in this segment and in older ones, ${sealed ? "sealed" : "plain"}`, async () => {
    await using folder = new TrailFolder();
    const openIntents = (): [number, unknown][] => {
      const writer = folder.openWriter(1_000, options);
      const found = writer.takeInterrupted().map((
        { seq, event },
      ): [number, unknown] => [seq, event?.request]);
      deepStrictEqual(writer.takeInterrupted(), []);
      writer.close();
      return found;
    };
    const append = (...events: UnwrittenEvent[]) => {
      const writer = folder.openWriter(1_000, options);
      for (const event of events) writer.append([event]);
      writer.close();
    };
    append(step("inference.started", "req_1"), step("inference.started", "req_2"));
    deepStrictEqual(openIntents(), [[1, "req_1"], [2, "req_2"]]);
    append(
      step("inference.finished", "req_1"),
      ...Array.from({ length: 6 }, (_, index) => unwritten(numbered(index))),
    );
    append(step("inference.started", "req_3"));
    ok(listSegments(folder.directory).length > 2);
    deepStrictEqual(headers(folder).at(-1)?.open.slice(0, 1), [2]);
    deepStrictEqual(openIntents(), [[2, "req_2"], [10, "req_3"]]);
    append(step("inference.finished", "req_2"));
    deepStrictEqual(openIntents(), [[10, "req_3"]]);
    append(step("inference.finished", "req_3"));
    deepStrictEqual(openIntents(), []);
  });
}

Deno.test("an intent whose key is gone is not told of, and stays in the headers", async () => {
  await using folder = new TrailFolder();
  const sealed = { sealed: true, keys: { ...TRAIL_KEYS, sealing: SEALING } };
  const writer = folder.openWriter(600, sealed);
  for (const event of [step("inference.started", "req_1"), unwritten(numbered(1))]) writer.append([event]);
  writer.close();
  const again = folder.openWriter(600, { ...sealed, sealingKeys: new Map() });
  deepStrictEqual(again.takeInterrupted(), [{ seq: 1, event: undefined }]);
  again.append([unwritten(numbered(2))]);
  again.sign();
  again.close();
  deepStrictEqual(headers(folder).map(({ open }) => open), [[], [1], [1]]);
});

Deno.test("an intent whose outcome cannot be read any more is no open one where a later header says so", async () => {
  await using folder = new TrailFolder();
  const other = { id: "akey_t", raw: new Uint8Array(32).fill(8) };
  const writer = folder.openWriter(undefined, { sealed: true, keys: { ...TRAIL_KEYS, sealing: SEALING } });
  writer.append([step("inference.started", "req_1")]);
  const checkpoint = Deno.readFileSync(folder.checkpointPath);
  writer.useKeys({ ...TRAIL_KEYS, sealing: other });
  writer.append([step("inference.finished", "req_1")]);
  writer.append([unwritten(numbered(1), TIME_MS + DAY_MS)]);
  writer.close();
  Deno.writeFileSync(folder.checkpointPath, checkpoint);
  const again = folder.openWriter(undefined, { sealingKeys: new Map([[SEALING.id, SEALING.raw]]) });
  deepStrictEqual(again.takeInterrupted(), []);
  again.close();
});

Deno.test("an intent that was taken out while it was open is asked for no more, and goes from the headers", async () => {
  for (const isGone of [false, true]) {
    await using folder = new TrailFolder();
    const append = (day: number, ...events: UnwrittenEvent[]) => {
      const writer = folder.openWriter();
      deepStrictEqual(writer.takeInterrupted().map(({ seq }) => seq), day > 0 && day < 4 ? [2] : []);
      for (const event of events) writer.append([{ ...event, timeMs: TIME_MS + day * DAY_MS }]);
      writer.sign();
      writer.close();
    };
    append(0, unwritten(numbered(1)), step("inference.started", "req_1"));
    append(1, unwritten(numbered(3)));
    append(2, unwritten(numbered(4)));
    append(3, unwritten(numbered(5)));
    thin(folder, 1, isGone ? ["activity", "security"] : ["activity"]);
    append(4, unwritten(numbered(6)));
    append(5, unwritten(numbered(7)));
    deepStrictEqual(headers(folder).map(({ open }) => open).slice(-5), [[2], [2], [2], [], []]);
    await requireIntact(folder, 7);
  }
});

// --- Sealed trails -------------------------------------------------------------------------------------------------

Deno.test("a sealed trail shows classes and nothing else, opens with its key alone, and is intact without it", async () => {
  await using folder = new TrailFolder();
  const keys = { ...TRAIL_KEYS, sealing: SEALING };
  folder.write(
    [...numberedUpTo(2), { type: "model.accepted", model: "m", sha256: "", signer: null, serial: null }],
    1,
    {
      sealed: true,
      keys,
    },
  );
  const entries = folder.entries();
  deepStrictEqual(entries.map(({ event }) => [Object.keys(event), event.class]), [
    [["class", "key", "sealed"], "security"],
    [["class", "key", "sealed"], "security"],
    [["class", "key", "sealed"], "activity"],
  ]);
  const opened = (sealingKeys: ReadonlyMap<string, Uint8Array>) =>
    entries.map(({ seq, event }) => openEvent(sealingKeys, seq, event).type);
  deepStrictEqual(opened(new Map([[SEALING.id, SEALING.raw]])), [
    "server.stopped",
    "server.stopped",
    "model.accepted",
  ]);
  throws(() => opened(new Map()), unavailable(/its key akey_s is gone/));
  await requireIntact(folder, 3);
});

Deno.test("a sealing key wears out: a new one is asked for at half, and at the end nothing is written until it comes", async () => {
  await using folder = new TrailFolder();
  const keys = { ...TRAIL_KEYS, sealing: SEALING };
  const writer = folder.openWriter(undefined, { sealed: true, keys, sealedEventsMax: 4 });
  const append = (number: number) => writer.append([unwritten(numbered(number))]);
  append(1);
  strictEqual(writer.isSealingKeyWorn, false);
  append(2);
  strictEqual(writer.isSealingKeyWorn, true);
  append(3);
  append(4);
  throws(() => append(5), unavailable(/its sealing key is worn/));
  strictEqual(writer.usable, true);
  writer.useKeys({ ...keys, sealing: { id: "akey_t", raw: SEALING.raw } });
  strictEqual(writer.isSealingKeyWorn, false);
  append(6);
  writer.sign();
  writer.close();
  deepStrictEqual(folder.entries().map(({ event }) => event.key), [...Array(4).fill("akey_s"), "akey_t"]);
  await requireIntact(folder, 5);
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
      const append = () => writer.append([unwritten(numbered(1))]);
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
      () => writer.append([unwritten(numbered(1))]),
      unavailable(/No such file/),
    );
  } finally {
    writer.close();
  }
});
