// Tests of API keys: shown once, kept as hashes, narrowed, expiring, rotated with grace, over at once when removed.
import {
  deepStrictEqual,
  doesNotThrow,
  match,
  notStrictEqual,
  ok,
  rejects,
  strictEqual,
} from "node:assert/strict";
import fc from "fast-check";
import { formatGrant } from "../../src/access/grant.ts";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import { newId } from "../../src/encoding/ids.ts";
import { parseAddress, rangeHolds } from "../../src/encoding/ip_address.ts";
import { Fault } from "../../src/faults/fault.ts";
import { API_KEY_PREFIX, openApiKeys } from "../../src/identity/api_keys.ts";
import { NO_OTHERS } from "../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { ManualFeed } from "../support/manual_feed.ts";
import { manualClock } from "../support/manual_clock.ts";

const DAY_MS = 86_400_000;
const THUMBPRINT = "A".repeat(43);

/** Keys over a store whose reads are counted, and which fails on demand. */
async function openKeys(knownMax = 100) {
  const clock = manualClock();
  const memory = openMemoryRecordStore(clock);
  const state = {
    failsReads: false,
    failsWrites: false,
    reads: [] as string[],
    afterRead: () => Promise.resolve(),
    beforeWrite: () => Promise.resolve(),
  };
  const unavailable = () => Promise.reject(new Fault("unavailable", "the disk is gone"));
  const store: RecordStore = {
    ...memory,
    async get(table, key) {
      state.reads.push(`${table}/${key}`);
      const value = await (state.failsReads ? unavailable() : memory.get(table, key));
      await state.afterRead();
      return value;
    },
    async write(changes) {
      await state.beforeWrite();
      return await (state.failsWrites ? unavailable() : memory.write(changes));
    },
  };
  const keyRing = await openKeyRing(memory, localMasterKey(parseMasterKey(generateMasterKey())), clock);
  const sealed = (table: string) => sealedTable(store, keyRing, table);
  const open = () => openApiKeys({ store, sealed, keyRing, clock, feed: NO_OTHERS, knownMax });
  const order = {
    name: "nightly",
    ownerId: newId("usr", clock.now()),
    scopes: ["model:infer/use-*", "key:read/own"],
    addresses: ["10.0.0.0/8", "2001:db8::/32"],
    boundTo: null,
    expiresAtMs: clock.now() + DAY_MS,
    seenByOthers: false,
  };
  return { clock, memory, store, state, keyRing, sealed, open, keys: open(), order };
}

type Keys = Awaited<ReturnType<typeof openKeys>>["keys"];

/** What becomes of a text: "ok" or the reason. */
async function verdict(keys: Keys, text: string): Promise<string> {
  const verified = await keys.verify(text);
  return verified.ok ? "ok" : verified.reason;
}

async function found(keys: Keys, id: string) {
  const kept = await keys.read(id);
  ok(kept);
  return kept;
}

Deno.test("a new key works at once, and says whose it is and what it is narrowed to", async () => {
  const { keys, order, clock } = await openKeys();
  const { key, text } = await keys.create({ ...order, boundTo: THUMBPRINT });
  deepStrictEqual(key, {
    ...order,
    id: key.id,
    boundTo: THUMBPRINT,
    createdAtMs: clock.now(),
    lastUsedAtMs: null,
    rotatedAtMs: null,
    previousUntilMs: null,
  });
  const verified = await keys.verify(text);
  ok(verified.ok);
  const { scope, addressRanges, ...rest } = verified.value;
  deepStrictEqual(rest, { id: key.id, ownerId: order.ownerId, boundTo: THUMBPRINT });
  deepStrictEqual(scope.map(formatGrant), order.scopes);
  deepStrictEqual(addressRanges.map(({ prefixBits }) => prefixBits), [8, 32]);
  await keys.flush();
});

Deno.test("ASVS V7.2.3: a key's text is its id and 256 random bits, never twice the same", async () => {
  const { keys, order } = await openKeys();
  const texts = await Promise.all(Array.from({ length: 100 }, async () => (await keys.create(order)).text));
  for (const text of texts) {
    match(text, /^pck_[0-9a-hjkmnp-tv-z]{26}_[A-Za-z0-9_-]{43}$/);
    ok(text.startsWith(API_KEY_PREFIX));
    const bytes = Uint8Array.fromBase64(text.slice(31), { alphabet: "base64url" });
    strictEqual(bytes.length, 32);
  }
  strictEqual(new Set(texts.map((text) => text.slice(31))).size, 100);
});

Deno.test("ASVS V14.2.6: a key's secret is shown once: it is in nothing that is kept or shown afterwards, nor is its hash", async () => {
  const { keys, order, memory, keyRing, sealed } = await openKeys();
  const first = await keys.create(order);
  const second = await keys.rotate(await found(keys, first.key.id), 60, "owner");
  ok(second);
  await keys.verify(second.text);
  await keys.flush();
  const secrets = [first, second].map(({ text }) => text.slice(31));
  const hashes = [first, second].map(({ text }) => keyRing.keyedHash("api_key", text));
  let kept = "";
  for (const table of ["api_keys", "api_key_uses", "data_keys"]) {
    for (const { key, value } of await memory.list(table, { limit: 1000 })) {
      kept += key + new TextDecoder("latin1").decode(value);
      if (table !== "data_keys") kept += JSON.stringify(await sealed(table).get(key));
    }
  }
  match(kept, /nightly/);
  const shown = JSON.stringify([
    first.key,
    second.key,
    (await found(keys, first.key.id)).value,
    await keys.list({ limit: 10 }),
    await keys.list({ limit: 10, ownerId: order.ownerId }),
    await keys.verify(second.text),
  ]);
  for (const secret of secrets) {
    ok(!kept.includes(secret));
    ok(!shown.includes(secret));
  }
  for (const hash of hashes) {
    ok(
      kept.includes(hash.toBase64({ alphabet: "base64url", omitPadding: true })),
      "what is kept is the hash",
    );
    ok(!shown.includes(hash.toBase64({ alphabet: "base64url", omitPadding: true })));
  }
  await keys.flush();
});

Deno.test("members that are none of a key's neither rest nor show", async () => {
  const { keys, order, sealed } = await openKeys();
  const { key } = await keys.create(
    { ...order, secret: "mine", rotatedAtMs: 1, admin: true } as typeof order,
  );
  strictEqual(key.rotatedAtMs, null);
  ok(!("admin" in key) && !("secret" in key));
  ok(!JSON.stringify(await sealed("api_keys").get(key.id)).includes("admin"));
});

Deno.test("a wrong secret of a right id, an unknown id and the secret of another key are refused, each by its own reason", async () => {
  const { keys, order, clock } = await openKeys();
  const one = await keys.create(order);
  const other = await keys.create(order);
  strictEqual(await verdict(keys, `${one.key.id}_${"A".repeat(43)}`), "key_wrong");
  strictEqual(await verdict(keys, `${one.key.id}${other.text.slice(30)}`), "key_wrong");
  strictEqual(await verdict(keys, `${newId("pck", clock.now())}${one.text.slice(30)}`), "key_unknown");
  strictEqual(await verdict(keys, one.text), "ok");
  strictEqual(await verdict(keys, other.text), "ok");
  strictEqual((await found(keys, other.key.id)).value.lastUsedAtMs, clock.now());
  await keys.flush();
});

Deno.test("a hash that was moved to another key does not make its secret work there: the hash covers the id", async () => {
  const { keys, order, sealed, open } = await openKeys();
  const one = await keys.create(order);
  const other = await keys.create(order);
  const record = await sealed("api_keys").get(one.key.id);
  ok(record !== undefined);
  await sealed("api_keys").put(other.key.id, record);
  const reopened = open();
  strictEqual(await verdict(reopened, `${other.key.id}${one.text.slice(30)}`), "key_wrong");
});

Deno.test("texts that were cut, lengthened or changed in one character are refused before anything is read, or as wrong", async () => {
  const { keys, order, state } = await openKeys();
  const { text } = await keys.create(order);
  state.reads = [];
  const malformed = [
    "",
    API_KEY_PREFIX,
    text.slice(0, -1),
    text.slice(1),
    `${text}A`,
    `${text}=`,
    `${text}\n`,
    ` ${text}`,
    text.toUpperCase(),
    `PCK_${text.slice(4)}`,
    `pcs_${text.slice(4)}`,
    text.slice(0, 30) + text.slice(31),
    `${text.slice(0, 30)}.${text.slice(31)}`,
    `${text.slice(0, 29)}l${text.slice(30)}`,
    `${text.slice(0, 29)}\u0661${text.slice(30)}`,
    `${text.slice(0, 40)}+${text.slice(41)}`,
    `${text.slice(0, 40)}/${text.slice(41)}`,
    `${text.slice(0, 40)}\u0000${text.slice(41)}`,
    `${text.slice(0, 40)}\ud800${text.slice(41)}`,
    text.repeat(1000),
  ];
  for (const each of malformed) {
    deepStrictEqual(
      keys.verify(each),
      { ok: false, reason: "key_malformed" },
      JSON.stringify(each.slice(0, 90)),
    );
  }
  deepStrictEqual(state.reads, []);
  const others = fc.tuple(fc.nat(text.length - 1), fc.string({ minLength: 1, maxLength: 1 }));
  await fc.assert(fc.asyncProperty(others, async ([at, character]) => {
    const other = text.slice(0, at) + character + text.slice(at + 1);
    if (other !== text) notStrictEqual(await verdict(keys, other), "ok");
  }));
});

Deno.test("two texts never stand for one secret: of the 64 last characters one works", async () => {
  const { keys, order } = await openKeys();
  const { text } = await keys.create(order);
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const verdicts = await Promise.all(Array.from(alphabet, (last) => verdict(keys, text.slice(0, -1) + last)));
  strictEqual(verdicts.filter((each) => each === "ok").length, 1);
  await keys.flush();
});

Deno.test("ASVS V7.2.2: a key expires at its millisecond, also one at hand, and says so to its holder alone", async () => {
  const { keys, order, clock, open } = await openKeys();
  const { key, text } = await keys.create(order);
  clock.advance(DAY_MS - 1);
  strictEqual(await verdict(keys, text), "ok");
  await keys.flush();
  clock.advance(1);
  for (const each of [keys, open()]) {
    strictEqual(await verdict(each, text), "key_expired");
    strictEqual(await verdict(each, `${key.id}_${"A".repeat(43)}`), "key_wrong");
  }
  strictEqual((await found(keys, key.id)).value.lastUsedAtMs, clock.now() - 1);
});

Deno.test("an expired key leaves the store after 30 days, and its last use with it", async () => {
  const { keys, order, clock, memory, open } = await openKeys();
  const { key, text } = await keys.create(order);
  await keys.verify(text);
  await keys.rotate(await found(keys, key.id), 0, "owner");
  await keys.flush();
  clock.advance(31 * DAY_MS - 1);
  strictEqual((await keys.list({ limit: 10, ownerId: order.ownerId })).length, 1);
  clock.advance(1);
  strictEqual(await keys.read(key.id), undefined);
  for (const table of ["api_keys", "api_key_uses"]) {
    deepStrictEqual(await memory.list(table, { limit: 10 }), []);
  }
  strictEqual(await verdict(open(), text), "key_unknown");
});

Deno.test("ASVS V13.3.4: after a rotation with grace both secrets work until it ends, then the new one alone", async () => {
  const { keys, order, clock, open } = await openKeys();
  const { key, text } = await keys.create(order);
  strictEqual(await verdict(keys, text), "ok");
  clock.advance(5);
  const rotated = await keys.rotate(await found(keys, key.id), 60, "owner");
  ok(rotated);
  strictEqual(rotated.key.rotatedAtMs, clock.now());
  strictEqual(rotated.key.previousUntilMs, clock.now() + 60_000);
  strictEqual(rotated.key.lastUsedAtMs, clock.now() - 5);
  strictEqual(rotated.text.slice(0, 31), text.slice(0, 31));
  for (const [passMs, old] of [[0, "ok"], [59_999, "ok"], [1, "key_wrong"]] as const) {
    clock.advance(passMs);
    for (const each of [keys, open()]) {
      strictEqual(await verdict(each, rotated.text), "ok");
      strictEqual(await verdict(each, text), old);
      await each.flush();
    }
  }
});

Deno.test("after a rotation without grace the old secret is over at once", async () => {
  const { keys, order } = await openKeys();
  const { key, text } = await keys.create(order);
  await keys.verify(text);
  const rotated = await keys.rotate(await found(keys, key.id), 0, "owner");
  ok(rotated);
  const verified = keys.verify(text);
  ok(verified instanceof Promise, "what was at hand is not any more");
  deepStrictEqual(await verified, { ok: false, reason: "key_wrong" });
  strictEqual(await verdict(keys, rotated.text), "ok");
  strictEqual(rotated.key.previousUntilMs, null);
  await keys.flush();
});

Deno.test("a second rotation within the grace ends the oldest secret, and no grace outlives the key", async () => {
  const { keys, order, clock } = await openKeys();
  const { key, text } = await keys.create(order);
  const second = await keys.rotate(await found(keys, key.id), 7 * 86_400, "owner");
  const third = await keys.rotate(await found(keys, key.id), 7 * 86_400, "owner");
  ok(second && third);
  const verdicts = async () =>
    await Promise.all([text, second.text, third.text].map((each) => verdict(keys, each)));
  deepStrictEqual(await verdicts(), ["key_wrong", "ok", "ok"]);
  clock.advance(DAY_MS);
  deepStrictEqual(await verdicts(), ["key_wrong", "key_expired", "key_expired"]);
  await keys.flush();
});

Deno.test("ASVS V7.4.1: a removed key is over at once, at hand or not, and cannot be changed any more", async () => {
  const { keys, order, memory } = await openKeys();
  const { key, text } = await keys.create(order);
  strictEqual(await verdict(keys, text), "ok");
  const kept = await found(keys, key.id);
  strictEqual(await keys.remove(kept), true);
  strictEqual(await verdict(keys, text), "key_unknown");
  strictEqual(await keys.read(key.id), undefined);
  strictEqual(await keys.remove(kept), false);
  strictEqual(await keys.rotate(kept, 60, "owner"), undefined);
  await keys.flush();
  deepStrictEqual(await memory.list("api_keys", { limit: 10 }), []);
  deepStrictEqual(await memory.list("api_key_uses", { limit: 10 }), []);
});

Deno.test("a key that was being read while it was removed is not kept at hand", async () => {
  const { keys, order, state } = await openKeys();
  const { key, text } = await keys.create(order);
  const kept = await found(keys, key.id);
  const { promise, resolve } = Promise.withResolvers<void>();
  state.afterRead = () => promise;
  const reading = keys.verify(text);
  strictEqual(await keys.remove(kept), true);
  resolve();
  await reading;
  strictEqual(await verdict(keys, text), "key_unknown");
  await keys.flush();
});

Deno.test("a write that failed after it was made leaves nothing old at hand", async () => {
  const { keys, order, state, memory } = await openKeys();
  const { key, text } = await keys.create(order);
  await keys.verify(text);
  const kept = await found(keys, key.id);
  await keys.flush();
  state.beforeWrite = async () => {
    await memory.delete("api_keys", key.id);
    throw new Fault("unavailable", "the answer was lost");
  };
  await rejects(keys.remove(kept), { kind: "unavailable" });
  strictEqual(await verdict(keys, text), "key_unknown");
});

Deno.test("ASVS V15.4.2: of changes made at once to what was read once, exactly one is made", async () => {
  const { keys, order } = await openKeys();
  const { key, text } = await keys.create(order);
  const kept = await found(keys, key.id);
  const rotations = await Promise.all(Array.from({ length: 10 }, () => keys.rotate(kept, 0, "owner")));
  const made = rotations.filter((rotated) => rotated !== undefined);
  strictEqual(made.length, 1);
  strictEqual(await verdict(keys, made[0]?.text ?? ""), "ok");
  strictEqual(await verdict(keys, text), "key_wrong");
  strictEqual(await keys.remove(kept), false, "it was rotated meanwhile");
  const again = await found(keys, key.id);
  const [rotated, removed] = await Promise.all([keys.rotate(again, 0, "owner"), keys.remove(again)]);
  notStrictEqual(rotated === undefined, !removed, "one of them");
  await keys.flush();
});

Deno.test("a use is no change of the key: it stands in the way of no rotation and no removal", async () => {
  const { keys, order, clock } = await openKeys();
  const { key, text } = await keys.create(order);
  const kept = await found(keys, key.id);
  await keys.verify(text);
  await keys.flush();
  const rotated = await keys.rotate(kept, 0, "owner");
  ok(rotated);
  strictEqual(rotated.key.lastUsedAtMs, clock.now());
  const next = await found(keys, key.id);
  await keys.verify(rotated.text);
  await keys.flush();
  strictEqual(await keys.remove(next), true);
});

Deno.test("a verification is synchronous once the record is at hand, and then reads nothing", async () => {
  const { keys, order, state, open } = await openKeys();
  const { key, text } = await keys.create(order);
  const reopened = open();
  const loaded = reopened.verify(text);
  ok(loaded instanceof Promise);
  await loaded;
  await reopened.flush();
  state.reads = [];
  const verified = reopened.verify(text);
  ok(!(verified instanceof Promise) && verified.ok);
  strictEqual(reopened.verify(text), verified, "made once");
  deepStrictEqual(reopened.verify(`${key.id}_${"A".repeat(43)}`), { ok: false, reason: "key_wrong" });
  deepStrictEqual(state.reads, []);
  await keys.flush();
});

Deno.test("an unknown id is asked for once in ten seconds", async () => {
  const { keys, state, clock } = await openKeys();
  const text = `${newId("pck", clock.now())}_${"A".repeat(43)}`;
  state.reads = [];
  strictEqual(await verdict(keys, text), "key_unknown");
  clock.advance(9999);
  deepStrictEqual(keys.verify(text), { ok: false, reason: "key_unknown" });
  strictEqual(state.reads.length, 1);
  clock.advance(1);
  strictEqual(await verdict(keys, text), "key_unknown");
  strictEqual(state.reads.length, 2);
});

Deno.test("what is at hand is bounded: known keys by number, unknown ids by ten thousand; the oldest goes", async () => {
  const { open, order, state, clock } = await openKeys(3);
  const keys = open();
  const made = [];
  for (let count = 0; count < 4; count++) made.push((await keys.create(order)).text);
  for (const text of made) strictEqual(await verdict(keys, text), "ok");
  await keys.flush();
  state.reads = [];
  const again = made.map((text) => keys.verify(text));
  deepStrictEqual(again.map((verified) => verified instanceof Promise), [true, false, false, false]);
  await Promise.all(again);
  await keys.flush();
  const unknown = Array.from({ length: 10_001 }, () => `${newId("pck", clock.now())}_${"A".repeat(43)}`);
  for (const text of unknown) await keys.verify(text);
  const [first = "", second = ""] = unknown;
  strictEqual(keys.verify(second) instanceof Promise, false);
  const verified = keys.verify(first);
  strictEqual(verified instanceof Promise, true);
  await verified;
});

Deno.test("last uses are written once a minute at most, and a flush writes the rest", async () => {
  const { keys, order, clock, state, open } = await openKeys();
  const { key, text } = await keys.create(order);
  let writes = 0;
  state.beforeWrite = () => Promise.resolve(void writes++);
  for (let second = 0; second < 60; second++) {
    strictEqual(await verdict(keys, text), "ok");
    clock.advance(1000);
  }
  strictEqual((await found(keys, key.id)).value.lastUsedAtMs, clock.now() - 1000);
  await keys.flush();
  strictEqual(writes, 2, "the first use and the last one");
  strictEqual((await found(open(), key.id)).value.lastUsedAtMs, clock.now() - 1000);
});

Deno.test("ASVS V16.5.2: a store that takes no last use fails no request, and gets it later", async () => {
  const { keys, order, clock, state, open } = await openKeys();
  const { key, text } = await keys.create(order);
  state.failsWrites = true;
  strictEqual(await verdict(keys, text), "ok");
  const usedAtMs = clock.now();
  await rejects(keys.flush(), { kind: "unavailable" });
  strictEqual((await found(keys, key.id)).value.lastUsedAtMs, usedAtMs);
  state.failsWrites = false;
  clock.advance(1);
  await keys.flush();
  strictEqual((await found(open(), key.id)).value.lastUsedAtMs, usedAtMs);
});

Deno.test("ASVS V16.5.3: a key that is not at hand is a fault when the store fails, never a yes and never unknown for long", async () => {
  const { keys, order, state } = await openKeys();
  const { text } = await keys.create(order);
  state.failsReads = true;
  await rejects(async () => await keys.verify(text), { kind: "unavailable" });
  state.failsReads = false;
  strictEqual(await verdict(keys, text), "ok");
  await keys.flush();
});

Deno.test("a rotation that was written is always shown: nothing is read behind the write", async () => {
  const { keys, order, state } = await openKeys();
  const { key } = await keys.create(order);
  const kept = await found(keys, key.id);
  state.beforeWrite = () => Promise.resolve(void (state.failsReads = true));
  const rotated = await keys.rotate(kept, 0, "owner");
  state.failsReads = false;
  strictEqual(await verdict(keys, rotated?.text ?? ""), "ok");
  await keys.flush();
});

Deno.test("refused texts are no uses", async () => {
  const { keys, order, clock } = await openKeys();
  const { key, text } = await keys.create(order);
  await keys.verify(`${key.id}_${"A".repeat(43)}`);
  clock.advance(DAY_MS);
  await keys.verify(text);
  await keys.flush();
  strictEqual((await found(keys, key.id)).value.lastUsedAtMs, null);
});

Deno.test("keys are listed by age, page by page, all of them or one owner's", async () => {
  const { keys, order, clock } = await openKeys();
  // One owner's id is the beginning of another's.
  const owners = ["usr_1", "usr_10", "usr_2"];
  const ids: Record<string, string[]> = { usr_1: [], usr_10: [], usr_2: [] };
  const all: string[] = [];
  for (let count = 0; count < 9; count++) {
    clock.advance(1);
    const ownerId = owners[count % 3] ?? "";
    const { key } = await keys.create({ ...order, ownerId });
    ids[ownerId]?.push(key.id);
    all.push(key.id);
  }
  const idsOf = async (page: Parameters<Keys["list"]>[0]) => (await keys.list(page)).map(({ id }) => id);
  deepStrictEqual(await idsOf({ limit: 100 }), all);
  deepStrictEqual(await idsOf({ limit: 4, after: all[3] ?? "" }), all.slice(4, 8));
  for (const ownerId of owners) {
    const own = ids[ownerId] ?? [];
    deepStrictEqual(await idsOf({ limit: 100, ownerId }), own);
    deepStrictEqual(await idsOf({ limit: 2, ownerId }), own.slice(0, 2));
    deepStrictEqual(await idsOf({ limit: 2, ownerId, after: own[0] ?? "" }), own.slice(1));
    deepStrictEqual(await idsOf({ limit: 2, ownerId, after: "~" }), []);
  }
  deepStrictEqual(await idsOf({ limit: 2, ownerId: "usr_3" }), []);
  const [listed] = await keys.list({ limit: 1 });
  deepStrictEqual(listed, (await found(keys, all[0] ?? "")).value);
});

Deno.test("a page stays full when a key goes while it is read: one that is not full would be the last", async () => {
  const { keys, order, memory, clock } = await openKeys();
  const ids: string[] = [];
  for (let count = 0; count < 5; count++) {
    clock.advance(1);
    ids.push((await keys.create(order)).key.id);
  }
  await memory.delete("api_keys", ids[1] ?? "");
  await memory.delete("api_keys", ids[2] ?? "");
  const listed = await keys.list({ limit: 3, ownerId: order.ownerId });
  deepStrictEqual(listed.map(({ id }) => id), [ids[0], ids[3], ids[4]]);
});

Deno.test("ASVS V7.4.2: all keys of an owner are removed together, whatever was changed meanwhile, and nobody else's", async () => {
  const { keys, order, clock, memory } = await openKeys();
  const other = await keys.create({ ...order, ownerId: `${order.ownerId}0` });
  const own: { readonly key: { readonly id: string }; readonly text: string }[] = [];
  for (let count = 0; count < 120; count++) own.push(await keys.create(order));
  for (const { text } of own) strictEqual(await verdict(keys, text), "ok");
  const first = await found(keys, own[0]?.key.id ?? "");
  const [removed, rotated] = await Promise.all([
    keys.removeAllOf(order.ownerId),
    keys.rotate(first, 0, "owner"),
  ]);
  strictEqual(removed, 120);
  for (const text of [...own.map(({ text }) => text), rotated?.text ?? ""]) {
    notStrictEqual(await verdict(keys, text), "ok");
  }
  strictEqual(await verdict(keys, other.text), "ok");
  deepStrictEqual(await keys.list({ limit: 10, ownerId: order.ownerId }), []);
  strictEqual(await keys.removeAllOf(order.ownerId), 0);
  clock.advance(1);
  await keys.flush();
  strictEqual((await memory.list("api_keys", { limit: 10 })).length, 1);
  strictEqual((await memory.list("api_key_uses", { limit: 10 })).length, 1);
});

Deno.test("whoever rotates a key has seen it; its owner alone has where the secret before is over at once", async () => {
  const { keys, order, open } = await openKeys();
  for (const seenByOthers of [false, true]) {
    const { key } = await keys.create({ ...order, seenByOthers });
    const seenAfter = async (graceSeconds: number, by: "owner" | "other"): Promise<boolean | undefined> => {
      const rotated = await keys.rotate(await found(keys, key.id), graceSeconds, by);
      strictEqual((await found(open(), key.id)).value.seenByOthers, rotated?.key.seenByOthers);
      return rotated?.key.seenByOthers;
    };
    deepStrictEqual(
      [
        key.seenByOthers,
        await seenAfter(60, "owner"),
        await seenAfter(60, "other"),
        await seenAfter(60, "owner"),
        await seenAfter(0, "owner"),
        await seenAfter(0, "other"),
      ],
      [seenByOthers, seenByOthers, true, true, false, true],
    );
  }
});

Deno.test("an owner's keys that others have seen are removed, and no key besides; of an old key nobody knows who has", async () => {
  const { keys, order, sealed } = await openKeys();
  const others = await keys.create({ ...order, ownerId: `${order.ownerId}0`, seenByOthers: true });
  const stay: string[] = [];
  const go: string[] = [];
  for (let count = 0; count < 250; count++) {
    const seenByOthers = count % 2 === 1;
    (seenByOthers ? go : stay).push((await keys.create({ ...order, seenByOthers })).text);
  }
  const old = await keys.create(order);
  const { seenByOthers: _, ...record } = await sealed("api_keys").get(old.key.id) as Record<
    string,
    JsonValue
  >;
  await sealed("api_keys").put(old.key.id, record);
  strictEqual((await found(keys, old.key.id)).value.seenByOthers, true);
  go.push(old.text);
  for (const text of [...stay, ...go]) strictEqual(await verdict(keys, text), "ok");

  strictEqual(await keys.removeSeenByOthers(order.ownerId), 126);
  for (const text of go) strictEqual(await verdict(keys, text), "key_unknown");
  for (const text of [...stay, others.text]) strictEqual(await verdict(keys, text), "ok");
  strictEqual((await keys.list({ ownerId: order.ownerId, limit: 1000 })).length, 125);
  strictEqual(await keys.removeSeenByOthers(order.ownerId), 0);
  await keys.flush();
});

Deno.test("keys, their uses and their rotations outlive a restart", async () => {
  const { keys, order, clock, open } = await openKeys();
  const { key, text } = await keys.create(order);
  await keys.verify(text);
  await keys.flush();
  const rotated = await keys.rotate(await found(keys, key.id), 60, "owner");
  clock.advance(1);
  const reopened = open();
  deepStrictEqual((await found(reopened, key.id)).value, rotated?.key);
  strictEqual(await verdict(reopened, text), "ok");
  strictEqual(await verdict(reopened, rotated?.text ?? ""), "ok");
  await reopened.flush();
});

Deno.test("an order whose grants, ranges, thumbprint or end cannot be read again is refused, field by field", async () => {
  const { keys, order, memory } = await openKeys();
  const wrong: [Partial<typeof order> | { boundTo: string }, string[]][] = [
    [{ scopes: ["model:infer", "model:fly", "key:read/theirs"] }, ["/scopes/1", "/scopes/2"]],
    [{ scopes: [""] }, ["/scopes/0"]],
    [{ addresses: ["10.0.0.0/8", "10.0.0.0/33", "example.org", ""] }, [
      "/addresses/1",
      "/addresses/2",
      "/addresses/3",
    ]],
    [{ boundTo: "short" }, ["/bound_to"]],
    [{ expiresAtMs: NaN }, ["/expires_at"]],
    [{ expiresAtMs: Infinity }, ["/expires_at"]],
    [{ expiresAtMs: 1.5 }, ["/expires_at"]],
  ];
  for (const [change, paths] of wrong) {
    await rejects(keys.create({ ...order, ...change }), (thrown) => {
      ok(thrown instanceof Fault);
      strictEqual(thrown.kind, "fields_invalid");
      deepStrictEqual(thrown.details.fields?.map(({ path }) => path), paths);
      return true;
    });
  }
  deepStrictEqual(await memory.list("api_keys", { limit: 10 }), []);
});

Deno.test("ASVS V10.3.2: a scope or a range of another version narrows to nothing and never widens", async () => {
  const { keys, order, sealed, open } = await openKeys();
  const { key, text } = await keys.create(order);
  const record = await sealed("api_keys").get(key.id) as Record<string, JsonValue>;
  await sealed("api_keys").put(key.id, {
    ...record,
    scopes: ["model:fly", "*"],
    addresses: ["fe80::%eth0/64"],
  });
  const reopened = open();
  const verified = await reopened.verify(text);
  ok(verified.ok);
  deepStrictEqual(verified.value.scope, []);
  strictEqual(verified.value.addressRanges.length, 1, "an empty list would be every address");
  for (const text of ["10.0.0.1", "fe80::1", "::", "0.0.0.0"]) {
    const address = parseAddress(text);
    ok(address.ok);
    ok(!verified.value.addressRanges.some((range) => rangeHolds(range, address.value)), text);
  }
  await reopened.flush();
});

Deno.test("a record of another form is a fault, for the gate too", async () => {
  const { keys, order, sealed, open } = await openKeys();
  const { key, text } = await keys.create(order);
  const record = await sealed("api_keys").get(key.id) as Record<string, JsonValue>;
  const broken: JsonValue[] = [null, 1, [], {}];
  for (const name of Object.keys(record).filter((name) => name !== "seenByOthers")) {
    broken.push(Object.fromEntries(Object.entries(record).filter(([member]) => member !== name)));
    broken.push({ ...record, [name]: true });
  }
  broken.push({ ...record, scopes: [1] }, { ...record, addresses: [null] }, {
    ...record,
    seenByOthers: "false",
  });
  for (const value of broken) {
    await sealed("api_keys").put(key.id, value);
    await rejects(async () => await open().verify(text), { kind: "unavailable" }, JSON.stringify(value));
    await rejects(open().read(key.id), { kind: "unavailable" });
  }
});

Deno.test("an id of a stranger that is none asks the store for nothing", async () => {
  const { keys, state } = await openKeys();
  state.reads = [];
  for (
    const id of ["", "pck_", "usr_".padEnd(30, "0"), `pck_${"0".repeat(25)}\u0000`, `pck_${"0".repeat(26)}\n`]
  ) {
    strictEqual(await keys.read(id), undefined);
  }
  deepStrictEqual(state.reads, []);
  doesNotThrow(() => keys.verify("\ud800"));
});

/** Keys at another instance over the same store, which is told by hand. */
async function openElsewhere() {
  const here = await openKeys();
  const { memory, keyRing, clock } = here;
  const feed = new ManualFeed();
  const sealed = (table: string) => sealedTable(memory, keyRing, table);
  return { ...here, feed, elsewhere: openApiKeys({ store: memory, sealed, keyRing, clock, feed }) };
}

Deno.test("ASVS V8.3.2: a key that one instance removes or rotates ends at the others once they are told, of it or of all", async () => {
  for (const tellsAll of [false, true]) {
    const { keys, elsewhere, feed, order } = await openElsewhere();
    const { key, text } = await keys.create(order);
    const told = tellsAll ? undefined : key.id;
    strictEqual(await verdict(elsewhere, text), "ok");
    const rotated = await keys.rotate(await found(keys, key.id), 0, "owner");
    ok(rotated);
    strictEqual(await verdict(elsewhere, text), "ok", "it is still at hand");
    await feed.tell("api_keys", told);
    strictEqual(await verdict(elsewhere, text), "key_wrong");
    strictEqual(await verdict(elsewhere, rotated.text), "ok");
    strictEqual(await keys.remove(await found(keys, key.id)), true);
    await feed.tell("api_keys", told);
    strictEqual(await verdict(elsewhere, rotated.text), "key_unknown");
    await Promise.all([keys.flush(), elsewhere.flush()]);
  }
});

Deno.test("a key that was asked for before another instance made it works once it is told, of it or of all", async () => {
  for (const tellsAll of [false, true]) {
    const { keys, elsewhere, feed, order, memory } = await openElsewhere();
    const { key, text } = await keys.create(order);
    const record = await memory.get("api_keys", key.id);
    ok(record);
    await memory.delete("api_keys", key.id);
    strictEqual(await verdict(elsewhere, text), "key_unknown");
    await memory.put("api_keys", key.id, record);
    strictEqual(await verdict(elsewhere, text), "key_unknown", "it is not asked for again at once");
    await feed.tell("api_keys", tellsAll ? undefined : key.id);
    strictEqual(await verdict(elsewhere, text), "ok");
    await elsewhere.flush();
  }
});

Deno.test("ASVS V8.3.2: a read that began before the telling is not kept after it", async () => {
  for (const tellsAll of [false, true]) {
    const { store, memory, state, sealed, keyRing, clock, keys, order } = await openKeys();
    const feed = new ManualFeed();
    const slow = openApiKeys({ store, sealed, keyRing, clock, feed });
    const { key, text } = await keys.create(order);
    state.afterRead = async () => {
      state.afterRead = () => Promise.resolve();
      await memory.delete("api_keys", key.id);
      await feed.tell("api_keys", tellsAll ? undefined : key.id);
    };
    strictEqual(await verdict(slow, text), "ok", "it was removed after it was asked for");
    strictEqual(await verdict(slow, text), "key_unknown");
    await slow.flush();
  }
});
