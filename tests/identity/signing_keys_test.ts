// Tests of signing keys: an Ed25519 key in PKCS #8, its public half alone for others, and no other kind of key.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import { Fault } from "../../src/faults/fault.ts";
import { generateSigningKey, openSigningKeys } from "../../src/identity/signing_keys.ts";
import { type ChangeFeed, NO_OTHERS } from "../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { withStartLock } from "../../src/store/start_lock.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { ManualFeed } from "../support/manual_feed.ts";
import { manualClock } from "../support/manual_clock.ts";

const OVERLAP_MS = 3_600_000;

Deno.test("a generated signing key is PKCS #8 that others read as Ed25519, and another each time", async () => {
  const pem = await generateSigningKey();
  match(pem, /^-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=]+\n-----END PRIVATE KEY-----\n$/);
  strictEqual(createPrivateKey(pem).asymmetricKeyType, "ed25519");
  ok(await generateSigningKey() !== pem);
});

/** Keys over a store of their own. */
async function open(configured: string | undefined, before?: Awaited<ReturnType<typeof openVault>>) {
  const vault = before ?? await openVault();
  const recorded: (readonly [string | null, string])[] = [];
  const recordRotation = (...rotation: [string | null, string]): Promise<void> =>
    Promise.resolve(void recorded.push(rotation));
  return {
    ...vault,
    recorded,
    keys: await openSigningKeys({ ...vault, configured, overlapMs: OVERLAP_MS, recordRotation }),
  };
}

async function openVault() {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const keyRing = await openKeyRing(store, localMasterKey(parseMasterKey(generateMasterKey())), clock);
  const table = sealedTable(store, keyRing, "signing_keys");
  return { clock, store, table, feed: NO_OTHERS as ChangeFeed, signsAfterMs: 0 };
}

Deno.test("RFC 8037 §2, RFC 7638: the JWK set is the public half, named by its thumbprint, and nothing private", async () => {
  const pem = await generateSigningKey();
  const { keys } = await open(pem);
  const { x } = createPublicKey(createPrivateKey(pem)).export({ format: "jwk" });
  const kid = createHash("sha256").update(`{"crv":"Ed25519","kty":"OKP","x":"${x}"}`).digest("base64url");
  deepStrictEqual(keys.jwks(), { keys: [{ kty: "OKP", crv: "Ed25519", x, kid, use: "sig", alg: "EdDSA" }] });
  strictEqual(keys.active().keyId, kid);
});

Deno.test("a key is found by its exact id only, and is a public key that verifies", async () => {
  const { keys } = await open(undefined);
  const key = keys.publicKey(keys.active().keyId);
  deepStrictEqual([key?.type, key?.usages], ["public", ["verify"]]);
  for (
    const id of ["", `${keys.active().keyId} `, keys.active().keyId.toUpperCase(), "__proto__", "constructor"]
  ) {
    strictEqual(keys.publicKey(id), undefined, id);
  }
});

Deno.test("ASVS V11.1.1: the private key cannot be taken out of the process's key object", async () => {
  const { privateKey } = (await open(undefined)).keys.active();
  strictEqual(privateKey.extractable, false);
  await rejects(crypto.subtle.exportKey("pkcs8", privateKey));
});

Deno.test("the same PEM gives the same key id", async () => {
  const pem = await generateSigningKey();
  strictEqual((await open(pem)).keys.active().keyId, (await open(pem)).keys.active().keyId);
});

Deno.test("keys of other kinds and broken ones are a fault that repeats none of them", async () => {
  const pem = await generateSigningKey();
  const pkcs8 = (key: ReturnType<typeof createPrivateKey>) =>
    key.export({ format: "pem", type: "pkcs8" }) as string;
  const others = [
    pkcs8(generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey),
    pkcs8(generateKeyPairSync("x25519").privateKey),
    pkcs8(generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey),
    createPublicKey(createPrivateKey(pem)).export({ format: "pem", type: "spki" }) as string,
    "",
    "not a key",
    pem.replace("MC4C", "MC4D"),
    pem.replace(/[A-Za-z0-9+/=]{20}\n-----END/, "\n-----END"),
  ];
  for (const other of others) {
    await rejects(open(other), (thrown) => {
      ok(thrown instanceof Fault);
      strictEqual(thrown.kind, "unavailable");
      match(thrown.message, /^Cannot open the signing key: it is no Ed25519 private key in PKCS #8 \(\w+\)$/);
      strictEqual(thrown.cause, undefined);
      return true;
    });
  }
});

Deno.test("a key that nobody configured is made once and is there after a restart", async () => {
  const first = await open(undefined);
  const again = await open(undefined, first);
  strictEqual(again.keys.active().keyId, first.keys.active().keyId);
});

Deno.test("ASVS V13.3.4: after a rotation the new key signs, the old one verifies until its tokens have expired, and the set shows both", async () => {
  const { keys, clock } = await open(undefined);
  const old = keys.active().keyId;
  clock.advance(1000);
  const next = await keys.rotate();
  ok(next !== old);
  strictEqual(keys.active().keyId, next);
  deepStrictEqual(keys.jwks().keys.map(({ kid }) => kid), [next, old]);
  deepStrictEqual(keys.list().map(({ keyId, state }) => [keyId, state]), [[next, "active"], [
    old,
    "retired",
  ]]);
  clock.advance(OVERLAP_MS - 1);
  ok(keys.publicKey(old));
  clock.advance(1);
  strictEqual(keys.publicKey(old), undefined);
  deepStrictEqual(keys.jwks().keys.map(({ kid }) => kid), [next]);
  ok(keys.publicKey(next));
});

Deno.test("a rotation outlives a restart, and nothing that could sign is kept of the old key", async () => {
  const before = await open(undefined);
  const old = before.keys.active().keyId;
  before.clock.advance(1);
  const next = await before.keys.rotate();
  const { keys, table } = await open(undefined, before);
  deepStrictEqual([keys.active().keyId, keys.publicKey(old) !== undefined], [next, true]);
  const kept = await table.get(old) as Record<string, unknown>;
  deepStrictEqual(Object.keys(kept).sort(), ["createdAtMs", "retiredAtMs", "x"]);
});

Deno.test("a key of the settings that the store has never seen signs from then on; one that was rotated out stays out", async () => {
  const [one, two] = [await generateSigningKey(), await generateSigningKey()];
  const first = await open(one);
  const oneId = first.keys.active().keyId;
  first.clock.advance(1);
  const second = await open(two, first);
  const twoId = second.keys.active().keyId;
  ok(twoId !== oneId);
  ok(second.keys.publicKey(oneId), "tokens of the key before are good until they expire");
  second.clock.advance(1);
  const rotated = await second.keys.rotate();
  second.clock.advance(10 * OVERLAP_MS);
  for (const configured of [one, two, undefined]) {
    strictEqual((await open(configured, second)).keys.active().keyId, rotated);
  }
});

Deno.test("ASVS V16.3.3: a key that begins to sign at an opening is recorded, and nothing where it goes on signing", async () => {
  const [one, two] = [await generateSigningKey(), await generateSigningKey()];
  const first = await open(undefined);
  const generated = first.keys.active().keyId;
  deepStrictEqual(first.recorded, [[null, generated]]);
  deepStrictEqual((await open(undefined, first)).recorded, []);
  first.clock.advance(1);
  const second = await open(one, first);
  deepStrictEqual(second.recorded, [[generated, second.keys.active().keyId]]);
  deepStrictEqual((await open(one, first)).recorded, []);
  await second.keys.rotate();
  deepStrictEqual(second.recorded.length, 1, "whoever asks for a rotation records it");
  deepStrictEqual((await open(one, first)).recorded, []);
  const fresh = await open(two);
  deepStrictEqual(fresh.recorded, [[null, fresh.keys.active().keyId]]);
});

Deno.test("a rotation at an opening that cannot be recorded does not happen, and the record is there before it does", async () => {
  const vault = await openVault();
  const { keys } = await open(undefined, vault);
  vault.clock.advance(1);
  const pem = await generateSigningKey();
  const options = { ...vault, configured: pem, overlapMs: OVERLAP_MS };
  const recordRotation = async (): Promise<void> => {
    strictEqual((await vault.store.list("signing_keys", { limit: 10 })).length, 1);
    throw new Fault("unavailable", "the trail is full");
  };
  await rejects(openSigningKeys({ ...options, recordRotation }), { kind: "unavailable" });
  strictEqual((await open(undefined, vault)).keys.active().keyId, keys.active().keyId);
});

Deno.test("of two rotations at once over one store one is refused, and one key signs", async () => {
  const vault = await openVault();
  const one = await open(undefined, vault);
  const other = await open(undefined, vault);
  vault.clock.advance(1);
  const outcomes = await Promise.allSettled([one.keys.rotate(), other.keys.rotate()]);
  deepStrictEqual(outcomes.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
  const refused = outcomes.find((outcome) => outcome.status === "rejected");
  strictEqual(
    refused?.status === "rejected" && refused.reason instanceof Fault && refused.reason.kind,
    "conflict",
  );
  const states = (await open(undefined, vault)).keys.list().map(({ state }) => state);
  deepStrictEqual(states, ["active", "retired"]);
});

/** Two instances over one store; each is told of the other's keys by hand. */
async function openTwo(signsAfterMs = 1000) {
  const vault = await openVault();
  const [hereFeed, thereFeed] = [new ManualFeed(), new ManualFeed()];
  const here = await open(undefined, { ...vault, feed: hereFeed, signsAfterMs });
  const there = await open(undefined, { ...vault, feed: thereFeed, signsAfterMs });
  return { ...vault, hereFeed, thereFeed, here: here.keys, there: there.keys };
}

Deno.test("a key that one instance makes verifies at the others once they are told, and the one before goes on verifying", async () => {
  for (const told of ["", undefined]) {
    const { here, there, thereFeed, clock } = await openTwo();
    const old = here.active().keyId;
    strictEqual(there.active().keyId, old);
    clock.advance(1);
    const next = await here.rotate();
    strictEqual(there.publicKey(next), undefined);
    await thereFeed.tell("signing_keys", told);
    ok(there.publicKey(next) && there.publicKey(old));
    deepStrictEqual(there.jwks(), here.jwks());
    deepStrictEqual(there.list(), here.list());
  }
});

Deno.test("a new key signs when it has been known for as long as others may take to hear of it, and the key before until then", async () => {
  const { here, there, thereFeed, clock } = await openTwo();
  const old = here.active().keyId;
  clock.advance(1);
  const next = await here.rotate();
  deepStrictEqual(here.list().map(({ keyId, state }) => [keyId, state]), [[next, "active"], [
    old,
    "retired",
  ]]);
  strictEqual(here.active().keyId, old);
  clock.advance(400);
  await thereFeed.tell("signing_keys", next);
  clock.jumpWall(86_400_000); // a wall clock hastens nothing
  clock.advance(599);
  deepStrictEqual([here.active().keyId, there.active().keyId], [old, old]);
  clock.advance(1);
  deepStrictEqual([here.active().keyId, there.active().keyId], [next, old]);
  clock.advance(400);
  deepStrictEqual([here.active().keyId, there.active().keyId], [next, next]);
});

Deno.test("of rotations close together each key signs in its turn, and an instance that starts among them signs with the last", async () => {
  const { here, clock, store, table } = await openTwo();
  const ids = [here.active().keyId];
  for (let rotation = 0; rotation < 2; rotation++) {
    clock.advance(400);
    ids.push(await here.rotate());
  }
  const signing: (string | undefined)[] = [];
  for (let step = 0; step < 4; step++) {
    signing.push(here.active().keyId);
    clock.advance(300);
  }
  // Made at 400 and 800 of the clock, which is asked at 800, 1100, 1400 and 1700.
  deepStrictEqual(signing, [ids[0], ids[0], ids[1], ids[1]]);
  clock.advance(0);
  strictEqual(here.active().keyId, ids[2]);
  const late = await open(undefined, { store, table, clock, feed: new ManualFeed(), signsAfterMs: 1000 });
  strictEqual(late.keys.active().keyId, ids[2]);
});

Deno.test("tokens that the key before signed for a little longer are good until they expire", async () => {
  const { here, there, thereFeed, clock } = await openTwo();
  const old = here.active().keyId;
  await here.rotate();
  clock.advance(1000);
  await thereFeed.tell("signing_keys", undefined);
  clock.advance(999);
  strictEqual(there.active().keyId, old, "the last moment at which it signs");
  clock.advance(OVERLAP_MS);
  ok(here.publicKey(old));
  clock.advance(1);
  strictEqual(here.publicKey(old), undefined);
});

Deno.test("where another instance rotated meanwhile a rotation is refused, and the next one is made", async () => {
  const { here, there, store, table, clock } = await openTwo(0);
  clock.advance(1);
  const next = await here.rotate();
  await rejects(there.rotate(), { kind: "conflict" });
  strictEqual(there.active().keyId, next, "from now on it knows");
  clock.advance(1);
  const last = await there.rotate();
  const states = (await open(undefined, { store, table, clock, feed: NO_OTHERS, signsAfterMs: 0 })).keys
    .list();
  deepStrictEqual(states.filter(({ state }) => state === "active").map(({ keyId }) => keyId), [last]);
});

Deno.test("two instances that start at once on an empty store, under the start lock, have one key", async () => {
  const vault = await openVault();
  const start = () => withStartLock(vault.store, vault.clock, () => open(undefined, vault));
  const [one, other] = await Promise.all([start(), start()]);
  strictEqual(one.keys.active().keyId, other.keys.active().keyId);
  strictEqual((await vault.store.list("signing_keys", { limit: 10 })).length, 1);
  strictEqual(one.recorded.length + other.recorded.length, 1);
});

Deno.test("two active keys, however they came to be, are retired together, and all instances choose the same of them", async () => {
  const vault = await openVault();
  const both = await Promise.all([open(undefined, vault), open(undefined, vault)]);
  const again = await open(undefined, vault);
  const third = await open(undefined, vault);
  strictEqual(again.keys.active().keyId, third.keys.active().keyId);
  strictEqual((await vault.store.list("signing_keys", { limit: 10 })).length, 2, "nothing kept them apart");
  ok(both.some(({ keys }) => keys.active().keyId === again.keys.active().keyId));
  vault.clock.advance(1);
  const last = await again.keys.rotate();
  const states = (await open(undefined, vault)).keys.list().map((
    { keyId, state },
  ) => [keyId === last, state]);
  deepStrictEqual(states, [[true, "active"], [false, "retired"], [false, "retired"]]);
});

Deno.test("what was read before a rotation is not kept after it", async () => {
  const vault = await openVault();
  const feed = new ManualFeed();
  const steps: (() => Promise<unknown>)[] = [];
  const table = {
    ...vault.table,
    async list(page: Parameters<typeof vault.table.list>[0]) {
      const found = await vault.table.list(page);
      await steps.shift()?.();
      return found;
    },
  };
  const { keys } = await open(undefined, { ...vault, table, feed });
  vault.clock.advance(1);
  let next = "";
  steps.push(async () => next = await keys.rotate());
  await feed.tell("signing_keys", undefined);
  strictEqual(keys.active().keyId, next);
});
