// Tests of the key ring: data keys that only the master key opens, the same after every restart.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { createHmac } from "node:crypto";
import fc from "fast-check";
import { encodeBase64url } from "../../src/encoding/base64url.ts";
import { encodeUtf8 } from "../../src/encoding/utf8.ts";
import { Fault } from "../../src/faults/fault.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { importSealingKey, seal, sealingKeyIdOf } from "../../src/vault/aead.ts";
import { dataKeyPlaceOf, type HashPurpose, openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { manualClock } from "../support/manual_clock.ts";
import { ManualFeed } from "../support/manual_feed.ts";

const PLAIN = encodeUtf8("portcullis");

function emptyVault() {
  const clock = manualClock();
  const rawMaster = parseMasterKey(generateMasterKey());
  const masterKey = localMasterKey(rawMaster);
  const store = openMemoryRecordStore(clock);
  return { clock, rawMaster, masterKey, store, openRing: () => openKeyRing(store, masterKey, clock) };
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
  const wrapped = await masterKey.wrap(`data_keys/${newest}`, new Uint8Array(32).fill(7));
  await store.put("data_keys", newest, wrapped);
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
  const other = localMasterKey(parseMasterKey(generateMasterKey()));
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
  const { store, rawMaster, masterKey, openRing } = emptyVault();
  const ring = await openRing();
  const records = await store.list("data_keys", { limit: 10 });
  const everything = records.map(({ key, value }) => encodeUtf8(key).toHex() + value.toHex()).join();
  const raws = await Promise.all(
    records.map(({ key, value }) => masterKey.unwrap(`data_keys/${key}`, value)),
  );
  for (const raw of [rawMaster, ...raws]) {
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
  const pseudonymKey = await masterKey.unwrap(`data_keys/${record.key}`, record.value);
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
  const wrapped = await masterKey.wrap(`data_keys/${newest}`, new Uint8Array(32).fill(7));
  await store.put("data_keys", newest, wrapped);
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

const nobodyRecords = () => Promise.resolve();

Deno.test("a rotated ring seals under the new key at once, other instances when they hear of it, and each opens what any sealed", async () => {
  const { store, masterKey, clock } = emptyVault();
  const [feed, otherFeed] = [new ManualFeed(), new ManualFeed()];
  const ring = await openKeyRing(store, masterKey, clock, feed);
  const other = await openKeyRing(store, masterKey, clock, otherFeed);
  const before = ring.activeKey();
  const old = await ring.seal("t/k", PLAIN);
  const told: string[] = [];
  const id = await ring.rotate((made) => {
    told.push(made);
    return Promise.resolve();
  });
  deepStrictEqual(told, [id]);
  strictEqual(ring.activeKey(), id);
  notStrictEqual(id, before);
  strictEqual(sealingKeyIdOf(await ring.seal("t/k", PLAIN)), id);
  strictEqual(sealingKeyIdOf(await other.seal("t/k", PLAIN)), before);
  await otherFeed.tell("data_keys", `seal.${id}`);
  strictEqual(sealingKeyIdOf(await other.seal("t/k", PLAIN)), id);
  for (const each of [ring, other]) deepStrictEqual(await each.open("t/k", old), PLAIN);
  const states = (await ring.keys()).map(({ id, kind, state }) => [id, kind, state]);
  deepStrictEqual(states.slice(0, 1), [[id, "seal", "active"]]);
  deepStrictEqual(new Map(states.slice(1).map(([id, ...rest]) => [id, rest])).get(before), [
    "seal",
    "retired",
  ]);
  strictEqual(states.length, 3);
  strictEqual((await openKeyRing(store, masterKey, clock)).activeKey(), id);
});

Deno.test("the newest key seals, whatever the clock of the instance that made it says", async () => {
  const { store, masterKey, clock } = emptyVault();
  const ring = await openKeyRing(store, masterKey, clock);
  for (const jumpMs of [-86_400_000, 0, 0]) {
    clock.jumpWall(jumpMs);
    strictEqual(await ring.rotate(nobodyRecords), ring.activeKey());
    strictEqual((await openKeyRing(store, masterKey, clock)).activeKey(), ring.activeKey());
  }
  strictEqual((await store.list("data_keys", { limit: 10 })).length, 5);
});

Deno.test("ASVS V16.5.3: a new key that is not on record, or that the master key does not wrap, is not made", async () => {
  const { store, masterKey, clock } = emptyVault();
  const fails = () => Promise.reject(new Fault("unavailable", "Cannot do it: a test"));
  const ring = await openKeyRing(store, masterKey, clock);
  const [before, keys] = [ring.activeKey(), await store.list("data_keys", { limit: 10 })];
  await rejects(ring.rotate(fails), isUnavailable(/a test/));
  const away = await openKeyRing(store, { ...masterKey, wrap: fails }, clock);
  await rejects(away.rotate(nobodyRecords), isUnavailable(/a test/));
  deepStrictEqual(await store.list("data_keys", { limit: 10 }), keys);
  strictEqual(ring.activeKey(), before);
});

Deno.test("a value is resealed under the active key, and what is under it or is no value of the ring is left", async () => {
  const { store, masterKey, clock } = emptyVault();
  const ring = await openKeyRing(store, masterKey, clock);
  const old = await ring.seal("t/k", PLAIN);
  strictEqual(await ring.reseal("t/k", old), undefined);
  await ring.rotate(nobodyRecords);
  const resealed = await ring.reseal("t/k", old);
  ok(resealed);
  strictEqual(sealingKeyIdOf(resealed), ring.activeKey());
  deepStrictEqual(await ring.open("t/k", resealed), PLAIN);
  for (
    const plain of [
      new Uint8Array(),
      PLAIN,
      await seal(await importSealingKey("key_else", new Uint8Array(32)), "t/k", PLAIN),
    ]
  ) {
    strictEqual(await ring.reseal("t/k", plain), undefined);
  }
  await rejects(ring.reseal("t/l", old), isUnavailable(/altered or moved/));
});

Deno.test("a retired key opens and is resealed, seals nothing, is wrapped anew like the others, and its place is empty for writes", async () => {
  const { store, rawMaster, clock } = emptyVault();
  const newMaster = parseMasterKey(generateMasterKey());
  const ring = await openKeyRing(store, localMasterKey(rawMaster), clock);
  const [old, before] = [await ring.seal("t/k", PLAIN), ring.activeKey()];
  await rejects(ring.retire(before), /in use/);
  await ring.rotate(nobodyRecords);
  await ring.retire(before);
  await ring.retire(before);
  const place = dataKeyPlaceOf(old);
  ok(place);
  strictEqual(await store.get(place.table, place.key), undefined);
  const moved = await openKeyRing(store, localMasterKey(newMaster, [rawMaster]), clock);
  strictEqual(await moved.rewrap(nobodyRecords), 3);
  for (const each of [ring, moved, await openKeyRing(store, localMasterKey(newMaster), clock)]) {
    deepStrictEqual(await each.open("t/k", old), PLAIN);
    ok(await each.reseal("t/k", old));
    strictEqual(each.activeKey(), ring.activeKey());
    notStrictEqual(each.activeKey(), before);
    strictEqual(await each.holdsKeyOf(old), true);
  }
  const states = (await moved.keys()).map(({ id, kind, state }) => [id, kind, state].join(" "));
  ok(states.includes(`${before} seal retired`), states.join("\n"));
  await moved.destroy(before);
  strictEqual((await moved.keys()).length, 2);
  strictEqual(await moved.holdsKeyOf(old), false);
  strictEqual(await moved.holdsKeyOf(PLAIN), true);
});

Deno.test("a destroyed key opens nothing, here, on an instance that heard of it, and after a restart; the key in use stays", async () => {
  const { store, masterKey, clock } = emptyVault();
  const otherFeed = new ManualFeed();
  const ring = await openKeyRing(store, masterKey, clock);
  const other = await openKeyRing(store, masterKey, clock, otherFeed);
  const [old, before] = [await ring.seal("t/k", PLAIN), ring.activeKey()];
  await rejects(ring.destroy(before), /in use/);
  await ring.rotate(nobodyRecords);
  await ring.destroy(before);
  await ring.destroy(before);
  await otherFeed.tell("data_keys", `seal.${before}`);
  for (const each of [ring, other, await openKeyRing(store, masterKey, clock)]) {
    await rejects(each.open("t/k", old), isUnavailable(/there is no data key/));
    strictEqual(each.activeKey(), ring.activeKey());
  }
  deepStrictEqual((await ring.keys()).map(({ kind, state }) => `${kind} ${state}`).toSorted(), [
    "pseudonym active",
    "seal active",
  ]);
});

Deno.test("ASVS V13.3.4: wrapped anew, all keys are under the newest master key alone, the pseudonym key as well, and none is another", async () => {
  const { store, rawMaster, clock } = emptyVault();
  const before = await openKeyRing(store, localMasterKey(rawMaster), clock);
  const [old, pseudonym] = [await before.seal("t/k", PLAIN), before.pseudonym("account", "ada")];
  await before.rotate(nobodyRecords);
  const newMaster = parseMasterKey(generateMasterKey());
  const ring = await openKeyRing(store, localMasterKey(newMaster, [rawMaster]), clock);
  deepStrictEqual((await ring.keys()).map((key) => key.isUnderNewestMasterKey), [false, false, false]);
  const told: string[] = [];
  const record = (id: string) => Promise.resolve(void told.push(id));
  strictEqual(await ring.rewrap(record), 3);
  deepStrictEqual(told.toSorted(), (await ring.keys()).map(({ id }) => id).toSorted());
  deepStrictEqual((await ring.keys()).map((key) => key.isUnderNewestMasterKey), [true, true, true]);
  strictEqual(await ring.rewrap(record), 0);
  await rejects(openKeyRing(store, localMasterKey(rawMaster), clock), isUnavailable(/another|not the one/));
  const after = await openKeyRing(store, localMasterKey(newMaster), clock);
  deepStrictEqual(await after.open("t/k", old), PLAIN);
  strictEqual(after.pseudonym("account", "ada"), pseudonym);
});
