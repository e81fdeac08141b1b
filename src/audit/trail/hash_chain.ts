// Hash chain: an audit entry is one line of canonical JSON that holds the hash of the entry before it. Pure.
import { isCanonicalJson, type JsonValue } from "../../encoding/canonical_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";
import { isSha256Hex, leafHash } from "./merkle_tree.ts";

/** The last entry of a chain: its number and its hash (SHA-256, lower-case hexadecimal). */
export interface ChainHead {
  readonly seq: number;
  readonly hash: string;
}

/**
 * One entry. `hash` is the RFC 6962 leaf hash of the canonical JSON (RFC 8785) of the entry without its `hash`: entries are the
 * leaves of the trail's Merkle tree as well as the links of its chain.
 */
export interface ChainEntry extends ChainHead {
  /** Wall time, ISO 8601 with milliseconds, UTC. It may go back; `seq` never does. */
  readonly time: string;
  /** The hash of the entry before this one; 64 zeros for the first. */
  readonly previous: string;
  readonly event: { readonly [name: string]: JsonValue };
}

/** The head of a chain without entries: the first entry has `seq` 1 and 64 zeros as `previous`. */
export const CHAIN_START: ChainHead = { seq: 0, hash: "0".repeat(64) };

/**
 * The next line of a chain, with its line feed, and the chain's new head. Canonical text can be put together from
 * canonical parts because the order of the members is fixed: nothing is parsed here.
 *
 * @param time ISO 8601 with milliseconds, UTC
 * @param eventText the event as canonical JSON
 */
export function extendChain(
  head: ChainHead,
  time: string,
  eventText: string,
): { readonly line: string; readonly head: ChainHead } {
  const seq = head.seq + 1;
  const beforeHash = `{"event":${eventText},`;
  const afterHash = `"previous":"${head.hash}","seq":${seq},"time":"${time}"}`;
  const digest = leafHash(beforeHash + afterHash);
  return { line: `${beforeHash}"hash":"${digest}",${afterHash}\n`, head: { seq, hash: digest } };
}

/** Why a line is not an entry that the writer wrote. */
export type EntryMistake = "not_utf8" | "not_json" | "not_an_entry" | "not_canonical" | "hash_wrong";

const MEMBERS = ["event", "hash", "previous", "seq", "time"];
/** How a time stands in the trail: UTC, with milliseconds. */
export const ISO_8601_MS = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/**
 * Parses a line (without its line feed) and checks all that one entry proves by itself: its form, that these very
 * bytes are its canonical text, and its own hash.
 */
export function parseEntry(line: Uint8Array): Outcome<ChainEntry, EntryMistake> {
  const text = decodeUtf8(line);
  if (!text.ok) return text;
  let value: unknown;
  try {
    value = JSON.parse(text.value);
  } catch {
    return no("not_json");
  }
  if (!isEntry(value)) return no("not_an_entry");
  // Double members, white space, foreign escapes and lone surrogates do not survive this comparison.
  if (!isCanonicalJson(text.value, { ...value })) return no("not_canonical");
  // In canonical text the hash stands between the event and the tail, whose length is known.
  const tail = `"previous":"${value.previous}","seq":${value.seq},"time":"${value.time}"}`;
  const member = `"hash":"${value.hash}",`;
  const beforeHash = text.value.slice(0, text.value.length - tail.length - member.length);
  return leafHash(beforeHash + tail) === value.hash ? ok(value) : no("hash_wrong");
}

function isEntry(value: unknown): value is ChainEntry {
  if (!isObject(value)) return false;
  const names = Object.keys(value);
  const { event, hash, previous, seq, time } = value;
  return names.length === MEMBERS.length && MEMBERS.every((name) => Object.hasOwn(value, name)) &&
    isObject(event) && Number.isSafeInteger(seq) && Number(seq) >= 1 &&
    isSha256Hex(hash) && isSha256Hex(previous) &&
    typeof time === "string" && ISO_8601_MS.test(time);
}

function isObject(value: unknown): value is { readonly [name: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** How an entry, whole in itself, does not continue the chain. */
export type LinkMistake = "restarted" | "seq_ahead" | "seq_behind" | "previous_wrong";

/** Whether an entry is the next one of the chain; its head is then the chain's. */
export function checkLink(entry: ChainEntry, head: ChainHead): Outcome<ChainHead, LinkMistake> {
  if (head.seq > 0 && entry.seq === 1 && entry.previous === CHAIN_START.hash) return no("restarted");
  if (entry.seq > head.seq + 1) return no("seq_ahead");
  if (entry.seq <= head.seq) return no("seq_behind");
  if (entry.previous !== head.hash) return no("previous_wrong");
  return ok({ seq: entry.seq, hash: entry.hash });
}
