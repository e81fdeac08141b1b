// Access tokens: issued and verified here only (RFC 9068 JWT profile, RFC 8725 best practice).
import { SignJWT } from "jose";
import { formatGrant, type Grant, parseGrant } from "../access/grant.ts";
import { newId } from "../encoding/ids.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { Clock } from "../time/clock.ts";
import { keepNewest } from "./bounded_map.ts";
import { parseConfirmation } from "./confirmation.ts";
import type { Revocations } from "./revocation.ts";
import type { SigningKeys } from "./signing_keys.ts";
import { isIdText, isSeconds, type Jws, type UntrustedObject, verifyJws } from "./strict_jws.ts";

/** Why a token was refused; for the audit trail, never for the caller. */
export type TokenRefusal =
  | "malformed"
  | "header_refused"
  | "algorithm_refused"
  | "type_refused"
  | "key_unknown"
  | "signature_wrong"
  | "claims_malformed"
  | "confirmation_refused"
  | "issuer_wrong"
  | "audience_wrong"
  | "not_yet_valid"
  | "expired"
  | "lifetime_too_long"
  | "revoked";

/** What a verified token says. Who its subject is at this moment, and what that one may do, is asked elsewhere. */
export interface AccessTokenClaims {
  /** A user's or a client's id. */
  readonly subject: string;
  readonly clientId: string;
  /** The token's `jti`. */
  readonly tokenId: string;
  /** The session that the token was issued in (`sid`); null for a client's token. */
  readonly session: string | null;
  /** What the token is narrowed to; null: to nothing less than its subject has. */
  readonly scope: readonly Grant[] | null;
  /** RFC 9449 §6: thumbprint of the key that has to be proved with it. */
  readonly boundTo: string | null;
  readonly issuedAtSeconds: number;
  readonly expiresAtSeconds: number;
}

/** What a token is to say. */
export type AccessTokenOrder = Pick<AccessTokenClaims, "subject" | "session" | "scope" | "boundTo"> & {
  /** Absent: a user of this server, who signed in at the server's own client (RFC 9068 §2.2 demands one). */
  readonly clientId?: string;
  /**
   * Tokens of this second and before are over (`Standing.tokensNotBeforeSeconds`): one that is issued until then is dated a second
   * later. That is some seconds ahead at most, which the leeway covers.
   */
  readonly issuedAfterSeconds?: number | null;
};

/** A token that was just issued. */
export interface IssuedToken {
  readonly token: string;
  /** The token's `jti`. */
  readonly id: string;
  /** Whole seconds since 1970. */
  readonly expiresAtSeconds: number;
}

/** What became of a token; of a genuine one that is over, also what it said. */
export type VerifiedToken =
  | { readonly ok: true; readonly value: AccessTokenClaims }
  | { readonly ok: false; readonly reason: TokenRefusal; readonly claims?: AccessTokenClaims };

/** Issues and verifies the access tokens of this server. */
export interface AccessTokens {
  readonly issuer: string;
  readonly ttlSeconds: number;
  issue(order: AccessTokenOrder): Promise<IssuedToken>;
  /** What was verified before, by the SHA-256 (base64) of the token's text, asked again whether it still holds. */
  cached(tokenSha256: string): VerifiedToken | undefined;
  verify(jws: Jws, tokenSha256: string): Promise<VerifiedToken>;
}

/** RFC 8725 §3.1: one algorithm, fixed here, whatever a token says. */
const ALGORITHM = "EdDSA";
/** RFC 9068 §2.1; "application/at+jwt" is its long form. */
const TYPES = ["at+jwt", "application/at+jwt"];
/** The client of everybody who signs in by password. */
export const OWN_CLIENT = "portcullis";
const CLOCK_LEEWAY_SECONDS = 5;
/** Also bounds tokens that were issued under a longer setting. */
export const LIFETIME_SECONDS_MAX = 3600;
const CACHE_MAX = 10_000;
const SCOPE_CHARACTERS_MAX = 2000;

/** Opens the issuer and verifier. `issuer` is also the audience: a token names this one service (ASVS V9.2.4). */
export function openAccessTokens(options: {
  issuer: string;
  ttlSeconds: number;
  keys: SigningKeys;
  revocations: Revocations;
  clock: Clock;
}): AccessTokens {
  const { issuer, ttlSeconds, keys, revocations, clock } = options;
  // By the token's SHA-256, so that no token rests in memory.
  const verified = new Map<string, AccessTokenClaims>();

  /** What can change after a token was verified once; asked at every use. */
  function checkStillValid(claims: AccessTokenClaims): VerifiedToken {
    if (claims.expiresAtSeconds <= clock.now() / 1000) return { ok: false, reason: "expired", claims };
    const ended = revocations.isRevoked(claims.tokenId) ||
      (claims.session !== null && revocations.isRevoked(claims.session));
    return ended ? { ok: false, reason: "revoked", claims } : ok(claims);
  }

  return {
    issuer,
    ttlSeconds,
    async issue({ subject, clientId = OWN_CLIENT, session, scope, boundTo, issuedAfterSeconds }) {
      const nowSeconds = Math.floor(clock.now() / 1000);
      const id = newId("tok", clock.now());
      const issuedAtSeconds = Math.max(nowSeconds, (issuedAfterSeconds ?? -Infinity) + 1);
      const expiresAtSeconds = issuedAtSeconds + ttlSeconds;
      const { keyId, privateKey } = keys.active();
      const claims = {
        client_id: clientId,
        ...(session === null ? {} : { sid: session }),
        ...(scope === null ? {} : { scope: scope.map(formatGrant).join(" ") }),
        ...(boundTo === null ? {} : { cnf: { jkt: boundTo } }),
      };
      const token = await new SignJWT(claims)
        .setProtectedHeader({ alg: ALGORITHM, typ: "at+jwt", kid: keyId })
        .setIssuer(issuer).setAudience(issuer).setSubject(subject).setJti(id)
        .setIssuedAt(issuedAtSeconds).setExpirationTime(expiresAtSeconds)
        .sign(privateKey);
      return { token, id, expiresAtSeconds };
    },
    cached(tokenSha256) {
      const known = verified.get(tokenSha256);
      if (known === undefined) return undefined;
      const still = checkStillValid(known);
      if (!still.ok) verified.delete(tokenSha256);
      return still;
    },
    async verify(jws, tokenSha256) {
      const fresh = await verifyFresh(jws, keys, issuer, clock.now() / 1000);
      const still = fresh.ok ? checkStillValid(fresh.value) : fresh;
      if (still.ok) {
        keepNewest(verified, tokenSha256, still.value, CACHE_MAX);
      }
      return still;
    },
  };
}

/** The whole verification, in the order of RFC 8725 §3: form (done), algorithm, type, key, signature, and only then claims. */
async function verifyFresh(
  jws: Jws,
  keys: SigningKeys,
  issuer: string,
  nowSeconds: number,
): Promise<Outcome<AccessTokenClaims, TokenRefusal>> {
  const { alg, typ, kid, ...rest } = jws.header;
  // jku, jwk, x5u, x5c, crit, b64 and whatever else: a token brings no key and no rule of its own (RFC 8725 §3.10, RFC 7515 §4.1.11).
  if (Object.keys(rest).length > 0) return no("header_refused");
  if (alg !== ALGORITHM) return no("algorithm_refused");
  if (typeof typ !== "string" || !TYPES.includes(typ.toLowerCase())) return no("type_refused");
  const key = typeof kid === "string" ? keys.publicKey(kid) : undefined;
  if (key === undefined) return no("key_unknown");
  if (!await verifyJws(jws, key, ALGORITHM)) return no("signature_wrong");
  return checkClaims(jws.claims, issuer, nowSeconds);
}

/** RFC 9068 §2.2 and §4, with types and bounds: `exp: 1e999` or a scope that is an array do not pass. */
function checkClaims(
  claims: UntrustedObject,
  issuer: string,
  nowSeconds: number,
): Outcome<AccessTokenClaims, TokenRefusal> {
  const { iss, aud, sub, jti, client_id, sid, iat, exp, nbf, cnf } = claims;
  if (!isIdText(sub) || !isIdText(jti) || !isIdText(client_id)) return no("claims_malformed");
  if (sid !== undefined && !isIdText(sid)) return no("claims_malformed");
  if (!isSeconds(iat) || !isSeconds(exp) || (nbf !== undefined && !isSeconds(nbf))) {
    return no("claims_malformed");
  }
  const scope = parseScopeClaim(claims.scope);
  if (scope === undefined) return no("claims_malformed");
  const confirmation = parseConfirmation(cnf);
  if (!confirmation.ok) return confirmation;
  if (iss !== issuer) return no("issuer_wrong");
  if (!(Array.isArray(aud) ? aud : [aud]).includes(issuer)) return no("audience_wrong");
  if (iat > nowSeconds + CLOCK_LEEWAY_SECONDS) return no("not_yet_valid");
  if (nbf !== undefined && nbf > nowSeconds + CLOCK_LEEWAY_SECONDS) return no("not_yet_valid");
  if (exp <= nowSeconds) return no("expired");
  if (exp - iat > LIFETIME_SECONDS_MAX) return no("lifetime_too_long");
  return ok({
    subject: sub,
    clientId: client_id,
    tokenId: jti,
    session: sid ?? null,
    scope,
    boundTo: confirmation.value,
    issuedAtSeconds: iat,
    expiresAtSeconds: exp,
  });
}

/** undefined: malformed. A token of ours holds nothing in its scope but grants. */
function parseScopeClaim(scope: UntrustedObject[string] | undefined): readonly Grant[] | null | undefined {
  if (scope === undefined) return null;
  if (typeof scope !== "string" || scope.length > SCOPE_CHARACTERS_MAX) return undefined;
  const grants = scope.split(" ").map(parseGrant);
  return grants.every((grant) => grant.ok) ? grants.map((grant) => grant.value) : undefined;
}
