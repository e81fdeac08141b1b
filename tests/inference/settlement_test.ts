// Tests of the settlement: whose figures count.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { ChatAnswer, ChatEvent } from "../../src/engines/chat.ts";
import type { TaskRequest } from "../../src/engines/task.ts";
import type { Usage } from "../../src/engines/usage.ts";
import { inputTokensOf, type Settlement, settlementOf } from "../../src/inference/settlement.ts";
import { CHAT } from "./gateway_under_test.ts";

/** The settlement of a request, and what it did not believe. */
function settled(request: TaskRequest, told: number[][] = []): Settlement {
  return settlementOf(() => request, (figures, ours) => {
    told.push([figures.inputTokens, figures.outputTokens, ours.outputTokens]);
  });
}

const choice = (text: string) => ({ text, reasoning: "", toolCalls: [], finish: "stop" as const });

function answer(
  texts: readonly string[],
  outputTokens: number,
  countedBy: "engine" | "estimate",
): ChatAnswer {
  return { choices: texts.map(choice), usage: { inputTokens: 5, outputTokens, countedBy } };
}

Deno.test("the engine's figures count, in the answer and on record, however they differ from ours", () => {
  const settlement = settled(CHAT);
  const given = answer(["one two three four five six"], 1, "engine");
  strictEqual(settlement.answered(given), given);
  deepStrictEqual(settlement.usage("completed"), given.usage);
});

Deno.test("without figures ours count, and the answer tells them as well", () => {
  const settlement = settled(CHAT);
  const { usage } = settlement.answered(answer(["one two three"], 0, "estimate"));
  deepStrictEqual([usage.countedBy, usage.outputTokens >= 3, usage.inputTokens >= 2], [
    "estimate",
    true,
    true,
  ]);
  deepStrictEqual(settlement.usage("completed"), usage);
});

Deno.test("an engine that counts only the first of several answers is not believed", () => {
  const two = settled({ ...CHAT, choices: 2 });
  const texts = ["one two three four five", "one two three four five"];
  strictEqual(two.answered(answer(texts, 5, "engine")).usage.countedBy, "estimate");
  strictEqual(two.usage("completed").outputTokens >= 10, true);
  strictEqual(
    settled({ ...CHAT, choices: 2 }).answered(answer(texts, 10, "engine")).usage.countedBy,
    "engine",
  );
  // The same in a stream, where the figures come last.
  const stream = settled({ ...CHAT, choices: 2 });
  stream.sent([{ type: "text", choice: 0, text: texts[0] }, { type: "text", choice: 1, text: texts[1] }]);
  stream.sent([{ type: "usage", usage: { inputTokens: 5, outputTokens: 5, countedBy: "engine" } }]);
  deepStrictEqual([stream.usage("completed").countedBy, stream.owed()], ["estimate", []]);
});

Deno.test("what failed before anything was sent used nothing", () => {
  deepStrictEqual(settled(CHAT).usage("failed"), { inputTokens: 0, outputTokens: 0, countedBy: "engine" });
});

const FIGURES = (inputTokens: number, outputTokens: number): Usage => ({
  inputTokens,
  outputTokens,
  countedBy: "engine",
});
const LONG = "some words here ".repeat(1000);

Deno.test("the engine's figures count for whoever left after them, as all was sent; not where more came or the engine broke", () => {
  const text: ChatEvent = { type: "text", choice: 0, text: "one" };
  const usage: ChatEvent = { type: "usage", usage: FIGURES(500, 40) };
  const of = (...items: ChatEvent[]) => {
    const settlement = settled(CHAT);
    settlement.sent(items);
    return settlement;
  };
  deepStrictEqual(of(text, usage).usage("given_up"), FIGURES(500, 40));
  strictEqual(of(text, usage).usage("failed").countedBy, "estimate");
  strictEqual(of(usage, text).usage("given_up").countedBy, "estimate");
  strictEqual(of(text).usage("given_up").countedBy, "estimate");
});

Deno.test("what was given up before anything was sent has used its input", () => {
  deepStrictEqual(settled(CHAT).usage("given_up"), {
    inputTokens: inputTokensOf(CHAT),
    outputTokens: 0,
    countedBy: "estimate",
  });
});

Deno.test("figures above the bound that the engine was told are not believed; those within a tenth of it are", () => {
  const cases: readonly (readonly [figure: number, choices: number, isBelieved: boolean])[] = [
    [126, 1, true],
    [127, 1, false],
    [236, 2, true],
    [237, 2, false],
    [1_000_000_000, 1, false],
  ];
  for (const [figure, choices, isBelieved] of cases) {
    const told: number[][] = [];
    const whole = settled({ ...CHAT, choices, outputTokensMax: 100 }, told);
    const { usage } = whole.answered({ choices: [choice("one two")], usage: FIGURES(5, figure) });
    strictEqual(usage.countedBy, isBelieved ? "engine" : "estimate", String(figure));
    deepStrictEqual(whole.usage("completed"), usage);
    strictEqual(told.length, isBelieved ? 0 : 1);
    if (!isBelieved) ok(usage.outputTokens < 10 && told[0]?.[1] === figure);
    const stream = settled({ ...CHAT, choices, outputTokensMax: 100 });
    stream.sent([{ type: "text", choice: 0, text: "one two" }, { type: "usage", usage: FIGURES(5, figure) }]);
    strictEqual(stream.usage("completed").countedBy, isBelieved ? "engine" : "estimate", String(figure));
  }
});

Deno.test("figures that no prompt and no thought explain are not believed where there is no bound either", () => {
  const countedBy = (request: TaskRequest, inputTokens: number, outputTokens: number) =>
    settled(request).answered({ choices: [choice("one")], usage: FIGURES(inputTokens, outputTokens) }).usage
      .countedBy;
  strictEqual(countedBy(CHAT, 100_000, 200_000), "engine");
  strictEqual(countedBy(CHAT, 101_000, 5), "estimate");
  strictEqual(countedBy(CHAT, 5, 201_000), "estimate");
  const long: TaskRequest = { task: "embedding", texts: [LONG.repeat(10)] };
  const ours = inputTokensOf(long);
  ok(ours > 20_000);
  strictEqual(countedBy(long, 20 * ours, 0), "engine");
  strictEqual(countedBy(long, 20 * ours + 1, 0), "estimate");
});

Deno.test("all that is sent to an engine as text is counted: what follows, refusals, schemas, fields that pass, instructions", () => {
  const completion = { task: "completion", prompts: ["x", "y"], stop: [], choices: 1, extra: {} } as const;
  const sound = { name: "a.wav", mediaType: "audio/wav", bytes: new ReadableStream<Uint8Array>() };
  const once: readonly TaskRequest[] = [
    {
      ...CHAT,
      messages: [{ role: "assistant", parts: [], toolCalls: [], refusal: LONG }, ...CHAT.messages],
    },
    { ...CHAT, responseFormat: { type: "json_schema", name: "s", schema: { description: LONG } } },
    { ...CHAT, extra: { field: [LONG] } },
    { task: "speech", text: "x", voice: "v", format: "mp3", instructions: LONG },
    { task: "transcription", file: sound, prompt: LONG, format: "json", timestampGranularities: [] },
    { task: "image", prompt: "x", images: 1, extra: { [LONG]: true } },
  ];
  for (const request of once) {
    const tokens = inputTokensOf(request);
    ok(tokens > 3000 && tokens < 4000, `${request.task}: ${tokens}`);
  }
  // What stands in each of several inputs counts as often.
  for (
    const request of [
      { ...completion, suffix: LONG },
      { task: "rerank", query: LONG, documents: ["x", "y"] } as const,
    ]
  ) ok(inputTokensOf(request) > 6000, request.task);
});
