// Tests of the trail's keys.
import { deepStrictEqual, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { followVouchers, isSameKey } from "../../src/audit/trail/key_voucher.ts";
import { formatVerifierKey, noteSigner } from "../../src/audit/trail/signed_note.ts";
import {
  type OpenTrailKeys,
  openTrailKeys,
  TRAIL_KEYS_TABLE,
  type TrailKeys,
  type TrailSigningKey,
} from "../../src/audit/trail_keys.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { type KeyRing, openKeyRing } from "../../src/vault/key_ring.ts";
import { localMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { manualClock } from "../support/manual_clock.ts";
import { ManualFeed } from "../support/manual_feed.ts";

const DAY_MS = 86_400_000;

/** One store on which several instances open their keys. */
async function installation(): Promise<{
  readonly clock: ReturnType<typeof manualClock>;
  readonly store: RecordStore;
  readonly keyRing: KeyRing;
  open(options?: { sealed?: boolean; feed?: ManualFeed }): Promise<OpenTrailKeys>;
}> {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const keyRing = await openKeyRing(store, localMasterKey(new Uint8Array(32)), clock);
  return {
    clock,
    store,
    keyRing,
    open: ({ sealed = false, feed = new ManualFeed() } = {}) =>
      openTrailKeys({ store, keyRing, feed, clock, sealed }),
  };
}

Deno.test("the first start makes a signing key, later ones have the same, and no sealing key where nothing is sealed", async () => {
  const world = await installation();
  const first = await world.open();
  deepStrictEqual(first.made, [{ kind: "audit_signing", key: first.current().signing.id }]);
  const second = await world.open();
  deepStrictEqual(second.made, []);
  deepStrictEqual(second.current(), first.current());
  strictEqual(first.current().sealing, undefined);
  strictEqual(first.sealingKeys().size, 0);
});

Deno.test("the name under which checkpoints are signed is the installation's, and the public key the private key's", async () => {
  const world = await installation();
  const { name, signing } = (await world.open()).current();
  strictEqual(name, `portcullis.${world.keyRing.mark.value.toHex().slice(0, 16)}`);
  deepStrictEqual(noteSigner(name, signing.pkcs8).publicKey, signing.publicKey);
});

Deno.test("a sealed trail gets a new sealing key at a start, unless there is one of the last day, and opens all older ones", async () => {
  const world = await installation();
  const first = (await world.open({ sealed: true })).current().sealing;
  ok(first !== undefined);
  world.clock.advance(DAY_MS - 1);
  const again = await world.open({ sealed: true });
  deepStrictEqual(again.current().sealing, first);
  world.clock.advance(1);
  const next = await world.open({ sealed: true });
  deepStrictEqual(next.made.map(({ kind }) => kind), ["audit_sealing"]);
  notStrictEqual(next.current().sealing?.id, first.id);
  deepStrictEqual(next.sealingKeys().get(first.id), first.raw);
  // A trail that is no longer sealed is still read.
  const plain = await world.open();
  strictEqual(plain.current().sealing, undefined);
  strictEqual(plain.sealingKeys().size, 2);
});

Deno.test("a rotation makes both keys new, keeps what verifies the one before, and tells of each before it is stored", async () => {
  const world = await installation();
  const keys = await world.open({ sealed: true });
  const before = keys.current();
  const changes: TrailKeys[] = [];
  keys.onChange((changed) => changes.push(changed));
  const records: [string, string][] = [];
  await keys.rotate((kind, id) => {
    strictEqual(keys.current(), before);
    records.push([kind, id]);
    return Promise.resolve();
  });
  const after = keys.current();
  deepStrictEqual(changes, [after]);
  deepStrictEqual(records, [["audit_signing", after.signing.id], ["audit_sealing", after.sealing?.id]]);
  notStrictEqual(after.signing.id, before.signing.id);
  notStrictEqual(after.sealing?.id, before.sealing?.id);
  deepStrictEqual(after.older.map(publicPart), [publicPart(before.signing)]);
  await keys.rotate();
  deepStrictEqual(keys.current().older.map(publicPart), [after.signing, before.signing].map(publicPart));
  deepStrictEqual((await world.open({ sealed: true })).current(), keys.current());
});

/** What may be left of a signing key. */
function publicPart({ id, madeAtMs, publicKey }: Omit<TrailSigningKey, "pkcs8">) {
  return { id, madeAtMs, publicKey };
}

/** Whom somebody trusts who has pinned a key and follows the vouchers. */
function trustedFrom({ name, older, signing }: TrailKeys, pinned: TrailSigningKey): boolean {
  const trusted = [{ name, publicKey: pinned.publicKey }];
  followVouchers(older.map(({ voucher }) => voucher).reverse(), trusted);
  return trusted.some((key) => isSameKey(key, { name, publicKey: signing.publicKey }));
}

Deno.test("vouchers lead from every signing key to the newest, and of those that were replaced no private key is left", async () => {
  const world = await installation();
  const keys = await world.open();
  const signing = [keys.current().signing];
  for (let change = 0; change < 3; change++) {
    await keys.rotate();
    signing.push(keys.current().signing);
  }
  for (const each of signing) ok(trustedFrom(keys.current(), each));
  const stranger = { ...keys.current().signing, publicKey: new Uint8Array(32) };
  strictEqual(trustedFrom(keys.current(), stranger), false);
  const table = sealedTable(world.store, world.keyRing, TRAIL_KEYS_TABLE);
  const records = await table.list({ limit: 10 });
  deepStrictEqual(
    records.map(({ value }) => Object.hasOwn(Object(value), "pkcs8")),
    [false, false, false, true],
  );
});

Deno.test("the verifier keys are all signing keys, the newest last", async () => {
  const world = await installation();
  const keys = await world.open();
  const lines: string[] = [];
  const publish = () => {
    const { name, signing } = keys.current();
    lines.push(formatVerifierKey({ name, publicKey: signing.publicKey }));
    strictEqual(keys.verifierKeys(), lines.map((line) => `${line}\n`).join(""));
  };
  publish();
  await keys.rotate();
  publish();
  await keys.rotate();
  publish();
});

Deno.test("two instances that change the keys at the same moment leave one row of vouchers", async () => {
  const world = await installation();
  const [one, other] = [await world.open({ sealed: true }), await world.open({ sealed: true })];
  const { signing } = one.current();
  await Promise.all([one.rotate(), other.rotate(), world.keyRing.rotate(() => Promise.resolve())]);
  const { current } = await world.open({ sealed: true });
  strictEqual(current().older.length, 2);
  ok(trustedFrom(current(), signing));
});

Deno.test("a rotation that cannot be recorded changes nothing", async () => {
  const world = await installation();
  const keys = await world.open();
  const before = keys.current();
  await rejects(keys.rotate(() => Promise.reject(new Error("no disk"))), /no disk/);
  strictEqual(keys.current(), before);
  deepStrictEqual((await world.open()).current(), before);
});

Deno.test("a clock that went back does not keep a new key from being the newest", async () => {
  const world = await installation();
  const keys = await world.open({ sealed: true });
  const before = keys.current();
  world.clock.jumpWall(-100 * DAY_MS);
  await keys.rotate();
  notStrictEqual(keys.current().signing.id, before.signing.id);
  notStrictEqual(keys.current().sealing?.id, before.sealing?.id);
  await keys.renewSealing();
  strictEqual(keys.sealingKeys().size, 3);
});

Deno.test("another instance takes the new keys when the feed tells of them", async () => {
  const world = await installation();
  const feed = new ManualFeed();
  const [one, other] = [await world.open(), await world.open({ feed })];
  const changes: TrailKeys[] = [];
  other.onChange((changed) => changes.push(changed));
  await one.rotate();
  await feed.tell(TRAIL_KEYS_TABLE, undefined);
  deepStrictEqual(changes, [one.current()]);
  await feed.tell(TRAIL_KEYS_TABLE, undefined);
  strictEqual(changes.length, 1);
});

Deno.test("no key rests in the clear", async () => {
  const world = await installation();
  const keys = await world.open({ sealed: true });
  const { signing, sealing } = keys.current();
  const records = await world.store.list(TRAIL_KEYS_TABLE, { limit: 10 });
  strictEqual(records.length, 2);
  for (const { value } of records) {
    const hex = value.toHex();
    for (const secret of [signing.pkcs8.subarray(-32), sealing?.raw ?? new Uint8Array()]) {
      const text = new TextEncoder().encode(
        secret.toBase64({ alphabet: "base64url", omitPadding: true }).slice(3, 39),
      );
      ok(!hex.includes(secret.toHex()) && !hex.includes(text.toHex()));
    }
  }
});
