// Limit store: the port where what limits count is kept: in memory, in SQLite, or on a server that instances share.

/** A rate (GCRA, `gcra.ts`): so much at once, and as much again a window. */
export interface RateCell {
  readonly kind: "rate";
  /** Names the limit and whose it is, such as `address:192.0.2.1`. */
  readonly key: string;
  readonly quota: number;
  /** Whole milliseconds; quota times windowMs stays below 2^53. */
  readonly windowMs: number;
  /** What is asked for: requests or tokens; a whole number, 0 only looks. */
  readonly amount: number;
}

/** A sum over a period of the calendar. */
export interface CountCell {
  readonly kind: "count";
  /** Names the limit and the period, such as `team-month:tokens:2026-11`; all of a book ends together. */
  readonly book: string;
  /** Whose it is. */
  readonly key: string;
  /** Whole; at most 2^53 - 1, as are all sums. */
  readonly quota: number;
  readonly amount: number;
  /** Until the period ends, more than 0. */
  readonly endsInMs: number;
}

/** Places for what runs at once. */
export interface PlaceCell {
  readonly kind: "place";
  readonly key: string;
  readonly quota: number;
  /** After so long the place is free again, whatever became of its taker. */
  readonly heldMs: number;
}

/** One limit on one subject. */
export type LimitCell = RateCell | CountCell | PlaceCell;

/** What one request meant to one limit. */
export interface LimitDecision {
  readonly allowed: boolean;
  /** Whole units left, never below 0: after this request where it was allowed. */
  readonly remaining: number;
  /** Until the amount could be allowed, 0 where it is; Infinity where it is larger than the quota. Of a place nobody knows: 1000. */
  readonly retryAfterMs: number;
  /** Until the whole quota is there again; of a place 0. */
  readonly resetAfterMs: number;
}

/** What was really used of a cell of a hold. */
export interface UsedCell {
  readonly cell: LimitCell;
  /** Of a rate or sum: instead of the cell's amount, more or less than it. A place is given back whatever this says. */
  readonly used: number;
}

/** Something to be added up without a limit. */
export interface Tally {
  readonly book: string;
  readonly key: string;
  /** Whole, not below 0. */
  readonly amount: number;
  /** The book is kept for so long from now on. */
  readonly keptMs: number;
}

/** Keeps cells and decides on them atomically. Every method throws Fault `unavailable` when the store fails. */
export interface LimitStore {
  /**
   * Takes the amount from every cell, or nothing from any where one of them refuses. No cell stands twice among them.
   *
   * @param hold an id that was never used before, where `settle` is to follow; null where nothing is ever given back. A hold
   * that was settled before takes nothing and is refused (throws Fault `unavailable`): its request was given up meanwhile
   * @returns a decision for each cell, in order; where all were looked at and one refused, the others say what they would have
   */
  take(
    hold: string | null,
    cells: readonly LimitCell[],
  ): Promise<readonly LimitDecision[]> | readonly LimitDecision[];
  /**
   * Corrects what a hold took, gives its places back, and adds the tallies. Once: to settle a second time changes nothing, so
   * whoever did not hear of the outcome may try again. A hold that took nothing corrects nothing, and its tallies are added.
   */
  settle(hold: string, used: readonly UsedCell[], tallies: readonly Tally[]): Promise<void> | void;
  /** Sums of a book, limited or not, by key; all of them, or those of some keys. What is not there is 0 and absent. */
  sums(book: string, keys?: readonly string[]): Promise<ReadonlyMap<string, number>>;
  close(): Promise<void>;
}
