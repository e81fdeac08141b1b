// Tests of the replay store in memory: once is once, until it ends; it is bounded, and closed when full.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../src/faults/fault.ts";
import { openMemoryReplayStore } from "../../src/identity/memory_replay_store.ts";
import { manualClock } from "../support/manual_clock.ts";

const START_MS = 1_750_000_000_000;

Deno.test("the first use of an id is the first, every further one is not, until it ends", () => {
  const clock = manualClock(START_MS);
  const store = openMemoryReplayStore(clock);
  strictEqual(store.firstUse("a", START_MS + 60_000), true);
  strictEqual(store.firstUse("b", START_MS + 60_000), true);
  for (const advanceMs of [0, 1, 30_000, 29_998]) {
    clock.advance(advanceMs);
    strictEqual(store.firstUse("a", clock.now() + 60_000), false);
  }
  clock.advance(20_000);
  strictEqual(store.firstUse("a", clock.now() + 60_000), true);
  strictEqual(store.firstUse("a", clock.now() + 60_000), false);
});

Deno.test("an id is the same whatever end is said at its second use", () => {
  const clock = manualClock(START_MS);
  const store = openMemoryReplayStore(clock);
  strictEqual(store.firstUse("a", START_MS + 300_000), true);
  for (const endsIn of [0, 1, 65_000, 299_999, 300_001]) {
    strictEqual(store.firstUse("a", START_MS + endsIn), false);
  }
});

Deno.test("a full store throws Fault overloaded for a new id, still knows the old ones, and opens when they have ended", () => {
  const clock = manualClock(START_MS);
  const store = openMemoryReplayStore(clock, 3);
  for (const id of ["a", "b", "c"]) strictEqual(store.firstUse(id, START_MS + 60_000), true);
  for (let again = 0; again < 3; again++) {
    throws(
      () => store.firstUse("d", START_MS + 60_000),
      (thrown) => thrown instanceof Fault && thrown.kind === "overloaded" && !thrown.message.includes("d,"),
    );
    strictEqual(store.firstUse("b", START_MS + 60_000), false);
  }
  clock.advance(70_000);
  for (const id of ["d", "e", "f"]) strictEqual(store.firstUse(id, clock.now() + 60_000), true);
  throws(() => store.firstUse("a", clock.now() + 60_000), Fault);
});

Deno.test("an id that ends late does not keep those in mind that ended before", () => {
  const clock = manualClock(START_MS);
  const store = openMemoryReplayStore(clock, 3);
  store.firstUse("late", START_MS + 300_000);
  store.firstUse("a", START_MS + 10_000);
  store.firstUse("b", START_MS + 10_000);
  clock.advance(20_000);
  strictEqual(store.firstUse("c", clock.now() + 60_000), true);
  strictEqual(store.firstUse("d", clock.now() + 60_000), true);
  strictEqual(store.firstUse("late", clock.now() + 60_000), false);
});

Deno.test("a wall clock that jumps back makes nothing new", () => {
  const clock = manualClock(START_MS);
  const store = openMemoryReplayStore(clock);
  strictEqual(store.firstUse("a", START_MS + 60_000), true);
  clock.jumpWall(-3_600_000);
  strictEqual(store.firstUse("a", START_MS + 60_000), false);
});

Deno.test("property: it answers as a list that forgets nothing would, for ids that have not ended", () => {
  const use = fc.record({
    id: fc.constantFrom("a", "b", "c", "d"),
    endsInMs: fc.integer({ min: 1, max: 300_000 }),
    advanceMs: fc.integer({ min: 0, max: 50_000 }),
  });
  fc.assert(
    fc.property(fc.array(use, { maxLength: 60 }), (uses) => {
      const clock = manualClock(START_MS);
      const store = openMemoryReplayStore(clock);
      const ends = new Map<string, number>();
      for (const { id, endsInMs, advanceMs } of uses) {
        clock.advance(advanceMs);
        const end = ends.get(id) ?? 0;
        const first = store.firstUse(id, clock.now() + endsInMs);
        if (end > clock.now()) strictEqual(first, false);
        // Ids are forgotten by spans of ten seconds.
        if (end + 10_000 <= clock.now()) strictEqual(first, true);
        if (first) ends.set(id, clock.now() + endsInMs);
      }
    }),
  );
});

Deno.test("a hundred thousand ids are each the first once", () => {
  const clock = manualClock(START_MS);
  const store = openMemoryReplayStore(clock, 100_000);
  const firsts = { fresh: 0, again: 0 };
  for (let index = 0; index < 100_000; index++) {
    if (store.firstUse(`id ${index}`, START_MS + 1 + (index % 65) * 1000)) firsts.fresh++;
  }
  for (let index = 0; index < 100_000; index += 10) {
    if (store.firstUse(`id ${index}`, START_MS + 60_000)) firsts.again++;
  }
  deepStrictEqual(firsts, { fresh: 100_000, again: 0 });
  ok(throwsOverloaded(() => store.firstUse("one more", START_MS + 60_000)));
});

function throwsOverloaded(act: () => unknown): boolean {
  try {
    act();
    return false;
  } catch (thrown) {
    return thrown instanceof Fault && thrown.kind === "overloaded";
  }
}
