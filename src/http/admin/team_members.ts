// Team members: whether anybody or anything belongs to a team, or bears the name of a role there.
import type { AdminParts } from "./admin_parts.ts";
import type { RolePlace } from "./role_view.ts";
import { someOfAll } from "./some_of_all.ts";

/** Looks through all users and clients: teams are deleted rarely. */
export async function hasMembers(parts: AdminParts, team: string): Promise<boolean> {
  return parts.roleBook.list().some((role) => role.team === team) ||
    await someMember(parts, (member) => member.team === team);
}

/** Looks through all users and clients, also where there is no such role: a name alone can be left of one. */
export async function isRoleHeld(parts: AdminParts, { team, name }: RolePlace): Promise<boolean> {
  return await someMember(
    parts,
    (member) => (team === null || member.team === team) && member.roles.includes(name),
  );
}

interface Member {
  readonly id: string;
  readonly team: string;
  readonly roles: readonly string[];
}

async function someMember(
  { users, clients }: AdminParts,
  isOne: (member: Member) => boolean,
): Promise<boolean> {
  return await someOfAll<Member>(users.list, isOne) || await someOfAll<Member>(clients.list, isOne);
}
