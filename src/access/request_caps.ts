// Request caps: how much one request may ask for, by role. Of several roles, each cap is the most generous one's.
import type { Principal } from "../identity/principal.ts";
import { isRole, type Role } from "./role.ts";

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
export type RoleCaps = Readonly<Record<Role, RequestCaps>>;

/** For roles that the settings say nothing of. */
export const DEFAULT_CAPS: RequestCaps = {
  outputTokensMax: null,
  choicesMax: 64,
  stopSequencesMax: 16,
  imagesMax: 16,
  toolsMax: 128,
};

/** The caps of a caller. A caller without a role has none of anything. */
export function capsOf(principal: Principal, roleCaps: RoleCaps): RequestCaps {
  const own = principal.roles.filter(isRole).map((role) => roleCaps[role]);
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
