// Tests of strict UTF-8: malformed bytes are refused, none is replaced.
import { deepStrictEqual } from "node:assert/strict";
import fc from "fast-check";
import { decodeUtf8, encodeUtf8 } from "../../src/encoding/utf8.ts";
import { anyText } from "../support/any_text.ts";

Deno.test("malformed UTF-8 is refused: stray and missing continuations, overlong forms, surrogates, beyond U+10FFFF", () => {
  for (
    const bytes of [
      [0x80],
      [0xc3],
      [0xc3, 0x28],
      [0xc0, 0xaf],
      [0xe0, 0x80, 0xaf],
      [0xed, 0xa0, 0x80],
      [
        0xf4,
        0x90,
        0x80,
        0x80,
      ],
      [0xff],
      [0x61, 0xfe],
    ]
  ) deepStrictEqual(decodeUtf8(Uint8Array.from(bytes)), { ok: false, reason: "not_utf8" });
});

Deno.test("a byte order mark stays in the text, so that the JSON grammar can refuse it", () => {
  deepStrictEqual(decodeUtf8(Uint8Array.of(0xef, 0xbb, 0xbf, 0x31)), { ok: true, value: "\ufeff1" });
});

Deno.test("property: well-formed text comes back as it was", () => {
  fc.assert(fc.property(anyText, (text) => {
    deepStrictEqual(decodeUtf8(encodeUtf8(text)), { ok: true, value: text });
  }));
});

Deno.test("property: bytes that are accepted are the ones that their text is encoded to", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 4 }), (bytes) => {
    const decoded = decodeUtf8(bytes);
    if (decoded.ok) deepStrictEqual(encodeUtf8(decoded.value), bytes);
  }));
});
