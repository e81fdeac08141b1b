// Decide: who may do what. Roles give actions; a model's card says which roles see it and which may run it.
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { Principal } from "../identity/principal.ts";
import type { Action } from "./action.ts";
import { isRole, type Role } from "./role.ts";

/** Deny by default: what is not listed is not allowed. */
export const ROLE_ACTIONS: Readonly<Record<Role, readonly Action[]>> = {
  admin: ["model:read", "model:infer", "session:end", "upstream:read"],
  operator: ["model:read", "model:infer", "session:end", "upstream:read"],
  // Reads what there is, runs nothing.
  auditor: ["model:read", "session:end"],
  user: ["model:read", "model:infer", "session:end"],
};

/** Which roles a model is open to. */
export interface ModelAccess {
  readonly see: readonly string[];
  readonly use: readonly string[];
}

/** Why not. `model_hidden` must look like a model that does not exist. */
export type AccessRefusal = "role_lacks_action" | "model_hidden" | "model_not_usable";

/** Decides on an action. A name that is no role gives nothing. */
export function decide(principal: Principal, action: Action): Outcome<true, AccessRefusal> {
  return principal.roles.some((role) => isRole(role) && ROLE_ACTIONS[role].includes(action))
    ? ok(true)
    : no("role_lacks_action");
}

/**
 * Decides on an action on a model: whether it is seen comes first, so that a refusal never tells that it exists. To run
 * it, one role must both have the action and stand on the card: roles do not lend each other what they lack.
 */
export function decideOnModel(
  principal: Principal,
  action: Action,
  model: ModelAccess,
): Outcome<true, AccessRefusal> {
  const roles = principal.roles.filter(isRole);
  if (!roles.some((role) => model.see.includes(role))) return no("model_hidden");
  const able = roles.filter((role) => ROLE_ACTIONS[role].includes(action));
  if (able.length === 0) return no("role_lacks_action");
  return action !== "model:infer" || able.some((role) => model.use.includes(role))
    ? ok(true)
    : no("model_not_usable");
}
