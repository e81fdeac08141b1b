// Signed checkpoints: appends tree heads, signed, to the files that keep them, and publishes the keys that verify them.
import { canonicalJson } from "../encoding/canonical_json.ts";
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import { reasonOf, syncDirectory } from "./segment_files.ts";
import {
  formatVerifierKey,
  keyHash,
  type NoteSignature,
  type NoteSigner,
  noteSigner,
  parseNote,
  signNote,
} from "./signed_note.ts";
import type { TrailKeys } from "./trail_keys.ts";
import { formatTreeHead, parseTreeHead, type TreeHead } from "./tree_head.ts";

/** The file with the verifier keys, one a line, the newest last. */
export const VERIFIER_KEYS_FILE = "trail.vkey";

const FILE_NAME = /^checkpoints-\d{4}-\d\d\.jsonl$/;
/** A note with two signatures and a key is shorter than 1 KiB. */
const TAIL_BYTES = 16 * 1024;
const LINE_FEED = 0x0a;

/** The names of the files with signed checkpoints in a directory, the oldest first: tree sizes grow from line to line and file to file. */
export function listCheckpointFiles(directory: string): string[] {
  return [...Deno.readDirSync(directory)].filter(({ name, isFile }) => isFile && FILE_NAME.test(name))
    .map(({ name }) => name).sort();
}

/** Signs the checkpoints of one trail. */
export class SignedCheckpoints {
  readonly #directory: string;
  #file: string | undefined;
  #last: TreeHead | undefined;
  /** Whose signatures stand under the last one. */
  #lastSignatures: readonly NoteSignature[] = [];
  #signer: NoteSigner;
  #older: readonly NoteSigner[];
  #published = "";

  /**
   * Reads the newest signed checkpoint; changes nothing.
   *
   * @throws Fault `unavailable` when it is damaged · when the directory cannot be read
   */
  constructor(directory: string, keys: TrailKeys) {
    this.#directory = directory;
    [this.#signer, this.#older] = signersOf(keys);
    try {
      for (const name of listCheckpointFiles(directory).reverse()) {
        this.#file ??= name;
        const { line } = readTail(`${directory}/${name}`);
        if (line === undefined) continue; // nothing but a torn write
        this.#take(line);
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

  /** Whether the newest one was signed by a key that signs no more. */
  get isHandoverDue(): boolean {
    return this.#last !== undefined && !this.#lastSignatures.some((line) => isBy(line, this.#signer));
  }

  /** From now on these sign. */
  useKeys(keys: TrailKeys): void {
    [this.#signer, this.#older] = signersOf(keys);
  }

  /**
   * Signs a tree head; it is durable when this returns. Where the key has changed since the last one, the key before signs as
   * well and names the new one, so that whoever trusts that key may trust this one.
   *
   * @param time ISO 8601, of the tree's last entry: by its month the file is called
   * @throws Error when it cannot be written
   */
  sign(head: TreeHead, time: string): void {
    const before = this.isHandoverDue
      ? this.#older.find((key) => this.#lastSignatures.some((line) => isBy(line, key)))
      : undefined;
    const signed = before === undefined ? head : { ...head, nextKey: formatVerifierKey(this.#signer) };
    const note = signNote(
      formatTreeHead(signed),
      before === undefined ? [this.#signer] : [before, this.#signer],
    );
    this.#publishKey();
    const name = `checkpoints-${time.slice(0, 7)}.jsonl`;
    // Never into an older file, whatever the clock did.
    const file = this.#file === undefined || name > this.#file ? name : this.#file;
    append(this.#directory, file, `${canonicalJson(note)}\n`, file !== this.#file);
    this.#file = file;
    this.#take(note);
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

  /** Before its first signature. */
  #publishKey(): void {
    const line = formatVerifierKey(this.#signer);
    if (this.#published === line) return;
    const path = `${this.#directory}/${VERIFIER_KEYS_FILE}`;
    const present = readText(path);
    if (!present.split("\n").includes(line)) {
      using file = Deno.openSync(`${path}.new`, { write: true, create: true, truncate: true, mode: 0o600 });
      writeAll(file, `${present}${line}\n`);
      file.syncSync();
      Deno.renameSync(`${path}.new`, path);
      syncDirectory(this.#directory);
    }
    this.#published = line;
  }
}

function signersOf({ name, signing, older }: TrailKeys): [NoteSigner, readonly NoteSigner[]] {
  return [noteSigner(name, signing.pkcs8), older.map(({ pkcs8 }) => noteSigner(name, pkcs8))];
}

function isBy(line: NoteSignature, key: NoteSigner): boolean {
  return line.name === key.name && line.keyHash.toHex() === keyHash(key).toHex();
}

/** The last whole line of a file, and how many bytes are whole lines. */
function readTail(path: string): { readonly line: string | undefined; readonly size: number } {
  using file = Deno.openSync(path, { read: true });
  const { size } = file.statSync();
  const start = Math.max(0, size - TAIL_BYTES);
  file.seekSync(start, Deno.SeekMode.Start);
  const bytes = new Uint8Array(size - start);
  for (let read = 0; read < bytes.length;) read += file.readSync(bytes.subarray(read)) ?? bytes.length;
  const end = bytes.lastIndexOf(LINE_FEED);
  if (end === -1) {
    if (start > 0) throw new Error(`${path} ends with no line`);
    return { line: undefined, size: 0 };
  }
  const text = decodeUtf8(bytes.subarray(bytes.lastIndexOf(LINE_FEED, end - 1) + 1, end));
  let line: unknown;
  try {
    line = text.ok ? JSON.parse(text.value) : undefined;
  } catch {
    // No JSON.
  }
  return { line: typeof line === "string" ? line : "", size: start + end + 1 };
}

/** Appends a line behind the last whole one, and makes it durable. */
function append(directory: string, name: string, line: string, isNew: boolean): void {
  const path = `${directory}/${name}`;
  using file = Deno.openSync(path, { read: true, write: true, create: true, mode: 0o600 });
  // Half a line, as a crash or a full disk leaves it.
  const { size } = readTail(path);
  file.truncateSync(size);
  file.seekSync(size, Deno.SeekMode.Start);
  writeAll(file, line);
  file.syncSync();
  if (isNew) syncDirectory(directory);
}

function writeAll(file: Deno.FsFile, text: string): void {
  const bytes = encodeUtf8(text);
  for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return "";
    throw thrown;
  }
}
