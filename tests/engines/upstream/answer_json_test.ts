// Tests of the checks on what an upstream sent: types, ranges, depth, and what of an error may be told.
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import {
  errorCodeOf,
  goodObjectOf,
  readAnswerJson,
  shallowJson,
  textOf,
  tokensOf,
  wholeNumberOf,
} from "../../../src/engines/upstream/answer_json.ts";
import { Fault } from "../../../src/faults/fault.ts";

const refuses = (act: () => unknown) =>
  throws(act, (thrown) => thrown instanceof Fault && thrown.kind === "upstream_answer_invalid");

Deno.test("text and counts of tokens may be absent or null, and are of no other type", () => {
  for (const absent of [null, undefined]) {
    strictEqual(textOf(absent, "it"), undefined);
    strictEqual(tokensOf(absent, "it"), undefined);
  }
  strictEqual(textOf("", "it"), "");
  for (const value of [0, false, [], {}]) refuses(() => textOf(value, "it"));
  strictEqual(tokensOf(1_000_000_000, "it"), 1_000_000_000);
  for (const value of ["0", -1, 0.5, 1_000_000_001, NaN, Infinity, [], {}]) {
    refuses(() => tokensOf(value, "it"));
  }
});

Deno.test("a whole number is below its end", () => {
  strictEqual(wholeNumberOf(2, 3, "it"), 2);
  for (const value of [3, -1, "2", null, undefined]) refuses(() => wholeNumberOf(value, 3, "it"));
});

Deno.test("what is passed on nests no deeper than allowed, however deep JSON can be read", () => {
  deepStrictEqual(shallowJson({ a: [1] }, 2, "it"), { a: [1] });
  strictEqual(shallowJson("a", 0, "it"), "a");
  refuses(() => shallowJson({ a: [[]] }, 2, "it"));
  const deep = new TextEncoder().encode(`${"[".repeat(100_000)}${"]".repeat(100_000)}`);
  refuses(() => shallowJson(readAnswerJson(deep), 64, "it"));
});

const bytesOf = (text: string) => new TextEncoder().encode(text);

Deno.test("an answer of more objects, arrays and members than any needs is refused before it is parsed", () => {
  const list = (count: number, item: string) => `[${Array(count - 1).fill(item).join(",")}]`;
  for (const item of ["{}", "[]"]) {
    strictEqual((readAnswerJson(bytesOf(list(100_000, item))) as unknown[]).length, 99_999);
    refuses(() => readAnswerJson(bytesOf(list(100_001, item))));
  }
  // Malformed at its end: what refuses it is not the parser.
  throws(() => readAnswerJson(bytesOf(`${list(100_001, "{}")}x`)), { message: /objects and arrays/ });

  const members = (count: number) =>
    `{${Array.from({ length: count }, (_, index) => `"${index.toString(36)}x" \n:0`).join(",")}}`;
  strictEqual(Object.keys(readAnswerJson(bytesOf(members(200_000))) as object).length, 200_000);
  refuses(() => readAnswerJson(bytesOf(members(200_001))));
  throws(() => readAnswerJson(bytesOf(`${members(200_001)}x`)), { message: /members/ });
});

Deno.test("brackets and colons within strings are no objects, arrays or members", () => {
  const text = '{["\\:'.repeat(120_000);
  deepStrictEqual(readAnswerJson(bytesOf(JSON.stringify({ a: text, b: [text] }))), { a: text, b: [text] });
  const numbers = Array(300_000).fill(0);
  deepStrictEqual(readAnswerJson(bytesOf(JSON.stringify(numbers))), numbers);
  refuses(() => readAnswerJson(bytesOf(`"${text}`)));
});

Deno.test("of an error its code or type is told where it is a known one, and never its message", () => {
  const codes: [Record<string, unknown>, string | undefined][] = [
    [{ error: { code: "rate_limit_exceeded", type: "requests" } }, "rate_limit_exceeded"],
    [{ error: { code: null, type: "server_error" } }, "server_error"],
    [{ error: { code: 503, message: "m" } }, "503"],
    [{ error: { code: "context_length_exceeded" } }, "context_length_exceeded"],
    [{ type: "error", error: { type: "overloaded_error" } }, "overloaded_error"],
    [{ error: { code: "sk-4f9a_secret.key", type: "server_error" } }, "server_error"],
    // A plain word may be a key or a prompt as well.
    [{ error: { code: "sk-4f9a_secret.key", type: "my_diagnosis" } }, undefined],
    [{ error: { code: 4929, type: 2026 } }, undefined],
    [{ error: { code: "constructor", type: "__proto__" } }, undefined],
    [{ error: { code: "two words", type: "x".repeat(65) } }, undefined],
    [{ error: "message" }, undefined],
    [{ object: "error", code: 400 }, "400"],
    [{ error: { message: "m" } }, undefined],
    [{}, undefined],
  ];
  for (const [body, code] of codes) strictEqual(errorCodeOf(body), code, JSON.stringify(body));
  throws(() => goodObjectOf({ error: { code: "rate_limit_exceeded", message: "m" } }), {
    message: /code rate_limit_exceeded$/,
  });
  throws(() => goodObjectOf({ error: { code: "sk-4f9a", message: "m" } }), { message: /code unknown$/ });
});
