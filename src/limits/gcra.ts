// GCRA, the generic cell rate algorithm (ITU-T I.371): the arithmetic of one rate limit, exact in whole numbers.
import type { LimitDecision } from "./limit_store.ts";

/** A rate with its burst. */
export interface Rate {
  /** Requests or tokens allowed a window; also how many may come at once. Quota times windowMs stays below 2^53. */
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
  /** Whole units left at this moment. */
  readonly remaining: number;
  /** Until the amount would be allowed, or as much again where it was taken; Infinity where it is larger than the quota. */
  readonly retryAfterMs: number;
  /** Until the whole quota is there again. */
  readonly resetAfterMs: number;
}

// Two forms of one algorithm. Virtual scheduling keeps one number, a moment; for rates of few requests. The leaky bucket keeps
// how full it is and since when; it needs no product of the time since the start, so it is exact for millions of tokens as well.
// A unit fills windowMs into the bucket, and a millisecond drains the quota: whole numbers, where windowMs / quota would round
// and lose the last unit of a quota.

/** How full a leaky bucket may be kept: that of a rate whose use went past its quota stays a whole number. */
const LEVEL_MAX = Number.MAX_SAFE_INTEGER;

/** Whether a bucket has room for an amount. */
export function levelAllows({ quota, windowMs }: Rate, level: number, amount: number): boolean {
  return level <= (quota - amount) * windowMs;
}

/** Whole units that a bucket has room for. */
export function unitsLeft({ quota, windowMs }: Rate, level: number): number {
  return Math.max(0, Math.floor((quota * windowMs - level) / windowMs));
}

/** What a level means to an amount that was not taken. */
export function observeLevel(rate: Rate, level: number, amount: number): LimitDecision {
  const { quota, windowMs } = rate;
  const allowed = levelAllows(rate, level, amount);
  return {
    allowed,
    remaining: unitsLeft(rate, level),
    retryAfterMs: allowed ? 0 : amount > quota ? Infinity : (level - (quota - amount) * windowMs) / quota,
    resetAfterMs: level / quota,
  };
}

/** The level of a bucket after a time, which may be as long as it likes. */
export function drained({ quota }: Rate, level: number, elapsedMs: number): number {
  return elapsedMs <= 0 ? level : Math.max(0, level - elapsedMs * quota);
}

/** The level of a bucket after an amount, which is below 0 where something is given back. */
export function filled({ windowMs }: Rate, level: number, amount: number): number {
  return Math.min(LEVEL_MAX, Math.max(0, level + amount * windowMs));
}

/**
 * Whether an amount would be allowed now. Takes nothing.
 *
 * @param arrival what the last decision left to keep; undefined for a client not seen before
 * @param nowMs a moment of a clock that never goes back; times the quota below 2^53
 */
export function observeRate(
  rate: Rate,
  arrival: number | undefined,
  nowMs: number,
  amount: number = 1,
): RateDecision {
  const now = nowMs * rate.quota;
  const current = Math.max(arrival ?? now, now);
  return { ...observeLevel(rate, current - now, amount), arrival: current };
}

/** Takes the amount that `observeRate` has just allowed; `retryAfterMs` is then until as much again would be. */
export function takeObserved(
  rate: Rate,
  seen: RateDecision,
  nowMs: number,
  amount: number = 1,
): RateDecision {
  return { ...observeRate(rate, seen.arrival + amount * rate.windowMs, nowMs, amount), allowed: true };
}

/** Decides one amount and takes it where it is allowed. */
export function decideRate(
  rate: Rate,
  arrival: number | undefined,
  nowMs: number,
  amount: number = 1,
): RateDecision {
  const seen = observeRate(rate, arrival, nowMs, amount);
  return seen.allowed ? takeObserved(rate, seen, nowMs, amount) : seen;
}
