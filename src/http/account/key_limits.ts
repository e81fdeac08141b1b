// Key limits: who may learn a secret that speaks for whom, and how many there can be.
import { coversGrant, type Grant } from "../../access/grant.ts";
import type { Principal } from "../../access/principal.ts";
import { Fault } from "../../faults/fault.ts";
import type { Standing } from "../../identity/standings.ts";
import { changedMeanwhile, isOneself, requireCovered, requireGivable } from "../administer.ts";
import type { AccountParts } from "./account_parts.ts";

/** Of one owner; beyond that somebody fills the disk. */
const KEYS_MAX = 200;

/** What is narrowed by an address, a proof or an end would make what is not. */
export function requireNoKey({ credential }: Principal): void {
  if (credential.kind !== "api_key") return;
  throw new Fault("forbidden", "Cannot make a key: the credential is one", {
    detail: "An API key makes no keys: sign in, or use a client's token.",
  });
}

/**
 * For whoever is about to be told a key's secret: it can be used by them, and speaks for its owner. So it may do nothing
 * that they could not do, neither by its scope nor by what stands behind it.
 */
export function requireSecretGivable(
  { issuer, roleBook }: AccountParts,
  principal: Principal,
  key: { readonly ownerId: string; readonly owner: Standing | undefined; readonly scope: readonly Grant[] },
): void {
  const { ownerId, owner, scope } = key;
  requireCovered(principal, scope);
  if (owner === undefined || isOneself(principal, issuer, ownerId)) return;
  const used = roleBook.grantsOf(owner.team, owner.roles)
    .filter(({ action }) => scope.some((one) => one.action === action));
  requireGivable(principal, used, owner.team);
}

/**
 * Whoever gives an owner more ends the keys that others have seen and that are there at that moment; what somebody else was
 * told just then has to look again itself. Throws Fault `conflict`, and then such keys are gone.
 *
 * @param owner as it was when the secret was found to be givable
 */
export async function requireStillGivable(
  parts: AccountParts,
  principal: Principal,
  key: { readonly ownerId: string; readonly owner: Standing | undefined; readonly scope: readonly Grant[] },
): Promise<void> {
  const { ownerId, owner } = key;
  if (isOneself(principal, parts.issuer, ownerId)) return;
  const now = await parts.standings.load(ownerId);
  try {
    if (now?.team !== owner?.team) throw changedMeanwhile("a key");
    requireSecretGivable(parts, principal, { ...key, owner: now });
  } catch {
    await parts.apiKeys.removeSeenByOthers(ownerId);
    throw changedMeanwhile("a key");
  }
}

/** A scope wider than its owner would widen by itself with the owner's next role. */
export function requireOwnerCovers(
  { roleBook }: AccountParts,
  owner: Standing,
  scope: readonly Grant[],
): void {
  const grants = roleBook.grantsOf(owner.team, owner.roles);
  if (scope.every((one) => grants.some((grant) => coversGrant(grant, one)))) return;
  throw new Fault("forbidden", "Cannot make a key: its scope is wider than what its owner has", {
    detail: "A key cannot do more than its owner.",
  });
}

/** Throws Fault `conflict` where an owner has as many keys as can be. */
export async function requireRoomForKey({ apiKeys }: AccountParts, ownerId: string): Promise<void> {
  if ((await apiKeys.list({ ownerId, limit: KEYS_MAX })).length < KEYS_MAX) return;
  throw new Fault("conflict", "Cannot make a key: its owner has as many as can be", {
    detail: `Nobody can have more than ${KEYS_MAX} keys. Delete some.`,
  });
}
