// Change user: roles, team, password, and whether the account works.
import { z } from "@hono/zod-openapi";
import type { Principal } from "../../access/principal.ts";
import { hashPassword } from "../../identity/password_hash.ts";
import { checkPassword, PASSWORD_WORDS } from "../../identity/password_rules.ts";
import type { User } from "../../identity/users.ts";
import { changedMeanwhile, fieldRefused, isOneself, notOneself, teamResource } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { OBJECT_BYTES_MAX, roleNames, teamId } from "../object_fields.ts";
import { problemDialect } from "../problem.ts";
import { requireAccess } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { actingUser } from "./acting_user.ts";
import type { AdminParts } from "./admin_parts.ts";
import { requireGivableRoles, requireNotStronger } from "./role_limits.ts";
import { changeWithoutSeenKeys, givesMore, hasSeenKeys } from "./seen_keys.ts";
import { recordedUser, requireUser, userSchema, userView } from "./user_view.ts";

const change = z.strictObject({
  roles: roleNames.optional(),
  team: teamId.optional(),
  disabled: z.boolean().optional(),
  password: z.string().min(1).max(1024).optional(),
}).refine((fields) => Object.keys(fields).length > 0, "holds nothing to change");

type Change = z.infer<typeof change>;

/** `PATCH /v1/users/{id}`. */
export function changeUserRoute(parts: AdminParts): AnyRoute {
  const { users, sessions, roleBook, issuer } = parts;
  return defineRoute({
    method: "PATCH",
    path: "/v1/users/{id}",
    summary: "Change a user: what is absent stays",
    policy: { kind: "action", action: "user:write" },
    dialect: problemDialect,
    rated: true,
    body: change,
    bodyBytesMax: OBJECT_BYTES_MAX,
    answers: { 200: { description: "The user as it is now.", schema: userSchema } },
    faults: ["not_found", "conflict"],
    async handle(exchange, fields) {
      const principal = principalOf(exchange);
      const found = await requireUser(parts, exchange, "user:write");
      const user = found.value;
      if (isOneself(principal, issuer, user.id)) throw notOneself("a user");
      requireNotStronger(roleBook, principal, user);
      await requireFitting(parts, principal, user, fields);
      const { password, roles = user.roles, team = user.team, disabled = user.disabled } = fields;
      const next: User = {
        ...user,
        roles,
        team,
        disabled,
        passwordHash: password === undefined ? user.passwordHash : await hashPassword(password),
      };
      const by = await actingUser(parts, principal);
      const grows = givesMore(parts, user, next);
      await exchange.record.changing("user:write", `user/${user.id}`, recordedUser(parts, user), {
        ...recordedUser(parts, next),
        ...(password === undefined ? {} : { password: "changed" }),
        ...(grows && await hasSeenKeys(parts, user.id) ? { keys: "ended" } : {}),
      });
      // One write for all of it: a user is never half changed.
      const write = () => users.replace(found, next, by);
      const isMade = grows ? await changeWithoutSeenKeys(parts, user.id, write) : await write();
      if (!isMade) throw changedMeanwhile("a user");
      // Also where it is so already: whoever tries again ends what a failure has left.
      const endsSessions = fields.team !== undefined || password !== undefined || fields.disabled === true;
      if (endsSessions) await sessions.endAll(user.id);
      return { status: 200, body: userView(next) };
    },
  });
}

/** Whether the user can be that, and whether this caller may make them so. */
async function requireFitting(
  { teams, roleBook }: AdminParts,
  principal: Principal,
  user: User,
  { roles, team = user.team, password }: Change,
): Promise<void> {
  if (team !== user.team) {
    requireAccess(principal, "user:write", teamResource(team));
    if (await teams.read(team) === undefined) throw fieldRefused("/team", "is no team");
  }
  if (roles !== undefined || team !== user.team) {
    // The same names may mean other roles there.
    requireGivableRoles(roleBook, principal, team, roles ?? user.roles);
  }
  if (password !== undefined) {
    const checked = await checkPassword(password, user.username);
    if (!checked.ok) throw fieldRefused("/password", PASSWORD_WORDS[checked.reason]);
  }
}
