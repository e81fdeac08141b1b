// Tests of the lockout: guessing slows down as documented, also in parallel and over instances, and the owner of an account gets in.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../src/faults/fault.ts";
import {
  type Attempt,
  failuresMax,
  LOCKOUT_DEFAULTS,
  type LockoutSettings,
  openLockout,
} from "../../src/limits/lockout.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { type ManualClock, manualClock } from "../support/manual_clock.ts";

const SECOND_MS = 1000;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/** @param shared what another instance has, too */
function openTestLockout(
  settings: Partial<LockoutSettings> = {},
  shared: { readonly clock: ManualClock; readonly store: RecordStore } = openMatter(),
) {
  const { clock, store } = shared;
  const lockout = openLockout({ store, clock, settings: { ...LOCKOUT_DEFAULTS, ...settings } });
  /** The attempt, or how long to wait. */
  async function ask(account = "ada", network = "home", isKnown = true): Promise<Attempt | number> {
    const taken = await lockout.take(account, network, isKnown);
    return taken.ok ? taken.attempt : taken.retryAfterMs;
  }
  return {
    clock,
    store,
    unlock: lockout.unlock,
    ask,
    /** An attempt that fails: 0, or how long to wait. */
    async fail(account = "ada", network = "home", isKnown = true): Promise<number> {
      const taken = await ask(account, network, isKnown);
      if (typeof taken === "number") return taken;
      await taken.failed();
      return 0;
    },
    /** An attempt that succeeds: 0, or how long to wait. */
    async succeed(account = "ada", network = "home", isKnown = true): Promise<number> {
      const taken = await ask(account, network, isKnown);
      if (typeof taken === "number") return taken;
      await taken.succeeded();
      return 0;
    },
  };
}

function openMatter(): { readonly clock: ManualClock; readonly store: RecordStore } {
  const clock = manualClock();
  return { clock, store: openMemoryRecordStore(clock) };
}

Deno.test("ASVS V6.3.1: three failures are free, then the delay doubles from 1 s up to 15 min, to the millisecond", async () => {
  const { clock, fail } = openTestLockout();
  deepStrictEqual([await fail(), await fail(), await fail()], [0, 0, 0]);
  for (const delaySeconds of [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]) {
    strictEqual(await fail(), 0);
    strictEqual(await fail(), delaySeconds * SECOND_MS);
    clock.advance(delaySeconds * SECOND_MS - 1);
    strictEqual(await fail(), 1);
    clock.advance(1);
  }
});

Deno.test("after any number of failures the delay stays at 15 min", async () => {
  const { clock, fail } = openTestLockout();
  for (let failure = 0; failure < 1500; failure++) clock.advance(await fail());
  while (await fail() === 0);
  strictEqual(await fail(), 15 * MINUTE_MS);
});

Deno.test("the time to wait is whole milliseconds, and waiting it is enough", async () => {
  const { clock, fail } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) await fail();
  clock.advance(0.25);
  strictEqual(await fail(), 1000);
  clock.advance(999.5);
  strictEqual(await fail(), 1);
  clock.advance(1);
  strictEqual(await fail(), 0);
});

Deno.test("a refused attempt counts nothing: who insists waits no longer", async () => {
  const { clock, fail } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) strictEqual(await fail(), 0);
  for (let attempt = 0; attempt < 1000; attempt++) strictEqual(await fail(), SECOND_MS);
  clock.advance(SECOND_MS);
  strictEqual(await fail(), 0);
  strictEqual(await fail(), 2 * SECOND_MS);
});

Deno.test("ASVS V6.3.1: attempts in parallel count before any of them is settled", async () => {
  const { ask } = openTestLockout();
  const attempts = await Promise.all(Array.from({ length: 1000 }, () => ask()));
  strictEqual(attempts.filter((attempt) => typeof attempt !== "number").length, 4);
  deepStrictEqual(new Set(attempts.slice(4)), new Set([SECOND_MS]));
});

Deno.test("ASVS V6.3.1: in parallel, attempts from ever new networks stop at the ceiling", async () => {
  const { ask } = openTestLockout();
  const attempts = await Promise.all(Array.from({ length: 1000 }, (_, at) => ask("ada", `bot ${at}`, false)));
  strictEqual(attempts.filter((attempt) => typeof attempt !== "number").length, 100);
});

Deno.test("an attempt that nobody settles stays counted", async () => {
  const { clock, ask, fail } = openTestLockout();
  for (let attempt = 0; attempt < 5; attempt++) await ask();
  clock.advance(SECOND_MS);
  await ask();
  strictEqual(await fail(), 2 * SECOND_MS);
});

Deno.test("a success starts the pair fresh", async () => {
  const { clock, fail, succeed } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) await fail();
  strictEqual(await succeed(), SECOND_MS); // also the right password waits
  clock.advance(SECOND_MS);
  strictEqual(await succeed(), 0);
  deepStrictEqual([await fail(), await fail(), await fail(), await fail(), await fail()], [
    0,
    0,
    0,
    0,
    SECOND_MS,
  ]);
});

Deno.test("a success of one pair says nothing of others", async () => {
  const { fail, succeed } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) await fail("ada", "elsewhere");
  await succeed("ada", "home");
  await succeed("bob", "elsewhere");
  strictEqual(await fail("ada", "elsewhere"), SECOND_MS);
});

Deno.test("pairs are apart, whatever their names are made of", async () => {
  const { fail } = openTestLockout();
  for (let failure = 0; failure < 4; failure++) await fail('a","b', "c");
  strictEqual(await fail('a","b', "c"), SECOND_MS);
  for (const [account, network] of [["a", 'b","c'], ["a", "b c"], ["a b", "c"], ["c", 'a","b']] as const) {
    strictEqual(await fail(account, network), 0);
    for (let failure = 0; failure < 4; failure++) await fail(account, network);
  }
});

Deno.test("a pair is forgotten an hour after its delay, and not a millisecond before", async () => {
  for (const [passedMs, waitsAgain] of [[HOUR_MS - 1, true], [HOUR_MS, false]] as const) {
    const { clock, fail } = openTestLockout();
    for (let failure = 0; failure < 6; failure++) clock.advance(await fail());
    while (await fail() === 0);
    clock.advance(await fail()); // the delay
    clock.advance(passedMs);
    strictEqual(await fail(), 0);
    strictEqual(await fail() > 0, waitsAgain);
  }
});

Deno.test("ASVS V6.1.1: attackers elsewhere reach the account's ceiling, and its owner still signs in at home", async () => {
  const { clock, fail, succeed } = openTestLockout();
  for (let bot = 0; bot < 100; bot++) strictEqual(await fail("ada", `bot ${bot}`, false), 0);
  strictEqual(await fail("ada", "bot 100", false), 36 * SECOND_MS);
  strictEqual(await succeed("ada", "bot 100", false), 36 * SECOND_MS); // the answer does not depend on the password
  strictEqual(await succeed("ada", "home", true), 0);
  strictEqual(await fail("bob", "bot 0", false), 0); // other accounts are not touched
  clock.advance(36 * SECOND_MS);
  strictEqual(await fail("ada", "bot 100", false), 0);
  strictEqual(await fail("ada", "bot 101", false), 36 * SECOND_MS);
  clock.advance(HOUR_MS);
  for (let bot = 200; bot < 300; bot++) strictEqual(await fail("ada", `bot ${bot}`, false), 0);
  strictEqual(await fail("ada", "bot 300", false), 36 * SECOND_MS);
});

Deno.test("failures at home take nothing from the ceiling", async () => {
  const { fail } = openTestLockout({ ceiling: { quota: 2, windowMs: HOUR_MS } });
  deepStrictEqual([await fail("ada", "home"), await fail("ada", "home"), await fail("ada", "work")], [
    0,
    0,
    0,
  ]);
  deepStrictEqual([await fail("ada", "bot 1", false), await fail("ada", "bot 2", false)], [0, 0]);
  strictEqual(await fail("ada", "bot 3", false), 30 * MINUTE_MS);
});

Deno.test("a pair's delay takes nothing from the ceiling, and the longer wait of both is told", async () => {
  const { fail } = openTestLockout({ ceiling: { quota: 5, windowMs: HOUR_MS } });
  for (let failure = 0; failure < 4; failure++) await fail("ada", "bot 1", false);
  for (let attempt = 0; attempt < 9; attempt++) strictEqual(await fail("ada", "bot 1", false), SECOND_MS);
  strictEqual(await fail("ada", "bot 2", false), 0);
  strictEqual(await fail("ada", "bot 1", false), 12 * MINUTE_MS);
  // The other way round: the pair waits longer than the account.
  const { clock, fail: failAgain } = openTestLockout({ ceiling: { quota: 5, windowMs: HOUR_MS } });
  for (let failure = 0; failure < 14;) {
    const waitMs = await failAgain("ada", "home");
    if (waitMs === 0) failure++;
    clock.advance(waitMs);
  }
  for (let bot = 0; bot < 5; bot++) await failAgain("ada", `bot ${bot}`, false);
  strictEqual(await failAgain("ada", "home", false), 15 * MINUTE_MS);
});

Deno.test("a success from a new network takes nothing from the ceiling", async () => {
  const { fail, succeed } = openTestLockout({ ceiling: { quota: 3, windowMs: HOUR_MS } });
  await fail("ada", "bot 1", false);
  for (let round = 0; round < 50; round++) strictEqual(await succeed("ada", `hotel ${round}`, false), 0);
  deepStrictEqual([await fail("ada", "bot 2", false), await fail("ada", "bot 3", false)], [0, 0]);
  strictEqual(await fail("ada", "bot 4", false), 20 * MINUTE_MS);
});

Deno.test("only the first word on an attempt counts", async () => {
  const { ask, fail } = openTestLockout({ ceiling: { quota: 3, windowMs: HOUR_MS } });
  const right = await ask("ada", "hotel", false);
  const wrong = await ask("ada", "bot 1", false);
  ok(typeof right !== "number" && typeof wrong !== "number");
  for (let round = 0; round < 5; round++) {
    await right.succeeded();
    await right.failed();
    await wrong.failed();
    await wrong.succeeded();
  }
  deepStrictEqual([await fail("ada", "bot 2", false), await fail("ada", "bot 3", false)], [0, 0]);
  strictEqual(await fail("ada", "bot 4", false), 20 * MINUTE_MS);
  // Nor does a late word start the pair fresh.
  for (let failure = 0; failure < 4; failure++) await fail("ada", "hotel");
  await right.succeeded();
  strictEqual(await fail("ada", "hotel"), SECOND_MS);
});

Deno.test("an unlock forgets an account's pairs and ceiling, of no other account, and says whether there was anything", async () => {
  const { clock, ask, fail, succeed, unlock } = openTestLockout({ ceiling: { quota: 9, windowMs: HOUR_MS } });
  strictEqual(await unlock("ada"), false);
  for (let failure = 0; failure < 4; failure++) await fail("ada", "home");
  for (let failure = 0; failure < 9; failure++) await fail("ada", `bot ${failure}`, false);
  for (let failure = 0; failure < 4; failure++) await fail("bob", "home");
  strictEqual(await unlock("ada"), true);
  strictEqual(await unlock("ada"), false);
  strictEqual(await fail("bob", "home"), SECOND_MS);
  strictEqual(await fail("ada", "home"), 0);
  // An attempt under way during an unlock gives nothing back that was taken after it.
  const pending = await ask("ada", "hotel", false);
  ok(typeof pending !== "number");
  await unlock("ada");
  for (let failure = 0; failure < 9; failure++) strictEqual(await fail("ada", `bot ${failure}`, false), 0);
  await pending.succeeded();
  ok(await fail("ada", "bot 9", false) > 0);
  await unlock("ada");
  await succeed("ada", "home", false);
  strictEqual(await unlock("ada"), false);
  await fail("ada", "home", false);
  clock.advance(2 * HOUR_MS);
  strictEqual(await unlock("ada"), false);
  await fail("ada", "home", true);
  strictEqual(await unlock("ada"), true);
});

Deno.test("ASVS V6.1.1: the bounds are the documented numbers, and an attacker who never waits too long reaches them", async () => {
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
      const waitMs = await fail();
      if (waitMs === 0) pair++;
      clock.advance(waitMs);
    }
    const elsewhere = openTestLockout();
    for (let bot = 0; elsewhere.clock.monotonic() < windowMs; bot++) {
      const waitMs = await elsewhere.fail("ada", `bot ${bot}`, false);
      if (waitMs === 0) unknownNetworks++;
      elsewhere.clock.advance(waitMs);
    }
    deepStrictEqual([pair, unknownNetworks], bounds(windowMs), `${windowMs} ms`);
  }
});

Deno.test("ASVS V6.3.1: no order and timing of attempts gets more failures through than the bounds", async () => {
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
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 120 }), async (steps) => {
      const { clock, ask } = openTestLockout(settings);
      const elsewhere: number[] = [];
      /** Failures of each network since its last success. */
      const pairs = new Map<number, number[]>();
      const pending: Attempt[] = [];
      for (const { waitMs, network, isKnown, end } of steps) {
        clock.advance(waitMs);
        const taken = await ask("ada", `network ${network}`, isKnown);
        if (typeof taken === "number") {
          refused++;
          continue;
        }
        if (end === "succeeded") {
          await taken.succeeded();
          pairs.delete(network);
          continue;
        }
        if (end === "failed") await taken.failed();
        if (end === "later") pending.push(taken);
        if (pending.length > 3) await pending.shift()?.failed();
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

Deno.test("who waits as long as was said gets through, and who comes a millisecond early does not", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ waitMs: fc.nat(3000), network: fc.nat(2), isKnown: fc.boolean() }), {
        minLength: 10,
      }),
      async (steps) => {
        const { clock, fail } = openTestLockout({ ceiling: { quota: 4, windowMs: MINUTE_MS } });
        for (const { waitMs, network, isKnown } of steps) {
          clock.advance(waitMs);
          const retryAfterMs = await fail("ada", `network ${network}`, isKnown);
          if (retryAfterMs === 0) continue;
          clock.advance(retryAfterMs - 1);
          strictEqual(await fail("ada", `network ${network}`, isKnown), 1);
          clock.advance(1);
          strictEqual(await fail("ada", `network ${network}`, isKnown), 0);
        }
      },
    ),
  );
});

Deno.test("an attempt that is withdrawn counts no more, for the pair and for the ceiling, unless another came since", async () => {
  const { clock, ask } = openTestLockout({ ceiling: { quota: 6, windowMs: MINUTE_MS } });
  const take = async (): Promise<Attempt> => {
    const taken = await ask("ada", "network", false);
    ok(typeof taken !== "number", "it has to wait");
    return taken;
  };
  for (let failure = 0; failure < 3; failure++) await (await take()).failed();
  for (let again = 0; again < 20; again++) await (await take()).withdrawn();
  const fourth = await take();
  strictEqual(await ask("ada", "network", false), SECOND_MS, "the fourth is followed by a delay");
  await fourth.withdrawn();
  await fourth.withdrawn();
  const other = await take();
  clock.advance(SECOND_MS);
  const fifth = await take();
  await other.withdrawn(); // another came since: both stay counted
  await fifth.failed();
  strictEqual(await ask("ada", "network", true), 2 * SECOND_MS);
});

Deno.test("an attempt that is withdrawn takes back no other's count, though it looks just like its own", async () => {
  const { ask, fail, succeed } = openTestLockout();
  const first = await ask();
  ok(typeof first !== "number");
  strictEqual(await succeed(), 0);
  strictEqual(await fail(), 0);
  await first.withdrawn(); // the pair started fresh since, and has one failure again
  deepStrictEqual([await fail(), await fail(), await fail()], [0, 0, 0]);
  strictEqual(await fail(), SECOND_MS);
});

Deno.test("an unlock forgets as many pairs as there are", async () => {
  const { store, fail, unlock } = openTestLockout();
  for (let network = 0; network < 250; network++) await fail("ada", `${network}`);
  await fail("adam", "home");
  strictEqual(await unlock("ada"), true);
  deepStrictEqual((await store.list("lockout_pairs", { limit: 10 })).map(({ key }) => key), [
    '["adam","home"]',
  ]);
});

Deno.test("ASVS V6.3.1: of attempts that come to several instances at the same moment no more get through than to one", async () => {
  const matter = openMatter();
  const instances = [1, 2, 3, 4].map(() => openTestLockout({}, matter));
  const letThrough = async (network: (at: number) => string, isKnown: boolean): Promise<number> => {
    const taken = await Promise.all(
      Array.from({ length: 400 }, (_, at) => instances[at % 4]?.ask("ada", network(at), isKnown)),
    );
    return taken.filter((each) => typeof each === "object").length;
  };
  strictEqual(await letThrough(() => "home", true), 4);
  strictEqual(await letThrough((at) => `bot ${at}`, false), 100);
  strictEqual(await instances[3]?.fail("ada", "home"), SECOND_MS);
  strictEqual(await instances[2]?.fail("ada", "another bot", false), 36 * SECOND_MS);
});

Deno.test("what successes give back at several instances at the same moment is neither lost nor given twice", async () => {
  const matter = openMatter();
  const instances = [1, 2, 3].map(() => openTestLockout({}, matter));
  const askAll = (count: number, name: string) =>
    Promise.all(
      Array.from({ length: count }, (_, at) => instances[at % 3]?.ask("ada", `${name} ${at}`, false)),
    );
  const attempts = (await askAll(60, "hotel")).filter((each) => typeof each === "object");
  strictEqual(attempts.length, 60);
  const settled = attempts.map((each, at) => at % 3 === 0 ? each.failed() : each.succeeded());
  // More come in between: 20 have failed by then, so that there is room for 80 besides those that are being settled.
  const [between] = await Promise.all([askAll(40, "bot"), ...settled]);
  strictEqual(between.filter((each) => typeof each === "object").length, 40);
  strictEqual((await askAll(60, "late")).filter((each) => typeof each === "object").length, 40);
});

Deno.test("what one instance counts, forgives or unlocks counts, is forgiven and unlocked at the others, also after a restart", async () => {
  const matter = openMatter();
  const [one, other] = [openTestLockout({}, matter), openTestLockout({}, matter)];
  deepStrictEqual([await one.fail(), await other.fail(), await one.fail(), await other.fail()], [0, 0, 0, 0]);
  deepStrictEqual([await one.fail(), await other.fail()], [SECOND_MS, SECOND_MS]);
  strictEqual(await openTestLockout({}, matter).fail(), SECOND_MS);
  matter.clock.advance(SECOND_MS);
  strictEqual(await other.succeed(), 0);
  for (let failure = 0; failure < 4; failure++) strictEqual(await one.fail(), 0);
  strictEqual(await other.fail(), SECOND_MS);
  strictEqual(await one.unlock("ada"), true);
  strictEqual(await other.unlock("ada"), false);
  strictEqual(await other.fail(), 0);
});

Deno.test("property: two instances decide like one, whichever of them an attempt comes to", async () => {
  const step = fc.record({
    waitMs: fc.oneof(fc.constant(0), fc.nat(5000)),
    account: fc.nat(1),
    network: fc.nat(1),
    isKnown: fc.boolean(),
    instance: fc.nat(1),
    act: fc.constantFrom<"fail" | "succeed" | "unlock">("fail", "fail", "fail", "succeed", "unlock"),
  });
  const settings = { ceiling: { quota: 5, windowMs: MINUTE_MS } };
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 60 }), async (steps) => {
      const matter = openMatter();
      const two = [openTestLockout(settings, matter), openTestLockout(settings, matter)] as const;
      const alone = openTestLockout(settings);
      for (const { waitMs, account, network, isKnown, instance, act } of steps) {
        for (const { clock } of [matter, alone]) clock.advance(waitMs);
        const [one, other] = await Promise.all(
          [alone, two[instance] ?? two[0]].map((lockout) =>
            act === "unlock"
              ? lockout.unlock(`${account}`)
              : lockout[act](`${account}`, `${network}`, isKnown)
          ),
        );
        strictEqual(one, other);
      }
    }),
    { numRuns: 50 },
  );
});

Deno.test("a wall clock that is set back lets nobody wait for longer than the delay, by the pair or by the ceiling", async () => {
  for (
    const [isKnown, failures, delayMs] of [[true, 5, 2 * SECOND_MS], [false, 9, 12 * MINUTE_MS]] as const
  ) {
    const { clock, fail } = openTestLockout({ ceiling: { quota: 5, windowMs: HOUR_MS } });
    for (let failure = 0; failure < failures; failure++) {
      const waitMs = await fail("ada", isKnown ? "home" : `bot ${failure}`, isKnown);
      if (isKnown) clock.advance(waitMs);
    }
    while (await fail("ada", isKnown ? "home" : "bot", isKnown) === 0);
    clock.jumpWall(-365 * 24 * HOUR_MS);
    const waitMs = await fail("ada", isKnown ? "home" : "bot", isKnown);
    strictEqual(waitMs, delayMs);
    clock.advance(waitMs - 1);
    strictEqual(await fail("ada", isKnown ? "home" : "bot", isKnown), 1);
    clock.advance(1);
    strictEqual(await fail("ada", isKnown ? "home" : "bot", isKnown), 0);
  }
});

Deno.test("nothing that counts no more is left in the store, and no name is in what rests there", async () => {
  const { clock, store, fail, succeed } = openTestLockout();
  const left = async (): Promise<number> => {
    const tables = await Promise.all(
      ["lockout_pairs", "lockout_ceilings"].map((table) => store.list(table, { limit: 1000 })),
    );
    for (const { value } of tables.flat()) {
      ok(/^\[[\d.,]+\]$/.test(new TextDecoder().decode(value)));
    }
    return tables.flat().length;
  };
  for (let bot = 0; bot < 10; bot++) await fail("ada", `bot ${bot}`, false);
  strictEqual(await left(), 11);
  await succeed("eve", "home", false);
  strictEqual(await left(), 11);
  clock.advance(HOUR_MS - 1);
  strictEqual(await left(), 10); // the ceiling had room for all again long before
  clock.advance(1);
  strictEqual(await left(), 0);
});

Deno.test("a store that fails, or whose record has no known form, lets nobody through", async () => {
  const { clock, store } = openMatter();
  const fails = (): Promise<never> => Promise.reject(new Fault("unavailable", "the store is gone"));
  for (const broken of [{ get: fails }, { write: fails }]) {
    const lockout = openLockout({ store: { ...store, ...broken }, clock });
    await rejects(lockout.take("ada", "home", true), { kind: "unavailable" });
    await rejects(lockout.take("ada", "home", false), { kind: "unavailable" });
  }
  for (const bytes of ["[1,2]", '[1,2,"3"]', "{}", "1", "", "\u00ff"]) {
    await store.put("lockout_pairs", '["ada","home"]', new TextEncoder().encode(bytes));
    await rejects(openLockout({ store, clock }).take("ada", "home", true), { kind: "unavailable" });
  }
});

Deno.test("where others come between again and again the attempt is refused, not let through uncounted", async () => {
  const { clock, store } = openMatter();
  let writes = 0;
  const contended: RecordStore = { ...store, write: () => Promise.resolve(writes++ < 0) };
  const lockout = openLockout({ store: contended, clock });
  await rejects(lockout.take("ada", "home", true), { kind: "overloaded" });
  strictEqual(writes, 50);
  // The next in turn is not held up by it.
  await rejects(Promise.all([1, 2].map(() => lockout.take("ada", "home", true))), { kind: "overloaded" });
});

Deno.test("an attempt under way while the store fails stays counted, and whoever ends it is told", async () => {
  const { clock, store } = openMatter();
  const state = { fails: false };
  const lockout = openLockout({
    store: {
      ...store,
      write: (changes) =>
        state.fails ? Promise.reject(new Fault("unavailable", "the store is gone")) : store.write(changes),
    },
    clock,
  });
  for (let failure = 0; failure < 3; failure++) await lockout.take("ada", "home", true);
  const taken = await lockout.take("ada", "home", true);
  ok(taken.ok);
  state.fails = true;
  await rejects(taken.attempt.succeeded(), { kind: "unavailable" });
  state.fails = false;
  deepStrictEqual(await lockout.take("ada", "home", true), { ok: false, retryAfterMs: SECOND_MS });
});
