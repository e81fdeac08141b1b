// Segment files: how the files of the audit trail are called, found and read line by line.
import { Fault } from "../faults/fault.ts";

/** No batch is near this long, so neither is a line nor a torn tail: what is longer is not ours, and reading stops. */
export const LINE_BYTES_MAX = 8 * 1024 * 1024;

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
  let rest = new Uint8Array(0);
  for (let count = file.readSync(chunk); count !== null; count = file.readSync(chunk)) {
    const filled = chunk.subarray(0, count);
    let start = 0;
    for (let end = filled.indexOf(LINE_FEED); end !== -1; end = filled.indexOf(LINE_FEED, start)) {
      const piece = filled.subarray(start, end);
      start = end + 1;
      yield { bytes: rest.length === 0 ? piece : join(rest, piece), end: "line_feed" };
      rest = new Uint8Array(0);
    }
    rest = join(rest, filled.subarray(start));
    if (rest.length > LINE_BYTES_MAX) {
      yield { bytes: rest, end: "too_long" };
      return;
    }
  }
  if (rest.length > 0) yield { bytes: rest, end: "end_of_file" };
}

function join(left: Uint8Array, right: Uint8Array): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(left.length + right.length);
  joined.set(left);
  joined.set(right, left.length);
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
