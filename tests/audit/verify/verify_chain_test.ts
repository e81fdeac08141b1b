// Tests of the verifier: what it finds in trails that were tampered with, by hand and by somebody who knows how.
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { AuditEvent } from "../../../src/audit/audit_event.ts";
import { decodeCheckpoint } from "../../../src/audit/trail/checkpoint.ts";
import { parseKeptHeads } from "../../../src/audit/verify/checkpoint_history.ts";
import { signVoucher } from "../../../src/audit/trail/key_voucher.ts";
import { formatHeader, LINE_BYTES_MAX, type SegmentHeader } from "../../../src/audit/trail/segment_files.ts";
import { parseStubText, type StubFacts, stubName, stubText } from "../../../src/audit/trail/segment_stub.ts";
import { listCheckpointFiles } from "../../../src/audit/trail/signed_checkpoints.ts";
import { noteSigner, type NoteVerifier, signNote } from "../../../src/audit/trail/signed_note.ts";
import type { TrailKeys } from "../../../src/audit/trail_keys.ts";
import { formatTreeHead } from "../../../src/audit/trail/tree_head.ts";
import {
  type ChainVerdict,
  verifyChain,
  type VerifyChainOptions,
} from "../../../src/audit/verify/verify_chain.ts";
import { adaptCheckpoint, forgedLine, headerOf, rewriteTrail, TIME } from "../forged_trail.ts";
import { mixedUpTo, thin } from "../thinned_trail.ts";
import {
  numbered,
  numberedUpTo,
  rotatedKeys,
  signingKeyOf,
  TIME_MS,
  TRAIL_KEYS,
  TrailFolder,
  unwritten,
} from "../trail_folder.ts";

const DAY_MS = 86_400_000;

/** A line that continues the chain behind `after`, made by someone who knows how. */
function forged(after: string | undefined, number: number): string {
  return forgedLine(after, numbered(number));
}

/** Writes a segment for each list, and signs a checkpoint at the end of each. */
function writeDays(folder: TrailFolder, days: readonly (readonly AuditEvent[])[]): void {
  const writer = folder.openWriter();
  try {
    for (const [day, events] of days.entries()) {
      for (const event of events) writer.append([unwritten(event, TIME_MS + day * DAY_MS)]);
    }
    writer.sign();
  } finally {
    writer.close();
  }
}

/** Six entries in three segments. */
const THREE_DAYS = [numberedUpTo(2), numberedUpTo(4, 3), numberedUpTo(6, 5)];

/** "kind segment:line seq" of the finding. */
function foundIn({ finding }: ChainVerdict): string {
  return finding === undefined
    ? "nothing"
    : `${finding.kind} ${finding.segment}:${finding.line} ${finding.seq}`;
}

Deno.test("verifyChain finds nothing in a trail as it was written, over several segments", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const verdict = await verifyChain(folder);
  strictEqual(foundIn(verdict), "nothing");
  strictEqual(verdict.entries, 6);
  strictEqual(verdict.removed, 0);
  strictEqual(verdict.segments, 3);
  strictEqual(verdict.firstTime, TIME);
  strictEqual(verdict.lastTime, "2026-01-04T03:04:05.006Z");
  strictEqual(verdict.tornTail, undefined);
  deepStrictEqual(verdict.head, { seq: 6, hash: folder.entries().at(-1)?.hash });
  strictEqual(verdict.checkpoint?.hash, verdict.head.hash);
  strictEqual(verdict.checkpoints, 3);
  deepStrictEqual(verdict.signed, { origin: verdict.origin, size: 6, root: verdict.checkpoint?.root });
});

Deno.test("verifyChain accepts a trail without entries that was opened once", async () => {
  await using folder = new TrailFolder();
  folder.write([]);
  const verdict = await verifyChain(folder);
  strictEqual(foundIn(verdict), "nothing");
  strictEqual(verdict.entries, 0);
});

Deno.test("verifyChain needs no key to verify a sealed trail", async () => {
  await using folder = new TrailFolder();
  const sealing = { id: "akey_s", raw: new Uint8Array(32).fill(7) };
  folder.write(mixedUpTo(20), 3_000, { keys: { ...TRAIL_KEYS, sealing }, sealed: true });
  const verdict = await verifyChain(folder);
  strictEqual(foundIn(verdict), "nothing");
  strictEqual(verdict.entries, 20);
});

// Each tampers with six entries in one segment, behind its header.
const TAMPERINGS: { act: string; lines: (lines: string[]) => (string | undefined)[]; found: string }[] = [
  {
    act: "an edited event",
    lines: (lines) => lines.with(2, lines[2]?.replace('"reason":"3"', '"reason":"4"') ?? ""),
    found: "edited audit-000001.jsonl:4 3",
  },
  {
    act: "an edited hash",
    lines: (lines) => lines.with(2, lines[2]?.replace(/"hash":"...../, '"hash":"00000') ?? ""),
    found: "edited audit-000001.jsonl:4 3",
  },
  {
    act: "an edited previous hash",
    lines: (lines) => lines.with(2, lines[2]?.replace(/"previous":"...../, '"previous":"00000') ?? ""),
    found: "edited audit-000001.jsonl:4 3",
  },
  {
    act: "an edited number",
    lines: (lines) => lines.with(2, lines[2]?.replace('"seq":3', '"seq":4') ?? ""),
    found: "edited audit-000001.jsonl:4 3",
  },
  {
    act: "an edited time",
    lines: (lines) => lines.with(2, lines[2]?.replace("2026-", "2025-") ?? ""),
    found: "edited audit-000001.jsonl:4 3",
  },
  {
    act: "an added space",
    lines: (lines) => lines.with(2, lines[2]?.replace('"seq":3', '"seq": 3') ?? ""),
    found: "edited audit-000001.jsonl:4 3",
  },
  {
    act: "an empty line",
    lines: (lines) => lines.toSpliced(2, 0, ""),
    found: "edited audit-000001.jsonl:4 3",
  },
  {
    act: "a dropped entry",
    lines: (lines) => lines.toSpliced(2, 1),
    found: "missing audit-000001.jsonl:4 4",
  },
  {
    act: "a dropped first entry",
    lines: (lines) => lines.slice(1),
    found: "missing audit-000001.jsonl:2 2",
  },
  {
    act: "two swapped entries",
    lines: ([one, two, three, ...rest]) => [one, three, two, ...rest],
    found: "missing audit-000001.jsonl:3 3",
  },
  {
    act: "a duplicated entry",
    lines: ([one, two, ...rest]) => [one, two, two, ...rest],
    found: "out_of_place audit-000001.jsonl:4 2",
  },
  {
    act: "an inserted entry with a right hash",
    lines: ([one, two, ...rest]) => [one, two, forged(two, 99), ...rest],
    found: "out_of_place audit-000001.jsonl:5 3",
  },
  {
    act: "an entry replaced by one with a right hash",
    lines: ([one, two, _three, ...rest]) => [one, two, forged(two, 99), ...rest],
    found: "replaced audit-000001.jsonl:5 4",
  },
  {
    act: "the last entry replaced by one with a right hash",
    lines: (lines) => lines.with(5, forged(lines[4], 99)),
    found: "rewritten audit-000001.jsonl:7 6",
  },
  {
    act: "a restart in the middle",
    lines: ([one, two, three]) => [one, two, three, forged(undefined, 1)],
    found: "restarted audit-000001.jsonl:5 1",
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
    found: "rewritten audit-000001.jsonl:7 6",
  },
];

for (const { act, lines, found } of TAMPERINGS) {
  Deno.test(`verifyChain finds ${act}`, async () => {
    await using folder = new TrailFolder();
    folder.write(numberedUpTo(6));
    const [header = "", ...entries] = folder.lines();
    folder.setLines([header, ...lines(entries).map((line) => line ?? "")]);
    const verdict = await verifyChain(folder);
    strictEqual(foundIn(verdict), found);
    notStrictEqual(verdict.finding?.words, "");
  });
}

// Each tampers with the header of the second of three segments.
const HEADERS: { act: string; change: (header: SegmentHeader) => Partial<SegmentHeader> }[] = [
  { act: "another segment's number", change: () => ({ segment: 3 }) },
  { act: "another origin", change: ({ origin }) => ({ origin: `${origin}0` }) },
  { act: "another count of entries", change: ({ range }) => ({ seq: 3, range: [...range, "0".repeat(64)] }) },
  { act: "another previous hash", change: () => ({ previous: "0".repeat(64) }) },
  { act: "another tree", change: () => ({ range: ["0".repeat(64)] }) },
  { act: "a shorter tree", change: () => ({ range: [] }) },
  { act: "an open inference", change: () => ({ open: [1] }) },
];

for (const { act, change } of HEADERS) {
  Deno.test(`verifyChain finds a header with ${act}`, async () => {
    await using folder = new TrailFolder();
    writeDays(folder, THREE_DAYS);
    const header = headerOf(folder, 2);
    folder.setLines(folder.lines(2).with(0, formatHeader({ ...header, ...change(header) })), 2);
    strictEqual(foundIn(await verifyChain(folder)), "header_wrong audit-000002.jsonl:1 3");
  });
}

Deno.test("verifyChain finds a header with another time at the first entry, and a header that is missing or stands twice", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const lines = folder.lines(2);
  const [header = ""] = lines;
  folder.setLines(lines.with(0, header.replace("2026-", "2025-")), 2);
  strictEqual(foundIn(await verifyChain(folder)), "header_wrong audit-000002.jsonl:2 3");
  folder.setLines(lines.slice(1), 2);
  strictEqual(foundIn(await verifyChain(folder)), "header_wrong audit-000002.jsonl:1 3");
  folder.setLines([header, ...lines], 2);
  strictEqual(foundIn(await verifyChain(folder)), "edited audit-000002.jsonl:2 3");
});

Deno.test("verifyChain checks the open inferences of a header against the entries before it", async () => {
  const requester = { request: "req_1", issuer: null, subject: null, team: null, credential: null };
  const common = { ...requester, address: "::1", agent: null, route: "POST /v1/embeddings", model: "m" };
  const started = {
    ...common,
    type: "inference.started",
    task: "embed",
    sha256: null,
    items: 1,
  } as unknown as AuditEvent;
  const finished = {
    ...common,
    type: "inference.finished",
    outcome: "completed",
    inputTokens: 1,
    outputTokens: 0,
    countedBy: "engine",
    servedBy: null,
    attempts: 1,
    durationMs: 1,
  } as unknown as AuditEvent;
  await using folder = new TrailFolder();
  writeDays(folder, [[numbered(1), started], [numbered(3)], [finished], [numbered(5)]]);
  strictEqual(foundIn(await verifyChain(folder)), "nothing");
  deepStrictEqual([1, 2, 3, 4].map((number) => headerOf(folder, number).open), [[], [2], [2], []]);
  folder.setLines(folder.lines(3).with(0, formatHeader({ ...headerOf(folder, 3), open: [] })), 3);
  strictEqual(foundIn(await verifyChain(folder)), "header_wrong audit-000003.jsonl:1 4");
});

Deno.test("verifyChain finds a removed segment: the first, one between and the last", async () => {
  const found: string[] = [];
  for (const removed of [1, 2, 3]) {
    await using folder = new TrailFolder();
    writeDays(folder, THREE_DAYS);
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
  writeDays(folder, THREE_DAYS);
  Deno.renameSync(folder.segmentPath(3), folder.segmentPath(2));
  strictEqual(foundIn(await verifyChain(folder)), "header_wrong audit-000002.jsonl:1 3");
});

// Each by somebody who writes all hashes, headers and checkpoint.json anew, and cannot sign.
const REWRITINGS: { act: string; segments: readonly (readonly AuditEvent[])[]; found: string }[] = [
  {
    act: "an edited entry",
    segments: [numberedUpTo(2), [numbered(3), numbered(44)], numberedUpTo(6, 5)],
    found: "rewritten audit-000002.jsonl:3 3",
  },
  {
    act: "a deleted entry",
    segments: [[numbered(2)], numberedUpTo(4, 3), numberedUpTo(6, 5)],
    found: "rewritten audit-000002.jsonl:2 1",
  },
  {
    act: "an inserted entry",
    segments: [numberedUpTo(2), [numbered(3), numbered(3), numbered(4)], numberedUpTo(6, 5)],
    found: "rewritten audit-000002.jsonl:3 3",
  },
  {
    act: "two swapped entries",
    segments: [numberedUpTo(2), numberedUpTo(4, 3), [numbered(6), numbered(5)]],
    found: "rewritten audit-000003.jsonl:3 5",
  },
  {
    act: "a cut end",
    segments: [numberedUpTo(2), numberedUpTo(4, 3), [numbered(5)]],
    found: "cut audit-000003.jsonl:0 6",
  },
  {
    act: "a removed first segment",
    segments: [numberedUpTo(4, 3), numberedUpTo(6, 5)],
    found: "rewritten audit-000001.jsonl:3 1",
  },
  {
    act: "a removed segment in the middle",
    segments: [numberedUpTo(2), numberedUpTo(6, 5)],
    found: "rewritten audit-000002.jsonl:3 3",
  },
  {
    act: "a removed last segment",
    segments: [numberedUpTo(2), numberedUpTo(4, 3)],
    found: "cut audit-000002.jsonl:0 5",
  },
  {
    act: "a chain that begins anew",
    segments: [numberedUpTo(99, 90)],
    found: "rewritten audit-000001.jsonl:3 1",
  },
];

for (const { act, segments, found } of REWRITINGS) {
  Deno.test(`verifyChain finds ${act} by the signed checkpoints, where all hashes were computed anew`, async () => {
    await using folder = new TrailFolder();
    writeDays(folder, THREE_DAYS);
    rewriteTrail(folder, THREE_DAYS);
    strictEqual(foundIn(await verifyChain(folder)), "nothing");
    rewriteTrail(folder, segments);
    strictEqual(foundIn(await verifyChain(folder)), found);
  });
}

Deno.test("verifyChain finds that signed checkpoints were taken away, altered, or put in by somebody else", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const [name = ""] = listCheckpointFiles(folder.checkpointDirectory);
  const path = `${folder.checkpointDirectory}/${name}`;
  const notes = folder.notes();
  const setNotes = (changed: readonly string[]): void =>
    Deno.writeTextFileSync(path, changed.map((note) => `${JSON.stringify(note)}\n`).join(""));
  const foreign = signNote(
    (notes[2] ?? "").split("\n\n")[0]?.replace("\n6\n", "\n7\n") + "\n",
    [noteSigner(TRAIL_KEYS.name, signingKeyOf(9).pkcs8)],
  );
  for (
    const [changed, found] of [
      [notes, "nothing"],
      [[], "unsigned :0 1"],
      [notes.with(1, "nonsense"), `checkpoint_forged ${name}:2 0`],
      [notes.with(1, (notes[1] ?? "").replace("\n4\n", "\n3\n")), `checkpoint_forged ${name}:2 0`],
      [[...notes, foreign], `checkpoint_untrusted ${name}:4 0`],
      [notes.with(2, foreign.replace("\n7\n", "\n6\n")), `checkpoint_untrusted ${name}:3 0`],
    ] as const
  ) {
    setNotes(changed);
    strictEqual(foundIn(await verifyChain(folder)), found);
  }
  // Half a line at the end is what a crash leaves.
  setNotes(notes);
  Deno.writeTextFileSync(path, '"portcullis.', { append: true });
  strictEqual(foundIn(await verifyChain(folder)), "nothing");
  // With the keys that stand beside the trail, whoever can write there can sign: a key kept elsewhere shows it.
  setNotes(
    notes.map((note) =>
      signNote(`${note.split("\n\n")[0]}\n`, [noteSigner(TRAIL_KEYS.name, signingKeyOf(9).pkcs8)])
    ),
  );
  const { name: keyName, signing } = TRAIL_KEYS;
  const verdict = await verifyChain({
    ...folderOf(folder),
    trusted: [{ name: keyName, publicKey: signing.publicKey }],
  });
  strictEqual(foundIn(verdict), `checkpoint_untrusted ${name}:1 0`);
});

Deno.test("verifyChain follows the signing key through a change, from the older key to the newer and not back", async () => {
  await using folder = new TrailFolder();
  const newer: TrailKeys = rotatedKeys(TRAIL_KEYS, 2);
  folder.write(numberedUpTo(3));
  folder.write(numberedUpTo(5, 4), undefined, { keys: newer });
  folder.write(numberedUpTo(9, 6), undefined, { keys: newer });
  const keyOf = ({ name, signing }: TrailKeys): NoteVerifier => ({ name, publicKey: signing.publicKey });
  const verify = async (trusted: NoteVerifier[]): Promise<[string, number | undefined]> => {
    const verdict = await verifyChain({ ...folderOf(folder), trusted });
    return [foundIn(verdict), verdict.signed?.size];
  };
  deepStrictEqual(await verify([keyOf(TRAIL_KEYS)]), ["nothing", 9]);
  // The newest covers those that the key before has signed.
  deepStrictEqual(await verify([keyOf(newer)]), ["nothing", 9]);
  const [file = ""] = listCheckpointFiles(folder.checkpointDirectory);
  deepStrictEqual(
    (await verify([{ ...keyOf(newer), publicKey: signingKeyOf(3).publicKey }]))[0],
    `checkpoint_untrusted ${file}:1 0`,
  );
});

Deno.test("verifyChain follows the signing key through several changes between two checkpoints, and into a trail that began after them", async () => {
  const second = rotatedKeys(TRAIL_KEYS, 2);
  const fourth = rotatedKeys(rotatedKeys(second, 3), 4);
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3), undefined, { keys: second });
  folder.write(numberedUpTo(4, 4), undefined, { keys: fourth });
  folder.write(numberedUpTo(5, 5), undefined, { keys: fourth });
  await using later = new TrailFolder();
  later.write(numberedUpTo(3), undefined, { keys: fourth });
  const verify = async (of: TrailFolder, seed: number): Promise<string> =>
    foundIn(await verifyChain({ ...folderOf(of), trusted: [keyWith(seed)] }));
  for (const seed of [2, 3, 4]) strictEqual(await verify(folder, seed), "nothing");
  for (const seed of [1, 2, 3, 4]) strictEqual(await verify(later, seed), "nothing");
  strictEqual(await verify(folder, 5), "checkpoint_untrusted checkpoints-2026-01.jsonl:1 0");
});

function keyWith(seed: number): NoteVerifier {
  return { name: TRAIL_KEYS.name, publicKey: signingKeyOf(seed).publicKey };
}

/** The trail's present state, signed by the key with this seed. */
function signedNow(folder: TrailFolder, seed: number): string {
  const checkpoint = decodeCheckpoint(Deno.readFileSync(folder.checkpointPath));
  ok(checkpoint.ok);
  const { seq, root } = checkpoint.value;
  const text = formatTreeHead({ origin: headerOf(folder).origin, size: seq, root });
  return `${JSON.stringify(signNote(text, [noteSigner(TRAIL_KEYS.name, signingKeyOf(seed).pkcs8)]))}\n`;
}

Deno.test("verifyChain finds what somebody has written anew who has stolen a key that was replaced since", async () => {
  const newer = rotatedKeys(TRAIL_KEYS, 2);
  for (const keepsHandover of [true, false]) {
    await using folder = new TrailFolder();
    folder.write(numberedUpTo(3));
    folder.write(numberedUpTo(4, 4), undefined, { keys: newer });
    const handover = Deno.readTextFileSync(folder.signedPath);
    folder.write(numberedUpTo(8, 5), undefined, { keys: newer });
    const found = async (...seeds: number[]): Promise<string> =>
      foundIn(await verifyChain({ ...folderOf(folder), trusted: seeds.map(keyWith) }));
    strictEqual(await found(1, 2), "nothing");
    strictEqual(await found(2), "nothing");
    rewriteTrail(folder, [[...numberedUpTo(keepsHandover ? 4 : 3), numbered(666), numbered(667)]]);
    Deno.writeTextFileSync(folder.signedPath, `${keepsHandover ? handover : ""}${signedNow(folder, 1)}`);
    const line = keepsHandover ? 3 : 1;
    strictEqual(await found(1, 2), `checkpoint_retired checkpoints-2026-01.jsonl:${line} 0`);
    // Nobody can tell without the newer key.
    strictEqual(
      await found(1),
      keepsHandover ? `checkpoint_retired checkpoints-2026-01.jsonl:3 0` : "nothing",
    );
    strictEqual(await found(2), `checkpoint_untrusted checkpoints-2026-01.jsonl:${line} 0`);
  }
});

Deno.test("verifyChain says of a trail from before a change of the key that a newer key was given", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const verdict = await verifyChain({ ...folderOf(folder), trusted: [keyWith(1), keyWith(2)] });
  strictEqual(foundIn(verdict), "checkpoint_retired checkpoints-2026-01.jsonl:1 0");
  match(verdict.finding?.words ?? "", /the trail is older than that key/);
  // A key of another installation says nothing.
  const other = { ...keyWith(2), name: "portcullis.fedcba9876543210" };
  const trusted = [keyWith(1), other];
  strictEqual(foundIn(await verifyChain({ ...folderOf(folder), trusted })), "nothing");
});

Deno.test("verifyChain does not take a key that is only named by an untrusted one", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const { name, pkcs8 } = { ...signingKeyOf(9), name: TRAIL_KEYS.name };
  const voucher = signVoucher(noteSigner(name, pkcs8), keyWith(8));
  const { origin } = headerOf(folder);
  rewriteTrail(folder, [numberedUpTo(6)]);
  const checkpoint = decodeCheckpoint(Deno.readFileSync(folder.checkpointPath));
  ok(checkpoint.ok);
  const { seq, root } = checkpoint.value;
  const text = formatTreeHead({ origin, size: seq, root, vouchers: [voucher] });
  const note = signNote(text, [noteSigner(name, signingKeyOf(8).pkcs8)]);
  Deno.writeTextFileSync(folder.signedPath, `${JSON.stringify(note)}\n`, { append: true });
  const verdict = await verifyChain({ ...folderOf(folder), trusted: [keyWith(1)] });
  strictEqual(foundIn(verdict), "checkpoint_untrusted checkpoints-2026-01.jsonl:2 0");
});

Deno.test("verifyChain finds nothing where end and checkpoints went back together, and a checkpoint kept elsewhere shows it", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS);
  const [name = ""] = listCheckpointFiles(folder.checkpointDirectory);
  const path = `${folder.checkpointDirectory}/${name}`;
  const keptNote = new TextEncoder().encode(folder.notes()[2]);
  const keptHistory = Deno.readFileSync(path);
  const keptCheckpoint = Deno.readFileSync(folder.checkpointPath);
  const kept = [keptNote, keptHistory, keptCheckpoint];
  const verify = async (bytes: Uint8Array): Promise<ChainVerdict> => {
    const heads = parseKeptHeads(bytes);
    ok(heads.ok);
    return await verifyChain({ ...folderOf(folder), kept: heads.value });
  };
  for (const bytes of kept) {
    const verdict = await verify(bytes);
    strictEqual(foundIn(verdict), "nothing");
    strictEqual(verdict.kept?.size, 6);
  }
  // The last segment goes, and all that tells of it.
  Deno.removeSync(folder.segmentPath(3));
  adaptCheckpoint(folder);
  Deno.writeTextFileSync(
    path,
    folder.notes().slice(0, 2).map((note) => `${JSON.stringify(note)}\n`).join(""),
  );
  strictEqual(foundIn(await verifyChain(folder)), "nothing");
  for (const bytes of kept) strictEqual(foundIn(await verify(bytes)), "cut audit-000002.jsonl:0 5");
  // And comes back with other entries, as many as before.
  rewriteTrail(folder, [...THREE_DAYS.slice(0, 2), numberedUpTo(56, 55)]);
  strictEqual(foundIn(await verify(keptNote)), "rewritten audit-000003.jsonl:3 5");
});

Deno.test("verifyChain finds that a checkpoint kept elsewhere is of another trail", async () => {
  await using folder = new TrailFolder();
  await using other = new TrailFolder();
  folder.write(numberedUpTo(3));
  other.write(numberedUpTo(3));
  const heads = parseKeptHeads(new TextEncoder().encode(other.notes()[0]));
  ok(heads.ok);
  const verdict = await verifyChain({ ...folderOf(folder), kept: heads.value });
  strictEqual(foundIn(verdict), "rewritten audit-000001.jsonl:4 1");
});

Deno.test("verifyChain finds nothing in a trail of which entries were taken out with a stub, and counts them", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, [mixedUpTo(4), mixedUpTo(9, 5), mixedUpTo(12, 10)]);
  const verify = async (): Promise<(string | number)[]> => {
    const verdict = await verifyChain(folder);
    return [foundIn(verdict), verdict.entries, verdict.removed, verdict.checkpoints, verdict.unprovable];
  };
  thin(folder, 1, ["activity"]);
  deepStrictEqual(await verify(), ["nothing", 12, 2, 3, 0]);
  thin(folder, 2, ["activity", "security"], false);
  deepStrictEqual(await verify(), ["nothing", 12, 7, 3, 0]);
  thin(folder, 1, ["activity", "security"]);
  deepStrictEqual(await verify(), ["nothing", 12, 9, 3, 0]);
  // The last may go as well: nothing but stubs is left before what is written.
  thin(folder, 2, ["activity", "security"]);
  deepStrictEqual(await verify(), ["nothing", 12, 9, 3, 0]);
  strictEqual((await verifyChain(folder)).firstTime, "2026-01-04T03:04:05.006Z");
});

Deno.test("verifyChain says that a kept checkpoint cannot be compared when its segment has gone, unless a newer one was kept", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, [mixedUpTo(4)]);
  const early = folder.notes();
  // One more checkpoint in the midst of the second segment.
  folder.write(mixedUpTo(6, 5));
  const { notes: inside } = { notes: folder.notes().slice(1) };
  const writer = folder.openWriter();
  for (const event of mixedUpTo(9, 7)) writer.append([unwritten(event)]);
  writer.append([unwritten(numbered(10), TIME_MS + DAY_MS)]);
  writer.sign();
  writer.close();
  thin(folder, 1, ["activity", "security"]);
  const verify = async (notes: readonly string[]): Promise<string> => {
    const heads = notes.flatMap((note) => {
      const parsed = parseKeptHeads(new TextEncoder().encode(note));
      return parsed.ok ? parsed.value : [];
    });
    return foundIn(await verifyChain({ ...folderOf(folder), kept: heads }));
  };
  strictEqual(await verify(early), "kept_unprovable audit-000001.stub:0 4");
  strictEqual(await verify([...early, ...inside]), "kept_unprovable audit-000001.stub:0 6");
  strictEqual(await verify([...early, ...folder.notes().slice(-1)]), "nothing");
  strictEqual((await verifyChain(folder)).unprovable, 2);
});

/** A stub with other facts, signed by somebody. */
function alteredStub(folder: TrailFolder, change: (facts: StubFacts) => Partial<StubFacts>, seed = 1): void {
  const path = `${folder.directory}/${stubName(1)}`;
  const facts = parseStubText(Deno.readTextFileSync(path).split("\n\n")[0] + "\n");
  ok(facts !== undefined);
  const text = stubText({ ...facts, ...change(facts) });
  Deno.writeTextFileSync(path, signNote(text, [noteSigner(TRAIL_KEYS.name, signingKeyOf(seed).pkcs8)]));
}

Deno.test("verifyChain finds entries that were taken out without a stub, or with one that is forged or of something else", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, [mixedUpTo(4), mixedUpTo(8, 5)]);
  thin(folder, 1, ["activity"]);
  const stubPath = `${folder.directory}/${stubName(1)}`;
  const stub = Deno.readTextFileSync(stubPath);
  const lines = folder.lines();
  const found = async (): Promise<string> => {
    const finding = foundIn(await verifyChain(folder));
    Deno.writeTextFileSync(stubPath, stub);
    folder.setLines(lines);
    return finding;
  };
  strictEqual(await found(), "nothing");
  Deno.removeSync(stubPath);
  strictEqual(await found(), "stub_missing audit-000001.jsonl:5 1");
  Deno.writeTextFileSync(stubPath, stub.replace("removed 2", "removed 3"));
  strictEqual(await found(), "stub_wrong audit-000001.stub:0 1");
  alteredStub(folder, () => ({}), 9);
  strictEqual(await found(), "stub_wrong audit-000001.stub:0 1");
  Deno.writeTextFileSync(stubPath, "nonsense");
  strictEqual(await found(), "unreadable audit-000001.jsonl:5 5");
  // Even signed: a stub of another segment, or of other entries.
  for (
    const change of [
      () => ({ first: 2 }),
      () => ({ last: 5 }),
      () => ({ hash: "0".repeat(64) }),
      () => ({ previous: "1".repeat(64) }),
      () => ({ rangeBefore: ["0".repeat(64)] }),
      () => ({ rangeAfter: ["0".repeat(64)] }),
      () => ({ removed: 3 }),
      () => ({ origin: "other/1" }),
      () => ({ file: { sha256: "0".repeat(64), bytes: 1 } }),
    ]
  ) {
    alteredStub(folder, change);
    strictEqual(await found(), "stub_wrong audit-000001.stub:0 1");
  }
  // One entry more than the stub speaks of.
  const kept = lines.findIndex((line) => line.includes('"seq":1,'));
  const { hash } = JSON.parse(lines[kept] ?? "");
  folder.setLines(lines.with(kept, `{"removed":["${hash}"],"seq":1}`));
  strictEqual(await found(), "stub_wrong audit-000001.stub:0 1");
  const removedAt = lines.findIndex((line) => line.startsWith('{"removed"'));
  folder.setLines(lines.with(removedAt, (lines[removedAt] ?? "").replace(/\["..../, '["0000')));
  strictEqual((await found()).startsWith("replaced audit-000001.jsonl:"), true);
});

Deno.test("verifyChain compares what was taken out with the trail's own records of it, where they can all be read", async () => {
  const record = (segment: number, removed: number): AuditEvent => (
    { type: "trail.thinned", segment, first: 1, last: 4, removed, classes: ["activity"] }
  );
  // The stub was made on the first day of 2027.
  const later = Date.parse("2027-01-02T00:00:00.000Z");
  const found = async (
    records: readonly AuditEvent[],
    { endMs = later, sealed = false, thinsNext = false } = {},
  ): Promise<string> => {
    await using folder = new TrailFolder();
    writeDays(folder, [mixedUpTo(4), mixedUpTo(8, 5), [numbered(9)]]);
    thin(folder, 1, ["activity"]);
    if (thinsNext) thin(folder, 2, ["activity"]);
    const sealing = { id: "akey_s", raw: new Uint8Array(32) };
    const writer = folder.openWriter(undefined, { sealed, keys: { ...TRAIL_KEYS, sealing } });
    for (const event of records) writer.append([unwritten(event, TIME_MS + 4 * DAY_MS)]);
    writer.append([unwritten(numbered(10), endMs)]);
    writer.sign();
    writer.close();
    return foundIn(await verifyChain(folder));
  };
  const finding = "stub_wrong audit-000001.stub:0 1";
  strictEqual(await found([record(1, 2)]), "nothing");
  strictEqual(await found([record(1, 1), record(1, 1)]), "nothing");
  // Recorded, and tried again after a crash.
  strictEqual(await found([record(1, 2), record(1, 2)]), "nothing");
  strictEqual(await found([record(1, 1)]), finding);
  strictEqual(await found([]), finding);
  strictEqual(await found([record(2, 2)]), finding);
  // A copy may end before the record; records are sealed, or have gone themselves.
  strictEqual(await found([], { endMs: TIME_MS + 5 * DAY_MS }), "nothing");
  strictEqual(await found([record(1, 1)], { sealed: true }), "nothing");
  strictEqual(await found([record(1, 1), record(2, 2)], { thinsNext: true }), "nothing");
});

Deno.test("verifyChain asks whether it is a copy where entries lack that the stubs in it do not tell of", async () => {
  await using folder = new TrailFolder();
  await using copy = new TrailFolder();
  writeDays(folder, [mixedUpTo(4), mixedUpTo(8, 5)]);
  const copyAll = (from: string, to: string, names: Iterable<{ readonly name: string }>): void => {
    for (const { name } of names) Deno.copyFileSync(`${from}/${name}`, `${to}/${name}`);
  };
  copyAll(folder.checkpointDirectory, copy.checkpointDirectory, Deno.readDirSync(folder.checkpointDirectory));
  const names = [...Deno.readDirSync(folder.directory)];
  thin(folder, 1, ["activity"]);
  copyAll(folder.directory, copy.directory, names);
  const verdict = await verifyChain(copy);
  strictEqual(verdict.finding?.kind, "stub_missing");
  match(verdict.finding.words, /is this a copy .*\*\.stub.* again/);
  copyAll(folder.directory, copy.directory, [{ name: stubName(1) }]);
  strictEqual(foundIn(await verifyChain(copy)), "nothing");
});

Deno.test("verifyChain finds a segment that went with a stub of somebody else, and one whose stub says that entries were kept", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, [mixedUpTo(4), mixedUpTo(8, 5)]);
  thin(folder, 1, ["activity", "security"]);
  strictEqual(foundIn(await verifyChain(folder)), "nothing");
  const stub = Deno.readTextFileSync(`${folder.directory}/${stubName(1)}`);
  alteredStub(folder, () => ({}), 9);
  strictEqual(foundIn(await verifyChain(folder)), "stub_wrong audit-000001.stub:0 1");
  Deno.writeTextFileSync(`${folder.directory}/${stubName(1)}`, stub);
  alteredStub(folder, () => ({ rangeAfter: ["0".repeat(64)] }));
  strictEqual(foundIn(await verifyChain(folder)), "rewritten audit-000001.stub:0 1");
  Deno.writeTextFileSync(`${folder.directory}/${stubName(1)}`, stub);
  alteredStub(folder, () => ({ file: { sha256: "0".repeat(64), bytes: 1 } }));
  strictEqual(foundIn(await verifyChain(folder)), "segment_missing audit-000001.stub:0 1");
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
  const next = forged(folder.lines().at(-1), 4);
  for (
    const tail of [next.slice(0, 1), next.slice(0, 100), next, "\0".repeat(5_000), `${next.slice(0, 9)}\0\0`]
  ) {
    Deno.writeTextFileSync(folder.segmentPath(1), whole + tail);
    const verdict = await verifyChain(folder);
    strictEqual(foundIn(verdict), "nothing");
    deepStrictEqual(verdict.tornTail, { segment: "audit-000001.jsonl", line: 5, bytes: tail.length });
    strictEqual(verdict.entries, 3);
  }
});

Deno.test("verifyChain reads again what looks wrong behind the checkpoint, for a writer may take bytes back meanwhile", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const checkpoint = Deno.readFileSync(folder.checkpointPath);
  folder.writeAndDie(numberedUpTo(5, 4));
  Deno.writeFileSync(folder.checkpointPath, checkpoint);
  const whole = Deno.readTextFileSync(folder.segmentPath(1));
  const [four = "", five = ""] = folder.lines().slice(4);
  const others = forged(folder.lines()[3], 44);
  const passing = [
    whole.replace(four, `${"\0".repeat(50)}${four.slice(50)}`),
    whole.replace(`${four}\n${five}`, `${others}\n${five}`),
    whole.replace(five, "x"),
  ];
  for (const text of passing) {
    Deno.writeTextFileSync(folder.segmentPath(1), text);
    // Both wait in the same loop: this one is first.
    const timer = setTimeout(() => Deno.writeTextFileSync(folder.segmentPath(1), whole), 1);
    const verdict = await verifyChain(folder);
    clearTimeout(timer);
    strictEqual(foundIn(verdict), "nothing");
    strictEqual(verdict.entries, 5);
    strictEqual(verdict.tornTail, undefined);
  }
  // What stays wrong is found.
  Deno.writeTextFileSync(folder.segmentPath(1), passing[1] ?? "");
  strictEqual(foundIn(await verifyChain(folder)), "replaced audit-000001.jsonl:6 5");
});

Deno.test("verifyChain takes a hole of zeros behind the checkpoint for a torn tail, and before it for what it is", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const checkpoint = Deno.readFileSync(folder.checkpointPath);
  folder.writeAndDie(numberedUpTo(6, 4));
  const whole = Deno.readTextFileSync(folder.segmentPath(1));
  const five = folder.lines()[5] ?? "";
  Deno.writeTextFileSync(folder.segmentPath(1), whole.replace(five, "\0".repeat(five.length)));
  strictEqual(foundIn(await verifyChain(folder)), "edited audit-000001.jsonl:6 5");
  Deno.writeFileSync(folder.checkpointPath, checkpoint);
  const verdict = await verifyChain(folder);
  strictEqual(foundIn(verdict), "nothing");
  strictEqual(verdict.entries, 4);
  const bytes = whole.length - whole.indexOf(five);
  deepStrictEqual(verdict.tornTail, { segment: "audit-000001.jsonl", line: 6, bytes });
});

Deno.test("verifyChain finds that stubs, keys or signed checkpoints are no files of their own, or keys too many", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, [mixedUpTo(4), mixedUpTo(8, 5)]);
  thin(folder, 1, ["activity"]);
  const elsewhere = `${folder.root}/elsewhere`;
  const found = async (): Promise<string | undefined> => (await verifyChain(folder)).finding?.kind;
  const paths = [
    `${folder.directory}/${stubName(1)}`,
    `${folder.checkpointDirectory}/trail.vkey`,
    folder.signedPath,
  ];
  for (const path of paths) {
    Deno.renameSync(path, elsewhere);
    Deno.symlinkSync(elsewhere, path);
    strictEqual(await found(), "unreadable", path);
    Deno.renameSync(elsewhere, path);
    strictEqual(await found(), undefined, path);
  }
  const keys = paths[1] ?? "";
  const text = Deno.readTextFileSync(keys);
  for (
    const [changed, kind] of [[text.repeat(20_000), "unreadable"], ["nonsense", "unreadable"], [
      text,
      undefined,
    ]] as const
  ) {
    Deno.writeTextFileSync(keys, changed);
    strictEqual(await found(), kind);
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
  writeDays(folder, THREE_DAYS);
  Deno.writeTextFileSync(folder.segmentPath(1), "{", { append: true });
  strictEqual(foundIn(await verifyChain(folder)), "edited audit-000001.jsonl:4 3");
});

Deno.test("verifyChain finds every change of a single byte, and the writer refuses each such trail untouched", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS.slice(0, 2));
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
    (_, index) => ({ type: "server.stopped" as const, reason: "é".repeat(20_000 + index) }),
  );
  folder.write(events, 100_000_000);
  const steps: [number, number][] = [];
  const verdict = await verifyChain({
    ...folderOf(folder),
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
  Deno.writeFileSync(folder.segmentPath(1), new Uint8Array(LINE_BYTES_MAX + 1), { append: true });
  strictEqual(foundIn(await verifyChain(folder)), "edited audit-000001.jsonl:4 3");
});

function folderOf({ directory, checkpointDirectory }: TrailFolder): VerifyChainOptions {
  return { directory, checkpointDirectory };
}

Deno.test("verifyChain finds nothing in a trail that went on behind a header alone, as a crash leaves one", async () => {
  await using folder = new TrailFolder();
  writeDays(folder, THREE_DAYS.slice(0, 1));
  const early = Deno.readFileSync(folder.checkpointPath);
  const writer = folder.openWriter();
  writer.append([unwritten(numbered(3), TIME_MS + DAY_MS)]);
  writer.close();
  folder.setLines(folder.lines(2).slice(0, 1), 2);
  Deno.writeFileSync(folder.checkpointPath, early);
  strictEqual(foundIn(await verifyChain(folder)), "nothing");
  const next = folder.openWriter();
  next.append([unwritten(numbered(3), TIME_MS + DAY_MS + 5)]);
  next.close();
  strictEqual(foundIn(await verifyChain(folder)), "nothing");
  strictEqual(folder.lines(2).length, 2);
});
