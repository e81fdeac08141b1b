// Health check: asks an upstream now and then whether it is well, so that requests need not find out.
import { type Fault, toFault } from "../../faults/fault.ts";

/** What is known of an upstream's health. */
export interface HealthCheck {
  /** True until the checks say otherwise. */
  readonly healthy: boolean;
  /** Private words: why it is not healthy. */
  readonly reason: string | undefined;
  /** Ends the check under way and all to come. */
  close(): Promise<void>;
}

/** One failure may be chance. */
const FAILURES_IN_ROW_MIN = 2;

/**
 * Checks at once, in the background, and then again and again until it is closed.
 *
 * @param ask asks once and resolves with a status; it throws a Fault where none came, or where the signal aborts
 * @param everySeconds from the end of one check to the next
 * @param onChange hears when the health changes, never in the turn of the call
 */
export function startHealthCheck(options: {
  readonly ask: (signal: AbortSignal) => Promise<number>;
  readonly everySeconds: number;
  readonly onChange: (healthy: boolean, reason: string | undefined) => void;
}): HealthCheck {
  const { ask, everySeconds, onChange } = options;
  const controller = new AbortController();
  let healthy = true;
  let reason: string | undefined;
  let failures = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function set(now: boolean, why: string | undefined): void {
    const changed = healthy !== now;
    healthy = now;
    reason = why;
    if (changed) onChange(healthy, reason);
  }

  async function check(): Promise<void> {
    let outcome: number | Fault;
    try {
      outcome = await ask(controller.signal);
    } catch (thrown) {
      outcome = toFault(thrown);
    }
    if (controller.signal.aborted) return;
    timer = setTimeout(() => underWay = check(), everySeconds * 1000);
    if (outcome === 401 || outcome === 403) {
      // It says itself that no call will do; a second opinion would not differ.
      failures = FAILURES_IN_ROW_MIN;
      set(false, `it refuses the key (status ${outcome})`);
    } else if (typeof outcome === "number" && outcome < 500) {
      failures = 0;
      set(true, undefined);
    } else if (++failures >= FAILURES_IN_ROW_MIN) {
      set(false, typeof outcome === "number" ? `it answers with status ${outcome}` : outcome.message);
    }
  }

  let underWay = Promise.resolve().then(check);
  return {
    get healthy() {
      return healthy;
    },
    get reason() {
      return reason;
    },
    async close() {
      clearTimeout(timer);
      controller.abort();
      await underWay;
    },
  };
}
