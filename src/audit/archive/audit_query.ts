// Audit query: what can be looked for in the trail, and which of an entry's texts it is compared with. Pure.
import type { JsonValue } from "../../encoding/canonical_json.ts";

/** What an entry can be found by, besides its number, its time and its request. */
export const WORD_COLUMNS = ["type", "subject", "issuer", "address", "model", "outcome", "action"] as const;

/** One of them. */
export type WordColumn = (typeof WORD_COLUMNS)[number];

/** What is looked for: entries of which all of it holds. */
export interface AuditQuery {
  /** Milliseconds since 1970: from here on. */
  readonly fromMs?: number;
  /** Milliseconds since 1970: before that. */
  readonly untilMs?: number;
  /** The request's id. */
  readonly request?: string;
  /** For a column, the texts of which one has to stand there, as they stand in the trail. */
  readonly words: Partial<Readonly<Record<WordColumn, readonly string[]>>>;
}

/** Everything. */
export const ALL_ENTRIES: AuditQuery = { words: {} };

type Event = Readonly<Record<string, JsonValue>>;

/** The texts of an event that it can be found by, in the order of the columns. */
export function wordsOf(event: Event): readonly (string | undefined)[] {
  const { type, subject, issuer, actor, address, model, outcome, code, action } = event;
  // Who did it: where somebody is made, that is not who is made.
  return [type, actor ?? subject, issuer, address, model, outcome ?? code, action].map((word) =>
    typeof word === "string" ? word : undefined
  );
}

/** The request's id. */
export const REQUEST_ID = /^req_[0-9a-hjkmnp-tv-z]{26}$/;
const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const TIME_BITS = 41;
const RANDOM_BITS = 12;

/**
 * A whole number below 2^53 for a request's id: near for those of the same time, so that an index of them grows at its end.
 * Others may have the same: whoever finds by it compares the id. Undefined for what is no such id.
 */
export function requestNumber(id: JsonValue | undefined): number | undefined {
  if (typeof id !== "string" || !REQUEST_ID.test(id)) return undefined;
  const time = digits(id.slice(4, 14)) % 2 ** TIME_BITS;
  return time * 2 ** RANDOM_BITS + digits(id.slice(14, 17)) % 2 ** RANDOM_BITS;
}

function digits(text: string): number {
  let number = 0;
  for (const digit of text) number = number * 32 + ALPHABET.indexOf(digit);
  return number;
}
