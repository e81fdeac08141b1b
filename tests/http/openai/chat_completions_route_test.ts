// Chat completions route: OpenAI's form, read, run and written.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import OpenAI from "openai";
import type { ChatAnswer, ChatChoice, ChatEvent, ChatRequest } from "../../../src/engines/chat.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { chatCompletionsRoute } from "../../../src/http/openai/chat_completions_route.ts";
import { newGenerationId } from "../../../src/http/openai/generation_parts.ts";
import { anyText } from "../../support/any_text.ts";
import { fakeDoor, MODEL, readEvents, refusalOf, type Script, send, textOf } from "./fake_door.ts";

function routeWith(script: Script = {}) {
  const fake = fakeDoor(script);
  return { fake, route: chatCompletionsRoute(fake.parts) };
}

function answerWith(...choices: Partial<ChatChoice>[]): ChatAnswer {
  return {
    choices: choices.map((choice) => ({ text: "", reasoning: "", toolCalls: [], finish: "stop", ...choice })),
    usage: { inputTokens: 5, outputTokens: 7, countedBy: "engine" },
  };
}

const HELLO = [{ role: "user", content: "hello" }] as const;
const PNG = "data:image/png;base64,iVBORw0KGgo=";
const WEATHER = {
  type: "function",
  function: { name: "weather", description: "Tells.", parameters: { type: "object" }, strict: true },
} as const;
const CALL = { id: "call_1", type: "function", function: { name: "weather", arguments: "{" } } as const;

/** The neutral request that a body becomes. */
async function neutral(body: object): Promise<ChatRequest> {
  const { fake, route } = routeWith({ answer: answerWith({ text: "x" }) });
  await send(route, { model: "m1", messages: HELLO, ...body });
  return fake.requests[0] as ChatRequest;
}

Deno.test("messages of every kind reach the door in the neutral form, at their own index", async () => {
  const { messages } = await neutral({
    messages: [
      { role: "system", content: "be brief" },
      { role: "developer", content: [{ type: "text", text: "be kind" }], name: "dev" },
      {
        role: "user",
        name: "ann",
        content: [
          { type: "text", text: "see" },
          { type: "image_url", image_url: { url: PNG, detail: "low" } },
          { type: "image_url", image_url: { url: "https://images.example/a.png" } },
          { type: "input_audio", input_audio: { data: "UklGRg==", format: "wav" } },
        ],
      },
      { role: "assistant", content: null, refusal: null, audio: null, tool_calls: [CALL] },
      { role: "tool", content: "sunny", tool_call_id: "call_1" },
      { role: "assistant", content: [{ type: "refusal", refusal: "no" }] },
      { role: "assistant", refusal: "never" },
      { role: "assistant", content: "fine", reasoning_content: "hm" },
      { role: "user", content: "" },
    ],
  });
  const text = (text: string) => [{ type: "text", text }];
  deepStrictEqual(messages, [
    { role: "system", parts: text("be brief") },
    { role: "system", parts: text("be kind") },
    {
      role: "user",
      parts: [
        ...text("see"),
        { type: "image", url: PNG, detail: "low" },
        { type: "image", url: "https://images.example/a.png" },
        { type: "audio", data: "UklGRg==", format: "wav" },
      ],
      name: "ann",
    },
    { role: "assistant", parts: [], toolCalls: [{ id: "call_1", name: "weather", arguments: "{" }] },
    { role: "tool", toolCallId: "call_1", parts: text("sunny") },
    { role: "assistant", parts: [], refusal: "no", toolCalls: [] },
    { role: "assistant", parts: [], refusal: "never", toolCalls: [] },
    { role: "assistant", parts: text("fine"), toolCalls: [] },
    { role: "user", parts: text("") },
  ]);
});

Deno.test("all other fields reach the door in the neutral form, and those that the settings let through as they are", async () => {
  const { messages, ...rest } = await neutral({
    tools: [WEATHER, { type: "function", function: { name: "now" } }],
    tool_choice: { type: "function", function: { name: "now" } },
    parallel_tool_calls: false,
    response_format: {
      type: "json_schema",
      json_schema: { name: "s", schema: { type: "object" }, strict: true },
    },
    max_completion_tokens: 9,
    temperature: 2,
    top_p: 0,
    n: 3,
    stop: "x",
    seed: 4,
    presence_penalty: 1,
    frequency_penalty: -1,
    logit_bias: { "0": 1, "1234567": -1 },
    logprobs: true,
    top_logprobs: 20,
    reasoning_effort: "low",
    user: "u",
    safety_identifier: "s",
    metadata: { a: "b" },
    store: false,
    modalities: ["text"],
    service_tier: "auto",
    stream: false,
    top_k: 40,
    guided_json: { type: "object", properties: { a: [null] } },
  });
  strictEqual(messages.length, 1);
  deepStrictEqual(rest, {
    task: "chat",
    tools: [
      { name: "weather", description: "Tells.", parameters: { type: "object" }, strict: true },
      { name: "now" },
    ],
    toolChoice: { name: "now" },
    parallelToolCalls: false,
    responseFormat: { type: "json_schema", name: "s", schema: { type: "object" }, strict: true },
    outputTokensMax: 9,
    temperature: 2,
    topP: 0,
    seed: 4,
    presencePenalty: 1,
    frequencyPenalty: -1,
    logitBias: { "0": 1, "1234567": -1 },
    logprobs: 20,
    stop: ["x"],
    choices: 3,
    topK: 40,
    extra: { guided_json: { type: "object", properties: { a: [null] } } },
    reasoningEffort: "low",
  });
});

Deno.test("a top_k that was let through is checked before it takes its neutral place", async () => {
  for (const top_k of [0, -1, 1.5, 1_000_001, "5", true, [5], {}]) {
    deepStrictEqual(
      await refusalOf(chatCompletionsRoute(fakeDoor().parts), {
        model: "m1",
        messages: [{ role: "user", content: "a" }],
        top_k,
      }),
      ["/top_k is no whole number from 1 to 1000000"],
    );
  }
  for (const [top_k, topK] of [[1, 1], [1_000_000, 1_000_000], [null, undefined]]) {
    const { topK: told, extra } = await neutral({ top_k });
    deepStrictEqual([told, extra], [topK, {}]);
  }
});

Deno.test("null says the same as an absent field, and either name of the output's limit is understood", async () => {
  const plain = await neutral({});
  deepStrictEqual({ ...plain, messages: [] }, {
    task: "chat",
    messages: [],
    tools: [],
    stop: [],
    choices: 1,
    extra: {},
  });
  const names = [
    ..."temperature top_p n stop seed presence_penalty frequency_penalty logit_bias max_tokens stream".split(
      " ",
    ),
    ..."stream_options user tools tool_choice parallel_tool_calls response_format logprobs top_logprobs"
      .split(" "),
    ..."max_completion_tokens reasoning_effort modalities store service_tier safety_identifier metadata"
      .split(" "),
  ];
  deepStrictEqual(await neutral(Object.fromEntries(names.map((name) => [name, null]))), plain);
  strictEqual((await neutral({ max_tokens: 3 })).outputTokensMax, 3);
  strictEqual((await neutral({ logprobs: true })).logprobs, 0);
  strictEqual((await neutral({ logprobs: false })).logprobs, undefined);
  strictEqual((await neutral({ tools: [WEATHER], tool_choice: "required" })).toolChoice, "required");
  deepStrictEqual((await neutral({ response_format: { type: "json_object" } })).responseFormat, {
    type: "json_object",
  });
});

const user = (content: unknown) => ({ messages: [{ role: "user", content }] });
const says = (...messages: unknown[]) => ({ messages });
const image = (url: string) => user([{ type: "image_url", image_url: { url } }]);

const REFUSED: readonly [object, RegExp][] = [
  [{ model: "" }, /^\/model /],
  [{ model: "m".repeat(257) }, /^\/model /],
  [{ messages: undefined }, /^\/messages /],
  [{ messages: [] }, /^\/messages has no messages/],
  [
    says({ role: "function", name: "f", content: "" }),
    /^\/messages\/0\/role is function, which is long out of use/,
  ],
  [says({ role: "robot", content: "" }), /^\/messages\/0\/role is none of system, developer, user/],
  [says({ role: "user", content: "", extra: 1 }), /^\/messages\/0\/extra is not a known field/],
  [says({ role: "user", content: "", name: "" }), /^\/messages\/0\/name /],
  [says({ role: "user", content: "", name: "n".repeat(65) }), /^\/messages\/0\/name /],
  [user(5), /^\/messages\/0\/content is neither/],
  [user(null), /^\/messages\/0\/content is neither/],
  [user([]), /^\/messages\/0\/content has no parts/],
  [user(["text"]), /^\/messages\/0\/content\/0 /],
  [user([{ type: "text" }]), /^\/messages\/0\/content\/0\/text /],
  [user([{ type: "text", text: "", more: 1 }]), /^\/messages\/0\/content\/0\/more is not a known field/],
  [
    user([{ type: "file", file: { file_id: "f" } }]),
    /^\/messages\/0\/content\/0\/type is file: files are not taken/,
  ],
  [
    user([{ type: "refusal", refusal: "" }]),
    /^\/messages\/0\/content\/0\/type is no type .* text, image_url, input_audio/,
  ],
  [
    says({ role: "system", content: [{ type: "image_url", image_url: { url: PNG } }] }),
    /^\/messages\/0\/content\/0\/type /,
  ],
  [image("https://evil.example/a.png"), /^\/messages\/0\/content\/0\/image_url\/url is at a host/],
  [image("http://images.example/a.png"), /^\/messages\/0\/content\/0\/image_url\/url is neither/],
  [image("data:image/jpeg;base64,iVBORw0KGgo="), /^\/messages\/0\/content\/0\/image_url\/url is no jpeg/],
  [
    image("data:image/png;base64,iVBORw0KGg"),
    /^\/messages\/0\/content\/0\/image_url\/url is no valid base64/,
  ],
  [user([{ type: "image_url", image_url: PNG }]), /^\/messages\/0\/content\/0\/image_url /],
  [
    user([{ type: "image_url", image_url: { url: PNG, detail: "huge" } }]),
    /^\/messages\/0\/content\/0\/image_url\/detail /,
  ],
  [
    user([{ type: "input_audio", input_audio: { data: "a", format: "wav" } }]),
    /^\/messages\/0\/content\/0\/input_audio\/data is no valid base64/,
  ],
  [
    user([{ type: "input_audio", input_audio: { data: "AAAA", format: "ogg" } }]),
    /^\/messages\/0\/content\/0\/input_audio\/format /,
  ],
  [says({ role: "assistant" }), /^\/messages\/0\/content is missing/],
  [says({ role: "assistant", content: null }), /^\/messages\/0\/content is missing/],
  [says({ role: "assistant", tool_calls: [] }), /^\/messages\/0\/tool_calls /],
  [
    says({ role: "assistant", function_call: { name: "f", arguments: "" } }),
    /^\/messages\/0\/function_call /,
  ],
  [
    says({ role: "assistant", tool_calls: [{ ...CALL, type: "custom" }] }),
    /^\/messages\/0\/tool_calls\/0\/type is not function/,
  ],
  [
    says({ role: "assistant", tool_calls: [{ ...CALL, index: 0 }] }),
    /^\/messages\/0\/tool_calls\/0\/index is not a known field/,
  ],
  [
    says({ role: "assistant", content: [{ type: "refusal", refusal: "a" }, { type: "text", text: "b" }] }),
    /^\/messages\/0\/content has a refusal beside/,
  ],
  [says({ role: "tool", content: "" }), /^\/messages\/0\/tool_call_id /],
  [
    says({ role: "tool", content: "", tool_call_id: "call_1" }),
    /^\/messages\/0\/tool_call_id is the id of no tool call/,
  ],
  [
    says({ role: "tool", content: "", tool_call_id: "call_1" }, { role: "assistant", tool_calls: [CALL] }),
    /^\/messages\/0\/tool_call_id is the id of no tool call in an earlier/,
  ],
  [
    says({ role: "assistant", tool_calls: [CALL] }, { role: "tool", content: "", tool_call_id: "call_2" }),
    /^\/messages\/1\/tool_call_id is the id of no tool call/,
  ],
  [{ tools: [{ type: "custom", custom: { name: "c" } }] }, /^\/tools\/0\/type is not function/],
  [{ tools: [{ type: "function", function: { name: "a b" } }] }, /^\/tools\/0\/function\/name is no name/],
  [
    { tools: [{ type: "function", function: { name: "a".repeat(65) } }] },
    /^\/tools\/0\/function\/name is no name/,
  ],
  [
    { tools: [{ type: "function", function: { name: "a", parameters: [] } }] },
    /^\/tools\/0\/function\/parameters is no JSON object/,
  ],
  [{ tools: [WEATHER, WEATHER] }, /^\/tools\/1\/function\/name is the name of an earlier tool/],
  [{ tool_choice: "auto" }, /^\/tool_choice is only allowed with tools/],
  [{ tools: [WEATHER], tool_choice: "any" }, /^\/tool_choice is neither/],
  [
    { tools: [WEATHER], tool_choice: { type: "function", function: { name: "now" } } },
    /^\/tool_choice\/function\/name is the name of none/,
  ],
  [
    { tools: [WEATHER], tool_choice: { type: "allowed_tools", allowed_tools: {} } },
    /^\/tool_choice\/type is not function/,
  ],
  [{ response_format: { type: "grammar" } }, /^\/response_format\/type is none of/],
  [{ response_format: { type: "text", schema: {} } }, /^\/response_format\/schema is not a known field/],
  [
    { response_format: { type: "json_schema", json_schema: { name: "a b", schema: {} } } },
    /^\/response_format\/json_schema\/name /,
  ],
  [
    { response_format: { type: "json_schema", json_schema: { name: "a" } } },
    /^\/response_format\/json_schema\/schema is no JSON object/,
  ],
  [{ stream: "yes" }, /^\/stream /],
  [{ stream_options: { include_usage: true } }, /^\/stream_options is only allowed with stream/],
  [{ stream: true, stream_options: { other: true } }, /^\/stream_options\/other is not a known field/],
  [{ max_tokens: 1, max_completion_tokens: 1 }, /^\/max_tokens says the same as/],
  [{ max_tokens: 0 }, /^\/max_tokens /],
  [{ max_completion_tokens: 1.5 }, /^\/max_completion_tokens /],
  [{ temperature: 2.1 }, /^\/temperature /],
  [{ temperature: -1 }, /^\/temperature /],
  [{ top_p: 1.1 }, /^\/top_p /],
  [{ n: 0 }, /^\/n /],
  [{ n: 129 }, /^\/n /],
  [{ stop: "" }, /^\/stop is empty/],
  [{ stop: "a".repeat(257) }, /^\/stop .*256/],
  [{ stop: ["a", ""] }, /^\/stop\/1 is empty/],
  [{ stop: Array(17).fill("a") }, /^\/stop has more than 16/],
  [{ stop: 1 }, /^\/stop is neither/],
  [{ seed: 2 ** 60 }, /^\/seed /],
  [{ presence_penalty: 3 }, /^\/presence_penalty /],
  [{ frequency_penalty: -3 }, /^\/frequency_penalty /],
  [{ logit_bias: { a: 1 } }, /^\/logit_bias\/a is no token id/],
  [{ logit_bias: { "1.5": 1 } }, /^\/logit_bias\/1.5 is no token id/],
  [{ logit_bias: { "1": 101 } }, /^\/logit_bias\/1 /],
  [{ logit_bias: [1] }, /^\/logit_bias is no object/],
  [
    { logit_bias: Object.fromEntries(Array.from({ length: 1025 }, (_, id) => [id, 1])) },
    /^\/logit_bias has more than 1024/,
  ],
  [{ top_logprobs: 2 }, /^\/top_logprobs is only allowed with logprobs/],
  [{ logprobs: true, top_logprobs: 21 }, /^\/top_logprobs /],
  [{ logprobs: 2 }, /^\/logprobs /],
  [{ reasoning_effort: "extreme" }, /^\/reasoning_effort /],
  [{ user: "u".repeat(257) }, /^\/user /],
  [{ safety_identifier: 1 }, /^\/safety_identifier /],
  [{ metadata: { a: 1 } }, /^\/metadata\/a /],
  [
    { metadata: Object.fromEntries(Array.from({ length: 17 }, (_, at) => [`k${at}`, ""])) },
    /^\/metadata has more than 16/,
  ],
  [{ store: true }, /^\/store is not false/],
  [{ modalities: ["text", "audio"] }, /^\/modalities/],
  [{ modalities: ["audio"] }, /^\/modalities\/0 is not text/],
  [{ modalities: [] }, /^\/modalities /],
  [{ service_tier: "flex" }, /^\/service_tier /],
  ...["prediction", "audio", "web_search_options", "functions", "function_call", "min_p", "input", "a/b~c"]
    .map((
      name,
    ): [object, RegExp] => [
      { [name]: {} },
      new RegExp(`^/${name.replaceAll("~", "~0").replaceAll("/", "~1")} is not a known field`),
    ]),
];

Deno.test("a chat is refused with the place of what is wrong, before anything runs", async () => {
  const { fake, route } = routeWith({ answer: answerWith({ text: "x" }) });
  for (const [fields, expected] of REFUSED) {
    const [first = "nothing"] = await refusalOf(route, { model: "m1", messages: HELLO, ...fields });
    match(first, expected);
  }
  deepStrictEqual(fake.requests, []);
});

Deno.test("a model that is unknown or does not chat is refused as such, before its fields are", async () => {
  const { fake, route } = routeWith({ model: { capabilities: ["embedding"] } });
  for (const [model, kind] of [["other", "model_not_found"], ["m1", "capability_missing"]] as const) {
    const thrown = await send(route, { model, messages: HELLO, min_p: 1 }).catch((thrown) => thrown);
    strictEqual(thrown instanceof Fault && thrown.kind, kind);
  }
  deepStrictEqual(fake.requests, []);
});

Deno.test("a mistake that is found below the door is placed in the body's own words", async () => {
  const { fake, route } = routeWith({ answer: answerWith({ text: "x" }) });
  const place = async (body: object, paths: readonly string[]) => {
    await send(route, { model: "m1", messages: HELLO, ...body });
    return paths.map((path) => fake.place?.(path));
  };
  deepStrictEqual(
    await place({}, [
      "/outputTokensMax",
      "/choices",
      "/stop",
      "/images",
      "/images/3",
      "/tools",
      "/tools/1",
      "/responseFormat",
      "/messages/2",
      "",
    ]),
    [
      "/max_completion_tokens",
      "/n",
      "/stop",
      "/messages",
      "/messages",
      "/tools",
      "/tools/1",
      "/response_format",
      "/messages/2",
      "",
    ],
  );
  deepStrictEqual(await place({ max_tokens: 1 }, ["/outputTokensMax"]), ["/max_tokens"]);
});

Deno.test("whatever JSON comes, it runs or is refused for its fields or its model", async () => {
  const { route } = routeWith({ answer: answerWith({ text: "x" }) });
  const good = {
    model: "m1",
    messages: [...HELLO, { role: "assistant", content: "a", tool_calls: [CALL] }, {
      role: "tool",
      content: "b",
      tool_call_id: "call_1",
    }],
    tools: [WEATHER],
    tool_choice: "auto",
    response_format: { type: "text" },
    stop: ["a"],
    logit_bias: { "1": 1 },
    stream_options: null,
  };
  const anyJson = fc.jsonValue({ maxDepth: 4 });
  /** One value inside a good body, changed. */
  const changed = fc.tuple(fc.nat(), anyJson).map(([at, value]) => {
    const places: [Record<string, unknown>, string][] = [];
    const gather = (node: unknown): void => {
      if (typeof node !== "object" || node === null) return;
      for (const name of Object.keys(node)) {
        places.push([node as Record<string, unknown>, name]);
        gather((node as Record<string, unknown>)[name]);
      }
    };
    const body = structuredClone(good);
    gather(body);
    const [node, name] = places[at % places.length] ?? [{}, ""];
    node[name] = value;
    return body;
  });
  let ran = 0;
  await fc.assert(
    fc.asyncProperty(fc.oneof(anyJson, changed, changed), async (body) => {
      try {
        await send(route, body);
        ran++;
      } catch (thrown) {
        ok(thrown instanceof Fault, String(thrown));
        ok(["fields_invalid", "model_not_found"].includes(thrown.kind), thrown.kind);
        if (thrown.kind === "fields_invalid") ok((thrown.details.fields?.length ?? 0) > 0);
      }
    }),
    { numRuns: 500 },
  );
  ok(ran > 0);
});

Deno.test("a whole answer has OpenAI's form and the model's own id", async () => {
  const { route } = routeWith({
    answer: {
      choices: [
        {
          text: "hi",
          reasoning: "hm",
          toolCalls: [],
          finish: "stop",
          logprobs: { content: [], refusal: null },
        },
        {
          text: "",
          reasoning: "",
          toolCalls: [{ id: "c", name: "weather", arguments: "{bad" }],
          finish: "tool_calls",
        },
        { text: "", reasoning: "", refusal: "no", toolCalls: [], finish: "content_filter" },
        { text: "", reasoning: "", toolCalls: [], finish: "length" },
      ],
      usage: {
        inputTokens: 5,
        outputTokens: 7,
        cachedInputTokens: 2,
        reasoningTokens: 1,
        countedBy: "engine",
      },
    },
  });
  const { status, body } = await send(route, { model: "nick", messages: HELLO });
  strictEqual(status, 200);
  const calls = [{ id: "c", type: "function", function: { name: "weather", arguments: "{bad" } }];
  const message = { role: "assistant", content: null, refusal: null };
  deepStrictEqual(body, {
    id: "chatcmpl-1",
    object: "chat.completion",
    created: 1234,
    model: "m1",
    choices: [
      {
        index: 0,
        message: { ...message, content: "hi", reasoning_content: "hm" },
        logprobs: { content: [], refusal: null },
        finish_reason: "stop",
      },
      { index: 1, message: { ...message, tool_calls: calls }, logprobs: null, finish_reason: "tool_calls" },
      { index: 2, message: { ...message, refusal: "no" }, logprobs: null, finish_reason: "content_filter" },
      { index: 3, message: { ...message, content: "" }, logprobs: null, finish_reason: "length" },
    ],
    usage: {
      prompt_tokens: 5,
      completion_tokens: 7,
      total_tokens: 12,
      prompt_tokens_details: { cached_tokens: 2 },
      completion_tokens_details: { reasoning_tokens: 1 },
    },
  });
});

Deno.test("what was answered can be sent back as a message", async () => {
  const calls = [{ id: "call_1", name: "weather", arguments: "{}" }];
  const answer = answerWith({ reasoning: "hm", toolCalls: calls, finish: "tool_calls" });
  const { fake, route } = routeWith({ answer });
  const { body } = await send(route, { model: "m1", messages: HELLO });
  const { message } = (body as { choices: [{ message: unknown }] }).choices[0];
  const messages = [...HELLO, message, { role: "tool", content: "ok", tool_call_id: "call_1" }];
  await send(route, { model: "m1", messages });
  deepStrictEqual((fake.requests[1] as ChatRequest).messages[1], {
    role: "assistant",
    parts: [],
    toolCalls: calls,
  });
});

const PIECES: readonly (readonly ChatEvent[])[] = [
  [{ type: "reasoning", choice: 0, text: "hm" }, {
    type: "text",
    choice: 0,
    text: "a\n",
    logprobs: { content: [] },
  }],
  [{ type: "refusal", choice: 1, text: "no" }],
  [
    { type: "tool_call", choice: 0, index: 0, id: "c", name: "weather", arguments: "" },
    { type: "tool_call", choice: 0, index: 0, arguments: '{"' },
    { type: "finish", choice: 0, reason: "tool_calls" },
    { type: "finish", choice: 1, reason: "stop", stopSequence: "x" },
  ],
  [{ type: "usage", usage: { inputTokens: 1, outputTokens: 2, countedBy: "engine" } }],
];

Deno.test("a stream has roles first, then an event a piece, usage where it is asked for, and the end mark", async () => {
  const read = async (options: object) => {
    const { route } = routeWith({ batches: PIECES });
    const answer = await send(route, { model: "nick", messages: HELLO, n: 2, stream: true, ...options });
    strictEqual(answer.headers?.["Content-Type"], "text/event-stream; charset=utf-8");
    const events = readEvents(await textOf(answer));
    strictEqual(events.pop(), "[DONE]");
    return events.map((event) => JSON.parse(event));
  };
  const head = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1234, model: "m1" };
  const chunk = (index: number, delta: unknown, finish: string | null = null, logprobs: unknown = null) => ({
    ...head,
    choices: [{ index, delta, logprobs, finish_reason: finish }],
  });
  const role = { role: "assistant", content: "", refusal: null };
  const chunks = [
    chunk(0, role),
    chunk(1, role),
    chunk(0, { reasoning_content: "hm" }),
    chunk(0, { content: "a\n" }, null, { content: [] }),
    chunk(1, { refusal: "no" }),
    chunk(0, {
      tool_calls: [{ index: 0, id: "c", type: "function", function: { name: "weather", arguments: "" } }],
    }),
    chunk(0, { tool_calls: [{ index: 0, function: { arguments: '{"' } }] }),
    chunk(0, {}, "tool_calls"),
    chunk(1, {}, "stop"),
  ];
  deepStrictEqual(await read({}), chunks);
  deepStrictEqual(await read({ stream_options: { include_usage: true } }), [
    ...chunks.map((chunk) => ({ ...chunk, usage: null })),
    { ...head, choices: [], usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } },
  ]);
});

Deno.test("events that came together leave together, and one that says nothing to the caller leaves nothing", async () => {
  const { route } = routeWith({ batches: PIECES });
  const answer = await send(route, { model: "m1", messages: HELLO, n: 2, stream: true });
  const counts: number[] = [];
  for (;;) {
    const pieces = await answer.stream?.next();
    if (pieces === undefined) break;
    strictEqual(pieces.length, 1);
    counts.push(readEvents(new TextDecoder().decode(pieces[0])).length);
  }
  deepStrictEqual(counts, [4, 1, 4, 1]);
});

Deno.test("a stream that breaks ends with an error in OpenAI's envelope, in public words, and without the end mark", async () => {
  const fault = new Fault("upstream_failed", "private words");
  const { fake, route } = routeWith({ batches: [[{ type: "text", choice: 0, text: "a" }]], fault });
  const answer = await send(route, { model: "m1", messages: HELLO, stream: true });
  const events = readEvents(await textOf(answer));
  deepStrictEqual(JSON.parse(events.at(-1) ?? ""), {
    error: {
      message: "The engine behind this model failed.",
      type: "server_error",
      param: null,
      code: "upstream_failed",
    },
  });
  strictEqual(events.length, 3);
  strictEqual(fake.cancelled, 1);
});

Deno.test("what fails before the first piece is thrown, to be answered with its own status", async () => {
  const { route } = routeWith({ fault: new Fault("upstream_timeout", "slow") });
  await rejects(send(route, { model: "m1", messages: HELLO, stream: true }), { kind: "upstream_timeout" });
  await rejects(send(route, { model: "m1", messages: HELLO }), { kind: "upstream_timeout" });
});

Deno.test("a client that leaves cancels the stream behind the answer", async () => {
  const { fake, route } = routeWith({ batches: PIECES });
  const answer = await send(route, { model: "m1", messages: HELLO, stream: true });
  answer.stream?.cancel();
  strictEqual(fake.cancelled, 1);
});

Deno.test("no text of a model forges an event, wherever it stands, and each comes back as it was", async () => {
  const hostile = fc.oneof(
    anyText,
    fc.constantFrom(
      "\n\ndata: [DONE]\n\n",
      '"}}]}\n\ndata: {"x":1}',
      "\r\rdata: x",
      "\u2028data:\u2029\u0085",
      "\ud800",
      "event: error\r\n",
    ),
  );
  const event = fc.oneof(
    fc.record({
      type: fc.constantFrom("text", "reasoning", "refusal"),
      choice: fc.constant(0),
      text: hostile,
    }),
    fc.record({
      type: fc.constant("tool_call"),
      choice: fc.constant(0),
      index: fc.constant(0),
      id: hostile,
      name: hostile,
      arguments: hostile,
    }),
    fc.record({
      type: fc.constant("text"),
      choice: fc.constant(0),
      text: hostile,
      logprobs: hostile,
    }),
  ) as fc.Arbitrary<ChatEvent>;
  await fc.assert(
    fc.asyncProperty(fc.array(event, { minLength: 1, maxLength: 6 }), hostile, async (batch, id) => {
      const { route } = routeWith({ batches: [batch], model: { ...MODEL, id, aliases: ["nick"] } });
      const answer = await send(route, { model: "nick", messages: HELLO, stream: true });
      const events = readEvents(await textOf(answer));
      strictEqual(events.pop(), "[DONE]");
      const chunks = events.slice(1).map((event) => JSON.parse(event));
      const seen = chunks.map(({ model, choices: [{ delta, logprobs }] }): unknown => {
        strictEqual(model, id);
        const call = delta.tool_calls?.[0];
        return call === undefined
          ? [delta.content ?? delta.reasoning_content ?? delta.refusal, logprobs]
          : [call.id, call.function.name, call.function.arguments];
      });
      deepStrictEqual(
        seen,
        batch.map((event): unknown =>
          event.type === "tool_call"
            ? [event.id, event.name, event.arguments]
            : event.type === "text"
            ? [event.text, event.logprobs ?? null]
            : [(event as { text: string }).text, null]
        ),
      );
    }),
    { numRuns: 100 },
  );
});

Deno.test("the official client reads a stream, its tool calls, its usage and its fault", async () => {
  const clientOf = (script: Script) =>
    new OpenAI({
      apiKey: "none",
      baseURL: "http://door.test/v1",
      maxRetries: 0,
      fetch: async (_url, init) => {
        const answer = await send(routeWith(script).route, JSON.parse(String(init?.body)));
        return new Response(await textOf(answer), { headers: answer.headers as Record<string, string> });
      },
    });
  const runner = clientOf({
    batches: PIECES.map((batch) => batch.filter((event) => !("choice" in event) || event.choice === 0)),
  })
    .chat.completions.stream({ model: "m1", messages: [...HELLO], stream_options: { include_usage: true } });
  const final = await runner.finalChatCompletion();
  strictEqual(final.choices[0]?.message.content, "a\n");
  strictEqual(final.choices[0]?.finish_reason, "tool_calls");
  const call = final.choices[0]?.message.tool_calls?.[0];
  ok(call?.type === "function");
  deepStrictEqual([call.id, call.function.name, call.function.arguments], ["c", "weather", '{"']);
  strictEqual(final.usage?.total_tokens, 3);

  const broken = await clientOf({
    batches: [[{ type: "text", choice: 0, text: "a" }]],
    fault: new Fault("stopping", "x"),
  })
    .chat.completions.create({ model: "m1", messages: [...HELLO], stream: true });
  let text = "";
  await rejects(async () => {
    for await (const chunk of broken) text += chunk.choices[0]?.delta.content ?? "";
  }, { code: "stopping" });
  strictEqual(text, "a");
});

Deno.test("ids of answers bear their prefix and 24 characters that never come twice", () => {
  const ids = new Set(Array.from({ length: 1000 }, () => newGenerationId("chatcmpl-")));
  strictEqual(ids.size, 1000);
  for (const id of ids) match(id, /^chatcmpl-[A-Za-z0-9_-]{24}$/);
});
