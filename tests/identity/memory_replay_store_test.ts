// Tests of the replay store in memory: the contract; it is bounded, closed when full, and forgets by two clocks.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { openMemoryReplayStore } from "../../src/identity/memory_replay_store.ts";
import { manualClock } from "../support/manual_clock.ts";
import { START_MS, testReplayStoreContract } from "./replay_store_contract.ts";

testReplayStoreContract("replays in memory", (clock) => openMemoryReplayStore(clock));

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

Deno.test("RFC 9449 §11.1: a wall clock that is set on and back again brings nothing back", () => {
  const clock = manualClock(START_MS);
  const store = openMemoryReplayStore(clock);
  strictEqual(store.firstUse("a", START_MS + 60_000), true);
  for (const id of ["b", "c"]) {
    clock.jumpWall(120_000);
    strictEqual(store.firstUse(id, clock.now() + 60_000), true);
    clock.jumpWall(-120_000);
    strictEqual(store.firstUse("a", START_MS + 60_000), false);
    clock.advance(50_000);
  }
});

Deno.test("ids that have ended by both clocks make room, wherever the wall clock was meanwhile", () => {
  const clock = manualClock(START_MS);
  const store = openMemoryReplayStore(clock, 2);
  store.firstUse("a", START_MS + 60_000);
  clock.jumpWall(3_600_000);
  store.firstUse("b", clock.now() + 60_000);
  ok(throwsOverloaded(() => store.firstUse("c", clock.now() + 60_000)), "one clock is not enough");
  clock.advance(70_000);
  for (const id of ["c", "d"]) strictEqual(store.firstUse(id, clock.now() + 60_000), true);
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
