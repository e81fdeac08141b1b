// Tests of the sealed table: JSON records that rest sealed, each at its own key.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import { encodeUtf8 } from "../../src/encoding/utf8.ts";
import { Fault } from "../../src/faults/fault.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { type KeyRing, openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { manualClock } from "../support/manual_clock.ts";

async function openVault() {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const keyRing: KeyRing = await openKeyRing(store, parseMasterKey(generateMasterKey()), clock);
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
