// Tests of chat over the OpenAI wire: the exact request, and the answers of the engines read whole.
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import type { ChatAnswer } from "../../../../src/engines/chat.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import { bodyOf, chatRequest, jsonAnswer, OPTIONS, refuses } from "./wire_calls.ts";

const TOOL = { name: "weather", description: "Weather of a place", parameters: { type: "object" } } as const;

function read(body: unknown, besides: Parameters<typeof chatRequest>[0] = {}): ChatAnswer {
  return openaiWire.whole<"chat">(chatRequest(besides), OPTIONS).read(jsonAnswer(body));
}

Deno.test("a small chat is the model, the messages and nothing else", () => {
  const { request } = openaiWire.whole<"chat">(chatRequest(), OPTIONS);
  strictEqual(request.path, "/chat/completions");
  deepStrictEqual(request.accept, ["application/json"]);
  strictEqual(request.body, '{"model":"upstream-model","messages":[{"role":"user","content":"Hello"}]}');
});

Deno.test("a chat with everything is written in OpenAI's names", () => {
  const call = openaiWire.stream<"chat">(
    chatRequest({
      messages: [
        { role: "system", parts: [{ type: "text", text: "Be kind." }, { type: "text", text: "Be brief." }] },
        {
          role: "user",
          name: "ann",
          parts: [
            { type: "text", text: "What is this?" },
            { type: "image", url: "data:image/png;base64,AAAA", detail: "low" },
            { type: "audio", data: "AAAA", format: "wav" },
          ],
        },
        { role: "user", parts: [{ type: "image", url: "data:image/png;base64,BBBB" }] },
        { role: "assistant", parts: [], toolCalls: [{ id: "call_1", name: "weather", arguments: "{}" }] },
        {
          role: "tool",
          toolCallId: "call_1",
          parts: [{ type: "text", text: "no such place" }],
          failed: true,
        },
        { role: "assistant", parts: [], refusal: "I will not.", toolCalls: [] },
        {
          role: "assistant",
          parts: [{ type: "text", text: "Wait" }],
          toolCalls: [{ id: "call_2", name: "weather", arguments: '{"a":1}' }],
        },
        { role: "tool", toolCallId: "call_2", parts: [] },
      ],
      tools: [TOOL, { name: "clock", strict: true }],
      toolChoice: { name: "weather" },
      parallelToolCalls: false,
      responseFormat: { type: "json_schema", name: "reply", schema: { type: "object" }, strict: true },
      reasoningEffort: "low",
      outputTokensMax: 64,
      temperature: 0,
      topP: 0.5,
      topK: 40,
      stop: ["END"],
      choices: 2,
      seed: 7,
      presencePenalty: 0.1,
      frequencyPenalty: 0.2,
      logitBias: { "50256": -100 },
      logprobs: 3,
      extra: { min_p: 0.1 },
    }),
    OPTIONS,
  );
  deepStrictEqual(call.request.accept, ["text/event-stream"]);
  strictEqual(call.framing, "events");
  deepStrictEqual(bodyOf(call.request), {
    model: "upstream-model",
    messages: [
      { role: "system", content: [{ type: "text", text: "Be kind." }, { type: "text", text: "Be brief." }] },
      {
        role: "user",
        name: "ann",
        content: [
          { type: "text", text: "What is this?" },
          { type: "image_url", image_url: { url: "data:image/png;base64,AAAA", detail: "low" } },
          { type: "input_audio", input_audio: { data: "AAAA", format: "wav" } },
        ],
      },
      { role: "user", content: [{ type: "image_url", image_url: { url: "data:image/png;base64,BBBB" } }] },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: "call_1", type: "function", function: { name: "weather", arguments: "{}" } }],
      },
      { role: "tool", tool_call_id: "call_1", content: "no such place" },
      { role: "assistant", content: "", refusal: "I will not." },
      {
        role: "assistant",
        content: "Wait",
        tool_calls: [{ id: "call_2", type: "function", function: { name: "weather", arguments: '{"a":1}' } }],
      },
      { role: "tool", tool_call_id: "call_2", content: "" },
    ],
    tools: [
      { type: "function", function: TOOL },
      {
        type: "function",
        function: { name: "clock", parameters: { type: "object", properties: {} }, strict: true },
      },
    ],
    tool_choice: { type: "function", function: { name: "weather" } },
    parallel_tool_calls: false,
    response_format: {
      type: "json_schema",
      json_schema: { name: "reply", schema: { type: "object" }, strict: true },
    },
    reasoning_effort: "low",
    logprobs: true,
    top_logprobs: 3,
    max_tokens: 64,
    temperature: 0,
    top_p: 0.5,
    top_k: 40,
    stop: ["END"],
    n: 2,
    seed: 7,
    presence_penalty: 0.1,
    frequency_penalty: 0.2,
    logit_bias: { "50256": -100 },
    stream: true,
    stream_options: { include_usage: true },
    min_p: 0.1,
  });
});

Deno.test("a stream asks for no figures where the upstream would not understand", () => {
  const { request } = openaiWire.stream<"chat">(chatRequest(), { ...OPTIONS, usageInStreams: false });
  const body = bodyOf(request) as Record<string, unknown>;
  strictEqual(body.stream, true);
  strictEqual("stream_options" in body, false);
});

Deno.test("fields that are let through never stand for a field of ours, sent or not", () => {
  const ours = {
    model: "other",
    messages: [],
    n: 99,
    max_tokens: 1e6,
    max_completion_tokens: 1e6,
    stream: true,
    stream_options: {},
    tools: [],
    tool_choice: "required",
    logprobs: true,
    functions: [],
  };
  const { request } = openaiWire.whole<"chat">(chatRequest({ extra: { ...ours, top_a: 1 } }), OPTIONS);
  deepStrictEqual(bodyOf(request), {
    model: "upstream-model",
    messages: [{ role: "user", content: "Hello" }],
    top_a: 1,
  });
});

Deno.test("a tool choice without tools is not sent", () => {
  const { request } = openaiWire.whole<"chat">(
    chatRequest({ toolChoice: "none", parallelToolCalls: true }),
    OPTIONS,
  );
  deepStrictEqual(Object.keys(bodyOf(request) as object), ["model", "messages"]);
});

Deno.test("OpenAI's answer is read: refusal null, details of the usage, a tool call", () => {
  deepStrictEqual(
    read({
      id: "chatcmpl-1",
      object: "chat.completion",
      created: 1741570283,
      model: "gpt-5",
      choices: [{
        index: 0,
        message: {
          role: "assistant",
          content: null,
          refusal: null,
          annotations: [],
          tool_calls: [{
            id: "call_abc",
            type: "function",
            function: { name: "weather", arguments: '{"place":"Bern"}' },
          }],
        },
        logprobs: null,
        finish_reason: "tool_calls",
      }],
      usage: {
        prompt_tokens: 82,
        completion_tokens: 17,
        total_tokens: 99,
        prompt_tokens_details: { cached_tokens: 64, audio_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 5, accepted_prediction_tokens: 0 },
      },
      service_tier: "default",
    }),
    {
      choices: [{
        text: "",
        reasoning: "",
        toolCalls: [{ id: "call_abc", name: "weather", arguments: '{"place":"Bern"}' }],
        finish: "tool_calls",
      }],
      usage: {
        inputTokens: 82,
        outputTokens: 17,
        cachedInputTokens: 64,
        reasoningTokens: 5,
        countedBy: "engine",
      },
    },
  );
});

Deno.test("vLLM's answer is read: reasoning, a stop sequence, details that are null, a named tool that 'stops'", () => {
  const body = {
    id: "chatcmpl-9",
    object: "chat.completion",
    choices: [{
      index: 0,
      message: {
        role: "assistant",
        content: "42",
        refusal: null,
        function_call: null,
        tool_calls: [],
        reasoning: "six by seven",
        reasoning_content: "six by seven",
      },
      logprobs: null,
      finish_reason: "stop",
      stop_reason: "END",
      token_ids: null,
    }],
    usage: { prompt_tokens: 9, total_tokens: 12, completion_tokens: 3, prompt_tokens_details: null },
    prompt_logprobs: null,
    kv_transfer_params: null,
  };
  deepStrictEqual(read(body, { stop: ["END"] }), {
    choices: [{ text: "42", reasoning: "six by seven", toolCalls: [], finish: "stop", stopSequence: "END" }],
    usage: { inputTokens: 9, outputTokens: 3, countedBy: "engine" },
  });
  strictEqual(read(body).choices[0]?.stopSequence, undefined, "a sequence that nobody asked for");
  const named = {
    choices: [{
      index: 0,
      message: { content: "", tool_calls: [{ id: "a", function: { name: "f", arguments: "{}" } }] },
      finish_reason: "stop",
    }],
  };
  strictEqual(read(named).choices[0]?.finish, "tool_calls");
});

Deno.test("Ollama's and llama.cpp's tool calls are read: arguments as an object, no id, no arguments", () => {
  const { toolCalls, finish } = read({
    choices: [{
      message: {
        role: "assistant",
        content: "",
        tool_calls: [
          { index: 0, function: { name: "weather", arguments: { place: "Bern" } } },
          { id: "", function: { name: "clock", arguments: null } },
        ],
      },
      finish_reason: null,
    }],
    usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 },
  }).choices[0] ?? { toolCalls: [] };
  deepStrictEqual(toolCalls.map(({ name, arguments: text }) => [name, text]), [
    ["weather", '{"place":"Bern"}'],
    ["clock", "{}"],
  ]);
  for (const { id } of toolCalls) match(id, /^call_[0-9a-f]{24}$/);
  strictEqual(new Set(toolCalls.map(({ id }) => id)).size, 2);
  strictEqual(finish, "tool_calls");
});

Deno.test("content in parts is joined, thinking parts apart", () => {
  const { choices: [choice] } = read({
    choices: [{
      index: 0,
      message: {
        content: [
          { type: "thinking", thinking: [{ type: "text", text: "hm" }, { type: "text", text: "m" }] },
          { type: "text", text: "An" },
          "swer",
          { type: "reference", ids: [1] },
        ],
      },
      finish_reason: "stop",
    }],
  });
  deepStrictEqual([choice?.text, choice?.reasoning], ["Answer", "hmm"]);
});

Deno.test("choices come in order of their indexes; an engine that knows no n may answer one", () => {
  const choice = (index: number, content: string) => ({ index, message: { content }, finish_reason: "stop" });
  const texts = (body: unknown) => read(body, { choices: 3 }).choices.map(({ text }) => text);
  deepStrictEqual(texts({ choices: [choice(2, "c"), choice(0, "a"), choice(1, "b")] }), ["a", "b", "c"]);
  deepStrictEqual(texts({ choices: [choice(0, "a")] }), ["a"]);
  refuses(() => texts({ choices: [choice(0, "a"), choice(0, "b")] }));
  refuses(() => texts({ choices: [choice(1, "a")] }));
});

Deno.test("every word for the end of an answer has a meaning, unknown ones that the model was done", () => {
  const words: [unknown, string][] = [
    ["stop", "stop"],
    ["eos", "stop"],
    ["stop_sequence", "stop"],
    ["end_turn", "stop"],
    ["length", "length"],
    ["max_tokens", "length"],
    ["tool_calls", "tool_calls"],
    ["function_call", "tool_calls"],
    ["content_filter", "content_filter"],
    ["abort", "stop"],
    ["", "stop"],
    [null, "stop"],
    [undefined, "stop"],
  ];
  for (const [word, finish] of words) {
    const body = { choices: [{ index: 0, message: { content: "x" }, finish_reason: word }] };
    strictEqual(read(body).choices[0]?.finish, finish, String(word));
  }
});

Deno.test("log probabilities are passed on where they were asked for", () => {
  const logprobs = {
    content: [{ token: "x", logprob: -0.1, bytes: [120], top_logprobs: [] }],
    refusal: null,
  };
  const body = { choices: [{ index: 0, message: { content: "x" }, finish_reason: "stop", logprobs }] };
  deepStrictEqual(read(body, { logprobs: 0 }).choices[0]?.logprobs, logprobs);
  strictEqual(read(body).choices[0]?.logprobs, undefined);
});

Deno.test("an answer without figures, or with nothing but zeros, is counted by estimate", () => {
  const estimate = { inputTokens: 0, outputTokens: 0, countedBy: "estimate" };
  const choices = [{ index: 0, message: { content: "x" }, finish_reason: "stop" }];
  for (
    const usage of [undefined, null, {}, { prompt_tokens: null }, { prompt_tokens: 0, completion_tokens: 0 }]
  ) {
    deepStrictEqual(read({ choices, usage }).usage, estimate);
  }
});

Deno.test("a malformed answer is refused, and nothing of it is quoted", () => {
  const good = { index: 0, message: { content: "SECRET" }, finish_reason: "stop" };
  const call = (call: unknown) => ({ ...good, message: { content: null, tool_calls: [call] } });
  const deep = JSON.parse(`${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`);
  const bodies: Record<string, unknown> = {
    "a list": [good],
    "null": null,
    "a text": "SECRET",
    "no choices": { id: "SECRET" },
    "choices null": { choices: null },
    "no choice": { choices: [] },
    "two choices": { choices: [good, { ...good, index: 1 }] },
    "a choice twice": { choices: [good, good] },
    "an index below 0": { choices: [{ ...good, index: -1 }] },
    "an index beyond": { choices: [{ ...good, index: 1 }] },
    "an index in parts": { choices: [{ ...good, index: 0.5 }] },
    "an index as text": { choices: [{ ...good, index: "0" }] },
    "a choice null": { choices: [null] },
    "no message": { choices: [{ index: 0, finish_reason: "stop" }] },
    "a message as text": { choices: [{ ...good, message: "SECRET" }] },
    "content as a number": { choices: [{ ...good, message: { content: 5 } }] },
    "content as an object": { choices: [{ ...good, message: { content: {} } }] },
    "a part as a number": { choices: [{ ...good, message: { content: [5] } }] },
    "a part's text as a number": {
      choices: [{ ...good, message: { content: [{ type: "text", text: 5 }] } }],
    },
    "reasoning as an object": { choices: [{ ...good, message: { content: "", reasoning: {} } }] },
    "a refusal as a list": { choices: [{ ...good, message: { refusal: [] } }] },
    "a finish reason as a number": { choices: [{ ...good, finish_reason: 1 }] },
    "tool calls as an object": { choices: [{ ...good, message: { tool_calls: {} } }] },
    "a tool call null": { choices: [call(null)] },
    "a tool call without a function": { choices: [call({ id: "a" })] },
    "a tool call without a name": { choices: [call({ id: "a", function: { arguments: "{}" } })] },
    "a tool call's id as a number": { choices: [call({ id: 1, function: { name: "f" } })] },
    "arguments as a list": { choices: [call({ id: "a", function: { name: "f", arguments: [] } })] },
    "arguments too deep": { choices: [call({ id: "a", function: { name: "f", arguments: deep } })] },
    "129 tool calls": {
      choices: [{
        ...good,
        message: { tool_calls: Array(129).fill({ function: { name: "f", arguments: "" } }) },
      }],
    },
    "logprobs too deep": { choices: [{ ...good, logprobs: deep }] },
    "logprobs as a list": { choices: [{ ...good, logprobs: [] }] },
    "usage as a list": { choices: [good], usage: [] },
    "tokens below 0": { choices: [good], usage: { prompt_tokens: -1 } },
    "tokens in parts": { choices: [good], usage: { prompt_tokens: 1.5 } },
    "tokens as text": { choices: [good], usage: { prompt_tokens: "5" } },
    "tokens beyond all sense": { choices: [good], usage: { prompt_tokens: 1e15, completion_tokens: 1 } },
    "details as a number": { choices: [good], usage: { prompt_tokens: 1, prompt_tokens_details: 5 } },
    "an error": { error: { message: "SECRET", code: "context_length_exceeded" }, choices: [good] },
    "an error as text": { error: "SECRET" },
    "vLLM's older error": { object: "error", message: "SECRET", code: 400 },
  };
  for (const [about, body] of Object.entries(bodies)) {
    refuses(() => read(body, { logprobs: 1 }), "upstream_answer_invalid", about);
  }
});

Deno.test("bytes that are no UTF-8 or no JSON are refused", () => {
  const { read } = openaiWire.whole<"chat">(chatRequest(), OPTIONS);
  const answer = { mediaType: "application/json", headers: new Headers() };
  for (
    const bytes of [
      [],
      [0xff],
      [0xef, 0xbb, 0xbf, 0x7b, 0x7d],
      [..."<html>SECRET"].map((c) => c.charCodeAt(0)),
    ]
  ) {
    refuses(() => read({ ...answer, bytes: Uint8Array.from(bytes) }));
  }
});
