// Anthropic's official client against the routes, whole and streaming.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import type { ChatEvent, ChatRequest } from "../../../src/engines/chat.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { answerWith, type FakeDoor, fakeDoor, HELLO, type Script } from "./fake_door.ts";

const ORIGIN = "http://127.0.0.1:8000";

function clientOf(script: Script = {}): { readonly client: Anthropic; readonly fake: FakeDoor } {
  const fake = fakeDoor(script);
  const client = new Anthropic({
    apiKey: null,
    authToken: "token",
    baseURL: ORIGIN,
    maxRetries: 0,
    fetch: async (input, init) => {
      const request = new Request(input, init);
      strictEqual(request.headers.get("authorization"), "Bearer token");
      const { pathname, search } = new URL(request.url);
      strictEqual(search, "");
      return await fake.answer(pathname, await request.json());
    },
  });
  return { client, fake };
}

const BODY = { model: "m1", max_tokens: 2000, messages: [...HELLO] };
const WEATHER = {
  name: "weather",
  input_schema: { type: "object" as const, properties: { city: { type: "string" } } },
};
const text = (value: string): ChatEvent => ({ type: "text", choice: 0, text: value });
const usage: ChatEvent = { type: "usage", usage: { inputTokens: 10, outputTokens: 3, countedBy: "engine" } };

Deno.test("the client reads a message", async () => {
  const { client } = clientOf({ answer: answerWith({ text: "hi" }) });
  const { content, stop_reason, usage } = await client.messages.create(BODY);
  deepStrictEqual(content, [{ type: "text", text: "hi" }]);
  strictEqual(stop_reason, "end_turn");
  deepStrictEqual([usage.input_tokens, usage.output_tokens], [5, 7]);
});

Deno.test("the client runs a tool: what it got goes back as it came", async () => {
  const toolCalls = [{ id: "c1", name: "weather", arguments: '{"city":"Ulm"}' }];
  const { client, fake } = clientOf({
    answer: answerWith({ text: "let me see", reasoning: "hm", toolCalls, finish: "tool_calls" }),
  });
  const thinking = { type: "enabled", budget_tokens: 1024 } as const;
  const first = await client.messages.create({ ...BODY, thinking, tools: [WEATHER] });
  strictEqual(first.stop_reason, "tool_use");
  const call = first.content.find((block) => block.type === "tool_use");
  ok(call !== undefined);
  deepStrictEqual(call.input, { city: "Ulm" });
  await client.messages.create({
    ...BODY,
    tools: [WEATHER],
    messages: [
      ...HELLO,
      { role: "assistant", content: first.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "sunny" }] },
    ],
  });
  deepStrictEqual((fake.requests[1] as ChatRequest).messages.slice(1), [
    { role: "assistant", parts: [{ type: "text", text: "let me see" }], toolCalls },
    { role: "tool", toolCallId: "c1", parts: [{ type: "text", text: "sunny" }] },
  ]);
});

Deno.test("the client puts a stream of thinking, text and calls together", async () => {
  const call = (index: number, args: string): ChatEvent => ({
    type: "tool_call",
    choice: 0,
    index,
    id: `c${index}`,
    name: "weather",
    arguments: args,
  });
  const { client } = clientOf({
    batches: [
      [{ type: "reasoning", choice: 0, text: "hm" }, text("let "), text("me\r\n\r\nsee")],
      [call(0, '{"city"'), call(1, '{"city":"Bonn"}'), call(0, ':"Ulm"}')],
      [{ type: "finish", choice: 0, reason: "tool_calls" }],
      [usage],
    ],
  });
  const stream = client.messages.stream({
    ...BODY,
    thinking: { type: "enabled", budget_tokens: 1024 },
    tools: [WEATHER],
  });
  const texts: string[] = [];
  stream.on("text", (delta) => texts.push(delta));
  const message = await stream.finalMessage();
  deepStrictEqual(texts, ["let ", "me\r\n\r\nsee"]);
  deepStrictEqual(message.content.map((block) => ({ ...block })), [
    { type: "thinking", thinking: "hm", signature: "" },
    { type: "text", text: "let me\r\n\r\nsee" },
    { type: "tool_use", id: "c0", name: "weather", input: { city: "Ulm" } },
    { type: "tool_use", id: "c1", name: "weather", input: { city: "Bonn" } },
  ]);
  strictEqual(message.stop_reason, "tool_use");
  deepStrictEqual([message.usage.input_tokens, message.usage.output_tokens], [10, 3]);
});

Deno.test("the client reads a structured answer", async () => {
  const { client, fake } = clientOf({ answer: answerWith({ text: '{"answer":42}' }) });
  const schema = { type: "object", properties: { answer: { type: "integer" } } };
  const { content: [block] } = await client.messages.create({
    ...BODY,
    output_config: { format: { type: "json_schema", schema } },
  });
  ok(block?.type === "text");
  deepStrictEqual(JSON.parse(block.text), { answer: 42 });
  deepStrictEqual((fake.requests[0] as ChatRequest).responseFormat, {
    type: "json_schema",
    name: "answer",
    schema,
    strict: true,
  });
});

Deno.test("the client counts tokens", async () => {
  const { client } = clientOf();
  const { input_tokens } = await client.messages.countTokens({
    model: "m1",
    messages: [...HELLO],
    tools: [WEATHER],
  });
  ok(input_tokens > 10);
});

Deno.test("the client shows which field is wrong", async () => {
  const { client } = clientOf();
  await rejects(
    client.messages.create({ ...BODY, tools: [{ type: "web_search_20250305", name: "web_search" }] }),
    (thrown) =>
      thrown instanceof Anthropic.UnprocessableEntityError && thrown.type === "invalid_request_error" &&
      thrown.message.includes("tools.0.type: is not custom"),
  );
});

Deno.test("the client knows an unknown model and a busy engine apart", async () => {
  const { client } = clientOf();
  await rejects(client.messages.create({ ...BODY, model: "other" }), Anthropic.NotFoundError);
  const busy = clientOf({ fault: new Fault("overloaded", "full") });
  await rejects(
    busy.client.messages.create({ ...BODY, stream: true }),
    (thrown) => thrown instanceof Anthropic.InternalServerError && thrown.type === "overloaded_error",
  );
});

Deno.test("the client sees a stream that breaks off", async () => {
  const { client } = clientOf({ batches: [[text("half")]], fault: new Fault("upstream_failed", "private") });
  const stream = client.messages.stream(BODY);
  let seen = "";
  stream.on("text", (delta) => seen += delta);
  await rejects(
    stream.finalMessage(),
    (thrown) =>
      thrown instanceof Anthropic.APIError && thrown.type === "api_error" &&
      !thrown.message.includes("private"),
  );
  strictEqual(seen, "half");
});

Deno.test("a client that aborts ends the stream behind", async () => {
  const { client, fake } = clientOf({ batches: [[text("a")], [text("b")], [text("c")]] });
  const stream = await client.messages.create({ ...BODY, stream: true });
  for await (const event of stream) {
    if (event.type === "content_block_delta") break;
  }
  strictEqual(fake.cancelled, 1);
});
