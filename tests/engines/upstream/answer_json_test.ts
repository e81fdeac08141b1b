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

Deno.test("of an error its code or type is told where it is a plain word, and never its message", () => {
  const codes: [Record<string, unknown>, string | undefined][] = [
    [{ error: { code: "rate_limit_exceeded", type: "requests" } }, "rate_limit_exceeded"],
    [{ error: { code: null, type: "server_error" } }, "server_error"],
    [{ error: { code: 503, message: "m" } }, "503"],
    [{ error: { code: "two words", type: "x".repeat(65) } }, undefined],
    [{ error: "message" }, undefined],
    [{ object: "error", code: 400 }, "400"],
    [{ error: { message: "m" } }, undefined],
    [{}, undefined],
  ];
  for (const [body, code] of codes) strictEqual(errorCodeOf(body), code, JSON.stringify(body));
  throws(() => goodObjectOf({ error: { code: "x1", message: "m" } }), { message: /code x1$/ });
});
