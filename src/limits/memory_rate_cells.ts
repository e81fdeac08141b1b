// Rate cells in the memory of one instance.
import type { Clock } from "../time/clock.ts";
import { decideRate, observeRate, type RateDecision } from "./gcra.ts";
import type { RateCell, RateCells } from "./rate_cells.ts";

/** Clients kept in mind at most. When more come, the ones longest unseen are forgotten and start with a whole quota. */
const CELLS_MAX = 100_000;

/** Opens empty cells. A restart forgets them: a rate of minutes may start fresh. */
export function openMemoryRateCells(clock: Clock, cellsMax: number = CELLS_MAX): RateCells {
  // A Map keeps the order of insertion: each use moves its cell to the end, so that the first is the longest unseen.
  const arrivals = new Map<string, number>();

  function keep(key: string, arrival: number): void {
    arrivals.delete(key);
    arrivals.set(key, arrival);
    if (arrivals.size <= cellsMax) return;
    for (const oldest of arrivals.keys()) {
      arrivals.delete(oldest);
      break;
    }
  }

  return {
    take(cells: readonly RateCell[]): readonly RateDecision[] {
      const nowMs = clock.monotonic();
      const seen = cells.map((cell) => observeRate(cell.rate, arrivals.get(cell.key), nowMs));
      // One limit's refusal drains no other.
      if (!seen.every((decision) => decision.allowed)) {
        // Who is refused stays in mind: a flood of strangers must not win anybody a whole quota.
        for (const { key } of cells) {
          const arrival = arrivals.get(key);
          if (arrival !== undefined) keep(key, arrival);
        }
        return seen;
      }
      return cells.map((cell) => {
        const decision = decideRate(cell.rate, arrivals.get(cell.key), nowMs);
        keep(cell.key, decision.arrival);
        return decision;
      });
    },
  };
}
