// Tests of moderation over the OpenAI wire: one judgement a text, categories by name.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { Moderations } from "../../../../src/engines/task.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import { bodyOf, jsonAnswer, OPTIONS, refuses } from "./wire_calls.ts";

function read(body: unknown, texts = 1): Moderations {
  return openaiWire.whole<"moderation">({ task: "moderation", texts: Array(texts).fill("x") }, OPTIONS)
    .read(jsonAnswer(body));
}

Deno.test("texts are sent as a list", () => {
  const { request } = openaiWire.whole<"moderation">({ task: "moderation", texts: ["a"] }, OPTIONS);
  strictEqual(request.path, "/moderations");
  deepStrictEqual(bodyOf(request), { model: "upstream-model", input: ["a"] });
});

Deno.test("OpenAI's judgements are read; categories that a model does not judge are left out", () => {
  deepStrictEqual(
    read({
      id: "modr-1",
      model: "omni-moderation-latest",
      results: [{
        flagged: true,
        categories: { violence: true, "self-harm": false, illicit: null },
        category_scores: { violence: 0.9, "self-harm": 0, illicit: null },
        category_applied_input_types: { violence: ["text"] },
      }, { flagged: false }],
    }, 2),
    {
      results: [
        {
          flagged: true,
          categories: { violence: true, "self-harm": false },
          scores: { violence: 0.9, "self-harm": 0 },
        },
        { flagged: false, categories: {}, scores: {} },
      ],
      usage: { inputTokens: 0, outputTokens: 0, countedBy: "estimate" },
    },
  );
});

Deno.test("a category called __proto__ is a name like others", () => {
  const body = JSON.parse('{"results":[{"flagged":false,"categories":{"__proto__":true}}]}');
  const { categories } = read(body).results[0] ?? { categories: {} };
  deepStrictEqual(Object.keys(categories), ["__proto__"]);
  strictEqual(Object.getPrototypeOf(categories), Object.prototype);
});

const named = (count: number, value: unknown) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`c${index}`, value]));

Deno.test("as many categories as any model has are read", () => {
  const [result] = read({
    results: [{ flagged: true, categories: named(256, true), category_scores: named(256, 1) }],
  }).results;
  strictEqual(Object.keys(result?.categories ?? {}).length, 256);
  strictEqual(Object.keys(result?.scores ?? {}).length, 256);
});

Deno.test("a malformed answer is refused", () => {
  const bodies: Record<string, unknown> = {
    "no results": {},
    "too few": { results: [] },
    "too many": { results: [{ flagged: true }, { flagged: true }] },
    "a result null": { results: [null] },
    "flagged unsaid": { results: [{ categories: {} }] },
    "flagged as a number": { results: [{ flagged: 1 }] },
    "categories as a list": { results: [{ flagged: true, categories: [] }] },
    "a category as text": { results: [{ flagged: true, categories: { a: "SECRET" } }] },
    "a score as text": { results: [{ flagged: true, category_scores: { a: "1" } }] },
    "more categories than any model has": { results: [{ flagged: true, categories: named(257, true) }] },
    "more scores than any model has": { results: [{ flagged: true, category_scores: named(257, 0) }] },
    "scores as a number": { results: [{ flagged: true, category_scores: 1 }] },
  };
  for (const [about, body] of Object.entries(bodies)) {
    refuses(() => read(body), "upstream_answer_invalid", about);
  }
});
