// Lockout: guessing at passwords slows down, for each account and network, at all instances that share the store; no stranger can
// lock an account's owner out.
import { constantTimeEqual } from "../encoding/constant_time_equal.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import { decideRate, observeRate, type Rate } from "./gcra.ts";

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
};

/** An attempt to sign in that was let through. Only the first word on it counts. */
export interface Attempt {
  /** The password was right: the pair starts fresh, and the account's ceiling gets back what the attempt took. */
  succeeded(): Promise<void>;
  /** It was wrong, or nobody knows: it stays counted. */
  failed(): Promise<void>;
  /** Nobody looked at the password: it counts no more, unless another attempt of the pair came since. */
  withdrawn(): Promise<void>;
}

/** An attempt, or how long to wait. */
type Taken =
  | { readonly ok: true; readonly attempt: Attempt }
  | { readonly ok: false; readonly retryAfterMs: number };

/** Decides which attempts to sign in are let through. Each method throws Fault `unavailable` when the store fails. */
export interface Lockout {
  /**
   * Takes an attempt. It counts as failed from this moment on, so that parallel attempts do not slip through, whichever
   * instances they come to; `succeeded()` undoes it. A refused attempt counts nothing.
   *
   * @param account pseudonym of the name that was typed, whether or not it exists
   * @param network pseudonym of the client's network
   * @param isKnown whether the account has signed in from this network before: then the account's ceiling is not asked
   * @returns the attempt, or whole milliseconds to wait
   * @throws Fault `overloaded` when other instances come between again and again
   */
  take(account: string, network: string, isKnown: boolean): Promise<Taken>;
  /** Forgets all failures of an account (an admin's unlock). Whether there were any. */
  unlock(account: string): Promise<boolean>;
}

interface Pair {
  readonly failures: number;
  /** When the next attempt is let through: milliseconds since 1970. */
  readonly openAtMs: number;
  /** Names the attempt that wrote it: no two records are alike. */
  readonly mark: number;
}

interface Ceiling {
  /** GCRA's state, over milliseconds since 1970. */
  readonly arrival: number;
  /** Names the record from its making to its end: what was forgotten with it is not given back to the next one. */
  readonly mark: number;
}

/** What stands in the store at this moment. */
interface Standing<T> {
  /** undefined: nothing that counts. */
  readonly value: T | undefined;
  /** The bytes that a change of it expects. */
  readonly version: Uint8Array<ArrayBuffer> | undefined;
  /** It lay further ahead than it can: the clock was set back. */
  readonly isMended: boolean;
}

/** By account and network; values are lists of numbers, as JSON. */
const PAIRS = "lockout_pairs";
/** By account. */
const CEILINGS = "lockout_ceilings";
const PAGE = 100;
/** An instance has one attempt at an account under way at a time: so many lost in a row are no accident. */
const ROUNDS_MAX = 50;

/**
 * Opens a lockout over the failures that the store knows; those that count no more vanish from it by themselves. It goes by the wall
 * clock, for instances share no other: one that is set on forgets, and one that is set back lets nobody wait for longer than is due.
 */
export function openLockout({ store, clock, settings = LOCKOUT_DEFAULTS }: {
  readonly store: RecordStore;
  readonly clock: Clock;
  readonly settings?: LockoutSettings;
}): Lockout {
  const { forgetAfterMs, ceiling: rate } = settings;
  /** By account, the last that waits for its turn. */
  const turns = new Map<string, Promise<unknown>>();

  /** Attempts of this instance at one account come one after the other, so that they do not lose to each other. */
  async function inTurn<T>(account: string, act: () => Promise<T>): Promise<T> {
    const before = turns.get(account);
    const turn = (async () => {
      await before?.catch(() => {});
      return await act();
    })();
    turns.set(account, turn);
    try {
      return await turn;
    } finally {
      if (turns.get(account) === turn) turns.delete(account);
    }
  }

  /** Judges and writes, again until nothing came between the two. */
  async function change<T>(
    account: string,
    judge: (nowMs: number) => Promise<{ readonly outcome: T; readonly changes: readonly RecordChange[] }>,
  ): Promise<T> {
    return await inTurn(account, async () => {
      for (let round = 0; round < ROUNDS_MAX; round++) {
        const { outcome, changes } = await judge(clock.now());
        if (changes.length === 0 || await store.write(changes)) return outcome;
      }
      throw new Fault(
        "overloaded",
        "Cannot count an attempt to sign in: others come between again and again",
        {
          retryAfterSeconds: 1,
        },
      );
    });
  }

  async function readPair(key: string, nowMs: number): Promise<Standing<Pair>> {
    const version = await store.get(PAIRS, key);
    const [failures = 0, openAtMs = 0, mark = 0] = version === undefined ? [] : numbersIn(PAIRS, version, 3);
    if (isForgotten(openAtMs, nowMs)) return { value: undefined, version, isMended: false };
    const latestMs = nowMs + delayMs(failures, settings);
    const value = { failures, openAtMs: Math.min(openAtMs, latestMs), mark };
    return { value, version, isMended: openAtMs > latestMs };
  }

  async function readCeiling(account: string, nowMs: number): Promise<Standing<Ceiling>> {
    const version = await store.get(CEILINGS, account);
    const [arrival = 0, mark = 0] = version === undefined ? [] : numbersIn(CEILINGS, version, 2);
    if (arrival <= nowMs * rate.quota) return { value: undefined, version, isMended: false };
    const latest = (nowMs + rate.windowMs) * rate.quota;
    return { value: { arrival: Math.min(arrival, latest), mark }, version, isMended: arrival > latest };
  }

  function pairChange(key: string, next: Pair | undefined, expects: RecordChange["expects"]): RecordChange {
    const lifetime = next && { expiresAtMs: Math.ceil(next.openAtMs + forgetAfterMs) };
    return changeOf(PAIRS, key, next && [next.failures, next.openAtMs, next.mark], expects, lifetime);
  }

  function ceilingChange(
    account: string,
    next: Ceiling | undefined,
    expects: RecordChange["expects"],
  ): RecordChange {
    const lifetime = next && { expiresAtMs: Math.ceil(next.arrival / rate.quota) };
    return changeOf(CEILINGS, account, next && [next.arrival, next.mark], expects, lifetime);
  }

  /** What an attempt took from the account's ceiling, which knows of it as long as it bears the same mark. */
  async function giveBack(account: string, mark: number, nowMs: number): Promise<readonly RecordChange[]> {
    const { value, version } = await readCeiling(account, nowMs);
    if (value === undefined || value.mark !== mark) return [];
    const arrival = value.arrival - rate.windowMs;
    const isFull = arrival <= nowMs * rate.quota;
    return [ceilingChange(account, isFull ? undefined : { arrival, mark }, version)];
  }

  function isForgotten(openAtMs: number, nowMs: number): boolean {
    return nowMs >= openAtMs + forgetAfterMs;
  }

  return {
    take(account, network, isKnown) {
      const key = keyOf(account, network);
      return change<Taken>(account, async (nowMs) => {
        const [pair, ceiling] = await Promise.all([
          readPair(key, nowMs),
          isKnown ? undefined : readCeiling(account, nowMs),
        ]);
        const retryAfterMs = Math.max(
          (pair.value?.openAtMs ?? nowMs) - nowMs,
          ceiling === undefined ? 0 : observeRate(rate, ceiling.value?.arrival, nowMs).retryAfterMs,
        );
        if (retryAfterMs > 0) {
          const changes: RecordChange[] = [];
          if (pair.isMended) changes.push(pairChange(key, pair.value, pair.version));
          if (ceiling?.isMended) changes.push(ceilingChange(account, ceiling.value, ceiling.version));
          return { outcome: { ok: false, retryAfterMs: Math.ceil(retryAfterMs) }, changes };
        }

        const failures = (pair.value?.failures ?? 0) + 1;
        const openAtMs = nowMs + delayMs(failures, settings);
        const counted = pairChange(key, { failures, openAtMs, mark: newMark() }, pair.version ?? "nothing");
        const changes = [counted];
        const mark = ceiling?.value?.mark ?? newMark();
        if (ceiling !== undefined) {
          const { arrival } = decideRate(rate, ceiling.value?.arrival, nowMs);
          changes.push(ceilingChange(account, { arrival, mark }, ceiling.version ?? "nothing"));
        }

        let isSettled = false;
        /** @param changesOfPair what becomes of the pair, besides what the ceiling gets back */
        async function undo(
          changesOfPair: (nowMs: number) => Promise<readonly RecordChange[]>,
        ): Promise<void> {
          if (isSettled) return;
          isSettled = true;
          await change(account, async (nowMs) => ({
            outcome: undefined,
            changes: [
              ...await changesOfPair(nowMs),
              ...ceiling === undefined ? [] : await giveBack(account, mark, nowMs),
            ],
          }));
        }
        const attempt: Attempt = {
          succeeded: () => undo(() => Promise.resolve([pairChange(key, undefined, undefined)])),
          failed() {
            isSettled = true;
            return Promise.resolve();
          },
          withdrawn: () =>
            undo(async (nowMs) => {
              const version = await store.get(PAIRS, key);
              const { value: ours } = counted;
              if (version === undefined || ours === undefined || !constantTimeEqual(version, ours)) return [];
              const isOver = pair.value === undefined || isForgotten(pair.value.openAtMs, nowMs);
              return [pairChange(key, isOver ? undefined : pair.value, version)];
            }),
        };
        return { outcome: { ok: true, attempt }, changes };
      });
    },

    async unlock(account) {
      const nowMs = clock.now();
      let hadAny = (await readCeiling(account, nowMs)).value !== undefined;
      await store.delete(CEILINGS, account);
      const prefix = prefixOf(account);
      for (;;) {
        const page = await store.list(PAIRS, { after: prefix, limit: PAGE });
        const theirs = page.filter(({ key }) => key.startsWith(prefix));
        for (const { key, value } of theirs) {
          const [, openAtMs = 0] = numbersIn(PAIRS, value, 3);
          hadAny ||= !isForgotten(openAtMs, nowMs);
          await store.delete(PAIRS, key);
        }
        if (theirs.length < PAGE) return hadAny;
      }
    },
  };
}

/** Two names that nothing else is made of, whatever they hold. */
function keyOf(account: string, network: string): string {
  return JSON.stringify([account, network]);
}

/** What the keys of an account's pairs begin with, and no others. */
function prefixOf(account: string): string {
  return `${JSON.stringify([account]).slice(0, -1)},`;
}

function newMark(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}

function changeOf(
  table: string,
  key: string,
  numbers: readonly number[] | undefined,
  expects: RecordChange["expects"],
  lifetime: RecordChange["lifetime"],
): RecordChange {
  return {
    table,
    key,
    value: numbers && encodeUtf8(JSON.stringify(numbers)),
    ...(expects && { expects }),
    ...(lifetime && { lifetime }),
  };
}

function numbersIn(table: string, bytes: Uint8Array<ArrayBuffer>, count: number): readonly number[] {
  const text = decodeUtf8(bytes);
  const json = text.ok ? parseStrictJson(text.value, 1) : text;
  const numbers = json.ok && Array.isArray(json.value) ? json.value : [];
  if (numbers.length !== count || !numbers.every((each) => typeof each === "number")) {
    throw new Fault("unavailable", `Cannot read a record of ${table}: it has no known form`);
  }
  return numbers;
}

/**
 * The most failures that are let through in any window of a length (its end not included), however they are timed,
 * ordered and overlapped and to whichever instances they come, as long as nothing is unlocked in it and the clock is not set.
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
