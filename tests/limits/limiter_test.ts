// Tests of the limiter: what happens to requests and charges while the store fails, and after.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../src/faults/fault.ts";
import type { LimitDecision } from "../../src/limits/limit_store.ts";
import type { GuardedCell } from "../../src/limits/guarded_cell.ts";
import type { Limiter } from "../../src/limits/limiter.ts";
import { openMemoryLimitStore } from "../../src/limits/memory_limit_store.ts";
import { manualClock } from "../support/manual_clock.ts";
import { budget, limiterOver, places, requests, tokens, until } from "./limiter_under_test.ts";
import { scriptedLimitStore, type StoreState } from "./scripted_limit_store.ts";

/** A limiter over the stub. */
function open(state: StoreState = "well", degradedFraction?: number) {
  const clock = manualClock();
  const shared = openMemoryLimitStore(clock);
  const store = scriptedLimitStore(shared);
  store.state = state;
  let holds = 0;
  const under = limiterOver(store, clock, degradedFraction);
  return {
    ...under,
    clock,
    store,
    /** What really is in the store. */
    shared,
    newHold: () => `hold-${++holds}`,
    /** Whether all cells allow it. */
    passes: async (hold: string | null, ...cells: readonly GuardedCell[]) =>
      isAllowed(await under.limiter.take(hold, cells)),
    /** Whole units left in the store. */
    left: ({ cell }: GuardedCell) => {
      const [decision] = now(shared.take(null, [cell.kind === "place" ? cell : { ...cell, amount: 0 }]));
      return decision?.remaining;
    },
  };
}

const isAllowed = (decisions: readonly LimitDecision[]) => decisions.every(({ allowed }) => allowed);

/** The answer of a synchronous store. */
function now<Answer>(answer: Promise<Answer> | Answer): Answer {
  if (answer instanceof Promise) throw new TypeError("this store is synchronous");
  return answer;
}

/** Puts the store in order and waits until the limiter has noticed. */
async function recover({ limiter, store }: ReturnType<typeof open>): Promise<void> {
  store.state = "well";
  await until("the limiter recovers", () => !limiter.isDegraded());
}

const unavailable = (thrown: unknown) =>
  thrown instanceof Fault && thrown.kind === "unavailable" && thrown.details.retryAfterSeconds === 1;

async function passesOf(times: number, limiter: Limiter, ...cells: readonly GuardedCell[]): Promise<number> {
  let passed = 0;
  for (let request = 0; request < times; request++) if (isAllowed(await limiter.take(null, cells))) passed++;
  return passed;
}

Deno.test("over a synchronous store the limiter answers and settles without waiting", async () => {
  await using under = open("synchronous");
  const { limiter, left } = under;
  const cell = tokens("a", 100, 40);
  ok(Array.isArray(limiter.take("h", [cell])));
  strictEqual(left(cell), 60);
  limiter.settle("h", [{ cell: cell.cell, used: 10 }], []);
  strictEqual(left(cell), 90);
});

Deno.test("work that nothing limits passes without a question, also while the store is down", async () => {
  await using under = open("down");
  deepStrictEqual(under.limiter.take("h", []), []);
  strictEqual(under.store.asked.takes, 0);
});

Deno.test("a closed cell is unavailable while the store is down, and draws the degraded ones with it", async () => {
  for (const state of ["down", "synchronous_down"] as const) {
    await using under = open(state);
    const rate = requests("a", 4);
    await rejects(under.passes(null, budget("a", 100, 1)), unavailable);
    await rejects(under.passes("h1", rate, budget("a", 100, 1)), unavailable);
    await rejects(under.passes("h2", requests("a", 4, { whenStoreFails: "closed" })), unavailable);
    deepStrictEqual(now(under.local.take(null, [{ ...requests("a", 1).cell }]))[0]?.allowed, true);
  }
});

Deno.test("while the store is down a degraded cell allows its fraction exactly, and at least 1", async () => {
  await using under = open("down", 0.25);
  strictEqual(await passesOf(300, under.limiter, requests("many", 400)), 100);
  strictEqual(await passesOf(20, under.limiter, requests("odd", 43)), 10);
  strictEqual(await passesOf(20, under.limiter, requests("few", 3)), 1);
  strictEqual(await passesOf(5, under.limiter, requests("none", 0)), 0);
  let running = 0;
  for (let request = 0; request < 20; request++) {
    if (await under.passes(under.newHold(), places("at-once", 16))) running++;
  }
  strictEqual(running, 4);
});

Deno.test("the fraction of a quota in whole percent is that of whole numbers", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(fc.nat(2 ** 31), fc.nat(1e6).map((hundreds) => 100 * hundreds + 100)).filter((quota) =>
        quota > 0
      ),
      fc.integer({ min: 1, max: 100 }),
      async (quota, percent) => {
        await using under = open("down", percent / 100);
        const taken = await under.limiter.take(null, [requests("a", quota)]);
        const fraction = Number(BigInt(quota) * BigInt(percent) / 100n);
        strictEqual((taken[0]?.remaining ?? 0) + 1, Math.max(1, fraction));
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("an amount above the fraction waits for the store; one above the quota is never allowed", async () => {
  await using under = open("down", 0.25);
  const [above] = await under.limiter.take(null, [tokens("a", 100, 26)]);
  strictEqual(above?.allowed, false);
  ok(Number.isFinite(above?.retryAfterMs));
  const [never] = await under.limiter.take(null, [tokens("a", 100, 101)]);
  deepStrictEqual([never?.allowed, never?.retryAfterMs], [false, Infinity]);
});

Deno.test("what a take without an answer took of rates, sums and places is given back", async () => {
  await using under = open("deaf");
  const cells = [requests("a", 10), tokens("b", 1000, 300), budget("c", 500, 200), places("d", 3)];
  await rejects(under.passes("h", ...cells), unavailable);
  deepStrictEqual(cells.slice(0, 3).map(under.left), [9, 700, 300]);
  await recover(under);
  deepStrictEqual(cells.slice(0, 3).map(under.left), [10, 1000, 500]);
  let running = 0;
  while (await under.passes(under.newHold(), places("d", 3))) running++;
  strictEqual(running, 3);
});

Deno.test("a take that arrives when it was given up takes nothing", async () => {
  await using under = open("late");
  const cells = [requests("a", 10), budget("c", 500, 200)];
  await rejects(under.passes("h", ...cells), unavailable);
  await recover(under);
  await under.store.deliver();
  deepStrictEqual(cells.map(under.left), [10, 500]);
});

Deno.test("what is refused while the store fails by an error of the program is given back as well", async () => {
  await using under = open("broken");
  await rejects(
    under.passes("h", requests("a", 10)),
    (thrown) => thrown instanceof Fault && thrown.kind === "internal",
  );
  strictEqual(under.limiter.isDegraded(), false);
  under.store.state = "well";
  await until("the settlement arrives", () => under.store.asked.settlements > 0);
});

Deno.test("a settlement is tried again until the store takes it, and counts once where its answers were lost", async () => {
  for (const state of ["down", "synchronous_down", "deaf", "late", "read_only", "broken"] as const) {
    await using under = open();
    const { limiter, store, shared } = under;
    const cell = budget("a", 500, 200);
    ok(await under.passes("h", cell));
    store.state = state;
    limiter.settle("h", [{ cell: cell.cell, used: 70 }], [{
      book: "usage",
      key: "a",
      amount: 7,
      keptMs: 3_600_000,
    }]);
    await until("it was tried", () => store.asked.settlements > 0);
    store.state = "well";
    await until(
      "it was tried again",
      async () => store.asked.settlements > 1 && (await shared.sums("usage")).size > 0,
    );
    await store.deliver();
    strictEqual(under.left(cell), 430, state);
    deepStrictEqual([...await limiter.sums("usage")], [["a", 7]], state);
    deepStrictEqual([...await limiter.sums("usage", ["b"])], [], state);
    deepStrictEqual(await under.events(), [], state);
  }
});

Deno.test("a hold of the local store is settled there, and only its tallies reach the shared store", async () => {
  await using under = open("deaf");
  const { limiter, store, local } = under;
  const [rate, place] = [tokens("a", 400, 60), places("b", 4)];
  ok(await under.passes("h", rate, place));
  strictEqual(await under.passes("h2", rate, place), false);
  limiter.settle("h", [{ cell: rate.cell, used: 25 }, { cell: place.cell, used: 0 }], [
    { book: "usage", key: "a", amount: 25, keptMs: 3_600_000 },
  ]);
  ok(await under.passes("h3", tokens("a", 400, 75), place));
  strictEqual(now(local.take(null, [{ ...tokens("a", 100, 1).cell }]))[0]?.allowed, false);
  await recover(under);
  await until("the tally arrives", async () => (await limiter.sums("usage")).get("a") === 25);
  strictEqual(under.left(rate), 400);
  strictEqual(store.asked.takes, 3);
});

Deno.test("of more than 10,000 settlements that wait the oldest are dropped, and the log counts them", async () => {
  await using under = open("down");
  const { limiter } = under;
  for (let index = 0; index < 10_003; index++) {
    limiter.settle(`h${index}`, [], [{
      book: "usage",
      key: `${index % 2 === 0 ? "even" : "odd"}`,
      amount: 1,
      keptMs: 3_600_000,
    }]);
    // The first is under way: it waits behind the others.
    if (index === 0) await until("it waits", () => under.store.asked.settlements === 1);
  }
  under.store.state = "well";
  await until("all are settled", async () => {
    const sums = await limiter.sums("usage");
    return (sums.get("even") ?? 0) + (sums.get("odd") ?? 0) >= 10_000;
  });
  deepStrictEqual([...await limiter.sums("usage")].sort(), [["even", 5000], ["odd", 5000]]);
  const dropped = await under.lines("limits.settlements_dropped");
  deepStrictEqual(dropped.map(({ settlements }) => settlements), [3]);
});

Deno.test("takes without an answer push out no settlement, and of them the oldest go when 10,000 wait", async () => {
  await using under = open();
  const { limiter, store } = under;
  const [sum, place] = [budget("a", 500, 200), places("a", 4)];
  ok(await under.passes("h", sum, place));
  store.state = "down";
  limiter.settle("h", [{ cell: sum.cell, used: 70 }, { cell: place.cell, used: 0 }], [
    { book: "usage", key: "a", amount: 7, keptMs: 3_600_000 },
  ]);
  await until("it was tried", () => store.asked.settlements === 1);
  for (let flood = 0; flood < 10_003; flood++) {
    await rejects(under.passes(`flood-${flood}`, budget("b", 500, 1)), unavailable);
  }
  store.state = "well";
  await until("it is settled", async () => (await limiter.sums("usage")).get("a") === 7);
  strictEqual(under.left(sum), 430);
  strictEqual(under.left(place), 3);
  await until(
    "what failed is told",
    async () => (await under.lines("limits.settlements_dropped")).length > 0,
  );
  deepStrictEqual(
    (await under.lines("limits.settlements_dropped")).map(({ settlements, takes }) => [settlements, takes]),
    [[0, 3]],
  );
});

Deno.test("a take that was never sent leaves nothing to settle, and its settlement reaches the local store and the book", async () => {
  await using under = open("cut");
  const { limiter, store } = under;
  for (let request = 0; request < 20; request++) {
    await rejects(under.passes(under.newHold(), budget("a", 10, 1)), unavailable);
  }
  const place = places("a", 4);
  ok(await under.passes("h", place));
  strictEqual(await under.passes("h2", place), false);
  limiter.settle("h", [{ cell: place.cell, used: 0 }], [
    { book: "usage", key: "a", amount: 7, keptMs: 3_600_000 },
  ]);
  await until("it was tried", () => store.asked.settlements === 1);
  ok(await under.passes("h3", place));
  await recover(under);
  await until("the tally arrives", async () => (await limiter.sums("usage")).get("a") === 7);
  await limiter.close(20_000);
  strictEqual(store.asked.settlements, 2);
  deepStrictEqual(await under.events(), ["limits.degraded", "limits.recovered"]);
});

Deno.test("a settlement whose answer was lost is tried again for 55 minutes, then dropped: the store may forget that it settled", async () => {
  for (const [minutes, settlements, tallied] of [[54, 2, 7], [55, 1, undefined]] as const) {
    await using under = open("down");
    const { limiter, store } = under;
    limiter.settle("h", [], [{ book: "usage", key: "a", amount: 7, keptMs: 7_200_000 }]);
    await until("it was tried", () => store.asked.settlements === 1);
    // One that waits since then without having been sent may wait on.
    await new Promise((resolve) => setTimeout(resolve, 0));
    limiter.settle("h2", [], [{ book: "usage", key: "b", amount: 1, keptMs: 7_200_000 }]);
    under.clock.advance(minutes * 60_000);
    store.state = "well";
    await until("the other is settled", async () => (await limiter.sums("usage")).get("b") === 1);
    await limiter.close(20_000);
    strictEqual(store.asked.settlements, settlements + 1);
    strictEqual((await limiter.sums("usage")).get("a"), tallied);
    deepStrictEqual(
      (await under.lines("limits.settlements_dropped")).map(({ settlements }) => settlements),
      tallied === undefined ? [1] : [],
    );
  }
});

Deno.test("a settlement that was never sent waits for as long as it takes, and ages from when it was", async () => {
  await using under = open("cut");
  const { limiter, store } = under;
  limiter.settle("h", [], [{ book: "usage", key: "a", amount: 7, keptMs: 86_400_000 }]);
  await until("it was tried", () => store.asked.settlements === 1);
  under.clock.advance(3 * 3_600_000);
  store.refusesToSettle = () => true;
  store.state = "well";
  await until("it was tried again", () => store.asked.settlements > 1);
  under.clock.advance(54 * 60_000);
  store.refusesToSettle = undefined;
  await until("it is settled", async () => (await limiter.sums("usage")).get("a") === 7);
  deepStrictEqual(await under.lines("limits.settlements_dropped"), []);
});

Deno.test("a settlement that the store never takes holds up no other", async () => {
  await using under = open("down");
  const { limiter, store } = under;
  store.refusesToSettle = (hold) => hold === "bad";
  const tally = { book: "usage", key: "a", amount: 1, keptMs: 3_600_000 };
  limiter.settle("bad", [], [tally]);
  await until("it was tried", () => store.asked.settlements === 1);
  for (let index = 0; index < 250; index++) limiter.settle(`h${index}`, [], [tally]);
  store.state = "well";
  await until("the others are settled", async () => (await limiter.sums("usage")).get("a") === 250);
  const asked = store.asked.settlements;
  limiter.settle("h250", [], [tally]);
  strictEqual(store.asked.settlements, asked + 1);
  await until("the next one is settled as well", async () => (await limiter.sums("usage")).get("a") === 251);
  store.refusesToSettle = undefined;
  await until("it is settled in the end", async () => (await limiter.sums("usage")).get("a") === 252);
});

Deno.test("a store that failed to settle is spared: all wait until a probe works, and then it gets 100 at once", async () => {
  await using under = open("down");
  const { limiter, store } = under;
  store.refusesToSettle = () => true;
  limiter.settle("h", [], []);
  await until("it was tried", () => store.asked.settlements === 1);
  // Its failure is known in the next turn of the event loop.
  await new Promise((resolve) => setTimeout(resolve, 0));
  for (let index = 0; index < 250; index++) limiter.settle(`h${index}`, [], []);
  await new Promise((resolve) => setTimeout(resolve, 700));
  strictEqual(store.asked.settlements, 1);
  store.state = "well";
  await until("a round has failed", async () => (await under.lines("limits.settlements_wait")).length > 0);
  strictEqual((store.asked.settlements - 1) % 100, 0);
  deepStrictEqual((await under.lines("limits.settlements_wait"))[0]?.waiting, 251);
});

Deno.test("one line tells that the store fails, one that it works again, however many ask", async () => {
  await using under = open();
  const { limiter, store, events } = under;
  ok(await under.passes(null, requests("a", 1000)));
  strictEqual(limiter.isDegraded(), false);
  store.state = "down";
  for (let request = 0; request < 50; request++) await under.passes(null, requests("a", 1000));
  strictEqual(limiter.isDegraded(), true);
  await recover(under);
  deepStrictEqual(await events(), ["limits.degraded", "limits.recovered"]);
  const [line] = await under.lines("limits.degraded");
  deepStrictEqual([line?.level, line?.reason], ["warn", "Cannot use the scripted store: it is down"]);
});

Deno.test("a store that answers but cannot write has not recovered", async () => {
  await using under = open();
  const { limiter, store } = under;
  strictEqual(await passesOf(3, limiter, requests("full", 2)), 2);
  under.clock.advance(5_000);
  store.state = "read_only";
  ok(await under.passes(null, requests("a", 1000)));
  strictEqual(limiter.isDegraded(), true);
  strictEqual(await under.passes(null, requests("full", 2)), false);
  // Longer than the first pauses between probes.
  await new Promise((resolve) => setTimeout(resolve, 700));
  strictEqual(limiter.isDegraded(), true);
  await recover(under);
  deepStrictEqual(await under.events(), ["limits.degraded", "limits.recovered"]);
});

Deno.test("a store that fails without being asked to settle anything recovers without a request", async () => {
  await using under = open("down");
  await rejects(under.passes(null, budget("a", 1, 1)), unavailable);
  await recover(under);
  ok(await under.passes(null, budget("a", 1, 1)));
});

Deno.test("a rate of fixed amounts that was refused is not asked about again for a second", async () => {
  await using under = open();
  const { limiter, store, clock } = under;
  const rate = requests("a", 10);
  strictEqual(await passesOf(11, limiter, rate), 10);
  strictEqual(store.asked.takes, 11);
  const refusal = await limiter.take(null, [rate]);
  const other = tokens("b", 1000, 5);
  clock.advance(998);
  const later = await limiter.take("h", [other, rate]);
  strictEqual(store.asked.takes, 11);
  strictEqual(under.left(other), 1000);
  deepStrictEqual(later, [
    { allowed: true, remaining: 1000, retryAfterMs: 0, resetAfterMs: 0 },
    {
      ...refusal[0],
      retryAfterMs: (refusal[0]?.retryAfterMs ?? 0) - 998,
      resetAfterMs: (refusal[0]?.resetAfterMs ?? 0) - 998,
    },
  ]);
  clock.advance(2);
  strictEqual(await under.passes(null, rate), false);
  strictEqual(store.asked.takes, 12);
});

Deno.test("a rate that was refused is asked about as soon as it may allow again", async () => {
  await using under = open();
  const rate: GuardedCell = {
    ...requests("a", 1),
    cell: { kind: "rate", key: "a", quota: 1, windowMs: 400, amount: 1 },
  };
  strictEqual(await passesOf(5, under.limiter, rate), 1);
  under.clock.advance(398);
  strictEqual(await under.passes(null, rate), false);
  strictEqual(under.store.asked.takes, 2);
  under.clock.advance(2);
  strictEqual(await under.passes(null, rate), true);
});

Deno.test("a refusal says nothing of a smaller amount, another quota or another window", async () => {
  await using under = open();
  const { limiter } = under;
  strictEqual(await under.passes(null, requests("a", 10, {}, 8)), true);
  strictEqual(await under.passes(null, requests("a", 10, {}, 3)), false);
  strictEqual(await under.passes(null, requests("a", 10, {}, 2)), true);
  strictEqual(await under.passes(null, requests("a", 20, {}, 3)), true);
  const other = {
    ...requests("a", 10),
    cell: { kind: "rate", key: "a", quota: 10, windowMs: 1_800_000, amount: 3 },
  } as const;
  strictEqual(await under.passes(null, other), false);
  strictEqual(under.store.asked.takes, 5);
  strictEqual(await under.passes(null, requests("a", 10, {}, 3)), false);
  strictEqual(under.store.asked.takes, 6);
  const [larger] = await limiter.take(null, [requests("a", 10, {}, 4)]);
  strictEqual(larger?.allowed, false);
  strictEqual(under.store.asked.takes, 6);
});

Deno.test("what is no fixed rate is asked about every time", async () => {
  await using under = open();
  const cells = [tokens("a", 10, 11), budget("b", 10, 11), { ...budget("c", 10, 11), fixed: true }];
  for (const cell of [...cells, ...cells]) strictEqual(await under.passes(null, cell), false);
  strictEqual(under.store.asked.takes, 6);
  const place = { ...places("d", 1), fixed: true };
  deepStrictEqual([
    await under.passes("h", place),
    await under.passes(null, place),
    await under.passes(null, place),
  ], [true, false, false]);
  strictEqual(under.store.asked.takes, 9);
});

Deno.test("a rate to which something was given back is asked about at once", async () => {
  for (const state of ["well", "synchronous"] as const) {
    await using under = open(state);
    const rate = requests("a", 1);
    ok(await under.passes("h", rate));
    strictEqual(await under.passes(null, rate), false);
    ok(under.limiter.refusal(rate));
    under.limiter.settle("h", [{ cell: rate.cell, used: 0 }], []);
    await until("it is settled", () => under.left(rate) === 1);
    under.clock.advance(1);
    strictEqual(under.limiter.refusal(rate), undefined);
    strictEqual(await under.passes(null, rate), true);
  }
});

Deno.test("the refusal of a rate is told without taking or asking, and only where `take` would not ask", async () => {
  await using under = open("synchronous");
  const { limiter, store } = under;
  const rate = requests("a", 1);
  strictEqual(limiter.refusal(rate), undefined);
  strictEqual(await passesOf(2, limiter, rate), 1);
  deepStrictEqual(limiter.refusal(rate), {
    allowed: false,
    remaining: 0,
    retryAfterMs: 3_600_000,
    resetAfterMs: 3_600_000,
  });
  strictEqual(limiter.refusal(requests("b", 1)), undefined);
  strictEqual(store.asked.takes, 2);
  under.clock.advance(1000);
  strictEqual(limiter.refusal(rate), undefined);
});

Deno.test("a rate to which a failed take is given back is asked about at once", async () => {
  await using under = open("deaf");
  const rate = requests("a", 1, { whenStoreFails: "closed" });
  await rejects(under.passes("h", rate), unavailable);
  under.store.state = "well";
  strictEqual(await under.passes(null, rate), false);
  await until("it is given back", () => under.left(rate) === 1);
  under.clock.advance(1);
  strictEqual(await under.passes(null, rate), true);
});

Deno.test("a refusal that was asked for before something was given back is not remembered", async () => {
  await using under = open();
  const rate = requests("a", 1);
  ok(await under.passes("h", rate));
  const answer = Promise.withResolvers<void>();
  under.store.takeAnswer = answer.promise;
  const asked = under.limiter.take(null, [rate]);
  under.limiter.settle("h", [{ cell: rate.cell, used: 0 }], []);
  await until("it is settled", () => under.left(rate) === 1);
  answer.resolve();
  strictEqual(isAllowed(await asked), false);
  under.clock.advance(1);
  strictEqual(await under.passes(null, rate), true);
});

Deno.test("a rate that was refused within a millisecond is not refused a part of one too long", async () => {
  await using under = open();
  const rate: GuardedCell = {
    ...requests("a", 1),
    cell: { kind: "rate", key: "a", quota: 1, windowMs: 400, amount: 1 },
  };
  under.clock.advance(0.75);
  strictEqual(await passesOf(2, under.limiter, rate), 1);
  under.clock.advance(399.5);
  strictEqual(await under.passes(null, rate), true);
});

Deno.test("with a memory of refusals every request is decided as the bare store decides it", async () => {
  const step = fc.record({
    waitMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 12_000 }).map((quarters) => quarters / 4)),
    state: fc.constantFrom<StoreState>("well", "synchronous"),
    amount: fc.integer({ min: 0, max: 6 }),
    key: fc.constantFrom("a", "b"),
    quota: fc.constantFrom(3, 5, 5, 5),
    both: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 60 }),
      fc.constantFrom(700, 5000, 60_000),
      async (steps, windowMs) => {
        await using under = open();
        const bare = openMemoryLimitStore(under.clock);
        for (const { waitMs, state, amount, key, quota, both } of steps) {
          under.store.state = state;
          under.clock.advance(waitMs);
          const cells = (both ? ["a", "b"] : [key]).map((key): GuardedCell => ({
            cell: { kind: "rate", key, quota, windowMs, amount },
            whenStoreFails: "closed",
            fixed: true,
          }));
          const alone = await bare.take(null, cells.map(({ cell }) => cell));
          strictEqual(isAllowed(await under.limiter.take(null, cells)), isAllowed(alone));
        }
        await bare.close();
      },
    ),
    { numRuns: 150 },
  );
});

Deno.test("closing tries once more to settle what waits, then closes both stores", async () => {
  await using under = open("down");
  const { limiter, store } = under;
  limiter.settle("h", [], [{ book: "usage", key: "a", amount: 1, keptMs: 3_600_000 }]);
  await until("it was tried", () => store.asked.settlements === 1);
  store.state = "well";
  limiter.settle("h2", [], [{ book: "usage", key: "a", amount: 1, keptMs: 3_600_000 }]);
  await limiter.close(20_000);
  deepStrictEqual([...await under.shared.sums("usage")], [["a", 2]]);
  strictEqual(store.isClosed, true);
  deepStrictEqual(await under.events(), []);
});

Deno.test("closing waits for settlements that are under way, for the first time and again", async () => {
  for (const first of ["well", "down"] as const) {
    await using under = open(first);
    const { limiter, store } = under;
    const arrival = Promise.withResolvers<void>();
    if (first === "well") store.arrival = arrival.promise;
    limiter.settle("h", [], [{ book: "usage", key: "a", amount: 1, keptMs: 3_600_000 }]);
    if (first === "down") {
      await until("it was tried", () => store.asked.settlements === 1);
      store.state = "well";
      store.refusesToSettle = () => {
        store.arrival = arrival.promise;
        return false;
      };
      await until("it is tried again", () => store.asked.settlements === 2);
    }
    const closed = limiter.close(20_000);
    await new Promise((resolve) => setTimeout(resolve, 0));
    arrival.resolve();
    await closed;
    deepStrictEqual([...await under.shared.sums("usage")], [["a", 1]], first);
  }
});

Deno.test("closing over a store that stays down ends, and the log counts what is lost", async () => {
  await using under = open("down");
  const { limiter, store } = under;
  for (const hold of ["h1", "h2"]) await rejects(under.passes(hold, budget("a", 10, 1)), unavailable);
  await limiter.close(50);
  strictEqual(store.isClosed, true);
  const dropped = async () =>
    (await under.lines("limits.settlements_dropped")).map(({ settlements, takes }) => [settlements, takes]);
  deepStrictEqual(await dropped(), [[0, 2]]);
  store.state = "synchronous_down";
  limiter.settle("h3", [], []);
  deepStrictEqual(await dropped(), [[0, 2], [1, 0]]);
});
