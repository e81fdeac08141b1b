import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../../../src/encoding/canonical_json.ts";
import { encodeUtf8 } from "../../../../src/encoding/utf8.ts";
import type { ChatMessage, ChatRequest } from "../../../../src/engines/chat.ts";
import { readMessage, writeMessages } from "../../../../src/engines/upstream/anthropic/messages.ts";
import { Fault, type FaultKind } from "../../../../src/faults/fault.ts";
import { mutateJson } from "../mutate_json.ts";

const HELLO: ChatMessage = { role: "user", parts: [{ type: "text", text: "Hello" }] };

function chat(request: Partial<ChatRequest>): ChatRequest {
  return { task: "chat", messages: [HELLO], tools: [], stop: [], choices: 1, extra: {}, ...request };
}

/** The body as it goes over the wire. */
function bodyOf(request: Partial<ChatRequest>): Record<string, unknown> {
  return JSON.parse(JSON.stringify(writeMessages(chat(request), "claude", false)));
}

function faultOf(run: () => unknown): Fault {
  let caught: unknown;
  throws(run, (thrown) => {
    caught = thrown;
    return thrown instanceof Fault;
  });
  return caught as Fault;
}

function read(message: unknown) {
  return readMessage(encodeUtf8(JSON.stringify(message)));
}

/** The sample of the API's reference. */
const ANSWER = {
  id: "msg_013Zva2CMHLNnXjNJJKqJ2EF",
  type: "message",
  role: "assistant",
  model: "claude-opus-4-6",
  content: [{ type: "text", text: "Hi! My name is Claude.", citations: null }],
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: {
    input_tokens: 2095,
    output_tokens: 503,
    cache_creation_input_tokens: 2051,
    cache_read_input_tokens: 2048,
    output_tokens_details: null,
    service_tier: "standard",
  },
};

Deno.test("a plain chat becomes the smallest body, with the output tokens that the API demands", () => {
  deepStrictEqual(bodyOf({}), {
    model: "claude",
    max_tokens: 4096,
    stream: false,
    messages: [{ role: "user", content: [{ type: "text", text: "Hello" }] }],
  });
});

Deno.test("every setting of the drawing that the API knows goes along under its name", () => {
  deepStrictEqual(
    bodyOf({ outputTokensMax: 7, temperature: 1, topP: 0.5, topK: 40, stop: ["a", "b"], presencePenalty: 0 }),
    {
      model: "claude",
      max_tokens: 7,
      stream: false,
      messages: [{ role: "user", content: [{ type: "text", text: "Hello" }] }],
      stop_sequences: ["a", "b"],
      temperature: 1,
      top_p: 0.5,
      top_k: 40,
    },
  );
});

Deno.test("system messages become the system text, in their order, wherever they stand", () => {
  const { system, messages } = bodyOf({
    messages: [
      { role: "system", parts: [{ type: "text", text: "Be kind." }, { type: "text", text: "" }] },
      HELLO,
      { role: "system", parts: [{ type: "text", text: "Be short." }] },
    ],
  });
  strictEqual(system, "Be kind.\n\nBe short.");
  deepStrictEqual(messages, [{ role: "user", content: [{ type: "text", text: "Hello" }] }]);
});

Deno.test("a conversation with tools and images becomes turns that alternate", () => {
  const { messages } = bodyOf({
    messages: [
      HELLO,
      {
        role: "user",
        name: "ann",
        parts: [
          { type: "image", url: "data:image/png;base64,iVBO", detail: "low" },
          { type: "image", url: "https://pictures.example/a.png" },
        ],
      },
      {
        role: "assistant",
        parts: [{ type: "text", text: "I look." }],
        toolCalls: [
          { id: "toolu_1", name: "weather", arguments: '{"city":"Paris"}' },
          { id: "toolu_2", name: "time", arguments: "" },
        ],
      },
      { role: "tool", toolCallId: "toolu_1", parts: [{ type: "text", text: "15 degrees" }] },
      {
        role: "tool",
        toolCallId: "toolu_2",
        failed: true,
        parts: [{ type: "image", url: "data:image/JPEG;base64,/9j/" }],
      },
      { role: "tool", toolCallId: "toolu_3", parts: [] },
      { role: "user", parts: [{ type: "text", text: "And?" }] },
      { role: "assistant", parts: [{ type: "text", text: "" }], refusal: "No.", toolCalls: [] },
    ],
  });
  deepStrictEqual(messages, [
    {
      role: "user",
      content: [
        { type: "text", text: "Hello" },
        { type: "image", source: { type: "base64", media_type: "image/png", data: "iVBO" } },
        { type: "image", source: { type: "url", url: "https://pictures.example/a.png" } },
      ],
    },
    {
      role: "assistant",
      content: [
        { type: "text", text: "I look." },
        { type: "tool_use", id: "toolu_1", name: "weather", input: { city: "Paris" } },
        { type: "tool_use", id: "toolu_2", name: "time", input: {} },
      ],
    },
    {
      role: "user",
      content: [
        { type: "tool_result", tool_use_id: "toolu_1", content: [{ type: "text", text: "15 degrees" }] },
        {
          type: "tool_result",
          tool_use_id: "toolu_2",
          content: [{
            type: "image",
            source: { type: "base64", media_type: "image/jpeg", data: "/9j/" },
          }],
          is_error: true,
        },
        { type: "tool_result", tool_use_id: "toolu_3" },
        { type: "text", text: "And?" },
      ],
    },
    { role: "assistant", content: [{ type: "text", text: "No." }] },
  ]);
});

Deno.test("tools go along with their schemas; one without parameters takes any object", () => {
  const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  deepStrictEqual(
    bodyOf({
      tools: [{ name: "weather", description: "Tells.", parameters: schema, strict: true }, { name: "time" }],
    }).tools,
    [
      { name: "weather", description: "Tells.", input_schema: schema, strict: true },
      { name: "time", input_schema: { type: "object" } },
    ],
  );
});

Deno.test("the choice of a tool is told in the API's words, with a single call where no more are wanted", () => {
  const tools = [{ name: "time" }];
  const choice = (request: Partial<ChatRequest>) => bodyOf({ tools, ...request }).tool_choice;
  strictEqual(choice({}), undefined);
  strictEqual(choice({ parallelToolCalls: true }), undefined);
  deepStrictEqual(choice({ toolChoice: "auto" }), { type: "auto" });
  deepStrictEqual(choice({ toolChoice: "required" }), { type: "any" });
  deepStrictEqual(choice({ toolChoice: "none", parallelToolCalls: false }), { type: "none" });
  deepStrictEqual(choice({ toolChoice: { name: "time" } }), { type: "tool", name: "time" });
  deepStrictEqual(choice({ parallelToolCalls: false }), { type: "auto", disable_parallel_tool_use: true });
  deepStrictEqual(choice({ toolChoice: "required", parallelToolCalls: false }), {
    type: "any",
    disable_parallel_tool_use: true,
  });
  for (const toolChoice of ["auto", "none"] as const) {
    strictEqual(choice({ tools: [], toolChoice }), undefined);
  }
  deepStrictEqual(choice({ tools: [], toolChoice: "required" }), { type: "any" });
});

Deno.test("a JSON Schema for the answer and the effort of reasoning become the output's configuration", () => {
  const schema = { type: "object", additionalProperties: false };
  deepStrictEqual(
    bodyOf({
      responseFormat: { type: "json_schema", name: "person", description: "A person.", schema, strict: true },
      reasoningEffort: "low",
    }).output_config,
    { effort: "low", format: { type: "json_schema", schema: { description: "A person.", ...schema } } },
  );
  strictEqual(bodyOf({ responseFormat: { type: "text" }, reasoningEffort: "none" }).output_config, undefined);
});

Deno.test("fields that the settings let through are sent besides, and override nothing", () => {
  const body = bodyOf({
    topK: 3,
    extra: {
      thinking: { type: "adaptive" },
      model: "other",
      stream: true,
      top_k: 9,
      messages: [],
      max_tokens: 1,
    },
  });
  deepStrictEqual(body, {
    thinking: { type: "adaptive" },
    model: "claude",
    stream: false,
    top_k: 3,
    max_tokens: 4096,
    messages: [{ role: "user", content: [{ type: "text", text: "Hello" }] }],
  });
});

Deno.test("what changes the answer and cannot be expressed is refused at its place in the neutral request", () => {
  const cases: readonly (readonly [string, Partial<ChatRequest>])[] = [
    ["/choices", { choices: 2 }],
    ["/logprobs", { logprobs: 0 }],
    ["/logitBias", { logitBias: { "50256": -100 } }],
    ["/seed", { seed: 0 }],
    ["/presencePenalty", { presencePenalty: 0.1 }],
    ["/frequencyPenalty", { frequencyPenalty: -1 }],
    ["/temperature", { temperature: 1.01 }],
    ["/responseFormat", { responseFormat: { type: "json_object" } }],
    ["/reasoningEffort", { reasoningEffort: "minimal" }],
    ["/tools/0/parameters", { tools: [{ name: "time", parameters: true }] }],
    ["/messages", { messages: [{ role: "user", parts: [{ type: "text", text: "" }] }] }],
    ["/messages", { messages: [{ role: "system", parts: [{ type: "text", text: "Be kind." }] }] }],
  ];
  for (const [path, request] of cases) {
    const fault = faultOf(() => bodyOf(request));
    strictEqual(fault.kind, "fields_invalid", path);
    deepStrictEqual(fault.details.fields?.map((field) => field.path), [path]);
  }
});

Deno.test("parts of messages that cannot be expressed are refused in public words that quote nothing", () => {
  const call = (text: string): ChatMessage => ({
    role: "assistant",
    parts: [],
    toolCalls: [{ id: "1", name: "time", arguments: text }],
  });
  const user = (part: Extract<ChatMessage, { role: "user" }>["parts"][number]): ChatMessage => ({
    role: "user",
    parts: [part],
  });
  const messages: readonly ChatMessage[] = [
    user({ type: "audio", data: "SECRET", format: "wav" }),
    user({ type: "image", url: "data:image/svg+xml;base64,SECRET" }),
    user({ type: "image", url: "data:image/png,SECRET" }),
    user({ type: "image", url: "data:image/png;base64" }),
    user({ type: "image", url: "http://SECRET.example/" }),
    user({ type: "image", url: "" }),
    ...["SECRET", '["SECRET"]', "null", '{"a":', '{"SECRET":1,"SECRET":2}', `{"a":${"[".repeat(100_000)}`]
      .map(call),
    call(`{"a":${"[".repeat(70)}${"]".repeat(70)}}`),
  ];
  for (const message of messages) {
    const fault = faultOf(() => bodyOf({ messages: [HELLO, message] }));
    strictEqual(fault.kind, "input_refused");
    strictEqual(`${fault.message}${fault.details.detail}`.includes("SECRET"), false);
    strictEqual(typeof fault.details.detail, "string");
  }
});

Deno.test("the documented answer is read with all its tokens", () => {
  deepStrictEqual(read(ANSWER), {
    choices: [{ text: "Hi! My name is Claude.", reasoning: "", toolCalls: [], finish: "stop" }],
    usage: { inputTokens: 6194, outputTokens: 503, cachedInputTokens: 2048, countedBy: "engine" },
  });
});

Deno.test("text, thinking and tool calls are read from their blocks; others are passed over", () => {
  const answer = read({
    ...ANSWER,
    content: [
      { type: "thinking", thinking: "Let me ", signature: "EqQB" },
      { type: "redacted_thinking", data: "Emwk" },
      { type: "thinking", thinking: "see.", signature: "EqQC" },
      { type: "text", text: "I ask" },
      { type: "server_tool_use", id: "srvtoolu_1", name: "web_search", input: { query: "x" } },
      { type: "web_search_tool_result", tool_use_id: "srvtoolu_1", content: [] },
      { type: "text", text: " twice." },
      { type: "tool_use", id: "toolu_1", name: "weather", input: { city: "Paris", days: [1, 2] } },
      { type: "tool_use", id: "toolu_2", name: "time", input: {} },
    ],
    stop_reason: "tool_use",
    usage: { input_tokens: 3, output_tokens: 9, output_tokens_details: { thinking_tokens: 4 } },
  });
  deepStrictEqual(answer, {
    choices: [{
      text: "I ask twice.",
      reasoning: "Let me see.",
      toolCalls: [
        { id: "toolu_1", name: "weather", arguments: '{"city":"Paris","days":[1,2]}' },
        { id: "toolu_2", name: "time", arguments: "{}" },
      ],
      finish: "tool_calls",
    }],
    usage: { inputTokens: 3, outputTokens: 9, reasoningTokens: 4, countedBy: "engine" },
  });
});

Deno.test("an answer has at most 128 calls", () => {
  const calls = (count: number) =>
    Array.from({ length: count }, (_, index) => ({
      type: "tool_use",
      id: `toolu_${index}`,
      name: "time",
      input: {},
    }));
  strictEqual(read({ ...ANSWER, content: calls(128) }).choices[0]?.toolCalls.length, 128);
  strictEqual(faultOf(() => read({ ...ANSWER, content: calls(129) })).kind, "upstream_answer_invalid");
});

Deno.test("every documented stop reason has a finish reason, and one that is new is an end", () => {
  const finishOf = (reason: string) => read({ ...ANSWER, stop_reason: reason }).choices[0]?.finish;
  strictEqual(finishOf("end_turn"), "stop");
  strictEqual(finishOf("max_tokens"), "length");
  strictEqual(finishOf("model_context_window_exceeded"), "length");
  strictEqual(finishOf("pause_turn"), "length");
  strictEqual(finishOf("tool_use"), "tool_calls");
  strictEqual(finishOf("refusal"), "content_filter");
  strictEqual(finishOf("constructor"), "stop");
  deepStrictEqual(read({ ...ANSWER, stop_reason: "stop_sequence", stop_sequence: "END" }).choices, [
    { text: "Hi! My name is Claude.", reasoning: "", toolCalls: [], finish: "stop", stopSequence: "END" },
  ]);
});

Deno.test("an answer without figures is left to our own count", () => {
  deepStrictEqual(read({ ...ANSWER, usage: undefined }).usage, {
    inputTokens: 0,
    outputTokens: 0,
    countedBy: "estimate",
  });
});

Deno.test("what is no message is refused, and the reason quotes nothing of it", () => {
  const deep = `{"a":${"[".repeat(100)}${"]".repeat(100)}}`;
  const broken: readonly string[] = [
    "",
    "SECRET",
    "null",
    "[]",
    "{}",
    '{"type":"error","error":{"type":"api_error","message":"SECRET"}}',
    JSON.stringify({ ...ANSWER, content: "SECRET" }),
    JSON.stringify({ ...ANSWER, content: ["SECRET"] }),
    JSON.stringify({ ...ANSWER, content: [{ type: "text", text: 1 }] }),
    JSON.stringify({ ...ANSWER, content: [{ type: "tool_use", id: "", name: "SECRET", input: {} }] }),
    JSON.stringify({ ...ANSWER, content: [{ type: "tool_use", id: "1", name: "SECRET", input: "SECRET" }] }),
    JSON.stringify({
      ...ANSWER,
      content: [{ type: "tool_use", id: "1", name: "x", input: JSON.parse(deep) }],
    }),
    JSON.stringify({ ...ANSWER, stop_reason: null }),
    JSON.stringify({ ...ANSWER, stop_reason: 1 }),
    JSON.stringify({ ...ANSWER, usage: "SECRET" }),
    JSON.stringify({ ...ANSWER, usage: { input_tokens: -1, output_tokens: 1 } }),
    JSON.stringify({ ...ANSWER, usage: { input_tokens: 1, output_tokens: 1.5 } }),
    JSON.stringify({ ...ANSWER, usage: { input_tokens: 1e300, output_tokens: 1 } }),
  ];
  for (const text of broken) {
    const fault = faultOf(() => readMessage(encodeUtf8(text)));
    strictEqual(fault.kind, "upstream_answer_invalid", text);
    strictEqual(fault.message.includes("SECRET"), false, text);
  }
  strictEqual(faultOf(() => readMessage(new Uint8Array([0x22, 0xff, 0x22]))).kind, "upstream_answer_invalid");
});

Deno.test("whatever is changed in an answer, it is read or refused as invalid", () => {
  const full = {
    ...ANSWER,
    content: [
      { type: "thinking", thinking: "Hm", signature: "EqQB" },
      { type: "text", text: "Yes" },
      { type: "tool_use", id: "toolu_1", name: "weather", input: { city: "Paris" } },
    ],
  };
  const kinds: (FaultKind | "read")[] = [];
  fc.assert(
    fc.property(mutateJson(full as unknown as JsonValue), (message) => {
      try {
        read(message);
        kinds.push("read");
      } catch (thrown) {
        if (!(thrown instanceof Fault)) throw thrown;
        strictEqual(thrown.kind, "upstream_answer_invalid");
        kinds.push(thrown.kind);
      }
    }),
    { numRuns: 500 },
  );
  strictEqual(new Set(kinds).size, 2);
});
