// Forged trail: what somebody can write who knows all about the format, can write both folders, and lacks the signing key.
import type { AuditEvent } from "../../src/audit/audit_event.ts";
import { encodeCheckpoint } from "../../src/audit/trail/checkpoint.ts";
import { eventText } from "../../src/audit/trail/event_text.ts";
import { CHAIN_START, type ChainHead, extendChain } from "../../src/audit/trail/hash_chain.ts";
import { CompactRange } from "../../src/audit/trail/merkle_tree.ts";
import {
  formatHeader,
  listSegments,
  parseHeader,
  type SegmentHeader,
  segmentName,
} from "../../src/audit/trail/segment_files.ts";
import { TIME_MS, type TrailFolder } from "./trail_folder.ts";

export const TIME = "2026-01-02T03:04:05.006Z";

/** A line that continues the chain behind the line `after`. */
export function forgedLine(after: string | undefined, event: AuditEvent): string {
  const head: ChainHead = after === undefined ? CHAIN_START : JSON.parse(after);
  return extendChain(head, TIME, eventText(event)).line.trimEnd();
}

/** The header of a segment. */
export function headerOf(folder: TrailFolder, segment = 1): SegmentHeader {
  const header = parseHeader(new TextEncoder().encode(folder.lines(segment)[0]));
  if (!header.ok) throw new Error(header.reason);
  return header.value;
}

/**
 * Writes all segments anew, and `checkpoint.json`, as if these events had been recorded, a day a
 * segment. What was signed stays as it is.
 */
export function rewriteTrail(folder: TrailFolder, segments: readonly (readonly AuditEvent[])[]): void {
  const { origin } = headerOf(folder);
  for (const number of listSegments(folder.directory)) Deno.removeSync(folder.segmentPath(number));
  let head = CHAIN_START;
  const range = new CompactRange();
  for (const [index, events] of segments.entries()) {
    const time = new Date(TIME_MS + index * 86_400_000).toISOString();
    const lines = [formatHeader({
      segment: index + 1,
      origin,
      seq: head.seq,
      previous: head.hash,
      range: range.hashes,
      open: [],
      time,
    })];
    for (const event of events) {
      const next = extendChain(head, time, eventText(event));
      head = next.head;
      range.append(head.hash);
      lines.push(next.line.trimEnd());
    }
    folder.setLines(lines, index + 1);
  }
  setCheckpoint(folder, head, range, segments.length);
}

/** Writes `checkpoint.json` anew for what is in the segments now. */
export function adaptCheckpoint(folder: TrailFolder): void {
  const range = new CompactRange();
  let head = CHAIN_START;
  for (const { seq, hash } of folder.entries()) {
    head = { seq, hash };
    range.append(hash);
  }
  setCheckpoint(folder, head, range, listSegments(folder.directory).at(-1) ?? 1);
}

function setCheckpoint(folder: TrailFolder, head: ChainHead, range: CompactRange, segment: number): void {
  const bytes = encodeCheckpoint({ ...head, root: range.root(), segment: segmentName(segment) });
  Deno.writeFileSync(folder.checkpointPath, bytes);
}
