// Grant: one permission, as roles give it and as scopes of tokens and keys narrow to it. One grammar for all of them.
import { matchesPattern } from "../encoding/wildcard.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import { type Action, ACTIONS, isAction } from "./action.ts";
import type { ModelRole } from "./model_role.ts";

/** An action on something. */
export interface Grant {
  readonly action: Action;
  /** Model actions: a pattern over model ids, where `*` stands for any characters. Others: `own`, `team` or `*`. */
  readonly on: string;
  /** The built-in role that gives it: on models it holds only where the model's card names that role. null: as it stands. */
  readonly cardRole: ModelRole | null;
}

/** Why a text is no grant. */
export type GrantMistake = "action_unknown" | "pattern_malformed" | "reach_unknown";

/** The letters of model ids, and stars. Few stars, so that matching stays cheap. */
const MODEL_PATTERN = /^(?!(?:[^*]*\*){5})[A-Za-z0-9*][A-Za-z0-9._:/*-]{0,127}$/;
const REACHES: readonly string[] = ["own", "team", "*"];

/** For people who have to write one. */
export const GRANT_GRAMMAR =
  "ACTION or ACTION/ON, such as model:infer/use-*, key:write/own, user:write/team; without ON: on everything";

/** Reads `ACTION` or `ACTION/ON`; without ON it reaches everything. */
export function parseGrant(text: string): Outcome<Grant, GrantMistake> {
  const slash = text.indexOf("/");
  const action = slash === -1 ? text : text.slice(0, slash);
  const on = slash === -1 ? "*" : text.slice(slash + 1);
  if (!isAction(action)) return no("action_unknown");
  if (ACTIONS[action] === "model") {
    return MODEL_PATTERN.test(on) ? ok({ action, on, cardRole: null }) : no("pattern_malformed");
  }
  return REACHES.includes(on) && (ACTIONS[action] === "object" || on === "*")
    ? ok({ action, on, cardRole: null })
    : no("reach_unknown");
}

/** What texts grant; one that is no grant gives nothing. */
export function grantsIn(texts: readonly string[]): readonly Grant[] {
  return texts.map(parseGrant).flatMap((grant) => grant.ok ? [grant.value] : []);
}

/** The shortest text of a grant. */
export function formatGrant({ action, on }: Grant): string {
  return on === "*" ? action : `${action}/${on}`;
}

/**
 * Whether a grant reaches all that another one reaches; which cards they hold to is left aside. A star within the other is
 * matched by a star alone.
 */
export function coversGrant(one: Grant, other: Grant): boolean {
  if (one.action !== other.action) return false;
  if (ACTIONS[one.action] === "model") return matchesPattern(one.on, other.on);
  return REACHES.indexOf(one.on) >= REACHES.indexOf(other.on);
}
