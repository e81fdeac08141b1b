import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../../../src/encoding/canonical_json.ts";
import type { ChatEvent } from "../../../../src/engines/chat.ts";
import { openMessageReader } from "../../../../src/engines/upstream/anthropic/message_events.ts";
import { Fault, type FaultKind } from "../../../../src/faults/fault.ts";
import { mutateJson } from "../mutate_json.ts";

const START = {
  type: "message_start",
  message: {
    id: "msg_014p7gG3wDgGV9EUtLvnow3U",
    type: "message",
    role: "assistant",
    content: [],
    model: "claude-opus-4-6",
    stop_reason: null,
    stop_sequence: null,
    usage: { input_tokens: 472, cache_read_input_tokens: 100, output_tokens: 2 },
  },
};
const END = {
  type: "message_delta",
  delta: { stop_reason: "end_turn", stop_sequence: null },
  usage: { output_tokens: 89 },
};
const STOP = { type: "message_stop" };
const TEXT = { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } };

/** A stream as the documentation shows it: thinking, text, a tool of theirs, and two calls of ours. */
const STREAM: readonly JsonValue[] = [
  START,
  { type: "content_block_start", index: 0, content_block: { type: "thinking", thinking: "", signature: "" } },
  { type: "content_block_delta", index: 0, delta: { type: "thinking_delta", thinking: "Let me see" } },
  { type: "content_block_delta", index: 0, delta: { type: "signature_delta", signature: "EqQB" } },
  { type: "content_block_stop", index: 0 },
  { type: "ping" },
  { type: "content_block_start", index: 1, content_block: { type: "text", text: "" } },
  { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "Okay" } },
  { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "" } },
  { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "!\ndata: x" } },
  { type: "content_block_stop", index: 1 },
  {
    type: "content_block_start",
    index: 2,
    content_block: { type: "server_tool_use", id: "srvtoolu_1", name: "web_search", input: {} },
  },
  { type: "content_block_delta", index: 2, delta: { type: "input_json_delta", partial_json: '{"query":1}' } },
  { type: "content_block_stop", index: 2 },
  {
    type: "content_block_start",
    index: 3,
    content_block: { type: "tool_use", id: "toolu_1", name: "get_weather", input: {} },
  },
  { type: "content_block_delta", index: 3, delta: { type: "input_json_delta", partial_json: "" } },
  {
    type: "content_block_delta",
    index: 3,
    delta: { type: "input_json_delta", partial_json: '{"location":' },
  },
  { type: "content_block_delta", index: 3, delta: { type: "input_json_delta", partial_json: ' "Paris"}' } },
  { type: "content_block_stop", index: 3 },
  {
    type: "content_block_start",
    index: 4,
    content_block: { type: "tool_use", id: "toolu_2", name: "time", input: {} },
  },
  { type: "content_block_delta", index: 4, delta: { type: "input_json_delta", partial_json: "" } },
  { type: "content_block_stop", index: 4 },
  { type: "message_delta", delta: { stop_reason: null }, usage: { output_tokens: 40 } },
  { type: "an_event_of_later_versions", content: [] },
  {
    type: "message_delta",
    delta: { stop_reason: "tool_use", stop_sequence: null },
    usage: { input_tokens: 480, cache_read_input_tokens: null, output_tokens: 89 },
  },
  STOP,
];

/** Reads events until the end, and says whether the end mark came. */
function read(events: readonly unknown[]): { readonly items: readonly ChatEvent[]; readonly ended: boolean } {
  const reader = openMessageReader();
  const items = events.flatMap((event) =>
    reader.read({
      event: String((event as { readonly type?: unknown } | null)?.type),
      data: typeof event === "string" ? event : JSON.stringify(event),
    })
  );
  return { items, ended: reader.ended };
}

function faultOf(events: readonly unknown[]): Fault {
  let caught: unknown;
  throws(() => read(events), (thrown) => {
    caught = thrown;
    return thrown instanceof Fault;
  });
  return caught as Fault;
}

Deno.test("a documented stream is read into the pieces of a chat, with the last figures and the end", () => {
  deepStrictEqual(read(STREAM), {
    ended: true,
    items: [
      { type: "reasoning", choice: 0, text: "Let me see" },
      { type: "text", choice: 0, text: "Okay" },
      { type: "text", choice: 0, text: "!\ndata: x" },
      { type: "tool_call", choice: 0, index: 0, id: "toolu_1", name: "get_weather", arguments: "" },
      { type: "tool_call", choice: 0, index: 0, arguments: '{"location":' },
      { type: "tool_call", choice: 0, index: 0, arguments: ' "Paris"}' },
      { type: "tool_call", choice: 0, index: 1, id: "toolu_2", name: "time", arguments: "" },
      { type: "tool_call", choice: 0, index: 1, arguments: "{}" },
      { type: "finish", choice: 0, reason: "tool_calls" },
      {
        type: "usage",
        usage: { inputTokens: 580, outputTokens: 89, cachedInputTokens: 100, countedBy: "engine" },
      },
    ],
  });
});

Deno.test("a stream without its end mark has not ended", () => {
  strictEqual(read(STREAM.slice(0, -1)).ended, false);
  strictEqual(read([]).ended, false);
});

Deno.test("a call whose input comes with its beginning has it as its arguments", () => {
  const { items } = read([
    START,
    {
      type: "content_block_start",
      index: 0,
      content_block: { type: "tool_use", id: "toolu_1", name: "time", input: { zone: "UTC" } },
    },
    END,
    STOP,
  ]);
  deepStrictEqual(items[0], {
    type: "tool_call",
    choice: 0,
    index: 0,
    id: "toolu_1",
    name: "time",
    arguments: '{"zone":"UTC"}',
  });
  strictEqual(items.filter(({ type }) => type === "tool_call").length, 1);
});

Deno.test("a call that its server never closes has whole arguments all the same", () => {
  const { items } = read([
    START,
    { type: "content_block_start", index: 0, content_block: { type: "tool_use", id: "1", name: "time" } },
    END,
    STOP,
  ]);
  deepStrictEqual(items[1], { type: "tool_call", choice: 0, index: 0, arguments: "{}" });
  strictEqual(items[2]?.type, "finish");
});

Deno.test("a stream without figures tells none", () => {
  const { items } = read([
    { type: "message_start", message: {} },
    { type: "message_delta", delta: { stop_reason: "stop_sequence", stop_sequence: "END" } },
    STOP,
  ]);
  deepStrictEqual(items, [{ type: "finish", choice: 0, reason: "stop", stopSequence: "END" }]);
});

Deno.test("what follows the end mark is not read", () => {
  deepStrictEqual(read([START, END, STOP, "garbage"]), read([START, END, STOP]));
});

Deno.test("an error event ends the stream as failed or overloaded, and only its code is told", () => {
  const error = (type: unknown) => ({ type: "error", error: { type, message: "SECRET" } });
  const overloaded = faultOf([START, TEXT, error("overloaded_error")]);
  strictEqual(overloaded.kind, "overloaded");
  const failed = faultOf([error("api_error")]);
  strictEqual(failed.kind, "upstream_failed");
  strictEqual(failed.message.includes("api_error"), true);
  for (const type of ["SECRET with\nlines", 7, undefined, { a: "SECRET" }, "s".repeat(65)]) {
    const fault = faultOf([START, error(type)]);
    strictEqual(fault.kind, "upstream_failed");
    strictEqual(/SECRET|sss|\n/.test(fault.message + JSON.stringify(fault.details)), false);
  }
  strictEqual(faultOf([{ type: "error" }]).kind, "upstream_failed");
});

const toolStart = (index: number) => ({
  type: "content_block_start",
  index,
  content_block: { type: "tool_use", id: `toolu_${index}`, name: "time", input: {} },
});
const stopOf = (index: number) => ({ type: "content_block_stop", index });

Deno.test("a stream has at most 128 calls, whether their blocks are closed or not", () => {
  const calls = (count: number, closed: boolean) =>
    Array.from(
      { length: count },
      (_, index) => closed ? [toolStart(index), stopOf(index)] : [toolStart(index)],
    )
      .flat();
  for (const closed of [true, false]) {
    strictEqual(read([START, ...calls(128, closed), END, STOP]).ended, true);
    strictEqual(faultOf([START, ...calls(129, closed)]).kind, "upstream_answer_invalid");
  }
});

Deno.test("a stream has at most 256 blocks open at once, and any number one after the other", () => {
  const starts = (count: number) => Array.from({ length: count }, (_, index) => ({ ...TEXT, index }));
  strictEqual(read([START, ...starts(256), stopOf(7), { ...TEXT, index: 256 }, END, STOP]).ended, true);
  strictEqual(faultOf([START, ...starts(257)]).kind, "upstream_answer_invalid");
  const oneByOne = starts(1_000).flatMap((start) => [start, stopOf(start.index)]);
  strictEqual(read([START, ...oneByOne, END, STOP]).ended, true);
});

Deno.test("an error's code that is none we know is not told, though it is a plain word", () => {
  const { message } = faultOf([{ type: "error", error: { type: "sk-4f9a-key" } }]);
  strictEqual(message.includes("sk-4f9a"), false);
});

Deno.test("what is no event of a message is refused", () => {
  const delta = { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "a" } };
  const broken: readonly (readonly unknown[])[] = [
    [""],
    ["[DONE]"],
    ["null"],
    [[]],
    [TEXT],
    [STOP],
    [END],
    [START, START],
    [{ type: "message_start" }],
    [START, delta],
    [START, TEXT, TEXT],
    [START, TEXT, { ...delta, index: 1 }],
    [START, TEXT, { ...delta, delta: "a" }],
    [START, TEXT, { ...delta, delta: { type: "text_delta", text: 1 } }],
    [START, TEXT, { type: "content_block_stop", index: 1 }],
    [START, { ...TEXT, index: "0" }],
    [START, { ...TEXT, content_block: "text" }],
    [START, { ...TEXT, content_block: { type: "tool_use", name: "a" } }],
    [START, { ...TEXT, content_block: { type: "tool_use", id: "1" } }],
    [START, { ...TEXT, content_block: { type: "tool_use", id: "1", name: "a", input: "{}" } }],
    [START, STOP],
    [START, { type: "message_delta" }],
    [START, { type: "message_delta", delta: { stop_reason: 1 } }],
    [START, { ...END, usage: { output_tokens: -1 } }, STOP],
  ];
  for (const events of broken) {
    strictEqual(faultOf(events).kind, "upstream_answer_invalid", JSON.stringify(events));
  }
});

Deno.test("whatever is changed in a stream, it is read or refused with a fault that fits", () => {
  const kinds = new Set<FaultKind | "read">();
  fc.assert(
    fc.property(mutateJson(STREAM), (events) => {
      try {
        read(Array.isArray(events) ? events : [events]);
        kinds.add("read");
      } catch (thrown) {
        if (!(thrown instanceof Fault)) throw thrown;
        kinds.add(thrown.kind);
      }
    }),
    { numRuns: 500 },
  );
  deepStrictEqual([...kinds].sort(), ["read", "upstream_answer_invalid"]);
});

Deno.test("text that is no JSON never surfaces as anything but a refusal", () => {
  fc.assert(fc.property(fc.string(), (data) => {
    const reader = openMessageReader();
    throws(
      () => reader.read({ event: "message", data }),
      (thrown) => thrown instanceof Fault && thrown.kind === "upstream_answer_invalid",
    );
  }));
});
