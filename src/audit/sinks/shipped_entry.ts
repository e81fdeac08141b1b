// Shipped entry: an entry of the trail as receivers get it: opened, in one line of ASCII. Pure.
import { canonicalJson, type JsonValue } from "../../encoding/canonical_json.ts";
import type { EventClass } from "../audit_event.ts";

/** How grave an entry is: the levels of RFC 5424 §6.2.1 that are used. */
export type Severity = "warning" | "notice" | "informational";

/** What every sink is given. */
export interface ShippedEntry {
  readonly seq: number;
  /** The trail's origin: `trail` and `seq` name an entry among all installations. */
  readonly trail: string;
  /** ISO 8601 with milliseconds, UTC. */
  readonly time: string;
  /** RFC 6962 leaf hash in lower-case hexadecimal. */
  readonly hash: string;
  readonly class: EventClass | "unknown";
  /** The event's type; "sealed" where nothing opens it. */
  readonly type: string;
  readonly severity: Severity;
  /** One JSON object with all of it, printable ASCII only. */
  readonly line: string;
}

/** The parts of an entry that are shipped. */
export interface EntryParts {
  readonly seq: number;
  readonly time: string;
  readonly hash: string;
  readonly class: EventClass | undefined;
  /** Undefined where its key is gone. */
  readonly event: Readonly<Record<string, JsonValue>> | undefined;
}

/** Somebody was kept out, or something is wrong. */
const WARNING_TYPES: ReadonlySet<string> = new Set([
  "address.banned",
  "inference.interrupted",
  "model.refused",
  "request.refused",
  "session.refused",
  "session.reuse_detected",
]);

/** The form of an entry for receivers. */
export function shippedEntry(
  trail: string,
  { seq, time, hash, class: known, event }: EntryParts,
): ShippedEntry {
  const type = typeof event?.type === "string" ? event.type : "sealed";
  const eventClass = known ?? "unknown";
  const json = canonicalJson({ class: eventClass, event: event ?? null, hash, seq, time, trail });
  return {
    seq,
    trail,
    time,
    hash,
    class: eventClass,
    type,
    severity: WARNING_TYPES.has(type) ? "warning" : eventClass === "activity" ? "informational" : "notice",
    line: json.replace(NOT_PRINTABLE_ASCII, escapeUnit),
  };
}

/** Nanoseconds since 1970, as digits: more than a number holds. */
export function nanoseconds(time: string): string {
  return `${BigInt(Date.parse(time)) * 1_000_000n}`;
}

/** Inside JSON's strings only: elsewhere all is ASCII. Terminals and line readers act on some of the others. */
const NOT_PRINTABLE_ASCII = /[^\x20-\x7e]/g;

function escapeUnit(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
