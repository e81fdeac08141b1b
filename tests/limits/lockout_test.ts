// Tests of the lockout: guessing slows down as documented, also in parallel, and the owner of an account gets in.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import {
  type Attempt,
  failuresMax,
  LOCKOUT_DEFAULTS,
  type LockoutSettings,
  openLockout,
} from "../../src/limits/lockout.ts";
import { manualClock } from "../support/manual_clock.ts";

const SECOND_MS = 1000;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

function openTestLockout(settings: Partial<LockoutSettings> = {}) {
  const clock = manualClock();
  const lockout = openLockout(clock, { ...LOCKOUT_DEFAULTS, ...settings });
  return {
    clock,
    unlock: lockout.unlock,
    /** The attempt, or how long to wait. */
    ask(account = "ada", network = "home", isKnown = true): Attempt | number {
      const taken = lockout.take(account, network, isKnown);
      return taken.ok ? taken.attempt : taken.retryAfterMs;
    },
    /** An attempt that fails: 0, or how long to wait. */
    fail(account = "ada", network = "home", isKnown = true): number {
      const taken = lockout.take(account, network, isKnown);
      if (!taken.ok) return taken.retryAfterMs;
      taken.attempt.failed();
      return 0;
    },
    /** An attempt that succeeds: 0, or how long to wait. */
    succeed(account = "ada", network = "home", isKnown = true): number {
      const taken = lockout.take(account, network, isKnown);
      if (!taken.ok) return taken.retryAfterMs;
      taken.attempt.succeeded();
      return 0;
    },
  };
}

Deno.test("ASVS V6.3.1: three failures are free, then the delay doubles from 1 s up to 15 min, to the millisecond", () => {
  const { clock, fail } = openTestLockout();
  deepStrictEqual([fail(), fail(), fail()], [0, 0, 0]);
  for (const delaySeconds of [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]) {
    strictEqual(fail(), 0);
    strictEqual(fail(), delaySeconds * SECOND_MS);
    clock.advance(delaySeconds * SECOND_MS - 1);
    strictEqual(fail(), 1);
    clock.advance(1);
  }
});

Deno.test("after any number of failures the delay stays at 15 min", () => {
  const { clock, fail } = openTestLockout();
  for (let failure = 0; failure < 1500; failure++) clock.advance(fail());
  while (fail() === 0);
  strictEqual(fail(), 15 * MINUTE_MS);
});

Deno.test("the time to wait is whole milliseconds, and waiting it is enough", () => {
  const { clock, fail } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) fail();
  clock.advance(0.25);
  strictEqual(fail(), 1000);
  clock.advance(999.5);
  strictEqual(fail(), 1);
  clock.advance(1);
  strictEqual(fail(), 0);
});

Deno.test("a refused attempt counts nothing: who insists waits no longer", () => {
  const { clock, fail } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) strictEqual(fail(), 0);
  for (let attempt = 0; attempt < 1000; attempt++) strictEqual(fail(), SECOND_MS);
  clock.advance(SECOND_MS);
  strictEqual(fail(), 0);
  strictEqual(fail(), 2 * SECOND_MS);
});

Deno.test("ASVS V6.3.1: attempts in parallel count before any of them is settled", () => {
  const { ask } = openTestLockout();
  const attempts = Array.from({ length: 1000 }, () => ask());
  strictEqual(attempts.filter((attempt) => typeof attempt !== "number").length, 4);
  deepStrictEqual(new Set(attempts.slice(4)), new Set([SECOND_MS]));
});

Deno.test("ASVS V6.3.1: in parallel, attempts from ever new networks stop at the ceiling", () => {
  const { ask } = openTestLockout();
  const attempts = Array.from({ length: 1000 }, (_, at) => ask("ada", `bot ${at}`, false));
  strictEqual(attempts.filter((attempt) => typeof attempt !== "number").length, 100);
});

Deno.test("an attempt that nobody settles stays counted", () => {
  const { clock, ask, fail } = openTestLockout();
  for (let attempt = 0; attempt < 5; attempt++) ask();
  clock.advance(SECOND_MS);
  ask();
  strictEqual(fail(), 2 * SECOND_MS);
});

Deno.test("a success starts the pair fresh", () => {
  const { clock, fail, succeed } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) fail();
  strictEqual(succeed(), SECOND_MS); // also the right password waits
  clock.advance(SECOND_MS);
  strictEqual(succeed(), 0);
  deepStrictEqual([fail(), fail(), fail(), fail(), fail()], [0, 0, 0, 0, SECOND_MS]);
});

Deno.test("a success of one pair says nothing of others", () => {
  const { fail, succeed } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) fail("ada", "elsewhere");
  succeed("ada", "home");
  succeed("bob", "elsewhere");
  strictEqual(fail("ada", "elsewhere"), SECOND_MS);
});

Deno.test("pairs are apart, whatever their names are made of", () => {
  const { fail } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) fail('a","b', "c");
  strictEqual(fail('a","b', "c"), SECOND_MS);
  for (const [account, network] of [["a", 'b","c'], ["a", "b c"], ["a b", "c"], ["c", 'a","b']] as const) {
    strictEqual(fail(account, network), 0);
    for (let failure = 0; failure < 4; failure++) fail(account, network);
  }
});

Deno.test("a pair is forgotten an hour after its delay, and not a millisecond before", () => {
  for (const [passedMs, waitsAgain] of [[HOUR_MS - 1, true], [HOUR_MS, false]] as const) {
    const { clock, fail } = openTestLockout();
    for (let failure = 0; failure < 6; failure++) clock.advance(fail());
    while (fail() === 0);
    clock.advance(fail()); // the delay
    clock.advance(passedMs);
    strictEqual(fail(), 0);
    strictEqual(fail() > 0, waitsAgain);
  }
});

Deno.test("the wall clock changes nothing", () => {
  const { clock, fail } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) fail();
  clock.jumpWall(365 * 24 * HOUR_MS);
  strictEqual(fail(), SECOND_MS);
  clock.jumpWall(-2 * 365 * 24 * HOUR_MS);
  strictEqual(fail(), SECOND_MS);
});

Deno.test("ASVS V6.1.1: attackers elsewhere reach the account's ceiling, and its owner still signs in at home", () => {
  const { clock, fail, succeed } = openTestLockout();
  for (let bot = 0; bot < 100; bot++) strictEqual(fail("ada", `bot ${bot}`, false), 0);
  strictEqual(fail("ada", "bot 100", false), 36 * SECOND_MS);
  strictEqual(succeed("ada", "bot 100", false), 36 * SECOND_MS); // the answer does not depend on the password
  strictEqual(succeed("ada", "home", true), 0);
  strictEqual(fail("bob", "bot 0", false), 0); // other accounts are not touched
  clock.advance(36 * SECOND_MS);
  strictEqual(fail("ada", "bot 100", false), 0);
  strictEqual(fail("ada", "bot 101", false), 36 * SECOND_MS);
  clock.advance(HOUR_MS);
  for (let bot = 200; bot < 300; bot++) strictEqual(fail("ada", `bot ${bot}`, false), 0);
  strictEqual(fail("ada", "bot 300", false), 36 * SECOND_MS);
});

Deno.test("failures at home take nothing from the ceiling", () => {
  const { fail } = openTestLockout({ ceiling: { quota: 2, windowMs: HOUR_MS } });
  deepStrictEqual([fail("ada", "home"), fail("ada", "home"), fail("ada", "work")], [0, 0, 0]);
  deepStrictEqual([fail("ada", "bot 1", false), fail("ada", "bot 2", false)], [0, 0]);
  strictEqual(fail("ada", "bot 3", false), 30 * MINUTE_MS);
});

Deno.test("a pair's delay takes nothing from the ceiling, and the longer wait of both is told", () => {
  const { fail } = openTestLockout({ ceiling: { quota: 5, windowMs: HOUR_MS } });
  for (let failure = 0; failure < 4; failure++) fail("ada", "bot 1", false);
  for (let attempt = 0; attempt < 9; attempt++) strictEqual(fail("ada", "bot 1", false), SECOND_MS);
  strictEqual(fail("ada", "bot 2", false), 0);
  strictEqual(fail("ada", "bot 1", false), 12 * MINUTE_MS);
  // The other way round: the pair waits longer than the account.
  const { clock, fail: failAgain } = openTestLockout({ ceiling: { quota: 5, windowMs: HOUR_MS } });
  for (let failure = 0; failure < 14;) {
    const waitMs = failAgain("ada", "home");
    if (waitMs === 0) failure++;
    clock.advance(waitMs);
  }
  for (let bot = 0; bot < 5; bot++) failAgain("ada", `bot ${bot}`, false);
  strictEqual(failAgain("ada", "home", false), 15 * MINUTE_MS);
});

Deno.test("a success from a new network takes nothing from the ceiling", () => {
  const { fail, succeed } = openTestLockout({ ceiling: { quota: 3, windowMs: HOUR_MS } });
  fail("ada", "bot 1", false);
  for (let round = 0; round < 50; round++) strictEqual(succeed("ada", `hotel ${round}`, false), 0);
  deepStrictEqual([fail("ada", "bot 2", false), fail("ada", "bot 3", false)], [0, 0]);
  strictEqual(fail("ada", "bot 4", false), 20 * MINUTE_MS);
});

Deno.test("only the first word on an attempt counts", () => {
  const { ask, fail } = openTestLockout({ ceiling: { quota: 3, windowMs: HOUR_MS } });
  const right = ask("ada", "hotel", false);
  const wrong = ask("ada", "bot 1", false);
  ok(typeof right !== "number" && typeof wrong !== "number");
  for (let round = 0; round < 5; round++) {
    right.succeeded();
    right.failed();
    wrong.failed();
    wrong.succeeded();
  }
  deepStrictEqual([fail("ada", "bot 2", false), fail("ada", "bot 3", false)], [0, 0]);
  strictEqual(fail("ada", "bot 4", false), 20 * MINUTE_MS);
  // Nor does a late word start the pair fresh.
  for (let failure = 0; failure < 4; failure++) fail("ada", "hotel");
  right.succeeded();
  strictEqual(fail("ada", "hotel"), SECOND_MS);
});

Deno.test("an unlock forgets an account's pairs and ceiling, of no other account, and says whether there was anything", () => {
  const { clock, ask, fail, succeed, unlock } = openTestLockout({ ceiling: { quota: 9, windowMs: HOUR_MS } });
  strictEqual(unlock("ada"), false);
  for (let failure = 0; failure < 4; failure++) fail("ada", "home");
  for (let failure = 0; failure < 9; failure++) fail("ada", `bot ${failure}`, false);
  for (let failure = 0; failure < 4; failure++) fail("bob", "home");
  strictEqual(unlock("ada"), true);
  strictEqual(unlock("ada"), false);
  strictEqual(fail("bob", "home"), SECOND_MS);
  strictEqual(fail("ada", "home"), 0);
  // An attempt under way during an unlock gives nothing back that was taken after it.
  const pending = ask("ada", "hotel", false);
  ok(typeof pending !== "number");
  unlock("ada");
  for (let failure = 0; failure < 9; failure++) strictEqual(fail("ada", `bot ${failure}`, false), 0);
  pending.succeeded();
  ok(fail("ada", "bot 9", false) > 0);
  unlock("ada");
  succeed("ada", "home", false);
  strictEqual(unlock("ada"), false);
  fail("ada", "home", false);
  clock.advance(2 * HOUR_MS);
  strictEqual(unlock("ada"), false);
  fail("ada", "home", true);
  strictEqual(unlock("ada"), true);
  const crowded = openTestLockout({ pairsMax: 1 });
  crowded.fail("ada", "bot", false);
  crowded.fail("bob", "bot", false); // ada's pair goes; what the account's ceiling counted stays
  strictEqual(crowded.unlock("ada"), true);
});

Deno.test("memory is bounded: pairs are forgotten when as many others came as there is room, not when half as many did", () => {
  const { fail } = openTestLockout({ pairsMax: 10 });
  for (let failure = 0; failure < 4; failure++) fail("ada", "a");
  for (let round = 0; round < 20; round++) {
    for (let other = 0; other < 4; other++) strictEqual(fail("ada", `${round} ${other}`), 0);
    strictEqual(fail("ada", "a"), SECOND_MS); // refused, and seen by that
  }
  for (let other = 0; other < 10; other++) strictEqual(fail("ada", `other ${other}`), 0);
  strictEqual(fail("ada", "a"), 0);
});

Deno.test("memory is bounded: so it is with the ceilings of accounts, and a refused attempt takes nobody's room", () => {
  const { fail } = openTestLockout({ accountsMax: 10, ceiling: { quota: 1, windowMs: HOUR_MS } });
  fail("eve", "bot", false);
  for (let round = 0; round < 20; round++) {
    for (let other = 0; other < 4; other++) strictEqual(fail(`${round} ${other}`, "bot", false), 0);
    strictEqual(fail("eve", "another bot", false), HOUR_MS);
  }
  for (let other = 0; other < 20; other++) {
    for (let failure = 0; failure < 4; failure++) fail(`known ${other}`, "home");
    strictEqual(fail(`known ${other}`, "home", false), SECOND_MS);
  }
  strictEqual(fail("eve", "another bot", false), HOUR_MS);
  for (let other = 0; other < 10; other++) strictEqual(fail(`other ${other}`, "bot", false), 0);
  strictEqual(fail("eve", "another bot", false), 0);
});

Deno.test("a lockout with just enough room decides like one with much", () => {
  const step = fc.record({
    waitMs: fc.oneof(fc.constant(0), fc.nat(5000)),
    account: fc.nat(1),
    network: fc.nat(1),
    act: fc.constantFrom<"fail" | "succeed" | "unlock">("fail", "fail", "fail", "succeed", "unlock"),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 30, maxLength: 100 }), (steps) => {
      const lockouts = [openTestLockout({ pairsMax: 8, accountsMax: 4 }), openTestLockout()] as const;
      for (const { waitMs, account, network, act } of steps) {
        const [one, other] = lockouts.map((lockout) => {
          lockout.clock.advance(waitMs);
          if (act === "unlock") return lockout.unlock(`${account}`);
          return lockout[act](`${account}`, `${network}`, false);
        });
        strictEqual(one, other);
      }
    }),
  );
});

Deno.test("ASVS V6.1.1: the bounds are the documented numbers, and an attacker who never waits too long reaches them", () => {
  const bounds = (windowMs: number) => Object.values(failuresMax(windowMs));
  deepStrictEqual(bounds(0), [0, 0]);
  deepStrictEqual(bounds(1), [4, 100]);
  deepStrictEqual(bounds(MINUTE_MS), [9, 101]);
  deepStrictEqual(bounds(HOUR_MS), [16, 199]);
  deepStrictEqual(bounds(24 * HOUR_MS), [384, 2499]);

  for (const windowMs of [1, MINUTE_MS, 15 * MINUTE_MS, HOUR_MS]) {
    const { clock, fail } = openTestLockout();
    let [pair, unknownNetworks] = [0, 0];
    while (clock.monotonic() < windowMs) {
      const waitMs = fail();
      if (waitMs === 0) pair++;
      clock.advance(waitMs);
    }
    const elsewhere = openTestLockout();
    for (let bot = 0; elsewhere.clock.monotonic() < windowMs; bot++) {
      const waitMs = elsewhere.fail("ada", `bot ${bot}`, false);
      if (waitMs === 0) unknownNetworks++;
      elsewhere.clock.advance(waitMs);
    }
    deepStrictEqual([pair, unknownNetworks], bounds(windowMs), `${windowMs} ms`);
  }
});

Deno.test("ASVS V6.3.1: no order and timing of attempts gets more failures through than the bounds", () => {
  const settings: LockoutSettings = {
    ...LOCKOUT_DEFAULTS,
    forgetAfterMs: 60 * SECOND_MS,
    delayMsMax: 20 * SECOND_MS,
    ceiling: { quota: 5, windowMs: 50 * SECOND_MS },
  };
  const step = fc.record({
    waitMs: fc.oneof(
      { weight: 4, arbitrary: fc.constant(0) },
      { weight: 4, arbitrary: fc.nat(3000) },
      { weight: 2, arbitrary: fc.nat(20_000) },
      { weight: 1, arbitrary: fc.nat(90_000) },
    ),
    network: fc.nat(2),
    isKnown: fc.boolean(),
    // Settled as failed at once, later, or never; or the owner signs in from one of the attackers' networks.
    end: fc.constantFrom("failed", "later", "never", "succeeded"),
  });
  let refused = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 120 }), (steps) => {
      const { clock, ask } = openTestLockout(settings);
      const elsewhere: number[] = [];
      /** Failures of each network since its last success. */
      const pairs = new Map<number, number[]>();
      const pending: Attempt[] = [];
      for (const { waitMs, network, isKnown, end } of steps) {
        clock.advance(waitMs);
        const taken = ask("ada", `network ${network}`, isKnown);
        if (typeof taken === "number") {
          refused++;
          continue;
        }
        if (end === "succeeded") {
          taken.succeeded();
          pairs.delete(network);
          continue;
        }
        if (end === "failed") taken.failed();
        if (end === "later") pending.push(taken);
        if (pending.length > 3) pending.shift()?.failed();
        const failures = pairs.get(network) ?? [];
        failures.push(clock.monotonic());
        pairs.set(network, failures);
        checkWindows(failures, (windowMs) => failuresMax(windowMs, settings).pair);
        if (isKnown) continue;
        elsewhere.push(clock.monotonic());
        checkWindows(elsewhere, (windowMs) => failuresMax(windowMs, settings).unknownNetworks);
      }
    }),
  );
  ok(refused > 100, `only ${refused} attempts were refused`);
});

/** All windows that end right after the last failure: the shorter a window, the stricter its bound. */
function checkWindows(failuresAtMs: readonly number[], boundOf: (windowMs: number) => number): void {
  const lastMs = failuresAtMs.at(-1) ?? 0;
  for (const [at, firstMs] of failuresAtMs.entries()) {
    const count = failuresAtMs.length - at;
    const windowMs = lastMs - firstMs + 1;
    ok(
      count <= boundOf(windowMs),
      `${count} failures in ${windowMs} ms, at most ${boundOf(windowMs)} are due`,
    );
  }
}

Deno.test("who waits as long as was said gets through, and who comes a millisecond early does not", () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ waitMs: fc.nat(3000), network: fc.nat(2), isKnown: fc.boolean() }), {
        minLength: 10,
      }),
      (steps) => {
        const { clock, fail } = openTestLockout({ ceiling: { quota: 4, windowMs: MINUTE_MS } });
        for (const { waitMs, network, isKnown } of steps) {
          clock.advance(waitMs);
          const retryAfterMs = fail("ada", `network ${network}`, isKnown);
          if (retryAfterMs === 0) continue;
          clock.advance(retryAfterMs - 1);
          strictEqual(fail("ada", `network ${network}`, isKnown), 1);
          clock.advance(1);
          strictEqual(fail("ada", `network ${network}`, isKnown), 0);
        }
      },
    ),
  );
});

Deno.test("an attempt that is withdrawn counts no more, for the pair and for the ceiling, unless another came since", () => {
  const clock = manualClock();
  const settings = { ...LOCKOUT_DEFAULTS, ceiling: { quota: 6, windowMs: 60_000 } };
  const lockout = openLockout(clock, settings);
  const take = () => {
    const taken = lockout.take("ada", "network", false);
    ok(taken.ok, "it has to wait");
    return taken.attempt;
  };
  for (let failure = 0; failure < 3; failure++) take().failed();
  for (let again = 0; again < 20; again++) take().withdrawn();
  const fourth = take();
  strictEqual(lockout.take("ada", "network", false).ok, false, "the fourth is followed by a delay");
  fourth.withdrawn();
  fourth.withdrawn();
  const other = take();
  clock.advance(1000);
  const fifth = take();
  other.withdrawn(); // another came since: both stay counted
  fifth.failed();
  deepStrictEqual(lockout.take("ada", "network", true), { ok: false, retryAfterMs: 2000 });
});
