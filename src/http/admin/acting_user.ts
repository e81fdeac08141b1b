// Acting user: the caller's own account, so that what it changes of others is changed only while it is as the gate saw it.
import type { Principal } from "../../access/principal.ts";
import { Fault } from "../../faults/fault.ts";
import type { Kept } from "../../identity/kept.ts";
import type { User } from "../../identity/users.ts";
import type { AdminParts } from "./admin_parts.ts";

/**
 * For a write that expects it: of two who take each other's rights at the same moment, one stays.
 *
 * @returns undefined for a caller that is no user of this server
 * @throws Fault `conflict` where the account is not any more what the gate saw
 */
export async function actingUser(
  { users }: AdminParts,
  { kind, subject, team, roles }: Principal,
): Promise<Kept<User> | undefined> {
  if (kind !== "user") return undefined;
  const found = await users.read(subject);
  if (found !== undefined) {
    const { value: own } = found;
    const isAsSeen = !own.disabled && own.team === team && own.roles.length === roles.length &&
      own.roles.every((role, index) => role === roles[index]);
    if (isAsSeen) return found;
  }
  throw new Fault("conflict", "Cannot change a user: the caller was changed meanwhile", {
    detail: "Your own account was changed meanwhile. Try again.",
  });
}
