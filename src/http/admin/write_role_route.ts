// Write role: makes a custom role, or replaces one, of what whoever writes it has too.
import { z } from "@hono/zod-openapi";
import { ACTIONS } from "../../access/action.ts";
import type { Grant } from "../../access/grant.ts";
import { BUILT_IN_ROLES, type Role } from "../../access/role.ts";
import { Fault } from "../../faults/fault.ts";
import { fieldRefused, requireGivable, teamResource } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { grantsIn } from "../../access/grant.ts";
import { grantTexts, OBJECT_BYTES_MAX, objectDescription } from "../object_fields.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound, requireAccess } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";
import { formatPlace, placeInPath, recordedRole, roleAt, roleSchema, roleView } from "./role_view.ts";
import { isRoleHeld } from "./team_members.ts";

const content = z.strictObject({
  description: objectDescription.default(""),
  grants: grantTexts,
});

/** `PUT /v1/roles/{team}/{name}`. */
export function writeRoleRoute(parts: AdminParts): AnyRoute {
  const { roleBook, teams, clock } = parts;
  return defineRoute({
    method: "PUT",
    path: "/v1/roles/{team}/{name}",
    summary: "Make a custom role, or replace one; it holds from the next request on",
    policy: { kind: "action", action: "role:write" },
    dialect: problemDialect,
    rated: true,
    body: content,
    bodyBytesMax: OBJECT_BYTES_MAX,
    answers: {
      200: { description: "The role, replaced.", schema: roleSchema },
      201: { description: "The role, made.", schema: roleSchema },
    },
    faults: ["not_found", "conflict"],
    async handle(exchange, { description, grants: texts }) {
      const principal = principalOf(exchange);
      const place = placeInPath(exchange);
      const { team, name } = place;
      requireAccess(principal, "role:write", teamResource(team));
      if (BUILT_IN_ROLES.has(name)) {
        throw new Fault("conflict", `Cannot write the role ${name}: it is built in`, {
          detail: "The name means a built-in role.",
        });
      }
      const grants = grantsIn(texts);
      if (team !== null) {
        if (await teams.read(team) === undefined) throw objectNotFound("no such team");
        requireWithinTeam(grants);
      }
      const before = roleAt(roleBook, place);
      // Nobody takes from others, nor gives them, what they do not have themselves.
      requireGivable(principal, [...before?.grants ?? [], ...grants], team);
      if (before === undefined && await isRoleHeld(parts, place)) {
        throw new Fault("conflict", `Cannot make the role ${name}: somebody bears the name already`, {
          detail: "Users or clients have a role of that name. Take it from them first.",
        });
      }
      const createdAtMs = before?.createdAtMs ?? clock.now();
      const role: Role = { name, team, description, grants, builtIn: false, createdAtMs };
      await exchange.record.changing(
        "role:write",
        `role/${formatPlace(place)}`,
        before === undefined ? null : recordedRole(before),
        recordedRole(role),
      );
      // No role outlives its team.
      await roleBook.put(role, before, team === null ? [] : [await teams.hold(team)]);
      return { status: before === undefined ? 201 : 200, body: roleView(role) };
    },
  });
}

/** A team's role reaches no other team, and not the server. */
function requireWithinTeam(grants: readonly Grant[]): void {
  for (const [index, { action, on }] of grants.entries()) {
    const kind = ACTIONS[action];
    if (kind === "system" || (kind === "object" && on === "*")) {
      throw fieldRefused(`/grants/${index}`, "reaches beyond the team: end it with /own or /team");
    }
  }
}
