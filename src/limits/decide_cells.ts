// Decide cells: what the state of cells means to a request, the same wherever the state is kept.
import { Fault } from "../faults/fault.ts";
import { filled, levelAllows, observeLevel, unitsLeft } from "./gcra.ts";
import type { LimitCell, LimitDecision } from "./limit_store.ts";

/** A hold that nobody settles is forgotten after so long, or with its longest place: then what it took stays taken. */
export const HOLD_KEPT_MS = 60 * 60_000;

/** For so long a store knows that a hold was settled: a second settling in this time changes nothing, and a take is refused. */
export const SETTLED_KEPT_MS = HOLD_KEPT_MS;

/** For so long a settling without an answer is tried again; then the store may have forgotten it soon, and would do it twice. */
export const SETTLING_RETRIED_MS = SETTLED_KEPT_MS - 5 * 60_000;

/** A place is free again when its taker is done: nobody knows when. */
const PLACE_RETRY_MS = 1000;

/** How long a store has to remember a hold on some cells. */
export function holdKeptMs(cells: readonly LimitCell[]): number {
  return cells.reduce(
    (keptMs, cell) => cell.kind === "place" ? Math.max(keptMs, cell.heldMs) : keptMs,
    HOLD_KEPT_MS,
  );
}

/**
 * Decides whether a request may take from all of its cells.
 *
 * @param states of each cell: a rate's level now (`gcra.ts`), a sum, or how many places are held
 */
export function decideCells(
  cells: readonly LimitCell[],
  states: readonly number[],
): { readonly allowed: boolean; readonly decisions: readonly LimitDecision[] } {
  const allowed = cells.every((cell, index) => allows(cell, states[index] ?? 0));
  const decisions = cells.map((cell, index) => {
    const state = states[index] ?? 0;
    return allowed ? tookFrom(cell, taken(cell, state)) : observe(cell, state);
  });
  return { allowed, decisions };
}

/** What a cell says of itself after its amount was taken. */
export function tookFrom(cell: LimitCell, state: number): LimitDecision {
  return {
    allowed: true,
    remaining: cell.kind === "rate" ? unitsLeft(cell, state) : Math.max(0, cell.quota - state),
    retryAfterMs: 0,
    resetAfterMs: resetAfterMs(cell, state),
  };
}

/** The state of a cell after its amount was taken. */
export function taken(cell: LimitCell, state: number): number {
  switch (cell.kind) {
    case "rate":
      return filled(cell, state, cell.amount);
    case "count":
      return state + cell.amount;
    case "place":
      return state + 1;
  }
}

/** What a store throws at a take whose hold was used before. */
export function holdRefused(): Fault {
  return new Fault("unavailable", "Cannot take for a hold: it was settled or used before");
}

/** Whether a cell in this state has room for its amount. */
function allows(cell: LimitCell, state: number): boolean {
  switch (cell.kind) {
    case "rate":
      return levelAllows(cell, state, cell.amount);
    case "count":
      return state <= cell.quota - cell.amount;
    case "place":
      return state < cell.quota;
  }
}

/** What a cell in this state says of itself, nothing taken. */
function observe(cell: LimitCell, state: number): LimitDecision {
  if (cell.kind === "rate") return observeLevel(cell, state, cell.amount);
  const allowed = allows(cell, state);
  const amount = cell.kind === "count" ? cell.amount : 1;
  const waitMs = cell.kind === "count" ? cell.endsInMs : PLACE_RETRY_MS;
  return {
    allowed,
    remaining: Math.max(0, cell.quota - state),
    retryAfterMs: allowed ? 0 : amount > cell.quota ? Infinity : waitMs,
    resetAfterMs: resetAfterMs(cell, state),
  };
}

function resetAfterMs(cell: LimitCell, state: number): number {
  if (cell.kind === "rate") return state / cell.quota;
  return cell.kind === "count" && state > 0 ? cell.endsInMs : 0;
}
