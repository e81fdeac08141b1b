// Kept secret: what is kept of a secret that was given out (its keyed hash, and the one before while its grace lasts), and the check.
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { constantTimeEqual } from "../encoding/constant_time_equal.ts";

type Hash = Uint8Array<ArrayBuffer>;

/** Hashes of one holder's secrets (`KeyRing.keyedHash`), never a secret. */
export interface KeptSecret {
  readonly hash: Hash;
  /** The one before; it counts until `previousUntilMs`. */
  readonly previousHash: Hash | null;
  /** Milliseconds since 1970. */
  readonly previousUntilMs: number | null;
  readonly rotatedAtMs: number | null;
}

/** Random bytes of a secret: 256 bits (ASVS V7.2.3 asks for 128). */
const SECRET_BYTES = 32;
const HASH_BYTES = 32;

/** The grammar of `makeSecret`, for the patterns of texts that hold one. */
export const SECRET_PATTERN = "[A-Za-z0-9_-]{43}";

/** A new secret: 43 characters of base64url. */
export function makeSecret(): string {
  return encodeBase64url(crypto.getRandomValues(new Uint8Array(SECRET_BYTES)));
}

/** What is kept of a first secret. */
export function keepSecret(hash: Hash): KeptSecret {
  return { hash, previousHash: null, previousUntilMs: null, rotatedAtMs: null };
}

/**
 * Another secret takes the place of the one in force, which counts for the grace; whichever was before that is over.
 *
 * @param graceSeconds 0: the one in force is over at once
 */
export function replaceSecret(kept: KeptSecret, hash: Hash, nowMs: number, graceSeconds: number): KeptSecret {
  return graceSeconds > 0
    ? { hash, previousHash: kept.hash, previousUntilMs: nowMs + graceSeconds * 1000, rotatedAtMs: nowMs }
    : { ...keepSecret(hash), rotatedAtMs: nowMs };
}

/** Whether a hash is that of the secret in force, or of the one before within its grace. */
export function matchesSecret(kept: KeptSecret, hash: Hash, nowMs: number): boolean {
  if (constantTimeEqual(kept.hash, hash)) return true;
  const { previousHash, previousUntilMs } = kept;
  return previousHash !== null && previousUntilMs !== null && nowMs < previousUntilMs &&
    constantTimeEqual(previousHash, hash);
}

/** The form in a record. */
export function secretRecord({ hash, previousHash, previousUntilMs, rotatedAtMs }: KeptSecret): JsonValue {
  return {
    hash: encodeBase64url(hash),
    previousHash: previousHash === null ? null : encodeBase64url(previousHash),
    previousUntilMs,
    rotatedAtMs,
  };
}

/** From a record; undefined where it has no known form. */
export function parseSecret(value: JsonValue | undefined): KeptSecret | undefined {
  const { hash: hashText, previousHash: previousText, previousUntilMs, rotatedAtMs } =
    (value ?? {}) as Record<
      string,
      JsonValue
    >;
  const hash = parseHash(hashText);
  const previousHash = previousText === null ? null : parseHash(previousText);
  if (hash === undefined || previousHash === undefined) return undefined;
  if (!isNumberOrNull(previousUntilMs) || !isNumberOrNull(rotatedAtMs)) return undefined;
  return { hash, previousHash, previousUntilMs, rotatedAtMs };
}

function parseHash(value: JsonValue | undefined): Hash | undefined {
  const bytes = typeof value === "string" ? decodeBase64url(value) : undefined;
  return bytes?.ok && bytes.value.length === HASH_BYTES ? bytes.value : undefined;
}

function isNumberOrNull(value: JsonValue | undefined): value is number | null {
  return value === null || typeof value === "number";
}
