// Tests of completion over the OpenAI wire: the exact request, and which choice belongs to which prompt.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { ChatAnswer } from "../../../../src/engines/chat.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import { bodyOf, completionRequest, jsonAnswer, OPTIONS, refuses } from "./wire_calls.ts";

function read(body: unknown, besides: Parameters<typeof completionRequest>[0] = {}): ChatAnswer {
  return openaiWire.whole<"completion">(completionRequest(besides), OPTIONS).read(jsonAnswer(body));
}

Deno.test("one prompt is sent as text, several as a list, with what completions have besides", () => {
  const one = openaiWire.whole<"completion">(completionRequest(), OPTIONS).request;
  strictEqual(one.path, "/completions");
  strictEqual(one.body, '{"model":"upstream-model","prompt":"Once"}');
  const several = openaiWire.stream<"completion">(
    completionRequest({
      prompts: ["Once", "Twice"],
      suffix: "the end",
      echo: true,
      logprobs: 0,
      choices: 2,
      outputTokensMax: 5,
      extra: { best_of: 3, prompt: "other", n: 9 },
    }),
    OPTIONS,
  );
  deepStrictEqual(bodyOf(several.request), {
    model: "upstream-model",
    prompt: ["Once", "Twice"],
    suffix: "the end",
    echo: true,
    logprobs: 0,
    max_tokens: 5,
    n: 2,
    stream: true,
    stream_options: { include_usage: true },
    best_of: 3,
  });
  deepStrictEqual(several.request.accept, ["text/event-stream"]);
});

Deno.test("vLLM's answer is read: choices in order, log probabilities in the legacy form", () => {
  const logprobs = { text_offset: [0], token_logprobs: [null], tokens: ["a"], top_logprobs: [null] };
  const choice = (index: number, text: string, finish_reason: string) => ({
    index,
    text,
    logprobs,
    finish_reason,
    stop_reason: null,
    prompt_logprobs: null,
  });
  deepStrictEqual(
    read({
      id: "cmpl-1",
      object: "text_completion",
      choices: [choice(1, "b", "length"), choice(0, "a", "stop")],
      usage: { prompt_tokens: 4, total_tokens: 6, completion_tokens: 2 },
    }, { prompts: ["x", "y"], logprobs: 1 }),
    {
      choices: [
        { text: "a", reasoning: "", toolCalls: [], finish: "stop", logprobs },
        { text: "b", reasoning: "", toolCalls: [], finish: "length", logprobs },
      ],
      usage: { inputTokens: 4, outputTokens: 2, countedBy: "engine" },
    },
  );
});

Deno.test("of one prompt's choices some may be missing, of several prompts' none", () => {
  const body = { choices: [{ index: 0, text: "a", finish_reason: "stop" }] };
  strictEqual(read(body, { choices: 3 }).choices.length, 1);
  refuses(() => read(body, { prompts: ["x", "y"] }));
});

Deno.test("a choice without text, or with a message in its place, is refused", () => {
  for (
    const choice of [{}, { text: null }, { text: 5 }, { message: { content: "SECRET" } }, { text: ["a"] }]
  ) {
    refuses(() => read({ choices: [{ index: 0, finish_reason: "stop", ...choice }] }));
  }
});
