// Tests of the embedded limit store: the contract, and that two stores decide as one.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { openEmbeddedLimitStore } from "../../src/limits/embedded_limit_store.ts";
import type { LimitDecision, LimitStore } from "../../src/limits/limit_store.ts";
import type { LocalLimitStore } from "../../src/limits/local_limit_store.ts";
import { openMemoryLimitStore } from "../../src/limits/memory_limit_store.ts";
import { openSqliteLimitStore } from "../../src/limits/sqlite_limit_store.ts";
import { isFault } from "../identity/is_fault.ts";
import { manualClock } from "../support/manual_clock.ts";
import { count, place, rate, tally, testLimitStoreContract } from "./limit_store_contract.ts";

testLimitStoreContract("embedded limit store", () => {
  const folder = Deno.makeTempDirSync({ prefix: "limits-" });
  const clock = manualClock();
  const store = openEmbeddedLimitStore(
    openMemoryLimitStore(clock),
    openSqliteLimitStore(`${folder}/limits.db`, clock),
  );
  return {
    store,
    async advance(ms) {
      // What is gathered is written within a moment; the clock of a test stands still until then.
      await store.sums("any");
      clock.advance(ms);
    },
    dispose: () => Deno.removeSync(folder, { recursive: true }),
  };
}, { looksAtSumsLast: true, propertyRuns: 60 });

/** An embedded store over a SQLite that fails when a test says so, and that counts what it is asked. */
async function withStore(
  run: (
    store: LimitStore,
    sqlite: {
      isDown: boolean;
      readonly asked: { takes: number; settlements: number };
      readonly inner: LocalLimitStore;
      /** What happens behind each take, before it is answered. */
      afterTake: () => void;
    },
  ) => Promise<void> | void,
): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "limits-" });
  const clock = manualClock();
  const inner = openSqliteLimitStore(`${folder}/limits.db`, clock);
  const state = { isDown: false, asked: { takes: 0, settlements: 0 }, inner, afterTake: () => {} };
  const passing = () => {
    if (state.isDown) throw new Fault("unavailable", "Cannot write: the disk is full", { notSent: true });
  };
  const store = openEmbeddedLimitStore(openMemoryLimitStore(clock), {
    ...inner,
    take(...words) {
      state.asked.takes++;
      passing();
      const decisions = inner.take(...words);
      state.afterTake();
      return decisions;
    },
    settle(hold, used, tallies) {
      state.asked.settlements++;
      passing();
      inner.settle(hold, used, tallies);
    },
  });
  try {
    await run(store, state);
    state.isDown = false;
    await store.close();
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const moment = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

Deno.test("embedded limit store: SQLite is not asked where no sum is limited, nor where memory refuses", async () => {
  await withStore(async (store, sqlite) => {
    store.take("hold", [rate("a", 1), place("a", 1)]);
    store.settle("hold", [{ cell: place("a", 1), used: 0 }], []);
    strictEqual((await store.take(null, [rate("a", 1), count("a", 5)]))[0]?.allowed, false);
    deepStrictEqual(sqlite.asked, { takes: 0, settlements: 0 });
  });
});

Deno.test("embedded limit store: what memory gave is given back where SQLite refuses or fails, with and without a hold", async () => {
  await withStore(async (store, sqlite) => {
    const cells = [rate("a", 10, 3), count("a", 1), place("a", 2)];
    await store.take("first", cells);
    for (const hold of ["refused", null]) {
      deepStrictEqual((await store.take(hold, cells)).map(({ allowed, remaining }) => [allowed, remaining]), [
        [true, 7],
        [false, 0],
        [true, 1],
      ]);
    }
    sqlite.isDown = true;
    for (const hold of ["failed", null]) {
      await rejects(async () => await store.take(hold, cells), isFault("unavailable"));
    }
    deepStrictEqual(
      (await store.take(null, [rate("a", 10, 7), place("a", 2)])).map(({ remaining }) => remaining),
      [
        0,
        0,
      ],
    );
  });
});

const allowed = (decisions: readonly LimitDecision[]) => decisions.map((decision) => decision.allowed);

Deno.test("embedded limit store: whom a sum refuses takes nothing of memory, not even for a moment", async () => {
  await withStore(async (store, sqlite) => {
    sqlite.afterTake = () =>
      strictEqual(openRates.take(null, [rate("a", 1, 0)])[0]?.remaining, 1, "nothing is taken yet");
    const openRates = store as LocalLimitStore;
    const [dear, cheap] = await Promise.all([
      store.take("dear", [rate("a", 1), count("a", 10, 100)]),
      store.take("cheap", [rate("a", 1), count("a", 10, 1)]),
    ]);
    deepStrictEqual([dear[1]?.allowed, allowed(cheap)], [false, [true, true]]);
    deepStrictEqual([...await store.sums("day")], [["a", 1]]);
  });
});

Deno.test("embedded limit store: of those who ask at once for the last place the others pay nothing, with and without a hold", async () => {
  await withStore(async (store) => {
    const cells = [count("a", 100, 5), place("a", 1)];
    const decisions = await Promise.all(["one", "two", null].map((hold) => store.take(hold, cells)));
    deepStrictEqual(decisions.map(allowed), [[true, true], [true, false], [true, false]]);
    deepStrictEqual([...await store.sums("day")], [["a", 5]]);
    // Who took nothing corrects nothing; its tallies count.
    await store.settle("two", cells.map((cell) => ({ cell, used: 3 })), [tally("t", 1)]);
    await store.settle("two", cells.map((cell) => ({ cell, used: 3 })), [tally("t", 1)]);
    deepStrictEqual([[...await store.sums("day")], [...await store.sums("used")]], [[["a", 5]], [["t", 1]]]);
    await store.settle("one", cells.map((cell) => ({ cell, used: 0 })), []);
    strictEqual((await store.take(null, [place("a", 1)]))[0]?.allowed, true);
  });
});

Deno.test("embedded limit store: nobody is refused for what another had of a sum for a moment only", async () => {
  await withStore(async (store) => {
    const contended = [count("a", 10, 5), place("a", 1)];
    const decisions = await Promise.all([
      store.take("one", contended),
      store.take("two", contended),
      store.take("three", [count("a", 10, 5)]),
      store.take("four", [count("a", 10, 5), rate("b", 1)]),
    ]);
    deepStrictEqual(decisions.map(allowed), [[true, true], [true, false], [true], [false, true]]);
    deepStrictEqual([...await store.sums("day")], [["a", 10]]);
    strictEqual((await store.take(null, [rate("b", 1)]))[0]?.allowed, true);
  });
});

Deno.test("embedded limit store: where a sum cannot be given back at once, it is when the hold is settled", async () => {
  await withStore(async (store, sqlite) => {
    const cells = [count("a", 100, 5), place("a", 1)];
    sqlite.afterTake = () => sqlite.isDown = sqlite.asked.takes === 2;
    const [, refused] = await Promise.allSettled([store.take("one", cells), store.take("two", cells)]);
    // Something was taken: who is told otherwise does not settle.
    ok(refused.status === "rejected" && refused.reason instanceof Fault);
    deepStrictEqual([refused.reason.kind, refused.reason.details.notSent], ["unavailable", undefined]);
    deepStrictEqual([...await sqlite.inner.sums("day")], [["a", 10]]);
    sqlite.isDown = false;
    await store.settle("two", cells.map((cell) => ({ cell, used: 0 })), []);
    deepStrictEqual([...await store.sums("day")], [["a", 5]]);
  });
});

Deno.test("embedded limit store: requests without a hold leave nothing open in memory", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "limits-" });
  try {
    const clock = manualClock();
    const store = openEmbeddedLimitStore(
      openMemoryLimitStore(clock, 4),
      openSqliteLimitStore(`${folder}/limits.db`, clock),
    );
    store.take("open", [rate("a", 10, 10)]);
    for (let each = 0; each < 20; each++) {
      await store.take(null, [rate("b", 100), count("b", 100)]);
    }
    store.settle("open", [{ cell: rate("a", 10, 10), used: 0 }], []);
    strictEqual((await store.take(null, [rate("a", 10, 10)]))[0]?.allowed, true);
    await store.close();
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("embedded limit store: a place is given back at once where SQLite fails, and the sum when it is settled again", async () => {
  await withStore(async (store, sqlite) => {
    const cells = [count("a", 10, 5), place("a", 1)];
    await store.take("hold", cells);
    sqlite.isDown = true;
    const settle = async () =>
      await store.settle("hold", cells.map((cell) => ({ cell, used: 2 })), [tally("t", 1)]);
    await rejects(settle, isFault("unavailable"));
    strictEqual((await store.take("next", [place("a", 1)]))[0]?.allowed, true);
    sqlite.isDown = false;
    await Promise.all([settle(), settle()]);
    await settle();
    strictEqual((await store.take(null, [place("a", 1)]))[0]?.allowed, false);
    deepStrictEqual([[...await store.sums("day")], [...await store.sums("used")]], [[["a", 2]], [["t", 1]]]);
  });
});

Deno.test("embedded limit store: tallies of many requests are written together, a moment later", async () => {
  await withStore(async (store, sqlite) => {
    for (let each = 0; each < 100; each++) store.settle(`hold${each}`, [], [tally("a", 1), tally("b", 2)]);
    strictEqual(sqlite.asked.settlements, 0);
    while (sqlite.asked.settlements === 0) await moment(10);
    deepStrictEqual([...await sqlite.inner.sums("used")], [["a", 100], ["b", 200]]);
    strictEqual(sqlite.asked.settlements, 1);
  });
});

Deno.test("embedded limit store: with a budget tallies are written at once", async () => {
  await withStore(async (store, sqlite) => {
    await store.take("hold", [count("a", 10, 5)]);
    await store.settle("hold", [{ cell: count("a", 10, 5), used: 2 }], [tally("t", 1)]);
    deepStrictEqual([[...await sqlite.inner.sums("day")], [...await sqlite.inner.sums("used")]], [
      [["a", 2]],
      [["t", 1]],
    ]);
  });
});

Deno.test("embedded limit store: tallies that SQLite does not take wait and are added once; who asks for sums hears of it", async () => {
  await withStore(async (store, sqlite) => {
    sqlite.isDown = true;
    store.settle("one", [], [tally("a", 1)]);
    await rejects(store.sums("used"), isFault("unavailable"));
    while (sqlite.asked.settlements < 3) await moment(10);
    store.settle("two", [], [tally("a", 2)]);
    store.settle("two", [], [tally("a", 2)]);
    sqlite.isDown = false;
    deepStrictEqual([...await store.sums("used")], [["a", 3]]);
    await moment(120);
    deepStrictEqual([...await sqlite.inner.sums("used")], [["a", 3]]);
  });
});

Deno.test("embedded limit store: of tallies that wait for a failing SQLite memory is bounded", async () => {
  await withStore(async (store, sqlite) => {
    sqlite.isDown = true;
    const settleAll = async () => {
      for (let each = 0; each < 10_001; each++) {
        const settled = () => store.settle(`hold${each}`, [], [tally(`k${each}`, 1)]);
        // Told twice at once, as by one who has heard no answer.
        await Promise.all([settled(), settled()]);
      }
    };
    await rejects(settleAll, isFault("unavailable"));
    sqlite.isDown = false;
    await settleAll();
    deepStrictEqual(new Set((await store.sums("used")).values()), new Set([1]));
    strictEqual((await store.sums("used")).size, 10_001);
  });
});

Deno.test("embedded limit store: closing writes what waits", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "limits-" });
  try {
    const clock = manualClock();
    const open = () => openSqliteLimitStore(`${folder}/limits.db`, clock);
    const store = openEmbeddedLimitStore(openMemoryLimitStore(clock), open());
    store.settle("hold", [], [tally("a", 1)]);
    await store.close();
    const later = open();
    deepStrictEqual([...await later.sums("used")], [["a", 1]]);
    await later.close();
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
