// Tests of the heads of trails that a store keeps.
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { TRAIL_HEADS_TABLE, type TrailHeads, trailHeads } from "../../../src/audit/trail/trail_heads.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { openMemoryRecordStore } from "../../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../../src/store/record_store.ts";
import { openKeyRing } from "../../../src/vault/key_ring.ts";
import { localMasterKey } from "../../../src/vault/master_key.ts";
import { sealedTable } from "../../../src/vault/sealed_store.ts";
import { manualClock } from "../../support/manual_clock.ts";

const HEAD = { origin: "portcullis.0123456789abcdef/1", size: 7, root: "ab".repeat(32) };
const OTHER = { origin: "portcullis.0123456789abcdef/2", size: 1, root: "cd".repeat(32) };
const DAY_MS = 86_400_000;

/** A store, and how its heads are opened. */
async function world(isShared: boolean) {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const keyRing = await openKeyRing(store, localMasterKey(new Uint8Array(32)), clock);
  const faults: unknown[] = [];
  const open = (over: RecordStore = store): TrailHeads =>
    trailHeads({ store: over, keyRing, clock, isShared, onFault: (thrown) => faults.push(thrown) });
  return { clock, store, keyRing, faults, open };
}

async function keep(heads: TrailHeads, ...kept: (typeof HEAD)[]): Promise<void> {
  for (const head of kept) {
    heads.keep(head);
    await heads.close();
  }
}

for (const isShared of [false, true]) {
  Deno.test(`the newest head is known at the next start, and rests sealed, ${isShared ? "shared" : "alone"}`, async () => {
    const { store, open } = await world(isShared);
    strictEqual(await open().of(HEAD.origin), undefined);
    await keep(open(), HEAD, { ...HEAD, size: 9 });
    deepStrictEqual(await open().of(HEAD.origin), { ...HEAD, size: 9 });
    const [record] = await store.list(TRAIL_HEADS_TABLE, { limit: 2 });
    strictEqual(new TextDecoder().decode(record?.value).includes("abab"), false);
  });
}

Deno.test("a store of one server knows one trail, whatever is in its folder, until another one takes its place", async () => {
  const { open } = await world(false);
  await keep(open(), HEAD);
  deepStrictEqual(await open().of(undefined), HEAD);
  deepStrictEqual(await open().of(OTHER.origin), HEAD);
  await keep(open(), OTHER);
  deepStrictEqual(await open().of(HEAD.origin), OTHER);
});

Deno.test("a store that instances share knows the trail of each, for 400 days, and an empty folder is a new instance's", async () => {
  const { clock, open } = await world(true);
  await keep(open(), HEAD, OTHER);
  strictEqual(await open().of(undefined), undefined);
  deepStrictEqual(await open().of(HEAD.origin), HEAD);
  deepStrictEqual(await open().of(OTHER.origin), OTHER);
  clock.advance(399 * DAY_MS);
  await keep(open(), { ...HEAD, size: 8 });
  clock.advance(2 * DAY_MS);
  deepStrictEqual(await open().of(HEAD.origin), { ...HEAD, size: 8 });
  strictEqual(await open().of(OTHER.origin), undefined);
});

Deno.test("heads that come while one is written are kept in one write, and one that fails with the next", async () => {
  const { store, faults, open } = await world(true);
  let writes = 0;
  let fails = true;
  const heads = open({
    ...store,
    put: (...parameters) => {
      writes++;
      if (fails) return Promise.reject(new Fault("unavailable", "Cannot write: the store is away"));
      return store.put(...parameters);
    },
  });
  for (let size = 1; size <= 9; size++) heads.keep({ ...HEAD, size });
  await heads.close();
  strictEqual(writes, 2);
  strictEqual(faults.length, 2);
  fails = false;
  await keep(heads, { ...HEAD, size: 10 });
  deepStrictEqual(await heads.of(HEAD.origin), { ...HEAD, size: 10 });
});

Deno.test("a record of no known form is refused", async () => {
  const { store, keyRing, open } = await world(false);
  for (const value of [null, { size: "7", root: HEAD.root }, { size: 7, root: "ab" }]) {
    await sealedTable(store, keyRing, TRAIL_HEADS_TABLE).put(HEAD.origin, value);
    await rejects(open().of(HEAD.origin), /its record has no known form/);
  }
});
