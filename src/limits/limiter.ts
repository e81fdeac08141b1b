// Limiter: what stands between callers and the limit store: what happens when the store fails.
import { Fault, toFault } from "../faults/fault.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import type { GuardedCell } from "./guarded_cell.ts";
import type { LimitCell, LimitDecision, LimitStore, Tally, UsedCell } from "./limit_store.ts";
import { RefusedRates } from "./refused_rates.ts";
import { SettlementQueue } from "./settlement_queue.ts";

/** Decides on limits. */
export interface Limiter {
  /**
   * As `LimitStore.take`; synchronous where the store is. While the store fails and all cells are degraded, this instance
   * decides by itself with the stated fraction of each quota, at least 1. A rate of fixed amounts that was refused a moment
   * ago is refused without asking, and the other cells then read as if they were unused.
   *
   * @param hold as of the store; where `settle` is to follow, it follows after the answer
   * @throws Fault `unavailable` (rejects, or throws where the store is synchronous) when the store fails and one of the cells
   * is closed; what it may have taken is given back
   */
  take(
    hold: string | null,
    cells: readonly GuardedCell[],
  ): Promise<readonly LimitDecision[]> | readonly LimitDecision[];
  /** The refusal that `take` would give without asking; undefined where it would ask. Takes nothing. */
  refusal(cell: GuardedCell): LimitDecision | undefined;
  /**
   * As `LimitStore.settle`, for a hold that was allowed. Never throws, never waits: what the store does not take now is tried
   * again until it does. 10,000 may wait, then the oldest is dropped: what it had taken stays charged, and its tallies are lost.
   * So is one whose answer was lost 55 minutes ago: what the store had done by then stands, but it is not done twice.
   */
  settle(hold: string, used: readonly UsedCell[], tallies: readonly Tally[]): void;
  /** As `LimitStore.sums`: without what waits. */
  sums(book: string, keys?: readonly string[]): Promise<ReadonlyMap<string, number>>;
  /** Whether the store has failed and is not known to work again. */
  isDegraded(): boolean;
  /** Tries once more to settle what waits, for at most `waitMs`, then closes both stores. */
  close(waitMs: number): Promise<void>;
}

const RETRY_MS_FIRST = 200;
const RETRY_MS_MAX = 2_000;

/** What is taken to know whether the store writes again: that it answers is not enough, a full or read-only one does. */
const PROBE: readonly LimitCell[] = [{
  kind: "count",
  book: "probe",
  key: "probe",
  quota: Number.MAX_SAFE_INTEGER,
  amount: 1,
  endsInMs: 1000,
}];

/**
 * Opens a limiter.
 *
 * @param options.store where all instances count; closed with the limiter, as is `local`
 * @param options.local in memory, for when the store fails; nobody else's
 * @param options.degradedFraction of each quota, more than 0 and at most 1
 */
export function openLimiter(options: {
  readonly store: LimitStore;
  readonly local: LimitStore;
  readonly degradedFraction: number;
  readonly clock: Clock;
  readonly log: Log;
}): Limiter {
  const { store, local, degradedFraction, clock, log } = options;
  const refused = new RefusedRates();
  const queue = new SettlementQueue(store, clock, log, {
    waits: scheduleRound,
    settled: (used) => refused.forget(used, clock.monotonic()),
  });
  /** Holds that `local` took. */
  const localHolds = new Set<string>();
  let isDegraded = false;
  let isClosing = false;
  /** The next round, or the one that runs. */
  let timer: ReturnType<typeof setTimeout> | undefined;
  let round: Promise<void> | undefined;
  let pauseMs = RETRY_MS_FIRST;
  /** When a round left nothing to do; a relapse soon after goes on with longer pauses. */
  let quietSinceMs = -Infinity;

  function scheduleRound(): void {
    if (timer !== undefined || round !== undefined || isClosing) return;
    if (clock.monotonic() - quietSinceMs > RETRY_MS_MAX) pauseMs = RETRY_MS_FIRST;
    quietSinceMs = Infinity;
    timer = setTimeout(() => {
      timer = undefined;
      round = runRound().finally(() => {
        round = undefined;
        if (isDegraded || !queue.isEmpty) scheduleRound();
        else quietSinceMs = clock.monotonic();
      });
    }, pauseMs);
    pauseMs = Math.min(2 * pauseMs, RETRY_MS_MAX);
  }

  async function runRound(): Promise<void> {
    queue.logDropped();
    try {
      await store.take(null, PROBE);
    } catch {
      return;
    }
    if (isDegraded) {
      isDegraded = false;
      log.write("info", "limits.recovered");
    }
    await queue.retry();
  }

  async function takeWithout(
    hold: string | null,
    cells: readonly GuardedCell[],
    thrown: unknown,
  ): Promise<readonly LimitDecision[]> {
    const fault = toFault(thrown);
    // Where it was sent, nobody knows whether it was taken; that settling comes first, or comes twice, does no harm.
    if (hold !== null && fault.details.notSent !== true) queue.giveBack(hold, cells.map(({ cell }) => cell));
    if (fault.kind !== "unavailable") throw fault;
    if (!isDegraded) {
      isDegraded = true;
      log.write("warn", "limits.degraded", { reason: fault.message });
      scheduleRound();
    }
    if (cells.some(({ whenStoreFails }) => whenStoreFails === "closed")) {
      throw new Fault("unavailable", `Cannot decide on limits: ${fault.message}`, {
        retryAfterSeconds: 1,
        cause: fault,
      });
    }
    const decisions = await local.take(hold, cells.map(({ cell }) => localCell(cell)));
    if (hold !== null && decisions.every(({ allowed }) => allowed)) localHolds.add(hold);
    return decisions.map((decision, index) => {
      const cell = cells[index]?.cell;
      // What is more than the fraction, but not more than the quota, the store may allow as soon as it is back.
      return decision.retryAfterMs === Infinity && cell?.kind !== "place" && cell !== undefined &&
          cell.amount <= cell.quota
        ? { ...decision, retryAfterMs: RETRY_MS_MAX }
        : decision;
    });
  }

  async function settleLocally(hold: string, used: readonly UsedCell[]): Promise<void> {
    try {
      await local.settle(hold, used.map((each) => ({ cell: localCell(each.cell), used: each.used })), []);
    } catch (thrown) {
      log.write("error", "limits.local_failed", { reason: toFault(thrown).message });
    }
  }

  function localCell(cell: LimitCell): LimitCell {
    return { ...cell, quota: fractionOf(cell.quota, degradedFraction) };
  }

  return {
    take(hold, cells) {
      if (cells.length === 0) return [];
      const askedAtMs = clock.monotonic();
      const known = refused.answer(cells, askedAtMs);
      if (known !== undefined) return known;
      let taken: Promise<readonly LimitDecision[]> | readonly LimitDecision[];
      try {
        taken = store.take(hold, cells.map(({ cell }) => cell));
      } catch (thrown) {
        return takeWithout(hold, cells, thrown);
      }
      if (!(taken instanceof Promise)) {
        if (!taken.every(({ allowed }) => allowed)) refused.learn(cells, taken, askedAtMs);
        return taken;
      }
      return taken.then((decisions) => {
        refused.learn(cells, decisions, askedAtMs);
        return decisions;
      }, (thrown) => takeWithout(hold, cells, thrown));
    },

    refusal: (cell) => refused.answer([cell], clock.monotonic())?.[0],

    settle(hold, used, tallies) {
      if (!localHolds.delete(hold)) return queue.settle({ hold, used, tallies });
      void settleLocally(hold, used);
      // Under a name of its own: in the store the hold itself is settled with nothing, and once.
      if (tallies.length > 0) queue.settle({ hold: `${hold}+`, used: [], tallies });
    },

    sums: (book, keys) => store.sums(book, keys),

    isDegraded: () => isDegraded,

    async close(waitMs) {
      isClosing = true;
      clearTimeout(timer);
      let waiting: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([
        lastTry(),
        new Promise<void>((resolve) => waiting = setTimeout(resolve, waitMs)),
      ]);
      clearTimeout(waiting);
      queue.close();
      await Promise.all([store.close(), local.close()]);
    },
  };

  async function lastTry(): Promise<void> {
    await queue.idle();
    await round;
    await queue.retry();
  }
}

/** Rounded down, but at least 1; a hundredth of a quota is whole although no binary fraction says it. */
function fractionOf(quota: number, fraction: number): number {
  return Math.min(quota, Math.max(1, Math.floor(quota * fraction * (1 + 2 * Number.EPSILON))));
}
