// Tests of the key ring: data keys that only the master key opens, the same after every restart.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { createHmac } from "node:crypto";
import fc from "fast-check";
import { encodeBase64url } from "../../src/encoding/base64url.ts";
import { encodeUtf8 } from "../../src/encoding/utf8.ts";
import { Fault } from "../../src/faults/fault.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { importSealingKey, open, seal } from "../../src/vault/aead.ts";
import { type HashPurpose, openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { manualClock } from "../support/manual_clock.ts";

const PLAIN = encodeUtf8("portcullis");

function emptyVault() {
  const clock = manualClock();
  const masterKey = parseMasterKey(generateMasterKey());
  const store = openMemoryRecordStore(clock);
  return { clock, masterKey, store, openRing: () => openKeyRing(store, masterKey, clock) };
}

function isUnavailable(words: RegExp): (thrown: unknown) => true {
  return (thrown) => {
    ok(thrown instanceof Fault);
    strictEqual(thrown.kind, "unavailable");
    match(thrown.message, words);
    return true;
  };
}

Deno.test("an empty store gets one data key of each kind, and a reopening makes no more", async () => {
  const { store, openRing } = emptyVault();
  await openRing();
  const keys = (await store.list("data_keys", { limit: 10 })).map(({ key }) => key);
  deepStrictEqual(keys.map((key) => key.split(".")[0]), ["pseudonym", "seal"]);
  await openRing();
  deepStrictEqual((await store.list("data_keys", { limit: 10 })).map(({ key }) => key), keys);
});

Deno.test("of rings that are opened at once on an empty store, behind no lock, one makes the keys and all have them", async () => {
  const { store, openRing } = emptyVault();
  const rings = await Promise.all([openRing(), openRing(), openRing()]);
  strictEqual((await store.list("data_keys", { limit: 10 })).length, 2);
  const [first] = rings;
  ok(first);
  const sealed = await first.seal("t/k", PLAIN);
  for (const ring of rings) {
    strictEqual(ring.pseudonym("account", "ada"), first.pseudonym("account", "ada"));
    deepStrictEqual(await ring.open("t/k", sealed), PLAIN);
    deepStrictEqual(ring.mark, first.mark);
  }
});

Deno.test("the mark stands in the store from the first keys on, stays the same, and is another in each store", async () => {
  const { store, openRing } = emptyVault();
  const { mark } = await openRing();
  deepStrictEqual(await store.get(mark.table, mark.key), mark.value);
  strictEqual(mark.value.length, 16);
  deepStrictEqual((await openRing()).mark, mark);
  notStrictEqual((await emptyVault().openRing()).mark.value.toHex(), mark.value.toHex());
});

Deno.test("a store with keys and without a mark, as older versions leave it, gets a mark and no keys", async () => {
  const { store, openRing } = emptyVault();
  const before = await openRing();
  const keys = await store.list("data_keys", { limit: 10 });
  await store.delete(before.mark.table, before.mark.key);
  const rings = await Promise.all([openRing(), openRing()]);
  deepStrictEqual(await store.list("data_keys", { limit: 10 }), keys);
  for (const ring of rings) {
    deepStrictEqual(ring.mark.value, await store.get(ring.mark.table, ring.mark.key));
    strictEqual(ring.pseudonym("account", "ada"), before.pseudonym("account", "ada"));
  }
});

Deno.test("a store that has its mark and has lost keys is a fault, and none are made in their place", async () => {
  for (const kind of ["seal", "pseudonym"]) {
    const { store, openRing } = emptyVault();
    await openRing();
    for (const { key } of await store.list("data_keys", { limit: 10 })) {
      if (key.startsWith(kind)) await store.delete("data_keys", key);
    }
    const left = await store.list("data_keys", { limit: 10 });
    await rejects(openRing(), isUnavailable(/the store has lost them/));
    deepStrictEqual(await store.list("data_keys", { limit: 10 }), left);
  }
});

Deno.test("a reopened ring opens old values and gives the same pseudonyms", async () => {
  const { openRing } = emptyVault();
  const first = await openRing();
  const sealed = await first.seal("t/k", PLAIN);
  const second = await openRing();
  deepStrictEqual(await second.open("t/k", sealed), PLAIN);
  strictEqual(second.pseudonym("account", "ada"), first.pseudonym("account", "ada"));
});

Deno.test("values are bound to their place and to their bytes", async () => {
  const ring = await emptyVault().openRing();
  const sealed = await ring.seal("t/k", PLAIN);
  await rejects(ring.open("t/l", sealed), isUnavailable(/altered or moved/));
  sealed[sealed.length - 1] = (sealed.at(-1) ?? 0) ^ 1;
  await rejects(ring.open("t/k", sealed), isUnavailable(/altered or moved/));
});

Deno.test("ASVS V11.2.2: after another seal key is added the newest seals, and values of the old one still open", async () => {
  const { store, masterKey, clock, openRing } = emptyVault();
  const sealedBefore = await (await openRing()).seal("t/k", PLAIN);
  const [, sealKey] = await store.list("data_keys", { limit: 10 });
  const newest = `${sealKey?.key}z`;
  const master = await importSealingKey("master", masterKey);
  await store.put("data_keys", newest, await seal(master, `data_keys/${newest}`, new Uint8Array(32).fill(7)));
  const ring = await openKeyRing(store, masterKey, clock);
  const sealedAfter = await ring.seal("t/k", PLAIN);
  ok(new TextDecoder("latin1").decode(sealedAfter).includes(newest.split(".")[1] ?? "?"));
  deepStrictEqual(await ring.open("t/k", sealedBefore), PLAIN);
  deepStrictEqual(await ring.open("t/k", sealedAfter), PLAIN);
});

Deno.test("a value that names no key of the ring is a fault that names the key", async () => {
  const ring = await emptyVault().openRing();
  const foreign = await seal(await importSealingKey("key_foreign", new Uint8Array(32)), "t/k", PLAIN);
  await rejects(ring.open("t/k", foreign), isUnavailable(/there is no data key key_foreign/));
});

Deno.test("another master key is a fault that says so, and nothing is written", async () => {
  const { store, clock, openRing } = emptyVault();
  await openRing();
  const before = await store.list("data_keys", { limit: 10 });
  const other = parseMasterKey(generateMasterKey());
  await rejects(
    openKeyRing(store, other, clock),
    isUnavailable(/^Cannot open data key key_\w+: the master key is not the one it was wrapped under/),
  );
  deepStrictEqual(await store.list("data_keys", { limit: 10 }), before);
});

Deno.test("a wrapped key that was altered, moved to another id or is of an unknown kind is a fault", async () => {
  for (
    const damage of ["altered", "moved", "unknown kind"] as const
  ) {
    const { store, openRing } = emptyVault();
    await openRing();
    const [record] = await store.list("data_keys", { limit: 1 });
    if (record === undefined) throw new Error("there is no key");
    const { key, value } = record;
    if (damage === "altered") {
      value[value.length - 20] = (value.at(-20) ?? 0) ^ 1;
      await store.put("data_keys", key, value);
    } else await store.put("data_keys", damage === "moved" ? `${key}0` : "other.key_1", value);
    await rejects(openRing(), isUnavailable(damage === "unknown kind" ? /kind is unknown/ : /was altered/));
  }
});

Deno.test("ASVS V13.3.1: no data key and no master key stands in the store", async () => {
  const { store, masterKey, openRing } = emptyVault();
  const ring = await openRing();
  const records = await store.list("data_keys", { limit: 10 });
  const master = await importSealingKey("master", masterKey);
  const everything = records.map(({ key, value }) => encodeUtf8(key).toHex() + value.toHex()).join();
  const raws = await Promise.all(records.map(({ key, value }) => open(master, `data_keys/${key}`, value)));
  for (const raw of [masterKey, ...raws]) {
    strictEqual(raw.length, 32);
    for (let start = 0; start <= 24; start += 8) {
      ok(!everything.includes(raw.slice(start, start + 8).toHex()));
    }
  }
  // These are the keys that are in use, not others: the second is the one that makes the pseudonyms.
  const [pseudonymKey] = raws;
  const expected = createHmac("sha256", pseudonymKey ?? "").update("account\u0000ada").digest().subarray(
    0,
    16,
  );
  strictEqual(ring.pseudonym("account", "ada"), expected.toString("base64url"));
});

Deno.test("a pseudonym is 22 characters, and another for each text, purpose and vault", async () => {
  const ring = await emptyVault().openRing();
  const pseudonym = ring.pseudonym("account", "ada");
  match(pseudonym, /^[A-Za-z0-9_-]{22}$/);
  strictEqual(ring.pseudonym("account", "ada"), pseudonym);
  for (const other of ["Ada", "ada ", "", "account\u0000ada", "a\u0301da", "ada\u0000"]) {
    notStrictEqual(ring.pseudonym("account", other), pseudonym);
  }
  notStrictEqual(ring.pseudonym("address", "ada"), pseudonym);
  notStrictEqual((await emptyVault().openRing()).pseudonym("account", "ada"), pseudonym);
});

const PURPOSES: readonly HashPurpose[] = [
  "account",
  "address",
  "api_key",
  "client_secret",
  "dpop_nonce",
  "refresh_token",
];

Deno.test("ASVS V11.4.1: a keyed hash is HMAC-SHA-256 under a key of its own, which no pseudonym can give away", async () => {
  const { store, masterKey, openRing } = emptyVault();
  const ring = await openRing();
  const [record] = await store.list("data_keys", { limit: 1 });
  ok(record);
  const master = await importSealingKey("master", masterKey);
  const pseudonymKey = await open(master, `data_keys/${record.key}`, record.value);
  const hashKey = createHmac("sha256", pseudonymKey).update("keyed_hash").digest();
  const expected = createHmac("sha256", hashKey).update("api_key\u0000pck_\u00e4").digest();
  deepStrictEqual(ring.keyedHash("api_key", "pck_\u00e4"), new Uint8Array(expected));
});

Deno.test("a keyed hash is 32 bytes of its own, the same after a restart, and another for each text, purpose and vault", async () => {
  const { openRing } = emptyVault();
  const ring = await openRing();
  const hash = ring.keyedHash("api_key", "secret");
  strictEqual(hash.byteLength, 32);
  strictEqual(hash.buffer.byteLength, 32, "no view into memory that others share");
  deepStrictEqual((await openRing()).keyedHash("api_key", "secret"), hash);
  const others = [
    ...["", "Secret", "secret ", "secret\u0000", "api_key\u0000secret"].map((text) =>
      ring.keyedHash("api_key", text)
    ),
    ...PURPOSES.filter((purpose) => purpose !== "api_key").map((purpose) =>
      ring.keyedHash(purpose, "secret")
    ),
    (await emptyVault().openRing()).keyedHash("api_key", "secret"),
  ];
  for (const other of others) notStrictEqual(other.toHex(), hash.toHex());
});

Deno.test("property: no pseudonym is a part of a keyed hash, whatever the purposes and the text", async () => {
  const ring = await emptyVault().openRing();
  const purpose = fc.constantFrom(...PURPOSES);
  fc.assert(fc.property(purpose, purpose, fc.string({ unit: "binary" }), (one, other, text) => {
    const hash = ring.keyedHash(one, text);
    notStrictEqual(ring.pseudonym(other, text), encodeBase64url(hash.subarray(0, 16)));
    if (one !== other) notStrictEqual(ring.keyedHash(other, text).toHex(), hash.toHex());
  }));
});

/** Adds a seal key that is newer than those in the store. */
async function addSealKey({ store, masterKey }: Pick<ReturnType<typeof emptyVault>, "store" | "masterKey">) {
  const keys = await store.list("data_keys", { limit: 10 });
  const newest = `${keys.at(-1)?.key}z`;
  const master = await importSealingKey("master", masterKey);
  await store.put("data_keys", newest, await seal(master, `data_keys/${newest}`, new Uint8Array(32).fill(7)));
}

Deno.test("a value that another instance sealed under a key of its making opens at once, at several places together", async () => {
  const vault = emptyVault();
  const ring = await vault.openRing();
  await addSealKey(vault);
  const elsewhere = await vault.openRing();
  const sealed = await Promise.all(["t/1", "t/2", "t/3"].map((place) => elsewhere.seal(place, PLAIN)));
  const opened = await Promise.all(sealed.map((value, at) => ring.open(`t/${at + 1}`, value)));
  deepStrictEqual(opened, [PLAIN, PLAIN, PLAIN]);
  // It goes on to seal under the key that it began with, which the others have as well.
  deepStrictEqual(await elsewhere.open("t/4", await ring.seal("t/4", PLAIN)), PLAIN);
});

Deno.test("keys are read again for a value of an unknown key, and for no other", async () => {
  const vault = emptyVault();
  let lists = 0;
  const store: RecordStore = {
    ...vault.store,
    list(table, page) {
      lists++;
      return vault.store.list(table, page);
    },
  };
  const ring = await openKeyRing(store, vault.masterKey, vault.clock);
  const before = lists;
  deepStrictEqual(await ring.open("t/k", await ring.seal("t/k", PLAIN)), PLAIN);
  strictEqual(lists, before);
  await addSealKey(vault);
  const elsewhere = await vault.openRing();
  for (let time = 0; time < 3; time++) {
    deepStrictEqual(await ring.open("t/k", await elsewhere.seal("t/k", PLAIN)), PLAIN);
  }
  strictEqual(lists, before + 1);
});
