// Create user: a new account, with roles that whoever makes it has too.
import { z } from "@hono/zod-openapi";
import { checkPassword, PASSWORD_WORDS } from "../../identity/password_rules.ts";
import { isUsername } from "../../identity/users.ts";
import { fieldRefused, teamResource } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { OBJECT_BYTES_MAX, roleNames, teamId } from "../object_fields.ts";
import { problemDialect } from "../problem.ts";
import { requireAccess } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";
import { requireGivableRoles } from "./role_limits.ts";
import { recordedUser, userSchema, userView } from "./user_view.ts";

const account = z.strictObject({
  username: z.string().max(256).refine(
    isUsername,
    "is not 1 to 128 letters, digits and . _ @ + - (in form NFC)",
  ),
  password: z.string().min(1).max(1024),
  roles: roleNames,
  team: teamId.optional().describe("Default: the caller's."),
});

/** `POST /v1/users`. */
export function createUserRoute(parts: AdminParts): AnyRoute {
  const { users, teams, roleBook } = parts;
  return defineRoute({
    method: "POST",
    path: "/v1/users",
    summary: "Make a user",
    policy: { kind: "action", action: "user:write" },
    dialect: problemDialect,
    rated: true,
    body: account,
    bodyBytesMax: OBJECT_BYTES_MAX,
    answers: { 201: { description: "The user.", schema: userSchema } },
    faults: ["not_found", "conflict"],
    async handle(exchange, { username, password, roles, team: teamOrNone }) {
      const principal = principalOf(exchange);
      const team = teamOrNone ?? principal.team;
      requireAccess(principal, "user:write", teamResource(team));
      if (await teams.read(team) === undefined) throw fieldRefused("/team", "is no team");
      requireGivableRoles(roleBook, principal, team, roles);
      const checked = await checkPassword(password, username);
      if (!checked.ok) throw fieldRefused("/password", PASSWORD_WORDS[checked.reason]);
      await exchange.record.changing(
        "user:write",
        "user/new",
        null,
        recordedUser(parts, { username, team, roles, disabled: false }),
      );
      const user = await users.create({ username, password, roles, team });
      // The id is known only now.
      await exchange.record.allowed("user:write", `user/${user.id}`);
      return { status: 201, body: userView(user) };
    },
  });
}
