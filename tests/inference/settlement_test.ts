// Tests of the settlement: whose figures count.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { ChatAnswer } from "../../src/engines/chat.ts";
import { settlementOf } from "../../src/inference/settlement.ts";
import { CHAT } from "./gateway_under_test.ts";

const choice = (text: string) => ({ text, reasoning: "", toolCalls: [], finish: "stop" as const });

function answer(
  texts: readonly string[],
  outputTokens: number,
  countedBy: "engine" | "estimate",
): ChatAnswer {
  return { choices: texts.map(choice), usage: { inputTokens: 5, outputTokens, countedBy } };
}

Deno.test("the engine's figures count, in the answer and on record, however they differ from ours", () => {
  const settlement = settlementOf(CHAT);
  const given = answer(["one two three four five six"], 1, "engine");
  strictEqual(settlement.answered(given), given);
  deepStrictEqual(settlement.usage(true), given.usage);
});

Deno.test("without figures ours count, and the answer tells them as well", () => {
  const settlement = settlementOf(CHAT);
  const { usage } = settlement.answered(answer(["one two three"], 0, "estimate"));
  deepStrictEqual([usage.countedBy, usage.outputTokens >= 3, usage.inputTokens >= 2], [
    "estimate",
    true,
    true,
  ]);
  deepStrictEqual(settlement.usage(true), usage);
});

Deno.test("an engine that counts only the first of several answers is not believed", () => {
  const two = settlementOf({ ...CHAT, choices: 2 });
  const texts = ["one two three four five", "one two three four five"];
  strictEqual(two.answered(answer(texts, 5, "engine")).usage.countedBy, "estimate");
  strictEqual(two.usage(true).outputTokens >= 10, true);
  strictEqual(
    settlementOf({ ...CHAT, choices: 2 }).answered(answer(texts, 10, "engine")).usage.countedBy,
    "engine",
  );
  // The same in a stream, where the figures come last.
  const stream = settlementOf({ ...CHAT, choices: 2 });
  stream.sent([{ type: "text", choice: 0, text: texts[0] }, { type: "text", choice: 1, text: texts[1] }]);
  stream.sent([{ type: "usage", usage: { inputTokens: 5, outputTokens: 5, countedBy: "engine" } }]);
  deepStrictEqual([stream.usage(true).countedBy, stream.owed()], ["estimate", []]);
});

Deno.test("what failed before anything was sent used nothing", () => {
  deepStrictEqual(settlementOf(CHAT).usage(false), { inputTokens: 0, outputTokens: 0, countedBy: "engine" });
});
