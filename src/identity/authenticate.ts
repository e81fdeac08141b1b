// Authenticate: the single entrance. Whatever a request brings to prove who it is, it becomes a Principal here or nowhere.
import { hash } from "node:crypto";
import { isAction } from "../access/action.ts";
import { type Grant, grantsIn } from "../access/grant.ts";
import type { Principal } from "../access/principal.ts";
import type { RecordedCaller } from "../audit/request_record.ts";
import { type AddressBytes, rangeHolds } from "../encoding/ip_address.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { AccessTokens, TokenRefusal, VerifiedToken } from "./access_token.ts";
import { API_KEY_PREFIX, apiKeyIdIn, type ApiKeyRefusal, type ApiKeys } from "./api_keys.ts";
import type { DpopProofs, DpopRefusal } from "./dpop_proof.ts";
import type { ExternalIdentity, ExternalRefusal, ExternalTokens } from "./oidc/external_tokens.ts";
import { type CurrentFeed, requireCurrent } from "./require_current.ts";
import type { Revocations } from "./revocation.ts";
import { isOverFor, type Standing, type Standings } from "./standings.ts";
import { parseJws } from "./strict_jws.ts";

/** Why nobody was recognised. `missing`: no credential was sent at all. */
export type AuthenticationRefusal =
  | "missing"
  | "scheme_unknown"
  | "issuer_unknown"
  /** The account is disabled, deleted, or none of this server. */
  | "subject_inactive"
  | "address_not_allowed"
  /** A bound credential without a proof, or a proof scheme for one that is not bound (RFC 9449 §7.1). */
  | "proof_missing"
  | "not_bound"
  | "bound_to_other_key"
  | TokenRefusal
  | ExternalRefusal
  | ApiKeyRefusal
  | DpopRefusal;

/** What a request brings. */
export interface Presented {
  /** The `Authorization` header; null where there is none. */
  readonly authorization: string | null;
  /** The `DPoP` header. */
  readonly proof: string | null;
  /** The key that this very request has proved already: when it is looked at again, its proof has been used. */
  readonly proved?: string | null;
  readonly method: string;
  /** As it was sent, without a query; only asked for where there is a proof. */
  readonly path: string;
  readonly address: AddressBytes;
}

/** A Principal, or why not. */
export type Recognition =
  | { readonly ok: true; readonly value: Principal }
  | {
    readonly ok: false;
    readonly reason: AuthenticationRefusal;
    /** Whose credential it is, where it is genuine and refused all the same: for the record alone. */
    readonly whose?: RecordedCaller;
    /** The id that a credential claims without proof; not secret. */
    readonly claimed?: string;
  };

/**
 * From what a request brings to a Principal. Throws Fault `unavailable` where an issuer's keys cannot be had, or where it is
 * not known what other instances changed.
 */
export type Authenticate = (presented: Presented) => Promise<Recognition>;

/** The ways in, and who knows what becomes of those who come. */
export interface AuthenticateParts {
  readonly accessTokens: AccessTokens;
  readonly apiKeys: ApiKeys;
  readonly externalTokens: readonly ExternalTokens[];
  readonly revocations: Revocations;
  readonly standings: Standings;
  readonly proofs: DpopProofs;
  readonly feed: CurrentFeed;
  /** What roles give in a team. */
  readonly grantsOf: (team: string, roles: readonly string[]) => readonly Grant[];
}

// RFC 9110 §11.1: the scheme is case-insensitive. RFC 6750 §2.1: b64token. Two joined headers hold a comma and do not match.
const CREDENTIAL = /^(bearer|dpop) +([A-Za-z0-9._~+/=-]+)$/i;

/** Makes the entrance over its ways in. */
export function openAuthenticate(parts: AuthenticateParts): Authenticate {
  return async (presented) => {
    if (presented.authorization === null) return no("missing");
    const [, scheme = "", credential] = CREDENTIAL.exec(presented.authorization) ?? [];
    if (credential === undefined) return no("scheme_unknown");
    // The one place for all that is kept at hand below: revocations, standings, keys and roles.
    requireCurrent(parts.feed);
    const recognised = credential.startsWith(API_KEY_PREFIX)
      ? await recogniseKey(parts, credential, presented.address)
      : await recogniseToken(parts, credential);
    if (!recognised.ok) return recognised;
    const isProofScheme = scheme.toLowerCase() === "dpop";
    const principal = recognised.value;
    if (principal.credential.boundTo === null) {
      return isProofScheme ? refusedOf(principal, "not_bound") : recognised;
    }
    return isProofScheme
      ? await requireProof(parts, principal, presented, credential)
      : refusedOf(principal, "proof_missing");
  };
}

async function recogniseToken(parts: AuthenticateParts, token: string): Promise<Recognition> {
  const { accessTokens, externalTokens } = parts;
  const sha256 = hash("sha256", token, "base64");
  // Caches first, each issuer's own: what was verified there needs no parsing.
  const own = accessTokens.cached(sha256);
  if (own !== undefined) return await recogniseOwn(parts, own);
  for (const external of externalTokens) {
    const known = external.cached(sha256);
    if (known !== undefined) return known.ok ? recogniseExternal(parts, known.value) : known;
  }
  const jws = parseJws(token);
  if (!jws.ok) return jws;
  // Read before it is verified, in order to choose who verifies; each of them checks it again (RFC 8725 §3.8).
  const issuer = jws.value.claims.iss;
  const external = externalTokens.find((each) => each.issuer === issuer);
  if (external !== undefined) {
    const verified = await external.verify(jws.value, sha256);
    return verified.ok ? recogniseExternal(parts, verified.value) : verified;
  }
  return await recogniseOwn(parts, await accessTokens.verify(jws.value, sha256));
}

async function recogniseOwn(parts: AuthenticateParts, verified: VerifiedToken): Promise<Recognition> {
  const { issuer } = parts.accessTokens;
  if (!verified.ok) {
    const { reason, claims } = verified;
    return claims === undefined
      ? no(reason)
      : { ok: false, reason, whose: accountNow(parts, claims.subject, claims.tokenId) };
  }
  const claims = verified.value;
  const standing = await standingOf(parts, claims.subject, claims.issuedAtSeconds);
  if (!standing.ok) return { ...standing, whose: accountNow(parts, claims.subject, claims.tokenId) };
  return ok({
    issuer,
    subject: claims.subject,
    ...standing.value,
    scope: claims.scope,
    credential: {
      kind: "access_token",
      id: claims.tokenId,
      expiresAtSeconds: claims.expiresAtSeconds,
      session: claims.session,
      boundTo: claims.boundTo,
    },
  });
}

async function recogniseKey(
  parts: AuthenticateParts,
  text: string,
  address: AddressBytes,
): Promise<Recognition> {
  const verified = await parts.apiKeys.verify(text);
  if (!verified.ok) {
    return verified.reason === "key_malformed" ? verified : { ...verified, claimed: apiKeyIdIn(text) };
  }
  const { id, ownerId, scope, addressRanges, boundTo } = verified.value;
  const standing = await standingOf(parts, ownerId);
  if (!standing.ok) return { ...standing, whose: accountNow(parts, ownerId, id) };
  const principal: Principal = {
    issuer: parts.accessTokens.issuer,
    subject: ownerId,
    ...standing.value,
    scope,
    credential: { kind: "api_key", id, expiresAtSeconds: null, session: null, boundTo },
  };
  return addressRanges.length === 0 || addressRanges.some((range) => rangeHolds(range, address))
    ? ok(principal)
    : refusedOf(principal, "address_not_allowed");
}

function recogniseExternal(parts: AuthenticateParts, claims: ExternalIdentity): Recognition {
  const { issuer, subject, team, roles, tokenId, expiresAtSeconds, boundTo } = claims;
  if (parts.revocations.isRevoked(externalTokenName(issuer, tokenId))) {
    return { ok: false, reason: "revoked", whose: { issuer, subject, team, credential: tokenId } };
  }
  return ok({
    issuer,
    subject,
    kind: "external",
    team,
    roles,
    grants: parts.grantsOf(team, roles),
    scope: foreignScope(claims.scope),
    credential: { kind: "access_token", id: tokenId, expiresAtSeconds, session: null, boundTo },
  });
}

/** The name of an external token among the revoked: its `jti` is its issuer's to choose, and could be one of ours. */
export function externalTokenName(issuer: string, tokenId: string): string {
  return `${issuer} ${tokenId}`;
}

/**
 * Another issuer's scope narrows where it speaks of our actions, also where it does so wrongly: what cannot be read gives
 * nothing. Words of other grammars (`openid`) say nothing of this server: what such a token may do, its roles say alone.
 */
function foreignScope(scope: string | null): readonly Grant[] | null {
  const words = (scope ?? "").split(" ").filter(isOurs);
  return words.length === 0 ? null : grantsIn(words);
}

function isOurs(word: string): boolean {
  return word.startsWith("model:") || isAction(word.split("/", 1)[0] ?? "");
}

/**
 * Who an account of this server is at this moment.
 *
 * @param issuedAtSeconds of its access token
 */
async function standingOf(
  { standings, grantsOf }: AuthenticateParts,
  subject: string,
  issuedAtSeconds = Infinity,
): Promise<
  Outcome<Pick<Principal, "kind" | "team" | "roles" | "grants">, "subject_inactive" | "revoked">
> {
  const known: Standing | undefined = standings.known(subject) ?? await standings.load(subject);
  if (known === undefined || !known.active) return no("subject_inactive");
  if (isOverFor(known, issuedAtSeconds)) return no("revoked");
  const { kind, team, roles } = known;
  return ok({ kind, team, roles, grants: grantsOf(team, roles) });
}

async function requireProof(
  { proofs }: AuthenticateParts,
  principal: Principal,
  { proof, proved: provedBefore, method, path }: Presented,
  credential: string,
): Promise<Recognition> {
  if (typeof provedBefore === "string" && provedBefore === principal.credential.boundTo) return ok(principal);
  if (proof === null) return refusedOf(principal, "proof_missing");
  const proved = await proofs.verify(proof, { method, path }, credential);
  if (!proved.ok) return refusedOf(principal, proved.reason);
  return proved.value === principal.credential.boundTo
    ? ok(principal)
    : refusedOf(principal, "bound_to_other_key");
}

/** The refusal of a genuine credential. */
function refusedOf(
  { issuer, subject, team, credential }: Principal,
  reason: AuthenticationRefusal,
): Recognition {
  return { ok: false, reason, whose: { issuer, subject, team, credential: credential.id } };
}

/** An account as far as it is known without asking the store. */
function accountNow(
  { accessTokens, standings }: AuthenticateParts,
  subject: string,
  credential: string,
): RecordedCaller {
  return { issuer: accessTokens.issuer, subject, team: standings.known(subject)?.team ?? null, credential };
}
