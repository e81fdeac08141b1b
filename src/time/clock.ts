// Clock: the only place that reads the time.

/** Tells the time; tests pass their own. */
export interface Clock {
  /** Wall time: milliseconds since 1970-01-01T00:00Z. It may jump. */
  now(): number;
  /** Milliseconds since some fixed moment; never goes back. For durations and rates. */
  monotonic(): number;
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};
