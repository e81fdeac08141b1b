// Ids: a prefix that names the kind, then 48 bits of time and 80 random bits, so that ids sort by their birth.
const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"; // Crockford's base 32: no letter is taken for a digit

/** The kinds of id. */
export type IdPrefix =
  | "req"
  | "usr"
  | "tok"
  | "key"
  | "run"
  | "ses"
  | "cli"
  | "pck"
  | "hld"
  | "ins"
  | "ban"
  | "pay"
  | "akey";

// Random bytes are drawn in one large piece: a draw costs far more than its bytes.
const pool = new Uint8Array(4096);
let poolUsed = pool.length;

/**
 * A new id such as `req_01k9…` (26 characters behind the prefix).
 *
 * @param nowMs milliseconds since 1970, below 2^48
 */
export function newId(prefix: IdPrefix, nowMs: number): string {
  let text = "";
  let time = Math.floor(nowMs);
  for (let position = 0; position < 10; position++) {
    text = ALPHABET.charAt(time % 32) + text;
    time = Math.floor(time / 32);
  }
  if (poolUsed + 16 > pool.length) {
    crypto.getRandomValues(pool);
    poolUsed = 0;
  }
  for (let position = 0; position < 16; position++) text += ALPHABET.charAt((pool[poolUsed++] ?? 0) & 31);
  return `${prefix}_${text}`;
}

/** When an id of ours was made: milliseconds since 1970. */
export function timeOfId(id: string): number {
  let time = 0;
  for (const character of id.slice(4, 14)) time = time * 32 + ALPHABET.indexOf(character);
  return time;
}
