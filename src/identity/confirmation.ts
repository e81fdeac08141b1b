// Confirmation: the `cnf` claim of a token (RFC 7800), which makes it worthless without a proof of possession.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { decodeBase64url } from "../encoding/base64url.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";

/**
 * The thumbprint of the key to be proved (RFC 9449 §6.1); null where the claim is absent. Any other way to confirm is
 * refused: a token must not pass as plain bearer because its way is not known here (ASVS V10.3.5).
 */
export function parseConfirmation(
  cnf: JsonValue | undefined,
): Outcome<string | null, "confirmation_refused"> {
  if (cnf === undefined) return ok(null);
  if (typeof cnf !== "object" || cnf === null || Array.isArray(cnf)) return no("confirmation_refused");
  const { jkt, ...others } = cnf as { readonly [name: string]: JsonValue };
  if (Object.keys(others).length > 0 || !isThumbprint(jkt)) return no("confirmation_refused");
  return ok(jkt);
}

/** Whether a value is a SHA-256 thumbprint in base64url (RFC 7638). */
export function isThumbprint(value: JsonValue | undefined): value is string {
  if (typeof value !== "string") return false;
  const bytes = decodeBase64url(value);
  return bytes.ok && bytes.value.length === 32;
}
