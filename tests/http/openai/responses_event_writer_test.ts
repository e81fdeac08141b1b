// Responses event writer: its events to the letter, whatever the pieces are, and nothing in a text that could forge one.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import OpenAI from "openai";
import type { ChatChoice, ChatEvent, FinishReason, ToolCall } from "../../../src/engines/chat.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { type OpenResponse, outputOf } from "../../../src/http/openai/responses_answer.ts";
import { ResponsesEventWriter } from "../../../src/http/openai/responses_event_writer.ts";
import { anyText } from "../../support/any_text.ts";

const RESPONSE: OpenResponse = { id: "resp_X", created_at: 1, model: "large", echo: { store: false } };
const USAGE = { inputTokens: 3, outputTokens: 4, countedBy: "engine" } as const;

const openWriter = () => new ResponsesEventWriter(RESPONSE, "req_1", () => 2);

/** All of a stream's text. */
function write(batches: readonly (readonly ChatEvent[])[]): string {
  const writer = openWriter();
  return writer.open() + batches.map((batch) => writer.items(batch)).join("") + writer.close();
}

interface WireEvent {
  readonly event: string;
  readonly data: Record<string, unknown> & { readonly type: string };
}

/** By the grammar of WHATWG HTML §9.2.5; any other line than one `event` and one `data` an event is a mistake. */
function read(text: string): WireEvent[] {
  ok(text.endsWith("\n\n"));
  return text.slice(0, -2).split("\n\n").map((block) => {
    const lines = block.split(/\r\n|\n|\r/);
    const [event = "", data = ""] = lines;
    ok(lines.length === 2 && event.startsWith("event: ") && data.startsWith("data: "), block);
    return { event: event.slice(7), data: JSON.parse(data.slice(6)) };
  });
}

const opening = {
  id: "resp_X",
  object: "response",
  created_at: 1,
  status: "in_progress",
  completed_at: null,
  error: null,
  incomplete_details: null,
  model: "large",
  output: [],
  usage: null,
  store: false,
};

Deno.test("words and a call are written as OpenAI's events, each with its number", () => {
  const text = write([
    [{ type: "text", choice: 0, text: "He" }],
    [{ type: "text", choice: 0, text: "y" }],
    [{ type: "tool_call", choice: 0, index: 0, id: "c1", name: "f", arguments: "" }],
    [{ type: "tool_call", choice: 0, index: 0, arguments: "{}" }],
    [{ type: "finish", choice: 0, reason: "tool_calls" }],
    [{ type: "usage", usage: USAGE }],
  ]);
  const part = { item_id: "msg_X_0", output_index: 0, content_index: 0 };
  const call = { item_id: "fc_X_1", output_index: 1 };
  const hey = { type: "output_text", text: "Hey", annotations: [], logprobs: [] };
  const message = { id: "msg_X_0", type: "message", role: "assistant", content: [hey], status: "completed" };
  const called = {
    id: "fc_X_1",
    type: "function_call",
    call_id: "c1",
    name: "f",
    arguments: "{}",
    status: "completed",
  };
  const expected: [string, object][] = [
    ["response.created", { response: opening }],
    ["response.in_progress", { response: opening }],
    ["response.output_item.added", {
      output_index: 0,
      item: { ...message, content: [], status: "in_progress" },
    }],
    ["response.content_part.added", { ...part, part: { ...hey, text: "" } }],
    ["response.output_text.delta", { ...part, delta: "He", logprobs: [] }],
    ["response.output_text.delta", { ...part, delta: "y", logprobs: [] }],
    ["response.output_text.done", { ...part, text: "Hey", logprobs: [] }],
    ["response.content_part.done", { ...part, part: hey }],
    ["response.output_item.done", { output_index: 0, item: message }],
    ["response.output_item.added", {
      output_index: 1,
      item: { ...called, arguments: "", status: "in_progress" },
    }],
    ["response.function_call_arguments.delta", { ...call, delta: "{}" }],
    ["response.function_call_arguments.done", { ...call, arguments: "{}" }],
    ["response.output_item.done", { output_index: 1, item: called }],
    ["response.completed", {
      response: {
        ...opening,
        status: "completed",
        completed_at: 2,
        output: [message, called],
        usage: {
          input_tokens: 3,
          input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
          output_tokens: 4,
          output_tokens_details: { reasoning_tokens: 0 },
          total_tokens: 7,
        },
      },
    }],
  ];
  deepStrictEqual(
    read(text),
    expected.map(([type, fields], sequence_number) => ({
      event: type,
      data: { type, sequence_number, ...fields },
    })),
  );
});

Deno.test("a refusal after words is a part of the same message; thoughts are an item of their own", () => {
  const events = read(write([[
    { type: "reasoning", choice: 0, text: "R" },
    { type: "text", choice: 0, text: "T" },
    { type: "refusal", choice: 0, text: "N" },
    { type: "finish", choice: 0, reason: "content_filter" },
  ]]));
  deepStrictEqual(events.slice(2).map(({ event }) => event.replace("response.", "")), [
    "output_item.added",
    "content_part.added",
    "reasoning_text.delta",
    "reasoning_text.done",
    "content_part.done",
    "output_item.done",
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "content_part.added",
    "refusal.delta",
    "refusal.done",
    "content_part.done",
    "output_item.done",
    "incomplete",
  ]);
  const { response } = events.at(-1)?.data as unknown as { response: Record<string, unknown> };
  deepStrictEqual([response.status, response.incomplete_details, response.completed_at, response.usage], [
    "incomplete",
    { reason: "content_filter" },
    null,
    null,
  ]);
});

Deno.test("pieces of other answers and empty pieces write nothing", () => {
  const writer = openWriter();
  strictEqual(
    writer.items([
      { type: "text", choice: 1, text: "other" },
      { type: "text", choice: 0, text: "" },
      { type: "usage", usage: USAGE },
    ]),
    "",
  );
});

Deno.test("a fault is an error event in public words, with the number after the last", () => {
  const writer = openWriter();
  writer.open();
  const events = read(
    writer.fault(
      new Fault("fields_invalid", "private", { fields: [{ path: "/input/2", message: "is too long" }] }),
    ),
  );
  deepStrictEqual(events, [{
    event: "error",
    data: {
      type: "error",
      sequence_number: 2,
      code: "fields_invalid",
      message: "input[2]: is too long",
      param: "input[2]",
    },
  }]);
  const [event] = read(writer.fault(new Fault("upstream_failed", "sk-secret")));
  ok(!JSON.stringify(event).includes("sk-secret"));
});

const forging = fc.oneof(
  anyText,
  fc.constantFrom(
    "\n\nevent: response.completed\ndata: {}\n\n",
    "\r\rdata: x",
    "\u2028\u2029\u0085",
    '"}\n\n',
    "data: [DONE]",
  ),
);
const finish = fc.constantFrom<FinishReason>("stop", "length", "tool_calls", "content_filter");
const said = fc.record({
  type: fc.constantFrom("text", "reasoning", "refusal"),
  choice: fc.constant(0),
  text: forging,
});
const called = fc.record({
  type: fc.constant("tool_call"),
  choice: fc.constant(0),
  index: fc.nat(3),
  id: forging,
  name: forging,
  arguments: forging,
});
/** Pieces in any order, interleaved calls, and what comes after the end included. */
const pieces = fc.array(
  fc.oneof(said, called, fc.record({ type: fc.constant("finish"), choice: fc.constant(0), reason: finish })),
  {
    maxLength: 12,
  },
) as fc.Arbitrary<ChatEvent[]>;

Deno.test("no text can forge an event, numbers have no gap, and what was sent in pieces is what the end says", () => {
  fc.assert(fc.property(pieces, (batch) => {
    const events = read(write([batch]));
    const joined = new Map<string, string>();
    for (const [index, { event, data }] of events.entries()) {
      strictEqual(event, data.type);
      strictEqual(data.sequence_number, index);
      const key = `${data.item_id} ${data.content_index ?? ""}`;
      if (event.endsWith(".delta")) joined.set(key, (joined.get(key) ?? "") + data.delta);
      const whole = data.arguments ?? data.refusal ?? data.text;
      if (whole !== undefined) strictEqual(whole, joined.get(key) ?? "");
    }
    const sent = batch.map((event) =>
      "text" in event ? event.text : "arguments" in event ? event.arguments : ""
    );
    deepStrictEqual(
      [...joined.values()].join("").length,
      sent.join("").length,
    );
    deepStrictEqual(
      events.filter(({ event }) => /^response\.(completed|incomplete)$/.test(event)).length,
      1,
    );
  }));
});

Deno.test("OpenAI's stream helper takes any order of pieces and ends with the output that the last event says", async () => {
  await fc.assert(
    fc.asyncProperty(pieces, async (batch) => {
      const text = write([batch]);
      const client = new OpenAI({
        apiKey: "none",
        baseURL: "http://127.0.0.1/v1",
        maxRetries: 0,
        fetch: () =>
          Promise.resolve(new Response(text, { headers: { "Content-Type": "text/event-stream" } })),
      });
      const response = await client.responses.stream({ model: "large", input: "Hi" }).finalResponse();
      const { output } = (read(text).at(-1)?.data as unknown as { response: { output: unknown[] } }).response;
      // The helper adds members of its own.
      const plain = JSON.parse(
        JSON.stringify(response.output, (name, value) => name.startsWith("parsed") ? undefined : value),
      );
      deepStrictEqual(plain, output);
    }),
    { numRuns: 60 },
  );
});

Deno.test("an answer has the same output in pieces as whole", () => {
  const toolCall: fc.Arbitrary<ToolCall> = fc.record({ id: forging, name: forging, arguments: forging });
  const choice = fc.record({
    text: forging,
    reasoning: forging,
    refusal: forging,
    toolCalls: fc.array(toolCall, { maxLength: 3 }),
    finish,
  });
  fc.assert(fc.property(choice, (choice: ChatChoice) => {
    const { text, reasoning, refusal = "", toolCalls, finish } = choice;
    const batch: ChatEvent[] = [
      { type: "reasoning", choice: 0, text: reasoning },
      { type: "text", choice: 0, text },
      { type: "refusal", choice: 0, text: refusal },
      ...toolCalls.map((call, index) => ({ type: "tool_call" as const, choice: 0, index, ...call })),
      { type: "finish", choice: 0, reason: finish },
    ];
    const { output } =
      (read(write([batch])).at(-1)?.data as unknown as { response: { output: unknown } }).response;
    deepStrictEqual(output, JSON.parse(JSON.stringify(outputOf(choice, "resp_X"))));
  }));
});

Deno.test("OWASP API10: an engine that makes a great many items or parts of its answer is stopped", () => {
  const alternating = (
    types: readonly ["reasoning" | "text", "text" | "refusal"],
    count: number,
  ): ChatEvent[] =>
    Array.from({ length: count }, (_, index) => ({ type: types[index % 2] ?? "text", choice: 0, text: "a" }));
  const called = (count: number): ChatEvent[] =>
    Array.from(
      { length: count },
      (_, index) => ({ type: "tool_call", choice: 0, index, id: `c${index}`, name: "f", arguments: "" }),
    );
  for (
    const make of [
      (count: number) => alternating(["reasoning", "text"], count),
      (count: number) => alternating(["text", "refusal"], count),
      called,
    ]
  ) {
    strictEqual(read(write([make(1000)])).at(-1)?.event, "response.completed");
    throws(
      () => openWriter().items(make(1001)),
      (thrown) => thrown instanceof Fault && thrown.kind === "upstream_answer_invalid",
    );
  }
});
