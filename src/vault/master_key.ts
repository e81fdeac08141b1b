// Master key: the 256 bits over all other keys. It wraps data keys and never seals data itself.
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import { Fault } from "../faults/fault.ts";

/** Bytes of a master key. */
export const MASTER_KEY_BYTES = 32;

/** A new random master key, as text for a file or a secret mount. */
export function generateMasterKey(): string {
  return encodeBase64url(crypto.getRandomValues(new Uint8Array(MASTER_KEY_BYTES)));
}

/**
 * Text to master key bytes.
 *
 * @throws Fault `unavailable` when it is not 32 bytes in base64url
 */
export function parseMasterKey(text: string): Uint8Array<ArrayBuffer> {
  const bytes = decodeBase64url(text.trim());
  if (!bytes.ok || bytes.value.length !== MASTER_KEY_BYTES) {
    throw new Fault("unavailable", "Cannot read the master key: it is not 32 bytes in base64url");
  }
  return bytes.value;
}
