// Rate cells in the memory of one instance.
import type { Clock } from "../time/clock.ts";
import { observeRate, type RateDecision, takeObserved } from "./gcra.ts";
import { RecentMap } from "./recent_map.ts";
import type { RateCell, RateCells } from "./rate_cells.ts";

/** Clients kept in mind at most. When more come, those that half as many others came after are forgotten and start with a whole quota. */
const CELLS_MAX = 100_000;

/** Opens empty cells. A restart forgets them: a rate of minutes may start fresh. */
export function openMemoryRateCells(clock: Clock, cellsMax: number = CELLS_MAX): RateCells {
  const arrivals = new RecentMap<number>(cellsMax);

  return {
    take(cells: readonly RateCell[]): readonly RateDecision[] {
      const nowMs = clock.monotonic();
      const seen = cells.map((cell) => observeRate(cell.rate, arrivals.get(cell.key), nowMs));
      // One limit's refusal drains no other. By the look alone, who is refused stays in mind: a flood of strangers must
      // not win anybody a whole quota.
      if (!seen.every((decision) => decision.allowed)) return seen;
      return seen.map((decision, index) => {
        const cell = cells[index];
        if (cell === undefined) return decision;
        const taken = takeObserved(cell.rate, decision, nowMs);
        arrivals.set(cell.key, taken.arrival);
        return taken;
      });
    },
  };
}
