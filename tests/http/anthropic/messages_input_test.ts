// Messages input: what a body in Anthropic's form means, and what is refused with its place.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { bodyWith, fakeDoor, HELLO, neutral, refusalOf } from "./fake_door.ts";

const PNG = "iVBORw0KGgo=";
const CACHED = { cache_control: { type: "ephemeral", ttl: "1h" } } as const;
const WEATHER = {
  name: "weather",
  description: "Tells.",
  input_schema: { type: "object", properties: { city: { type: "string" } } },
};
const CALL = { type: "tool_use", id: "t1", name: "weather", input: { city: "Ulm" } };
const image = (source: object) => ({ type: "image", source });
const png = image({ type: "base64", media_type: "image/png", data: PNG });

Deno.test("messages of every kind reach the door in the neutral form", async () => {
  const { messages } = await neutral({
    system: [{ type: "text", text: "be brief", ...CACHED }, { type: "text", text: "be kind" }],
    messages: [
      {
        role: "user",
        content: [
          { type: "text", text: "see", citations: null, ...CACHED },
          png,
          image({ type: "url", url: "https://images.example/a.png" }),
        ],
      },
      {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "hm", signature: "" },
          { type: "redacted_thinking", data: "xx" },
          { type: "text", text: "look" },
          { ...CALL, caller: { type: "direct" }, toolset_name: null },
          { ...CALL, id: "t2", input: {} },
          { ...CALL, id: "t3" },
        ],
      },
      {
        role: "user",
        content: [
          { type: "tool_result", tool_use_id: "t2", is_error: true, content: "no such city" },
          {
            type: "tool_result",
            tool_use_id: "t1",
            content: [{ type: "text", text: "sunny" }, png],
            ...CACHED,
          },
          { type: "tool_result", tool_use_id: "t3" },
          { type: "text", text: "so?" },
        ],
      },
      { role: "assistant", content: [{ type: "thinking", thinking: "alone", signature: "s" }] },
      { role: "system", content: "be quick" },
      { role: "assistant", content: "Well," },
    ],
  });
  deepStrictEqual(messages, [
    { role: "system", parts: [{ type: "text", text: "be brief" }, { type: "text", text: "be kind" }] },
    {
      role: "user",
      parts: [
        { type: "text", text: "see" },
        { type: "image", url: `data:image/png;base64,${PNG}` },
        { type: "image", url: "https://images.example/a.png" },
      ],
    },
    {
      role: "assistant",
      parts: [{ type: "text", text: "look" }],
      toolCalls: [
        { id: "t1", name: "weather", arguments: '{"city":"Ulm"}' },
        { id: "t2", name: "weather", arguments: "{}" },
        { id: "t3", name: "weather", arguments: '{"city":"Ulm"}' },
      ],
    },
    { role: "tool", toolCallId: "t2", parts: [{ type: "text", text: "no such city" }], failed: true },
    {
      role: "tool",
      toolCallId: "t1",
      parts: [{ type: "text", text: "sunny" }, { type: "image", url: `data:image/png;base64,${PNG}` }],
    },
    { role: "tool", toolCallId: "t3", parts: [] },
    { role: "user", parts: [{ type: "text", text: "so?" }] },
    { role: "system", parts: [{ type: "text", text: "be quick" }] },
    { role: "assistant", parts: [{ type: "text", text: "Well," }], toolCalls: [] },
  ]);
});

Deno.test("a plain request has nothing in its neutral form that the caller did not say", async () => {
  deepStrictEqual(await neutral({ system: "" }), {
    task: "chat",
    messages: [{ role: "user", parts: [{ type: "text", text: "hello" }] }],
    tools: [],
    outputTokensMax: 2000,
    stop: [],
    choices: 1,
    extra: {},
  });
});

Deno.test("sampling, tools and format reach the door in the neutral form", async () => {
  const schema = { type: "object" };
  const { messages: _, ...request } = await neutral({
    temperature: 0.5,
    top_p: 0.9,
    top_k: 40,
    stop_sequences: ["END"],
    tools: [{ ...WEATHER, type: "custom", strict: true, eager_input_streaming: true, ...CACHED }],
    tool_choice: { type: "any", disable_parallel_tool_use: true },
    output_config: { effort: "max", format: { type: "json_schema", schema } },
    metadata: { user_id: "u" },
    service_tier: "standard_only",
    min_p: 0.1,
    ...CACHED,
  });
  deepStrictEqual(request, {
    task: "chat",
    tools: [{ name: "weather", description: "Tells.", parameters: WEATHER.input_schema, strict: true }],
    outputTokensMax: 2000,
    stop: ["END"],
    choices: 1,
    extra: { min_p: 0.1 },
    temperature: 0.5,
    topP: 0.9,
    topK: 40,
    toolChoice: "required",
    parallelToolCalls: false,
    responseFormat: { type: "json_schema", name: "answer", schema, strict: true },
    reasoningEffort: "high",
  });
});

Deno.test("each choice of tools has its neutral form, and none without tools", async () => {
  const choiceOf = async (tool_choice: object, tools: object[] = [WEATHER]) =>
    (await neutral({ tools, tool_choice })).toolChoice;
  strictEqual(await choiceOf({ type: "auto" }), "auto");
  strictEqual(await choiceOf({ type: "none" }), "none");
  deepStrictEqual(await choiceOf({ type: "tool", name: "weather" }), { name: "weather" });
  strictEqual(await choiceOf({ type: "auto" }, []), undefined);
});

Deno.test("thinking and effort become an effort of reasoning", async () => {
  const effortOf = async (thinking?: object, effort?: string) =>
    (await neutral({
      max_tokens: 50_000,
      ...(thinking === undefined ? {} : { thinking }),
      ...(effort === undefined ? {} : { output_config: { effort } }),
    })).reasoningEffort;
  strictEqual(await effortOf(), undefined);
  strictEqual(await effortOf(undefined, "low"), "low");
  strictEqual(await effortOf(undefined, "xhigh"), "high");
  strictEqual(await effortOf({ type: "disabled" }, "high"), "none");
  strictEqual(await effortOf({ type: "enabled", budget_tokens: 1024 }), "low");
  strictEqual(await effortOf({ type: "enabled", budget_tokens: 4096 }), "medium");
  strictEqual(await effortOf({ type: "enabled", budget_tokens: 16_384 }, "low"), "high");
  strictEqual(await effortOf({ type: "adaptive" }), "medium");
  strictEqual(await effortOf({ type: "adaptive", display: "omitted" }, "medium"), "medium");
});

Deno.test("the older name of the format is understood", async () => {
  const { responseFormat } = await neutral({
    output_format: { type: "json_schema", schema: { type: "object" } },
  });
  strictEqual(responseFormat?.type, "json_schema");
});

Deno.test("mistakes found below the door are placed in Anthropic's fields", async () => {
  const fake = fakeDoor();
  await fake.send("/v1/messages", bodyWith());
  const placed = ["/outputTokensMax", "/stop", "/images", "/tools", "/tools/3", "/temperature", "/choices"];
  deepStrictEqual(placed.map((path) => fake.place?.(path)), [
    "/max_tokens",
    "/stop_sequences",
    "/messages",
    "/tools",
    "/tools/3",
    "/temperature",
    "",
  ]);
});

const user = (...content: unknown[]) => ({ messages: [{ role: "user", content }] });
const assistant = (...content: unknown[]) => ({ messages: [...HELLO, { role: "assistant", content }] });
const results = (...content: unknown[]) => ({
  messages: [...HELLO, { role: "assistant", content: [CALL] }, { role: "user", content }],
});
const RESULT = { type: "tool_result", tool_use_id: "t1", content: "x" };

/** What is refused, and the beginning of the refusal. */
const REFUSALS: readonly (readonly [name: string, fields: object, refusal: string])[] = [
  ["no max_tokens", { max_tokens: undefined }, "/max_tokens "],
  ["max_tokens of 0", { max_tokens: 0 }, "/max_tokens "],
  ["a fraction of a token", { max_tokens: 1.5 }, "/max_tokens "],
  ["no model", { model: undefined }, "/model "],
  ["no messages", { messages: [] }, "/messages has no messages"],
  ["messages of another type", { messages: "hello" }, "/messages "],
  [
    "an unknown role",
    { messages: [{ role: "tool", content: "x" }] },
    "/messages/0/role is not user, assistant or",
  ],
  ["an unknown field", { topp: 1 }, "/topp is not a known field"],
  ["a field of another dialect", { n: 2 }, "/n is not a known field"],
  [
    "an unknown field in a message",
    { messages: [{ ...HELLO[0], name: "x" }] },
    "/messages/0/name is not a known",
  ],
  ["an empty text", { messages: [{ role: "user", content: "" }] }, "/messages/0/content is empty"],
  ["no blocks", user(), "/messages/0/content has no blocks"],
  [
    "content of another type",
    { messages: [{ role: "user", content: 3 }] },
    "/messages/0/content is neither a text",
  ],
  ["an empty block of text", user({ type: "text", text: "" }), "/messages/0/content/0/text is empty"],
  [
    "an unknown field in a block",
    user({ type: "text", text: "a", x: 1 }),
    "/messages/0/content/0/x is not a known",
  ],
  [
    "citations",
    user({ type: "text", text: "a", citations: [{}] }),
    "/messages/0/content/0/citations cannot be",
  ],
  ["a document", user({ type: "document", source: {} }), "/messages/0/content/0/type is no kind of block"],
  ["a search result", user({ type: "search_result" }), "/messages/0/content/0/type is no kind of block"],
  [
    "a container upload",
    user({ type: "container_upload" }),
    "/messages/0/content/0/type is no kind of block",
  ],
  ["a tool_use of the user", user(CALL), "/messages/0/content/0/type is no kind of block"],
  ["an image of the assistant", assistant(png), "/messages/1/content/0/type is no kind of block"],
  [
    "a server tool's use",
    assistant({ type: "server_tool_use" }),
    "/messages/1/content/0/type is no kind of block",
  ],
  [
    "a server tool's result",
    assistant({ type: "web_search_tool_result" }),
    "/messages/1/content/0/type is no kind of block that is taken here: text, tool_use, thinking or redacted_thinking",
  ],
  [
    "input that is no object",
    assistant({ ...CALL, input: [] }),
    "/messages/1/content/0/input is no JSON object",
  ],
  [
    "a call by code",
    assistant({ ...CALL, caller: { type: "code_execution" } }),
    "/messages/1/content/0/caller/type is",
  ],
  ["two calls of one id", assistant(CALL, CALL), "/messages/1/content/1/id is the id of another tool_use"],
  [
    "thinking of the user",
    user({ type: "thinking", thinking: "", signature: "" }),
    "/messages/0/content/0/type is no",
  ],
  [
    "nothing but thinking",
    { messages: [{ role: "assistant", content: [{ type: "thinking", thinking: "x", signature: "" }] }] },
    "/messages holds nothing but thinking",
  ],
  [
    "a result without a call",
    user(RESULT),
    "/messages/0/content/0/tool_use_id is the id of no earlier tool_use",
  ],
  [
    "two results of one call",
    results(RESULT, RESULT),
    "/messages/2/content/1/tool_use_id has a result already",
  ],
  [
    "a result behind a text",
    results({ type: "text", text: "a" }, RESULT),
    "/messages/2/content/1 stands behind other blocks",
  ],
  [
    "a document as a result",
    results({ ...RESULT, content: [{ type: "document" }] }),
    "/messages/2/content/0/content/0/type is no kind of block",
  ],
  [
    "base64 that is none",
    user(image({ type: "base64", media_type: "image/png", data: "iVBORw0KGgo" })),
    "/messages/0/content/0/source/data is no valid base64",
  ],
  [
    "an image of another type than it says",
    user(image({ type: "base64", media_type: "image/jpeg", data: PNG })),
    "/messages/0/content/0/source/data is no jpeg image",
  ],
  [
    "a picture that runs scripts",
    user(image({ type: "base64", media_type: "image/svg+xml", data: PNG })),
    "/messages/0/content/0/source/media_type ",
  ],
  [
    "an image at a strange host",
    user(image({ type: "url", url: "https://evil.example/a.png" })),
    "/messages/0/content/0/source/url is at a host",
  ],
  [
    "an image inside",
    user(image({ type: "url", url: "http://169.254.169.254/" })),
    "/messages/0/content/0/source/url is no plain https address",
  ],
  [
    "an image in a file",
    user(image({ type: "file", file_id: "f" })),
    "/messages/0/content/0/source/type is no source of images",
  ],
  ["a system of numbers", { system: [3] }, "/system/0 "],
  ["an image in the system", { system: [png] }, "/system/0/type "],
  ["a temperature above 1", { temperature: 1.1 }, "/temperature "],
  ["a top_p above 1", { top_p: 2 }, "/top_p "],
  ["a top_k below 0", { top_k: -1 }, "/top_k "],
  ["an empty stop sequence", { stop_sequences: [""] }, "/stop_sequences/0 is empty"],
  ["a stop sequence that is no list", { stop_sequences: "a" }, "/stop_sequences "],
  [
    "a server tool",
    { tools: [{ type: "web_search_20250305", name: "web_search" }] },
    "/tools/0/type is not custom: this server runs no tools",
  ],
  ["a tool's name with spaces", { tools: [{ ...WEATHER, name: "a b" }] }, "/tools/0/name is not 1 to 128"],
  ["a tool without a schema", { tools: [{ name: "a" }] }, "/tools/0/input_schema is no JSON object"],
  [
    "a schema of a list",
    { tools: [{ name: "a", input_schema: { type: "array" } }] },
    "/tools/0/input_schema is no JSON Sc",
  ],
  [
    "an unknown field of a tool",
    { tools: [{ ...WEATHER, defer_loading: true }] },
    "/tools/0/defer_loading is not a",
  ],
  ["two tools of one name", { tools: [WEATHER, WEATHER] }, "/tools/1/name is the name of another tool"],
  [
    "a choice without tools",
    { tool_choice: { type: "any" } },
    "/tool_choice asks for a tool and there is none",
  ],
  [
    "a choice of no tool",
    { tools: [WEATHER], tool_choice: { type: "tool", name: "other" } },
    "/tool_choice/name is the name of no tool",
  ],
  [
    "an unknown choice",
    { tool_choice: { type: "required" } },
    "/tool_choice/type is not auto, any, tool or none",
  ],
  ["thinking without a budget", { thinking: { type: "enabled" } }, "/thinking/budget_tokens "],
  [
    "a budget too small",
    { thinking: { type: "enabled", budget_tokens: 1023 } },
    "/thinking/budget_tokens is less than 1024",
  ],
  [
    "a budget above max_tokens",
    { thinking: { type: "enabled", budget_tokens: 2000 } },
    "/thinking/budget_tokens is not less than max_tokens",
  ],
  [
    "unknown thinking",
    { thinking: { type: "between_tools" } },
    "/thinking/type is not disabled, enabled or adaptive",
  ],
  ["an unknown effort", { output_config: { effort: "huge" } }, "/output_config/effort "],
  [
    "a format that is no schema",
    { output_config: { format: { type: "text" } } },
    "/output_config/format/type is not",
  ],
  [
    "two formats",
    {
      output_config: { format: { type: "json_schema", schema: {} } },
      output_format: { type: "json_schema", schema: {} },
    },
    "/output_format says the same as output_config.format",
  ],
  ["a user of many letters", { metadata: { user_id: "x".repeat(513) } }, "/metadata/user_id "],
  ["other metadata", { metadata: { team: "x" } }, "/metadata/team is not a known field"],
  ["an unknown tier", { service_tier: "priority" }, "/service_tier "],
  ["a cache that is not ephemeral", { cache_control: { type: "persistent" } }, "/cache_control/type "],
  [
    "a cache of another age",
    user({ type: "text", text: "a", cache_control: { type: "ephemeral", ttl: "1d" } }),
    "/messages/0/content/0/cache_control/ttl ",
  ],
  ["stream as a text", { stream: "yes" }, "/stream "],
];

for (const [name, fields, expected] of REFUSALS) {
  Deno.test(`a body is refused with its place: ${name}`, async () => {
    const refusals = await refusalOf(fields);
    ok(
      refusals.some((refusal) => refusal.startsWith(expected)),
      `${expected} not in ${JSON.stringify(refusals)}`,
    );
  });
}

Deno.test("no refusal repeats what the caller wrote, but the names of fields", async () => {
  const secret = "s3cr3t";
  const bodies = [
    user({ type: secret }),
    user(image({ type: "base64", media_type: "image/png", data: secret })),
    user(image({ type: "url", url: `https://${secret}.example/` })),
    { thinking: { type: secret } },
    { tool_choice: { type: "tool", name: secret } },
  ];
  for (const fields of bodies) {
    const [first = ""] = await refusalOf(fields);
    match(first, /^\//);
    ok(!first.includes(secret), first);
  }
});
