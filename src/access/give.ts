// Give: what somebody may hand to others as a role. Stricter than a scope, for a role stands by itself.
import { ACTIONS } from "./action.ts";
import { coversGrant, type Grant } from "./grant.ts";
import type { Principal } from "./principal.ts";

/**
 * Whether somebody has all that grants would give to members of a team: nobody gives away, nor takes over, what they do
 * not have.
 *
 * @param toTeam null: to members of every team
 */
export function canGive(
  { grants, scope, team }: Pick<Principal, "grants" | "scope" | "team">,
  others: readonly Grant[],
  toTeam: string | null,
): boolean {
  const reachesThere = (one: Grant, other: Grant): boolean =>
    ACTIONS[other.action] === "model"
      ? reachesSameCards(one, other)
      // "team" means another team there than here.
      : other.on !== "team" || one.on === "*" || team === toTeam;
  const covers = (by: readonly Grant[], other: Grant): boolean =>
    by.some((one) => coversGrant(one, other) && reachesThere(one, other));
  // A model can be for one team only: what somebody may run here says nothing of what is there to be run.
  const ownModels = (one: Grant): boolean =>
    ACTIONS[one.action] !== "model" || one.cardRole === "admin" || team === toTeam;
  const givable = grants.filter(ownModels);
  return others.every((other) => covers(givable, other) && (scope === null || covers(scope, other)));
}

/** What a card opens to one role only, a grant past the cards would open too. The admin writes the roles past them. */
function reachesSameCards(one: Grant, other: Grant): boolean {
  return one.cardRole === null || one.cardRole === "admin" || one.cardRole === other.cardRole;
}
