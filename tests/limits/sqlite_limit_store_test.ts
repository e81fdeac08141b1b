// Tests of the limit store in SQLite: the contract, and what only a file can do: be opened again, and by several at once.
import { deepStrictEqual, rejects, strictEqual, throws } from "node:assert/strict";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { openSqliteLimitStore } from "../../src/limits/sqlite_limit_store.ts";
import { systemClock } from "../../src/time/clock.ts";
import { isFault } from "../identity/is_fault.ts";
import { manualClock } from "../support/manual_clock.ts";
import { racedCells, raceForLimit } from "./fixtures/take_many.ts";
import { count, place, rate, tally, testLimitStoreContract } from "./limit_store_contract.ts";

testLimitStoreContract("SQLite limit store", () => {
  const folder = Deno.makeTempDirSync({ prefix: "limits-" });
  const clock = manualClock();
  return {
    store: openSqliteLimitStore(`${folder}/limits.db`, clock),
    advance: clock.advance,
    dispose: () => Deno.removeSync(folder, { recursive: true }),
  };
}, { propertyRuns: 60 });

/** Runs with a file's name in a folder of its own. */
async function withFile(run: (file: string) => Promise<void> | void): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "limits-" });
  try {
    await run(`${folder}/limits.db`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("SQLite limit store: sums, rates, places and what was settled outlive a restart", async () => {
  await withFile(async (file) => {
    const clock = manualClock();
    const cells = [rate("a", 10, 4), count("a", 10, 4), place("a", 2)];
    const first = openSqliteLimitStore(file, clock);
    first.take("open", cells);
    first.take("settled", cells);
    first.settle("settled", cells.map((cell) => ({ cell, used: 1 })), [tally("t", 1)]);
    await first.close();

    const second = openSqliteLimitStore(file, clock);
    second.settle("settled", cells.map((cell) => ({ cell, used: 0 })), [tally("t", 1)]);
    throws(() => second.take("settled", cells), isFault("unavailable"));
    deepStrictEqual([await second.sums("day"), await second.sums("used")], [
      new Map([["a", 5]]),
      new Map([["t", 1]]),
    ]);
    strictEqual(second.take(null, [rate("a", 10, 6)])[0]?.allowed, false);
    second.settle("open", cells.map((cell) => ({ cell, used: 0 })), []);
    deepStrictEqual([...await second.sums("day")], [["a", 1]]);
    deepStrictEqual(second.take(null, cells).map(({ remaining }) => remaining), [5, 5, 1]);
    await second.close();
  });
});

Deno.test("SQLite limit store: what has ended leaves the file, little by little", async () => {
  await withFile(async (file) => {
    const clock = manualClock();
    const store = openSqliteLimitStore(file, clock);
    for (let each = 0; each < 1200; each++) {
      store.take(`hold${each}`, [rate(`k${each}`, 1), count(`k${each}`, 1), place(`k${each}`, 1)]);
    }
    const database = new DatabaseSync(file, { readOnly: true });
    const rows = () =>
      ["rates", "books", "sums", "places", "holds"].map((table) =>
        database.prepare(`SELECT count(*) AS rows FROM ${table}`).get()?.rows
      );
    deepStrictEqual(rows(), [1200, 1, 1200, 1200, 1200]);
    clock.advance(2 * 86_400_000);
    for (let more = 0; more < 5; more++) store.take(null, [rate("other", 10)]);
    deepStrictEqual(rows(), [1, 0, 0, 0, 0]);
    database.close();
    await store.close();
  });
});

Deno.test("SQLite limit store: a clock that was set back drains nothing and fills nothing", async () => {
  await withFile(async (file) => {
    const clock = manualClock();
    const store = openSqliteLimitStore(file, clock);
    store.take(null, [rate("a", 6, 6)]);
    clock.jumpWall(-3_600_000);
    strictEqual(store.take(null, [rate("a", 6)])[0]?.allowed, false);
    store.take("hold", [rate("b", 6, 6)]);
    clock.advance(10_000);
    strictEqual(store.take(null, [rate("b", 6)])[0]?.allowed, true);
    await store.close();
  });
});

Deno.test("SQLite limit store: while a large book is read, others have their turns, and it may be closed", async () => {
  await withFile(async (file) => {
    const store = openSqliteLimitStore(file, manualClock());
    const keys = Array.from({ length: 5000 }, (_, index) => `k${index}`);
    store.settle("hold", [], keys.map((key) => tally(key, 1)));
    for (const asked of [undefined, keys]) {
      let isRead = false;
      const reading = store.sums("used", asked).finally(() => isRead = true);
      for (let turn = 0; turn < 5; turn++) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        strictEqual(isRead, false);
      }
      strictEqual((await reading).size, 5000);
    }
    const reading = store.sums("used");
    await store.close();
    await rejects(reading, isFault("unavailable"));
  });
});

Deno.test("SQLite limit store: a file that cannot be opened, that another holds, or that was closed is unavailable", async () => {
  await withFile(async (file) => {
    throws(() => openSqliteLimitStore(`${file}/none`, systemClock), isFault("unavailable"));
    const store = openSqliteLimitStore(file, systemClock);
    const other = new DatabaseSync(file);
    other.exec("BEGIN IMMEDIATE");
    throws(() => store.take(null, [count("a", 1)]), isFault("unavailable"));
    throws(() => store.settle("hold", [], [tally("a", 1)]), isFault("unavailable"));
    other.exec("COMMIT");
    other.close();
    strictEqual(store.take(null, [count("a", 1)])[0]?.allowed, true);
    store.settle("hold", [], [tally("a", 1)]);
    await store.close();
    throws(() => store.take(null, [count("a", 1)]), isFault("unavailable"));
    await rejects(store.sums("day"), isFault("unavailable"));
    await rejects(store.close(), isFault("unavailable"));
  });
});

Deno.test("SQLite limit store: a file that was opened in vain is closed again", async () => {
  await withFile((file) => {
    const other = new DatabaseSync(file);
    other.exec("PRAGMA journal_mode = WAL; CREATE TABLE other (a); BEGIN IMMEDIATE");
    throws(() => openSqliteLimitStore(file, systemClock), isFault("unavailable"));
    other.exec("COMMIT");
    other.close();
    // Whoever closes it last takes away what lies beside it.
    deepStrictEqual([...Deno.readDirSync(dirname(file))].map(({ name }) => name), ["limits.db"]);
  });
});

Deno.test("SQLite limit store: of 4 processes with 1,000 requests each exactly 500 pass, and refused ones drain nothing", async () => {
  await withFile(async (file) => {
    const store = openSqliteLimitStore(file, systemClock);
    const taken = await raceForLimit(["sqlite", file], "rate", 4, new Array(1000).fill(1));
    deepStrictEqual(taken, { requests: 500, amount: 500 });
    deepStrictEqual([...await store.sums("month")], [["raced", 500]]);
    deepStrictEqual(store.take(null, racedCells("rate", 0)).map(({ remaining }) => remaining), [999_500, 0]);
    await store.close();
  });
});

Deno.test("SQLite limit store: 4 processes use up a budget to the last unit and never go past it", async () => {
  await withFile(async (file) => {
    const store = openSqliteLimitStore(file, systemClock);
    const amounts = Array.from({ length: 1000 }, (_, index) => index % 7 + 1);
    strictEqual((await raceForLimit(["sqlite", file], "count", 4, amounts)).amount, 500);
    deepStrictEqual([...await store.sums("month")], [["raced", 500]]);
    deepStrictEqual(store.take(null, racedCells("count", 0)).map(({ remaining }) => remaining), [0, 999_500]);
    await store.close();
  });
});
