// Tests of signing keys: an Ed25519 key in PKCS #8, its public half alone for others, and no other kind of key.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import { Fault } from "../../src/faults/fault.ts";
import { generateSigningKey, openSigningKeys } from "../../src/identity/signing_keys.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
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
  const keyRing = await openKeyRing(store, parseMasterKey(generateMasterKey()), clock);
  return { clock, store, table: sealedTable(store, keyRing, "signing_keys") };
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
