// Tests of public keys: each algorithm takes its own kind of key in its one form, and nothing that is secret, weak or meant for something else.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import {
  ALGORITHMS,
  importPublicKey,
  isSameAlgorithm,
  isSignatureAlgorithm,
  type SignatureAlgorithm,
  thumbprint,
} from "../../src/identity/public_key.ts";
import { parseJws, type UntrustedObject, verifyJws } from "../../src/identity/strict_jws.ts";
import { encodePart, forgeToken } from "./forge_token.ts";
import { makeForeignKey, makeForeignKeys } from "./foreign_key.ts";

const KEYS = makeForeignKeys();
const REFUSED = { ok: false, reason: "key_refused" };

const decode = (text = "") => Uint8Array.fromBase64(text, { alphabet: "base64url" });
const jwkOf = (algorithm: SignatureAlgorithm, members: UntrustedObject = {}): UntrustedObject => ({
  ...KEYS[algorithm].publicJwk,
  ...members,
});
const without = (jwk: UntrustedObject, name: string): UntrustedObject =>
  Object.fromEntries(Object.entries(jwk).filter(([member]) => member !== name));

/** Each JWK is refused for the algorithm, also where the runtime would have taken it. */
function refused(
  criterion: string,
  algorithm: SignatureAlgorithm,
  jwks: Readonly<Record<string, UntrustedObject>>,
): void {
  Deno.test(`${criterion} (${algorithm})`, async () => {
    strictEqual(
      (await importPublicKey(jwkOf(algorithm), algorithm)).ok,
      true,
      "the key that all are made from",
    );
    for (const [name, jwk] of Object.entries(jwks)) {
      deepStrictEqual(await importPublicKey(jwk, algorithm), REFUSED, name);
    }
  });
}

for (const algorithm of ALGORITHMS) {
  Deno.test(`a key of its kind is imported for ${algorithm} and verifies what its owner signed`, async () => {
    const key = await importPublicKey(jwkOf(algorithm), algorithm);
    ok(key.ok);
    strictEqual(key.value.extractable, false);
    deepStrictEqual(key.value.usages, ["verify"]);
    const jws = parseJws(forgeToken({ alg: algorithm }, { a: 1 }, KEYS[algorithm].signer));
    ok(jws.ok);
    strictEqual(await verifyJws(jws.value, key.value, algorithm), true);
  });
}

Deno.test("RFC 8725 §3.1: a key of another kind than the algorithm's is refused", async () => {
  for (const algorithm of ALGORITHMS) {
    for (const other of ALGORITHMS) {
      const taken = (await importPublicKey(jwkOf(other), algorithm)).ok;
      strictEqual(
        taken,
        isSameAlgorithm(algorithm, other) || `${algorithm} ${other}`.replaceAll("PS", "RS") === "RS256 RS256",
        `${other} key for ${algorithm}`,
      );
    }
  }
});

Deno.test("RFC 8725 §3.2: neither none nor a shared secret nor a name of Object's is an algorithm", () => {
  for (
    const alg of ["none", "None", "HS256", "ES512", "es256", "RS512", "constructor", "", null, 1, ["ES256"]]
  ) {
    strictEqual(isSignatureAlgorithm(alg), false, String(alg));
  }
  strictEqual(isSignatureAlgorithm(undefined), false);
  for (const algorithm of ALGORITHMS) strictEqual(isSignatureAlgorithm(algorithm), true);
});

for (const algorithm of ["EdDSA", "ES256", "RS256"] as const) {
  refused("a key with any private member is refused", algorithm, {
    "its private key": KEYS[algorithm].privateJwk,
    ...Object.fromEntries(
      ["d", "p", "q", "dp", "dq", "qi", "k", "oth"].flatMap((name) =>
        ["AQ", "", null, []].map((value) => [`${name} ${value}`, jwkOf(algorithm, { [name]: value })])
      ),
    ),
  });
  refused("RFC 7517 §4: a key that is meant for something else is refused", algorithm, {
    "for encryption": jwkOf(algorithm, { use: "enc" }),
    "use null": jwkOf(algorithm, { use: null }),
    "use of another form": jwkOf(algorithm, { use: "SIG" }),
    "for another algorithm": jwkOf(algorithm, { alg: "RS512" }),
    "for another algorithm of the same kind": jwkOf(algorithm, {
      alg: algorithm === "RS256" ? "PS256" : "HS256",
    }),
    "alg null": jwkOf(algorithm, { alg: null }),
    "for signing only": jwkOf(algorithm, { key_ops: ["sign"] }),
    "for nothing": jwkOf(algorithm, { key_ops: [] }),
    "key_ops no array": jwkOf(algorithm, { key_ops: "verify" }),
    "key_ops twice": jwkOf(algorithm, { key_ops: ["verify", "verify"] }),
    "key_ops of other types": jwkOf(algorithm, { key_ops: ["verify", 1] }),
    "kid no text": jwkOf(algorithm, { kid: 1 }),
  });
  refused("a secret key or a key of no kind is refused", algorithm, {
    "oct": { kty: "oct", k: "AAAA" },
    "oct with the public members": jwkOf(algorithm, { kty: "oct" }),
    "kty missing": without(jwkOf(algorithm), "kty"),
    "kty null": jwkOf(algorithm, { kty: null }),
    "kty in lower case": jwkOf(algorithm, { kty: String(KEYS[algorithm].publicJwk.kty).toLowerCase() }),
    "kty constructor": jwkOf(algorithm, { kty: "constructor" }),
    "empty": {},
  });
}

Deno.test("a key that says what it is for, rightly, is imported, and members that are nobody's are left behind", async () => {
  for (const algorithm of ALGORITHMS) {
    const jwk = jwkOf(algorithm, {
      use: "sig",
      alg: algorithm,
      kid: "one",
      key_ops: ["verify"],
      ext: false,
      x5c: ["AAAA"],
      x5u: "https://evil.example/cert",
    });
    strictEqual((await importPublicKey(jwk, algorithm)).ok, true, algorithm);
  }
});

/** Forms of one member that are not its canonical form, or not its size. */
function badForms(algorithm: SignatureAlgorithm, name: string): Record<string, UntrustedObject> {
  const text = KEYS[algorithm].publicJwk[name] ?? "";
  const bytes = decode(text);
  const forms: Readonly<Record<string, UntrustedObject[string]>> = {
    "null": null,
    "a number": 1,
    "an array": [text],
    "an object": { text },
    "empty": "",
    "padded": `${text}=`,
    "spaced": `${text} `,
    "cut": text.slice(0, -1),
    "longer by a zero in front": encodePart(new Uint8Array([0, ...bytes])),
    "shorter": encodePart(bytes.slice(1)),
    "longer": encodePart(new Uint8Array([...bytes, 0])),
    "in base64": `+/${text.slice(2)}`,
    "not ASCII": `é${text.slice(1)}`,
  };
  return {
    [`${name} missing`]: without(jwkOf(algorithm), name),
    ...Object.fromEntries(
      Object.entries(forms).map(([form, value]) => [`${name} ${form}`, jwkOf(algorithm, { [name]: value })]),
    ),
  };
}

refused("a member in any but its one form is refused", "EdDSA", {
  ...badForms("EdDSA", "x"),
  // 32 bytes leave two bits of the last character unused.
  "trailing bits": jwkOf("EdDSA", { x: loose(KEYS.EdDSA.publicJwk.x) }),
  "another curve": jwkOf("EdDSA", { crv: "X25519" }),
  "crv null": jwkOf("EdDSA", { crv: null }),
});
refused("a member in any but its one form is refused", "ES256", {
  ...badForms("ES256", "x"),
  ...badForms("ES256", "y"),
  "trailing bits": jwkOf("ES256", { y: loose(KEYS.ES256.publicJwk.y) }),
  "a curve that is not ours": jwkOf("ES256", { crv: "secp256k1" }),
  "the curve's other name": jwkOf("ES256", { crv: "prime256v1" }),
  "a larger curve's name": jwkOf("ES256", { crv: "P-384" }),
});
refused("a member in any but its one form is refused", "ES384", {
  ...badForms("ES384", "x"),
  ...badForms("ES384", "y"),
});
refused("a member in any but its one form is refused", "RS256", {
  ...badForms("RS256", "n"),
  ...badForms("RS256", "e"),
});

/** The text with the unused bits of its last character set: the same bytes for a loose decoder. */
function loose(text = ""): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  return text.slice(0, -1) + alphabet.charAt(alphabet.indexOf(text.slice(-1)) + 1);
}

const filled = (bytes: number, value: number) => encodePart(new Uint8Array(bytes).fill(value));
for (const [algorithm, bytes] of [["ES256", 32], ["ES384", 48]] as const) {
  refused("RFC 8725 §3.4: a point that is not on the curve is refused", algorithm, {
    "another y": jwkOf(algorithm, { y: filled(bytes, 1) }),
    "x and y exchanged": jwkOf(algorithm, {
      x: KEYS[algorithm].publicJwk.y ?? "",
      y: KEYS[algorithm].publicJwk.x ?? "",
    }),
    "zero": jwkOf(algorithm, { x: filled(bytes, 0), y: filled(bytes, 0) }),
    "beyond the field": jwkOf(algorithm, { x: filled(bytes, 255), y: filled(bytes, 255) }),
  });
}

// RFC 8032 §5.1: little-endian y, the top bit is the sign of x.
const point = (hex: string) => jwkOf("EdDSA", { x: encodePart(Uint8Array.fromHex(hex)) });
const SMALL_ORDER: Readonly<Record<string, string>> = {
  "order 1": "01" + "00".repeat(31),
  "order 2": "ec" + "ff".repeat(30) + "7f",
  "order 4": "00".repeat(32),
  "order 4, sign": "00".repeat(31) + "80",
  "order 8": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "order 8, sign": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
  "order 8, other": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "order 8, other, sign": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
};
refused("RFC 8032: a key under which anyone can sign, or that has a second form, is refused", "EdDSA", {
  ...Object.fromEntries(Object.entries(SMALL_ORDER).map(([name, hex]) => [name, point(hex)])),
  "on no curve": point("02" + "00".repeat(31)),
  "order 1, sign of nothing": point("01" + "00".repeat(30) + "80"),
  "y = p": point("ed" + "ff".repeat(30) + "7f"),
  "y = p + 1": point("ee" + "ff".repeat(30) + "7f"),
  "y = p + 3": point("f0" + "ff".repeat(30) + "7f"),
  "y = 2^255 - 1, sign": point("ff".repeat(32)),
});

Deno.test("RFC 8032: the keys of small order are refused for a reason: the runtime takes signatures that nobody made", async () => {
  const signature = Uint8Array.of(1, ...new Uint8Array(63)); // R is the neutral point, S is 0
  for (const [name, hex] of Object.entries(SMALL_ORDER)) {
    const jwk = { kty: "OKP", crv: "Ed25519", x: encodePart(Uint8Array.fromHex(hex)) };
    const key = await crypto.subtle.importKey("jwk", jwk, "Ed25519", false, ["verify"]);
    let taken = 0;
    for (let text = 0; text < 256 && taken === 0; text++) {
      if (await crypto.subtle.verify("Ed25519", key, signature, Uint8Array.of(text))) taken++;
    }
    strictEqual(taken, 1, name);
  }
});

Deno.test("an Ed25519 key near those that are refused is imported", async () => {
  let imported = 0;
  for (let first = 3; first < 40; first++) {
    const near = [
      first.toString(16).padStart(2, "0") + "00".repeat(31),
      (first + 0x80).toString(16) + "ff".repeat(30) + "7f",
    ];
    for (const hex of near) if ((await importPublicKey(point(hex), "EdDSA")).ok) imported++;
  }
  ok(imported > 20, `${imported}`); // half of all y are on the curve
});

const weak = makeForeignKey("RS256", 2048);
for (const algorithm of ["RS256", "PS256"] as const) {
  const modulus = decode(KEYS.RS256.publicJwk.n);
  refused("ASVS V11.2.3: an RSA key that is weak, or dear to check, is refused", algorithm, {
    "2048 bits": weak.publicJwk,
    "3071 bits": jwkOf(algorithm, { n: encodePart(modulus.with(0, 0x7f)) }),
    "4097 bits": jwkOf(algorithm, { n: encodePart(new Uint8Array([1, ...new Uint8Array(512).fill(255)])) }),
    "16384 bits": jwkOf(algorithm, { n: filled(2048, 255) }),
    ...Object.fromEntries(
      [[0], [1], [2], [3], [17], [1, 0, 0], [1, 0, 3], [1, 0, 0, 0, 1], Array(384).fill(255)]
        .map((e) => [`exponent ${e.slice(0, 8)}`, jwkOf(algorithm, { e: encodePart(Uint8Array.from(e)) })]),
    ),
  });
}

Deno.test("an RSA key of 4096 bits is imported", async () => {
  const n = encodePart(new Uint8Array(512).fill(255));
  strictEqual((await importPublicKey(jwkOf("RS256", { n }), "RS256")).ok, true);
});

Deno.test("RFC 7638 §3.1: the thumbprint of the standard's example is the standard's", async () => {
  const jwk = {
    kty: "RSA",
    n: "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs" +
      "tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbI" +
      "SD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    e: "AQAB",
    alg: "RS256",
    kid: "2011-04-29",
  };
  deepStrictEqual(await thumbprint(jwk), { ok: true, value: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" });
});

Deno.test("RFC 9449 §6.1, RFC 8037 A.3: the thumbprints of the standards' EC and OKP keys are the standards'", async () => {
  deepStrictEqual(
    await thumbprint({
      kty: "EC",
      x: "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
      y: "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
      crv: "P-256",
    }),
    { ok: true, value: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" },
  );
  deepStrictEqual(
    await thumbprint({ kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
    { ok: true, value: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" },
  );
});

Deno.test("a thumbprint goes by the key alone, and what has another form has none", async () => {
  for (const algorithm of ALGORITHMS) {
    const plain = await thumbprint(jwkOf(algorithm));
    ok(plain.ok);
    deepStrictEqual(
      await thumbprint(jwkOf(algorithm, { kid: "x", use: "enc", alg: "none", ext: true })),
      plain,
    );
    deepStrictEqual(await thumbprint(KEYS[algorithm].privateJwk), REFUSED);
  }
  deepStrictEqual(await thumbprint(jwkOf("ES256", { y: loose(KEYS.ES256.publicJwk.y) })), REFUSED);
  deepStrictEqual(await thumbprint({ kty: "oct", k: "AAAA" }), REFUSED);
  deepStrictEqual(await thumbprint({}), REFUSED);
});

Deno.test("property: no object throws, and none that is imported differs from the key in the members that make it", async () => {
  const names = ["kty", "crv", "x", "y", "n", "e", "use", "alg", "key_ops", "kid", "d", "k"];
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(
      "OKP",
      "EC",
      "RSA",
      "oct",
      "sig",
      "verify",
      ...ALGORITHMS,
      ...Object.values(KEYS.ES256.publicJwk),
    ),
  ) as fc.Arbitrary<UntrustedObject[string]>;
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...ALGORITHMS),
      fc.dictionary(fc.constantFrom(...names), value, { maxKeys: 4 }),
      async (algorithm, members) => {
        const jwk = jwkOf(algorithm, members as UntrustedObject);
        await thumbprint(members as UntrustedObject);
        if (!(await importPublicKey(jwk, algorithm)).ok) return;
        const { x, y } = KEYS.ES256.publicJwk;
        // Half of all texts of 32 bytes are a key of Ed25519: another one, and as good.
        if (KEYS[algorithm].publicJwk.kty === "OKP" && [x, y].some((text) => text === jwk.x)) return;
        const ofKey = Object.entries(KEYS[algorithm].publicJwk);
        deepStrictEqual(ofKey.map(([name]) => jwk[name]), ofKey.map(([, text]) => text));
      },
    ),
    { numRuns: 300 },
  );
});
