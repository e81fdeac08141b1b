// The contract of the replay store: what every adapter must do, as tests that each of them runs.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { ReplayStore } from "../../src/identity/replay_store.ts";
import type { Clock } from "../../src/time/clock.ts";
import { type ManualClock, manualClock } from "../support/manual_clock.ts";

export const START_MS = 1_750_000_000_000;
/** So much later than its end an id may be forgotten. */
const LATE_MS = 10_000;

/**
 * Registers the contract's tests.
 *
 * @param open an empty store over the clock
 */
export function testReplayStoreContract(adapter: string, open: (clock: Clock) => ReplayStore): void {
  function contract(criterion: string, run: (store: ReplayStore, clock: ManualClock) => Promise<void>) {
    Deno.test(`${adapter}: ${criterion}`, async () => {
      const clock = manualClock(START_MS);
      await run(open(clock), clock);
    });
  }

  contract(
    "the first use of an id is the first, every further one is not, until it ends",
    async (store, clock) => {
      strictEqual(await store.firstUse("a", START_MS + 60_000), true);
      strictEqual(await store.firstUse("b", START_MS + 60_000), true);
      for (const advanceMs of [0, 1, 30_000, 29_998]) {
        clock.advance(advanceMs);
        strictEqual(await store.firstUse("a", clock.now() + 60_000), false);
      }
      clock.advance(1 + LATE_MS);
      strictEqual(await store.firstUse("a", clock.now() + 60_000), true);
      strictEqual(await store.firstUse("a", clock.now() + 60_000), false);
    },
  );

  contract("of several uses at the same time one is the first", async (store) => {
    const uses = await Promise.all([1, 2, 3].map(() => store.firstUse("a", START_MS + 60_000)));
    deepStrictEqual(uses.sort(), [false, false, true]);
  });

  contract("an id is the same whatever end is said at its second use", async (store) => {
    strictEqual(await store.firstUse("a", START_MS + 300_000), true);
    for (const endsIn of [0, 1, 65_000, 299_999, 300_001]) {
      strictEqual(await store.firstUse("a", START_MS + endsIn), false);
    }
  });

  contract("an end between two milliseconds is remembered until the later one", async (store, clock) => {
    strictEqual(await store.firstUse("a", START_MS + 20_000.5), true);
    clock.advance(20_000);
    strictEqual(await store.firstUse("a", clock.now() + 60_000), false);
  });

  contract("a wall clock that jumps back makes nothing new", async (store, clock) => {
    strictEqual(await store.firstUse("a", START_MS + 60_000), true);
    clock.jumpWall(-3_600_000);
    strictEqual(await store.firstUse("a", START_MS + 60_000), false);
    clock.advance(100_000);
    strictEqual(await store.firstUse("a", START_MS + 60_000), false);
  });

  contract(
    "property: it answers as a list that forgets nothing would, for ids that have not ended",
    async () => {
      const use = fc.record({
        id: fc.constantFrom("a", "b", "c", "d"),
        endsInMs: fc.integer({ min: 1, max: 300_000 }),
        advanceMs: fc.integer({ min: 0, max: 50_000 }),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(use, { maxLength: 60 }), async (uses) => {
          const clock = manualClock(START_MS);
          const store = open(clock);
          const ends = new Map<string, number>();
          for (const { id, endsInMs, advanceMs } of uses) {
            clock.advance(advanceMs);
            const end = ends.get(id) ?? 0;
            const first = await store.firstUse(id, clock.now() + endsInMs);
            if (end > clock.now()) strictEqual(first, false);
            if (end + LATE_MS <= clock.now()) strictEqual(first, true);
            if (first) ends.set(id, clock.now() + endsInMs);
          }
        }),
      );
    },
  );
}
