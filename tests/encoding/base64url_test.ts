// Tests of base64url: RFC 4648's vectors, and one text for each byte string.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { decodeBase64url, encodeBase64url } from "../../src/encoding/base64url.ts";
import { encodeUtf8 } from "../../src/encoding/utf8.ts";

const refused = { ok: false, reason: "not_base64url" };

Deno.test("RFC 4648 §10: the test vectors, without their padding", () => {
  for (
    const [plain, text] of [
      ["", ""],
      ["f", "Zg"],
      ["fo", "Zm8"],
      ["foo", "Zm9v"],
      ["foob", "Zm9vYg"],
      ["fooba", "Zm9vYmE"],
      ["foobar", "Zm9vYmFy"],
    ] as const
  ) {
    strictEqual(encodeBase64url(encodeUtf8(plain)), text);
    deepStrictEqual(decodeBase64url(text), { ok: true, value: encodeUtf8(plain) });
  }
});

Deno.test("RFC 4648 §5: the two letters of the URL alphabet are - and _", () => {
  const bytes = Uint8Array.of(0xfb, 0xff, 0xfe);
  strictEqual(encodeBase64url(bytes), "-__-");
  deepStrictEqual(decodeBase64url("-__-"), { ok: true, value: bytes });
});

Deno.test("other alphabets, padding, white space and impossible lengths are refused", () => {
  for (
    const text of [
      "+//+",
      "Zg==",
      "Zm8=",
      "Zg=",
      "=",
      "Zm9v\n",
      " Zm9v",
      "Zm\t9v",
      "Zm9v\u0000",
      "Zm9vé",
      "Zm9v.",
      "A",
      "Zm9vY",
    ]
  ) deepStrictEqual(decodeBase64url(text), refused, JSON.stringify(text));
});

Deno.test("RFC 4648 §3.5: trailing bits that are not zero are refused", () => {
  deepStrictEqual(decodeBase64url("Zg"), { ok: true, value: encodeUtf8("f") });
  for (const text of ["Zh", "Zi", "Zv", "Z_", "Zm9", "Zm-"]) {
    deepStrictEqual(decodeBase64url(text), refused, text);
  }
});

Deno.test("property: bytes come back as they were", () => {
  fc.assert(fc.property(fc.uint8Array(), (bytes) => {
    deepStrictEqual(decodeBase64url(encodeBase64url(bytes)), { ok: true, value: bytes });
  }));
});

Deno.test("property: every text that is accepted is the one that its bytes are encoded to", () => {
  const nearly = fc.string({ unit: fc.constantFrom(..."AZaz09-_+/= \n") });
  let accepted = 0;
  fc.assert(fc.property(nearly, (text) => {
    const decoded = decodeBase64url(text);
    if (decoded.ok) accepted++;
    strictEqual(decoded.ok ? encodeBase64url(decoded.value) : text, text);
  }));
  strictEqual(accepted > 0, true);
});
