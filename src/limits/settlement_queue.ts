// Settlement queue: settles holds in the store, and keeps what a failing store does not take until it does.
import { toFault } from "../faults/fault.ts";
import type { Log } from "../telemetry/log.ts";
import type { LimitStore, Tally, UsedCell } from "./limit_store.ts";

/** What `LimitStore.settle` is to be told. */
export interface Settlement {
  readonly hold: string;
  readonly used: readonly UsedCell[];
  readonly tallies: readonly Tally[];
}

/** More than these are not kept: the oldest goes. */
export const SETTLEMENTS_WAITING_MAX = 10_000;
/** So many are sent at once when the store is back. */
const BATCH = 100;

/** Settlements that wait. Every one may be told twice: the store settles a hold once. */
export class SettlementQueue {
  readonly #store: LimitStore;
  readonly #log: Log;
  readonly #told: { waits(): void; settled(used: readonly UsedCell[]): void };
  #waiting: Settlement[] = [];
  readonly #underWay = new Set<Promise<unknown>>();
  /** From a failure to the next `retry` nothing is sent: a store in trouble is spared. */
  #isSparing = false;
  #dropped = 0;
  #isClosed = false;

  /** @param told `waits`: something waits for `retry` · `settled`: the store has settled this */
  constructor(
    store: LimitStore,
    log: Log,
    told: { waits(): void; settled(used: readonly UsedCell[]): void },
  ) {
    this.#store = store;
    this.#log = log;
    this.#told = told;
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Settles now, or at a later `retry`. Never throws. */
  settle(settlement: Settlement): void {
    if (this.#isSparing) return this.wait(settlement);
    const { hold, used, tallies } = settlement;
    let sent: Promise<void> | void;
    try {
      sent = this.#store.settle(hold, used, tallies);
    } catch {
      return this.wait(settlement);
    }
    if (!(sent instanceof Promise)) return this.#told.settled(used);
    const done = sent.then(() => this.#told.settled(used), () => this.wait(settlement))
      .finally(() => this.#underWay.delete(done));
    this.#underWay.add(done);
  }

  /** Settles at the next `retry`: the store has just failed. */
  wait(settlement: Settlement): void {
    this.#isSparing = true;
    this.#keep(settlement);
  }

  /** Tries once to settle each that waits; those that cannot be settled wait on. Never rejects. */
  async retry(): Promise<void> {
    this.#isSparing = false;
    for (let left = this.#waiting.length; left > 0 && !this.isEmpty;) {
      const batch = this.#waiting.splice(0, Math.min(left, BATCH));
      left -= batch.length;
      const failed: Settlement[] = [];
      let reason = "";
      await Promise.all(batch.map(async (settlement) => {
        try {
          await this.#store.settle(settlement.hold, settlement.used, settlement.tallies);
          this.#told.settled(settlement.used);
        } catch (thrown) {
          reason = toFault(thrown).message;
          failed.push(settlement);
        }
      }));
      // At the end, so that one that the store never takes does not stand before all others.
      for (const settlement of failed) this.#keep(settlement);
      if (failed.length === batch.length) {
        this.#log.write("warn", "limits.settlements_wait", { waiting: this.#waiting.length, reason });
        break;
      }
    }
  }

  /** Resolves when the settlements that are under way have ended, well or not. */
  async idle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  /** Gives up what waits, and from now on what fails. */
  close(): void {
    this.#isClosed = true;
    this.#dropped += this.#waiting.length;
    this.#waiting = [];
    this.logDropped();
  }

  /** Tells how many went since it told last: what these had taken stays charged, their tallies are lost. */
  logDropped(): void {
    if (this.#dropped === 0) return;
    this.#log.write("error", "limits.settlements_dropped", { settlements: this.#dropped });
    this.#dropped = 0;
  }

  #keep(settlement: Settlement): void {
    if (this.#isClosed) {
      this.#dropped++;
      return this.logDropped();
    }
    if (this.#waiting.length >= SETTLEMENTS_WAITING_MAX) {
      this.#waiting.shift();
      this.#dropped++;
    }
    this.#waiting.push(settlement);
    this.#told.waits();
  }
}
