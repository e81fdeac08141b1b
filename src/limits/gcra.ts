// GCRA, the generic cell rate algorithm (ITU-T I.371, virtual scheduling): the arithmetic of one rate limit.

/** A rate with its burst. */
export interface Rate {
  /** Requests allowed a window; also how many may come at once. */
  readonly quota: number;
  readonly windowMs: number;
}

/** What one request meant to one limit. All times in milliseconds. */
export interface RateDecision {
  readonly allowed: boolean;
  /** Theoretical arrival time to keep; not moved by a request that was refused, so that a refusal costs nothing. */
  readonly arrivalMs: number;
  /** Whole requests left at this moment. */
  readonly remaining: number;
  /** Until the next request would be allowed; 0 where one is left. */
  readonly retryAfterMs: number;
  /** Until the whole quota is there again. */
  readonly resetAfterMs: number;
}

/**
 * Whether one more request would be allowed now. Takes nothing. No fraction is rounded away: the state is a moment, not
 * a count.
 *
 * @param arrivalMs what the last decision left to keep; undefined for a client not seen before
 * @param nowMs a moment of a clock that never goes back
 */
export function observeRate(rate: Rate, arrivalMs: number | undefined, nowMs: number): RateDecision {
  const interval = rate.windowMs / rate.quota;
  const current = Math.max(arrivalMs ?? nowMs, nowMs);
  const room = rate.windowMs - (current - nowMs);
  // A hair of float error must not turn the last whole request into 0.9999999 of one.
  const remaining = Math.max(0, Math.floor(room / interval + 1e-9));
  return {
    allowed: remaining >= 1,
    arrivalMs: current,
    remaining,
    retryAfterMs: remaining >= 1 ? 0 : interval - room,
    resetAfterMs: current - nowMs,
  };
}

/** Decides one request and takes it where it is allowed. */
export function decideRate(rate: Rate, arrivalMs: number | undefined, nowMs: number): RateDecision {
  const seen = observeRate(rate, arrivalMs, nowMs);
  if (!seen.allowed) return seen;
  return { ...observeRate(rate, seen.arrivalMs + rate.windowMs / rate.quota, nowMs), allowed: true };
}
