// Trail reader: the entries of a trail on disk in their order, in pieces, while others write and thin it. Synchronous.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import type { EventClass } from "../audit_event.ts";
import { readCheckpoint } from "./checkpoint.ts";
import { classOf } from "../event_class.ts";
import { type EntryEvent, isSealed, openEvent } from "./sealed_event.ts";
import { LINE_BYTES_MAX, readLines, reasonOf, segmentName, TRAIL_FORMAT } from "./segment_files.ts";
import { readStub } from "./segment_stub.ts";

/** The next byte to read, and how many entries stand before it. */
export interface TrailPosition {
  readonly segment: number;
  readonly offset: number;
  readonly seq: number;
}

/** Before the first entry. */
export const START: TrailPosition = { segment: 1, offset: 0, seq: 0 };

/** Where one entry stands. Thinning moves entries inside their segment: `seq` tells whether it is still this one. */
export interface EntryPlace {
  readonly segment: number;
  readonly offset: number;
  /** Without the line feed. */
  readonly bytes: number;
  readonly seq: number;
}

/** One entry, as it was read: its hash is not checked (`verifyChain` does that). */
export interface ReadEntry extends EntryPlace {
  /** Wall time, ISO 8601 with milliseconds, UTC. */
  readonly time: string;
  /** RFC 6962 leaf hash in lower-case hexadecimal. */
  readonly hash: string;
  readonly class: EventClass | undefined;
  /** Undefined where it is sealed under a key that is gone. */
  readonly event: Readonly<Record<string, JsonValue>> | undefined;
  /** The line as it stands in the file, without its line feed. */
  readonly line: string | undefined;
}

/** Entries that follow each other, though numbers of entries that were taken out may lack, and where the next piece begins. */
export interface ReadPiece {
  readonly entries: readonly ReadEntry[];
  readonly next: TrailPosition;
}

/** Where the trail is and what opens sealed events. */
export interface TrailReaderOptions {
  readonly directory: string;
  readonly checkpointDirectory: string;
  /** Raw sealing keys by their ids; asked at each read. Empty for a trail that is not sealed. */
  readonly keys: () => ReadonlyMap<string, Uint8Array>;
}

/** Reads a trail. It holds no file open between two calls and remembers nothing. */
export class TrailReader {
  readonly #options: TrailReaderOptions;

  constructor(options: TrailReaderOptions) {
    this.#options = options;
  }

  /**
   * The number of the last entry that may be told to anyone: it is durable.
   *
   * @throws Fault `unavailable` when the checkpoint cannot be read
   */
  durable(): number {
    const checkpoint = readCheckpoint(this.#options.checkpointDirectory);
    if (checkpoint.ok) return checkpoint.value.seq;
    throw new Fault("unavailable", `Cannot read the audit trail: its checkpoint is ${checkpoint.reason}`);
  }

  /**
   * The next entries: at least one where there is a durable one, then as many as the bounds allow. Entries that were taken
   * out are stepped over. A position stays good whatever is appended or taken out meanwhile.
   *
   * @throws Fault `unavailable` when what should be there is missing or is no entry
   */
  read(
    from: TrailPosition,
    bounds: { readonly entriesMax: number; readonly bytesMax: number },
  ): ReadPiece {
    const durable = this.durable(); // first of all: whatever it names is in the files by now
    const keys = this.#options.keys();
    const entries: ReadEntry[] = [];
    let bytesLeft = bounds.bytesMax;
    let next = from;
    while (next.seq < durable) {
      const { segment } = next;
      using file = this.#openSegment(segment);
      if (file === undefined) {
        next = this.#behindStub(next);
        continue;
      }
      let offset = this.#standsAt(file, next) ? next.offset : 0;
      file.seekSync(offset, Deno.SeekMode.Start);
      for (const line of readLines(file)) {
        if (line.end === "end_of_file") break; // not whole yet, so not durable yet
        const read = line.end === "line_feed" ? parseLine(line.bytes) : undefined;
        const isHere = offset === 0
          ? read?.kind === "header" && read.segment === segment
          : read?.kind !== "header";
        if (read === undefined || !isHere || read.first > next.seq + 1) throw damaged(segment, offset);
        const bytes = line.bytes.length;
        if (read.last > next.seq) {
          if (read.last > durable) return { entries, next };
          if (read.kind === "entry") {
            const isOneMore = entries.length < bounds.entriesMax && bytes <= bytesLeft;
            if (entries.length > 0 && !isOneMore) return { entries, next };
            entries.push(entryOf(read, { segment, offset, bytes, seq: read.last }, keys));
            bytesLeft -= bytes;
          }
        }
        offset += bytes + 1;
        next = { segment, offset, seq: Math.max(next.seq, read.last) };
        if (next.seq === durable) return { entries, next };
      }
      next = { segment: segment + 1, offset: 0, seq: next.seq };
    }
    return { entries, next };
  }

  /**
   * One entry by its place.
   *
   * @throws Fault `not_found` when it stands there no longer: it was taken out, or moved by what was taken out before it;
   * `unavailable` when its segment cannot be read
   */
  at({ segment, offset, bytes, seq }: EntryPlace): ReadEntry {
    using file = this.#openSegment(segment);
    const isPossible = file !== undefined && bytes > 0 && bytes <= LINE_BYTES_MAX;
    const read = isPossible ? parseLine(bytesAt(file, offset, bytes)) : undefined;
    if (read?.kind !== "entry" || read.last !== seq) {
      throw new Fault("not_found", `Cannot read audit entry ${seq}: it is not at its place any more`);
    }
    return entryOf(read, { segment, offset, bytes, seq }, this.#options.keys());
  }

  /** Undefined when there is no such file. */
  #openSegment(number: number): Deno.FsFile | undefined {
    try {
      return Deno.openSync(`${this.#options.directory}/${segmentName(number)}`, { read: true });
    } catch (thrown) {
      if (thrown instanceof Deno.errors.NotFound) return undefined;
      throw new Fault("unavailable", `Cannot read ${segmentName(number)}: ${reasonOf(thrown)}`, {
        cause: thrown,
      });
    }
  }

  /** The position behind a segment of which nothing was kept. */
  #behindStub({ segment, seq }: TrailPosition): TrailPosition {
    const stub = readStub(this.#options.directory, segment);
    if (stub === undefined || stub.file !== undefined || stub.first > seq + 1) {
      throw new Fault("unavailable", `Cannot read the audit trail: ${segmentName(segment)} is missing`);
    }
    return { segment: segment + 1, offset: 0, seq: Math.max(seq, stub.last) };
  }

  /** Whether the line behind a position is the one meant: thinning moves lines, and then the segment is read from its beginning. */
  #standsAt(file: Deno.FsFile, { offset, seq }: TrailPosition): boolean {
    if (offset === 0 || bytesAt(file, offset - 1, 1)[0] !== LINE_FEED) return false;
    for (const { bytes, end } of readLines(file)) {
      const read = end === "line_feed" ? parseLine(bytes) : undefined;
      return read !== undefined && read.kind !== "header" && read.first === seq + 1;
    }
    return false;
  }
}

const LINE_FEED = 0x0a;

/** A line of a segment, and which entries it stands for. */
type ReadLine =
  | { readonly kind: "header"; readonly segment: number; readonly first: number; readonly last: number }
  | { readonly kind: "removed"; readonly first: number; readonly last: number }
  | {
    readonly kind: "entry";
    readonly first: number;
    readonly last: number;
    readonly time: string;
    readonly hash: string;
    readonly event: EntryEvent;
    readonly text: string;
  };

/** Parses just as much as a reader needs; undefined: it is no line of a trail. */
function parseLine(bytes: Uint8Array): ReadLine | undefined {
  const text = decodeUtf8(bytes);
  if (!text.ok) return undefined;
  let value: JsonValue;
  try {
    value = JSON.parse(text.value);
  } catch {
    return undefined;
  }
  if (!isObject(value)) return undefined;
  const { event, format, hash, removed, segment, seq, time } = value;
  if (typeof seq !== "number" || !Number.isSafeInteger(seq) || seq < 0) return undefined;
  if (format === TRAIL_FORMAT && typeof segment === "number") {
    return { kind: "header", segment, first: seq + 1, last: seq };
  }
  if (Array.isArray(removed) && removed.length > 0) {
    return { kind: "removed", first: seq, last: seq + removed.length - 1 };
  }
  if (event === undefined || !isObject(event) || typeof hash !== "string" || typeof time !== "string") {
    return undefined;
  }
  return { kind: "entry", first: seq, last: seq, time, hash, event, text: text.value };
}

function isObject(value: JsonValue): value is EntryEvent {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function entryOf(
  { time, hash, event: written, text: line }: Extract<ReadLine, { kind: "entry" }>,
  place: EntryPlace,
  keys: ReadonlyMap<string, Uint8Array>,
): ReadEntry {
  if (!isSealed(written)) {
    const eventClass = typeof written.type === "string" ? classOf(written.type) : undefined;
    return { ...place, time, hash, class: eventClass, event: written, line };
  }
  let event: EntryEvent | undefined;
  try {
    event = openEvent(keys, place.seq, written);
  } catch {
    // Its key is gone.
  }
  return { ...place, time, hash, class: written.class, event, line };
}

/** Fewer bytes where the file ends. The file stands behind them afterwards. */
function bytesAt(file: Deno.FsFile, offset: number, count: number): Uint8Array {
  file.seekSync(offset, Deno.SeekMode.Start);
  const bytes = new Uint8Array(count);
  let filled = 0;
  while (filled < count) {
    const read = file.readSync(bytes.subarray(filled));
    if (read === null) break;
    filled += read;
  }
  return bytes.subarray(0, filled);
}

function damaged(segment: number, offset: number): Fault {
  return new Fault(
    "unavailable",
    `Cannot read the audit trail: ${segmentName(segment)} is damaged at byte ${offset}`,
  );
}
