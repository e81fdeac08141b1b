// POST /v1/rerank: what is asked of the model, what is answered, what is refused.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { Ranking } from "../../../src/engines/task.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { rerankRoute } from "../../../src/http/openai/rerank_route.ts";
import { type FakeDoor, fakeDoor, refusalOf, send } from "./fake_door.ts";

const ANSWER: Ranking = {
  results: [{ index: 1, score: 0.9 }, { index: 0, score: -0.5 }],
  usage: { inputTokens: 12, outputTokens: 0, countedBy: "engine" },
};
const BODY = { model: "nick", query: "who?", documents: ["me", { text: "you" }] };

const ranking = (answer = ANSWER): FakeDoor =>
  fakeDoor({ model: { capabilities: ["rerank"] }, answer: answer as never });

Deno.test("POST /v1/rerank answers the best first", async () => {
  const fake = ranking();
  const answer = await send(rerankRoute(fake.parts), { ...BODY, top_n: 2 });
  deepStrictEqual(answer, {
    status: 200,
    body: {
      id: "rerank-1",
      model: "m1",
      results: [{ index: 1, relevance_score: 0.9 }, { index: 0, relevance_score: -0.5 }],
      usage: { total_tokens: 12 },
    },
  });
  deepStrictEqual(fake.requests, [{ task: "rerank", query: "who?", documents: ["me", "you"], topN: 2 }]);
  deepStrictEqual(["/documents/1", "/query", "/topN"].map((path) => fake.place?.(path)), [
    "/documents/1",
    "/query",
    "/top_n",
  ]);
});

Deno.test("POST /v1/rerank gives the documents back where it is asked to, in the request's own words", async () => {
  const { body } = await send(rerankRoute(ranking().parts), { ...BODY, return_documents: true });
  deepStrictEqual((body as { results: unknown }).results, [
    { index: 1, relevance_score: 0.9, document: { text: "you" } },
    { index: 0, relevance_score: -0.5, document: { text: "me" } },
  ]);
});

Deno.test("POST /v1/rerank answers no document that was not sent", async () => {
  for (const index of [2, -1, 0.5]) {
    const fake = ranking({ ...ANSWER, results: [{ index, score: 1 }] });
    await rejects(
      send(rerankRoute(fake.parts), BODY),
      (thrown: Fault) => thrown.kind === "upstream_answer_invalid",
    );
  }
});

Deno.test("POST /v1/rerank refuses what it cannot do, by its path", async () => {
  const fake = ranking();
  const refused: readonly (readonly [Record<string, unknown>, string])[] = [
    [{ model: undefined }, "/model"],
    [{ query: undefined }, "/query"],
    [{ query: "" }, "/query"],
    [{ documents: undefined }, "/documents"],
    [{ documents: [] }, "/documents"],
    [{ documents: "me" }, "/documents"],
    [{ documents: Array(1001).fill("x") }, "/documents"],
    [{ documents: ["x", ""] }, "/documents/1"],
    [{ documents: ["x", 5] }, "/documents/1"],
    [{ documents: ["x", { text: "" }] }, "/documents/1/text"],
    [{ documents: ["x", { text: "y", title: "z" }] }, "/documents/1/title"],
    [{ top_n: 0 }, "/top_n"],
    [{ top_n: 1001 }, "/top_n"],
    [{ return_documents: "yes" }, "/return_documents"],
    [{ max_chunks_per_doc: 1 }, "/max_chunks_per_doc"],
    [{ rank_fields: ["text"] }, "/rank_fields"],
  ];
  for (const [change, path] of refused) {
    const body = JSON.parse(JSON.stringify({ ...BODY, ...change }));
    const paths = (await refusalOf(rerankRoute(fake.parts), body)).map((line) => line.split(" ")[0]);
    deepStrictEqual(paths, [path], JSON.stringify(change));
  }
  strictEqual(fake.requests.length, 0);
});

Deno.test("POST /v1/rerank answers any JSON, or refuses it with a Fault", () =>
  fc.assert(fc.asyncProperty(
    fc.oneof(
      fc.jsonValue(),
      fc.record({ model: fc.constant("m1"), query: fc.string(), documents: fc.array(fc.jsonValue()) }),
    ),
    async (body) => {
      try {
        await send(rerankRoute(ranking().parts), body);
      } catch (thrown) {
        ok(thrown instanceof Fault, String(thrown));
      }
    },
  )));
