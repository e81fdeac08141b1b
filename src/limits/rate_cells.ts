// Rate cells: the port where the state of rates is kept, in memory or on a server that instances share.
import type { Rate, RateDecision } from "./gcra.ts";

/** One limit on one client. */
export interface RateCell {
  /** Names the limit and the client, such as `address:192.0.2.1`. */
  readonly key: string;
  readonly rate: Rate;
}

/** Keeps cells and decides on them atomically. */
export interface RateCells {
  /**
   * Takes one request from every cell, or from none where one of them refuses. No key stands twice among them.
   *
   * @returns a decision for each cell, in order. Throws Fault `unavailable` when the cells cannot be reached
   */
  take(cells: readonly RateCell[]): Promise<readonly RateDecision[]> | readonly RateDecision[];
}
