// Segment writer: appends batches to the trail's segment files; what it has taken is durable. Runs in the audit worker.
import { encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import { CheckpointFile } from "./checkpoint.ts";
import { CHAIN_START, type ChainHead, checkLink, extendChain, parseEntry } from "./hash_chain.ts";
import { leadsTo, listSegments, readLines, reasonOf, segmentName, syncDirectory } from "./segment_files.ts";

/** Where the trail lies and how large its files grow. */
export interface SegmentWriterOptions {
  /** The segments' directory; it exists. */
  readonly directory: string;
  /** The checkpoint's directory; it exists, and is not the segments' one. */
  readonly checkpointDirectory: string;
  /** A segment that would grow beyond this many bytes is left and a new one begun; one batch is never split. */
  readonly segmentBytesMax: number;
}

/** An event on its way to the disk. */
export interface UnwrittenEvent {
  /** Wall time: milliseconds since 1970. */
  readonly timeMs: number;
  /** The event as canonical JSON. */
  readonly text: string;
}

/** As many bytes as a probe wants to find free: some dozens of entries. */
const PROBE_BYTES = 16 * 1024;

/** The one writer of a trail. */
export class SegmentWriter {
  readonly #options: SegmentWriterOptions;
  readonly #checkpoint: CheckpointFile;
  #file: Deno.FsFile;
  #info: Deno.FileInfo;
  #number: number;
  /** Bytes of the segment that are whole entries and durable. */
  #size: number;
  #head: ChainHead;
  #usable = true;

  /**
   * Opens the trail behind its last whole entry. A torn tail, as a crash leaves it (half a line, a line without its
   * line feed, zero bytes), is cut off: it was never acknowledged. Entries are checked from the checkpoint's segment
   * on; older segments are `verifyChain`'s matter.
   *
   * @throws Fault `unavailable` when anything else is wrong; nothing has been changed then
   */
  constructor(options: SegmentWriterOptions) {
    this.#options = options;
    const trailIsNew = listSegments(options.directory).length === 0;
    this.#checkpoint = new CheckpointFile(options.checkpointDirectory, trailIsNew);
    try {
      // Listed again, now that the lock keeps other writers out.
      const end = findEnd(options.directory, listSegments(options.directory), this.#checkpoint);
      this.#number = end.number;
      this.#size = end.size;
      this.#head = end.head;
      this.#file = Deno.openSync(this.#path(), { read: true, append: true, create: true, mode: 0o600 });
      try {
        this.#file.truncateSync(end.size);
        // Whole entries found here may never have been synced, and so may the segment's own name.
        this.#file.syncSync();
        syncDirectory(options.directory);
        this.#info = this.#file.statSync();
      } catch (thrown) {
        this.#file.close();
        throw thrown;
      }
    } catch (thrown) {
      this.#checkpoint.close();
      throw asFault("open the audit trail", thrown);
    }
  }

  /** False after a failure that could not be undone: close this writer and open a new one. */
  get usable(): boolean {
    return this.#usable;
  }

  /** The last durable entry. */
  get head(): ChainHead {
    return this.#head;
  }

  /**
   * Appends entries with one write and one sync. When it returns they are durable, in their order, and the files are
   * where they belong.
   *
   * @throws Fault `unavailable` when not: then the entries are not in the trail, or (rarely, when only what follows
   * the sync failed) they are, though nobody was told
   */
  append(events: readonly UnwrittenEvent[]): void {
    this.#attempt(() => {
      let head = this.#head;
      let lines = "";
      for (const { timeMs, text } of events) {
        const next = extendChain(head, new Date(timeMs).toISOString(), text);
        lines += next.line;
        head = next.head;
      }
      const bytes = encodeUtf8(lines);
      if (this.#size > 0 && this.#size + bytes.length > this.#options.segmentBytesMax) this.#beginSegment();
      this.#writeDurably(bytes);
      this.#size += bytes.length;
      this.#head = head;
      this.#checkpoint.write({ ...head, segment: segmentName(this.#number) });
    });
  }

  /**
   * Finds out whether an append would work, without an entry: writes zero bytes behind the last entry, syncs, takes
   * them back. A crash in between leaves a torn tail like any other.
   *
   * @throws Fault `unavailable` when it would not
   */
  probe(): void {
    this.#attempt(() => {
      this.#writeDurably(new Uint8Array(PROBE_BYTES));
      this.#file.truncateSync(this.#size);
      this.#checkpoint.write({ ...this.#head, segment: segmentName(this.#number) });
    });
  }

  /** Frees the files and the lock. */
  close(): void {
    this.#usable = false;
    this.#file.close();
    this.#checkpoint.close();
  }

  #path(): string {
    return `${this.#options.directory}/${segmentName(this.#number)}`;
  }

  /** A writer is unusable from the beginning of an act until its end, or until what failed is undone. */
  #attempt(act: () => void): void {
    if (!this.#usable) {
      throw new Fault("unavailable", "Cannot write to the audit trail: the writer is closed");
    }
    this.#usable = false;
    try {
      act();
      this.#usable = true;
    } catch (thrown) {
      throw asFault("write to the audit trail", thrown);
    }
  }

  /** Puts bytes behind the last entry; they are durable, and where they belong, when it returns. */
  #writeDurably(bytes: Uint8Array): void {
    try {
      // One write as a rule; the rest of a short one fails with the reason, such as a full disk.
      for (let written = 0; written < bytes.length;) written += this.#file.writeSync(bytes.subarray(written));
      // fdatasync covers the file's new length as well, and leaves out only times that nobody needs.
      this.#file.syncDataSync();
    } catch (thrown) {
      this.#takeBack();
      throw thrown;
    }
    // Only now: a file that was deleted or replaced by this moment must not count.
    this.#requireInPlace(this.#size + bytes.length);
  }

  /** Cuts half-written bytes off before anything can be appended behind them. Where that fails, a new writer must. */
  #takeBack(): void {
    try {
      // Someone else made the file shorter: truncating would fill it up with zeros and hide that.
      if (this.#file.statSync().size < this.#size) return;
      this.#file.truncateSync(this.#size);
      this.#file.syncDataSync();
      this.#requireInPlace(this.#size);
      this.#usable = true;
    } catch {
      // Still unusable.
    }
  }

  #beginSegment(): void {
    this.#number++;
    const next = Deno.openSync(this.#path(), { read: true, append: true, createNew: true, mode: 0o600 });
    this.#file.close();
    this.#file = next;
    this.#size = 0;
    this.#info = next.statSync();
    syncDirectory(this.#options.directory);
  }

  #requireInPlace(size: number): void {
    if (!leadsTo(this.#path(), this.#info, size)) {
      throw new Fault(
        "unavailable",
        `Cannot trust audit segment ${segmentName(this.#number)}: it was replaced or changed by someone else`,
      );
    }
    this.#checkpoint.requireInPlace();
  }
}

/** Where the next entry goes. */
interface TrailEnd {
  readonly number: number;
  /** Bytes of that segment which are whole entries. */
  readonly size: number;
  readonly head: ChainHead;
}

/** Finds the last whole entry, checking all from the checkpoint's segment on; changes nothing. */
function findEnd(directory: string, numbers: readonly number[], { checkpoint }: CheckpointFile): TrailEnd {
  const gap = numbers.findIndex((number, index) => number !== index + 1);
  if (gap !== -1) refuse(`segment ${segmentName(gap + 1)} is missing`);
  const first = checkpoint.seq === 0
    ? 1
    : numbers.find((number) => segmentName(number) === checkpoint.segment);
  if (first === undefined) refuse(`${checkpoint.segment}, which holds the checkpoint's entry, is missing`);

  // The entry before a later segment's first one is taken from that one's own words.
  let head: ChainHead | undefined = first === 1 ? CHAIN_START : undefined;
  let size = 0;
  let checkpointSeen = checkpoint.seq === 0;
  for (const number of numbers.slice(first - 1)) {
    size = 0;
    let lineNumber = 0;
    using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
    for (const line of readLines(file)) {
      lineNumber++;
      if (line.end === "end_of_file" && number === numbers.length) break; // a torn tail
      const place = `${segmentName(number)} line ${lineNumber}`;
      if (line.end !== "line_feed") refuse(`${place} is no whole entry and is not at the end of the trail`);
      const entry = parseEntry(line.bytes);
      if (!entry.ok) refuse(`${place} is no entry as it was written (${entry.reason})`);
      const link = checkLink(entry.value, head ?? { seq: entry.value.seq - 1, hash: entry.value.previous });
      if (!link.ok) refuse(`${place} does not continue the chain (${link.reason})`);
      head = link.value;
      size += line.bytes.length + 1;
      if (head.seq === checkpoint.seq) {
        if (head.hash !== checkpoint.hash) refuse(`${place} is not the entry that the checkpoint has seen`);
        checkpointSeen = true;
      }
    }
  }
  if (head === undefined || !checkpointSeen) {
    refuse(`it ends before entry ${checkpoint.seq}, which the checkpoint has seen: its end was cut off`);
  }
  return { number: Math.max(1, numbers.length), size, head };
}

function refuse(state: string): never {
  throw new Fault("unavailable", `Cannot open the audit trail: ${state}`);
}

function asFault(act: string, thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  return new Fault("unavailable", `Cannot ${act}: ${reasonOf(thrown)}`, { cause: thrown });
}
