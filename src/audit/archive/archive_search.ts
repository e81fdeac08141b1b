// Archive search: pages and pieces of an export, from the index and from the trail itself. Runs in the archive's worker; synchronous.
import { canonicalJson, type JsonValue } from "../../encoding/canonical_json.ts";
import { encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import type { Clock } from "../../time/clock.ts";
import type { EntryPlace, ReadEntry } from "../trail/trail_reader.ts";
import type { ArchiveFollower } from "./archive_follower.ts";
import type { AuditQuery } from "./audit_query.ts";
import { csvRecord } from "./csv.ts";

/** An entry as it is given, or a run of entries that were taken out of the trail. */
export interface ArchivedEntry {
  /** Its number; of a run, that of the last. */
  readonly seq: number;
  /** "whole", or why there is no event: its key is gone, or it was taken out when its time was over. */
  readonly state: "whole" | "unreadable" | "removed";
  /** How many entries it stands for: more than one for a run only. */
  readonly count: number;
  /** ISO 8601 with milliseconds, UTC; null where it was removed. */
  readonly time: string | null;
  /** RFC 6962 leaf hash, hexadecimal; null where it was removed: the trail's own line has it still. */
  readonly hash: string | null;
  readonly event: Readonly<Record<string, JsonValue>> | null;
}

/** What was found, the newest first. */
export interface ArchivePage {
  readonly entries: readonly ArchivedEntry[];
  /** There may be more that are older than this number; undefined: there are none. */
  readonly next: number | undefined;
}

/** A piece of an export. */
export interface ExportPiece {
  readonly text: Uint8Array<ArrayBuffer>;
  /** Where the next piece goes on; undefined after the last. */
  readonly next: number | undefined;
}

/** How an export is written. */
export type ExportForm = "jsonl" | "csv";

/** Text of one page or piece; what is beyond comes with the next. */
const BYTES_MAX = 2 * 1024 * 1024;
const PIECE_ENTRIES_MAX = 1000;
/** Rows that stand so near are read in one go, with what is between them. */
const GAP_BYTES_MAX = 2048;
const TOGETHER_MIN = 8;
/** How long a search follows entries that were moved meanwhile. */
const MOVED_MS_MAX = 2000;

/**
 * A page, the newest first.
 *
 * @param after only what is older than this number
 * @throws Fault `unavailable` when trail or index cannot be read
 */
export function findPage(
  follower: ArchiveFollower,
  query: AuditQuery,
  { after, limit }: { readonly after: number | undefined; readonly limit: number },
  clock: Clock,
): ArchivePage {
  const { places, reached } = follower.index.search(query, { order: "newest", after, limit });
  const kept = withinBytes(places);
  const entries = readPlaces(follower, kept, clock)
    .filter((entry) => isOf(query, entry))
    .flatMap((entry) => {
      const removed = removedBefore(follower, query, entry.seq);
      return removed === undefined ? [archived(entry)] : [archived(entry), removed];
    });
  return { entries, next: kept.length < places.length ? kept.at(-1)?.seq : reached };
}

/**
 * A piece of an export, the oldest first.
 *
 * @param after only what is newer than this number
 * @param last nothing behind this number belongs to the export
 * @throws Fault `unavailable` when trail or index cannot be read
 */
export function exportPiece(
  follower: ArchiveFollower,
  query: AuditQuery,
  { form, after, last }: { readonly form: ExportForm; readonly after: number; readonly last: number },
  clock: Clock,
): ExportPiece {
  const bounds = { order: "oldest", after, last, limit: PIECE_ENTRIES_MAX } as const;
  const { places, reached } = follower.index.search(query, bounds);
  const kept = withinBytes(places);
  let text = form === "csv" && after === 0 ? csvRecord(CSV_COLUMNS) : "";
  for (const entry of readPlaces(follower, kept, clock)) {
    if (!isOf(query, entry)) continue;
    const removed = removedBefore(follower, query, entry.seq);
    if (removed !== undefined) text += LINES[form](removed, undefined);
    text += LINES[form](archived(entry), entry.line);
  }
  return { text: encodeUtf8(text), next: kept.length < places.length ? kept.at(-1)?.seq : reached };
}

/** As many as fit in a page, at least one. */
function withinBytes(places: readonly EntryPlace[]): readonly EntryPlace[] {
  let bytesLeft = BYTES_MAX;
  const end = places.findIndex(({ bytes }, index) => (bytesLeft -= bytes) < 0 && index > 0);
  return end === -1 ? places : places.slice(0, end);
}

/** Requests with other ids may have the same number in the index. */
function isOf({ request }: AuditQuery, { event }: ReadEntry): boolean {
  return request === undefined || event === undefined || event.request === request;
}

/** The run of entries in front of one that are there no longer. Nobody knows what they were, so only who wants all is told. */
function removedBefore(
  { index }: ArchiveFollower,
  { words, request, fromMs, untilMs }: AuditQuery,
  seq: number,
): ArchivedEntry | undefined {
  if (
    request !== undefined || fromMs !== undefined || untilMs !== undefined || Object.keys(words).length > 0
  ) {
    return undefined;
  }
  const count = seq - 1 - index.before(seq);
  return count === 0
    ? undefined
    : { seq: seq - 1, state: "removed", count, time: null, hash: null, event: null };
}

function archived({ seq, time, hash, event }: ReadEntry): ArchivedEntry {
  return {
    seq,
    state: event === undefined ? "unreadable" : "whole",
    count: 1,
    time,
    hash,
    event: event ?? null,
  };
}

/** The entries at these places, in their order. Those that were taken out meanwhile lack. */
function readPlaces(
  follower: ArchiveFollower,
  places: readonly EntryPlace[],
  clock: Clock,
): readonly ReadEntry[] {
  const endMs = clock.monotonic() + MOVED_MS_MAX;
  const together = readTogether(follower, places);
  return places.flatMap((place) => {
    const entry = together.get(place.seq) ?? readOne(follower, place, clock, endMs);
    return entry === undefined ? [] : [entry];
  });
}

/** Places that stand near each other, read without looking for each of them. */
function readTogether({ reader }: ArchiveFollower, places: readonly EntryPlace[]): Map<number, ReadEntry> {
  const read = new Map<number, ReadEntry>();
  const ascending = places.toSorted((one, other) => one.seq - other.seq);
  for (let start = 0; start < ascending.length;) {
    const end = endOfRun(ascending, start);
    const first = ascending[start];
    const last = ascending[end - 1];
    if (first !== undefined && last !== undefined && end - start >= TOGETHER_MIN) {
      const { segment, offset, seq } = first;
      const entriesMax = last.seq - seq + 1;
      const { entries } = reader.read({ segment, offset, seq: seq - 1 }, { entriesMax, bytesMax: Infinity });
      for (const entry of entries) read.set(entry.seq, entry);
    }
    start = end;
  }
  return read;
}

function endOfRun(places: readonly EntryPlace[], start: number): number {
  for (let end = start + 1;; end++) {
    const [before, place] = [places[end - 1], places[end]];
    if (before === undefined || place === undefined) return places.length;
    const gapBytes = place.offset - before.offset - before.bytes;
    if (place.segment !== before.segment || gapBytes < 0 || gapBytes > GAP_BYTES_MAX) return end;
  }
}

/** One entry; where its segment was thinned, by the place that it has now. */
function readOne(
  follower: ArchiveFollower,
  place: EntryPlace,
  clock: Clock,
  endMs: number,
): ReadEntry | undefined {
  for (let now: EntryPlace | undefined = place; now !== undefined;) {
    try {
      return follower.reader.at(now);
    } catch (thrown) {
      if (!(thrown instanceof Fault) || thrown.kind !== "not_found") throw thrown;
    }
    const isNoted = follower.noteMoved(now.segment);
    if (isNoted) { while (follower.isIndexedAnew(now.segment) && clock.monotonic() < endMs) follower.step(); }
    const found: EntryPlace | undefined = follower.index.placeOf(place.seq);
    if (found?.offset === now.offset && found.bytes === now.bytes) {
      throw new Fault(
        "unavailable",
        `Cannot read audit entry ${place.seq}: its segment was thinned a moment ago`,
        {
          detail: "Old entries are being removed at this moment. Try again shortly.",
          retryAfterSeconds: 5,
        },
      );
    }
    now = found;
  }
  return undefined;
}

const CSV_FIELDS = [
  "type",
  "request",
  "issuer",
  "subject",
  "team",
  "credential",
  "address",
  "route",
  "action",
  "object",
  "model",
  "outcome",
  "status",
  "code",
  "reason",
] as const;
const CSV_COLUMNS = ["seq", "time", "state", "count", ...CSV_FIELDS, "hash", "event"];

/** How one entry is written; `line` is what the trail has of it. */
const LINES: Readonly<Record<ExportForm, (entry: ArchivedEntry, line: string | undefined) => string>> = {
  jsonl({ seq, state, count, event }, line) {
    if (state === "removed") return `${canonicalJson({ removed: count, seq: seq - count + 1 })}\n`;
    if (line === undefined) return "";
    // The trail's own line, but for the event of a sealed one.
    const isSealed = line.startsWith(`{"event":{"class":`);
    return event === null || !isSealed ? `${line}\n` : `${canonicalJson({ ...JSON.parse(line), event })}\n`;
  },
  csv({ seq, time, state, count, hash, event }) {
    const cells = CSV_FIELDS.map((name) => cellOf(event?.[name]));
    return csvRecord([seq, time, state, count, ...cells, hash, event === null ? null : canonicalJson(event)]);
  },
};

function cellOf(value: JsonValue | undefined): string | number | null {
  if (value === undefined || value === null) return null;
  return typeof value === "string" || typeof value === "number" ? value : canonicalJson(value);
}
