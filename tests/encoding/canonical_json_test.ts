// Tests of canonical JSON: RFC 8785's own examples, and one text for each value.
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import { canonicalJson, isCanonicalJson, type JsonValue } from "../../src/encoding/canonical_json.ts";

/** RFC 8785 appendix B: IEEE 754 bits in hexadecimal, and how the number is written. */
const NUMBERS = [
  ["0000000000000000", "0"],
  ["8000000000000000", "0"],
  ["0000000000000001", "5e-324"],
  ["8000000000000001", "-5e-324"],
  ["7fefffffffffffff", "1.7976931348623157e+308"],
  ["ffefffffffffffff", "-1.7976931348623157e+308"],
  ["4340000000000000", "9007199254740992"],
  ["c340000000000000", "-9007199254740992"],
  ["4430000000000000", "295147905179352830000"],
  ["44b52d02c7e14af5", "9.999999999999997e+22"],
  ["44b52d02c7e14af6", "1e+23"],
  ["44b52d02c7e14af7", "1.0000000000000001e+23"],
  ["444b1ae4d6e2ef4e", "999999999999999700000"],
  ["444b1ae4d6e2ef4f", "999999999999999900000"],
  ["444b1ae4d6e2ef50", "1e+21"],
  ["3eb0c6f7a0b5ed8c", "9.999999999999997e-7"],
  ["3eb0c6f7a0b5ed8d", "0.000001"],
  ["41b3de4355555553", "333333333.3333332"],
  ["41b3de4355555554", "333333333.33333325"],
  ["41b3de4355555555", "333333333.3333333"],
  ["41b3de4355555556", "333333333.3333334"],
  ["41b3de4355555557", "333333333.33333343"],
  ["becbf647612f3696", "-0.0000033333333333333333"],
  ["43143ff3c1cb0959", "1424953923781206.2"],
] as const;

function numberOf(hex: string): number {
  return new DataView(Uint8Array.fromHex(hex).buffer).getFloat64(0);
}

Deno.test("RFC 8785 appendix B: numbers are written in ECMAScript's shortest form", () => {
  for (const [hex, text] of NUMBERS) strictEqual(canonicalJson(numberOf(hex)), text, hex);
});

Deno.test("RFC 8785 §3.2.2.3: NaN and the infinities are refused", () => {
  for (const hex of ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"]) {
    throws(() => canonicalJson(numberOf(hex)), TypeError);
    throws(() => canonicalJson({ deep: [numberOf(hex)] }), TypeError);
  }
});

Deno.test("RFC 8785 §3.2.2 and §3.2.3: the example of literals, numbers and strings", () => {
  const input = String.raw`{
    "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
    "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
    "literals": [null, true, false]
  }`;
  strictEqual(
    canonicalJson(JSON.parse(input)),
    String
      .raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
  );
});

Deno.test("RFC 8785 §3.2.3: members are sorted by UTF-16 code units, not by code points", () => {
  const input: JsonValue = {
    "\u20ac": "Euro Sign",
    "\r": "Carriage Return",
    "\ufb33": "Hebrew Letter Dalet With Dagesh",
    "1": "One",
    "\u{1f600}": "Emoji: Grinning Face",
    "\u0080": "Control",
    "\u00f6": "Latin Small Letter O With Diaeresis",
  };
  deepStrictEqual(Object.values(JSON.parse(canonicalJson(input))).length, 7);
  deepStrictEqual([...canonicalJson(input).matchAll(/"([^"]*)"(?=[,}])/g)].map((found) => found[1]), [
    "Carriage Return",
    "One",
    "Control",
    "Latin Small Letter O With Diaeresis",
    "Euro Sign",
    "Emoji: Grinning Face",
    "Hebrew Letter Dalet With Dagesh",
  ]);
});

Deno.test("lone surrogates are refused in values and in names", () => {
  for (const lone of ["\ud800", "\udc00", "a\udbffb", "\udc00\ud800"]) {
    throws(() => canonicalJson(lone), TypeError);
    throws(() => canonicalJson([lone]), TypeError);
    throws(() => canonicalJson({ [lone]: 1 }), TypeError);
  }
  strictEqual(canonicalJson("\ud83d\ude00"), '"😀"');
});

Deno.test("property: the text parses back to the value, and the order of members leaves no trace", () => {
  const json = fc.jsonValue({ stringUnit: "grapheme" });
  fc.assert(fc.property(json, (value) => {
    const text = canonicalJson(value as JsonValue);
    // JSON.stringify writes -0 as 0, as RFC 8785 does.
    deepStrictEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)));
    strictEqual(canonicalJson(reversed(value as JsonValue)), text);
    strictEqual(canonicalJson(JSON.parse(text)), text);
  }));
});

/** The same value with every object's members in the opposite order. */
function reversed(value: JsonValue): JsonValue {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(reversed);
  const members = Object.entries(value).map(([name, member]) => [name, reversed(member)] as const);
  return Object.fromEntries(members.reverse());
}

Deno.test("isCanonicalJson says of every text what writing it anew says", () => {
  const isSame = (text: string): boolean => {
    const value: JsonValue = JSON.parse(text);
    let canonical: string | undefined;
    try {
      canonical = canonicalJson(value);
    } catch {
      // Nothing canonical stands for it.
    }
    return isCanonicalJson(text, value) === (canonical === text);
  };
  fc.assert(
    fc.property(fc.json(), (text) => {
      const canonical = canonicalJson(JSON.parse(text.toWellFormed()));
      return isSame(text) && isSame(canonical) && isCanonicalJson(canonical, JSON.parse(canonical));
    }),
    { numRuns: 500 },
  );
  for (
    const text of [
      '{"b":1,"a":2}',
      '{"a":1,"a":1}',
      '{"9":1,"10":2}',
      '{"10":2,"9":1}',
      '{"__proto__":{"b":1},"a":2}',
      '[{"a":[{"c":1,"b":2}]}]',
      '"\\ud800"',
      '"\\\\ud800"',
      '"\\u0061"',
      "-0",
      "1e5",
      "[1, 2]",
      `${"[".repeat(100_000)}${"]".repeat(100_000)}`,
    ]
  ) strictEqual(isSame(text), true, text.slice(0, 40));
});
