// External tokens: access tokens of one external issuer, verified by its own rules and kept in its own cache.
import { hash } from "node:crypto";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Clock } from "../../time/clock.ts";
import { keepNewest } from "../bounded_map.ts";
import { parseConfirmation } from "../confirmation.ts";
import { isSameAlgorithm, isSignatureAlgorithm, type SignatureAlgorithm } from "../public_key.ts";
import { isIdText, isSeconds, type Jws, type UntrustedObject, verifyJws } from "../strict_jws.ts";
import { type IssuerKey, openIssuerKeys } from "./issuer_keys.ts";
import type { KeySetPlace } from "./key_set_source.ts";

/** What is believed of one issuer's tokens. */
export interface ExternalIssuerSettings extends KeySetPlace {
  /** What `aud` must contain. */
  readonly audience: string;
  readonly algorithms: readonly SignatureAlgorithm[];
  readonly leewaySeconds: number;
  readonly lifetimeSecondsMax: number;
  /** `JWT` for issuers that do not obey RFC 9068; such a token may also have no type at all. */
  readonly tokenType: "at+jwt" | "JWT";
  /** JSON Pointer (RFC 6901) to the claim that holds roles or groups. */
  readonly rolesClaim: string;
  /** Our roles by a value of that claim; other values give nothing. */
  readonly roles: Readonly<Record<string, readonly string[]>>;
  readonly team: string;
}

/** Whom a token speaks for. */
export interface ExternalIdentity {
  readonly issuer: string;
  readonly subject: string;
  readonly team: string;
  readonly roles: readonly string[];
  /** `jti`, or where there is none a digest of what is signed. */
  readonly tokenId: string;
  readonly clientId: string | null;
  /** As the issuer wrote it. */
  readonly scope: string | null;
  readonly expiresAtSeconds: number;
  /** Thumbprint of the key that must be shown with it (`cnf.jkt`, RFC 9449 §6); null for a bearer token. */
  readonly boundTo: string | null;
}

/** Why a token was refused; for the audit trail, never for the caller. */
export type ExternalRefusal =
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
  | "confirmation_refused";

/** Verifies the tokens of one issuer. */
export interface ExternalTokens {
  readonly issuer: string;
  /** What was verified before and still holds, by the SHA-256 (base64) of the token; undefined: it must be verified. */
  cached(tokenSha256: string): Outcome<ExternalIdentity, ExternalRefusal> | undefined;
  /** @throws Fault `unavailable` with `retryAfterSeconds` while the issuer's keys cannot be had · `stopping` */
  verify(jws: Jws, tokenSha256: string): Promise<Outcome<ExternalIdentity, ExternalRefusal>>;
  close(): Promise<void>;
}

const CACHE_MAX = 10_000;
const ROLE_VALUES_MAX = 100;
const ROLE_VALUE_CHARACTERS_MAX = 255;
const SCOPE_CHARACTERS_MAX = 2000;
/** RFC 7515 §4.1.9: `application/` may be left out, and case does not matter. */
const TYPES: Readonly<Record<ExternalIssuerSettings["tokenType"], readonly unknown[]>> = {
  "at+jwt": ["at+jwt", "application/at+jwt"],
  "JWT": [undefined, "jwt", "application/jwt"],
};
/** Claims of ID tokens (OpenID Connect Core §3.1.3.6, §3.3.2.11) and of events (RFC 8417), which may have the type `JWT` as well. */
const OTHER_KINDS = ["at_hash", "c_hash", "events"] as const;

/** Opens the verifier of one issuer. Its keys are asked for when the first token comes. */
export function openExternalTokens(settings: ExternalIssuerSettings, clock: Clock, log: Log): ExternalTokens {
  const { issuer, algorithms, leewaySeconds } = settings;
  const rules: ClaimRules = {
    ...settings,
    // RFC 6901 §4: in this order, for "~01" is "~1".
    rolesPath: settings.rolesClaim.split("/").slice(1).map((part) =>
      part.replaceAll("~1", "/").replaceAll("~0", "~")
    ),
    rolesByValue: new Map(Object.entries(settings.roles)),
  };
  const keys = openIssuerKeys(settings, algorithms, clock, log);
  // By the token's SHA-256, so that no token rests in memory.
  const verified = new Map<string, Verified>();

  return {
    issuer,
    cached(tokenSha256) {
      const known = verified.get(tokenSha256);
      if (known === undefined) return undefined;
      if (known.identity.expiresAtSeconds + leewaySeconds <= clock.now() / 1000) {
        verified.delete(tokenSha256);
        return no("expired");
      }
      // A key that its issuer took back takes its tokens with it.
      if (keys.current(known.keyId) === known.key) return ok(known.identity);
      verified.delete(tokenSha256);
      return undefined;
    },
    async verify(jws, tokenSha256) {
      const keyId = checkHeader(jws.header, settings);
      if (!keyId.ok) return keyId;
      const key = await keys.find(keyId.value);
      if (key === undefined) return no("key_unknown");
      const { alg } = jws.header;
      if (!isSignatureAlgorithm(alg) || !isSameAlgorithm(alg, key.algorithm)) return no("algorithm_refused");
      if (!await verifyJws(jws, key.key, alg)) return no("signature_wrong");
      const identity = checkClaims(jws, rules, clock.now() / 1000);
      if (identity.ok) {
        const known = { identity: identity.value, keyId: keyId.value, key };
        keepNewest(verified, tokenSha256, known, CACHE_MAX);
      }
      return identity;
    },
    close: () => keys.close(),
  };
}

interface Verified {
  readonly identity: ExternalIdentity;
  readonly keyId: string;
  readonly key: IssuerKey;
}

interface ClaimRules extends ExternalIssuerSettings {
  readonly rolesPath: readonly string[];
  /** A map, so that a claim that says "constructor" finds nothing. */
  readonly rolesByValue: ReadonlyMap<string, readonly string[]>;
}

/** The `kid` of a header that asks for nothing. */
function checkHeader(
  header: UntrustedObject,
  { algorithms, tokenType }: ExternalIssuerSettings,
): Outcome<string, ExternalRefusal> {
  // A certificate's digest is harmless and not looked at (RFC 7515 §4.1.7).
  const { alg, typ, kid, x5t: _, "x5t#S256": __, ...rest } = header;
  // jku, jwk, x5u, x5c, crit, b64 and whatever else: a token brings no key and no rule of its own (RFC 8725 §3.10, RFC 7515 §4.1.11).
  if (Object.keys(rest).length > 0) return no("header_refused");
  if (!(algorithms as readonly unknown[]).includes(alg)) return no("algorithm_refused");
  if (!TYPES[tokenType].includes(typeof typ === "string" ? typ.toLowerCase() : typ)) {
    return no("type_refused");
  }
  return isIdText(kid) ? ok(kid) : no("key_unknown");
}

/** RFC 9068 §2.2 and §4, with types and bounds. What that profile demands and others leave out (`jti`, `client_id`) may be absent. */
function checkClaims(
  jws: Jws,
  rules: ClaimRules,
  nowSeconds: number,
): Outcome<ExternalIdentity, ExternalRefusal> {
  const { claims } = jws;
  const { iss, aud, sub, jti, client_id, iat, exp, nbf, scope, cnf } = claims;
  if (rules.tokenType === "JWT" && OTHER_KINDS.some((name) => claims[name] !== undefined)) {
    return no("type_refused");
  }
  if (!isIdText(sub) || (jti !== undefined && !isIdText(jti))) return no("claims_malformed");
  if (client_id !== undefined && !isIdText(client_id)) return no("claims_malformed");
  if (!isSeconds(iat) || !isSeconds(exp) || (nbf !== undefined && !isSeconds(nbf))) {
    return no("claims_malformed");
  }
  if (scope !== undefined && (typeof scope !== "string" || scope.length > SCOPE_CHARACTERS_MAX)) {
    return no("claims_malformed");
  }
  const roles = rolesOf(claims, rules);
  if (roles === undefined) return no("claims_malformed");
  if (iss !== rules.issuer) return no("issuer_wrong");
  const audiences: readonly JsonValue[] = Array.isArray(aud) ? aud : [aud ?? null];
  if (!audiences.includes(rules.audience)) return no("audience_wrong");
  const boundTo = parseConfirmation(cnf);
  if (!boundTo.ok) return boundTo;
  const latest = nowSeconds + rules.leewaySeconds;
  if (iat > latest || (nbf !== undefined && nbf > latest)) return no("not_yet_valid");
  if (exp + rules.leewaySeconds <= nowSeconds) return no("expired");
  // With the bound on `iat` this also bounds how far in the future a token may end.
  if (exp - iat > rules.lifetimeSecondsMax) return no("lifetime_too_long");
  return ok({
    issuer: rules.issuer,
    subject: sub,
    team: rules.team,
    roles,
    tokenId: jti ?? digestOf(jws),
    clientId: client_id ?? null,
    scope: scope ?? null,
    expiresAtSeconds: exp,
    boundTo: boundTo.value,
  });
}

/** Our roles for what the claim holds; undefined where it is no list of texts (a text is no list of one: ASVS V15.3.5). */
function rolesOf(claims: UntrustedObject, rules: ClaimRules): readonly string[] | undefined {
  let value: JsonValue = claims;
  for (const part of rules.rolesPath) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
    if (!Object.hasOwn(value, part)) return [];
    value = (value as UntrustedObject)[part] ?? null;
  }
  if (!Array.isArray(value) || value.length > ROLE_VALUES_MAX) return undefined;
  const roles = new Set<string>();
  for (const each of value as readonly JsonValue[]) {
    if (typeof each !== "string" || each.length > ROLE_VALUE_CHARACTERS_MAX) return undefined;
    for (const role of rules.rolesByValue.get(each) ?? []) roles.add(role);
  }
  return [...roles];
}

/** Of header and claims only: of some signatures there are twins (ECDSA), and a twin must not have a name of its own. */
function digestOf({ text }: Jws): string {
  return hash("sha256", text.slice(0, text.lastIndexOf(".")), "base64url").slice(0, 22);
}
