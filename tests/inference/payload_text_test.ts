// Tests of payloads as text: words stay words, and of media nothing but digest and size is left.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import type { ChatEvent, ChatRequest } from "../../src/engines/chat.ts";
import type { TaskRequest, WholeAnswer, WholeTask } from "../../src/engines/task.ts";
import { textBytes } from "../../src/engines/tensor_data.ts";
import { answerText, requestText } from "../../src/inference/payload_text.ts";
import { SentAnswer } from "../../src/inference/sent_answer.ts";
import { CHAT } from "./gateway_under_test.ts";

const MEDIA = new Uint8Array(3000).map((_, index) => index * 7 % 256);
const BASE64 = MEDIA.toBase64();
const DIGEST = { sha256: createHash("sha256").update(MEDIA).digest("hex"), bytes: 3000 };
const USAGE = { inputTokens: 1, outputTokens: 1, countedBy: "engine" } as const;
const request = (of: TaskRequest) => JSON.parse(requestText(of));
const answer = <T extends WholeTask>(task: T, of: WholeAnswer<T>) => JSON.parse(answerText(task, of));

Deno.test("a conversation is kept word by word; its pictures and sounds are digests, and an address of a picture stays", () => {
  const chat: ChatRequest = {
    ...CHAT,
    messages: [
      {
        role: "user",
        parts: [
          { type: "text", text: "what is this?" },
          { type: "image", url: `data:image/png;base64,${BASE64}`, detail: "low" },
          { type: "image", url: "https://images.example.com/a.png" },
          { type: "audio", data: BASE64, format: "wav" },
        ],
      },
      { role: "assistant", parts: [], toolCalls: [{ id: "c", name: "f", arguments: '{"a":1}' }] },
      { role: "tool", toolCallId: "c", parts: [{ type: "image", url: `data:image/gif;base64,${BASE64}` }] },
    ],
    tools: [{ name: "f", description: "does", parameters: { type: "object" } }],
  };
  const kept = request(chat);
  ok(!requestText(chat).includes(BASE64.slice(0, 40)));
  deepStrictEqual(kept.messages[0].parts, [
    { type: "text", text: "what is this?" },
    { type: "image", detail: "low", mediaType: "image/png", ...DIGEST },
    { type: "image", url: "https://images.example.com/a.png" },
    { type: "audio", format: "wav", ...DIGEST },
  ]);
  deepStrictEqual(kept.messages[1], chat.messages[1]);
  deepStrictEqual(kept.messages[2].parts, [{ type: "image", mediaType: "image/gif", ...DIGEST }]);
  deepStrictEqual([kept.task, kept.tools], ["chat", chat.tools]);
});

Deno.test("no picture that is named by its own data is kept, in whatever form it is", () => {
  const kept = (url: string) =>
    request({ ...CHAT, messages: [{ role: "user", parts: [{ type: "image", url }] }] }).messages[0].parts[0];
  const ofText = (text: string) => ({
    sha256: createHash("sha256").update(text).digest("hex"),
    bytes: new TextEncoder().encode(text).length,
  });
  const svg = "<svg>a secret, and another</svg>";
  for (
    const [url, mediaType, digest] of [
      [`data:image/png;charset=utf-8;base64,${BASE64}`, "image/png;charset=utf-8", DIGEST],
      [`DATA:image/png;BASE64,${BASE64}`, "image/png", DIGEST],
      [`data:;base64,${BASE64}`, "", DIGEST],
      [`data:image/${"x".repeat(200)};base64,${BASE64}`, `image/${"x".repeat(94)}`, DIGEST],
      [`data:image/svg+xml,${svg}`, "image/svg+xml", ofText(svg)],
      [`data:image/svg+xml;utf8,${svg}`, "image/svg+xml;utf8", ofText(svg)],
      [`data:image/png;base64${BASE64.slice(0, 400)}`, "", ofText(`image/png;base64${BASE64.slice(0, 400)}`)],
      [` data:image/png;base64,${BASE64}`, "image/png", DIGEST],
    ] as const
  ) deepStrictEqual(kept(url), { type: "image", mediaType, ...digest }, url.slice(0, 40));
});

Deno.test("other requests: texts stay, raw numbers are digests, raw texts are read, and sound that passes is not there", () => {
  const texts: TaskRequest = { task: "embedding", texts: ["a", "b"] };
  deepStrictEqual(request(texts), texts);
  const completion: TaskRequest = {
    task: "completion",
    prompts: ["once"],
    stop: [],
    choices: 1,
    extra: { top_k: 3 },
  };
  deepStrictEqual(request(completion), completion);
  const file = { name: "audio.wav", mediaType: "audio/wav", bytes: new ReadableStream<Uint8Array>() };
  deepStrictEqual(
    request({ task: "transcription", file, prompt: "names", format: "json", timestampGranularities: [] }),
    {
      task: "transcription",
      file: { name: "audio.wav", mediaType: "audio/wav" },
      prompt: "names",
      format: "json",
      timestampGranularities: [],
    },
  );
  const words = ["one", "zwei ü"];
  const kept = request({
    task: "tensor",
    inputs: [
      { name: "t", datatype: "BYTES", shape: [2], data: { bytes: textBytes(words) } },
      { name: "j", datatype: "FP32", shape: [1], data: { json: [0.5] } },
      { name: "r", datatype: "UINT8", shape: [3000], data: { bytes: MEDIA } },
    ],
    outputs: [],
    binaryOutputs: false,
  });
  deepStrictEqual(kept.inputs.map(({ data }: { data: unknown }) => data), [words, [0.5], DIGEST]);
  const broken = new Uint8Array([1, 0, 0, 0, 0xff]);
  const { inputs } = request({
    task: "tensor",
    inputs: [{ name: "t", datatype: "BYTES", shape: [1], data: { bytes: broken } }],
    outputs: [],
    binaryOutputs: false,
  });
  strictEqual(inputs[0].data.bytes, 5);
});

Deno.test("answers: without the figures, vectors and pictures as digests", () => {
  const choices = [{ text: "hi", reasoning: "", toolCalls: [], finish: "stop" as const }];
  deepStrictEqual(answer("chat", { choices, usage: USAGE }), { choices });
  const vectors = new Float32Array(MEDIA.buffer, 0, 750);
  deepStrictEqual(answer("embedding", { vectors, dimensions: 750, usage: USAGE }), {
    vectors: DIGEST,
    dimensions: 750,
  });
  deepStrictEqual(
    answer("image", {
      createdSeconds: 1,
      images: [{ base64: BASE64, revisedPrompt: "a house" }, { base64: "no base64!" }],
      usage: USAGE,
    }),
    {
      images: [
        { ...DIGEST, revisedPrompt: "a house" },
        { sha256: createHash("sha256").update("no base64!").digest("hex"), bytes: 10 },
      ],
    },
  );
  deepStrictEqual(answer("transcription", { content: { text: "said" }, usage: USAGE }), { text: "said" });
  const results = [{ index: 0, score: 0.5 }];
  deepStrictEqual(answer("rerank", { results, usage: USAGE }), { results });
  const raw = { name: "y", datatype: "FP32", shape: [750], data: { bytes: MEDIA } } as const;
  deepStrictEqual(answer("tensor", { outputs: [raw] }).outputs[0].data, DIGEST);
});

Deno.test("property: an answer in pieces is put together to what was sent, choice by choice", () => {
  const piece = fc.record({
    type: fc.constantFrom("text" as const, "reasoning" as const, "refusal" as const),
    choice: fc.integer({ min: 0, max: 2 }),
    text: fc.string(),
  });
  fc.assert(fc.property(fc.array(fc.array(piece)), (batches) => {
    const sent = new SentAnswer();
    for (const batch of batches) sent.add(batch);
    const all = batches.flat();
    const joined = (choice: number, type: string) =>
      all.filter((each) => each.choice === choice && each.type === type).map(({ text }) => text).join("");
    const used = [...new Set(all.map(({ choice }) => choice))].sort();
    const text = sent.text();
    strictEqual(text === undefined, all.length === 0);
    if (text === undefined) return;
    for (const [at, choice] of JSON.parse(text).choices.entries()) {
      const of = used[at] ?? -1;
      deepStrictEqual(
        [choice.text, choice.reasoning, choice.refusal ?? ""],
        [joined(of, "text"), joined(of, "reasoning"), joined(of, "refusal")],
      );
    }
    strictEqual(sent.cut, false);
  }));
});

Deno.test("calls of tools, the reason of the end and sound in pieces are kept; figures are not", () => {
  const sent = new SentAnswer();
  const events: ChatEvent[] = [
    { type: "tool_call", choice: 0, index: 0, id: "c1", name: "f", arguments: '{"a"' },
    { type: "tool_call", choice: 0, index: 0, arguments: ":1}" },
    { type: "finish", choice: 0, reason: "tool_calls" },
    { type: "usage", usage: USAGE },
  ];
  sent.add(events);
  deepStrictEqual(JSON.parse(sent.text() ?? ""), {
    choices: [{
      text: "",
      reasoning: "",
      toolCalls: [{ id: "c1", name: "f", arguments: '{"a":1}' }],
      finish: "tool_calls",
    }],
  });
  const speech = new SentAnswer();
  speech.add([MEDIA.subarray(0, 1000)]);
  speech.add([MEDIA.subarray(1000)]);
  deepStrictEqual(JSON.parse(speech.text() ?? ""), DIGEST);
});

Deno.test("an endless answer is kept up to a bound, in texts and in numbers of choices and calls", () => {
  const long = new SentAnswer();
  for (let index = 0; index < 30; index++) {
    long.add([{ type: "text", choice: 0, text: "x".repeat(100_000) }]);
  }
  strictEqual(long.cut, true);
  ok((long.text()?.length ?? 0) < 1.1 * 1024 * 1024);
  const wide = new SentAnswer();
  for (let index = 0; index < 50_000; index++) {
    wide.add([{ type: "tool_call", choice: 2 ** 31 - index, index: 2 ** 31, arguments: "" }]);
  }
  strictEqual(wide.cut, true);
  ok((wide.text()?.length ?? 0) < 2 * 1024 * 1024);
});
