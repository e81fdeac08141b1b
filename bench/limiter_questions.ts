// Limiter questions: what both contestants of the limiter's phase are asked, and our limit stores' way to answer it.
import { newId } from "../src/encoding/ids.ts";
import type { Rate } from "../src/limits/gcra.ts";
import type { LimitCell, LimitStore, RateCell } from "../src/limits/limit_store.ts";
import type { Limiter } from "../src/limits/limiter.ts";
import { systemClock } from "../src/time/clock.ts";

/** Asks once about one client; whether the request may pass. */
export type Ask = (client: string) => Promise<boolean> | boolean;

export interface Questions {
  /** One limit. */
  readonly one: Ask;
  /** Two limits at once. */
  readonly two: Ask;
  /** A rate and a place, which is given back afterwards. */
  readonly held: Ask;
}

/** A rate that no client of the bench uses up. */
export const AMPLE: Rate = { quota: 1_000_000_000, windowMs: 60_000 };
/** A rate that a client has used up after one request, for as long as the bench runs. */
export const SPENT: Rate = { quota: 1, windowMs: 3_600_000 };
/** Places that no client of the bench fills. */
export const PLACES = 1_000_000;
const HELD_MS = 60_000;

export function ourQuestions(store: LimitStore, rate: Rate): Questions {
  const take = (hold: string | null, cells: readonly LimitCell[]): Promise<boolean> | boolean => {
    const taken = store.take(hold, cells);
    return taken instanceof Promise
      ? taken.then((decisions) => decisions.every(({ allowed }) => allowed))
      : taken.every(({ allowed }) => allowed);
  };
  return {
    one: (client) => take(null, [cellOf("address", client, rate)]),
    two: (client) => take(null, [cellOf("address", client, rate), cellOf("user", client, rate)]),
    held(client) {
      const hold = newId("hld", systemClock.now());
      const user = cellOf("user", client, rate);
      const place: LimitCell = { kind: "place", key: `at-once/${client}`, quota: PLACES, heldMs: HELD_MS };
      const settle = () => store.settle(hold, [{ cell: user, used: 1 }, { cell: place, used: 0 }], []);
      const allowed = take(hold, [user, place]);
      if (!(allowed instanceof Promise)) {
        settle();
        return allowed;
      }
      return allowed.then(async (decided) => {
        await settle();
        return decided;
      });
    },
  };
}

/** One limit, asked through the limiter, which keeps refusals in mind. */
export function askLimiter(limiter: Limiter, rate: Rate): Ask {
  return (client) => {
    const cell = cellOf("address", client, rate);
    const taken = limiter.take(null, [{ cell, whenStoreFails: "closed", fixed: true }]);
    return taken instanceof Promise
      ? taken.then(([decision]) => decision?.allowed === true)
      : taken[0]?.allowed === true;
  };
}

function cellOf(name: string, client: string, { quota, windowMs }: Rate): RateCell {
  return { kind: "rate", key: `${name}/${client}`, quota, windowMs, amount: 1 };
}
