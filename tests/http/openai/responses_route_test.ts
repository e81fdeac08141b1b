// POST /v1/responses: what reaches the engine, what is answered, what is refused, and that OpenAI's own client reads it.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import OpenAI, { APIError } from "openai";
import type { Response as OpenaiResponse } from "openai/resources/responses/responses";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import type { AnswerStream } from "../../../src/engines/answer_stream.ts";
import type { ChatAnswer, ChatChoice, ChatEvent, ChatRequest } from "../../../src/engines/chat.ts";
import { Fault, toFault } from "../../../src/faults/fault.ts";
import { buildAnswer, faultAnswer } from "../../../src/http/answer.ts";
import { responseOf } from "../../support/app_under_test.ts";
import type { Exchange } from "../../../src/http/exchange.ts";
import type { InferenceDoor, PlaceField } from "../../../src/http/inference_door.ts";
import { parseFields } from "../../../src/http/middleware/parse_fields.ts";
import { openaiDialect } from "../../../src/http/openai/openai_error.ts";
import { responsesRoute } from "../../../src/http/openai/responses_route.ts";
import type { ServedModel } from "../../../src/registry/served_model.ts";

const PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==";
const MODEL: ServedModel = {
  id: "large",
  aliases: ["big"],
  capabilities: ["chat"],
  ownedBy: "lab",
  createdSeconds: 1,
  access: { see: ["user"], use: ["user"], teams: null },
  accepted: true,
  sha256: null,
  limits: {
    textsPerRequestMax: 1,
    charactersPerTextMax: 1000,
    contextTokensMax: null,
    outputTokensMax: null,
  },
  dimensions: null,
  dimensionsReducible: false,
  passFields: ["top_k"],
  prices: null,
  fallbacks: [],
};

const USAGE = {
  inputTokens: 7,
  outputTokens: 5,
  cachedInputTokens: 2,
  reasoningTokens: 1,
  countedBy: "engine",
} as const;
const SAID: ChatChoice = { text: "Hello", reasoning: "", toolCalls: [], finish: "stop" };

/** Stands in the place of the act: it notes what it is asked and answers what the test says. */
class FakeInferenceDoor implements InferenceDoor {
  asked: ChatRequest[] = [];
  placeField: PlaceField | undefined;
  cancelled = 0;
  answer: ChatAnswer = { choices: [SAID], usage: USAGE };
  /** Batches of the stream; a Fault breaks it off. */
  batches: (readonly ChatEvent[] | Fault)[] = [];
  fault: Fault | undefined;

  find(_exchange: Exchange, modelId: string): ServedModel {
    if (modelId !== MODEL.id && modelId !== "big") throw new Fault("model_not_found", "unknown");
    return MODEL;
  }

  #ask(modelId: string, request: unknown, placeField: PlaceField | undefined): void {
    strictEqual(modelId, MODEL.id);
    this.asked.push(request as ChatRequest);
    this.placeField = placeField;
    if (this.fault !== undefined) throw this.fault;
  }

  // deno-lint-ignore require-await
  async whole(_exchange: Exchange, modelId: string, request: unknown, placeField?: PlaceField) {
    this.#ask(modelId, request, placeField);
    return { model: MODEL, answer: this.answer as never, servedBy: null };
  }

  // deno-lint-ignore require-await
  async stream(_exchange: Exchange, modelId: string, request: unknown, placeField?: PlaceField) {
    this.#ask(modelId, request, placeField);
    const batches = [...this.batches];
    const stream: AnswerStream<ChatEvent> = {
      next: () => {
        const batch = batches.shift();
        return batch instanceof Fault ? Promise.reject(batch) : Promise.resolve(batch);
      },
      cancel: () => void this.cancelled++,
    };
    return { ...stream, model: MODEL, servedBy: null } as never;
  }
}

interface Harness {
  readonly door: FakeInferenceDoor;
  readonly call: (body: unknown) => Promise<globalThis.Response>;
  readonly handler: (request: Request) => Promise<globalThis.Response>;
}

function openHarness(): Harness {
  const door = new FakeInferenceDoor();
  let seconds = 1000;
  const route = responsesRoute({
    door,
    newId: (prefix) => `${prefix}X`,
    nowSeconds: () => seconds++,
    imageHosts: new Set(["img.example"]),
    mediaBodyBytesMax: 1 << 20,
  });
  const call = async (body: unknown): Promise<globalThis.Response> => {
    const exchange = { id: "req_1" } as Exchange;
    try {
      ok(route.body);
      const answer = await route.handle(exchange, parseFields(route.body, body as JsonValue));
      return responseOf(buildAnswer(answer, {}));
    } catch (thrown) {
      const fault = toFault(thrown);
      if (fault.kind === "internal") throw thrown;
      return responseOf(buildAnswer(faultAnswer(fault, openaiDialect, exchange.id, () => undefined), {}));
    }
  };
  return { door, call, handler: async (request) => await call(await request.json()) };
}

async function answerTo(body: unknown, prepare: (door: FakeInferenceDoor) => void = () => undefined) {
  const { door, call } = openHarness();
  prepare(door);
  const response = await call({ model: "large", ...body as object });
  const answer = await response.json();
  strictEqual(response.status, 200, JSON.stringify(answer));
  return { answer, door };
}

/** Runs a test with OpenAI's client against a real server that has nothing but the route. */
async function withClient(
  prepare: (door: FakeInferenceDoor) => void,
  run: (client: OpenAI, door: FakeInferenceDoor) => Promise<void>,
): Promise<void> {
  const { door, handler } = openHarness();
  prepare(door);
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => undefined }, handler);
  try {
    const baseURL = `http://127.0.0.1:${server.addr.port}/v1`;
    await run(new OpenAI({ apiKey: "none", baseURL, maxRetries: 0 }), door);
  } finally {
    await server.shutdown();
  }
}

const ECHO = {
  access_programs: null,
  background: false,
  instructions: null,
  max_output_tokens: null,
  max_tool_calls: null,
  metadata: {},
  parallel_tool_calls: true,
  previous_response_id: null,
  prompt_cache_key: null,
  reasoning: { effort: null, summary: null },
  safety_identifier: null,
  service_tier: "default",
  store: false,
  temperature: null,
  text: { format: { type: "text" }, verbosity: "medium" },
  tool_choice: "auto",
  tools: [],
  top_logprobs: 0,
  top_p: null,
  truncation: "disabled",
};

Deno.test("a text as input is answered by the whole Response object", async () => {
  const { answer, door } = await answerTo({ model: "big", input: "Hi" });
  deepStrictEqual(answer, {
    id: "resp_X",
    object: "response",
    created_at: 1000,
    status: "completed",
    completed_at: 1001,
    error: null,
    incomplete_details: null,
    model: "large",
    output: [{
      id: "msg_X_0",
      type: "message",
      role: "assistant",
      content: [{ type: "output_text", text: "Hello", annotations: [], logprobs: [] }],
      status: "completed",
    }],
    usage: {
      input_tokens: 7,
      input_tokens_details: { cached_tokens: 2, cache_write_tokens: 0 },
      output_tokens: 5,
      output_tokens_details: { reasoning_tokens: 1 },
      total_tokens: 12,
    },
    ...ECHO,
  });
  deepStrictEqual(door.asked, [{
    task: "chat",
    messages: [{ role: "user", parts: [{ type: "text", text: "Hi" }] }],
    tools: [],
    stop: [],
    choices: 1,
    extra: {},
  }]);
});

Deno.test("every field that means something reaches the engine and is echoed", async () => {
  const schema = { type: "object", properties: { a: { type: "string" } } };
  const { answer, door } = await answerTo({
    input: "Hi",
    instructions: "Be short",
    max_output_tokens: 9,
    temperature: 0.5,
    top_p: 0.25,
    top_k: 4,
    top_logprobs: 0,
    tools: [
      { type: "function", name: "f", description: "F", parameters: schema, strict: true },
      { type: "function", name: "g" },
    ],
    tool_choice: { type: "function", name: "g" },
    parallel_tool_calls: false,
    text: {
      format: { type: "json_schema", name: "n", schema, strict: true, description: "D" },
      verbosity: "medium",
    },
    reasoning: { effort: "low", summary: null },
    stream: false,
    store: false,
    background: false,
    include: ["reasoning.encrypted_content"],
    truncation: "disabled",
    service_tier: "auto",
    metadata: { a: "b" },
    user: "u",
    safety_identifier: "s",
    prompt_cache_key: "p",
    previous_response_id: null,
    conversation: null,
    prompt: null,
    max_tool_calls: null,
  });
  deepStrictEqual(door.asked, [{
    task: "chat",
    messages: [
      { role: "system", parts: [{ type: "text", text: "Be short" }] },
      { role: "user", parts: [{ type: "text", text: "Hi" }] },
    ],
    tools: [{ name: "f", description: "F", parameters: schema, strict: true }, { name: "g" }],
    toolChoice: { name: "g" },
    parallelToolCalls: false,
    responseFormat: { type: "json_schema", name: "n", schema, strict: true, description: "D" },
    reasoningEffort: "low",
    outputTokensMax: 9,
    temperature: 0.5,
    topP: 0.25,
    stop: [],
    choices: 1,
    topK: 4,
    extra: {},
  }]);
  const { id: _id, object: _object, created_at: _at, status: _status, completed_at: _done, ...rest } = answer;
  const { error: _error, incomplete_details: _why, model: _model, output: _output, usage: _usage, ...echo } =
    rest;
  deepStrictEqual(echo, {
    ...ECHO,
    instructions: "Be short",
    max_output_tokens: 9,
    metadata: { a: "b" },
    parallel_tool_calls: false,
    prompt_cache_key: "p",
    reasoning: { effort: "low", summary: null },
    safety_identifier: "s",
    temperature: 0.5,
    text: {
      format: { type: "json_schema", name: "n", schema, strict: true, description: "D" },
      verbosity: "medium",
    },
    tool_choice: { type: "function", name: "g" },
    tools: [
      { type: "function", name: "f", description: "F", parameters: schema, strict: true },
      { type: "function", name: "g", description: null, parameters: null, strict: null },
    ],
    top_p: 0.25,
    user: "u",
  });
});

Deno.test("a choice among no tools, which OpenAI lets stand, does not reach the engine", async () => {
  const { door, answer } = await answerTo({ input: "Hi", tool_choice: "none", parallel_tool_calls: true });
  deepStrictEqual([door.asked[0]?.toolChoice, door.asked[0]?.parallelToolCalls], [undefined, undefined]);
  strictEqual(answer.tool_choice, "none");
});

Deno.test("items of every kind become neutral messages, and the calls of one turn one message", async () => {
  const { door } = await answerTo({
    input: [
      { role: "developer", content: "Rules" },
      { type: "message", role: "system", content: [{ type: "input_text", text: "More" }] },
      {
        role: "user",
        content: [
          { type: "input_text", text: "See" },
          { type: "input_image", image_url: PNG, detail: "low" },
          { type: "input_image", image_url: "https://img.example/a.png", file_id: null, detail: null },
        ],
      },
      {
        type: "reasoning",
        id: "rs_1",
        summary: [{ type: "summary_text", text: "s" }],
        encrypted_content: "x",
      },
      {
        type: "message",
        id: "msg_1",
        status: "completed",
        role: "assistant",
        phase: null,
        content: [
          { type: "output_text", text: "Well", annotations: [], logprobs: [], parsed: null },
          { type: "refusal", refusal: "No" },
        ],
      },
      {
        type: "function_call",
        id: "fc_1",
        status: "completed",
        call_id: "c1",
        name: "f",
        arguments: "{",
        parsed_arguments: null,
      },
      { type: "reasoning", id: "rs_2", summary: [], content: [{ type: "reasoning_text", text: "t" }] },
      { type: "function_call", call_id: "c2", name: "g", arguments: "{}" },
      { role: "assistant", content: "Calling" },
      { type: "function_call_output", call_id: "c2", output: "two" },
      {
        type: "function_call_output",
        call_id: "c1",
        output: [{ type: "input_text", text: "one" }, { type: "input_image", image_url: PNG }],
      },
      { role: "assistant", content: "Done" },
      { role: "assistant", content: "Really" },
    ],
  });
  deepStrictEqual(door.asked[0]?.messages, [
    { role: "system", parts: [{ type: "text", text: "Rules" }] },
    { role: "system", parts: [{ type: "text", text: "More" }] },
    {
      role: "user",
      parts: [
        { type: "text", text: "See" },
        { type: "image", url: PNG, detail: "low" },
        { type: "image", url: "https://img.example/a.png" },
      ],
    },
    {
      role: "assistant",
      parts: [{ type: "text", text: "Well" }, { type: "text", text: "Calling" }],
      refusal: "No",
      toolCalls: [{ id: "c1", name: "f", arguments: "{" }, { id: "c2", name: "g", arguments: "{}" }],
    },
    { role: "tool", toolCallId: "c2", parts: [{ type: "text", text: "two" }] },
    { role: "tool", toolCallId: "c1", parts: [{ type: "text", text: "one" }, { type: "image", url: PNG }] },
    { role: "assistant", parts: [{ type: "text", text: "Done" }], toolCalls: [] },
    { role: "assistant", parts: [{ type: "text", text: "Really" }], toolCalls: [] },
  ]);
});

Deno.test("places of the neutral request are told as places of the caller's body", async () => {
  const { door } = await answerTo({
    instructions: "I",
    input: [
      { type: "reasoning", summary: [] },
      { role: "user", content: "a" },
      { type: "function_call", call_id: "c", name: "f", arguments: "" },
      { type: "function_call", call_id: "d", name: "f", arguments: "" },
      { type: "function_call_output", call_id: "c", output: "o" },
    ],
  });
  const places = [
    "/messages/0",
    "/messages/1/parts/0",
    "/messages/2",
    "/messages/3",
    "/messages/9",
    "/messages",
  ];
  deepStrictEqual(places.map((path) => door.placeField?.(path)), [
    "/instructions",
    "/input/1",
    "/input/2",
    "/input/4",
    "/input",
    "/input",
  ]);
  const others = [
    "/outputTokensMax",
    "/tools/3/name",
    "/images",
    "/responseFormat",
    "/topP",
    "/reasoningEffort",
    "",
  ];
  deepStrictEqual(others.map((path) => door.placeField?.(path)), [
    "/max_output_tokens",
    "/tools/3/name",
    "/input",
    "/text/format",
    "/top_p",
    "/reasoning/effort",
    "",
  ]);
});

Deno.test("thoughts, words, a refusal and calls are items of the output; the last is incomplete where the engine stopped too early", async () => {
  const { answer } = await answerTo({ input: "Hi" }, (door) => {
    door.answer = {
      choices: [{
        text: "T",
        reasoning: "R",
        refusal: "N",
        toolCalls: [
          { id: "c1", name: "f", arguments: "{}" },
          { id: "c1", name: "g", arguments: "[" },
          { id: "", name: "h", arguments: "" },
          { id: "i".repeat(257), name: "h", arguments: "" },
        ],
        finish: "length",
      }],
      usage: { inputTokens: 1, outputTokens: 2, countedBy: "estimate" },
    };
  });
  const call = { type: "function_call", status: "completed" };
  deepStrictEqual(answer.output, [
    {
      id: "rs_X_0",
      type: "reasoning",
      summary: [],
      content: [{ type: "reasoning_text", text: "R" }],
      status: "completed",
    },
    {
      id: "msg_X_1",
      type: "message",
      role: "assistant",
      content: [
        { type: "output_text", text: "T", annotations: [], logprobs: [] },
        { type: "refusal", refusal: "N" },
      ],
      status: "completed",
    },
    { ...call, id: "fc_X_2", call_id: "c1", name: "f", arguments: "{}" },
    { ...call, id: "fc_X_3", call_id: "call_fc_X_3", name: "g", arguments: "[" },
    { ...call, id: "fc_X_4", call_id: "call_fc_X_4", name: "h", arguments: "" },
    { ...call, id: "fc_X_5", call_id: "call_fc_X_5", name: "h", arguments: "", status: "incomplete" },
  ]);
  deepStrictEqual(
    [answer.status, answer.incomplete_details, answer.completed_at],
    ["incomplete", { reason: "max_output_tokens" }, null],
  );
  deepStrictEqual(answer.usage.input_tokens_details, { cached_tokens: 0, cache_write_tokens: 0 });
});

Deno.test("an answer that a filter ended is incomplete, and one without a word has no items", async () => {
  const { answer } = await answerTo({ input: "Hi" }, (door) => {
    door.answer = { choices: [{ ...SAID, text: "", finish: "content_filter" }], usage: USAGE };
  });
  deepStrictEqual([answer.output, answer.status, answer.incomplete_details], [
    [],
    "incomplete",
    { reason: "content_filter" },
  ]);
});

Deno.test("an engine's answer without a choice is the engine's fault", async () => {
  const { door, call } = openHarness();
  door.answer = { choices: [], usage: USAGE };
  const response = await call({ model: "large", input: "Hi" });
  deepStrictEqual([response.status, (await response.json()).error.code], [502, "upstream_answer_invalid"]);
});

const F = { type: "function", name: "f" };
const user = (part: unknown) => ({ input: [{ role: "user", content: [part] }] });
const REFUSALS: readonly (readonly [string, Record<string, unknown>, string, RegExp])[] = [
  ["no input", { input: undefined }, "input", /neither a text nor a list/],
  ["a number as input", { input: 5 }, "input", /neither a text nor a list of items/],
  ["no items", { input: [] }, "input", /has no items/],
  [
    "too many items",
    { input: Array(4097).fill({ role: "user", content: "" }) },
    "input",
    /more than 4096 items/,
  ],
  ["a longer text than OpenAI's longest", { input: "a".repeat(10_485_761) }, "input", /more than 10485760/],
  [
    "nothing but reasoning",
    { input: [{ type: "reasoning", summary: [] }] },
    "input",
    /nothing but reasoning/,
  ],
  ["an item that is no object", { input: ["a"] }, "input[0]", /not an object/],
  ["an unknown kind of item", { input: [{ type: "computer_call" }] }, "input[0].type", /is none of: message/],
  [
    "a reference to a stored item",
    { input: [{ type: "item_reference", id: "msg_1" }] },
    "input[0].type",
    /stores nothing/,
  ],
  ["an unknown role", { input: [{ role: "tool", content: "a" }] }, "input[0].role", /none of: user/],
  [
    "a message with an unknown field",
    { input: [{ role: "user", content: "a", name: "n" }] },
    "input[0].name",
    /known field/,
  ],
  ["a message without parts", { input: [{ role: "user", content: [] }] }, "input[0].content", /has no parts/],
  ["a number as content", { input: [{ role: "user", content: 1 }] }, "input[0].content", /neither a text/],
  ["a file", user({ type: "input_file", file_id: "f" }), "input[0].content[0].type", /files are not served/],
  ["sound", user({ type: "input_audio" }), "input[0].content[0].type", /none of: input_text, input_image/],
  [
    "a part of an output from a user",
    user({ type: "output_text", text: "" }),
    "input[0].content[0].type",
    /none of/,
  ],
  [
    "a part with an unknown field",
    user({ type: "input_text", text: "", x: 1 }),
    "input[0].content[0].x",
    /known field/,
  ],
  [
    "an image by file",
    user({ type: "input_image", image_url: PNG, file_id: "f" }),
    "input[0].content[0].file_id",
    /a data: URL/,
  ],
  ["an image without address", user({ type: "input_image" }), "input[0].content[0].image_url", /not the URL/],
  [
    "an image on another host",
    user({ type: "input_image", image_url: "https://evil.example/a" }),
    "input[0].content[0].image_url",
    /no images from/,
  ],
  [
    "an image over http",
    user({ type: "input_image", image_url: "http://img.example/a" }),
    "input[0].content[0].image_url",
    /https/,
  ],
  [
    "an unknown detail",
    user({ type: "input_image", image_url: PNG, detail: "original" }),
    "input[0].content[0].detail",
    /./,
  ],
  [
    "an image from the system",
    { input: [{ role: "system", content: [{ type: "input_image", image_url: PNG }] }] },
    "input[0].content[0].type",
    /none of: input_text/,
  ],
  [
    "a part of an input from the assistant",
    { input: [{ role: "assistant", content: [{ type: "input_text", text: "" }] }] },
    "input[0].content[0].type",
    /none of: output_text, refusal/,
  ],
  [
    "a call without id",
    { input: [{ type: "function_call", name: "f", arguments: "" }] },
    "input[0].call_id",
    /./,
  ],
  [
    "a call by a strange name",
    { input: [{ type: "function_call", call_id: "c", name: "f f", arguments: "" }] },
    "input[0].name",
    /no name/,
  ],
  [
    "two calls of one id",
    {
      input: [{ type: "function_call", call_id: "c", name: "f", arguments: "" }, {
        type: "function_call",
        call_id: "c",
        name: "f",
        arguments: "",
      }],
    },
    "input[1].call_id",
    /earlier function_call/,
  ],
  [
    "an output of no call",
    { input: [{ type: "function_call_output", call_id: "c", output: "" }] },
    "input[0].call_id",
    /no function_call/,
  ],
  [
    "an output that is a file",
    {
      input: [{ type: "function_call", call_id: "c", name: "f", arguments: "" }, {
        type: "function_call_output",
        call_id: "c",
        output: [{ type: "input_file" }],
      }],
    },
    "input[1].output[0].type",
    /files/,
  ],
  [
    "a call in a namespace",
    { input: [{ type: "function_call", call_id: "c", name: "f", arguments: "", namespace: "n" }] },
    "input[0].namespace",
    /known field/,
  ],
  ["a stored response", { store: true }, "store", /stores nothing/],
  ["work in the background", { background: true }, "background", /stores nothing/],
  ["an earlier response", { previous_response_id: "resp_1" }, "previous_response_id", /stores nothing/],
  ["a conversation", { conversation: "conv_1" }, "conversation", /stores nothing/],
  ["a stored prompt", { prompt: { id: "p" } }, "prompt", /stores nothing/],
  ["includes", { include: ["file_search_call.results"] }, "include[0]", /not served/],
  ["truncation", { truncation: "auto" }, "truncation", /not disabled/],
  ["a bound of tool calls", { max_tool_calls: 1 }, "max_tool_calls", /tools that a server runs/],
  ["another tier", { service_tier: "flex" }, "service_tier", /neither auto nor default/],
  ["log probabilities", { top_logprobs: 1 }, "top_logprobs", /log probabilities/],
  ["another verbosity", { text: { verbosity: "low" } }, "text.verbosity", /not medium/],
  ["an unknown format", { text: { format: { type: "grammar" } } }, "text.format.type", /none of: text/],
  [
    "a format without schema",
    { text: { format: { type: "json_schema", name: "n" } } },
    "text.format.schema",
    /no JSON object/,
  ],
  [
    "a format by a strange name",
    { text: { format: { type: "json_schema", name: "ä", schema: {} } } },
    "text.format.name",
    /no name/,
  ],
  ["an unknown field of text", { text: { x: 1 } }, "text.x", /known field/],
  ["a tool of the server's", { tools: [{ type: "web_search" }] }, "tools[0].type", /is none of: function/],
  [
    "a tool in the form of chat",
    { tools: [{ type: "function", function: { name: "f" } }] },
    "tools[0].name",
    /./,
  ],
  [
    "a tool with an unknown field",
    { tools: [{ ...F, defer_loading: true }] },
    "tools[0].defer_loading",
    /known field/,
  ],
  ["two tools of one name", { tools: [F, F] }, "tools[1].name", /earlier tool/],
  [
    "too many tools",
    { tools: Array.from({ length: 1025 }, (_, index) => ({ ...F, name: `f${index}` })) },
    "tools",
    /more than 1024/,
  ],
  ["an unknown choice of tools", { tools: [F], tool_choice: "any" }, "tool_choice", /neither none/],
  [
    "a choice of a hosted tool",
    { tools: [F], tool_choice: { type: "file_search" } },
    "tool_choice.type",
    /none of: function/,
  ],
  [
    "a choice of no tool",
    { tools: [F], tool_choice: { type: "function", name: "g" } },
    "tool_choice.name",
    /none of the tools/,
  ],
  ["a demand for no tools", { tool_choice: "required" }, "tool_choice", /only allowed with tools/],
  ["more effort than there is", { reasoning: { effort: "xhigh" } }, "reasoning.effort", /./],
  ["a summary", { reasoning: { summary: "auto" } }, "reasoning.summary", /not served/],
  ["a temperature out of range", { temperature: 2.1 }, "temperature", /./],
  ["a share out of range", { top_p: -0.1 }, "top_p", /./],
  ["no tokens", { max_output_tokens: 0 }, "max_output_tokens", /./],
  ["options without a stream", { stream_options: {} }, "stream_options", /stream: true/],
  [
    "an unknown option",
    { stream: true, stream_options: { include_usage: true } },
    "stream_options.include_usage",
    /known field/,
  ],
  [
    "too much metadata",
    { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, index) => [index, ""])) },
    "metadata",
    /more than 16/,
  ],
  ["metadata that is no text", { metadata: { a: 1 } }, "metadata.a", /./],
  ["a long key", { prompt_cache_key: "k".repeat(257) }, "prompt_cache_key", /./],
  ["no model", { model: undefined }, "model", /./],
  ["a field of the engine that nobody let through", { guided_json: {} }, "guided_json", /known field/],
];

for (const [what, fields, param, words] of REFUSALS) {
  Deno.test(`a request with ${what} is refused, naming the field`, async () => {
    const { door, call } = openHarness();
    const body = JSON.parse(JSON.stringify({ model: "large", input: "Hi", ...fields }));
    const response = await call(body);
    const { error } = await response.json();
    deepStrictEqual(
      [response.status, error.code, error.param],
      [422, "fields_invalid", param],
      error.message,
    );
    match(error.message, words);
    deepStrictEqual(door.asked, []);
  });
}

Deno.test("an unknown model is answered before the input is looked at together", async () => {
  const { call } = openHarness();
  const response = await call({ model: "none", input: [{ type: "reasoning", summary: [] }] });
  deepStrictEqual([response.status, (await response.json()).error.code], [404, "model_not_found"]);
});

/** JSON that comes near a request, so that more than the first check is met. */
const nearRequest = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.constantFrom<unknown>(
      null,
      true,
      0,
      1.5,
      "",
      "a",
      "function",
      "message",
      "user",
      "assistant",
      "auto",
      "input_text",
      PNG,
    ),
    fc.jsonValue({ maxDepth: 2 }),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(
      fc.constantFrom(
        "type",
        "role",
        "content",
        "text",
        "name",
        "call_id",
        "arguments",
        "output",
        "format",
        "schema",
        "effort",
        "x",
      ),
      tie("value"),
      { maxKeys: 5 },
    ),
  ),
})).value;

Deno.test("any JSON is either refused with a status below 500 or answered, and never throws", async () => {
  const { door, call } = openHarness();
  door.batches = [[{ type: "text", choice: 0, text: "a" }, { type: "finish", choice: 0, reason: "stop" }]];
  const names = [
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "text",
    "reasoning",
    "metadata",
    "stream",
    "store",
    "include",
    "top_k",
  ];
  const body = fc.oneof(
    fc.jsonValue(),
    fc.dictionary(fc.constantFrom(...names), nearRequest).map((fields) => ({
      model: "large",
      input: "a",
      ...fields,
    })),
    fc.array(nearRequest, { maxLength: 3 }).map((input) => ({ model: "large", input })),
  );
  await fc.assert(
    fc.asyncProperty(body, async (body) => {
      const response = await call(JSON.parse(JSON.stringify(body)));
      const text = await response.text();
      ok(response.status === 200 || response.status === 404 || response.status === 422, text);
    }),
    { numRuns: 500 },
  );
});

Deno.test("OpenAI's client reads a whole answer: words, calls and usage", () =>
  withClient((door) => {
    door.answer = {
      choices: [{
        ...SAID,
        toolCalls: [{ id: "c1", name: "f", arguments: '{"a":1}' }],
        finish: "tool_calls",
      }],
      usage: USAGE,
    };
  }, async (client) => {
    // Assigned to its type: a field of the wrong kind would show in the members read below.
    const response: OpenaiResponse = await client.responses.create({
      model: "large",
      input: "Hi",
      store: false,
    });
    deepStrictEqual([response.output_text, response.status, response.usage?.total_tokens], [
      "Hello",
      "completed",
      12,
    ]);
    const call = response.output[1];
    ok(call?.type === "function_call");
    deepStrictEqual([call.call_id, call.name, call.arguments], ["c1", "f", '{"a":1}']);
  }));

Deno.test("OpenAI's client can send what it was answered back as input, parsed or not", () =>
  withClient((door) => {
    door.answer = {
      choices: [{
        ...SAID,
        reasoning: "R",
        toolCalls: [{ id: "c1", name: "f", arguments: '{"a":1}' }],
        finish: "tool_calls",
      }],
      usage: USAGE,
    };
  }, async (client, door) => {
    const tools = [{ type: "function" as const, name: "f", strict: true, parameters: { type: "object" } }];
    const first = await client.responses.parse({ model: "large", input: "Hi", tools });
    strictEqual(first.output.length, 3);
    await client.responses.create({
      model: "large",
      tools,
      input: [
        { role: "user", content: "Hi" },
        ...first.output as OpenAI.Responses.ResponseInputItem[],
        { type: "function_call_output", call_id: "c1", output: "1" },
      ],
    });
    deepStrictEqual(door.asked[1]?.messages, [
      { role: "user", parts: [{ type: "text", text: "Hi" }] },
      {
        role: "assistant",
        parts: [{ type: "text", text: "Hello" }],
        toolCalls: [{ id: "c1", name: "f", arguments: '{"a":1}' }],
      },
      { role: "tool", toolCallId: "c1", parts: [{ type: "text", text: "1" }] },
    ]);
  }));

const FORMAT = {
  type: "json_schema" as const,
  name: "n",
  schema: { type: "object", properties: { a: { type: "number" } } },
};

Deno.test("OpenAI's client parses structured output of a whole answer", () =>
  withClient((door) => {
    door.answer = { choices: [{ ...SAID, text: '{"a":1}' }], usage: USAGE };
  }, async (client) => {
    const response = await client.responses.parse({ model: "large", input: "Hi", text: { format: FORMAT } });
    deepStrictEqual(response.output_parsed as unknown, { a: 1 });
  }));

const CALL = { type: "tool_call", choice: 0 } as const;
const STREAM: readonly (readonly ChatEvent[])[] = [
  [{ type: "reasoning", choice: 0, text: "Hm" }],
  [{ type: "text", choice: 0, text: '{"a"' }, { type: "text", choice: 0, text: ":1}" }],
  [{ ...CALL, index: 0, id: "c1", name: "f", arguments: "" }, { ...CALL, index: 0, arguments: '{"b":' }],
  [{ ...CALL, index: 1, id: "c2", name: "f", arguments: "{}" }, { ...CALL, index: 0, arguments: "2}" }],
  [{ type: "finish", choice: 0, reason: "tool_calls" }, { type: "usage", usage: USAGE }],
];

Deno.test("OpenAI's client iterates over the events of a stream", () =>
  withClient((door) => door.batches = [...STREAM], async (client) => {
    let text = "";
    const types: string[] = [];
    let number = 0;
    for await (const event of await client.responses.create({ model: "large", input: "Hi", stream: true })) {
      if (types.at(-1) !== event.type) types.push(event.type);
      strictEqual("sequence_number" in event && event.sequence_number, number++);
      if (event.type === "response.output_text.delta") text += event.delta;
      if (event.type === "response.completed") {
        strictEqual(event.response.usage?.input_tokens_details.cached_tokens, 2);
      }
    }
    strictEqual(text, '{"a":1}');
    deepStrictEqual(types.slice(0, 4), [
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
    ]);
    strictEqual(types.at(-1), "response.completed");
  }));

Deno.test("OpenAI's stream helper gathers words, structured output and interleaved calls", () =>
  withClient((door) => door.batches = [...STREAM], async (client) => {
    const stream = client.responses.stream({
      model: "large",
      input: "Hi",
      text: { format: FORMAT },
      tools: [{ type: "function", name: "f", strict: true, parameters: { type: "object" } }],
    });
    const snapshots: string[] = [];
    stream.on("response.output_text.delta", ({ snapshot }) => snapshots.push(snapshot));
    const response = await stream.finalResponse();
    deepStrictEqual(snapshots, ['{"a"', '{"a":1}']);
    deepStrictEqual(response.output_parsed as unknown, { a: 1 });
    deepStrictEqual(
      response.output.map((item) =>
        item.type === "function_call" ? [item.call_id, item.parsed_arguments] : item.type
      ),
      ["reasoning", "message", ["c1", { b: 2 }], ["c2", {}]],
    );
    deepStrictEqual([response.status, response.output_text], ["completed", '{"a":1}']);
  }));

Deno.test("OpenAI's stream helper gathers a refusal and an answer that was cut off", async () => {
  await withClient(
    (door) =>
      door.batches = [[
        { type: "refusal", choice: 0, text: "I ca" },
        { type: "refusal", choice: 0, text: "nnot" },
        { type: "finish", choice: 0, reason: "length" },
      ]],
    async (client) => {
      const response = await client.responses.stream({ model: "large", input: "Hi" }).finalResponse();
      deepStrictEqual([response.status, response.incomplete_details], [
        "incomplete",
        { reason: "max_output_tokens" },
      ]);
      const message = response.output[0];
      ok(message?.type === "message");
      deepStrictEqual(message.content.map((part) => part.type === "refusal" && part.refusal), ["I cannot"]);
      strictEqual(message.status, "incomplete");
    },
  );
});

Deno.test("a stream that breaks off ends with an error event in public words, for OpenAI's client an APIError", () =>
  withClient((door) => {
    door.batches = [
      [{ type: "text", choice: 0, text: "a" }],
      new Fault("upstream_failed", "private reason: sk-secret"),
    ];
  }, async (client, door) => {
    const stream = await client.responses.create({ model: "large", input: "Hi", stream: true });
    const seen: string[] = [];
    await rejects(async () => {
      for await (const event of stream) seen.push(event.type);
    }, (error) => {
      ok(error instanceof APIError);
      deepStrictEqual([error.code, error.type, error.param], ["upstream_failed", "error", null]);
      match(error.message, /engine behind this model failed/);
      return true;
    });
    strictEqual(seen.at(-1), "response.output_text.delta");
    strictEqual(door.cancelled, 1);
    await rejects(() => client.responses.stream({ model: "large", input: "Hi" }).finalResponse(), APIError);
  }));

Deno.test("a stream that cannot begin has a status of its own", () =>
  withClient((door) => {
    door.fault = new Fault("upstream_unreachable", "down");
  }, async (client) => {
    await rejects(
      () => client.responses.create({ model: "large", input: "Hi", stream: true }),
      (error) => error instanceof APIError && error.status === 502 && error.code === "upstream_unreachable",
    );
  }));

Deno.test("a client that leaves a stream cancels it", async () => {
  const { door, call } = openHarness();
  door.batches = [...STREAM];
  const response = await call({ model: "large", input: "Hi", stream: true });
  const reader = response.body?.getReader();
  ok(reader);
  await reader.read();
  await reader.cancel();
  strictEqual(door.cancelled, 1);
});
