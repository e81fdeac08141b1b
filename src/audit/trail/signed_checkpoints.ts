// Signed checkpoints: appends tree heads, signed, to the files that keep them, and publishes the keys that verify them.
import { canonicalJson } from "../../encoding/canonical_json.ts";
import { decodeUtf8, encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { reasonOf, syncDirectory } from "./segment_files.ts";
import {
  formatVerifierKeys,
  keyHash,
  type NoteSignature,
  noteSigner,
  type NoteVerifier,
  openNote,
  parseNote,
  signNote,
} from "./signed_note.ts";
import type { TrailKeys } from "../trail_keys.ts";
import { formatTreeHead, parseTreeHead, type TreeHead } from "./tree_head.ts";

/** The file with the verifier keys, one a line, the newest last. */
export const VERIFIER_KEYS_FILE = "trail.vkey";

const FILE_NAME = /^checkpoints-\d{4}-\d\d\.jsonl$/;
/** A note is shorter than 1 KiB, but for one with vouchers: 500 bytes each. */
const TAIL_BYTES = 64 * 1024;
/** Changes of the key between two checkpoints of a trail. */
const VOUCHERS_MAX = 100;
const LINE_FEED = 0x0a;

/**
 * The names of the files with signed checkpoints in a directory, the oldest first: tree sizes grow from line to line and file to file.
 *
 * @throws Fault `unavailable` when one is no regular file · Error when the directory cannot be read
 */
export function listCheckpointFiles(directory: string): string[] {
  const files = [...Deno.readDirSync(directory)].filter(({ name }) => FILE_NAME.test(name));
  const other = files.find(({ isFile }) => !isFile);
  // Passed over, it would hide what it stands for; a link could lead anywhere.
  if (other !== undefined) throw new Fault("unavailable", `Cannot use ${other.name}: it is no regular file`);
  return files.map(({ name }) => name).sort();
}

/** Signs the checkpoints of one trail. */
export class SignedCheckpoints {
  readonly #directory: string;
  #file: string | undefined;
  #last: TreeHead | undefined;
  #isOurs = false;
  /** Whose signatures stand under the last one. */
  #lastSignatures: readonly NoteSignature[] = [];
  #keys: TrailKeys;
  #published = "";

  /**
   * Reads the newest signed checkpoint; changes nothing.
   *
   * @throws Fault `unavailable` when it is damaged or its signature is wrong · when the directory cannot be read
   */
  constructor(directory: string, keys: TrailKeys) {
    this.#directory = directory;
    this.#keys = keys;
    try {
      for (const name of listCheckpointFiles(directory).reverse()) {
        this.#file ??= name;
        const { line } = readTail(`${directory}/${name}`);
        if (line === undefined) continue; // nothing but a torn write
        this.#take(line);
        this.#isOurs = this.#verify(line);
        break;
      }
    } catch (thrown) {
      if (thrown instanceof Fault) throw thrown;
      throw new Fault("unavailable", `Cannot read the signed audit checkpoints: ${reasonOf(thrown)}`, {
        cause: thrown,
      });
    }
  }

  /** The newest one; undefined before the first. */
  get last(): TreeHead | undefined {
    return this.#last;
  }

  /** Whether a key of this installation has signed the newest one: what anybody can have written vouches for nothing. */
  get isOurs(): boolean {
    return this.#isOurs;
  }

  /** Whether the newest one was signed by a key that signs no more. */
  get isHandoverDue(): boolean {
    return this.#last !== undefined && !this.#isLastBy(this.#keys.signing);
  }

  /** From now on these sign. */
  useKeys(keys: TrailKeys): void {
    this.#keys = keys;
  }

  /**
   * Signs a tree head; it is durable when this returns. Where the key has changed since the last one, the vouchers of the keys
   * between stand in it, so that whoever trusts the key before may trust this one.
   *
   * @param time ISO 8601, of the tree's last entry: by its month the file is called
   * @throws Error when it cannot be written
   */
  sign(head: TreeHead, time: string): void {
    const signer = noteSigner(this.#keys.name, this.#keys.signing.pkcs8);
    const note = signNote(formatTreeHead({ ...head, vouchers: this.#vouchers() }), [signer]);
    this.#publishKeys();
    const name = `checkpoints-${time.slice(0, 7)}.jsonl`;
    // Never into an older file, whatever the clock did.
    const file = this.#file === undefined || name > this.#file ? name : this.#file;
    append(this.#directory, file, `${canonicalJson(note)}\n`);
    this.#file = file;
    this.#take(note);
    this.#isOurs = true;
  }

  #verify(note: string): boolean {
    const { name, signing, older } = this.#keys;
    const opened = openNote(note, [signing, ...older].map(({ publicKey }) => ({ name, publicKey })));
    if (!opened.ok && opened.reason === "forged") {
      throw new Fault(
        "unavailable",
        "Cannot use the signed audit checkpoints: the last one's signature is wrong",
      );
    }
    return opened.ok;
  }

  #take(note: string): void {
    const parsed = parseNote(note);
    const head = parsed.ok ? parseTreeHead(parsed.value.text) : parsed;
    if (!parsed.ok || !head.ok) {
      throw new Fault("unavailable", `Cannot use the signed audit checkpoints: the last one is damaged`);
    }
    this.#last = head.value;
    this.#lastSignatures = parsed.value.signatures;
  }

  /** From the key that signed last, or from the first one of all, to the present one; the oldest first. */
  #vouchers(): readonly string[] {
    const { signing, older } = this.#keys;
    if (this.#isLastBy(signing)) return [];
    const last = this.#last === undefined ? older.length - 1 : older.findIndex((key) => this.#isLastBy(key));
    return older.slice(0, last + 1).slice(0, VOUCHERS_MAX).map(({ voucher }) => voucher).reverse();
  }

  #isLastBy({ publicKey }: Pick<NoteVerifier, "publicKey">): boolean {
    const hash = keyHash({ name: this.#keys.name, publicKey }).toHex();
    return this.#lastSignatures.some(({ name, keyHash: hint }) =>
      name === this.#keys.name && hint.toHex() === hash
    );
  }

  /** Before their first signature. What stands in the file is not asked: whoever can write there can put any key in it. */
  #publishKeys(): void {
    const { name, signing, older } = this.#keys;
    const text = formatVerifierKeys(
      [...older.toReversed(), signing].map(({ publicKey }) => ({ name, publicKey })),
    );
    if (this.#published === text) return;
    const path = `${this.#directory}/${VERIFIER_KEYS_FILE}`;
    using file = Deno.openSync(`${path}.new`, { write: true, create: true, truncate: true, mode: 0o600 });
    writeAll(file, text);
    file.syncSync();
    Deno.renameSync(`${path}.new`, path);
    syncDirectory(this.#directory);
    this.#published = text;
  }
}

/** The last whole line of a file, and how many bytes are whole lines. One with zero bytes is what a power cut has left of one. */
function readTail(path: string): { readonly line: string | undefined; readonly size: number } {
  using file = Deno.openSync(path, { read: true });
  const { size } = file.statSync();
  const start = Math.max(0, size - TAIL_BYTES);
  file.seekSync(start, Deno.SeekMode.Start);
  const bytes = new Uint8Array(size - start);
  for (let read = 0; read < bytes.length;) read += file.readSync(bytes.subarray(read)) ?? bytes.length;
  let end = bytes.lastIndexOf(LINE_FEED);
  if (end !== -1 && lastLine(bytes, end).includes(0)) {
    end = end === 0 ? -1 : bytes.lastIndexOf(LINE_FEED, end - 1);
  }
  if (end === -1) {
    if (start > 0) throw new Error(`${path} ends with no line`);
    return { line: undefined, size: 0 };
  }
  const text = decodeUtf8(lastLine(bytes, end));
  let line: unknown;
  try {
    line = text.ok ? JSON.parse(text.value) : undefined;
  } catch {
    // No JSON.
  }
  return { line: typeof line === "string" ? line : "", size: start + end + 1 };
}

/** The line that ends with the line feed at `end`, without it. */
function lastLine(bytes: Uint8Array, end: number): Uint8Array {
  return bytes.subarray(end === 0 ? 0 : bytes.lastIndexOf(LINE_FEED, end - 1) + 1, end);
}

/** Appends a line behind the last whole one, and makes it durable. */
function append(directory: string, name: string, line: string): void {
  const path = `${directory}/${name}`;
  // Also where somebody has deleted it meanwhile.
  const isNew = !exists(path);
  using file = Deno.openSync(path, { read: true, write: true, create: true, mode: 0o600 });
  // Half a line, as a crash or a full disk leaves it.
  const { size } = readTail(path);
  file.truncateSync(size);
  file.seekSync(size, Deno.SeekMode.Start);
  writeAll(file, line);
  file.syncSync();
  if (isNew) syncDirectory(directory);
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return false;
    throw thrown;
  }
}

function writeAll(file: Deno.FsFile, text: string): void {
  const bytes = encodeUtf8(text);
  for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
}
