// Tests of the start lock: one at a time, given back whatever happens, and free again after whoever died with it.
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { withStartLock } from "../../src/store/start_lock.ts";
import { manualClock } from "../support/manual_clock.ts";

const MINUTE_MS = 60_000;

function openMatter() {
  const clock = manualClock();
  return { clock, store: openMemoryRecordStore(clock) };
}

/** Long enough for a lock that is free to be taken. */
async function moment(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 120));
}

Deno.test("of several that start at once one acts at a time, and each of them does", async () => {
  const { clock, store } = openMatter();
  const acts: string[] = [];
  const start = (name: string): Promise<string> =>
    withStartLock(store, clock, async () => {
      acts.push(`${name} begins`);
      await new Promise((resolve) => setTimeout(resolve, 10));
      acts.push(`${name} ends`);
      return name;
    });
  deepStrictEqual(await Promise.all([start("a"), start("b"), start("c")]), ["a", "b", "c"]);
  strictEqual(acts.length, 6);
  for (let at = 0; at < 6; at += 2) strictEqual(acts[at + 1], acts[at]?.replace("begins", "ends"));
  deepStrictEqual(await store.list("start_lock", { limit: 10 }), []);
});

Deno.test("the lock is given back where the act fails, and its failure comes through", async () => {
  const { clock, store } = openMatter();
  await rejects(withStartLock(store, clock, () => Promise.reject(new TypeError("no"))), TypeError);
  strictEqual(await withStartLock(store, clock, () => Promise.resolve(1)), 1);
});

Deno.test("whoever died with the lock holds it for a minute, and then the next one has it", async () => {
  const { clock, store } = openMatter();
  const died = withStartLock(
    { ...store, write: () => Promise.reject(new Fault("unavailable", "gone")) },
    clock,
    () => Promise.resolve("died"),
  );
  strictEqual(await died, "died");
  let hasActed = false;
  const next = withStartLock(store, clock, () => Promise.resolve(hasActed = true));
  await moment();
  clock.advance(MINUTE_MS - 1);
  await moment();
  strictEqual(hasActed, false);
  clock.advance(1);
  strictEqual(await next, true);
});

Deno.test("of several who wait for one that died one has the lock at a time, and who holds it anew has a minute of its own", async () => {
  const { clock, store } = openMatter();
  await store.put("start_lock", "start", Uint8Array.of(1));
  const acts: string[] = [];
  const slow = Promise.withResolvers<void>();
  const start = (name: string): Promise<unknown> =>
    withStartLock(store, clock, () => {
      acts.push(name);
      return slow.promise;
    });
  const starts = [start("a"), start("b")];
  await moment();
  clock.advance(MINUTE_MS);
  await moment();
  strictEqual(acts.length, 1);
  clock.advance(MINUTE_MS - 1);
  await moment();
  strictEqual(acts.length, 1);
  slow.resolve();
  await Promise.all(starts);
  deepStrictEqual(acts.toSorted(), ["a", "b"]);
});

Deno.test("clocks that are hours apart let nobody in beside another", async () => {
  const { clock, store } = openMatter();
  const hoursMs = 8 * 3_600_000;
  const behind = { ...clock, now: () => clock.now() - hoursMs };
  const ahead = { ...clock, now: () => clock.now() + hoursMs };
  let inside = 0;
  let most = 0;
  const act = async (): Promise<void> => {
    most = Math.max(most, ++inside);
    await moment();
    inside--;
  };
  await Promise.all([behind, clock, ahead].map((each) => withStartLock(store, each, act)));
  strictEqual(most, 1);
});

Deno.test("who was so slow that another has the lock by now does not give that one's back", async () => {
  const { clock, store } = openMatter();
  await withStartLock(store, clock, async () => {
    await store.put("start_lock", "start", Uint8Array.of(7));
  });
  deepStrictEqual(await store.get("start_lock", "start"), Uint8Array.of(7));
});

Deno.test("a store that fails lets nobody start", async () => {
  const { clock, store } = openMatter();
  const failing: RecordStore = {
    ...store,
    create: () => Promise.reject(new Fault("unavailable", "gone")),
  };
  let hasActed = false;
  await rejects(withStartLock(failing, clock, () => Promise.resolve(hasActed = true)), {
    kind: "unavailable",
  });
  strictEqual(hasActed, false);
});
