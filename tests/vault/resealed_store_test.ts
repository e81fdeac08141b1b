// Tests of the store as rooms see it while values are put under another data key behind their backs.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { sealingKeyIdOf } from "../../src/vault/aead.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { openResealedStore } from "../../src/vault/resealed_store.ts";
import { isSameVersion, placeOf, type SealedRecord, sealedTable } from "../../src/vault/sealed_store.ts";
import { isFault } from "../identity/is_fault.ts";
import { testRecordStoreContract } from "../store/record_store_contract.ts";
import { manualClock } from "../support/manual_clock.ts";

testRecordStoreContract("resealed store", (clock) => ({
  store: openResealedStore(openMemoryRecordStore(clock), {
    sealAgain: () => Promise.reject(new Error("no data key has sealed what the contract writes")),
  }),
  dispose: () => undefined,
}));

/** Two tables, and what a rotation does to a record of them. */
async function openWorld() {
  const clock = manualClock();
  const memory = openMemoryRecordStore(clock);
  const masterKey = localMasterKey(parseMasterKey(generateMasterKey()));
  const keyRing = await openKeyRing(memory, masterKey, clock);
  const store = openResealedStore(memory, keyRing);
  const table = sealedTable(store, keyRing, "teams");
  const other = sealedTable(store, keyRing, "users");

  async function readOf(key: string): Promise<SealedRecord> {
    const record = await table.read(key);
    ok(record);
    return record;
  }
  /** All values under a new key; the ones before are destroyed. */
  async function rotate(): Promise<void> {
    const before = keyRing.activeKey();
    await keyRing.rotate(() => Promise.resolve());
    for (const name of ["teams", "users"]) {
      for (const { key, value } of await memory.list(name, { limit: 100 })) {
        const after = await keyRing.reseal(placeOf(name, key), value);
        ok(after);
        strictEqual(await memory.replace(name, [{ key, before: value, after }]), 1);
      }
    }
    await keyRing.destroy(before);
  }
  const change = async (record: SealedRecord, value: JsonValue | undefined) =>
    await store.write([await table.changeOf(record.key, value, { expects: record.version })]);
  return { clock, memory, masterKey, keyRing, store, table, other, readOf, rotate, change };
}

Deno.test("a version that was read before any number of rotations is found by a write, though its key is destroyed", async () => {
  const { table, readOf, rotate, change } = await openWorld();
  await table.put("red", { n: 1 });
  const read = await readOf("red");
  for (let times = 0; times < 3; times++) await rotate();
  ok(isSameVersion((await readOf("red")).version, read.version));
  strictEqual(await change(read, { n: 2 }), true);
  deepStrictEqual(await table.get("red"), { n: 2 });
  strictEqual(await change(read, { n: 3 }), false);
  await rotate();
  strictEqual(await change(read, { n: 3 }), false);
});

Deno.test("ASVS V15.4.2: the same value written again is another version, also across rotations: no reseal hides a change", async () => {
  const { table, readOf, rotate, change } = await openWorld();
  await table.put("red", { n: 1 });
  const read = await readOf("red");
  const writeAgain = async () => strictEqual(await change(await readOf("red"), { n: 1 }), true);
  for (const steps of [[rotate, writeAgain], [writeAgain, rotate], [rotate, writeAgain, rotate]]) {
    for (const step of steps) await step();
    ok(!isSameVersion((await readOf("red")).version, read.version));
    strictEqual(await change(read, undefined), false);
  }
  deepStrictEqual(await table.get("red"), { n: 1 });
});

Deno.test("of a write over several records each is found where it was resealed, and one that was changed stops them all", async () => {
  const { table, other, store, readOf, rotate } = await openWorld();
  await table.put("red", 1);
  await table.put("blue", 1);
  await other.put("ada", "red");
  const [red, blue, ada] = [await readOf("red"), await readOf("blue"), await other.read("ada")];
  ok(ada);
  await rotate();
  const move = async () =>
    await store.write([
      // As it was read, to the byte: such as the one who does it.
      { table: "teams", key: "red", value: red.version, expects: red.version },
      await table.changeOf("blue", 2, { expects: blue.version }),
      await other.changeOf("ada", "blue", { expects: ada.version }),
      await other.changeOf("grace", "blue", { expects: "nothing" }),
    ]);
  strictEqual(await move(), true);
  deepStrictEqual([await table.get("red"), await table.get("blue")], [1, 2]);
  deepStrictEqual([await other.get("ada"), await other.get("grace")], ["blue", "blue"]);
  ok(isSameVersion((await readOf("red")).version, red.version), "as it was read");
  await rotate();
  strictEqual(await move(), false);
  deepStrictEqual(await other.get("grace"), "blue");
});

Deno.test("what was sealed under a key that was retired or destroyed meanwhile is written under the active one, in one write with the rest", async () => {
  const { clock, memory, masterKey, table, keyRing, readOf, rotate } = await openWorld();
  await table.put("red", 1);
  for (const end of ["retired", "destroyed"]) {
    // A command beside the server: nobody tells it.
    const beside = await openKeyRing(memory, masterKey, clock);
    const store = openResealedStore(memory, beside);
    const besides = sealedTable(store, beside, "teams");
    const read = await readOf("red");
    const changes = [
      await besides.changeOf("red", 2, { expects: read.version }),
      await besides.changeOf(`new ${end}`, 3, { expects: "nothing" }),
      { table: "teams", key: `plain ${end}`, value: Uint8Array.of(7) },
    ];
    const before = keyRing.activeKey();
    if (end === "destroyed") await rotate();
    else {
      await keyRing.rotate(() => Promise.resolve());
      await keyRing.retire(before);
    }
    strictEqual(await store.write(changes), true);
    for (const key of ["red", `new ${end}`]) {
      strictEqual(sealingKeyIdOf((await readOf(key)).version), keyRing.activeKey());
    }
    deepStrictEqual([await table.get("red"), await table.get(`new ${end}`)], [2, 3]);
    deepStrictEqual(await memory.get("teams", `plain ${end}`), Uint8Array.of(7));
    await memory.delete("teams", `plain ${end}`);
    await table.put("red", 1);
  }
});

Deno.test("nothing is written under a destroyed key: where it does not open any more, who sealed it gets a fault, and what stood there stays", async () => {
  const { table, store, memory, readOf, rotate } = await openWorld();
  await table.put("red", 1);
  const read = await readOf("red");
  const late = [
    await table.changeOf("red", 2),
    await table.changeOf("red", 2, { expects: read.version }),
    await table.changeOf("new", 2, { expects: "nothing" }),
  ];
  await rotate();
  const before = await memory.list("teams", { limit: 10 });
  for (const change of late) {
    await rejects(store.write([change]), isFault("unavailable"));
    ok(change.value);
    await rejects(store.put("teams", "red", change.value), isFault("unavailable"));
    await rejects(store.create("teams", "new", change.value), isFault("unavailable"));
  }
  deepStrictEqual(await memory.list("teams", { limit: 10 }), before);
  await table.put("red", 3);
  strictEqual(await table.get("red"), 3);
});

Deno.test("plain values are written and expected as they are, whatever they begin with", async () => {
  const { store } = await openWorld();
  for (
    const value of [[], [1], [2, 30, ...Array(100).fill(65)], [
      2,
      30,
      ...new TextEncoder().encode("key_"),
      ...Array(90).fill(0xff),
    ]]
  ) {
    const bytes = Uint8Array.from(value);
    await store.put("plain", "k", bytes);
    strictEqual(
      await store.write([{ table: "plain", key: "k", value: Uint8Array.of(7), expects: bytes }]),
      true,
    );
    strictEqual(await store.write([{ table: "plain", key: "k", value: bytes, expects: bytes }]), false);
  }
});

Deno.test("a field's value opens as that field of that record, and nowhere else", async () => {
  const { keyRing } = await openWorld();
  const plain = Uint8Array.of(1, 2, 3);
  const sealed = await keyRing.seal(placeOf("t", "k", "name"), plain);
  deepStrictEqual(await keyRing.open(placeOf("t", "k", "name"), sealed), plain);
  for (
    const place of [
      placeOf("t", "k"),
      placeOf("t", "k", "names"),
      placeOf("t", "k#name"),
      placeOf("t", "k/name"),
      placeOf("u", "k", "name"),
    ]
  ) {
    await rejects(keyRing.open(place, sealed), isFault("unavailable"));
  }
});
