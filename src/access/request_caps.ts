// Request caps: how much one request may ask for, by role. Of several roles, each cap is the most generous one's.
import { isModelRole, type ModelRole } from "./model_role.ts";
import type { Principal } from "./principal.ts";
import { BUILT_IN_ROLES } from "./role.ts";

/** Upper bounds of one request. */
export interface RequestCaps {
  /** Tokens of one answer; also what holds when a caller names no number. null: as many as the model gives. */
  readonly outputTokensMax: number | null;
  /** Answers of a request (`n`, for each prompt). */
  readonly choicesMax: number;
  readonly stopSequencesMax: number;
  readonly imagesMax: number;
  readonly toolsMax: number;
}

/** Caps for each role. */
export type RoleCaps = Readonly<Record<ModelRole, RequestCaps>>;

/** For roles that the settings say nothing of. */
export const DEFAULT_CAPS: RequestCaps = {
  outputTokensMax: null,
  choicesMax: 64,
  stopSequencesMax: 16,
  imagesMax: 16,
  toolsMax: 128,
};

/** The caps of a caller; a custom role has those of `user`. A caller without a role has none of anything. */
export function capsOf(principal: Principal, roleCaps: RoleCaps): RequestCaps {
  // Of those roles that run models at all: one that only reads must not lift what another one may.
  const own = principal.roles.filter(isModelRole).filter(runsModels).map((role) => roleCaps[role]);
  if (hasCustomRole(principal)) own.push(roleCaps.user);
  const most = (name: Exclude<keyof RequestCaps, "outputTokensMax">): number =>
    Math.max(0, ...own.map((caps) => caps[name]));
  const outputs = own.map((caps) => caps.outputTokensMax);
  return {
    outputTokensMax: outputs.includes(null) ? null : Math.max(0, ...outputs.map(Number)),
    choicesMax: most("choicesMax"),
    stopSequencesMax: most("stopSequencesMax"),
    imagesMax: most("imagesMax"),
    toolsMax: most("toolsMax"),
  };
}

function runsModels(role: ModelRole): boolean {
  return BUILT_IN_ROLES.get(role)?.grants.some(({ action }) => action === "model:infer") ?? false;
}

/** A name alone is no role: it has to give something. */
function hasCustomRole({ roles, grants }: Principal): boolean {
  return grants.some(({ cardRole, action }) => cardRole === null && action === "model:infer") &&
    roles.some((role) => !BUILT_IN_ROLES.has(role));
}
