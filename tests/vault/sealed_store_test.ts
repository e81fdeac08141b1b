// Tests of the sealed table: JSON records that rest sealed, each at its own key.
import { deepStrictEqual, notDeepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import { encodeUtf8 } from "../../src/encoding/utf8.ts";
import { Fault } from "../../src/faults/fault.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { type KeyRing, openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { manualClock } from "../support/manual_clock.ts";

async function openVault() {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const keyRing: KeyRing = await openKeyRing(
    store,
    localMasterKey(parseMasterKey(generateMasterKey())),
    clock,
  );
  return { clock, store, keyRing, table: sealedTable(store, keyRing, "users") };
}

const isUnavailable = (thrown: unknown): true => {
  ok(thrown instanceof Fault);
  strictEqual(thrown.kind, "unavailable");
  return true;
};

Deno.test("a sealed table gives back what was put, and undefined for what was not", async () => {
  const { table } = await openVault();
  strictEqual(await table.get("k"), undefined);
  await table.put("k", { name: "ada", roles: ["admin"] });
  deepStrictEqual(await table.get("k"), { name: "ada", roles: ["admin"] });
  await table.put("k", null);
  strictEqual(await table.get("k"), null);
});

Deno.test("a sealed table creates a record once, keeps lifetimes, and knows whether it is empty", async () => {
  const { table, clock, store, keyRing } = await openVault();
  strictEqual(await table.isEmpty(), true);
  strictEqual(await table.create("k", 1, { expiresAtMs: clock.now() + 10 }), true);
  strictEqual(await table.create("k", 2), false);
  strictEqual(await table.get("k"), 1);
  strictEqual(await table.isEmpty(), false);
  strictEqual(await sealedTable(store, keyRing, "other").isEmpty(), true);
  clock.advance(10);
  strictEqual(await table.isEmpty(), true);
  strictEqual(await table.create("k", 2), true);
});

Deno.test("ASVS V11.3.3: a record that was moved to another key or another table does not open", async () => {
  const { table, store, keyRing } = await openVault();
  await table.put("user", { roles: ["user"] });
  await table.put("admin", { roles: ["admin"] });
  const admins = await store.get("users", "admin");
  ok(admins);
  await store.put("users", "user", admins);
  await rejects(table.get("user"), isUnavailable);
  await store.put("others", "admin", admins);
  await rejects(sealedTable(store, keyRing, "others").get("admin"), isUnavailable);
  // The border between table and key counts too.
  await store.put("users/a", "dmin", admins);
  await rejects(sealedTable(store, keyRing, "users/a").get("dmin"), isUnavailable);
  deepStrictEqual(await table.get("admin"), { roles: ["admin"] });
});

Deno.test("a record that was altered, or that holds no strict JSON, is a fault", async () => {
  const { table, store, keyRing } = await openVault();
  await table.put("k", { a: 1 });
  const value = await store.get("users", "k");
  ok(value);
  value[30] = (value[30] ?? 0) ^ 1;
  await store.put("users", "k", value);
  await rejects(table.get("k"), isUnavailable);
  for (const plain of ["", "{", '{"a":1,"a":2}', '{"__proto__":1}']) {
    await store.put("users", "k", await keyRing.seal("users/k", encodeUtf8(plain)));
    await rejects(table.get("k"), isUnavailable);
  }
  await store.put("users", "k", await keyRing.seal("users/k", Uint8Array.of(0xff)));
  await rejects(table.get("k"), isUnavailable);
});

Deno.test("a sealed table reads a record with the bytes at rest as its version, and every write makes another", async () => {
  const { table, store, clock } = await openVault();
  strictEqual(await table.read("k"), undefined);
  await table.put("k", { n: 1 }, { expiresAtMs: clock.now() + 10 });
  const first = await table.read("k");
  deepStrictEqual(first, { key: "k", value: { n: 1 }, version: await store.get("users", "k") });
  await table.put("k", { n: 1 }, { expiresAtMs: clock.now() + 10 });
  const second = await table.read("k");
  deepStrictEqual(second?.value, { n: 1 });
  notDeepStrictEqual(second?.version, first?.version);
  clock.advance(10);
  strictEqual(await table.read("k"), undefined);
});

Deno.test("a sealed table lists its records page by page, opened, each with its version", async () => {
  const { table, store, keyRing, clock } = await openVault();
  deepStrictEqual(await table.list({ limit: 10 }), []);
  for (const key of ["c", "a", "b"]) await table.put(key, { name: key });
  await table.put("gone", 1, { expiresAtMs: clock.now() });
  await sealedTable(store, keyRing, "others").put("aa", 1);
  const records = await table.list({ limit: 10 });
  deepStrictEqual(records.map(({ key, value }) => [key, value]), [
    ["a", { name: "a" }],
    ["b", { name: "b" }],
    ["c", { name: "c" }],
  ]);
  for (const record of records) deepStrictEqual(record, await table.read(record.key));
  deepStrictEqual(await table.list({ limit: 2 }), records.slice(0, 2));
  deepStrictEqual(await table.list({ after: "a", limit: 1 }), records.slice(1, 2));
});

Deno.test("ASVS V11.3.3: a list in which one record was altered or moved is a fault", async () => {
  const { table, store } = await openVault();
  await table.put("a", 1);
  await table.put("b", 2);
  const value = await store.get("users", "a");
  ok(value);
  await store.put("users", "c", value);
  await rejects(table.list({ limit: 10 }), isUnavailable);
  await rejects(table.read("c"), isUnavailable);
  strictEqual((await table.list({ limit: 2 })).length, 2);
});

Deno.test("a change rests sealed at its own key, and says what was asked and no more", async () => {
  const { table, store } = await openVault();
  const version = Uint8Array.of(1);
  const lifetime = { expiresAtMs: 1 };
  deepStrictEqual(await table.changeOf("k", undefined), { table: "users", key: "k", value: undefined });
  deepStrictEqual(await table.changeOf("k", undefined, { expects: version, lifetime }), {
    table: "users",
    key: "k",
    value: undefined,
    expects: version,
    lifetime,
  });
  const change = await table.changeOf("k", { name: "ada-lovelace" }, { expects: "nothing" });
  deepStrictEqual(Object.keys(change).toSorted(), ["expects", "key", "table", "value"]);
  ok(!new TextDecoder("latin1").decode(change.value).includes("ada"));
  strictEqual(await table.get("k"), undefined, "nothing is written yet");
  strictEqual(await store.write([change]), true);
  deepStrictEqual(await table.get("k"), { name: "ada-lovelace" });
  strictEqual(await store.write([{ ...change, key: "l" }]), true);
  await rejects(table.get("l"), isUnavailable);
});

Deno.test("ASVS V2.3.3: records of several sealed tables change together or not at all, with their lifetimes", async () => {
  const { table: users, store, keyRing, clock } = await openVault();
  const keys = sealedTable(store, keyRing, "api_keys");
  await users.put("ada", { keys: 1 });
  await keys.put("old", { of: "ada" });
  const [ada, old] = [await users.read("ada"), await keys.read("old")];
  ok(ada && old);
  const lifetime = { expiresAtMs: clock.now() + 10 };
  const rotate = async () => [
    await users.changeOf("ada", { keys: 2 }, { expects: ada.version }),
    await keys.changeOf("old", undefined, { expects: old.version }),
    await keys.changeOf("new", { of: "ada" }, { expects: "nothing", lifetime }),
  ];
  // Somebody wrote the same value again: it is another version.
  await keys.put("old", { of: "ada" });
  strictEqual(await store.write(await rotate()), false);
  deepStrictEqual(await users.read("ada"), ada);
  strictEqual(await keys.get("new"), undefined);
  await store.put("api_keys", "old", old.version);
  strictEqual(await store.write(await rotate()), true);
  deepStrictEqual(await users.get("ada"), { keys: 2 });
  strictEqual(await keys.get("old"), undefined);
  deepStrictEqual(await keys.get("new"), { of: "ada" });
  clock.advance(10);
  strictEqual(await keys.get("new"), undefined);
});

Deno.test("ASVS V15.4.2: of many that change one version of a sealed record at once, exactly one does", async () => {
  const { table, store } = await openVault();
  await table.put("k", "first");
  const record = await table.read("k");
  ok(record);
  const results = await Promise.all(
    Array.from(
      { length: 20 },
      async (_, index) => await store.write([await table.changeOf("k", index, { expects: record.version })]),
    ),
  );
  strictEqual(results.filter((made) => made).length, 1);
  strictEqual(await table.get("k"), results.indexOf(true));
});

Deno.test("nothing of a record can be read in the store but its key", async () => {
  const { table, store } = await openVault();
  await table.put("k", { name: "ada-lovelace", roles: ["administrator"] });
  const [record] = await store.list("users", { limit: 1 });
  strictEqual(record?.key, "k");
  const text = new TextDecoder("latin1").decode(record.value);
  for (const word of ["ada", "name", "roles", "admin"]) ok(!text.includes(word), word);
});

Deno.test("property: any JSON comes back", async () => {
  const { table } = await openVault();
  await fc.assert(fc.asyncProperty(fc.string(), fc.jsonValue({ maxDepth: 5 }), async (key, value) => {
    const json = JSON.parse(JSON.stringify(value)) as JsonValue;
    if (JSON.stringify(json).includes("__proto__")) return;
    await table.put(key, json);
    deepStrictEqual(await table.get(key), json);
  }));
});
