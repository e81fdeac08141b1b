// Local limit store: a limit store of this process, which answers at once.
import type { LimitCell, LimitDecision, LimitStore, Tally, UsedCell } from "./limit_store.ts";

/** One that nothing can come between the question and the answer of. */
export interface LocalLimitStore extends LimitStore {
  /** @param keptMs for how long the hold is known at least, where a place of it that lasts longer is kept elsewhere */
  take(hold: string | null, cells: readonly LimitCell[], keptMs?: number): readonly LimitDecision[];
  settle(hold: string, used: readonly UsedCell[], tallies: readonly Tally[]): void;
}
