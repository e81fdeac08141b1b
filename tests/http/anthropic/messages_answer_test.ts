// Messages answer: whole answers in Anthropic's form.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { ChatChoice } from "../../../src/engines/chat.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { message } from "../../../src/http/anthropic/messages_answer.ts";
import { answerWith, bodyWith, fakeDoor } from "./fake_door.ts";

async function answered(choice: Partial<ChatChoice>, fields: object = {}, usage: object = {}) {
  const { status, body } = await fakeDoor({ answer: answerWith(choice, usage) }).send(
    "/v1/messages",
    bodyWith(fields),
  );
  strictEqual(status, 200);
  return message.parse(body);
}

const THINKING = { thinking: { type: "enabled", budget_tokens: 1024 } };

Deno.test("a text is answered as one block", async () => {
  deepStrictEqual(await answered({ text: "hi" }, { model: "nick" }), {
    id: "msg_0123456789",
    type: "message",
    role: "assistant",
    model: "m1",
    content: [{ type: "text", text: "hi" }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: { input_tokens: 5, output_tokens: 7, cache_read_input_tokens: 0, cache_creation_input_tokens: 0 },
  });
});

Deno.test("thinking, text and calls stand in this order", async () => {
  const { content, stop_reason } = await answered({
    text: "let me see",
    reasoning: "hm",
    toolCalls: [{ id: "c1", name: "weather", arguments: '{"city":"Ulm"}' }],
    finish: "tool_calls",
  }, THINKING);
  strictEqual(stop_reason, "tool_use");
  deepStrictEqual(content, [
    { type: "thinking", thinking: "hm", signature: "" },
    { type: "text", text: "let me see" },
    { type: "tool_use", id: "c1", name: "weather", input: { city: "Ulm" } },
  ]);
});

Deno.test("thinking is told only to callers that asked for it", async () => {
  for (
    const fields of [{}, { thinking: { type: "disabled" } }, {
      thinking: { type: "adaptive", display: "omitted" },
    }]
  ) {
    deepStrictEqual((await answered({ reasoning: "hm" }, fields)).content, []);
  }
  strictEqual((await answered({ reasoning: "hm" }, { thinking: { type: "adaptive" } })).content.length, 1);
});

Deno.test("arguments that are no JSON object become an empty input", async () => {
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  for (
    const text of ["", "{", "[]", "null", '"x"', "3", '{"a":1,"a":2}', '{"__proto__":{}}', `{"a":${deep}}`]
  ) {
    const { content } = await answered({
      toolCalls: [{ id: "c", name: "n", arguments: text }],
      finish: "tool_calls",
    });
    deepStrictEqual(content, [{ type: "tool_use", id: "c", name: "n", input: {} }], text.slice(0, 20));
  }
});

Deno.test("each way to end has its reason", async () => {
  const reasonOf = async (choice: Partial<ChatChoice>) => {
    const { stop_reason, stop_sequence } = await answered(choice);
    return [stop_reason, stop_sequence];
  };
  const toolCalls = [{ id: "c", name: "n", arguments: "{}" }];
  deepStrictEqual(await reasonOf({ finish: "stop" }), ["end_turn", null]);
  deepStrictEqual(await reasonOf({ finish: "stop", stopSequence: "END" }), ["stop_sequence", "END"]);
  deepStrictEqual(await reasonOf({ finish: "length" }), ["max_tokens", null]);
  deepStrictEqual(await reasonOf({ finish: "length", toolCalls }), ["max_tokens", null]);
  deepStrictEqual(await reasonOf({ finish: "stop", toolCalls }), ["tool_use", null]);
  deepStrictEqual(await reasonOf({ finish: "content_filter" }), ["refusal", null]);
  deepStrictEqual(await reasonOf({ finish: "stop", refusal: "no" }), ["refusal", null]);
});

Deno.test("a refusal is told as text", async () => {
  deepStrictEqual((await answered({ refusal: "I cannot" })).content, [{ type: "text", text: "I cannot" }]);
});

Deno.test("tokens that were cached are counted apart from the rest of the input", async () => {
  const { usage } = await answered({}, {}, { inputTokens: 100, cachedInputTokens: 60 });
  deepStrictEqual([usage.input_tokens, usage.cache_read_input_tokens], [40, 60]);
  const odd = await answered({}, {}, { inputTokens: 10, cachedInputTokens: 60 });
  strictEqual(odd.usage.input_tokens, 0);
});

Deno.test("a fault of the door passes as it is", async () => {
  const response = await fakeDoor({ fault: new Fault("upstream_timeout", "private words") })
    .answer("/v1/messages", bodyWith());
  strictEqual(response.status, 504);
  deepStrictEqual(await response.json(), {
    type: "error",
    error: { type: "timeout_error", message: "The engine behind this model did not answer in time." },
    request_id: "req_0123456789",
  });
});
