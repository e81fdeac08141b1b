// Tests of payload keys: one a subject, on record before it is made, gone for good when it is destroyed, for every instance.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { openPayloadKeys } from "../../src/audit/payload_keys.ts";
import { openPayload, sealPayload } from "../../src/audit/payload_seal.ts";
import { Fault } from "../../src/faults/fault.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { openSqliteRecordStore } from "../../src/store/sqlite_record_store.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { localMasterKey } from "../../src/vault/master_key.ts";
import { manualClock } from "../support/manual_clock.ts";
import { ManualFeed } from "../support/manual_feed.ts";

const ISSUER = "https://ai.example.com";
const MASTER = new Uint8Array(32).fill(9);
const unavailable = (thrown: unknown) => thrown instanceof Fault && thrown.kind === "unavailable";

/** Keys over a store, which counts how often it is read. */
async function open(store: RecordStore = openMemoryRecordStore(manualClock())) {
  const clock = manualClock();
  const keyRing = await openKeyRing(store, localMasterKey(MASTER), clock);
  const [feed, trail] = [new ManualFeed(), memoryAuditTrail()];
  let reads = 0;
  const counted: RecordStore = {
    ...store,
    get: (table, key) => {
      reads++;
      return store.get(table, key);
    },
  };
  const keys = openPayloadKeys({ store: counted, keyRing, feed, trail, clock });
  return { store, feed, trail, keys, reads: () => reads };
}

Deno.test("a subject's key is made at its first use, with the record of it before, and is the same from then on", async () => {
  const { keys, trail, reads } = await open();
  const key = await keys.keyOf(ISSUER, "usr_1");
  deepStrictEqual(trail.events, [{ type: "key.changed", kind: "payload", key: key.id, change: "made" }]);
  match(key.id, /^[A-Za-z0-9_-]{22}\.pay_[0-9a-hjkmnp-tv-z]{26}$/);
  strictEqual(key.raw.length, 32);
  ok(!key.id.includes("usr_1") && !JSON.stringify(trail.events).includes(String(key.raw)));
  const before = reads();
  deepStrictEqual((await keys.keyOf(ISSUER, "usr_1")).raw, key.raw);
  strictEqual(reads(), before, "it is kept at hand");
  deepStrictEqual((await keys.read(key.id))?.raw, key.raw);
  deepStrictEqual((await keys.find(ISSUER, "usr_1"))?.id, key.id);
});

Deno.test("issuer and subject together are the identity: no two have one key", async () => {
  const { keys } = await open();
  const pairs = [[ISSUER, "a"], [ISSUER, "b"], ["https://other.example", "a"], [`${ISSUER}a`, ""]] as const;
  const raws = await Promise.all(
    pairs.map(async ([issuer, subject]) => String((await keys.keyOf(issuer, subject)).raw)),
  );
  strictEqual(new Set(raws).size, pairs.length);
});

Deno.test("without a record no key is made", async () => {
  const { keys, trail, store } = await open();
  trail.setFailing(true);
  await rejects(keys.keyOf(ISSUER, "usr_1"), unavailable);
  deepStrictEqual(await store.list("payload_keys", { limit: 10 }), []);
});

Deno.test("of instances that make a subject's first key at the same moment, all have the one that stands", async () => {
  const store = openMemoryRecordStore(manualClock());
  const instances = [await open(store), await open(store), await open(store)];
  const made = await Promise.all(instances.map(({ keys }) => keys.keyOf(ISSUER, "usr_1")));
  deepStrictEqual(new Set(made.map(({ id }) => id)).size, 1);
  strictEqual((await store.list("payload_keys", { limit: 10 })).length, 1);
});

Deno.test("a destroyed key opens nothing any more; the subject's next one is another", async () => {
  const { keys } = await open();
  const key = await keys.keyOf(ISSUER, "usr_1");
  const place = { request: "req_1", part: "input", model: "m" } as const;
  const sealed = sealPayload(key, place, "a secret");
  const stored = await keys.find(ISSUER, "usr_1");
  ok(stored);
  strictEqual(await keys.destroy(stored), true);
  deepStrictEqual([await keys.read(key.id), await keys.find(ISSUER, "usr_1")], [undefined, undefined]);
  strictEqual(await keys.destroy(stored), false, "twice");
  const next = await keys.keyOf(ISSUER, "usr_1");
  notStrictEqual(next.id, key.id);
  await rejects(async () => await openPayload({ ...next, id: key.id }, place, sealed), unavailable);
  strictEqual(await keys.read(key.id), undefined, "not the next one's");
  strictEqual(await keys.destroy(stored), false, "the next one is not destroyed in its place");
});

Deno.test("a key that another instance destroyed is forgotten when the feed tells, and not believed while the feed is stale", async () => {
  const store = openMemoryRecordStore(manualClock());
  const [one, other] = [await open(store), await open(store)];
  const key = await one.keys.keyOf(ISSUER, "usr_1");
  strictEqual((await other.keys.keyOf(ISSUER, "usr_1")).id, key.id);
  const stored = await one.keys.find(ISSUER, "usr_1");
  ok(stored);
  await one.keys.destroy(stored);
  strictEqual((await other.keys.keyOf(ISSUER, "usr_1")).id, key.id, "nobody told it yet");
  other.feed.current = false;
  const next = await other.keys.keyOf(ISSUER, "usr_1");
  notStrictEqual(next.id, key.id);

  const again = await one.keys.find(ISSUER, "usr_1");
  ok(again);
  other.feed.current = true;
  await one.keys.destroy(again);
  await other.feed.tell("payload_keys", next.id.split(".")[0]);
  notStrictEqual((await other.keys.keyOf(ISSUER, "usr_1")).id, next.id);
  deepStrictEqual(other.feed.tables(), ["payload_keys"]);
});

Deno.test("a key that was destroyed while it was read is not kept at hand", async () => {
  const store = openMemoryRecordStore(manualClock());
  const { promise: held, resolve: release } = Promise.withResolvers<void>();
  let holds = false;
  const slow: RecordStore = {
    ...store,
    async get(table, key) {
      const value = await store.get(table, key);
      if (holds && table === "payload_keys") await held;
      return value;
    },
  };
  const [one, other] = [await open(store), await open(slow)];
  const key = await one.keys.keyOf(ISSUER, "usr_1");
  holds = true;
  const reading = other.keys.keyOf(ISSUER, "usr_1");
  const stored = await one.keys.find(ISSUER, "usr_1");
  ok(stored);
  await one.keys.destroy(stored);
  await other.feed.tell("payload_keys", undefined);
  release();
  strictEqual((await reading).id, key.id);
  holds = false;
  notStrictEqual((await other.keys.keyOf(ISSUER, "usr_1")).id, key.id);
});

Deno.test("a destroyed key is gone from SQLite's files, as it was sealed there", async () => {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-payload-keys-" });
  const store = openSqliteRecordStore(`${folder}/store.db`, manualClock());
  try {
    const { keys } = await open(store);
    await keys.keyOf(ISSUER, "usr_1");
    const stored = await keys.find(ISSUER, "usr_1");
    ok(stored);
    const inFiles = () =>
      [...Deno.readDirSync(folder)].some(({ name }) =>
        Deno.readFileSync(`${folder}/${name}`).toHex().includes(stored.version.subarray(20).toHex())
      );
    ok(inFiles());
    await keys.destroy(stored);
    ok(!inFiles());
  } finally {
    await store.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a record that was altered is no key", async () => {
  const { keys, store } = await open();
  const key = await keys.keyOf(ISSUER, "usr_1");
  const [pseudonym = ""] = key.id.split(".");
  const bytes = await store.get("payload_keys", pseudonym);
  ok(bytes);
  await store.put("payload_keys", pseudonym, bytes.with(-1, (bytes.at(-1) ?? 0) ^ 1));
  await rejects(keys.find(ISSUER, "usr_1"), unavailable);
});
