// Strict JSON (RFC 8259, the I-JSON profile of RFC 7493): what two parsers could read differently is refused.
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { JsonValue } from "./canonical_json.ts";

/** Why a text is not strict JSON. */
export type StrictJsonReason =
  | "malformed"
  | "too_deep"
  | "duplicate_member"
  | "forbidden_member"
  | "too_many_members"
  | "too_many_containers"
  | "lone_surrogate";

/** No request and no file of ours has objects of so many members; a text full of them is made to cost. */
export const STRICT_JSON_MEMBERS_MAX = 1000;

/** Objects and arrays of one text, where nobody says less. Each costs some hundred nanoseconds: a few megabytes of `{},` would hold a core for seconds. */
export const STRICT_JSON_CONTAINERS_MAX = 100_000;

const QUOTE = 0x22,
  BACKSLASH = 0x5c,
  OPEN_BRACE = 0x7b,
  CLOSE_BRACE = 0x7d,
  OPEN_BRACKET = 0x5b,
  CLOSE_BRACKET = 0x5d,
  COLON = 0x3a;

/**
 * Parses JSON and refuses what RFC 7493 warns of: duplicate members (§2.3), lone surrogates (§2.1), and besides them
 * nesting beyond `depthMax` and members called `__proto__`.
 *
 * @param depthMax how many arrays and objects may stand inside each other
 * @param containersMax how many of them there may be
 */
export function parseStrictJson(
  text: string,
  depthMax: number,
  containersMax = STRICT_JSON_CONTAINERS_MAX,
): Outcome<JsonValue, StrictJsonReason> {
  if (hasTooManyContainers(text, containersMax)) return no("too_many_containers");
  let value: JsonValue;
  try {
    value = JSON.parse(text);
  } catch {
    return no("malformed");
  }
  const mistake = findMistake(text, depthMax);
  return mistake === undefined ? ok(value) : no(mistake);
}

interface Container {
  readonly isObject: boolean;
  /** Member names seen so far. */
  names: Set<string> | undefined;
}

/**
 * Whether a text has more objects and arrays than this; counted before anything is made of them. The text may be no JSON at all:
 * what it is then, the parser says.
 */
function hasTooManyContainers(text: string, containersMax: number): boolean {
  if (text.length <= 2 * containersMax) return false;
  let containers = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      if (++containers > containersMax) return true;
    } else if (code === QUOTE) {
      index = endOfString(text, index);
      if (index === -1) return false;
    }
  }
  return false;
}

/** Scans a text that is known to be JSON; needs no grammar of its own therefore. */
function findMistake(text: string, depthMax: number): StrictJsonReason | undefined {
  // Those that stand there as they are; escaped ones show when a string is decoded.
  if (!text.isWellFormed()) return "lone_surrogate";
  // One entry for each open container; most of a hostile text's are empty, so that nothing is made before a name is seen.
  const open: Container[] = [];
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      open.push({ isObject: code === OPEN_BRACE, names: undefined });
      if (open.length > depthMax) return "too_deep";
    } else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
      open.pop();
    } else if (code === QUOTE) {
      const end = endOfString(text, index);
      const raw = text.slice(index + 1, end);
      const escaped = raw.includes("\\");
      const container = open.at(-1);
      if (escaped || container?.isObject === true) {
        const decoded: string = escaped ? JSON.parse(`"${raw}"`) : raw;
        if (escaped && !decoded.isWellFormed()) return "lone_surrogate";
        if (container?.isObject === true && isMemberName(text, end)) {
          const names = container.names ??= new Set();
          if (decoded === "__proto__") return "forbidden_member";
          if (names.has(decoded)) return "duplicate_member";
          if (names.size >= STRICT_JSON_MEMBERS_MAX) return "too_many_members";
          names.add(decoded);
        }
      }
      index = end;
    }
  }
  return undefined;
}

/** Where the string that opens at `start` has its closing quote; -1 where it has none. */
export function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  for (;;) {
    if (end === -1) return end;
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return end;
    end = text.indexOf('"', end + 1);
  }
}

/** Whether the string whose closing quote is at `end` is a member's name: a colon follows. */
function isMemberName(text: string, end: number): boolean {
  let index = end + 1;
  while (text.charCodeAt(index) <= 0x20) index++;
  return text.charCodeAt(index) === COLON;
}
