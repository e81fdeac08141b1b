// GCRA, the generic cell rate algorithm (ITU-T I.371, virtual scheduling): the arithmetic of one rate limit.

/** A rate with its burst. */
export interface Rate {
  /** Requests allowed a window; also how many may come at once. */
  readonly quota: number;
  /** Whole milliseconds. */
  readonly windowMs: number;
}

/** What one request meant to one limit. */
export interface RateDecision {
  readonly allowed: boolean;
  /**
   * Theoretical arrival time to keep, in milliseconds times the quota; not moved by a request that was refused, so that
   * a refusal costs nothing.
   */
  readonly arrival: number;
  /** Whole requests left at this moment. */
  readonly remaining: number;
  /** Until the next request would be allowed; 0 where one is left. */
  readonly retryAfterMs: number;
  /** Until the whole quota is there again. */
  readonly resetAfterMs: number;
}

/**
 * Whether one more request would be allowed now. Takes nothing. Time is counted in a quota-th of a millisecond: requests
 * are then `windowMs` apart, a whole number, where windowMs / quota would round and lose the last request of a quota.
 *
 * @param arrival what the last decision left to keep; undefined for a client not seen before
 * @param nowMs a moment of a clock that never goes back
 */
export function observeRate(rate: Rate, arrival: number | undefined, nowMs: number): RateDecision {
  const { quota, windowMs } = rate;
  const now = nowMs * quota;
  const current = Math.max(arrival ?? now, now);
  const room = windowMs * quota - (current - now);
  const remaining = Math.max(0, Math.floor(room / windowMs));
  return {
    allowed: remaining >= 1,
    arrival: current,
    remaining,
    retryAfterMs: remaining >= 1 ? 0 : (windowMs - room) / quota,
    resetAfterMs: (current - now) / quota,
  };
}

/** Takes the request that `observeRate` has just allowed. */
export function takeObserved(rate: Rate, seen: RateDecision, nowMs: number): RateDecision {
  return { ...observeRate(rate, seen.arrival + rate.windowMs, nowMs), allowed: true };
}

/** Decides one request and takes it where it is allowed. */
export function decideRate(rate: Rate, arrival: number | undefined, nowMs: number): RateDecision {
  const seen = observeRate(rate, arrival, nowMs);
  return seen.allowed ? takeObserved(rate, seen, nowMs) : seen;
}
