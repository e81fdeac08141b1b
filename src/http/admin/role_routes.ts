// Role routes: see roles, and delete custom ones.
import type { z } from "@hono/zod-openapi";
import { decide } from "../../access/decide.ts";
import { Fault } from "../../faults/fault.ts";
import { requireGivable, teamResource } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { pageOf, pageQuery, pageSchema, readPage } from "../page.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound, requireAccess } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";
import {
  formatPlace,
  placeInPath,
  readableRole,
  recordedRole,
  roleAt,
  roleSchema,
  roleView,
} from "./role_view.ts";
import { isRoleHeld } from "./team_members.ts";

/** `GET /v1/roles`, and `GET` and `DELETE /v1/roles/{team}/{name}`. */
export function roleRoutes(parts: AdminParts): AnyRoute[] {
  const { roleBook } = parts;
  const common = { dialect: problemDialect, rated: true } as const;
  const read = { ...common, method: "GET", policy: { kind: "action", action: "role:read" } } as const;
  return [
    defineRoute({
      ...read,
      path: "/v1/roles",
      summary: "Roles that the caller may see",
      query: pageQuery,
      answers: { 200: { description: "A page of roles.", schema: pageSchema(roleSchema) } },
      faults: ["request_invalid"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const roles = roleBook.list().map((role) => ({ role, key: formatPlace(role) }))
          .sort((one, other) => one.key < other.key ? -1 : 1);
        const page = await readPage(
          pageOf(exchange.query as z.infer<typeof pageQuery>),
          ({ after = "", limit }) => Promise.resolve(roles.filter(({ key }) => key > after).slice(0, limit)),
          ({ key }) => key,
          ({ role }) => decide(principal, "role:read", readableRole(role, principal)).ok,
        );
        await exchange.record.allowed("role:read", null);
        return { status: 200, body: { data: page.data.map(({ role }) => roleView(role)), next: page.next } };
      },
    }),
    defineRoute({
      ...read,
      path: "/v1/roles/{team}/{name}",
      summary: "One role; the team of what is built in or for the whole server is -",
      answers: { 200: { description: "The role.", schema: roleSchema } },
      faults: ["not_found"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const place = placeInPath(exchange);
        requireAccess(principal, "role:read", readableRole(place, principal));
        const role = roleAt(roleBook, place);
        if (role === undefined) throw objectNotFound("no such role");
        await exchange.record.allowed("role:read", `role/${formatPlace(place)}`);
        return { status: 200, body: roleView(role) };
      },
    }),
    defineRoute({
      ...common,
      method: "DELETE",
      path: "/v1/roles/{team}/{name}",
      summary: "Delete a custom role that no user and no client has",
      policy: { kind: "action", action: "role:write" },
      answers: { 204: { description: "There is no such role any more." } },
      faults: ["not_found", "conflict"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const place = placeInPath(exchange);
        requireAccess(principal, "role:write", teamResource(place.team));
        const role = roleAt(roleBook, place);
        if (role === undefined) throw objectNotFound("no such role");
        if (role.builtIn) {
          throw new Fault("conflict", "Cannot delete a role: it is built in", {
            detail: "This role is built in.",
          });
        }
        // Nobody takes from others what they do not have themselves.
        requireGivable(principal, role.grants, role.team);
        if (await isRoleHeld(parts, place)) {
          // Their roles would keep the name, and come back to life with whatever is called so next.
          throw new Fault("conflict", "Cannot delete a role: somebody has it", {
            detail: "The role is still held by users or clients.",
          });
        }
        await exchange.record.changing("role:write", `role/${formatPlace(place)}`, recordedRole(role), null);
        await roleBook.remove(role);
        return { status: 204 };
      },
    }),
  ];
}
