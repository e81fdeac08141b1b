// POST /v1/moderations: what is asked of the model, what is answered, what is refused.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { Moderations } from "../../../src/engines/task.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { moderationsRoute } from "../../../src/http/openai/moderations_route.ts";
import { type FakeDoor, fakeDoor, refusalOf, send } from "./fake_door.ts";

const ANSWER: Moderations = {
  results: [
    {
      flagged: true,
      categories: { hate: true, "self-harm": false },
      scores: { hate: 0.9, "self-harm": 0.001 },
    },
    { flagged: false, categories: {}, scores: {} },
  ],
  usage: { inputTokens: 3, outputTokens: 0, countedBy: "engine" },
};

const judging = (): FakeDoor =>
  fakeDoor({ model: { capabilities: ["moderation"] }, answer: ANSWER as never });

Deno.test("POST /v1/moderations answers one judgement a text in OpenAI's form", async () => {
  const fake = judging();
  const answer = await send(moderationsRoute(fake.parts), { model: "nick", input: ["one", "two"] });
  deepStrictEqual(answer, {
    status: 200,
    body: {
      id: "modr-1",
      model: "m1",
      results: [
        {
          flagged: true,
          categories: { hate: true, "self-harm": false },
          category_scores: { hate: 0.9, "self-harm": 0.001 },
        },
        { flagged: false, categories: {}, category_scores: {} },
      ],
    },
  });
  deepStrictEqual(fake.requests, [{ task: "moderation", texts: ["one", "two"] }]);
  strictEqual(fake.place?.("/texts/1"), "/input/1");
});

Deno.test("POST /v1/moderations takes one text, and parts of text as one", async () => {
  const fake = judging();
  await send(moderationsRoute(fake.parts), { model: "m1", input: "one" });
  strictEqual(fake.place?.("/texts/0"), "/input");
  await send(moderationsRoute(fake.parts), {
    model: "m1",
    input: [{ type: "text", text: "one" }, { type: "text", text: "two" }],
  });
  strictEqual(fake.place?.("/texts/0"), "/input");
  deepStrictEqual(fake.requests.map((request) => "texts" in request && request.texts), [["one"], [
    "one\ntwo",
  ]]);
});

Deno.test("POST /v1/moderations refuses what it does not judge, by its path", async () => {
  const route = moderationsRoute(judging().parts);
  const refusal = (body: unknown): Promise<string[]> => refusalOf(route, body);
  const paths = async (body: unknown): Promise<string[]> =>
    (await refusal(body)).map((line) => line.split(" ")[0] ?? "");
  deepStrictEqual(await paths({ input: "x" }), ["/model"]);
  deepStrictEqual(await paths({ model: "m1" }), ["/input"]);
  deepStrictEqual(await paths({ model: "m1", input: "x", user: "me" }), ["/user"]);
  deepStrictEqual(await refusal({ model: "m1", input: "" }), [
    "/input is empty",
  ]);
  deepStrictEqual(await refusal({ model: "m1", input: [] }), [
    "/input has no texts",
  ]);
  deepStrictEqual(await paths({ model: "m1", input: Array(65).fill("x") }), ["/input"]);
  deepStrictEqual(await refusal({ model: "m1", input: 5 }), ["/input is neither a text nor a list of texts"]);
  deepStrictEqual(await paths({ model: "m1", input: ["x", { type: "text", text: "y" }] }), ["/input"]);
  deepStrictEqual(await paths({ model: "m1", input: ["x", ""] }), ["/input/1"]);
  deepStrictEqual(await refusal({ model: "m1", input: ["x", 1] }), [
    "/input/1 is neither a text nor a part of type text",
  ]);
  const image = { type: "image_url", image_url: { url: "https://internal/" } };
  ok(
    (await refusal({ model: "m1", input: [image] })).includes(
      "/input/0/type is not text, the only type of part that is judged here",
    ),
  );
});

Deno.test("POST /v1/moderations answers any JSON, or refuses it with a Fault", () =>
  fc.assert(fc.asyncProperty(
    fc.oneof(fc.jsonValue(), fc.record({ model: fc.constant("m1"), input: fc.jsonValue() })),
    async (body) => {
      try {
        await send(moderationsRoute(judging().parts), body);
      } catch (thrown) {
        ok(thrown instanceof Fault, String(thrown));
      }
    },
  )));
