// Scripted limit store: a stub of a shared store that fails as a test says, before a real store in memory.
import { Fault, type FaultDetails } from "../../src/faults/fault.ts";
import type { LimitDecision, LimitStore } from "../../src/limits/limit_store.ts";

/**
 * `synchronous`: as memory · `synchronous_down`: throws at once · `well`: as a server · `down`: nothing gets there · `cut`: as `down`, and that is known · `deaf`: all gets there, no answer comes back ·
 * `late`: as `deaf`, but it gets there at `deliver` · `read_only`: what takes nothing works · `broken`: throws what is no Fault
 */
export type StoreState =
  | "synchronous"
  | "synchronous_down"
  | "well"
  | "down"
  | "cut"
  | "deaf"
  | "late"
  | "read_only"
  | "broken";

/** The stub. */
export interface ScriptedLimitStore extends LimitStore {
  state: StoreState;
  /** Where set, decides for each settlement whether it fails. */
  refusesToSettle: ((hold: string) => boolean) | undefined;
  /** What is asked gets there no earlier. */
  arrival: Promise<void> | undefined;
  /** The answers to takes come back no earlier. */
  takeAnswer: Promise<void> | undefined;
  /** How often it was asked, probes left out. */
  readonly asked: { takes: number; settlements: number };
  readonly isClosed: boolean;
  /** What is late gets there. */
  deliver(): Promise<void>;
}

/** Puts the stub before a store. */
export function scriptedLimitStore(inner: LimitStore): ScriptedLimitStore {
  const asked = { takes: 0, settlements: 0 };
  const late: (() => unknown)[] = [];
  let isClosed = false;

  /** Does it, as far as the state lets it get there. */
  function answer<Answer>(act: () => Promise<Answer> | Answer): Promise<Answer> | Answer {
    const { state } = store;
    if (state === "synchronous_down") throw failure("down");
    if (state === "synchronous") return act();
    return (async () => {
      await store.arrival;
      if (isClosed) throw failure("closed");
      if (state === "broken") throw new TypeError("scripted");
      if (state === "down") throw failure("down");
      if (state === "cut") throw failure("cut off", { notSent: true });
      if (state === "late") {
        late.push(act);
        throw failure("late");
      }
      const answer = await act();
      if (state === "deaf") throw failure("deaf");
      return answer;
    })();
  }

  const store: ScriptedLimitStore = {
    state: "well",
    refusesToSettle: undefined,
    arrival: undefined,
    takeAnswer: undefined,
    asked,
    get isClosed() {
      return isClosed;
    },
    take(hold, cells) {
      const isProbe = cells.some((cell) => cell.kind === "count" && cell.book === "probe");
      if (!isProbe) asked.takes++;
      const { state, takeAnswer } = store;
      const decisions = answer((): Promise<readonly LimitDecision[]> | readonly LimitDecision[] => {
        if (state !== "read_only") return inner.take(hold, cells);
        const seen = inner.take(
          null,
          cells.map((cell) => cell.kind === "place" ? cell : { ...cell, amount: 0 }),
        );
        if (seen instanceof Promise) throw new TypeError("the store in memory is synchronous");
        const writes = cells.some((cell) => cell.kind === "place" || cell.amount > 0);
        if (!writes) return seen;
        if (seen.every(({ remaining }) => remaining > 0)) throw failure("read-only");
        return seen.map((decision) => ({ ...decision, allowed: false, retryAfterMs: 1000 }));
      });
      return takeAnswer === undefined ? decisions : takeAnswer.then(() => decisions);
    },
    settle(hold, used, tallies) {
      asked.settlements++;
      const isRefused = store.refusesToSettle?.(hold) === true;
      return answer(() => {
        if (isRefused || store.state === "read_only") throw failure("refuses");
        return inner.settle(hold, used, tallies);
      });
    },
    sums: (book, keys) => inner.sums(book, keys),
    async deliver() {
      for (const act of late.splice(0)) {
        try {
          await act();
        } catch {
          // Nobody hears of what becomes of it.
        }
      }
    },
    async close() {
      isClosed = true;
      await inner.close();
    },
  };
  return store;
}

function failure(how: string, details: FaultDetails = {}): Fault {
  return new Fault("unavailable", `Cannot use the scripted store: it is ${how}`, details);
}
