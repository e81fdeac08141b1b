// Tests of the sealing of bytes: AES-256-GCM as it is written down, bound to key, header and place.
import { deepStrictEqual, notDeepStrictEqual, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";
import fc from "fast-check";
import { encodeUtf8 } from "../../src/encoding/utf8.ts";
import { Fault } from "../../src/faults/fault.ts";
import {
  importSealingKey,
  open,
  reseal,
  revisionOf,
  seal,
  sealingKeyIdIn,
  sealingKeyIdOf,
} from "../../src/vault/aead.ts";

const RAW = Uint8Array.from({ length: 32 }, (_, index) => index);
const KEY_ID = "key_test";
const PLACE = "users/abc";
const PLAIN = encodeUtf8("portcullis");
const key = await importSealingKey(KEY_ID, RAW);

/** Where the parts of a value are that `key` sealed. */
const SALT_AT = 2 + KEY_ID.length;
const COUNTER_AT = SALT_AT + 16;
const TEXT_AT = COUNTER_AT + 4 + 1;

/** What no two values may have in common. */
function useOf(sealed: Uint8Array): string {
  return sealed.slice(SALT_AT, TEXT_AT - 1).toHex();
}

/** A sub-key, by another implementation of HKDF. */
function subKeyOf(salt: Uint8Array, raw: Uint8Array = RAW): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", raw, salt, `portcullis seal 2\u0000${KEY_ID}`, 32));
}

/** An AES-256-GCM of another implementation. */
function encrypt(raw: Uint8Array, nonce: Uint8Array, additional: Uint8Array, plain: Uint8Array): Uint8Array {
  const cipher = createCipheriv("aes-256-gcm", raw, nonce);
  cipher.setAAD(additional);
  return Uint8Array.from([...cipher.update(plain), ...cipher.final(), ...cipher.getAuthTag()]);
}

const isUnopened = (thrown: unknown): true => {
  ok(thrown instanceof Fault);
  strictEqual(thrown.kind, "unavailable");
  ok(thrown.message.startsWith("Cannot open a sealed value: "));
  return true;
};

Deno.test("a sealed value opens with its key at its place, and is longer than its plain text by header, nonce and tag", async () => {
  for (const plain of [new Uint8Array(), PLAIN, crypto.getRandomValues(new Uint8Array(10_000))]) {
    const sealed = await seal(key, PLACE, plain);
    strictEqual(sealed.length, 2 + KEY_ID.length + 16 + 4 + 1 + plain.length + 16);
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

Deno.test("the other implementation gives the vectors of RFC 5869 (A.1) and of GCM's specification (14 and 16)", () => {
  strictEqual(
    new Uint8Array(
      hkdfSync(
        "sha256",
        new Uint8Array(22).fill(0x0b),
        Uint8Array.fromHex("000102030405060708090a0b0c"),
        Uint8Array.fromHex("f0f1f2f3f4f5f6f7f8f9"),
        42,
      ),
    ).toHex(),
    "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
  );
  strictEqual(
    encrypt(new Uint8Array(32), new Uint8Array(12), new Uint8Array(), new Uint8Array(16)).toHex(),
    "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
  );
  strictEqual(
    encrypt(
      Uint8Array.fromHex("feffe9928665731c6d6a8f9467308308".repeat(2)),
      Uint8Array.fromHex("cafebabefacedbaddecaf888"),
      Uint8Array.fromHex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
      Uint8Array.fromHex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
      ),
    ).toHex(),
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662" +
      "76fc6ece0f4e1768cddf8853bb2d551b",
  );
});

Deno.test("the layout is the documented one: other implementations of HKDF and AES-256-GCM open what we seal", async () => {
  await seal(key, PLACE, PLAIN);
  const sealed = await seal(key, PLACE, PLAIN);
  strictEqual(sealed[0], 2);
  strictEqual(sealed[1], KEY_ID.length);
  deepStrictEqual(sealed.slice(2, SALT_AT), encodeUtf8(KEY_ID));
  strictEqual(sealed[TEXT_AT - 1], 0, "the length of the revision");
  const nonce = Uint8Array.of(...new Uint8Array(8), ...sealed.slice(COUNTER_AT, COUNTER_AT + 4));
  const decipher = createDecipheriv("aes-256-gcm", subKeyOf(sealed.slice(SALT_AT, COUNTER_AT)), nonce);
  decipher.setAAD(
    Uint8Array.of(...encodeUtf8("portcullis\u0000"), ...sealed.slice(0, TEXT_AT), ...encodeUtf8(PLACE)),
  );
  decipher.setAuthTag(sealed.slice(-16));
  const plain = [...decipher.update(sealed.slice(TEXT_AT, -16)), ...decipher.final()];
  deepStrictEqual(Uint8Array.from(plain), PLAIN);
});

Deno.test("the layout is the documented one: we open what other implementations seal, with and without a revision", async () => {
  for (const revision of [new Uint8Array(), crypto.getRandomValues(new Uint8Array(16))]) {
    const salt = crypto.getRandomValues(new Uint8Array(16));
    const counter = Uint8Array.of(0xff, 0xff, 0xff, 0xfe);
    const header = Uint8Array.of(
      2,
      KEY_ID.length,
      ...encodeUtf8(KEY_ID),
      ...salt,
      ...counter,
      revision.length,
      ...revision,
    );
    const nonce = Uint8Array.of(...new Uint8Array(8), ...counter);
    const additional = Uint8Array.of(...encodeUtf8("portcullis\u0000"), ...header, ...encodeUtf8(PLACE));
    const sealed = Uint8Array.of(...header, ...encrypt(subKeyOf(salt), nonce, additional, PLAIN));
    deepStrictEqual(await open(key, PLACE, sealed), PLAIN);
    if (revision.length > 0) deepStrictEqual(revisionOf(sealed), revision);
  }
});

Deno.test("version 1 is what it was: we open what another implementation of AES-256-GCM seals", async () => {
  const nonce = crypto.getRandomValues(new Uint8Array(12));
  const additional = encodeUtf8(`portcullis\u00001\u0000${KEY_ID}\u0000${PLACE}`);
  const text = encrypt(RAW, nonce, additional, PLAIN);
  const sealed = Uint8Array.of(1, KEY_ID.length, ...encodeUtf8(KEY_ID), ...nonce, ...text);
  deepStrictEqual(await open(key, PLACE, sealed), PLAIN);
  await rejects(open(key, `${PLACE}x`, sealed), isUnopened);
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
  const renamed = Uint8Array.of(2, 4, ...encodeUtf8("key_"), ...sealed.slice(5));
  await rejects(open(two, "place", renamed), isUnopened);
});

Deno.test("ASVS V11.3.4: the same plain text sealed many times, many at once, gives as many nonces and as many texts", async () => {
  const sealed = await Promise.all(Array.from({ length: 500 }, () => seal(key, PLACE, PLAIN)));
  strictEqual(new Set(sealed.map(useOf)).size, 500);
  strictEqual(new Set(sealed.map((each) => each.slice(COUNTER_AT, COUNTER_AT + 4).toHex())).size, 500);
  strictEqual(new Set(sealed.map((each) => each.slice(TEXT_AT, -16).toHex())).size, 500);
  for (const each of sealed) deepStrictEqual(await open(key, PLACE, each), PLAIN);
});

Deno.test("ASVS V11.3.4: when the nonces of a salt are used up another salt is drawn, also for those who come at once", async () => {
  const small = await importSealingKey(KEY_ID, RAW, { usesMax: 3 });
  const sealed = await Promise.all(Array.from({ length: 10 }, () => seal(small, PLACE, PLAIN)));
  deepStrictEqual(
    sealed.map((each) => each[COUNTER_AT + 3]),
    [0, 1, 2, 0, 1, 2, 0, 1, 2, 0],
  );
  strictEqual(new Set(sealed.map((each) => each.slice(SALT_AT, COUNTER_AT).toHex())).size, 4);
  for (const each of sealed) deepStrictEqual(await open(key, PLACE, each), PLAIN);
});

Deno.test("property: whatever is sealed before and after restarts and crashes, by however many processes, no nonce meets a key twice", async () => {
  const seen = new Set<string>();
  let sealings = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(4), { minLength: 1, maxLength: 8 }), async (runs) => {
      // Each number is a process that opens the same key and seals so often; of the last one nobody sees the result.
      await Promise.all(runs.map(async (times) => {
        const opened = await importSealingKey(KEY_ID, RAW);
        const sealed = await Promise.all(Array.from({ length: times + 1 }, () => seal(opened, PLACE, PLAIN)));
        for (const each of sealed) {
          seen.add(useOf(each));
          sealings++;
        }
      }));
      strictEqual(seen.size, sealings);
    }),
  );
});

Deno.test("a resealed value is the same under another key: its revision stays, however often, and another sealing has another", async () => {
  const first = await seal(key, PLACE, PLAIN);
  const others = [
    await importSealingKey("key_b", RAW.toReversed()),
    await importSealingKey("key_c", RAW.with(0, 9)),
  ];
  const old = Uint8Array.fromHex(
    "01086b65795f7465737485ba35acb2573e4ed63a0af67e445b41d1b047ce5de9fa3149a3417a7f044ba4ab691e9854e7",
  );
  for (const sealed of [first, old]) {
    let [from, value] = [key, sealed];
    for (const to of others) {
      const next = await reseal(from, to, PLACE, value);
      strictEqual(sealingKeyIdOf(next), to.id);
      deepStrictEqual(await open(to, PLACE, next), PLAIN);
      deepStrictEqual(revisionOf(next), revisionOf(sealed));
      await rejects(open(to, "users/other", next), isUnopened);
      [from, value] = [to, next];
    }
    await rejects(reseal(key, key, "users/other", sealed), isUnopened);
  }
  notDeepStrictEqual(revisionOf(await seal(key, PLACE, PLAIN)), revisionOf(first));
  strictEqual(revisionOf(first).length, 16);
});

Deno.test("ASVS V11.3.3: the revision of a resealed value cannot be changed either", async () => {
  const to = await importSealingKey("key_next", RAW.toReversed());
  const sealed = await reseal(key, to, PLACE, await seal(key, PLACE, PLAIN));
  for (let index = 0; index < sealed.length; index++) {
    await rejects(open(to, PLACE, sealed.with(index, (sealed[index] ?? 0) ^ 1)), isUnopened, `byte ${index}`);
  }
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
  const zeros = Array(60).fill(0);
  const bytes = [
    [],
    [1],
    [1, 0],
    [1, 0, ...zeros],
    [2, 0, ...zeros],
    [3, 1, 65, ...zeros],
    [0, 1, 65, ...zeros],
    [1, 255, ...Array(60).fill(65)],
    [2, 255, ...Array(60).fill(65)],
    [1, 1, 0xff, ...zeros],
    [2, 1, 65, ...zeros.with(20, 15)],
    [2, 1, 65, ...Array(36).fill(0)],
  ].map((each) => Uint8Array.from(each));
  for (const each of bytes) {
    throws(() => sealingKeyIdOf(each), isUnopened);
    strictEqual(sealingKeyIdIn(each), undefined);
  }
  strictEqual(sealingKeyIdIn(Uint8Array.from([2, 1, 65, ...Array(37).fill(0)])), "A");
});

Deno.test("a sealing key's bytes cannot be taken out of it again", async () => {
  const { key: subKey } = await key.next();
  for (const each of [key.whole, subKey]) await rejects(crypto.subtle.exportKey("raw", each));
  await rejects(importSealingKey("", RAW));
  await rejects(importSealingKey("key", RAW.slice(1)));
});

Deno.test("property: any bytes come back from any place, and no sealed value shows its plain text", async () => {
  await fc.assert(fc.asyncProperty(fc.uint8Array({ minLength: 8 }), fc.string(), async (drawn, place) => {
    const plain = Uint8Array.from(drawn);
    const sealed = await seal(key, place, plain);
    notDeepStrictEqual(sealed.slice(TEXT_AT, -16), plain);
    deepStrictEqual(await open(key, place, sealed), plain);
  }));
});

Deno.test("property: bytes that nobody sealed never open and never surface as another error", async () => {
  const nearly = fc.uint8Array({ maxLength: 80 }).map((bytes) =>
    Uint8Array.of(1 + bytes.length % 2, KEY_ID.length, ...encodeUtf8(KEY_ID), ...bytes)
  );
  await fc.assert(fc.asyncProperty(fc.oneof(nearly, fc.uint8Array()), async (bytes) => {
    await rejects(open(key, PLACE, Uint8Array.from(bytes)), isUnopened);
  }));
});
