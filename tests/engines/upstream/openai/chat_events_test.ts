// Tests of the stream reader of the OpenAI wire: the streams of the engines, split in any way, whole or broken.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { ChatEvent, ChatRequest } from "../../../../src/engines/chat.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import type { EventReader } from "../../../../src/engines/upstream/wire.ts";
import { Fault } from "../../../../src/faults/fault.ts";
import { anyText } from "../../../support/any_text.ts";
import { chatRequest, completionRequest, OPTIONS, refuses } from "./wire_calls.ts";

const DONE = { event: "message", data: "[DONE]" };
const USAGE = { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 };
const USAGE_EVENT: ChatEvent = {
  type: "usage",
  usage: { inputTokens: 5, outputTokens: 2, countedBy: "engine" },
};

function openReader(besides: Partial<ChatRequest> = {}): EventReader<ChatEvent> {
  return openaiWire.stream<"chat">(chatRequest(besides), OPTIONS).openReader();
}

const event = (chunk: unknown) => ({ event: "message", data: JSON.stringify(chunk) });
const delta = (delta: unknown, finish_reason: unknown = null, index = 0) =>
  event({ object: "chat.completion.chunk", choices: [{ index, delta, finish_reason }] });
const call = (...tool_calls: unknown[]) => delta({ tool_calls });

/** The items of a whole stream that must end well, with its mark or without. */
function readAll(events: readonly { event: string; data: string }[], reader = openReader()): ChatEvent[] {
  const items = events.flatMap((each) => [...reader.read(each)]);
  const rest = reader.ended ? [] : reader.end?.();
  ok(rest !== undefined, "broken off");
  return [...items, ...rest];
}

/** The calls that a client would put together. */
function joinCalls(items: readonly ChatEvent[]): [string, string, string][] {
  const calls: [string, string, string][] = [];
  for (const item of items) {
    if (item.type !== "tool_call") continue;
    const known = calls[item.index];
    if (known !== undefined) {
      ok(item.id === undefined && item.name === undefined, "only the first event names the call");
      known[2] += item.arguments;
    } else {
      strictEqual(item.index, calls.length, "calls are counted in order");
      calls.push([item.id ?? "no id", item.name ?? "no name", item.arguments]);
    }
  }
  return calls;
}

Deno.test("OpenAI's stream: a role, texts, the end, figures apart, the end mark", () => {
  const reader = openReader();
  deepStrictEqual(reader.read(delta({ role: "assistant", content: "", refusal: null })), []);
  deepStrictEqual(reader.read(delta({ content: "Hel" })), [{ type: "text", choice: 0, text: "Hel" }]);
  deepStrictEqual(reader.read(delta({ content: "lo" })), [{ type: "text", choice: 0, text: "lo" }]);
  strictEqual(reader.ended, false);
  deepStrictEqual(reader.read(delta({}, "stop")), [{ type: "finish", choice: 0, reason: "stop" }]);
  strictEqual(reader.ended, false, "figures were asked for");
  deepStrictEqual(reader.read(event({ choices: [], usage: USAGE })), [USAGE_EVENT]);
  strictEqual(reader.ended, true);
  deepStrictEqual(reader.read(DONE), []);
  deepStrictEqual(reader.read(delta({ content: "late" })), [], "nothing counts after the end mark");
});

Deno.test("figures with every piece are sums: the last of them count, once, and after all else", () => {
  const usage = (completion_tokens: number) => ({ ...USAGE, completion_tokens });
  const piece = (content: string, count: number, finish_reason: unknown = null) =>
    event({ choices: [{ index: 0, delta: { content }, finish_reason }], usage: usage(count) });
  const expected = [
    { type: "text", choice: 0, text: "a" },
    { type: "text", choice: 0, text: "b" },
    { type: "finish", choice: 0, reason: "length" },
    USAGE_EVENT,
  ];
  deepStrictEqual(readAll([piece("a", 1), piece("b", 2, "length")]), expected, "no end mark");
  deepStrictEqual(
    readAll([piece("a", 1), piece("b", 2, "length"), event({ choices: [], usage: usage(2) }), DONE]),
    expected,
  );
  deepStrictEqual(
    readAll([piece("a", 1), piece("b", 2), delta({}, "length"), DONE]),
    expected,
    "none at the end",
  );
});

Deno.test("a stream without an end mark is whole once every choice has finished, and broken off before", () => {
  const open = (usageInStreams: boolean) =>
    openaiWire.stream<"chat">(chatRequest(), { ...OPTIONS, usageInStreams }).openReader();
  const usage = { ...USAGE, completion_tokens: 2 };
  for (const usageInStreams of [true, false]) {
    const reader = open(usageInStreams);
    strictEqual(reader.end?.(), undefined);
    reader.read(event({ choices: [{ index: 0, delta: { content: "a" } }], usage }));
    strictEqual(reader.ended, false);
    strictEqual(reader.end?.(), undefined);
    reader.read(delta({}, "stop"));
    strictEqual(reader.ended, !usageInStreams, "only what was asked for is waited for");
    deepStrictEqual(reader.end?.(), [USAGE_EVENT]);
    strictEqual(reader.ended, true);
    deepStrictEqual(reader.end?.(), [], "nothing is given twice");
  }
});

Deno.test("Azure's and LocalAI's streams: events without choices, choices null, a last piece after the end", () => {
  deepStrictEqual(
    readAll([
      event({ choices: [], prompt_filter_results: [{ prompt_index: 0 }] }),
      event({ choices: null }),
      event({ id: "x" }),
      event({ choices: [{ delta: { content: "Hi" } }], usage: null }),
      delta({}, "stop"),
      event({ choices: [{ index: 0, delta: {}, finish_reason: null, content_filter_results: {} }] }),
      event({ choices: [{ index: 0, delta: null, finish_reason: "stop" }] }),
      DONE,
    ]),
    [{ type: "text", choice: 0, text: "Hi" }, { type: "finish", choice: 0, reason: "stop" }],
  );
});

Deno.test("reasoning under either name, refusals, log probabilities and stop sequences are read", () => {
  const logprobs = { content: [{ token: "4", logprob: -0.1 }] };
  deepStrictEqual(
    readAll([
      delta({ reasoning_content: "hm", content: null }),
      delta({ reasoning: "m", content: "" }),
      delta({ reasoning: "!", reasoning_content: "!", content: "4" }),
      event({ choices: [{ index: 0, delta: { content: "2" }, logprobs, finish_reason: "" }] }),
      delta({ refusal: "no" }),
      event({ choices: [{ index: 0, delta: {}, finish_reason: "stop", matched_stop: "END" }] }),
      DONE,
    ], openReader({ stop: ["END"], logprobs: 0 })),
    [
      { type: "reasoning", choice: 0, text: "hm" },
      { type: "reasoning", choice: 0, text: "m" },
      { type: "reasoning", choice: 0, text: "!" },
      { type: "text", choice: 0, text: "4" },
      { type: "text", choice: 0, text: "2", logprobs },
      { type: "refusal", choice: 0, text: "no" },
      { type: "finish", choice: 0, reason: "stop", stopSequence: "END" },
    ],
  );
});

Deno.test("several choices are told apart, and the stream has ended when the last of them has", () => {
  const reader = openReader({ choices: 2 });
  reader.read(delta({ content: "a" }, null, 1));
  reader.read(delta({}, "stop", 1));
  strictEqual(reader.ended, false);
  deepStrictEqual(reader.read(delta({ content: "b" }, "length", 0)), [
    { type: "text", choice: 0, text: "b" },
    { type: "finish", choice: 0, reason: "length" },
  ]);
  strictEqual(reader.ended, false);
  reader.read(event({ choices: [], usage: USAGE }));
  strictEqual(reader.ended, true);
});

Deno.test("choices whose end went unsaid end with the end mark", () => {
  deepStrictEqual(
    readAll(
      [delta({ content: "a" }), event({ choices: [], usage: USAGE }), DONE],
      openReader({ choices: 2 }),
    ),
    [{ type: "text", choice: 0, text: "a" }, { type: "finish", choice: 0, reason: "stop" }, USAGE_EVENT],
  );
});

Deno.test("an event holds a few pieces more than choices were asked for, and no more", () => {
  const piece = { index: 0, delta: { content: "a" } };
  const pieces = (count: number) => event({ choices: Array(count).fill(piece) });
  strictEqual(openReader().read(pieces(17)).length, 17);
  refuses(() => openReader().read(pieces(18)));
  strictEqual(openReader({ choices: 8 }).read(pieces(24)).length, 24);
  refuses(() => openReader({ choices: 8 }).read(pieces(25)));
  refuses(() => openReader().read(event({ choices: Array(100_000).fill({}) })));
});

Deno.test("a delta holds no more calls than an answer may have, and a bounded number of parts", () => {
  const fragment = { index: 0, id: "c", function: { name: "n", arguments: "1" } };
  strictEqual(openReader().read(call(...Array(128).fill(fragment))).length, 128);
  refuses(() => openReader().read(call(...Array(129).fill(fragment))));
  const text = { type: "text", text: "a" };
  const thoughts = (count: number) => [{ type: "thinking", thinking: Array(count).fill(text) }];
  deepStrictEqual(openReader().read(delta({ content: Array(1_000).fill(text) })), [
    { type: "text", choice: 0, text: "a".repeat(1_000) },
  ]);
  refuses(() => openReader().read(delta({ content: Array(1_001).fill(text) })));
  deepStrictEqual(openReader().read(delta({ content: thoughts(1_000) })), [
    { type: "reasoning", choice: 0, text: "a".repeat(1_000) },
  ]);
  refuses(() => openReader().read(delta({ content: thoughts(1_001) })));
});

Deno.test("a completion's texts are read; of several prompts none may be missing", () => {
  const open = (prompts: string[]) =>
    openaiWire.stream<"completion">(completionRequest({ prompts }), OPTIONS).openReader();
  const piece = (index: number, text: string, finish_reason: unknown = null) =>
    event({ object: "text_completion", choices: [{ index, text, finish_reason, logprobs: null }] });
  deepStrictEqual(
    readAll([piece(1, "b", "stop"), piece(0, "a"), piece(0, "", "length"), DONE], open(["x", "y"])),
    [
      { type: "text", choice: 1, text: "b" },
      { type: "finish", choice: 1, reason: "stop" },
      { type: "text", choice: 0, text: "a" },
      { type: "finish", choice: 0, reason: "length" },
    ],
  );
  const reader = open(["x", "y"]);
  reader.read(piece(0, "a", "stop"));
  refuses(() => reader.read(DONE));
  refuses(() => open(["x"]).read(DONE));
  refuses(() => open(["x"]).read(event({ choices: [{ index: 0, text: 5 }] })));
});

Deno.test("tool calls in fragments: index in each, id and name in the first", () => {
  const items = readAll([
    call({ index: 0, id: "call_a", type: "function", function: { name: "f", arguments: "" } }),
    call({ index: 0, function: { arguments: '{"a"' } }),
    call({ index: 0, id: null, function: { name: null, arguments: ":1}" } }),
    call({ index: 1, id: "call_b", function: { name: "g", arguments: "{" } }, {
      index: 1,
      function: { arguments: "}" },
    }),
    delta({}, "tool_calls"),
    DONE,
  ]);
  deepStrictEqual(joinCalls(items), [["call_a", "f", '{"a":1}'], ["call_b", "g", "{}"]]);
  deepStrictEqual(items.at(-1), { type: "finish", choice: 0, reason: "tool_calls" });
});

Deno.test("Ollama's whole calls with index 0 for all, and calls with no index at all, stay apart", () => {
  const whole = (id: string | undefined, path: string, index?: number) => ({
    id,
    index,
    type: "function",
    function: { name: "write", arguments: JSON.stringify({ path }) },
  });
  const expected = [["a", "write", '{"path":"1"}'], ["b", "write", '{"path":"2"}']];
  deepStrictEqual(
    joinCalls(readAll([call(whole("a", "1", 0)), call(whole("b", "2", 0)), delta({}, "stop"), DONE])),
    expected,
  );
  deepStrictEqual(joinCalls(readAll([call(whole("a", "1"), whole("b", "2")), DONE])), expected);
  const calls = joinCalls(readAll([call(whole(undefined, "1")), call(whole(undefined, "2")), DONE]));
  deepStrictEqual(calls.map(([, , text]) => text), ['{"path":"1"}', '{"path":"2"}']);
  for (const [id] of calls) match(id, /^call_[0-9a-f]{24}$/);
});

Deno.test("fragments go on with their call by its id, by its index without an id, or with the last one", () => {
  const begin = (id: string | undefined, index: number | undefined) =>
    call({ id, index, function: { name: "f", arguments: "[" } });
  const go = (id: string | undefined, index: number | undefined, text = "]") =>
    call({ id, index, function: { name: undefined, arguments: text } });
  const texts = (...events: { event: string; data: string }[]) =>
    joinCalls(readAll([...events, DONE])).map(([, , text]) => text);
  deepStrictEqual(
    texts(begin("a", undefined), begin("b", undefined), go("a", undefined), go("b", undefined)),
    [
      "[]",
      "[]",
    ],
  );
  deepStrictEqual(texts(begin("a", 0), begin("b", 0), go("a", 0), go("b", 0)), ["[]", "[]"]);
  deepStrictEqual(texts(begin("a", 0), go("a", 0), begin("b", 1), go("b", 1)), ["[]", "[]"]);
  deepStrictEqual(texts(begin(undefined, 3), go(undefined, 3), begin(undefined, 9), go(undefined, 9)), [
    "[]",
    "[]",
  ]);
  deepStrictEqual(texts(begin("a", undefined), go(undefined, undefined)), ["[]"]);
  deepStrictEqual(texts(begin("same", 0), begin("same", 1), go(undefined, 1)), ["[", "[]"]);
});

Deno.test("arguments as an object become text, and a stream that called tools ended for them", () => {
  const items = readAll([call({ function: { name: "f", arguments: { a: 1 } } }), delta({}, "stop")]);
  deepStrictEqual(joinCalls(items).map(([, ...rest]) => rest), [["f", '{"a":1}']]);
  deepStrictEqual(items.at(-1), { type: "finish", choice: 0, reason: "tool_calls" });
});

Deno.test("an error in the stream is the engine's failure, and its words are not quoted", () => {
  const error = (data: unknown, name = "message") => ({ event: name, data: JSON.stringify(data) });
  const failures = [
    [error({ error: { message: "SECRET", type: "server_error", code: null } }), "server_error"],
    [error({ error: { message: "SECRET", code: 500 } }), "500"],
    [error({ error: "SECRET" }), "unknown"],
    [error({ error: { code: "SECRET with words", type: {} } }), "unknown"],
    [error({ object: "error", message: "SECRET", code: 400 }), "400"],
    [error({ message: "SECRET" }, "error"), "unknown"],
    [error("SECRET", "error"), "unknown"],
    [error({ error: { message: "SECRET" }, choices: [{ index: 0, delta: { content: "a" } }] }), "unknown"],
  ] as const;
  for (const [each, code] of failures) {
    const reader = openReader();
    refuses(() => reader.read(each), "upstream_failed", each.data);
    try {
      openReader().read(each);
    } catch (thrown) {
      ok(thrown instanceof Fault && thrown.message.endsWith(`code ${code}`), each.data);
    }
    strictEqual(reader.ended, false);
  }
});

Deno.test("a malformed event is refused, and nothing of it is quoted", () => {
  const broken: Record<string, { event: string; data: string }> = {
    "no JSON": { event: "message", data: "SECRET" },
    "half of it": { event: "message", data: '{"choices":[{"delta":{"content":"SECRET' },
    "nothing": { event: "message", data: "" },
    "a list": event([]),
    "null": event(null),
    "a number": event(5),
    "choices as an object": event({ choices: {} }),
    "a choice null": event({ choices: [null] }),
    "a choice below 0": delta({ content: "a" }, null, -1),
    "a choice beyond": delta({ content: "a" }, null, 1),
    "a choice in parts": delta({ content: "a" }, null, 0.5),
    "a choice's index as text": event({ choices: [{ index: "0", delta: {} }] }),
    "a delta as text": delta("SECRET"),
    "a delta as a list": delta([]),
    "content as a number": delta({ content: 5 }),
    "content as an object": delta({ content: { text: "SECRET" } }),
    "reasoning as a number": delta({ reasoning_content: 5 }),
    "a refusal as an object": delta({ refusal: {} }),
    "a finish reason as an object": delta({}, {}),
    "tool calls as an object": delta({ tool_calls: {} }),
    "a tool call null": call(null),
    "a tool call without a name": call({ index: 0, id: "a", function: { arguments: "" } }),
    "a tool call without a function": call({ index: 0, id: "a" }),
    "a call's index below 0": call({ index: -1, function: { name: "f" } }),
    "a call's index of 128": call({ index: 128, function: { name: "f" } }),
    "a call's index as text": call({ index: "0", function: { name: "f" } }),
    "arguments as a number": call({ index: 0, function: { name: "f", arguments: 5 } }),
    "arguments as a list": call({ index: 0, function: { name: "f", arguments: [] } }),
    "usage as text": event({ choices: [], usage: "SECRET" }),
    "tokens below 0": event({ choices: [], usage: { prompt_tokens: -5 } }),
    "the end before a beginning": DONE,
  };
  for (const [about, each] of Object.entries(broken)) {
    refuses(() => openReader().read(each), "upstream_answer_invalid", about);
  }
});

Deno.test("a choice that goes on after its end, and the 129th call, are refused", () => {
  const finished = openReader();
  finished.read(delta({ content: "a" }, "stop"));
  refuses(() => finished.read(delta({ content: "b" })));
  const calling = openReader();
  for (let count = 0; count < 128; count++) calling.read(call({ function: { name: "f", arguments: "" } }));
  refuses(() => calling.read(call({ function: { name: "f", arguments: "" } })));
});

Deno.test("property: however a text and a call are cut into pieces, the pieces joined are the same", () => {
  const pieces = fc.array(anyText, { maxLength: 8 });
  fc.assert(fc.property(pieces, pieces, pieces, (thoughts, texts, fragments) => {
    const items = readAll([
      ...thoughts.map((reasoning) => delta({ reasoning })),
      ...texts.map((content) => delta({ content })),
      call({ index: 0, id: "a", function: { name: "f", arguments: "" } }),
      ...fragments.map((text) => call({ index: 0, function: { arguments: text } })),
      delta({}, "tool_calls"),
      event({ choices: [], usage: USAGE }),
      DONE,
    ]);
    const joined = (type: "text" | "reasoning") =>
      items.map((item) => item.type === type ? item.text : "").join("");
    strictEqual(joined("reasoning"), thoughts.join(""));
    strictEqual(joined("text"), texts.join(""));
    deepStrictEqual(joinCalls(items), [["a", "f", fragments.join("")]]);
    deepStrictEqual(items.slice(-2), [{ type: "finish", choice: 0, reason: "tool_calls" }, USAGE_EVENT]);
  }));
});

Deno.test("property: any events whatever end in a Fault of two kinds or in items that keep the stream's rules", () => {
  const loose = (arbitrary: fc.Arbitrary<unknown>) =>
    fc.oneof({ weight: 4, arbitrary }, { weight: 1, arbitrary: fc.jsonValue() });
  const fragment = fc.record({
    index: loose(fc.constantFrom(undefined, null, 0, 1, 127, 128, -1)),
    id: loose(fc.constantFrom(undefined, null, "", "a", "b")),
    function: loose(fc.record({
      name: loose(fc.constantFrom(undefined, null, "", "f")),
      arguments: loose(fc.constantFrom(undefined, null, "", "{}", {})),
    })),
  });
  const choice = fc.record({
    index: loose(fc.constantFrom(undefined, 0, 1, 2)),
    delta: loose(fc.record({
      content: loose(fc.constantFrom(undefined, null, "", "text", [{ type: "text", text: "part" }])),
      reasoning: loose(fc.constantFrom(undefined, "thought")),
      tool_calls: loose(
        fc.constantFrom(undefined, null).chain((none) =>
          fc.oneof(fc.constant(none), fc.array(fragment, { maxLength: 3 }))
        ),
      ),
    })),
    logprobs: loose(fc.constantFrom(undefined, null, { content: [] })),
    finish_reason: loose(fc.constantFrom(undefined, null, "", "stop", "tool_calls")),
  });
  const chunk = fc.record({
    choices: loose(fc.array(choice, { maxLength: 2 })),
    usage: loose(fc.constantFrom(undefined, null, USAGE)),
  });
  const anyEvent = fc.oneof(
    { weight: 8, arbitrary: chunk.map(event) },
    { weight: 1, arbitrary: fc.constant(DONE) },
    { weight: 1, arbitrary: fc.record({ event: fc.constantFrom("message", "error"), data: fc.string() }) },
  );
  let good = 0;
  fc.assert(
    fc.property(fc.array(anyEvent, { maxLength: 6 }), (events) => {
      const reader = openReader({ choices: 2, logprobs: 1 });
      const items: ChatEvent[] = [];
      try {
        for (const each of events) items.push(...reader.read(each));
        good++;
      } catch (thrown) {
        ok(
          thrown instanceof Fault && ["upstream_answer_invalid", "upstream_failed"].includes(thrown.kind),
          `${thrown}`,
        );
      }
      const usages = items.filter(({ type }) => type === "usage");
      ok(usages.length <= 1);
      ok(usages.length === 0 || items.at(-1)?.type === "usage", "figures come last");
      const finished = new Set<number>();
      const begun = new Set<string>();
      for (const item of items) {
        if (item.type === "usage") continue;
        ok(item.choice === 0 || item.choice === 1);
        ok(!finished.has(item.choice), "nothing follows a choice's end");
        if (item.type === "finish") finished.add(item.choice);
        if (item.type !== "tool_call") continue;
        const key = `${item.choice}/${item.index}`;
        strictEqual(
          item.id !== undefined && item.name !== undefined,
          !begun.has(key),
          "the first event names it",
        );
        begun.add(key);
      }
    }),
    { numRuns: 500 },
  );
  ok(good > 20, `only ${good} streams were good`);
});
