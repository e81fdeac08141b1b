// Tests of the sealing of bytes: AES-256-GCM as it is written down, bound to key, header and place.
import { deepStrictEqual, notDeepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { createCipheriv, createDecipheriv } from "node:crypto";
import fc from "fast-check";
import { encodeUtf8 } from "../../src/encoding/utf8.ts";
import { Fault } from "../../src/faults/fault.ts";
import { importSealingKey, open, seal, sealingKeyIdOf } from "../../src/vault/aead.ts";

const RAW = Uint8Array.from({ length: 32 }, (_, index) => index);
const KEY_ID = "key_test";
const PLACE = "users/abc";
const PLAIN = encodeUtf8("portcullis");
const key = await importSealingKey(KEY_ID, RAW);

const isUnopened = (thrown: unknown): true => {
  ok(thrown instanceof Fault);
  strictEqual(thrown.kind, "unavailable");
  ok(thrown.message.startsWith("Cannot open a sealed value: "));
  return true;
};

Deno.test("a sealed value opens with its key at its place, and is longer than its plain text by header, nonce and tag", async () => {
  for (const plain of [new Uint8Array(), PLAIN, crypto.getRandomValues(new Uint8Array(10_000))]) {
    const sealed = await seal(key, PLACE, plain);
    strictEqual(sealed.length, 2 + KEY_ID.length + 12 + plain.length + 16);
    deepStrictEqual(await open(key, PLACE, sealed), plain);
  }
});

Deno.test("a value that was sealed by version 1 still opens", async () => {
  deepStrictEqual(
    await open(
      key,
      PLACE,
      Uint8Array.fromHex(
        "01086b65795f7465737485ba35acb2573e4ed63a0af67e445b41d1b047ce5de9fa3149a3417a7f044ba4ab691e9854e7",
      ),
    ),
    PLAIN,
  );
});

Deno.test("the layout is the documented one: another implementation of AES-256-GCM opens what we seal", async () => {
  const sealed = await seal(key, PLACE, PLAIN);
  strictEqual(sealed[0], 1);
  strictEqual(sealed[1], KEY_ID.length);
  deepStrictEqual(sealed.slice(2, 10), encodeUtf8(KEY_ID));
  const decipher = createDecipheriv("aes-256-gcm", RAW, sealed.slice(10, 22));
  decipher.setAAD(encodeUtf8(`portcullis\u00001\u0000${KEY_ID}\u0000${PLACE}`));
  decipher.setAuthTag(sealed.slice(-16));
  const plain = [...decipher.update(sealed.slice(22, -16)), ...decipher.final()];
  deepStrictEqual(Uint8Array.from(plain), PLAIN);
});

Deno.test("the layout is the documented one: we open what another implementation of AES-256-GCM seals", async () => {
  const nonce = crypto.getRandomValues(new Uint8Array(12));
  const cipher = createCipheriv("aes-256-gcm", RAW, nonce);
  cipher.setAAD(encodeUtf8(`portcullis\u00001\u0000${KEY_ID}\u0000${PLACE}`));
  const ciphertext = [...cipher.update(PLAIN), ...cipher.final()];
  const sealed = [1, KEY_ID.length, ...encodeUtf8(KEY_ID), ...nonce, ...ciphertext, ...cipher.getAuthTag()];
  deepStrictEqual(await open(key, PLACE, Uint8Array.from(sealed)), PLAIN);
});

Deno.test("ASVS V11.3.3: a sealed value with any one bit turned does not open", async () => {
  const sealed = await seal(key, PLACE, PLAIN);
  for (let index = 0; index < sealed.length; index++) {
    for (let bit = 1; bit <= 128; bit *= 2) {
      const altered = sealed.slice();
      altered[index] = (altered[index] ?? 0) ^ bit;
      await rejects(open(key, PLACE, altered), isUnopened, `byte ${index} bit ${bit}`);
    }
  }
});

Deno.test("a sealed value that was cut or grown anywhere does not open", async () => {
  const sealed = await seal(key, PLACE, PLAIN);
  for (let length = 0; length < sealed.length; length++) {
    await rejects(open(key, PLACE, sealed.slice(0, length)), isUnopened, `cut to ${length}`);
  }
  await rejects(open(key, PLACE, Uint8Array.of(...sealed, 0)), isUnopened);
  await rejects(open(key, PLACE, Uint8Array.of(0, ...sealed)), isUnopened);
});

Deno.test("a sealed value does not open at another place", async () => {
  const sealed = await seal(key, PLACE, PLAIN);
  for (
    const place of ["users/abd", "users/ab", "users/abcd", "Users/abc", "users\u0000abc", "", "file/abc"]
  ) {
    await rejects(open(key, place, sealed), isUnopened, place);
  }
});

Deno.test("a sealed value does not open under another key, whether or not the key has the same id", async () => {
  const sealed = await seal(key, PLACE, PLAIN);
  const otherRaw = RAW.toReversed();
  await rejects(open(await importSealingKey(KEY_ID, otherRaw), PLACE, sealed), isUnopened);
  await rejects(open(await importSealingKey("key_other", RAW), PLACE, sealed), isUnopened);
});

Deno.test("id and place cannot change places: the border between them is bound as well", async () => {
  const one = await importSealingKey("key", RAW);
  const two = await importSealingKey("key_", RAW);
  const sealed = await seal(one, "_place", PLAIN);
  const renamed = Uint8Array.of(1, 4, ...encodeUtf8("key_"), ...sealed.slice(5));
  await rejects(open(two, "place", renamed), isUnopened);
});

Deno.test("ASVS V11.3.4: the same plain text sealed many times gives as many nonces and as many texts", async () => {
  const sealed = await Promise.all(Array.from({ length: 500 }, () => seal(key, PLACE, PLAIN)));
  strictEqual(new Set(sealed.map((each) => each.slice(10, 22).toHex())).size, 500);
  strictEqual(new Set(sealed.map((each) => each.slice(22, -16).toHex())).size, 500);
});

Deno.test("ASVS V11.2.2: a sealed value names its key", async () => {
  for (const id of ["k", "key_01k9", "x".repeat(255)]) {
    const named = await importSealingKey(id, RAW);
    const sealed = await seal(named, PLACE, PLAIN);
    strictEqual(sealingKeyIdOf(sealed), id);
    deepStrictEqual(await open(named, PLACE, sealed), PLAIN);
  }
});

Deno.test("the key's id of what is no sealed value is a fault", () => {
  const bytes = [[], [1], [1, 0], [2, 0, ...Array(40).fill(0)], [1, 255, ...Array(40).fill(65)], [
    1,
    1,
    0xff,
    ...Array(40).fill(0),
  ]];
  for (const each of bytes) throws(() => sealingKeyIdOf(Uint8Array.from(each)), isUnopened);
});

Deno.test("a sealing key's bytes cannot be taken out of it again", async () => {
  await rejects(crypto.subtle.exportKey("raw", key.key));
});

Deno.test("property: any bytes come back from any place, and no sealed value shows its plain text", async () => {
  await fc.assert(fc.asyncProperty(fc.uint8Array({ minLength: 8 }), fc.string(), async (drawn, place) => {
    const plain = Uint8Array.from(drawn);
    const sealed = await seal(key, place, plain);
    notDeepStrictEqual(sealed.slice(22, -16), plain);
    deepStrictEqual(await open(key, place, sealed), plain);
  }));
});

Deno.test("property: bytes that nobody sealed never open and never surface as another error", async () => {
  const nearly = fc.uint8Array({ maxLength: 80 }).map((bytes) =>
    Uint8Array.of(1, KEY_ID.length, ...encodeUtf8(KEY_ID), ...bytes)
  );
  await fc.assert(fc.asyncProperty(fc.oneof(nearly, fc.uint8Array()), async (bytes) => {
    await rejects(open(key, PLACE, Uint8Array.from(bytes)), isUnopened);
  }));
});
