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

/** More than these of each kind are not kept: the oldest goes. */
export const SETTLEMENTS_WAITING_MAX = 10_000;
/** So many are sent at once when the store is back. */
const BATCH = 100;

/** Takes without an answer wait by themselves: however many fail, they push out no settlement. */
type Kind = "settlements" | "takes";

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
  readonly #waiting: Record<Kind, Waiting[]> = { settlements: [], takes: [] };
  readonly #underWay = new Set<Promise<unknown>>();
  /** From a failure to the next `retry` nothing is sent: a store in trouble is spared. */
  #isSparing = false;
  #dropped: Record<Kind, number> = { settlements: 0, takes: 0 };
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
    return this.#count() === 0;
  }

  /** Settles now, or at a later `retry`. Never throws. */
  settle(settlement: Settlement): void {
    if (this.#isSparing) return this.#keep("settlements", { ...settlement, sentAtMs: undefined });
    const { hold, used, tallies } = settlement;
    const askedAtMs = this.#clock.monotonic();
    const fail = (thrown: unknown) => {
      this.#isSparing = true;
      this.#keep("settlements", { ...settlement, sentAtMs: wasSent(thrown) ? askedAtMs : undefined });
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
    const used = cells.map((cell) => ({ cell, used: 0 }));
    this.#keep("takes", { hold, used, tallies: [], sentAtMs: undefined });
  }

  /** Tries once to settle each that waits; those that cannot be settled wait on. Never rejects. */
  async retry(): Promise<void> {
    this.#isSparing = false;
    if (await this.#retryEach("settlements")) await this.#retryEach("takes");
    this.logDropped();
  }

  /** Resolves when the settlements that are under way have ended, well or not. */
  async idle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  /** Gives up what waits, and from now on what fails. */
  close(): void {
    this.#isClosed = true;
    for (const kind of ["settlements", "takes"] as const) {
      this.#dropped[kind] += this.#waiting[kind].splice(0).length;
    }
    this.logDropped();
  }

  /**
   * Tells how many went since it told last. Of a settlement the tallies are lost and what was reserved stays charged, unless the
   * store had settled it and only the answer was lost. What a take without an answer took, if anything, stays charged.
   */
  logDropped(): void {
    const { settlements, takes } = this.#dropped;
    if (settlements + takes === 0) return;
    this.#log.write("error", "limits.settlements_dropped", { settlements, takes });
    this.#dropped = { settlements: 0, takes: 0 };
  }

  /** Whether the store takes any, as far as is known. */
  async #retryEach(kind: Kind): Promise<boolean> {
    const waiting = this.#waiting[kind];
    for (let left = waiting.length; left > 0 && waiting.length > 0;) {
      const batch = waiting.splice(0, Math.min(left, BATCH));
      left -= batch.length;
      const failed: Waiting[] = [];
      let reason = "";
      await Promise.all(batch.map(async (settlement) => {
        const { hold, used, tallies, sentAtMs } = settlement;
        const askedAtMs = this.#clock.monotonic();
        // A hold corrects once, however late; only tallies would be added twice.
        if (kind === "settlements" && askedAtMs - (sentAtMs ?? askedAtMs) >= SETTLING_RETRIED_MS) {
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
      for (const settlement of failed) this.#keep(kind, settlement);
      if (failed.length === batch.length) {
        this.#log.write("warn", "limits.settlements_wait", { waiting: this.#count(), reason });
        return false;
      }
    }
    return true;
  }

  #count(): number {
    return this.#waiting.settlements.length + this.#waiting.takes.length;
  }

  #keep(kind: Kind, settlement: Waiting): void {
    const waiting = this.#waiting[kind];
    if (this.#isClosed) {
      this.#dropped[kind]++;
      return this.logDropped();
    }
    if (waiting.length >= SETTLEMENTS_WAITING_MAX) {
      waiting.shift();
      this.#dropped[kind]++;
    }
    waiting.push(settlement);
    this.#told.waits();
  }
}

/** Whether a settling that failed with this may have happened all the same. */
function wasSent(thrown: unknown): boolean {
  return toFault(thrown).details.notSent !== true;
}
