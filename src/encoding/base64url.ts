// base64url without padding (RFC 4648 §5), strict: one text for each byte string.
import { no, ok, type Outcome } from "../faults/outcome.ts";

const OPTIONS = { alphabet: "base64url", omitPadding: true } as const;
const ALPHABET_ONLY = /^[A-Za-z0-9_-]*$/;

/** Bytes to base64url. */
export function encodeBase64url(bytes: Uint8Array): string {
  return bytes.toBase64(OPTIONS);
}

/**
 * base64url to bytes. Refuses padding, white space, other alphabets and trailing bits that are not zero, so that no
 * two texts stand for the same bytes (RFC 4648 §3.5).
 */
export function decodeBase64url(text: string): Outcome<Uint8Array<ArrayBuffer>, "not_base64url"> {
  if (!ALPHABET_ONLY.test(text)) return no("not_base64url");
  try {
    const bytes = Uint8Array.fromBase64(text, { alphabet: "base64url", lastChunkHandling: "loose" });
    return encodeBase64url(bytes) === text ? ok(bytes) : no("not_base64url");
  } catch {
    return no("not_base64url");
  }
}
