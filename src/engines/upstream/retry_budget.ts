// Retry budget: keeps retries from multiplying the load of a server that is in trouble.
import type { Clock } from "../../time/clock.ts";

/** Counts what is sent to one server. */
export interface RetryBudget {
  /** A request's first attempt goes there. */
  countRequest(): void;
  /** Takes one retry; false where the budget is used up. */
  takeRetry(): boolean;
}

const WINDOW_SECONDS = 10;
/** Retries for each request of the window … */
const RETRIES_PER_REQUEST = 0.2;
/** … and those that are always free, so that a server that is seldom asked gets retries at all. */
const FREE_RETRIES_PER_SECOND = 3;

const BACKOFF_MS_MIN = 50;
const BACKOFF_MS_MAX = 1_000;

/** Makes a full budget. The window slides by whole seconds. */
export function createRetryBudget(clock: Clock): RetryBudget {
  const requests = new Uint32Array(WINDOW_SECONDS);
  const retries = new Uint32Array(WINDOW_SECONDS);
  let second = Math.floor(clock.monotonic() / 1000);

  /** Forgets what has left the window; returns the place of this second. */
  function place(): number {
    const now = Math.floor(clock.monotonic() / 1000);
    for (let passed = Math.min(now - second, WINDOW_SECONDS); passed > 0; passed--) {
      const old = (now - passed + 1) % WINDOW_SECONDS;
      requests[old] = retries[old] = 0;
    }
    second = now;
    return now % WINDOW_SECONDS;
  }

  return {
    countRequest() {
      const at = place();
      requests[at] = (requests[at] ?? 0) + 1;
    },
    takeRetry() {
      const at = place();
      const max = FREE_RETRIES_PER_SECOND * WINDOW_SECONDS + RETRIES_PER_REQUEST * sum(requests);
      if (sum(retries) + 1 > max) return false;
      retries[at] = (retries[at] ?? 0) + 1;
      return true;
    },
  };
}

/**
 * How long to wait before a retry: full jitter, so that requests which failed together do not come again together.
 *
 * @param attempts how many have failed, at least 1
 * @param random a number from 0 to below 1
 * @returns milliseconds, at most 1,000
 */
export function backoffMs(attempts: number, random: number): number {
  return random * Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** (attempts - 1));
}

function sum(counts: Uint32Array): number {
  return counts.reduce((total, count) => total + count, 0);
}
