// Tests of embedding over the OpenAI wire: base64 and numbers, in any order, checked to the last number.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { Embeddings } from "../../../../src/engines/task.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import { bodyOf, jsonAnswer, OPTIONS, refuses } from "./wire_calls.ts";

const base64Of = (numbers: readonly number[]) => new Uint8Array(Float32Array.from(numbers).buffer).toBase64();

function read(body: unknown, texts = 2, dimensions?: number): Embeddings {
  const request = {
    task: "embedding",
    texts: Array(texts).fill("x"),
    ...(dimensions === undefined ? {} : { dimensions }),
  } as const;
  return openaiWire.whole<"embedding">(request, OPTIONS).read(jsonAnswer(body));
}

Deno.test("texts are always sent as a list, and base64 is asked for", () => {
  const { request } = openaiWire.whole<"embedding">(
    { task: "embedding", texts: ["a"], dimensions: 8 },
    OPTIONS,
  );
  strictEqual(request.path, "/embeddings");
  deepStrictEqual(request.accept, ["application/json"]);
  deepStrictEqual(bodyOf(request), {
    model: "upstream-model",
    input: ["a"],
    encoding_format: "base64",
    dimensions: 8,
  });
  strictEqual(
    openaiWire.whole<"embedding">({ task: "embedding", texts: ["a", "b"] }, OPTIONS).request.body,
    '{"model":"upstream-model","input":["a","b"],"encoding_format":"base64"}',
  );
});

Deno.test("vectors are put in the order of their indexes, as base64 or as numbers", () => {
  const expected = {
    vectors: Float32Array.of(1, 2, 3, 4),
    dimensions: 2,
    usage: { inputTokens: 6, outputTokens: 0, countedBy: "engine" },
  };
  const usage = { prompt_tokens: 6, total_tokens: 6 };
  const list = (first: unknown, second: unknown) => ({
    object: "list",
    data: [{ object: "embedding", index: 1, embedding: second }, {
      object: "embedding",
      index: 0,
      embedding: first,
    }],
    model: "m",
    usage,
  });
  deepStrictEqual(read(list(base64Of([1, 2]), base64Of([3, 4]))), expected);
  deepStrictEqual(read(list([1, 2], [3, 4])), expected);
  deepStrictEqual(read(list(base64Of([1, 2]), [3, 4])), expected);
  deepStrictEqual(
    read({ data: [{ embedding: [1, 2] }, { embedding: [3, 4] }], usage }),
    expected,
    "no index",
  );
});

Deno.test("base64 without padding, and llama.cpp's figures that nobody filled, are read", () => {
  const { vectors, usage } = read({
    data: [{ index: 0, embedding: base64Of([0.5]).replaceAll("=", ""), encoding_format: "base64" }],
    usage: { prompt_tokens: 0, total_tokens: 0 },
  }, 1);
  deepStrictEqual(vectors, Float32Array.of(0.5));
  strictEqual(usage.countedBy, "estimate");
});

Deno.test("property: vectors of any numbers come through base64 as they are", () => {
  const vector = fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 3, maxLength: 3 });
  fc.assert(fc.property(fc.array(vector, { minLength: 1, maxLength: 5 }), (rows) => {
    const data = rows.map((row, index) => ({ index, embedding: base64Of(row) }));
    deepStrictEqual(read({ data: data.reverse() }, rows.length).vectors, Float32Array.from(rows.flat()));
  }));
});

Deno.test("a malformed answer is refused", () => {
  const two = (first: unknown, second: unknown = [1]) => ({
    data: [{ index: 0, embedding: first }, { index: 1, embedding: second }],
  });
  const bodies: Record<string, unknown> = {
    "no data": {},
    "data as an object": { data: {} },
    "too few": { data: [{ index: 0, embedding: [1] }] },
    "too many": { data: [0, 1, 2].map((index) => ({ index, embedding: [1] })) },
    "one twice": { data: [{ index: 0, embedding: [1] }, { index: 0, embedding: [1] }] },
    "an index beyond": { data: [{ index: 0, embedding: [1] }, { index: 2, embedding: [1] }] },
    "an index as text": { data: [{ index: "0", embedding: [1] }, { index: 1, embedding: [1] }] },
    "an entry null": { data: [null, null] },
    "no vector": two(undefined),
    "a vector as an object": two({ 0: 1 }),
    "an empty vector": two([], []),
    "an empty text": two("", ""),
    "vectors of two lengths": two([1, 2]),
    "base64 of another length": two(base64Of([1, 2]), base64Of([1])),
    "half a number": two("AAAA", "AAAA"),
    "no base64": two("SECRET!!", "SECRET!!"),
    "base64 with white space": two("AAA AAA==", "AAAAAA=="),
    "base64 and a letter": two(`${base64Of([1, 2, 3])}A`, base64Of([1, 2, 3])),
    "base64 of the other alphabet": two("AAD_fw==", [1]),
    "NaN": two(base64Of([NaN])),
    "infinity": two(base64Of([-Infinity])),
    "a number beyond float32": two([1e39]),
    "null in a vector": two([null]),
    "text in a vector": two(["1"]),
    "a vector in a vector": two([[1]]),
    "an error": { error: { message: "SECRET" } },
  };
  for (const [about, body] of Object.entries(bodies)) {
    refuses(() => read(body), "upstream_answer_invalid", about);
  }
  refuses(
    () => read({ data: [{ embedding: [1, 2, 3] }] }, 1, 2),
    "upstream_answer_invalid",
    "another length",
  );
  strictEqual(read({ data: [{ embedding: [1, 2] }] }, 1, 2).dimensions, 2);
});
