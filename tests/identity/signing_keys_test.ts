// Tests of signing keys: an Ed25519 key in PKCS #8, its public half alone for others, and no other kind of key.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import { Fault } from "../../src/faults/fault.ts";
import { generateSigningKey, openSigningKeys } from "../../src/identity/signing_keys.ts";

Deno.test("a generated signing key is PKCS #8 that others read as Ed25519, and another each time", async () => {
  const pem = await generateSigningKey();
  match(pem, /^-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=]+\n-----END PRIVATE KEY-----\n$/);
  strictEqual(createPrivateKey(pem).asymmetricKeyType, "ed25519");
  ok(await generateSigningKey() !== pem);
});

Deno.test("RFC 8037 §2, RFC 7638: the JWK set is the public half, named by its thumbprint, and nothing private", async () => {
  const pem = await generateSigningKey();
  const keys = await openSigningKeys(pem);
  const { x } = createPublicKey(createPrivateKey(pem)).export({ format: "jwk" });
  const kid = createHash("sha256").update(`{"crv":"Ed25519","kty":"OKP","x":"${x}"}`).digest("base64url");
  deepStrictEqual(keys.jwks, { keys: [{ kty: "OKP", crv: "Ed25519", x, kid, use: "sig", alg: "EdDSA" }] });
  strictEqual(keys.activeKeyId, kid);
});

Deno.test("a key is found by its exact id only, and is a public key that verifies", async () => {
  const keys = await openSigningKeys(await generateSigningKey());
  const key = keys.publicKey(keys.activeKeyId);
  deepStrictEqual([key?.type, key?.usages], ["public", ["verify"]]);
  for (const id of ["", `${keys.activeKeyId} `, keys.activeKeyId.toUpperCase(), "__proto__", "constructor"]) {
    strictEqual(keys.publicKey(id), undefined, id);
  }
});

Deno.test("ASVS V11.1.1: the private key cannot be taken out of the process's key object", async () => {
  const { privateKey } = await openSigningKeys(await generateSigningKey());
  strictEqual(privateKey.extractable, false);
  await rejects(crypto.subtle.exportKey("pkcs8", privateKey));
});

Deno.test("the same PEM gives the same key id", async () => {
  const pem = await generateSigningKey();
  strictEqual((await openSigningKeys(pem)).activeKeyId, (await openSigningKeys(pem)).activeKeyId);
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
    await rejects(openSigningKeys(other), (thrown) => {
      ok(thrown instanceof Fault);
      strictEqual(thrown.kind, "unavailable");
      match(thrown.message, /^Cannot open the signing key: it is no Ed25519 private key in PKCS #8 \(\w+\)$/);
      strictEqual(thrown.cause, undefined);
      return true;
    });
  }
});
