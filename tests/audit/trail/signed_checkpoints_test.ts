// Tests of the signed checkpoints that a trail's writer leaves.
import { deepStrictEqual, match, ok, strictEqual, throws } from "node:assert/strict";
import { CompactRange } from "../../../src/audit/trail/merkle_tree.ts";
import {
  formatVerifierKey,
  noteSigner,
  openNote,
  parseVerifierKey,
} from "../../../src/audit/trail/signed_note.ts";
import { listCheckpointFiles } from "../../../src/audit/trail/signed_checkpoints.ts";
import type { TrailKeys } from "../../../src/audit/trail_keys.ts";
import { parseTreeHead, type TreeHead } from "../../../src/audit/trail/tree_head.ts";
import { verifyChain } from "../../../src/audit/verify/verify_chain.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { rewriteTrail } from "../forged_trail.ts";
import {
  numbered,
  numberedUpTo,
  rotatedKeys,
  TIME_MS,
  TRAIL_KEYS,
  TrailFolder,
  unwritten,
} from "../trail_folder.ts";

const DAY_MS = 86_400_000;
const KEY = noteSigner(TRAIL_KEYS.name, TRAIL_KEYS.signing.pkcs8);
/** The keys after a rotation. */
const NEXT_KEYS: TrailKeys = rotatedKeys(TRAIL_KEYS, 2);
const NEXT_KEY = noteSigner(TRAIL_KEYS.name, NEXT_KEYS.signing.pkcs8);

/** What a trail's notes say, each verified. */
function heads(folder: TrailFolder, ...keys: (typeof KEY)[]): TreeHead[] {
  return folder.notes().map((note) => {
    const opened = openNote(note, keys.length === 0 ? [KEY] : keys);
    const head = opened.ok ? parseTreeHead(opened.value.text) : opened;
    if (!head.ok) throw new Error(head.reason);
    return head.value;
  });
}

function rootOf(folder: TrailFolder, size: number): string {
  const tree = new CompactRange();
  for (const { hash } of folder.entries().slice(0, size)) tree.append(hash);
  return tree.root();
}

function refused(folder: TrailFolder, words: RegExp): void {
  throws(() => folder.openWriter(), (thrown) => {
    ok(thrown instanceof Fault);
    match(thrown.message, words);
    return true;
  });
}

Deno.test("a signed checkpoint says which trail it is, how many entries it has, and the root of their tree", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter();
  for (let number = 1; number <= 5; number++) {
    writer.append([unwritten(numbered(number))]);
    if (number % 2 === 1) writer.sign();
  }
  writer.close();
  const origin = JSON.parse(folder.lines()[0] ?? "").origin;
  match(origin, /^portcullis\.0123456789abcdef\/[0-9a-f]{16}$/);
  deepStrictEqual(heads(folder), [1, 3, 5].map((size) => ({ origin, size, root: rootOf(folder, size) })));
});

Deno.test("the checkpoint beside the lock has the root as well", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(5));
  strictEqual(JSON.parse(Deno.readTextFileSync(folder.checkpointPath)).root, rootOf(folder, 5));
});

Deno.test("nothing is signed twice, and an empty trail not at all", async () => {
  await using folder = new TrailFolder();
  folder.write([]);
  deepStrictEqual(folder.notes(), []);
  folder.write(numberedUpTo(2));
  folder.write([]);
  strictEqual(folder.notes().length, 1);
});

Deno.test("every segment that is left has a checkpoint at its end", async () => {
  await using folder = new TrailFolder();
  folder.writeAndDie(numberedUpTo(6), 900);
  deepStrictEqual(heads(folder).map(({ size }) => size), [2, 4]);
});

Deno.test("the verifier's key is published before its first signature, and later ones behind it", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1)]);
  folder.write([numbered(2)]);
  folder.write([numbered(3)], undefined, { keys: NEXT_KEYS });
  const lines = Deno.readTextFileSync(`${folder.checkpointDirectory}/trail.vkey`).split("\n");
  deepStrictEqual(lines, [formatVerifierKey(KEY), formatVerifierKey(NEXT_KEY), ""]);
  strictEqual(parseVerifierKey(lines[0] ?? "").ok, true);
});

Deno.test("a key that somebody else has published is gone with the next start or change of the key", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1)]);
  const path = `${folder.checkpointDirectory}/trail.vkey`;
  const published = Deno.readTextFileSync(path);
  Deno.writeTextFileSync(path, `${formatVerifierKey(NEXT_KEY)}\n`, { append: true });
  folder.write([numbered(2)]);
  strictEqual(Deno.readTextFileSync(path), published);
});

Deno.test("keys that changed more than once since the last checkpoint are all vouched for in the next, and in the first of a new trail", async () => {
  const keys = rotatedKeys(rotatedKeys(NEXT_KEYS, 3), 4);
  const vouchers = keys.older.map(({ voucher }) => voucher).reverse();
  await using folder = new TrailFolder();
  folder.write([numbered(1)], undefined, { keys: NEXT_KEYS });
  folder.write([numbered(2)], undefined, { keys });
  folder.write([numbered(3)], undefined, { keys });
  const [, second, third] = heads(folder, NEXT_KEY, noteSigner(keys.name, keys.signing.pkcs8));
  deepStrictEqual([second?.vouchers, third?.vouchers], [vouchers.slice(1), undefined]);
  await using other = new TrailFolder();
  other.write([numbered(1)], undefined, { keys });
  deepStrictEqual(heads(other, noteSigner(keys.name, keys.signing.pkcs8))[0]?.vouchers, vouchers);
});

Deno.test("checkpoints go into a file a month, and never back into an older one", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter();
  for (const days of [0, 40, 20]) {
    writer.append([unwritten(numbered(days), TIME_MS + days * DAY_MS)]);
    writer.sign();
  }
  writer.close();
  const names = listCheckpointFiles(folder.checkpointDirectory);
  deepStrictEqual(names, ["checkpoints-2026-01.jsonl", "checkpoints-2026-02.jsonl"]);
  deepStrictEqual(heads(folder).map(({ size }) => size), [1, 2, 3]);
  for (const name of [...names, "trail.vkey"]) {
    strictEqual((Deno.statSync(`${folder.checkpointDirectory}/${name}`).mode ?? 0) & 0o777, 0o600);
  }
});

Deno.test("when the signing key changes, the voucher of the one before stands in one checkpoint of the new one", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter();
  writer.append([unwritten(numbered(1))]);
  writer.sign();
  writer.useKeys(NEXT_KEYS);
  strictEqual(writer.isSignatureOwed, true);
  writer.sign();
  strictEqual(writer.isSignatureOwed, false);
  writer.sign();
  writer.append([unwritten(numbered(2))]);
  writer.sign();
  writer.close();
  const [first, handover, last, ...others] = folder.notes();
  deepStrictEqual(others, []);
  const sizesUnder = (key: typeof KEY): (number | undefined)[] =>
    [first, handover, last].map((note) => {
      const opened = openNote(note ?? "", [key]);
      const head = opened.ok ? parseTreeHead(opened.value.text) : opened;
      return head.ok ? head.value.size : undefined;
    });
  deepStrictEqual(sizesUnder(KEY), [1, undefined, undefined]);
  deepStrictEqual(sizesUnder(NEXT_KEY), [undefined, 1, 2]);
  deepStrictEqual(heads(folder, KEY, NEXT_KEY).map(({ vouchers }) => vouchers), [
    undefined,
    NEXT_KEYS.older.map(({ voucher }) => voucher),
    undefined,
  ]);
});

Deno.test("a key that changed while no server ran is handed over to at the next start", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1)]);
  folder.write([], undefined, { keys: NEXT_KEYS });
  folder.write([numbered(2)], undefined, { keys: NEXT_KEYS });
  deepStrictEqual(heads(folder, KEY, NEXT_KEY).map(({ size, vouchers }) => [size, vouchers !== undefined]), [
    [1, false],
    [1, true],
    [2, false],
  ]);
});

Deno.test("half a line, as a crash leaves it, is cut off before the next checkpoint", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1)]);
  const [name = ""] = listCheckpointFiles(folder.checkpointDirectory);
  const path = `${folder.checkpointDirectory}/${name}`;
  const whole = Deno.readTextFileSync(path);
  for (let kept = 1; kept < whole.length; kept += 40) {
    Deno.writeTextFileSync(path, whole + whole.slice(0, kept));
    folder.write([]);
    folder.writeAndDie([]);
  }
  folder.write([numbered(2)]);
  deepStrictEqual(heads(folder).map(({ size }) => size), [1, 2]);
});

Deno.test("a last line with zero bytes, as a power cut leaves it, is cut off, and none before it", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1)]);
  const { size } = Deno.statSync(folder.signedPath);
  folder.write([numbered(2)]);
  const bytes = Deno.readFileSync(folder.signedPath);
  Deno.writeFileSync(folder.signedPath, bytes.fill(0, size, size + 40));
  strictEqual((await verifyChain(folder)).finding, undefined);
  folder.write([numbered(3)]);
  deepStrictEqual(heads(folder).map(({ size }) => size), [1, 3]);
  strictEqual((await verifyChain(folder)).finding, undefined);
  const two = Deno.readFileSync(folder.signedPath);
  Deno.writeFileSync(folder.signedPath, two.fill(0, 0, 40));
  strictEqual((await verifyChain(folder)).finding?.kind, "checkpoint_forged");
});

Deno.test("a file of checkpoints that is a link, or no file at all, is not passed over", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1)]);
  Deno.renameSync(folder.signedPath, `${folder.root}/elsewhere`);
  Deno.symlinkSync(`${folder.root}/elsewhere`, folder.signedPath);
  refused(folder, /Cannot use checkpoints-2026-01.jsonl: it is no regular file/);
  match(String((await verifyChain(folder)).finding?.words), /it is no regular file/);
});

Deno.test("a last checkpoint whose signature is wrong is refused", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1)]);
  const [note = ""] = folder.notes();
  const forged = note.replace(/\n1\n/, "\n2\n");
  Deno.writeTextFileSync(folder.signedPath, `${JSON.stringify(forged)}\n`);
  refused(folder, /the last one's signature is wrong/);
});

Deno.test("a checkpoint that cannot be written is owed, fails no record, and is written when it can be", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter();
  try {
    // A folder where the file belongs.
    Deno.mkdirSync(`${folder.checkpointDirectory}/checkpoints-2026-01.jsonl`);
    writer.append([unwritten(numbered(1))]);
    throws(() => writer.sign(), /Cannot write a signed audit checkpoint/);
    strictEqual(writer.isSignatureOwed, true);
    writer.append([unwritten(numbered(2))]);
    Deno.removeSync(`${folder.checkpointDirectory}/checkpoints-2026-01.jsonl`);
    writer.sign();
    strictEqual(writer.isSignatureOwed, false);
  } finally {
    writer.close();
  }
  deepStrictEqual(heads(folder).map(({ size }) => size), [2]);
});

Deno.test("a trail that ends before a signed checkpoint is refused, though the other checkpoint was taken back with it", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(2));
  const checkpoint = Deno.readFileSync(folder.checkpointPath);
  const segment = Deno.readFileSync(folder.segmentPath(1));
  folder.write(numberedUpTo(4, 3));
  Deno.writeFileSync(folder.checkpointPath, checkpoint);
  Deno.writeFileSync(folder.segmentPath(1), segment);
  refused(folder, /ends before entry 4, which a signed checkpoint has seen/);
});

Deno.test("a trail that was taken away as a whole is not begun anew beside its signed checkpoints", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(2));
  Deno.removeSync(folder.segmentPath(1));
  Deno.removeSync(folder.checkpointPath);
  refused(folder, /ends before entry 2, which a signed checkpoint has seen/);
});

Deno.test("a trail of other entries than those that were signed is refused", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(2));
  await using other = new TrailFolder();
  other.write(numberedUpTo(3, 2));
  Deno.copyFileSync(other.checkpointPath, folder.checkpointPath);
  Deno.copyFileSync(other.segmentPath(1), folder.segmentPath(1));
  refused(folder, /it is another trail than the one that a signed checkpoint has seen/);
  await using rewritten = new TrailFolder();
  rewritten.write(numberedUpTo(2));
  rewriteTrail(rewritten, [numberedUpTo(3, 2)]);
  refused(rewritten, /line 3 is not the entry that a signed checkpoint has seen/);
});

Deno.test("signed checkpoints whose last line is damaged are refused", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(2));
  const path = `${folder.checkpointDirectory}/checkpoints-2026-01.jsonl`;
  for (const damaged of ["{}\n", '"note"\n', "\n"]) {
    Deno.writeTextFileSync(path, damaged);
    refused(folder, /the last one is damaged/);
  }
});
