// Completions route: the legacy form, read, run and written.
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../../src/faults/fault.ts";
import { completionsRoute } from "../../../src/http/openai/completions_route.ts";
import { anyText } from "../../support/any_text.ts";
import { fakeDoor, readEvents, refusalOf, type Script, send, textOf } from "./fake_door.ts";

function routeWith(script: Script = {}) {
  const fake = fakeDoor(script);
  return { fake, route: completionsRoute(fake.parts) };
}

const ANSWER = {
  choices: [
    { text: "one", reasoning: "", toolCalls: [], finish: "stop", logprobs: { tokens: ["one"] } },
    { text: "two", reasoning: "hm", toolCalls: [], finish: "tool_calls" },
  ],
  usage: { inputTokens: 3, outputTokens: 2, countedBy: "engine" },
} as const;

Deno.test("a completion with every field reaches the door in the neutral form", async () => {
  const { fake, route } = routeWith({ answer: ANSWER });
  await send(route, {
    model: "nick",
    prompt: ["a", "b"],
    suffix: "end",
    echo: true,
    best_of: 1,
    logprobs: 5,
    max_tokens: 9,
    temperature: 0,
    top_p: 1,
    n: 2,
    stop: ["x", "y"],
    seed: -4,
    presence_penalty: -2,
    frequency_penalty: 2,
    logit_bias: { "50256": -100 },
    stream: false,
    user: "u",
    top_k: 5,
  });
  deepStrictEqual(fake.requests, [{
    task: "completion",
    prompts: ["a", "b"],
    outputTokensMax: 9,
    temperature: 0,
    topP: 1,
    seed: -4,
    presencePenalty: -2,
    frequencyPenalty: 2,
    logitBias: { "50256": -100 },
    logprobs: 5,
    stop: ["x", "y"],
    choices: 2,
    topK: 5,
    extra: {},
    suffix: "end",
    echo: true,
  }]);
});

Deno.test("a top_k of no sense is refused at its place", async () => {
  const { fake, route } = routeWith({ answer: ANSWER });
  deepStrictEqual(await refusalOf(route, { model: "nick", prompt: "a", top_k: 0 }), [
    "/top_k is no whole number from 1 to 1000000",
  ]);
  deepStrictEqual(fake.requests, []);
});

Deno.test("a completion's answer has OpenAI's form and the model's own id", async () => {
  const { route } = routeWith({ answer: ANSWER });
  const { status, body } = await send(route, { model: "nick", prompt: "a" });
  strictEqual(status, 200);
  deepStrictEqual(body, {
    id: "cmpl-1",
    object: "text_completion",
    created: 1234,
    model: "m1",
    choices: [
      { index: 0, text: "one", logprobs: { tokens: ["one"] }, finish_reason: "stop" },
      { index: 1, text: "two", logprobs: null, finish_reason: "stop" },
    ],
    usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
  });
});

Deno.test("a completion's stream has an event a piece, usage where it is asked for, and the end mark", async () => {
  const batches = [
    [{ type: "reasoning", choice: 0, text: "?" }, { type: "text", choice: 0, text: "a" }],
    [{ type: "text", choice: 1, text: "b", logprobs: { tokens: ["b"] } }, {
      type: "finish",
      choice: 0,
      reason: "length",
    }],
    [{ type: "usage", usage: { inputTokens: 1, outputTokens: 2, countedBy: "estimate" } }],
  ] as const;
  const read = async (options: object) => {
    const answer = await send(routeWith({ batches }).route, {
      model: "m1",
      prompt: "p",
      stream: true,
      ...options,
    });
    const events = readEvents(await textOf(answer));
    strictEqual(events.pop(), "[DONE]");
    return events.map((event) => JSON.parse(event));
  };
  const head = { id: "cmpl-1", object: "text_completion", created: 1234, model: "m1" };
  const chunks = [
    { index: 0, text: "a", logprobs: null, finish_reason: null },
    { index: 1, text: "b", logprobs: { tokens: ["b"] }, finish_reason: null },
    { index: 0, text: "", logprobs: null, finish_reason: "length" },
  ].map((choice) => ({ ...head, choices: [choice] }));
  deepStrictEqual(await read({}), chunks);
  deepStrictEqual(await read({ stream_options: { include_usage: true } }), [
    ...chunks.map((chunk) => ({ ...chunk, usage: null })),
    { ...head, choices: [], usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } },
  ]);
});

Deno.test("a completion is refused with the place of what is wrong", async () => {
  const { fake, route } = routeWith({ answer: ANSWER });
  const rows: readonly [object, RegExp][] = [
    [{ prompt: undefined }, /^\/prompt is neither/],
    [{ prompt: "" }, /^\/prompt is empty/],
    [{ prompt: [] }, /^\/prompt has no prompts/],
    [{ prompt: Array(65).fill("a") }, /^\/prompt has .*64/],
    [{ prompt: ["a", ""] }, /^\/prompt\/1 is empty/],
    [{ prompt: [1, 2] }, /^\/prompt\/0 is a token/],
    [{ prompt: [[1, 2]] }, /^\/prompt\/0 is a token or a list of tokens/],
    [{ best_of: 2 }, /^\/best_of is not 1/],
    [{ logprobs: 6 }, /^\/logprobs /],
    [{ logprobs: true }, /^\/logprobs /],
    [{ n: 0 }, /^\/n /],
    [{ max_tokens: 0 }, /^\/max_tokens /],
    [{ max_completion_tokens: 5 }, /^\/max_completion_tokens is not a known field/],
    [{ messages: [] }, /^\/messages is not a known field/],
    [{ stream_options: { include_usage: true } }, /^\/stream_options is only allowed/],
  ];
  for (const [fields, expected] of rows) {
    const [first = "nothing"] = await refusalOf(route, { model: "m1", prompt: "a", ...fields });
    match(first, expected);
  }
  deepStrictEqual(fake.requests, []);
});

Deno.test("a mistake that is found below the door is placed in the completion's own body", async () => {
  const { fake, route } = routeWith({ answer: ANSWER });
  await send(route, { model: "m1", prompt: ["a", "b"] });
  const list = ["/prompts", "/prompts/1", "/outputTokensMax", "/choices", "/stop"].map((path) =>
    fake.place?.(path)
  );
  deepStrictEqual(list, ["/prompt", "/prompt/1", "/max_tokens", "/n", "/stop"]);
  await send(route, { model: "m1", prompt: "a" });
  deepStrictEqual(["/prompts", "/prompts/0"].map((path) => fake.place?.(path)), ["/prompt", "/prompt"]);
});

Deno.test("a model that does not complete is refused as one that lacks the capability", async () => {
  const { route } = routeWith({ model: { capabilities: ["chat"] } });
  const thrown = await send(route, { model: "m1", prompt: "a" }).catch((thrown) => thrown);
  strictEqual(thrown instanceof Fault && thrown.kind, "capability_missing");
});

Deno.test("no text of a model forges an event of a completion", async () => {
  const hostile = fc.oneof(
    anyText,
    fc.constantFrom("\n\ndata: [DONE]\n\n", "\r\rdata: x", "\u2028data:\u2029", "\ud800"),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(hostile, { minLength: 1, maxLength: 5 }), async (texts) => {
      const batches = [texts.map((text) => ({ type: "text" as const, choice: 0, text }))];
      const answer = await send(routeWith({ batches }).route, { model: "m1", prompt: "p", stream: true });
      const events = readEvents(await textOf(answer));
      strictEqual(events.pop(), "[DONE]");
      deepStrictEqual(events.map((event) => JSON.parse(event).choices[0].text), texts);
    }),
    { numRuns: 50 },
  );
});
