// Tests of payload keys: one a subject, on record before it is made, gone for good when it is destroyed, for every instance.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { memoryAuditTrail } from "../../../src/audit/memory_audit_trail.ts";
import { openPayloadKeys } from "../../../src/audit/payload/payload_keys.ts";
import { openPayload, sealPayload } from "../../../src/audit/payload/payload_seal.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { openMemoryRecordStore } from "../../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../../src/store/record_store.ts";
import { openSqliteRecordStore } from "../../../src/store/sqlite_record_store.ts";
import { openLog } from "../../../src/telemetry/log.ts";
import { openKeyRing } from "../../../src/vault/key_ring.ts";
import { localMasterKey } from "../../../src/vault/master_key.ts";
import { manualClock } from "../../support/manual_clock.ts";
import { ManualFeed } from "../../support/manual_feed.ts";
import { until } from "../trail_folder.ts";

const ISSUER = "https://ai.example.com";
const MASTER = new Uint8Array(32).fill(9);
const unavailable = (thrown: unknown) => thrown instanceof Fault && thrown.kind === "unavailable";
const NEVER_MS = 2 ** 30;

/** Keys over a store, which counts how often it is read. */
async function open(store: RecordStore = openMemoryRecordStore(manualClock()), retryMs = NEVER_MS) {
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
  const lines: string[] = [];
  const sink = (bytes: Uint8Array) => {
    lines.push(JSON.parse(new TextDecoder().decode(bytes)).event);
    return Promise.resolve(bytes.length);
  };
  const log = openLog({ level: "warn", clock, sink });
  const keys = openPayloadKeys({ store: counted, keyRing, feed, trail, clock, log, retryMs });
  return { store, feed, trail, keys, reads: () => reads, lines };
}

/** A store in SQLite's files, with what is in them. */
async function withFiles(
  run: (
    store: RecordStore,
    files: { readonly path: string; hold(bytes: Uint8Array): boolean },
  ) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-payload-keys-" });
  const store = openSqliteRecordStore(`${folder}/store.db`, manualClock());
  try {
    await run(store, {
      path: `${folder}/store.db`,
      hold: (bytes) =>
        [...Deno.readDirSync(folder)].some(({ name }) =>
          Deno.readFileSync(`${folder}/${name}`).toHex().includes(bytes.subarray(20).toHex())
        ),
    });
  } finally {
    await store.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** Somebody who reads the file, such as a backup, until closed. */
function readerOf(path: string): DatabaseSync {
  const reader = new DatabaseSync(path, { readOnly: true });
  reader.exec("BEGIN");
  reader.prepare("SELECT count(*) FROM records").get();
  return reader;
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
  await withFiles(async (store, files) => {
    const { keys } = await open(store);
    await keys.keyOf(ISSUER, "usr_1");
    const stored = await keys.find(ISSUER, "usr_1");
    ok(stored);
    ok(files.hold(stored.version));
    await keys.destroy(stored);
    ok(!files.hold(stored.version));
    strictEqual(await keys.unscrubbed(ISSUER, "usr_1"), undefined);
    deepStrictEqual(await store.list("destroyed_payload_keys", { limit: 10 }), []);
  });
});

Deno.test("while somebody reads SQLite's files, a destroyed key is told to be unscrubbed, and scrubbed when it is asked for again", async () => {
  await withFiles(async (store, files) => {
    const { keys } = await open(store);
    for (const subject of ["usr_1", "usr_2"]) await keys.keyOf(ISSUER, subject);
    const stored = await keys.find(ISSUER, "usr_1");
    ok(stored);
    const reader = readerOf(files.path);
    await rejects(keys.destroy(stored), unavailable);
    strictEqual(await keys.find(ISSUER, "usr_1"), undefined);
    strictEqual(await keys.unscrubbed(ISSUER, "usr_1"), stored.id);
    strictEqual(await keys.unscrubbed(ISSUER, "usr_2"), undefined);
    await rejects(keys.scrub(), unavailable);
    ok(files.hold(stored.version));
    reader.close();
    await keys.scrub();
    ok(!files.hold(stored.version));
    strictEqual(await keys.unscrubbed(ISSUER, "usr_1"), undefined);
    await keys.close();
  });
});

Deno.test("what could not be scrubbed is scrubbed in the background, also by the next server", async () => {
  for (const how of ["the same", "the next"]) {
    await withFiles(async (store, files) => {
      const { keys, lines } = await open(store, how === "the same" ? 20 : NEVER_MS);
      await keys.keyOf(ISSUER, "usr_1");
      const stored = await keys.find(ISSUER, "usr_1");
      ok(stored);
      const reader = readerOf(files.path);
      await rejects(keys.destroy(stored), unavailable);
      await new Promise((resolve) => setTimeout(resolve, 100));
      ok(files.hold(stored.version));
      deepStrictEqual(lines, ["payload.key_not_scrubbed"], "told once, however often it is tried");
      if (how === "the next") await keys.close();
      reader.close();
      const next = how === "the next" ? (await open(store)).keys : keys;
      await until(() => !files.hold(stored.version));
      await next.close();
      strictEqual(await next.unscrubbed(ISSUER, "usr_1"), undefined);
    });
  }
});

Deno.test("a key whose destruction got no answer is not handed out any more, and is scrubbed", async () => {
  const memory = openMemoryRecordStore(manualClock());
  const own = { answers: true, scrubs: 0 };
  const { keys } = await open({
    ...memory,
    async write(changes, standing) {
      const made = await memory.write(changes, standing);
      if (!own.answers) throw new Fault("unavailable", "no answer");
      return made;
    },
    scrub() {
      own.scrubs++;
      return Promise.resolve();
    },
  }, 20);
  const key = await keys.keyOf(ISSUER, "usr_1");
  const stored = await keys.find(ISSUER, "usr_1");
  ok(stored);
  own.answers = false;
  await rejects(keys.destroy(stored), unavailable);
  own.answers = true;
  notStrictEqual((await keys.keyOf(ISSUER, "usr_1")).id, key.id);
  await until(() => own.scrubs > 0);
  await keys.close();
  strictEqual(await keys.unscrubbed(ISSUER, "usr_1"), undefined);
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
