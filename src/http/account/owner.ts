// Owner: the account that a key or a session belongs to, and who may take it from there.
import type { Principal } from "../../access/principal.ts";
import type { Standing } from "../../identity/standings.ts";
import { isOneself, requireGivable } from "../administer.ts";
import type { AccountParts } from "./account_parts.ts";

/** The account at this moment; undefined for one that is gone. */
export async function ownerOf(
  { standings }: Pick<AccountParts, "standings">,
  ownerId: string,
): Promise<Standing | undefined> {
  return standings.known(ownerId) ?? await standings.load(ownerId);
}

/**
 * Throws Fault `forbidden` where the owner is somebody else who can do more than the caller: whoever may shut such a one out
 * could rule alone.
 */
export async function requireOwnerNotStronger(
  parts: AccountParts,
  principal: Principal,
  ownerId: string,
): Promise<void> {
  const owner = isOneself(principal, parts.issuer, ownerId) ? undefined : await ownerOf(parts, ownerId);
  if (owner === undefined) return;
  requireGivable(principal, parts.roleBook.grantsOf(owner.team, owner.roles), owner.team);
}
