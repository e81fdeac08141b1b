// Access tokens: issued and verified here only (RFC 9068 JWT profile, RFC 8725 best practice).
import { hash } from "node:crypto";
import { compactVerify, SignJWT } from "jose";
import { decodeBase64url } from "../encoding/base64url.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { newId } from "../encoding/ids.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8 } from "../encoding/utf8.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { Clock } from "../time/clock.ts";
import type { Principal } from "./principal.ts";
import type { Revocations } from "./revocation.ts";
import type { SigningKeys } from "./signing_keys.ts";

/** Why a token was refused; for the audit trail, never for the caller. */
export type TokenRefusal =
  | "malformed"
  | "header_refused"
  | "algorithm_refused"
  | "type_refused"
  | "key_unknown"
  | "signature_wrong"
  | "claims_malformed"
  | "issuer_wrong"
  | "audience_wrong"
  | "not_yet_valid"
  | "expired"
  | "lifetime_too_long"
  | "revoked";

/** A token that was just issued. */
export interface IssuedToken {
  readonly token: string;
  /** The token's `jti`. */
  readonly id: string;
  /** Whole seconds since 1970. */
  readonly expiresAtSeconds: number;
}

/** Issues and verifies the access tokens of this server. */
export interface AccessTokens {
  readonly ttlSeconds: number;
  issue(user: { readonly id: string; readonly roles: readonly string[] }): Promise<IssuedToken>;
  verify(token: string): Promise<Outcome<Principal, TokenRefusal>>;
}

/** RFC 8725 §3.1: one algorithm, fixed here, whatever a token says. */
const ALGORITHM = "EdDSA";
/** RFC 9068 §2.1; "application/at+jwt" is its long form. */
const TYPES = ["at+jwt", "application/at+jwt"];
/** RFC 9068 §2.2 demands a client; a user who signs in by password uses the server's own. */
const OWN_CLIENT = "portcullis";
const TOKEN_CHARACTERS_MAX = 4096;
const CLOCK_LEEWAY_SECONDS = 5;
/** Also bounds tokens that were issued under a longer setting. */
const LIFETIME_SECONDS_MAX = 3600;
const CACHE_MAX = 10_000;
const JSON_DEPTH_MAX = 8;
const ID_TEXT = /^[\x21-\x7e]{1,255}$/;

/** Opens the issuer and verifier. `issuer` is also the audience: a token names this one service (ASVS V9.2.4). */
export function openAccessTokens(options: {
  issuer: string;
  ttlSeconds: number;
  keys: SigningKeys;
  revocations: Revocations;
  clock: Clock;
}): AccessTokens {
  const { issuer, ttlSeconds, keys, revocations, clock } = options;
  // By the token's SHA-256, so that no token rests in memory. Insertion order is age: the oldest goes first.
  const verified = new Map<string, Principal>();

  /** What can change after a token was verified once; asked at every use. */
  function checkStillValid(principal: Principal): Outcome<Principal, TokenRefusal> {
    if (principal.credential.expiresAtSeconds <= clock.now() / 1000) return no("expired");
    return revocations.isRevoked(principal.credential.id) ? no("revoked") : ok(principal);
  }

  return {
    ttlSeconds,
    async issue(user) {
      const nowSeconds = Math.floor(clock.now() / 1000);
      const id = newId("tok", clock.now());
      const expiresAtSeconds = nowSeconds + ttlSeconds;
      const token = await new SignJWT({ client_id: OWN_CLIENT, roles: [...user.roles] })
        .setProtectedHeader({ alg: ALGORITHM, typ: "at+jwt", kid: keys.activeKeyId })
        .setIssuer(issuer).setAudience(issuer).setSubject(user.id).setJti(id)
        .setIssuedAt(nowSeconds).setExpirationTime(expiresAtSeconds)
        .sign(keys.privateKey);
      return { token, id, expiresAtSeconds };
    },
    async verify(token) {
      if (token.length > TOKEN_CHARACTERS_MAX) return no("malformed");
      const cacheKey = hash("sha256", token, "base64");
      const known = verified.get(cacheKey);
      if (known !== undefined) {
        const still = checkStillValid(known);
        if (!still.ok) verified.delete(cacheKey);
        return still;
      }
      const fresh = await verifyFresh(token, keys, issuer, clock.now() / 1000);
      const still = fresh.ok ? checkStillValid(fresh.value) : fresh;
      if (still.ok) {
        verified.set(cacheKey, still.value);
        if (verified.size > CACHE_MAX) verified.delete(verified.keys().next().value ?? "");
      }
      return still;
    },
  };
}

/** The whole verification, in the order of RFC 8725 §3: form, algorithm, type, key, signature, and only then claims. */
async function verifyFresh(
  token: string,
  keys: SigningKeys,
  issuer: string,
  nowSeconds: number,
): Promise<Outcome<Principal, TokenRefusal>> {
  const segments = token.split(".");
  const [headerBytes, payloadBytes, signature] = segments.map(decodeBase64url);
  if (segments.length !== 3 || !headerBytes?.ok || !payloadBytes?.ok || !signature?.ok) {
    return no("malformed");
  }

  const header = parseObject(headerBytes.value);
  if (header === undefined) return no("malformed");
  const { alg, typ, kid, ...rest } = header;
  // jku, jwk, x5u, x5c, crit, b64 and whatever else: a token brings no key and no rule of its own (RFC 8725 §3.10, RFC 7515 §4.1.11).
  if (Object.keys(rest).length > 0) return no("header_refused");
  if (alg !== ALGORITHM) return no("algorithm_refused");
  if (typeof typ !== "string" || !TYPES.includes(typ.toLowerCase())) return no("type_refused");
  const key = typeof kid === "string" ? keys.publicKey(kid) : undefined;
  if (key === undefined) return no("key_unknown");

  try {
    await compactVerify(token, key, { algorithms: [ALGORITHM] });
  } catch {
    return no("signature_wrong");
  }
  const claims = parseObject(payloadBytes.value);
  return claims === undefined ? no("claims_malformed") : checkClaims(claims, issuer, nowSeconds);
}

/** RFC 9068 §2.2 and §4, with types and bounds: `exp: 1e999` or a role that is no array element do not pass. */
function checkClaims(
  claims: Readonly<Record<string, JsonValue>>,
  issuer: string,
  nowSeconds: number,
): Outcome<Principal, TokenRefusal> {
  const { iss, aud, sub, jti, client_id, iat, exp, nbf, roles } = claims;
  if (!isIdText(sub) || !isIdText(jti) || !isIdText(client_id)) return no("claims_malformed");
  if (!isSeconds(iat) || !isSeconds(exp) || (nbf !== undefined && !isSeconds(nbf))) {
    return no("claims_malformed");
  }
  if (!Array.isArray(roles) || roles.length > 32 || !roles.every(isIdText)) return no("claims_malformed");
  if (iss !== issuer) return no("issuer_wrong");
  const audiences: readonly JsonValue[] = Array.isArray(aud) ? aud : [aud ?? null];
  if (!audiences.includes(issuer)) return no("audience_wrong");
  // A sender-constrained token must not pass as plain bearer (RFC 9449 §7.1); ours are not constrained yet.
  if (claims.cnf !== undefined) return no("claims_malformed");
  if (iat > nowSeconds + CLOCK_LEEWAY_SECONDS) return no("not_yet_valid");
  if (nbf !== undefined && nbf > nowSeconds + CLOCK_LEEWAY_SECONDS) return no("not_yet_valid");
  if (exp <= nowSeconds) return no("expired");
  if (exp - iat > LIFETIME_SECONDS_MAX) return no("lifetime_too_long");
  return ok({
    issuer,
    subject: sub,
    roles,
    credential: { kind: "access_token", id: jti, expiresAtSeconds: exp },
  });
}

function parseObject(bytes: Uint8Array): Readonly<Record<string, JsonValue>> | undefined {
  const text = decodeUtf8(bytes);
  const value = text.ok ? parseStrictJson(text.value, JSON_DEPTH_MAX) : text;
  if (!value.ok || typeof value.value !== "object" || value.value === null || Array.isArray(value.value)) {
    return undefined;
  }
  return value.value as Readonly<Record<string, JsonValue>>;
}

function isIdText(value: JsonValue | undefined): value is string {
  return typeof value === "string" && ID_TEXT.test(value);
}

/** Whole seconds within the range of dates: a JSON number that is neither fraction nor infinity. */
function isSeconds(value: JsonValue | undefined): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= 8_640_000_000_000;
}
