// Tests of setting types: what each reads from text and from JSON, and what it refuses.
import { deepStrictEqual } from "node:assert/strict";
import { integer, listOf, oneOf, origin, type SettingType, text } from "../../src/config/setting_types.ts";

function reads<Value>(type: SettingType<Value>, accepted: readonly (readonly [unknown, Value])[]): void {
  for (const [raw, value] of accepted) {
    deepStrictEqual(type.read(raw), { ok: true, value }, JSON.stringify(raw));
  }
}

function refuses(type: SettingType<unknown>, refused: readonly unknown[]): void {
  for (const raw of refused) {
    deepStrictEqual(type.read(raw), { ok: false, reason: "wrong" }, JSON.stringify(raw));
  }
}

Deno.test("an integer is a whole number between its bounds, as digits or as a JSON number", () => {
  reads(integer(1, 100), [[1, 1], [100, 100], ["1", 1], ["100", 100], ["007", 7]]);
  refuses(integer(1, 100), [0, 101, "0", "101", 1.5, "1.5", "1e1", "0x10", "+1", "-1", " 1", "1 ", "", "１"]);
  refuses(integer(1, 100), [NaN, Infinity, null, true, [1], {}, "9".repeat(400)]);
});

Deno.test("one of a few words is exactly one of them", () => {
  reads(oneOf("debug", "info"), [["debug", "debug"], ["info", "info"]]);
  refuses(oneOf("debug", "info"), ["DEBUG", "info ", "", "deb", null, 0, ["info"]]);
});

Deno.test("a text is a string that matches, never a number", () => {
  reads(text("letters", /^[a-z]+$/), [["abc", "abc"]]);
  refuses(text("letters", /^[a-z]+$/), ["ABC", "abc\n", "", 1, null, ["abc"]]);
});

Deno.test("a list is a JSON array or comma-separated text, and one wrong item refuses it whole", () => {
  reads(listOf(integer(1, 9)), [["", []], ["1", [1]], ["1, 2 ,3", [1, 2, 3]], [[], []], [[1, "2"], [1, 2]]]);
  refuses(listOf(integer(1, 9)), ["1,,2", ",", "1,", "1;2", [1, 10], [[1]], { 0: 1 }, 1, null]);
});

Deno.test("an origin is scheme, host and port in their canonical form, nothing behind", () => {
  const accepted = ["https://ai.example.com", "http://127.0.0.1:8000", "http://[::1]:8000", "https://a:8443"];
  reads(origin, accepted.map((each) => [each, each] as const));
  refuses(origin, [
    "https://ai.example.com/",
    "https://ai.example.com/v1",
    "https://ai.example.com:443",
    "https://AI.example.com",
    "HTTPS://ai.example.com",
    "https://user:password@ai.example.com",
    "https://ai.example.com?x",
    "https://ai.example.com#x",
    " https://ai.example.com",
    "ai.example.com",
    "ftp://ai.example.com",
    "file:///etc",
    "null",
    "*",
    "",
    1,
  ]);
});
