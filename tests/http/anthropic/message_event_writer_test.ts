// Message event writer: streams in Anthropic's form, event by event.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import type { ChatEvent } from "../../../src/engines/chat.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { messageEventWriter } from "../../../src/http/anthropic/message_event_writer.ts";
import { anyText } from "../../support/any_text.ts";
import { bodyWith, fakeDoor } from "./fake_door.ts";

interface WrittenEvent {
  readonly event: string;
  readonly data: Record<string, unknown>;
}

/** Reads as WHATWG HTML §9.2.6 says: CR, LF and CRLF end a line, an empty line ends an event. */
function readEvents(text: string): WrittenEvent[] {
  const events: WrittenEvent[] = [];
  let event = "";
  let data = "";
  for (const line of text.split(/\r\n|\r|\n/)) {
    if (line.startsWith("event: ")) event = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
    else if (line !== "") throw new Error(`a line that is neither: ${line}`);
    else if (data !== "") {
      events.push({ event, data: JSON.parse(data) });
      [event, data] = ["", ""];
    }
  }
  strictEqual(data, "");
  return events;
}

const open = (showThinking = true) =>
  messageEventWriter({
    head: { id: "msg_1", model: "m1" },
    inputTokens: 9,
    showThinking,
    requestId: "req_1",
  });

/** A whole stream. */
function written(batches: readonly (readonly ChatEvent[])[], showThinking = true): WrittenEvent[] {
  const writer = open(showThinking);
  let text = writer.open();
  for (const batch of batches) text += writer.items(batch);
  return readEvents(text + writer.close());
}

/** What stands between the first event and the last two. */
const blocksOf = (events: readonly WrittenEvent[]) => events.slice(1, -2).map(({ data }) => data);

const text = (value: string): ChatEvent => ({ type: "text", choice: 0, text: value });
const reasoning = (value: string): ChatEvent => ({ type: "reasoning", choice: 0, text: value });
const begin = (index: number, args = ""): ChatEvent => ({
  type: "tool_call",
  choice: 0,
  index,
  id: `c${index}`,
  name: `n${index}`,
  arguments: args,
});
const more = (index: number, args: string): ChatEvent => ({
  type: "tool_call",
  choice: 0,
  index,
  arguments: args,
});
const finish = (reason: "stop" | "length" | "tool_calls" | "content_filter"): ChatEvent => ({
  type: "finish",
  choice: 0,
  reason,
});
const usage: ChatEvent = {
  type: "usage",
  usage: { inputTokens: 10, outputTokens: 3, cachedInputTokens: 4, countedBy: "engine" },
};

/** The blocks as a client puts them together, in their order. Fails where events of a block stand outside of it. */
function blocksTogether(events: readonly WrittenEvent[]): Record<string, unknown>[] {
  const blocks: Record<string, unknown>[] = [];
  let inside = false;
  for (const { event, data } of events) {
    if (event === "content_block_start") {
      ok(!inside);
      inside = true;
      strictEqual(data.index, blocks.length);
      blocks.push({ ...data.content_block as object });
    } else if (event === "content_block_delta") {
      ok(inside);
      strictEqual(data.index, blocks.length - 1);
      const delta = data.delta as Record<string, string>;
      const field = delta.type === "text_delta"
        ? "text"
        : delta.type === "thinking_delta"
        ? "thinking"
        : "partial_json";
      const block = blocks.at(-1) ?? {};
      block[field] = `${block[field] ?? ""}${delta[field]}`;
    } else if (event === "content_block_stop") {
      ok(inside);
      inside = false;
      strictEqual(data.index, blocks.length - 1);
    }
  }
  ok(!inside);
  return blocks;
}

Deno.test("a stream of text is written event by event", () => {
  deepStrictEqual(written([[text("Hel"), text("lo")], [finish("stop")], [usage]]), [
    {
      event: "message_start",
      data: {
        type: "message_start",
        message: {
          id: "msg_1",
          type: "message",
          role: "assistant",
          model: "m1",
          content: [],
          stop_reason: null,
          stop_sequence: null,
          usage: {
            input_tokens: 9,
            output_tokens: 0,
            cache_read_input_tokens: 0,
            cache_creation_input_tokens: 0,
          },
        },
      },
    },
    {
      event: "content_block_start",
      data: { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
    },
    {
      event: "content_block_delta",
      data: { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "Hel" } },
    },
    {
      event: "content_block_delta",
      data: { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "lo" } },
    },
    { event: "content_block_stop", data: { type: "content_block_stop", index: 0 } },
    {
      event: "message_delta",
      data: {
        type: "message_delta",
        delta: { stop_reason: "end_turn", stop_sequence: null },
        usage: {
          input_tokens: 6,
          output_tokens: 3,
          cache_read_input_tokens: 4,
          cache_creation_input_tokens: 0,
        },
      },
    },
    { event: "message_stop", data: { type: "message_stop" } },
  ]);
});

Deno.test("text is sent in the batch that brought it", () => {
  const writer = open();
  ok(writer.items([text("now")]).includes('"now"'));
  strictEqual(writer.items([finish("stop"), usage]), "");
});

Deno.test("thinking, text and calls become blocks one after the other", () => {
  const events = written([
    [reasoning("h"), reasoning("m"), text("see"), begin(0), more(0, '{"a"'), more(0, ":1}")],
    [begin(1, "{}"), finish("tool_calls")],
  ]);
  deepStrictEqual(blocksTogether(events), [
    { type: "thinking", thinking: "hm", signature: "" },
    { type: "text", text: "see" },
    { type: "tool_use", id: "c0", name: "n0", input: {}, partial_json: '{"a":1}' },
    { type: "tool_use", id: "c1", name: "n1", input: {}, partial_json: "{}" },
  ]);
  deepStrictEqual(events.at(-2)?.data.delta, { stop_reason: "tool_use", stop_sequence: null });
});

Deno.test("the next call is streamed as soon as the one before is whole", () => {
  const writer = open();
  writer.items([begin(0, '{"a":"}\\"{"}')]);
  deepStrictEqual(readEvents(writer.items([begin(1, '{"b')])).map(({ event }) => event), [
    "content_block_stop",
    "content_block_start",
    "content_block_delta",
  ]);
});

Deno.test("the pieces of calls that come mixed are put in order", () => {
  const events = written([
    [begin(0), begin(1), begin(2, '{"c":')],
    [more(1, '{"b":[1,'), more(0, '{"a":"}'), more(2, "3}")],
    [more(1, "2]}"), more(0, '"}')],
    [finish("tool_calls")],
  ]);
  deepStrictEqual(blocksTogether(events).map(({ id, partial_json }) => [id, partial_json]), [
    ["c0", '{"a":"}"}'],
    ["c1", '{"b":[1,2]}'],
    ["c2", '{"c":3}'],
  ]);
});

Deno.test("calls whose JSON never ends are sent all the same", () => {
  const blocks = blocksTogether(
    written([[begin(0, '{"a'), begin(1, '{"b":1}')], [begin(2), finish("length")]]),
  );
  deepStrictEqual(blocks.map(({ partial_json }) => partial_json), ['{"a', '{"b":1}', undefined]);
});

Deno.test("a hundred thousand calls that wait are sent in order, none of them twice", () => {
  const count = 100_000;
  const writer = open();
  const batch = Array.from({ length: count }, (_, index) => begin(index));
  const text = writer.open() + writer.items(batch) + writer.close();
  const ids = [...text.matchAll(/"id":"c(\d+)"/g)].map(([, index]) => Number(index));
  deepStrictEqual(ids, Array.from({ length: count }, (_, index) => index));
});

Deno.test("calls that wait are sent before the text that follows them", () => {
  const blocks = blocksTogether(
    written([[begin(0, '{"a'), begin(1, "{}"), text("so"), reasoning("x"), text("yes")]]),
  );
  deepStrictEqual(blocks.map(({ type }) => type), ["tool_use", "tool_use", "text", "thinking", "text"]);
});

Deno.test("what follows a whole call is dropped, and a call that goes on after it was cut off is a fault", () => {
  const whole = written([[begin(0, "{}"), text("a"), more(0, "\n{}")]]);
  deepStrictEqual(blocksTogether(whole).map(({ partial_json }) => partial_json), ["{}", undefined]);
  const writer = open();
  writer.items([begin(0, '{"a'), text("b")]);
  throws(
    () => writer.items([more(0, '":1}')]),
    (thrown) => thrown instanceof Fault && thrown.kind === "upstream_answer_invalid",
  );
});

Deno.test("thinking that nobody asked for is not sent", () => {
  deepStrictEqual(blocksOf(written([[reasoning("hm")]], false)), []);
});

Deno.test("pieces without text begin no block", () => {
  deepStrictEqual(blocksOf(written([[text(""), reasoning("")]])), []);
});

Deno.test("a refusal is text, and the reason why the message ended", () => {
  const events = written([[{ type: "refusal", choice: 0, text: "no" }, finish("stop")]]);
  deepStrictEqual(blocksTogether(events), [{ type: "text", text: "no" }]);
  deepStrictEqual(events.at(-2)?.data.delta, { stop_reason: "refusal", stop_sequence: null });
});

Deno.test("the stop sequence that ended the answer is named", () => {
  const events = written([[{ type: "finish", choice: 0, reason: "stop", stopSequence: "END" }]]);
  deepStrictEqual(events.at(-2)?.data.delta, { stop_reason: "stop_sequence", stop_sequence: "END" });
});

Deno.test("an engine that forces a call and says stop still ends with tool_use", () => {
  const events = written([[begin(0, "{}"), finish("stop")]]);
  deepStrictEqual(events.at(-2)?.data.delta, { stop_reason: "tool_use", stop_sequence: null });
});

Deno.test("a fault is an event of its own, in public words", () => {
  const writer = open();
  writer.items([text("half")]);
  deepStrictEqual(readEvents(writer.fault(new Fault("upstream_unreachable", "10.0.0.7 refused"))), [{
    event: "error",
    data: {
      type: "error",
      error: {
        type: "api_error",
        message: "The engine behind this model could not be reached, or dropped the connection.",
      },
      request_id: "req_1",
    },
  }]);
});

Deno.test("a stream that breaks off ends with the error event", async () => {
  const fake = fakeDoor({ batches: [[text("half")]], fault: new Fault("stopping", "stops") });
  const response = await fake.answer("/v1/messages", bodyWith({ stream: true }));
  strictEqual(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  deepStrictEqual(readEvents(await response.text()).map(({ event }) => event), [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "error",
  ]);
});

Deno.test("a stream that never began is refused with a status", async () => {
  const fake = fakeDoor({ fault: new Fault("overloaded", "full") });
  const response = await fake.answer("/v1/messages", bodyWith({ stream: true }));
  strictEqual(response.status, 503);
  strictEqual((await response.json()).error.type, "overloaded_error");
});

Deno.test("a client that leaves ends the stream behind", async () => {
  const fake = fakeDoor({ batches: [[text("a")], [text("b")]] });
  const response = await fake.answer("/v1/messages", bodyWith({ stream: true }));
  const reader = response.body?.getReader();
  await reader?.read();
  await reader?.cancel();
  strictEqual(fake.cancelled, 1);
});

Deno.test("the first event tells an estimate of the input, for engines tell theirs at the end", async () => {
  const fake = fakeDoor({ batches: [[text("a")]] });
  const response = await fake.answer("/v1/messages", bodyWith({ stream: true }));
  const [first] = readEvents(await response.text());
  const { usage } = first?.data.message as { usage: { input_tokens: number } };
  ok(usage.input_tokens > 0);
});

/** Pieces of text that try to end a line and an event, and to begin others. */
const forging = fc.oneof(
  anyText,
  fc.constantFrom(
    "\n\n",
    "\r",
    "\r\n\r\n",
    "event: error\n",
    'data: {"type":"message_stop"}\n\n',
    "\u2028",
    "\0",
    "\ufeff",
  ),
).chain((left) => anyText.map((right) => left + right));
const anyEvent: fc.Arbitrary<ChatEvent> = fc.oneof(
  forging.map(text),
  forging.map(reasoning),
  fc.record({ index: fc.nat(3), args: forging, id: forging, name: forging }).map((
    { index, args, id, name },
  ): ChatEvent => ({
    type: "tool_call",
    choice: 0,
    index,
    id,
    name,
    arguments: args,
  })),
);

Deno.test("no text forges an event, and all text arrives (property)", () => {
  fc.assert(fc.property(fc.array(fc.array(anyEvent, { maxLength: 4 }), { maxLength: 6 }), (batches) => {
    let events;
    try {
      events = written(batches);
    } catch (thrown) {
      ok(thrown instanceof Fault && thrown.kind === "upstream_answer_invalid");
      return;
    }
    strictEqual(events.filter(({ event }) => event === "message_stop").length, 1);
    ok(events.every(({ event, data }) => event === data.type));
    const blocks = blocksTogether(events);
    for (const [type, field] of [["text", "text"], ["reasoning", "thinking"]] as const) {
      const sent = batches.flat().flatMap((event) => event.type === type ? [event.text] : []).join("");
      strictEqual(blocks.map((block) => block.type === field ? block[field] : "").join(""), sent);
    }
  }));
});

Deno.test("calls mixed in any way arrive whole and in order (property)", () => {
  const anyCalls = fc.array(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 }), {
    maxLength: 4,
  });
  fc.assert(fc.property(anyCalls, fc.infiniteStream(fc.nat()), (inputs, numbers) => {
    const next = (below: number): number => (numbers.next().value ?? 0) % below;
    const left = inputs.map((input) => JSON.stringify(input));
    const events = left.map((_, index) => begin(index));
    while (left.some((rest) => rest !== "")) {
      const index = next(left.length);
      const rest = left[index] ?? "";
      if (rest === "") continue;
      const length = 1 + next(rest.length);
      events.push(more(index, rest.slice(0, length)));
      left[index] = rest.slice(length);
    }
    const blocks = blocksTogether(written([events]));
    deepStrictEqual(
      blocks.map(({ partial_json }) => JSON.parse(String(partial_json))),
      inputs.map((input) => JSON.parse(JSON.stringify(input))),
    );
  }));
});
