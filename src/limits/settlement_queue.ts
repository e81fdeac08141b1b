// Settlement queue: settles holds in the store, and keeps what a failing store does not take until it does.
import { toFault } from "../faults/fault.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import { SETTLING_RETRIED_MS } from "./decide_cells.ts";
import type { LimitCell, LimitStore, Tally, UsedCell } from "./limit_store.ts";

/** What `LimitStore.settle` is to be told. */
export interface Settlement {
  readonly hold: string;
  readonly used: readonly UsedCell[];
  readonly tallies: readonly Tally[];
}

/** More settlements, and more takes, are not kept: the oldest goes. */
export const SETTLEMENTS_WAITING_MAX = 10_000;
/** So many are sent at once when the store is back. */
const BATCH = 100;

/** One that waits. */
interface Waiting extends Settlement {
  /** When it was sent for the first time, by the monotonic clock; undefined while it is certain that it never was. */
  readonly sentAtMs: number | undefined;
}

/** Settlements that wait. Every one may be told twice: the store settles a hold once. */
export class SettlementQueue {
  readonly #store: LimitStore;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #told: { waits(): void; settled(used: readonly UsedCell[]): void };
  #settlements: Waiting[] = [];
  /** Takes without an answer. By themselves, so that however many fail they push out no settlement. */
  #takes: Waiting[] = [];
  readonly #underWay = new Set<Promise<unknown>>();
  /** From a failure to the next `retry` nothing is sent: a store in trouble is spared. */
  #isSparing = false;
  #dropped = { settlements: 0, takes: 0 };
  #isClosed = false;

  /** @param told `waits`: something waits for `retry` · `settled`: the store has settled this */
  constructor(
    store: LimitStore,
    clock: Clock,
    log: Log,
    told: { waits(): void; settled(used: readonly UsedCell[]): void },
  ) {
    this.#store = store;
    this.#clock = clock;
    this.#log = log;
    this.#told = told;
  }

  get isEmpty(): boolean {
    return this.#waitingCount() === 0;
  }

  /** Settles now, or at a later `retry`. Never throws. */
  settle(settlement: Settlement): void {
    if (this.#isSparing) return this.#keepSettlement({ ...settlement, sentAtMs: undefined });
    const { hold, used, tallies } = settlement;
    const askedAtMs = this.#clock.monotonic();
    const fail = (thrown: unknown) => {
      this.#isSparing = true;
      this.#keepSettlement({ ...settlement, sentAtMs: wasSent(thrown) ? askedAtMs : undefined });
    };
    let sent: Promise<void> | void;
    try {
      sent = this.#store.settle(hold, used, tallies);
    } catch (thrown) {
      return fail(thrown);
    }
    if (!(sent instanceof Promise)) return this.#told.settled(used);
    const done = sent.then(() => this.#told.settled(used), fail).finally(() => this.#underWay.delete(done));
    this.#underWay.add(done);
  }

  /** Gives back, at the next `retry`, what a take without an answer may have taken: the store has just failed. */
  giveBack(hold: string, cells: readonly LimitCell[]): void {
    this.#isSparing = true;
    this.#keepTake({
      hold,
      used: cells.map((cell) => ({ cell, used: 0 })),
      tallies: [],
      // It adds nothing up and a hold corrects once, so this may be told at any time.
      sentAtMs: undefined,
    });
  }

  /** Tries once to settle each that waits; those that cannot be settled wait on. Never rejects. */
  async retry(): Promise<void> {
    this.#isSparing = false;
    const isBack = await this.#retryEach(this.#settlements, (settlement) => this.#keepSettlement(settlement));
    if (isBack) await this.#retryEach(this.#takes, (take) => this.#keepTake({ ...take, sentAtMs: undefined }));
    this.logDropped();
  }

  /** Resolves when the settlements that are under way have ended, well or not. */
  async idle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  /** Gives up what waits, and from now on what fails. */
  close(): void {
    this.#isClosed = true;
    this.#dropped.settlements += this.#settlements.length;
    this.#dropped.takes += this.#takes.length;
    this.#settlements = [];
    this.#takes = [];
    this.logDropped();
  }

  /**
   * Tells how many went since it told last. Of settlements the tallies are lost and what was reserved stays charged, unless the
   * store had settled them and only the answer was lost; what takes without an answer had taken, if anything, stays charged.
   */
  logDropped(): void {
    const { settlements, takes } = this.#dropped;
    if (settlements + takes === 0) return;
    this.#log.write("error", "limits.settlements_dropped", { settlements, takes });
    this.#dropped = { settlements: 0, takes: 0 };
  }

  /** Whether the store takes any, as far as is known. */
  async #retryEach(waiting: Waiting[], keep: (failed: Waiting) => void): Promise<boolean> {
    for (let left = waiting.length; left > 0 && waiting.length > 0;) {
      const batch = waiting.splice(0, Math.min(left, BATCH));
      left -= batch.length;
      const askedAtMs = this.#clock.monotonic();
      const failed: Waiting[] = [];
      let reason = "";
      await Promise.all(batch.map(async (settlement) => {
        const { hold, used, tallies, sentAtMs } = settlement;
        if (sentAtMs !== undefined && askedAtMs - sentAtMs >= SETTLING_RETRIED_MS) {
          this.#dropped.settlements++;
          return;
        }
        try {
          await this.#store.settle(hold, used, tallies);
          this.#told.settled(used);
        } catch (thrown) {
          reason = toFault(thrown).message;
          failed.push({ ...settlement, sentAtMs: sentAtMs ?? (wasSent(thrown) ? askedAtMs : undefined) });
        }
      }));
      // At the end, so that one that the store never takes does not stand before all others.
      for (const settlement of failed) keep(settlement);
      if (failed.length === batch.length) {
        this.#log.write("warn", "limits.settlements_wait", { waiting: this.#waitingCount(), reason });
        return false;
      }
    }
    return true;
  }

  #waitingCount(): number {
    return this.#settlements.length + this.#takes.length;
  }

  #keepSettlement(settlement: Waiting): void {
    this.#dropped.settlements += this.#keep(this.#settlements, settlement);
    if (this.#isClosed) this.logDropped();
  }

  #keepTake(take: Waiting): void {
    this.#dropped.takes += this.#keep(this.#takes, take);
    if (this.#isClosed) this.logDropped();
  }

  /** How many had to go. */
  #keep(waiting: Waiting[], settlement: Waiting): number {
    if (this.#isClosed) return 1;
    const gone = waiting.length >= SETTLEMENTS_WAITING_MAX ? waiting.splice(0, 1).length : 0;
    waiting.push(settlement);
    this.#told.waits();
    return gone;
  }
}

/** Whether a settling that failed with this may have happened all the same. */
function wasSent(thrown: unknown): boolean {
  return toFault(thrown).details.notSent !== true;
}
