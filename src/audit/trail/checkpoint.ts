// Checkpoint: the last durable entry, noted in a directory of its own, so that a cut end of the trail shows.
import { hash } from "node:crypto";
import { canonicalJson } from "../../encoding/canonical_json.ts";
import { decodeUtf8, encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";
import { CHAIN_START, type ChainHead } from "./hash_chain.ts";
import { EMPTY_ROOT, isSha256Hex } from "./merkle_tree.ts";
import { readSmallFile } from "./read_small_file.ts";
import { leadsTo, reasonOf, segmentName, segmentNumber, syncDirectory } from "./segment_files.ts";

/** What the trail had reached when the checkpoint was written. */
export interface Checkpoint extends ChainHead {
  /** Of the Merkle tree over all entries to this one; lower-case hexadecimal. */
  readonly root: string;
  /** The file name of the segment that holds the entry. */
  readonly segment: string;
}

const FILE_NAME = "checkpoint.json";
/** One write of one size into one disk sector: after a power loss it is the old text or the new one. */
const FILE_BYTES = 512;
const START: Checkpoint = { ...CHAIN_START, root: EMPTY_ROOT, segment: segmentName(1) };

/** The file's bytes: canonical JSON with a `check` over the rest, padded with spaces to one fixed size. */
export function encodeCheckpoint(checkpoint: Checkpoint): Uint8Array<ArrayBuffer> {
  const { hash, root, segment, seq } = checkpoint;
  const text = canonicalJson({ check: checkOf(checkpoint), hash, root, segment, seq });
  return encodeUtf8(`${text.padEnd(FILE_BYTES - 1)}\n`);
}

/** The checkpoint in the file's bytes; "unreadable" when they are none or, by their `check`, a mix of two. */
export function decodeCheckpoint(bytes: Uint8Array): Outcome<Checkpoint, "unreadable"> {
  const text = decodeUtf8(bytes);
  if (!text.ok) return no("unreadable");
  try {
    const { hash, root, segment, seq, check } = JSON.parse(text.value);
    const wellFormed = Number.isSafeInteger(seq) && seq >= 0 && isSha256Hex(hash) && isSha256Hex(root) &&
      typeof segment === "string" && segmentNumber(segment) !== undefined;
    const checkpoint = { hash, root, segment, seq };
    return wellFormed && check === checkOf(checkpoint) && sameBytes(encodeCheckpoint(checkpoint), bytes)
      ? ok(checkpoint)
      : no("unreadable");
  } catch {
    return no("unreadable");
  }
}

function checkOf({ hash: head, root, segment, seq }: Checkpoint): string {
  return hash("sha256", canonicalJson({ hash: head, root, segment, seq }), "hex");
}

function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}

/**
 * Reads the checkpoint of a trail that may be in use. The writer overwrites in place, so a reader might meet a mix of
 * two texts: `check` shows it and the file is read again.
 */
export function readCheckpoint(directory: string): Outcome<Checkpoint, "missing" | "unreadable"> {
  for (let attempt = 1;; attempt++) {
    let bytes: Uint8Array;
    try {
      bytes = readSmallFile(`${directory}/${FILE_NAME}`, FILE_BYTES);
    } catch (thrown) {
      return no(thrown instanceof Deno.errors.NotFound ? "missing" : "unreadable");
    }
    const checkpoint = decodeCheckpoint(bytes);
    if (checkpoint.ok || attempt === 10) return checkpoint;
  }
}

/**
 * The checkpoint's file while the trail is open; it also holds the lock that keeps a second writer out.
 *
 * It is written without fsync, after the entries were synced: so it is behind the log or equal to it, also after a
 * power loss, because what it names was on the disk before its own bytes even reached the page cache. Ahead of the
 * log it can only be when entries were taken away.
 */
export class CheckpointFile {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  readonly #info: Deno.FileInfo;
  #checkpoint: Checkpoint = START;

  /**
   * Opens and locks the file. Creates it (durably) for a trail that has no segment yet: an entry never exists
   * without a checkpoint, so a missing one was taken away.
   *
   * @throws Fault `unavailable` when it is missing, unreadable or locked by another writer
   */
  constructor(directory: string, trailIsNew: boolean) {
    this.#path = `${directory}/${FILE_NAME}`;
    this.#file = openFile(this.#path, trailIsNew);
    try {
      if (!this.#file.tryLockSync(true)) {
        refuse("another Portcullis runs on this data folder; stop it, or set PORTCULLIS_DATA_DIR");
      }
      const bytes = readFile(this.#path);
      const read = decodeCheckpoint(bytes);
      if (read.ok) {
        this.#checkpoint = read.value;
      } else if (trailIsNew && bytes.every((byte) => byte === 0)) {
        // Just created, or the machine stopped while it was.
        this.#file.truncateSync(0);
        this.write(START);
        this.#file.syncSync();
        syncDirectory(directory);
      } else {
        refuse("its text is damaged");
      }
      this.#info = this.#file.statSync();
    } catch (thrown) {
      this.#file.close();
      throw thrown;
    }
  }

  /** The last one written. */
  get checkpoint(): Checkpoint {
    return this.#checkpoint;
  }

  /** Overwrites the file in place: nothing is allocated, so a full disk does not fail it. */
  write(checkpoint: Checkpoint): void {
    this.#file.seekSync(0, Deno.SeekMode.Start);
    this.#file.writeSync(encodeCheckpoint(checkpoint));
    this.#checkpoint = checkpoint;
  }

  /** Makes the last one durable. */
  sync(): void {
    this.#file.syncDataSync();
  }

  /** @throws Fault `unavailable` when the path no longer leads to the open file */
  requireInPlace(): void {
    if (!leadsTo(this.#path, this.#info, FILE_BYTES)) refuse("the file was deleted or replaced");
  }

  /** Makes the last checkpoint durable and gives the lock back. */
  close(): void {
    try {
      this.sync();
    } catch {
      // It was never promised to be durable.
    }
    this.#file.close();
  }
}

function openFile(path: string, create: boolean): Deno.FsFile {
  try {
    return Deno.openSync(path, { read: true, write: true, create, mode: 0o600 });
  } catch (thrown) {
    return refuse(
      thrown instanceof Deno.errors.NotFound
        ? "it is missing though the trail has entries"
        : reasonOf(thrown),
      thrown,
    );
  }
}

function readFile(path: string): Uint8Array {
  try {
    return readSmallFile(path, FILE_BYTES);
  } catch (thrown) {
    return refuse(reasonOf(thrown), thrown);
  }
}

function refuse(state: string, cause?: unknown): never {
  throw new Fault("unavailable", `Cannot use the audit checkpoint: ${state}`, { cause });
}
