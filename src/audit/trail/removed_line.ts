// Removed line: what stands in a segment for entries that were taken out, namely their leaf hashes. Pure.
import { decodeUtf8 } from "../../encoding/utf8.ts";

/** Entries that were taken out, one behind the other. */
export interface RemovedEntries {
  /** The number of the first. */
  readonly seq: number;
  /** RFC 6962 leaf hashes in lower-case hexadecimal; at least one. */
  readonly removed: readonly string[];
}

/** How many hashes stand in one line. */
const HASHES_MAX = 256;
const PREFIX = '{"removed":["';
const LINE = /^\{"removed":\["[0-9a-f]{64}"(?:,"[0-9a-f]{64}")*\],"seq":([1-9]\d{0,15})\}$/;

/** The lines for entries that were taken out, each with its line feed, in canonical JSON. */
export function removedLines({ seq, removed }: RemovedEntries): string {
  let lines = "";
  for (let at = 0; at < removed.length; at += HASHES_MAX) {
    lines += `${PREFIX}${removed.slice(at, at + HASHES_MAX).join('","')}"],"seq":${seq + at}}\n`;
  }
  return lines;
}

/** Whether a line, though perhaps a wrong one, stands for entries that were taken out. */
export function isRemovedLine(line: Uint8Array): boolean {
  return line[2] === 0x72 && line[3] === 0x65; // {"re
}

/** Parses a line (without its line feed); undefined when it is none as `removedLines` writes it. */
export function parseRemovedLine(line: Uint8Array): RemovedEntries | undefined {
  const text = decodeUtf8(line);
  const seq = text.ok ? Number(LINE.exec(text.value)?.[1]) : NaN;
  if (!text.ok || !Number.isSafeInteger(seq)) return undefined;
  const hashes = text.value.slice(PREFIX.length, text.value.indexOf('"]'));
  const removed = hashes.split('","');
  return removed.length <= HASHES_MAX ? { seq, removed } : undefined;
}
