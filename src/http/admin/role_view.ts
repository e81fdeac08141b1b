// Role view: how a role looks from outside, and how a path names one.
import { z } from "@hono/zod-openapi";
import type { Resource } from "../../access/decide.ts";
import { formatGrant } from "../../access/grant.ts";
import type { Principal } from "../../access/principal.ts";
import type { Role } from "../../access/role.ts";
import type { RoleBook } from "../../access/role_book.ts";
import { inSeconds, teamResource } from "../administer.ts";
import type { Exchange } from "../exchange.ts";
import { roleName, seconds, teamId } from "../object_fields.ts";
import { objectNotFound } from "../require_access.ts";

/** A role. */
export const roleSchema = z.strictObject({
  team: z.string().nullable().describe("Whose members can have it; null: those of every team."),
  name: z.string(),
  description: z.string(),
  grants: z.array(z.string()),
  built_in: z.boolean(),
  created_at: seconds.nullable(),
});

/** What is told of a role. */
export function roleView({ team, name, description, grants, builtIn, createdAtMs }: Role): z.infer<
  typeof roleSchema
> {
  return {
    team,
    name,
    description,
    grants: grants.map(formatGrant),
    built_in: builtIn,
    created_at: builtIn ? null : inSeconds(createdAtMs),
  };
}

/** What stands of a role in the audit trail. */
export function recordedRole({ description, grants }: Role) {
  return { description, grants: grants.map(formatGrant) };
}

/** Which role a path is about. */
export interface RolePlace {
  /** null (`-` in a path): the whole server. */
  readonly team: string | null;
  readonly name: string;
}

/** `TEAM/NAME`, as in paths and audit records. */
export function formatPlace({ team, name }: RolePlace): string {
  return `${team ?? "-"}/${name}`;
}

/** The place in the path. Throws Fault `not_found` where it cannot be one. */
export function placeInPath({ parameters }: Exchange): RolePlace {
  const { team = "", name = "" } = parameters;
  if (!roleName.safeParse(name).success || !(team === "-" || teamId.safeParse(team).success)) {
    throw objectNotFound("the path names no role");
  }
  return { team: team === "-" ? null : team, name };
}

/** The role of exactly that place; a name that means a role of the whole server is none of the team. */
export function roleAt(roleBook: RoleBook, { team, name }: RolePlace): Role | undefined {
  const role = roleBook.find(team, name);
  return role?.team === team ? role : undefined;
}

/** A role as something that is read: what can be had in every team, the caller's own team has too. */
export function readableRole({ team }: RolePlace, principal: Principal): Resource {
  return teamResource(team ?? principal.team);
}
