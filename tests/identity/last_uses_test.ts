// Tests of last uses: noted at once, written seldom and in the background, and kept when the store fails.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import type { RecordStore } from "../../src/store/record_store.ts";
import { Fault } from "../../src/faults/fault.ts";
import { NEVER_USED, openLastUses } from "../../src/identity/last_uses.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { manualClock } from "../support/manual_clock.ts";

const FAR_MS = 4_000_000_000_000;

/** A store whose writes are counted, and which fails on demand. */
async function openUses(usesMax = 10) {
  const clock = manualClock();
  const memory = openMemoryRecordStore(clock);
  const state = { failing: false, writes: 0, readMs: 0, reading: 0, mostReading: 0 };
  const store: RecordStore = {
    ...memory,
    async get(table, key) {
      if (state.failing) throw new Fault("unavailable", "the disk is gone");
      state.mostReading = Math.max(state.mostReading, ++state.reading);
      clock.advance(state.readMs);
      const value = await memory.get(table, key);
      state.reading--;
      return value;
    },
    write(changes) {
      state.writes++;
      return memory.write(changes);
    },
  };
  const keyRing = await openKeyRing(memory, localMasterKey(parseMasterKey(generateMasterKey())), clock);
  const table = sealedTable(store, keyRing, "uses");
  for (const key of ["a", "b", "c", "d"]) await table.put(key, NEVER_USED);
  const uses = openLastUses({ store, table, clock, usesMax });
  const written = async (key: string) => {
    const record = await memory.get("uses", key);
    return record && await sealedTable(memory, keyRing, "uses").get(key);
  };
  /** From now on each read takes so long; tells how many there were at the same time. */
  const slowStore = (readMs: number) => {
    state.readMs = readMs;
    state.mostReading = 0;
    return () => state.mostReading;
  };
  return { clock, state, store, table, uses, written, slowStore };
}

/** Lets what runs in the background come to its end. */
async function untilWritten(state: { writes: number }, writes: number): Promise<void> {
  while (state.writes < writes) await new Promise((resolve) => setTimeout(resolve, 1));
  await new Promise((resolve) => setTimeout(resolve, 1));
}

Deno.test("a use is read at once, and written in the background", async () => {
  const { clock, uses, state, written } = await openUses();
  strictEqual(await uses.read("a"), null);
  strictEqual(await uses.read("no record"), null);
  uses.note("a", FAR_MS);
  strictEqual(await uses.read("a"), clock.now());
  await untilWritten(state, 1);
  deepStrictEqual(await written("a"), { lastUsedAtMs: clock.now() });
});

Deno.test("a record is written once a minute at most, and read to the millisecond", async () => {
  const { clock, uses, state, written } = await openUses();
  const startMs = clock.now();
  uses.note("a", FAR_MS);
  await untilWritten(state, 1);
  for (let count = 0; count < 59; count++) {
    clock.advance(1000);
    uses.note("a", FAR_MS);
    strictEqual(await uses.read("a"), clock.now());
  }
  clock.advance(999);
  uses.note("a", FAR_MS);
  await new Promise((resolve) => setTimeout(resolve, 5));
  strictEqual(state.writes, 1);
  deepStrictEqual(await written("a"), { lastUsedAtMs: startMs });
  clock.advance(1);
  uses.note("a", FAR_MS);
  await untilWritten(state, 2);
  deepStrictEqual(await written("a"), { lastUsedAtMs: startMs + 60_000 });
});

Deno.test("a wall clock that jumps neither stops the writing nor hastens it", async () => {
  const { clock, uses, state, written } = await openUses();
  uses.note("a", FAR_MS);
  await untilWritten(state, 1);
  clock.jumpWall(-86_400_000);
  clock.advance(60_000);
  uses.note("a", FAR_MS);
  await untilWritten(state, 2);
  deepStrictEqual(await written("a"), { lastUsedAtMs: clock.now() });
  clock.jumpWall(2 * 86_400_000);
  uses.note("a", FAR_MS);
  await new Promise((resolve) => setTimeout(resolve, 5));
  strictEqual(state.writes, 2);
});

Deno.test("a flush writes what the minute has held back, and no more", async () => {
  const { clock, uses, state, written } = await openUses();
  uses.note("a", FAR_MS);
  uses.note("b", FAR_MS);
  clock.advance(1);
  uses.note("a", FAR_MS);
  await uses.flush();
  strictEqual(state.writes, 3);
  deepStrictEqual(await written("a"), { lastUsedAtMs: clock.now() });
  deepStrictEqual(await written("b"), { lastUsedAtMs: clock.now() - 1 });
  await uses.flush();
  strictEqual(state.writes, 3);
});

Deno.test("what a failing store did not take is kept, said by flush, and written with the next use", async () => {
  const { clock, uses, state, written } = await openUses();
  state.failing = true;
  uses.note("a", FAR_MS);
  uses.note("b", FAR_MS);
  await rejects(uses.flush(), { kind: "unavailable" });
  strictEqual(await uses.read("a"), clock.now());
  state.failing = false;
  clock.advance(1);
  uses.note("c", FAR_MS);
  await untilWritten(state, 3);
  deepStrictEqual(await written("a"), { lastUsedAtMs: clock.now() - 1 });
  deepStrictEqual(await written("b"), { lastUsedAtMs: clock.now() - 1 });
  deepStrictEqual(await written("c"), { lastUsedAtMs: clock.now() });
});

Deno.test("a flush of a slow store ends after a second, says what is left, and the next one writes it", async () => {
  const { clock, uses, state, table, written, slowStore } = await openUses(1000);
  const keys = Array.from({ length: 250 }, (_, index) => `k${index}`);
  for (const key of keys) await table.put(key, NEVER_USED);
  const startMs = clock.now();
  for (const key of keys) uses.note(key, FAR_MS);
  // One at a time each would take 10 ms: 2.5 s. The clock goes on with each look, so a hundred of them are its second.
  const most = slowStore(10);
  await rejects(uses.flush(), { kind: "unavailable", message: /^Cannot write all last uses: \d+ are left/ });
  const isWritten = async () => {
    const values = await Promise.all(keys.map(written));
    return values.filter((value) => JSON.stringify(value) === JSON.stringify({ lastUsedAtMs: startMs }))
      .length;
  };
  const first = await isWritten();
  ok(first > 0 && first < keys.length, String(first));
  ok(most() > 1 && most() <= 100, String(most()));
  slowStore(0);
  await uses.flush();
  strictEqual(await isWritten(), keys.length);
  // What is noted while a flush runs is written, and so is what comes after it.
  const writes = state.writes;
  clock.advance(60_000);
  const flushed = uses.flush();
  uses.note("a", FAR_MS);
  await flushed;
  await untilWritten(state, writes + 1);
  uses.note("b", FAR_MS);
  await untilWritten(state, writes + 2);
});

Deno.test("a use makes no record where there is none: neither of what never was nor of what was deleted meanwhile", async () => {
  const { uses, store, table, written } = await openUses();
  uses.note("never was", FAR_MS);
  uses.note("a", FAR_MS);
  await store.write([await table.changeOf("a", undefined)]);
  uses.note("b", FAR_MS);
  await store.delete("uses", "b");
  await uses.flush();
  for (const key of ["never was", "a", "b"]) {
    strictEqual(await written(key), undefined, key);
    strictEqual(await uses.read(key), null, key);
  }
});

Deno.test("a use that another process wrote meanwhile stands", async () => {
  const { store, table, written } = await openUses();
  let meanwhile = false;
  const racing: RecordStore = {
    ...store,
    async write(changes) {
      if (!meanwhile) await table.put("a", { lastUsedAtMs: 7 });
      meanwhile = true;
      return await store.write(changes);
    },
  };
  const others = openLastUses({ store: racing, table, clock: manualClock(), usesMax: 10 });
  others.note("a", FAR_MS);
  await others.flush();
  deepStrictEqual(await written("a"), { lastUsedAtMs: 7 });
});

Deno.test("a written record keeps the lifetime that is said", async () => {
  const { clock, uses, written } = await openUses();
  uses.note("a", clock.now() + 10);
  await uses.flush();
  clock.advance(9);
  deepStrictEqual(await written("a"), { lastUsedAtMs: clock.now() - 9 });
  clock.advance(1);
  strictEqual(await written("a"), undefined);
});

Deno.test("memory is bounded: the oldest goes once it is written, and one that is not is written first", async () => {
  const { clock, uses, state, written } = await openUses(2);
  uses.note("a", FAR_MS);
  uses.note("b", FAR_MS);
  await uses.flush();
  clock.advance(1);
  uses.note("b", FAR_MS);
  uses.note("c", FAR_MS);
  await uses.flush();
  deepStrictEqual(await written("a"), { lastUsedAtMs: clock.now() - 1 }, "went, and is read from the store");
  deepStrictEqual(await written("b"), { lastUsedAtMs: clock.now() });
  deepStrictEqual(await written("c"), { lastUsedAtMs: clock.now() });
  clock.advance(1);
  uses.note("b", FAR_MS);
  const writes = state.writes;
  uses.note("d", FAR_MS);
  strictEqual(await uses.read("d"), null, "no room yet");
  await untilWritten(state, writes + 1);
  deepStrictEqual(await written("b"), { lastUsedAtMs: clock.now() });
  uses.note("d", FAR_MS);
  strictEqual(await uses.read("d"), clock.now());
  await uses.flush();
  deepStrictEqual(await written("d"), { lastUsedAtMs: clock.now() });
});

Deno.test("a use that another instance noted is read to the minute, and one of this instance to the millisecond", async () => {
  const { clock, uses, state, store, table } = await openUses();
  const elsewhere = openLastUses({ store, table, clock, usesMax: 10 });
  uses.note("a", FAR_MS);
  await untilWritten(state, 1);
  clock.advance(60_000);
  elsewhere.note("a", FAR_MS);
  await untilWritten(state, 2);
  strictEqual(await uses.read("a"), clock.now());
  clock.advance(1);
  uses.note("a", FAR_MS);
  strictEqual(await uses.read("a"), clock.now());
  await uses.flush();
});
