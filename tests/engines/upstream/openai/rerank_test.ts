// Tests of rerank over the OpenAI wire: Jina's form and the bare list, best first.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { Ranking, RerankRequest } from "../../../../src/engines/task.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import { bodyOf, jsonAnswer, OPTIONS, refuses } from "./wire_calls.ts";

const REQUEST: RerankRequest = { task: "rerank", query: "q", documents: ["a", "b", "c"] };

function read(body: unknown, topN?: number): Ranking {
  const request = topN === undefined ? REQUEST : { ...REQUEST, topN };
  return openaiWire.whole<"rerank">(request, OPTIONS).read(jsonAnswer(body));
}

Deno.test("query and documents are sent, and no documents asked back", () => {
  const { request } = openaiWire.whole<"rerank">({ ...REQUEST, topN: 2 }, OPTIONS);
  strictEqual(request.path, "/rerank");
  deepStrictEqual(bodyOf(request), {
    model: "upstream-model",
    query: "q",
    documents: ["a", "b", "c"],
    top_n: 2,
    return_documents: false,
  });
});

Deno.test("vLLM's and llama.cpp's results are read and sorted, with the sum as input", () => {
  deepStrictEqual(
    read({
      id: "rerank-1",
      model: "m",
      usage: { total_tokens: 56 },
      results: [
        { index: 0, document: { text: "a" }, relevance_score: 0.1 },
        { index: 2, document: { text: "c" }, relevance_score: 0.9 },
        { index: 1, relevance_score: -4 },
      ],
    }),
    {
      results: [{ index: 2, score: 0.9 }, { index: 0, score: 0.1 }, { index: 1, score: -4 }],
      usage: { inputTokens: 56, outputTokens: 0, countedBy: "engine" },
    },
  );
});

Deno.test("the bare list of TEI and SGLang is read", () => {
  deepStrictEqual(
    read([{ index: 1, score: 0.5 }, { index: 0, score: 0.7, document: "a", meta_info: {} }, {
      index: 2,
      score: 0,
    }]),
    {
      results: [{ index: 0, score: 0.7 }, { index: 1, score: 0.5 }, { index: 2, score: 0 }],
      usage: { inputTokens: 0, outputTokens: 0, countedBy: "estimate" },
    },
  );
});

Deno.test("an engine that answers more than the best is cut to them", () => {
  const results = [0.2, 0.3, 0.1].map((score, index) => ({ index, score }));
  deepStrictEqual(read({ results }, 2).results.map(({ index }) => index), [1, 0]);
  deepStrictEqual(read({ results: results.slice(0, 2) }, 2).results.map(({ index }) => index), [1, 0]);
  strictEqual(read({ results }, 99).results.length, 3);
});

Deno.test("a malformed answer is refused", () => {
  const result = (index: unknown, score: unknown) => ({ index, relevance_score: score });
  const rest = [result(1, 1), result(2, 1)];
  const bodies: Record<string, unknown> = {
    "no results": {},
    "results as an object": { results: {} },
    "too few": { results: rest },
    "too many": { results: [...rest, result(0, 1), result(0, 1)] },
    "one twice": { results: [...rest, result(1, 1)] },
    "an index beyond": { results: [...rest, result(3, 1)] },
    "an index below 0": { results: [...rest, result(-1, 1)] },
    "no index": { results: [...rest, result(undefined, 1)] },
    "no score": { results: [...rest, result(0, undefined)] },
    "a score as text": { results: [...rest, result(0, "1")] },
    "a result null": { results: [...rest, null] },
    "an error": { error: "SECRET" },
    "a list of texts": ["a", "b", "c"],
  };
  for (const [about, body] of Object.entries(bodies)) {
    refuses(() => read(body), "upstream_answer_invalid", about);
  }
  const infinite = new TextEncoder().encode(
    '[{"index":0,"score":1e999},{"index":1,"score":1},{"index":2,"score":1}]',
  );
  refuses(() =>
    openaiWire.whole<"rerank">(REQUEST, OPTIONS)
      .read({ mediaType: "application/json", headers: new Headers(), bytes: infinite })
  );
});
