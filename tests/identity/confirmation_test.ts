// Tests of confirmation: a token is bound to a key by its thumbprint or to nothing; every other way is refused.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { encodeBase64url } from "../../src/encoding/base64url.ts";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import { isThumbprint, parseConfirmation } from "../../src/identity/confirmation.ts";

/** The example of RFC 9449 §6.1. */
const THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
const REFUSED = { ok: false, reason: "confirmation_refused" };

Deno.test("RFC 9449 §6.1: a confirmation is the thumbprint of the key", () => {
  deepStrictEqual(parseConfirmation({ jkt: THUMBPRINT }), { ok: true, value: THUMBPRINT });
});

Deno.test("a token without the claim is bound to nothing", () => {
  deepStrictEqual(parseConfirmation(undefined), { ok: true, value: null });
});

Deno.test("ASVS V10.3.5: any other way to confirm is refused, alone and beside a thumbprint, and never as good as none", () => {
  const others: Readonly<Record<string, JsonValue>> = {
    "x5t#S256": THUMBPRINT,
    jwk: { kty: "OKP", crv: "Ed25519", x: THUMBPRINT },
    jwe: "e30.e30.e30.e30.e30",
    jku: "https://attacker.example.com",
    kid: "1",
    "": "",
    JKT: THUMBPRINT,
    unknown: null,
  };
  for (const [name, value] of Object.entries(others)) {
    deepStrictEqual(parseConfirmation({ [name]: value }), REFUSED, name);
    deepStrictEqual(parseConfirmation({ jkt: THUMBPRINT, [name]: value }), REFUSED, name);
  }
  deepStrictEqual(parseConfirmation(JSON.parse(`{"jkt":"${THUMBPRINT}","__proto__":{}}`)), REFUSED);
  deepStrictEqual(parseConfirmation(JSON.parse(`{"__proto__":{"jkt":"${THUMBPRINT}"}}`)), REFUSED);
});

Deno.test("a claim of another form is refused, and so is an empty one", () => {
  const values: readonly JsonValue[] = [null, true, 0, "", THUMBPRINT, [], [THUMBPRINT], [{
    jkt: THUMBPRINT,
  }], {}];
  for (const value of values) deepStrictEqual(parseConfirmation(value), REFUSED, JSON.stringify(value));
});

const NO_THUMBPRINTS: readonly JsonValue[] = [
  null,
  43,
  true,
  "",
  [THUMBPRINT],
  { jkt: THUMBPRINT },
  THUMBPRINT.slice(1),
  `${THUMBPRINT}A`,
  `${THUMBPRINT}=`,
  ` ${THUMBPRINT}`,
  `${THUMBPRINT}\n`,
  THUMBPRINT.replace("-", "+"),
  // The same bytes by another text: the last bits have to be zero (RFC 4648 §3.5).
  `${THUMBPRINT.slice(0, -1)}J`,
  `${THUMBPRINT.slice(0, -1)}\u0130`,
  encodeBase64url(new Uint8Array(31)),
  encodeBase64url(new Uint8Array(33)),
  // SHA-1 and SHA-512.
  encodeBase64url(new Uint8Array(20)),
  encodeBase64url(new Uint8Array(64)),
];

Deno.test("RFC 7638: a thumbprint is the base64url of 32 bytes and nothing else", () => {
  strictEqual(isThumbprint(THUMBPRINT), true);
  strictEqual(isThumbprint(undefined), false);
  for (const value of NO_THUMBPRINTS) {
    strictEqual(isThumbprint(value), false, JSON.stringify(value));
    deepStrictEqual(parseConfirmation({ jkt: value }), REFUSED, JSON.stringify(value));
  }
});

Deno.test("property: the thumbprint of any 32 bytes is taken as it is, and no other value of JSON is", () => {
  const bytes = fc.uint8Array({ minLength: 30, maxLength: 34 });
  fc.assert(fc.property(bytes, (hash) => {
    const jkt = encodeBase64url(hash);
    deepStrictEqual(parseConfirmation({ jkt }), hash.length === 32 ? { ok: true, value: jkt } : REFUSED);
  }));
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    deepStrictEqual(parseConfirmation(value as JsonValue), REFUSED);
  }));
});
