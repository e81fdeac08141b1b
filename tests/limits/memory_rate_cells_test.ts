// Tests of rate cells in memory: several limits are one decision, and memory is bounded.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { openMemoryRateCells } from "../../src/limits/memory_rate_cells.ts";
import type { RateCell } from "../../src/limits/rate_cells.ts";
import { manualClock } from "../support/manual_clock.ts";

const MINUTE_MS = 60_000;
const cell = (key: string, quota: number): RateCell => ({ key, rate: { quota, windowMs: MINUTE_MS } });

function openCells(cellsMax?: number) {
  const clock = manualClock();
  const cells = openMemoryRateCells(clock, cellsMax);
  return {
    clock,
    /** Whether each of the cells allows it. */
    take: async (...asked: readonly RateCell[]) => (await cells.take(asked)).map(({ allowed }) => allowed),
    remaining: async (...asked: readonly RateCell[]) =>
      (await cells.take(asked)).map(({ remaining }) => remaining),
  };
}

Deno.test("ASVS V2.3.2: while the clock stands still a cell allows its quota exactly", async () => {
  const { take } = openCells();
  let allowed = 0;
  for (let request = 0; request < 1000; request++) if ((await take(cell("a", 100)))[0]) allowed++;
  strictEqual(allowed, 100);
});

Deno.test("cells of other keys do not know of each other", async () => {
  const { take } = openCells();
  deepStrictEqual(await take(cell("a", 1)), [true]);
  deepStrictEqual(await take(cell("a", 1)), [false]);
  deepStrictEqual(await take(cell("b", 1)), [true]);
});

Deno.test("a request takes from all of its cells or from none", async () => {
  const { take, remaining } = openCells();
  deepStrictEqual(await take(cell("user", 1)), [true]);
  for (let round = 0; round < 5; round++) {
    deepStrictEqual(await take(cell("address", 3), cell("user", 1)), [true, false]);
    deepStrictEqual(await take(cell("user", 1), cell("address", 3)), [false, true]);
  }
  // The refusals above took nothing from the address.
  deepStrictEqual(await remaining(cell("address", 3)), [2]);
  deepStrictEqual(await remaining(cell("address", 3), cell("other", 9)), [1, 8]);
});

Deno.test("a request without cells is allowed by all of them", async () => {
  deepStrictEqual(await openCells().take(), []);
});

Deno.test("a cell fills up again by the monotonic clock, whatever is done to the wall clock", async () => {
  const { take, clock } = openCells();
  deepStrictEqual(await take(cell("a", 1)), [true]);
  clock.jumpWall(365 * 86_400_000);
  deepStrictEqual(await take(cell("a", 1)), [false]);
  clock.jumpWall(-2 * 365 * 86_400_000);
  clock.advance(MINUTE_MS - 1);
  deepStrictEqual(await take(cell("a", 1)), [false]);
  clock.advance(1);
  deepStrictEqual(await take(cell("a", 1)), [true]);
});

Deno.test("ASVS V15.2.2: a cell that half the maximum of others came after is forgotten, and none that fewer did", async () => {
  const { take } = openCells(6);
  for (const key of ["a", "b", "c"]) deepStrictEqual(await take(cell(key, 1)), [true]);
  for (const key of ["d", "e"]) deepStrictEqual(await take(cell(key, 1)), [true]);
  for (const key of ["d", "e"]) deepStrictEqual(await take(cell(key, 1)), [false]);
  for (const key of ["f", "g", "h", "i"]) deepStrictEqual(await take(cell(key, 1)), [true]);
  deepStrictEqual(await take(cell("a", 1)), [true]);
});

Deno.test("a flood of new clients does not forget the one that is refused all the while", async () => {
  const { take } = openCells(10);
  deepStrictEqual(await take(cell("abuser", 1)), [true]);
  for (let stranger = 0; stranger < 100; stranger++) {
    deepStrictEqual(await take(cell(`stranger ${stranger}`, 1)), [true]);
    deepStrictEqual(await take(cell("abuser", 1)), [false]);
  }
});
