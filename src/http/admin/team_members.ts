// Team members: whether anybody or anything belongs to a team.
import type { AdminParts } from "./admin_parts.ts";

const PAGE = 200;

/** Looks through all users and clients: teams are deleted rarely. */
export async function hasMembers({ users, clients, roleBook }: AdminParts, team: string): Promise<boolean> {
  return roleBook.list().some((role) => role.team === team) ||
    await someOf(users.list, team) || await someOf(clients.list, team);
}

interface Member {
  readonly id: string;
  readonly team: string;
}

async function someOf(
  list: (page: { readonly after?: string; readonly limit: number }) => Promise<readonly Member[]>,
  team: string,
): Promise<boolean> {
  let after: string | undefined;
  do {
    const members = await list(after === undefined ? { limit: PAGE } : { after, limit: PAGE });
    if (members.some((member) => member.team === team)) return true;
    after = members.length < PAGE ? undefined : members.at(-1)?.id;
  } while (after !== undefined);
  return false;
}
