// Guarded cell: one limit on one subject, and what becomes of it while the store fails.
import type { LimitCell } from "./limit_store.ts";

/** While the store fails: `closed` refuses, `degraded` lets each instance allow a fraction by itself. */
export type StoreFailurePolicy = "closed" | "degraded";

/** A cell and what becomes of it while the store fails. */
export interface GuardedCell {
  readonly cell: LimitCell;
  readonly whenStoreFails: StoreFailurePolicy;
  /** Whether the amount is known before the work, as of requests and unlike of tokens: `settle` says the same or, where nothing was done, 0. */
  readonly fixed: boolean;
}
