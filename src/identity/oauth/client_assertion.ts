// Client assertions: a client that proves itself with its private key (private_key_jwt: RFC 7523 §3, OpenID Connect Core §9).
import { hash } from "node:crypto";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";
import { importPublicKey, isSignatureAlgorithm, type SignatureAlgorithm } from "../public_key.ts";
import type { ReplayStore } from "../replay_store.ts";
import { isIdText, isSeconds, type Jws, parseJws, type UntrustedObject, verifyJws } from "../strict_jws.ts";

/** Why an assertion was refused; for the audit trail. The caller is told `invalid_client` whatever it is. */
export type AssertionRefusal =
  | "assertion_malformed"
  | "assertion_header_refused"
  | "assertion_claims_wrong"
  | "assertion_for_other_client"
  | "assertion_client_unknown"
  | "assertion_key_unknown"
  | "assertion_signature_wrong"
  | "assertion_audience_wrong"
  | "assertion_time_wrong"
  | "assertion_replayed";

/** RFC 8725 §3.11: any other type is another kind of JWT. RFC 7523 names none, so that it may be absent. */
const TYPES = ["jwt", "client-authentication+jwt"];
const KEYS_MAX = 8;
const LIFETIME_SECONDS_MAX = 300;
const CLOCK_LEEWAY_SECONDS = 5;

/**
 * Checks one assertion. Throws nothing but what `keysOf` and `replays` throw.
 *
 * @param options.clientIdHint the request's `client_id`, where it has one; it must be the same client (RFC 7521 §4.2)
 * @param options.keysOf the JWKs that the client has registered; undefined for an unknown client, which is asked for before
 *   anything is proven. With a `kid` in the header only keys of that `kid` are tried, of those the first 8
 * @param options.audiences what may stand in `aud`: the issuer, or the token endpoint's URL
 */
export async function verifyClientAssertion(assertion: string, options: {
  readonly clientIdHint?: string;
  keysOf(clientId: string): Promise<readonly UntrustedObject[] | undefined>;
  readonly audiences: readonly string[];
  readonly nowSeconds: number;
  readonly replays: ReplayStore;
}): Promise<Outcome<{ clientId: string }, AssertionRefusal>> {
  const jws = parseJws(assertion);
  if (!jws.ok) return no("assertion_malformed");
  const header = checkHeader(jws.value.header);
  if (!header.ok) return header;
  const { iss: clientId, sub, aud, jti, exp, iat, nbf } = jws.value.claims;
  if (!isIdText(clientId) || sub !== clientId) return no("assertion_claims_wrong");
  if (options.clientIdHint !== undefined && options.clientIdHint !== clientId) {
    return no("assertion_for_other_client");
  }

  const keys = await options.keysOf(clientId);
  if (keys === undefined) return no("assertion_client_unknown");
  const signed = await checkSignature(jws.value, header.value, keys);
  if (!signed.ok) return signed;

  if (!isIdText(jti) || !isSeconds(exp)) return no("assertion_claims_wrong");
  if ((iat !== undefined && !isSeconds(iat)) || (nbf !== undefined && !isSeconds(nbf))) {
    return no("assertion_claims_wrong");
  }
  if (!names(aud, options.audiences)) return no("assertion_audience_wrong");
  const { nowSeconds } = options;
  if (exp <= nowSeconds || exp > nowSeconds + LIFETIME_SECONDS_MAX) return no("assertion_time_wrong");
  if (Math.max(iat ?? 0, nbf ?? 0) > nowSeconds + CLOCK_LEEWAY_SECONDS) return no("assertion_time_wrong");

  // Last, so that only genuine assertions take memory; by client, so that nobody uses up the ids of others.
  const use = hash("sha256", `client_assertion ${clientId} ${jti}`, "base64");
  return await options.replays.firstUse(use, exp * 1000) ? ok({ clientId }) : no("assertion_replayed");
}

interface AssertionHeader {
  readonly algorithm: SignatureAlgorithm;
  readonly keyId: string | undefined;
}

/** `alg`, `typ` and `kid`, nothing else: an assertion brings no key and no rule of its own (RFC 8725 §3.10). */
function checkHeader(
  { alg, typ, kid, ...rest }: UntrustedObject,
): Outcome<AssertionHeader, "assertion_header_refused"> {
  if (Object.keys(rest).length > 0 || !isSignatureAlgorithm(alg)) return no("assertion_header_refused");
  if (typ !== undefined && (typeof typ !== "string" || !TYPES.includes(typ.toLowerCase()))) {
    return no("assertion_header_refused");
  }
  if (kid !== undefined && !isIdText(kid)) return no("assertion_header_refused");
  return ok({ algorithm: alg, keyId: kid });
}

/** Tries the keys that fit one after the other: `kid` is a hint of the sender's, and one `kid` may name keys of two kinds (RFC 7517 §4.5). */
async function checkSignature(
  jws: Jws,
  { algorithm, keyId }: AssertionHeader,
  keys: readonly UntrustedObject[],
): Promise<Outcome<true, "assertion_key_unknown" | "assertion_signature_wrong">> {
  let fitting = 0;
  for (const jwk of keys.filter(({ kid }) => keyId === undefined || kid === keyId).slice(0, KEYS_MAX)) {
    const key = await importPublicKey(jwk, algorithm);
    if (!key.ok) continue;
    fitting++;
    if (await verifyJws(jws, key.value, algorithm)) return ok(true);
  }
  return no(fitting === 0 ? "assertion_key_unknown" : "assertion_signature_wrong");
}

/** RFC 7519 §4.1.3: a text, or texts of which one is ours. */
function names(aud: JsonValue | undefined, audiences: readonly string[]): boolean {
  const values: readonly JsonValue[] = Array.isArray(aud) ? aud : [aud ?? null];
  return values.every((value) => typeof value === "string") &&
    values.some((value) => audiences.includes(value));
}
