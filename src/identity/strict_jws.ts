// Strict JWS: the form of every signed token (RFC 7515 compact), read more strictly than libraries do, and its signature.
import { compactVerify } from "jose";
import { decodeBase64url } from "../encoding/base64url.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8 } from "../encoding/utf8.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";

/** A JSON object that a stranger wrote. */
export type UntrustedObject = Readonly<Record<string, JsonValue>>;

/** The parts of a token whose form is right. Nothing of them is true before `verifyJws` has said so. */
export interface Jws {
  readonly text: string;
  readonly header: UntrustedObject;
  readonly claims: UntrustedObject;
}

/** Longer ones are refused unread. */
export const JWS_CHARACTERS_MAX = 8192;
const JSON_DEPTH_MAX = 8;
const ID_TEXT = /^[\x21-\x7e]{1,255}$/;

/**
 * Reads header and claims: three segments of canonical base64url, each of the first two one strict JSON object (no byte
 * order mark, no member twice: RFC 8725 §2.4).
 */
export function parseJws(text: string): Outcome<Jws, "malformed"> {
  if (text.length > JWS_CHARACTERS_MAX) return no("malformed");
  const segments = text.split(".");
  const [header, claims, signature] = segments.map(decodeBase64url);
  if (segments.length !== 3 || !header?.ok || !claims?.ok || !signature?.ok) return no("malformed");
  const headerObject = parseObject(header.value);
  const claimsObject = parseObject(claims.value);
  return headerObject === undefined || claimsObject === undefined
    ? no("malformed")
    : ok({ text, header: headerObject, claims: claimsObject });
}

/** Whether the signature is this key's under this algorithm, which is never taken from the token (RFC 8725 §3.1). */
export async function verifyJws(jws: Jws, key: CryptoKey, algorithm: string): Promise<boolean> {
  try {
    await compactVerify(jws.text, key, { algorithms: [algorithm] });
    return true;
  } catch {
    return false;
  }
}

/** A claim that names something: printable ASCII without spaces, at most 255 characters. */
export function isIdText(value: JsonValue | undefined): value is string {
  return typeof value === "string" && ID_TEXT.test(value);
}

/** A NumericDate (RFC 7519 §2) in whole seconds within the range of dates: neither a fraction nor `1e999`. */
export function isSeconds(value: JsonValue | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= 8_640_000_000_000;
}

function parseObject(bytes: Uint8Array): UntrustedObject | undefined {
  const text = decodeUtf8(bytes);
  const value = text.ok ? parseStrictJson(text.value, JSON_DEPTH_MAX) : text;
  if (!value.ok || typeof value.value !== "object" || value.value === null || Array.isArray(value.value)) {
    return undefined;
  }
  return value.value as UntrustedObject;
}
