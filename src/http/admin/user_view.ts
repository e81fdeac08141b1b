// User view: how a user looks from outside, and to whom.
import { z } from "@hono/zod-openapi";
import type { Action } from "../../access/action.ts";
import type { Kept } from "../../identity/kept.ts";
import type { User } from "../../identity/users.ts";
import { accountResource, idInPath, inSeconds } from "../administer.ts";
import { type Exchange, principalOf } from "../exchange.ts";
import { seconds } from "../object_fields.ts";
import { objectNotFound, requireAccess } from "../require_access.ts";
import type { AdminParts } from "./admin_parts.ts";

/** A user, without anything of the password. */
export const userSchema = z.strictObject({
  id: z.string(),
  username: z.string(),
  team: z.string(),
  roles: z.array(z.string()),
  disabled: z.boolean(),
  created_at: seconds,
});

/** What is told of a user. */
export function userView(
  { id, username, team, roles, disabled, createdAtMs }: User,
): z.infer<typeof userSchema> {
  return { id, username, team, roles: [...roles], disabled, created_at: inSeconds(createdAtMs) };
}

/** What stands of a user in the audit trail: a pseudonym of the name, as where somebody signs in. */
export function recordedUser(
  { labelAccount }: AdminParts,
  { username, team, roles, disabled }: Pick<User, "username" | "team" | "roles" | "disabled">,
) {
  return { account: labelAccount(username), team, roles, disabled };
}

/** The user in the path, for a caller who may do this to them. */
export async function requireUser(
  { users, issuer }: AdminParts,
  exchange: Exchange,
  action: Action,
): Promise<Kept<User>> {
  const found = await users.read(idInPath(exchange, "usr"));
  if (found === undefined) throw objectNotFound("no such user");
  requireAccess(principalOf(exchange), action, accountResource(issuer, found.value.id, found.value.team));
  return found;
}
