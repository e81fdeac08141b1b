// Entry feed: the entries of the trail, opened, as sinks get them.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { Fault } from "../../faults/fault.ts";
import type { EventClass } from "../audit_event.ts";
import { readCheckpoint } from "../trail/checkpoint.ts";
import { parseEntry } from "../trail/hash_chain.ts";
import { isRemovedLine, parseRemovedLine } from "../trail/removed_line.ts";
import { listSegments, parseHeader, readLines, segmentName, segmentNumber } from "../trail/segment_files.ts";
import { readStub } from "../trail/segment_stub.ts";
import { type EntryPlace, START, TrailReader } from "../trail/trail_reader.ts";
import type { Feed } from "./feed.ts";
import { type ShippedEntry, shippedEntry } from "./shipped_entry.ts";

/** Where the next entry is looked for, and the last one before it that was shipped: by its hash the trail is known again. */
export type EntryPosition = {
  /** The trail's origin; null before its first entry. */
  readonly trail: string | null;
  readonly segment: number;
  readonly offset: number;
  readonly seq: number;
  readonly last: {
    readonly segment: number;
    readonly offset: number;
    readonly bytes: number;
    readonly seq: number;
    readonly hash: string;
  } | null;
};

/** The keys of a sealed trail. */
export interface SealingKeys {
  known(): ReadonlyMap<string, Uint8Array>;
  /** Learns of keys that were made since. */
  refresh(): Promise<void>;
}

/** What a feed of entries needs. */
export interface EntryFeedOptions {
  readonly directory: string;
  readonly checkpointDirectory: string;
  readonly keys: SealingKeys;
  /** Undefined: all. */
  readonly classes: readonly EventClass[] | undefined;
}

const BYTES_MAX = 256 * 1024;

/** Reads through a TrailReader. Nothing stays open. */
export function openEntryFeed(options: EntryFeedOptions): Feed<EntryPosition, ShippedEntry> {
  const { directory, checkpointDirectory, keys, classes } = options;
  const reader = new TrailReader({ directory, checkpointDirectory, keys: () => keys.known() });
  let origin: string | undefined;
  const trail = (): string => origin ??= trailOrigin(directory);

  return {
    start(from) {
      if (from === "start") return { trail: null, ...START, last: null };
      const checkpoint = readCheckpoint(checkpointDirectory);
      if (!checkpoint.ok) {
        throw new Fault("unavailable", `Cannot read the audit trail: its checkpoint is ${checkpoint.reason}`);
      }
      const { segment, seq } = checkpoint.value;
      // From that segment's beginning: the reader itself steps over what is too old.
      return {
        trail: seq === 0 ? null : trail(),
        segment: segmentNumber(segment) ?? 1,
        offset: 0,
        seq,
        last: null,
      };
    },
    resume(kept) {
      if (!isEntryPosition(kept) || kept.seq > reader.durable()) return undefined;
      if (kept.trail !== null && kept.trail !== trail()) return undefined;
      if (kept.last === null) return kept;
      try {
        return reader.at(kept.last).hash === kept.last.hash ? kept : undefined;
      } catch (thrown) {
        if (!(thrown instanceof Fault) || thrown.kind !== "not_found") throw thrown;
        // Where it is the same trail, the reader finds its way by the number.
        return wasThinned(directory, kept.last) ? kept : undefined;
      }
    },
    async read(from, itemsMax) {
      const bounds = { entriesMax: itemsMax, bytesMax: BYTES_MAX };
      let { entries, next } = reader.read(from, bounds);
      if (entries.some(({ event }) => event === undefined)) {
        await keys.refresh();
        ({ entries, next } = reader.read(from, bounds));
      }
      const wanted = entries.filter((entry) =>
        entry.class === undefined || classes?.includes(entry.class) !== false
      );
      const last = entries.at(-1);
      return {
        items: wanted.map((entry) => shippedEntry(trail(), entry)),
        next: {
          trail: next.seq === 0 ? null : trail(),
          segment: next.segment,
          offset: next.offset,
          seq: next.seq,
          last: last === undefined ? from.last : {
            segment: last.segment,
            offset: last.offset,
            bytes: last.bytes,
            seq: last.seq,
            hash: last.hash,
          },
        },
        gone: next.seq - from.seq - entries.length,
      };
    },
  };
}

/**
 * Whether retention has moved an entry or taken it out, which leaves its hash. Otherwise this is another trail: one that was put back
 * and went on differently.
 */
function wasThinned(directory: string, { segment, seq, hash }: EntryPlace & { hash: string }): boolean {
  const stub = readStub(directory, segment);
  if (stub === undefined) return false;
  if (stub.file === undefined) {
    return seq === stub.last ? hash === stub.hash : seq >= stub.first && seq < stub.last;
  }
  using file = Deno.openSync(`${directory}/${segmentName(segment)}`, { read: true });
  for (const { bytes } of readLines(file)) {
    if (isRemovedLine(bytes)) {
      const line = parseRemovedLine(bytes);
      const removed = line?.removed[seq - line.seq];
      if (removed !== undefined) return removed === hash;
      continue;
    }
    const entry = parseEntry(bytes);
    if (entry.ok && entry.value.seq === seq) return entry.value.hash === hash;
  }
  return false;
}

/**
 * The origin that the trail's headers name; it is the same in all of them.
 *
 * @throws Fault `unavailable` while no segment has one
 */
function trailOrigin(directory: string): string {
  for (const number of listSegments(directory).reverse()) {
    using file = Deno.openSync(`${directory}/${segmentName(number)}`, { read: true });
    const [first] = readLines(file);
    const header = first?.end === "line_feed" ? parseHeader(first.bytes) : undefined;
    if (header?.ok === true) return header.value.origin;
  }
  throw new Fault("unavailable", "Cannot read the audit trail: no segment says whose it is");
}

function isEntryPosition(value: JsonValue): value is EntryPosition {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const { trail, segment, offset, seq, last } = value as Readonly<Record<string, JsonValue>>;
  const isLast = last === null ||
    typeof last === "object" && !Array.isArray(last) &&
      areCounts(last, ["segment", "offset", "bytes", "seq"]) &&
      "hash" in last && typeof last.hash === "string";
  return (trail === null || typeof trail === "string") && isLast &&
    areCounts({ segment, offset, seq }, ["segment", "offset", "seq"]);
}

function areCounts(object: object, names: readonly string[]): boolean {
  return names.every((name) => {
    const value: unknown = Reflect.get(object, name);
    return Number.isSafeInteger(value) && Number(value) >= 0;
  });
}
