// Key limits: who may learn a secret that speaks for whom, and how many there can be.
import { coversGrant, type Grant } from "../../access/grant.ts";
import type { Principal } from "../../access/principal.ts";
import { Fault } from "../../faults/fault.ts";
import type { Standing } from "../../identity/standings.ts";
import { isOneself, requireCovered, requireGivable } from "../administer.ts";
import type { AccountParts } from "./account_parts.ts";

/** Of one owner; beyond that somebody fills the disk. */
const KEYS_MAX = 200;

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
