// Decide: who may do what with which object. The only place that knows, for every dialect and every kind of credential.
import { matchesPattern } from "../encoding/wildcard.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import { type Action, ACTIONS, readingOf } from "./action.ts";
import { coversGrant, type Grant } from "./grant.ts";
import type { Owner, Principal } from "./principal.ts";

/** Whom a model is open to. */
export interface ModelAccess {
  /** Built-in roles that see it; a custom role says by patterns which models it is for. */
  readonly see: readonly string[];
  /** Built-in roles that may run it. */
  readonly use: readonly string[];
  /** Teams that it is for; null: all of them. */
  readonly teams: readonly string[] | null;
}

/** What an action is done to. */
export type Resource =
  | ModelAccess & { readonly kind: "model"; readonly id: string }
  /** `team` null: it belongs to the whole server. */
  | { readonly kind: "object"; readonly owner: Owner | null; readonly team: string | null };

/** Why not. `hidden` must look like an object that does not exist. */
export type AccessRefusal = "role_lacks_action" | "scope_lacks_action" | "hidden" | "not_on_this";

/**
 * Deny by default. Without a resource: whether the caller may do this to anything at all (what a route asks before its
 * object is known). With one: whether it may be seen comes first, so that no refusal tells that it exists. Roles do not
 * lend each other what they lack, and a credential's scope takes away and never gives.
 */
export function decide(
  principal: Principal,
  action: Action,
  resource?: Resource,
): Outcome<true, AccessRefusal> {
  const { grants, scope } = principal;
  if (resource !== undefined && !isVisible(principal, action, resource)) return no("hidden");
  if (!grants.some((grant) => grant.action === action)) return no("role_lacks_action");
  if (scope !== null && !scope.some((grant) => grant.action === action)) return no("scope_lacks_action");
  return resource === undefined || admits(principal, action, resource) ? ok(true) : no("not_on_this");
}

/**
 * Whether a caller has every grant of a scope. For scopes alone: one only narrows what its owner's roles give, so that which
 * cards these hold to is left aside. What a role would give stands by itself, and is for `canGive`.
 */
export function coversAll({ grants, scope }: Principal, others: readonly Grant[]): boolean {
  const covered = (by: readonly Grant[], other: Grant): boolean => by.some((one) => coversGrant(one, other));
  return others.every((other) => covered(grants, other) && (scope === null || covered(scope, other)));
}

function isVisible(principal: Principal, action: Action, resource: Resource): boolean {
  if (resource.kind === "object") return admits(principal, readingOf(action), resource);
  return admits(principal, "model:read", resource) || admits(principal, "model:infer", resource);
}

/** Whether both the roles and the scope reach this object with this action. */
function admits(principal: Principal, action: Action, resource: Resource): boolean {
  const reaches = (grants: readonly Grant[]): boolean =>
    grants.some((grant) => grant.action === action && grantReaches(grant, principal, resource));
  return reaches(principal.grants) && (principal.scope === null || reaches(principal.scope));
}

function grantReaches({ action, on, cardRole }: Grant, principal: Principal, resource: Resource): boolean {
  if (ACTIONS[action] !== resource.kind) return false;
  if (resource.kind === "model") {
    if (resource.teams !== null && !resource.teams.includes(principal.team)) return false;
    if (!matchesPattern(on, resource.id)) return false;
    if (cardRole === null) return true;
    return resource.see.includes(cardRole) && (action === "model:read" || resource.use.includes(cardRole));
  }
  if (on === "own") return isOwner(principal, resource.owner);
  return on === "*" || resource.team === principal.team;
}

function isOwner({ issuer, subject }: Principal, owner: Owner | null): boolean {
  return owner !== null && owner.issuer === issuer && owner.subject === subject;
}
