// Lockout: guessing at passwords slows down, for each account and network; no stranger can lock an account's owner out.
import type { Clock } from "../time/clock.ts";
import { decideRate, observeRate, type Rate } from "./gcra.ts";
import { RecentMap } from "./recent_map.ts";

/** How guessing slows down. A pair is an account and the network that tries to sign in to it. */
export interface LockoutSettings {
  /** Failures of a pair that no delay follows. */
  readonly failuresFree: number;
  /** Delay after the first failure that is not free, above 0; each further failure doubles it. */
  readonly delayFirstMs: number;
  readonly delayMsMax: number;
  /** A pair without an attempt for so long after its delay starts fresh. */
  readonly forgetAfterMs: number;
  /** Failures of an account over all networks where it never signed in: so many at once, and as many again a window. */
  readonly ceiling: Rate;
  /** Pairs kept in mind, and apart from them accounts. */
  readonly pairsMax: number;
  readonly accountsMax: number;
}

/**
 * Three failures are free; 1 s follows the fourth, 2 s the fifth, up to 15 min from the fourteenth on; an hour forgets.
 * Over all unknown networks an account takes 100 failures at once, then one every 36 s. `failuresMax` has the sums.
 */
export const LOCKOUT_DEFAULTS: LockoutSettings = {
  failuresFree: 3,
  delayFirstMs: 1000,
  delayMsMax: 15 * 60_000,
  forgetAfterMs: 60 * 60_000,
  ceiling: { quota: 100, windowMs: 60 * 60_000 },
  pairsMax: 100_000,
  accountsMax: 100_000,
};

/** An attempt to sign in that was let through. Only the first word on it counts. */
export interface Attempt {
  /** The password was right: the pair starts fresh, and the account's ceiling gets back what the attempt took. */
  succeeded(): void;
  /** It was wrong, or nobody knows: it stays counted. */
  failed(): void;
  /** Nobody looked at the password: it counts no more, unless another attempt of the pair came since. */
  withdrawn(): void;
}

/** Decides which attempts to sign in are let through. */
export interface Lockout {
  /**
   * Takes an attempt. It counts as failed from this moment on, so that parallel attempts do not slip through;
   * `succeeded()` undoes it. A refused attempt counts nothing.
   *
   * @param account pseudonym of the name that was typed, whether or not it exists
   * @param network pseudonym of the client's network
   * @param isKnown whether the account has signed in from this network before: then the account's ceiling is not asked
   * @returns the attempt, or whole milliseconds to wait
   */
  take(
    account: string,
    network: string,
    isKnown: boolean,
  ): { readonly ok: true; readonly attempt: Attempt } | { readonly ok: false; readonly retryAfterMs: number };
  /** Forgets all failures of an account (an admin's unlock). Whether there were any. */
  unlock(account: string): boolean;
}

interface Pair {
  readonly account: string;
  readonly failures: number;
  /** When the next attempt is let through. */
  readonly openAtMs: number;
}

/** GCRA's state of the account's ceiling. */
interface Ceiling {
  arrival: number;
}

/** Opens a lockout that knows of no failures. A restart forgets them. */
export function openLockout(clock: Clock, settings: LockoutSettings = LOCKOUT_DEFAULTS): Lockout {
  const { forgetAfterMs, ceiling: rate, pairsMax, accountsMax } = settings;
  // Both forget the longest unseen when they are full. It gains an attacker nothing beyond the rate of his address: to
  // have one pair forgotten he must first get 50,000 attempts at others through, each at the price of a password hash.
  const pairs = new RecentMap<Pair>(pairsMax);
  const ceilings = new RecentMap<Ceiling>(accountsMax);

  return {
    take(account, network, isKnown) {
      const nowMs = clock.monotonic();
      const key = JSON.stringify([account, network]);
      const pair = pairs.get(key);
      const ceiling = isKnown ? undefined : ceilings.get(account) ?? { arrival: 0 };

      const retryAfterMs = Math.max(
        (pair?.openAtMs ?? nowMs) - nowMs,
        ceiling === undefined ? 0 : observeRate(rate, ceiling.arrival, nowMs).retryAfterMs,
      );
      if (retryAfterMs > 0) return { ok: false, retryAfterMs: Math.ceil(retryAfterMs) };

      const before = pair === undefined || isForgotten(pair, nowMs) ? 0 : pair.failures;
      const failures = before + 1;
      const taken: Pair = { account, failures, openAtMs: nowMs + delayMs(failures, settings) };
      pairs.set(key, taken);
      if (ceiling !== undefined) {
        ceiling.arrival = decideRate(rate, ceiling.arrival, nowMs).arrival;
        ceilings.set(account, ceiling);
      }

      let isSettled = false;
      return {
        ok: true,
        attempt: {
          succeeded() {
            if (isSettled) return;
            isSettled = true;
            pairs.delete(key);
            // One request's worth. What an unlock has forgotten meanwhile is another object and stays as it is.
            if (ceiling !== undefined) ceiling.arrival -= rate.windowMs;
          },
          failed() {
            isSettled = true;
          },
          withdrawn() {
            if (isSettled) return;
            isSettled = true;
            if (ceiling !== undefined) ceiling.arrival -= rate.windowMs;
            if (pairs.get(key) !== taken) return;
            if (pair === undefined) pairs.delete(key);
            else pairs.set(key, pair);
          },
        },
      };
    },

    unlock(account) {
      const nowMs = clock.monotonic();
      let hadAny = (ceilings.get(account)?.arrival ?? 0) > nowMs * rate.quota;
      ceilings.delete(account);
      for (const [key, pair] of pairs.entries()) {
        if (pair.account !== account) continue;
        hadAny ||= !isForgotten(pair, nowMs);
        pairs.delete(key);
      }
      return hadAny;
    },
  };

  function isForgotten(pair: Pair, nowMs: number): boolean {
    return nowMs >= pair.openAtMs + forgetAfterMs;
  }
}

/**
 * The most failures that are let through in any window of a length (its end not included), however they are timed,
 * ordered and overlapped, as long as nothing is unlocked in it and nothing forgotten for want of room.
 *
 * @returns `pair`: of one account from one network, when it does not succeed in between (with the defaults 16 in an hour)
 * · `unknownNetworks`: of one account from all networks where it never signed in, together (199 in an hour, 100 more
 * each further hour)
 */
export function failuresMax(
  windowMs: number,
  settings: LockoutSettings = LOCKOUT_DEFAULTS,
): { readonly pair: number; readonly unknownNetworks: number } {
  const { forgetAfterMs, ceiling } = settings;
  if (windowMs <= 0) return { pair: 0, unknownNetworks: 0 };
  // Within the time that forgets, all failures count: none come closer together than those of a pair that starts fresh.
  const whole = Math.floor(windowMs / forgetAfterMs);
  return {
    pair: whole * freshFailures(forgetAfterMs, settings) +
      freshFailures(windowMs - whole * forgetAfterMs, settings),
    unknownNetworks: ceiling.quota - 1 + Math.ceil(windowMs * ceiling.quota / ceiling.windowMs),
  };
}

/** How many attempts a pair without failures is let through in a window, trying whenever it may. */
function freshFailures(windowMs: number, settings: LockoutSettings): number {
  let failures = 0;
  for (let atMs = 0; atMs < windowMs; atMs += delayMs(failures, settings)) failures++;
  return failures;
}

/** What follows a pair's failure of this number, counted from 1. */
function delayMs(failures: number, { failuresFree, delayFirstMs, delayMsMax }: LockoutSettings): number {
  return failures <= failuresFree
    ? 0
    : Math.min(delayFirstMs * 2 ** (failures - failuresFree - 1), delayMsMax);
}
