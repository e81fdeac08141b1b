// Tests of the limit store in memory: the contract, and that its memory is bounded without lifting a limit.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { openMemoryLimitStore } from "../../src/limits/memory_limit_store.ts";
import { isFault } from "../identity/is_fault.ts";
import { manualClock } from "../support/manual_clock.ts";
import { count, place, rate, tally, testLimitStoreContract } from "./limit_store_contract.ts";

testLimitStoreContract("memory limit store", () => {
  const clock = manualClock();
  return { store: openMemoryLimitStore(clock), advance: clock.advance, dispose() {} };
}, { propertyRuns: 400 });

function openStore(cellsMax?: number) {
  const clock = manualClock();
  const store = openMemoryLimitStore(clock, cellsMax);
  return {
    clock,
    ...store,
    allows: (...cells: Parameters<typeof store.take>[1]) =>
      store.take(null, cells).every(({ allowed }) => allowed),
  };
}

Deno.test("memory limit store: answers at once", () => {
  const { take, settle } = openStore();
  ok(Array.isArray(take("hold", [rate("a", 1)])));
  strictEqual(settle("hold", [], []), undefined);
});

Deno.test("memory limit store: a rate drains by the monotonic clock, whatever is done to the wall clock", () => {
  const { allows, clock } = openStore();
  strictEqual(allows(rate("a", 1)), true);
  for (const jumpMs of [365 * 86_400_000, -2 * 365 * 86_400_000]) {
    clock.jumpWall(jumpMs);
    strictEqual(allows(rate("a", 1)), false);
  }
  clock.advance(59_999);
  strictEqual(allows(rate("a", 1)), false);
  clock.advance(1);
  strictEqual(allows(rate("a", 1)), true);
});

Deno.test("memory limit store: fractions of milliseconds add up", () => {
  const { allows, clock } = openStore();
  strictEqual(allows(rate("a", 60)), true);
  strictEqual(allows(rate("a", 60, 59)), true);
  for (let step = 0; step < 3000; step++) {
    strictEqual(allows(rate("a", 60)), false);
    clock.advance(1 / 3);
  }
  clock.advance(1);
  strictEqual(allows(rate("a", 60)), true);
});

Deno.test("ASVS V15.2.2: memory limit store: a rate that half the maximum of others came after is forgotten, and none that fewer did", () => {
  const { allows } = openStore(6);
  for (const key of ["a", "b", "c", "d", "e"]) strictEqual(allows(rate(key, 1)), true);
  for (const key of ["d", "e"]) strictEqual(allows(rate(key, 1)), false);
  for (const key of ["f", "g", "h", "i"]) strictEqual(allows(rate(key, 1)), true);
  strictEqual(allows(rate("a", 1)), true);
});

Deno.test("memory limit store: a flood of new clients does not forget the one that is refused all the while", () => {
  const { allows } = openStore(10);
  strictEqual(allows(rate("abuser", 1)), true);
  for (let stranger = 0; stranger < 100; stranger++) {
    strictEqual(allows(rate(`stranger ${stranger}`, 1)), true);
    strictEqual(allows(rate("abuser", 1)), false);
  }
});

Deno.test("memory limit store: no sum is forgotten for others: when it is full, new ones are refused until some end", async () => {
  const { take, settle, sums, clock } = openStore(10);
  for (let key = 0; key < 9; key++) take(null, [count(`k${key}`, 1, 1, "short", 1000)]);
  settle("one", [], [tally("t", 1)]);
  throws(() => take(null, [rate("a", 1), count("k9", 1)]), isFault("unavailable"));
  throws(() => settle("two", [], [tally("u", 1)]), isFault("unavailable"));
  // The refused request took nothing.
  deepStrictEqual(take(null, [rate("a", 1)]).map(({ allowed }) => allowed), [true]);
  strictEqual((await sums("short")).size, 9);
  clock.advance(1000);
  strictEqual(take(null, [count("k9", 1)])[0]?.allowed, true);
  settle("two", [], [tally("u", 1)]);
  deepStrictEqual([...await sums("used")], [["t", 1], ["u", 1]]);
});

Deno.test("memory limit store: no place is forgotten for others: when it is full, new ones are refused until some are free", () => {
  const { take, settle, clock } = openStore(4);
  for (let hold = 0; hold < 4; hold++) take(`hold${hold}`, [place(`k${hold}`, 1, 1000 * (hold + 1))]);
  throws(() => take("fifth", [place("other", 1)]), isFault("unavailable"));
  settle("hold3", [{ cell: place("k3", 1), used: 0 }], []);
  strictEqual(take("fifth", [place("other", 1)])[0]?.allowed, true);
  throws(() => take("sixth", [place("one more", 1)]), isFault("unavailable"));
  clock.advance(1000);
  strictEqual(take("sixth", [place("one more", 1)])[0]?.allowed, true);
});

Deno.test("memory limit store: of too many open holds the oldest is forgotten, and what it took stays taken", async () => {
  const { take, settle, sums } = openStore(4);
  for (let hold = 0; hold < 5; hold++) take(`hold${hold}`, [count("a", 100, 10)]);
  for (let hold = 0; hold < 5; hold++) settle(`hold${hold}`, [{ cell: count("a", 100, 10), used: 0 }], []);
  deepStrictEqual([...await sums("day")], [["a", 10]]);
});

Deno.test("memory limit store: an open hold is not forgotten for others that were settled", async () => {
  const { take, settle, sums } = openStore(4);
  take("open", [count("a", 100, 10)]);
  for (let hold = 0; hold < 20; hold++) {
    take(`hold${hold}`, [count("a", 100, 1)]);
    settle(`hold${hold}`, [], []);
  }
  settle("open", [{ cell: count("a", 100, 10), used: 0 }], []);
  deepStrictEqual([...await sums("day")], [["a", 20]]);
});
