import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { encodeUtf8 } from "../../../../src/encoding/utf8.ts";
import type { ChatRequest } from "../../../../src/engines/chat.ts";
import { anthropicWire } from "../../../../src/engines/upstream/anthropic/anthropic_wire.ts";
import { Fault } from "../../../../src/faults/fault.ts";

const OPTIONS = { model: "claude-opus-4-6", usageInStreams: true };
const CHAT: ChatRequest = {
  task: "chat",
  messages: [{ role: "user", parts: [{ type: "text", text: "Hello" }] }],
  tools: [],
  stop: [],
  choices: 1,
  extra: {},
};

Deno.test("a chat is posted to /v1/messages with the API's version, whole and in events", () => {
  const { body, ...whole } = anthropicWire.whole<"chat">(CHAT, OPTIONS).request;
  deepStrictEqual(whole, {
    method: "POST",
    path: "/v1/messages",
    headers: { "content-type": "application/json", "anthropic-version": "2023-06-01" },
    accept: ["application/json"],
  });
  strictEqual(
    body,
    '{"model":"claude-opus-4-6","max_tokens":4096,"stream":false,' +
      '"messages":[{"role":"user","content":[{"type":"text","text":"Hello"}]}]}',
  );
  const { request, framing, openReader } = anthropicWire.stream<"chat">(CHAT, OPTIONS);
  strictEqual(request.body, String(body).replace('"stream":false', '"stream":true'));
  deepStrictEqual([request.accept, framing, openReader().ended], [["text/event-stream"], "events", false]);
});

Deno.test("the key goes into x-api-key, with the version that a health check needs", () => {
  strictEqual(anthropicWire.kind, "anthropic");
  strictEqual(anthropicWire.healthPath, "/v1/models");
  deepStrictEqual(anthropicWire.credentialHeaders("KEY"), {
    "x-api-key": "KEY",
    "anthropic-version": "2023-06-01",
  });
});

Deno.test("a whole answer is read by the call", () => {
  const bytes = encodeUtf8(
    '{"type":"message","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn",' +
      '"usage":{"input_tokens":1,"output_tokens":2}}',
  );
  const { read } = anthropicWire.whole<"chat">(CHAT, OPTIONS);
  deepStrictEqual(read({ mediaType: "application/json", headers: new Headers(), bytes }), {
    choices: [{ text: "Hi", reasoning: "", toolCalls: [], finish: "stop" }],
    usage: { inputTokens: 1, outputTokens: 2, countedBy: "engine" },
  });
});

Deno.test("every other task is one that the protocol lacks", () => {
  const missing = (thrown: unknown) => thrown instanceof Fault && thrown.kind === "capability_missing";
  throws(() => anthropicWire.whole<"embedding">({ task: "embedding", texts: ["a"] }, OPTIONS), missing);
  throws(() => anthropicWire.whole<"tensor_metadata">({ task: "tensor_metadata" }, OPTIONS), missing);
  throws(
    () =>
      anthropicWire.stream<"completion">(
        { task: "completion", prompts: ["a"], stop: [], choices: 1, extra: {} },
        OPTIONS,
      ),
    missing,
  );
});
