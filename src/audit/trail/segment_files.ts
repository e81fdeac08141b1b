// Segment files: how the files of the audit trail are called, found and read line by line, and how they begin.
import { canonicalJson } from "../../encoding/canonical_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";
import { ISO_8601_MS } from "./hash_chain.ts";
import { isSha256Hex } from "./merkle_tree.ts";

/**
 * No batch is this long (`audit_trail.ts` bounds what waits; in UTF-8 and sealed it can grow by four), so neither is a line nor a
 * torn tail: what is longer is not ours, and reading stops.
 */
export const LINE_BYTES_MAX = 80 * 1024 * 1024;

const CHUNK_BYTES = 256 * 1024;
const LINE_FEED = 0x0a;
const SEGMENT_NAME = /^audit-(\d{6,})\.jsonl$/;

/** The file name of a segment; the first is number 1. */
export function segmentName(number: number): string {
  return `audit-${String(number).padStart(6, "0")}.jsonl`;
}

/** The number in a segment's file name, or undefined when the name is none. */
export function segmentNumber(name: string): number | undefined {
  const digits = SEGMENT_NAME.exec(name)?.[1];
  if (digits === undefined) return undefined;
  return segmentName(Number(digits)) === name ? Number(digits) : undefined;
}

/**
 * The numbers of the segments in a directory, ascending. Gaps are not judged here.
 *
 * @throws Fault `unavailable` when the directory cannot be read or a segment is no regular file
 */
export function listSegments(directory: string): number[] {
  const numbers: number[] = [];
  try {
    for (const entry of Deno.readDirSync(directory)) {
      const number = segmentNumber(entry.name);
      if (number === undefined) continue;
      // A link could lead the trail anywhere.
      if (!entry.isFile) {
        throw new Fault("unavailable", `Cannot use audit segment ${entry.name}: it is no regular file`);
      }
      numbers.push(number);
    }
  } catch (thrown) {
    if (thrown instanceof Fault) throw thrown;
    throw new Fault("unavailable", `Cannot list the audit trail: ${reasonOf(thrown)}`, { cause: thrown });
  }
  return numbers.sort((left, right) => left - right);
}

/** A line without its line feed, and what ended it. `bytes` is only valid until the next line is asked for. */
export interface Line {
  readonly bytes: Uint8Array;
  readonly end: "line_feed" | "end_of_file" | "too_long";
}

/** Reads a file to its end, a piece at a time. A last line without a line feed ends with `end_of_file`. */
export function* readLines(file: Deno.FsFile): Generator<Line> {
  const chunk = new Uint8Array(CHUNK_BYTES);
  /** Of the line that is not whole yet. */
  let pieces: Uint8Array[] = [];
  let length = 0;
  for (let count = file.readSync(chunk); count !== null; count = file.readSync(chunk)) {
    const filled = chunk.subarray(0, count);
    let start = 0;
    for (let end = filled.indexOf(LINE_FEED); end !== -1; end = filled.indexOf(LINE_FEED, start)) {
      const piece = filled.subarray(start, end);
      start = end + 1;
      yield { bytes: pieces.length === 0 ? piece : join([...pieces, piece]), end: "line_feed" };
      pieces = [];
      length = 0;
    }
    if (start === count) continue;
    pieces.push(filled.slice(start));
    length += count - start;
    if (length > LINE_BYTES_MAX) {
      yield { bytes: join(pieces), end: "too_long" };
      return;
    }
  }
  if (length > 0) yield { bytes: join(pieces), end: "end_of_file" };
}

function join(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

/**
 * Whether a path still leads to an open file. An unlinked file takes writes and syncs as if nothing had happened, so
 * a deleted or replaced folder shows here only.
 */
export function leadsTo(path: string, file: Deno.FileInfo, size: number): boolean {
  const found = Deno.statSync(path);
  return found.ino === file.ino && found.dev === file.dev && found.size === size;
}

/** Makes names that were just created in a directory survive a power loss: fsync of the file does not cover them. */
export function syncDirectory(directory: string): void {
  const handle = Deno.openSync(directory, { read: true });
  try {
    handle.syncSync();
  } finally {
    handle.close();
  }
}

/** A thrown thing in words, for a private reason. */
export function reasonOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : "something that is no Error was thrown";
}

/** What the first line of a segment says of the trail before it, so that it can be gone on with and checked without that. */
export interface SegmentHeader {
  /** The segment's number. */
  readonly segment: number;
  /** Which trail: the origin of its signed checkpoints. */
  readonly origin: string;
  /** Entries before this segment. */
  readonly seq: number;
  /** Hash of the last of them; 64 zeros where there is none. */
  readonly previous: string;
  /** The compact range over them: hashes of full subtrees, the largest first. */
  readonly range: readonly string[];
  /** Numbers of the `inference.started` among them that had no outcome yet, ascending. */
  readonly open: readonly number[];
  /** Of the segment's first entry. Its UTC day is the segment's day. */
  readonly time: string;
}

/** The header of a segment; undefined where its first line is none. Nothing of what it says is checked. */
export function headerOf(directory: string, number: number): SegmentHeader | undefined {
  using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
  const line = readLines(file).next();
  const header = line.done === true ? undefined : parseHeader(line.value.bytes);
  return header?.ok === true ? header.value : undefined;
}

/** The format of the trail that this version writes. */
export const TRAIL_FORMAT = 2;

const HEADER_MEMBERS = ["format", "open", "origin", "previous", "range", "segment", "seq", "time"];
const ORIGIN = /^[a-z0-9._/-]{1,255}$/;

/** A header as it stands in its segment: canonical JSON, without a line feed. */
export function formatHeader({ segment, origin, seq, previous, range, open, time }: SegmentHeader): string {
  return canonicalJson({ format: TRAIL_FORMAT, segment, origin, seq, previous, range, open, time });
}

/** Why a line is no header that the writer wrote. `older_format`: it is an entry, of a trail from before there were headers. */
export type HeaderMistake = "not_utf8" | "not_json" | "not_a_header" | "not_canonical" | "older_format";

/** Parses the first line of a segment, without its line feed, and checks its form. */
export function parseHeader(line: Uint8Array): Outcome<SegmentHeader, HeaderMistake> {
  const text = decodeUtf8(line);
  if (!text.ok) return text;
  let value: unknown;
  try {
    value = JSON.parse(text.value);
  } catch {
    return no("not_json");
  }
  if (typeof value !== "object" || value === null) return no("not_a_header");
  if (Object.hasOwn(value, "event") && Object.hasOwn(value, "seq")) return no("older_format");
  if (!isHeader(value)) return no("not_a_header");
  return formatHeader(value) === text.value ? ok(value) : no("not_canonical");
}

function isHeader(value: object): value is SegmentHeader {
  const names = Object.keys(value);
  const { format, open, origin, previous, range, segment, seq, time } = value as Record<string, unknown>;
  return names.length === HEADER_MEMBERS.length &&
    HEADER_MEMBERS.every((name) => Object.hasOwn(value, name)) && format === TRAIL_FORMAT &&
    isCount(segment) && segment >= 1 && isCount(seq) && isSha256Hex(previous) &&
    typeof origin === "string" && ORIGIN.test(origin) &&
    Array.isArray(range) && range.every(isSha256Hex) &&
    Array.isArray(open) &&
    open.every((number, index) =>
      isCount(number) && number > Number(open[index - 1] ?? 0) && number <= seq
    ) &&
    typeof time === "string" && ISO_8601_MS.test(time);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}
