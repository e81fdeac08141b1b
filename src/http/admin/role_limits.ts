// Role limits: which roles somebody may be given, and by whom; and whom nobody may touch who has less.
import type { Principal } from "../../access/principal.ts";
import type { RoleBook } from "../../access/role_book.ts";
import { fieldRefused, requireGivable } from "../administer.ts";

/**
 * Throws Fault `fields_invalid` where a name is no role of the team · `forbidden` where the caller does not have all that
 * the roles give.
 *
 * @param path JSON Pointer of the list of roles
 */
export function requireGivableRoles(
  roleBook: RoleBook,
  principal: Principal,
  team: string,
  roles: readonly string[],
  path = "/roles",
): void {
  for (const [index, name] of roles.entries()) {
    if (roleBook.find(team, name) === undefined) {
      throw fieldRefused(`${path}/${index}`, "is no role of the team");
    }
  }
  requireGivable(principal, roleBook.grantsOf(team, roles), team);
}

/**
 * Throws Fault `forbidden` where an account can do more than the caller: whoever may give it a password or a secret could
 * take it over, and whoever may disable it could rule alone.
 */
export function requireNotStronger(
  roleBook: RoleBook,
  principal: Principal,
  { team, roles }: { readonly team: string; readonly roles: readonly string[] },
): void {
  requireGivable(principal, roleBook.grantsOf(team, roles), team);
}
