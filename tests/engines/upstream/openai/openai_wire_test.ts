// Tests of the OpenAI wire as a whole: what it can do, and that no answer whatever makes it throw anything but its Fault.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { WholeRequest } from "../../../../src/engines/task.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import type { JsonValue } from "../../../../src/encoding/canonical_json.ts";
import { Fault } from "../../../../src/faults/fault.ts";
import { mutateJson } from "../mutate_json.ts";
import {
  chatRequest,
  completionRequest,
  OPTIONS,
  refuses,
  textAnswer,
  transcriptionRequest,
} from "./wire_calls.ts";

/** Of each task a request and a good answer to be damaged. */
const CALLS: readonly { readonly request: WholeRequest; readonly answer: JsonValue }[] = [
  {
    request: chatRequest({ choices: 2, logprobs: 1, tools: [{ name: "f" }] }),
    answer: {
      id: "chatcmpl-1",
      choices: [
        {
          index: 0,
          message: { role: "assistant", content: "a", reasoning: "b", refusal: null },
          finish_reason: "stop",
        },
        {
          index: 1,
          message: {
            content: [{ type: "text", text: "a" }],
            tool_calls: [{ id: "c", function: { name: "f", arguments: "{}" } }],
          },
          logprobs: { content: [{ token: "a", logprob: -1, top_logprobs: [] }] },
          finish_reason: "tool_calls",
        },
      ],
      usage: { prompt_tokens: 1, completion_tokens: 2, prompt_tokens_details: { cached_tokens: 1 } },
    },
  },
  {
    request: completionRequest({ prompts: ["a", "b"] }),
    answer: {
      choices: [{ index: 0, text: "a", finish_reason: "stop" }, {
        index: 1,
        text: "b",
        finish_reason: "length",
      }],
      usage: { prompt_tokens: 1, completion_tokens: 2 },
    },
  },
  {
    request: { task: "embedding", texts: ["a", "b"] },
    answer: {
      data: [{ index: 0, embedding: "AACAPwAAAEA=" }, { index: 1, embedding: [1, 2] }],
      usage: { prompt_tokens: 2, total_tokens: 2 },
    },
  },
  {
    request: { task: "rerank", query: "q", documents: ["a", "b"], topN: 1 },
    answer: {
      results: [{ index: 1, relevance_score: 1 }, { index: 0, score: 0 }],
      usage: { total_tokens: 3 },
    },
  },
  { request: { task: "rerank", query: "q", documents: ["a"] }, answer: [{ index: 0, score: 0 }] },
  {
    request: { task: "moderation", texts: ["a"] },
    answer: { results: [{ flagged: false, categories: { a: true }, category_scores: { a: 0.5 } }] },
  },
  {
    request: transcriptionRequest({ format: "verbose_json" }),
    answer: {
      text: "a",
      language: "de",
      segments: [{ id: 0, text: "a" }],
      usage: { type: "duration", seconds: 1 },
    },
  },
  { request: transcriptionRequest({ format: "text" }), answer: { text: "a" } },
  {
    request: { task: "image", prompt: "a", images: 1, extra: {} },
    answer: { created: 1, data: [{ b64_json: "AAAA", revised_prompt: "b" }], usage: { input_tokens: 1 } },
  },
];

function readText(request: WholeRequest, text: string): unknown {
  return openaiWire.whole(request, OPTIONS).read(textAnswer(text, "application/json"));
}

/** Whether the answer was read; a Fault of another kind, or another error, fails the test. */
function isRead(request: WholeRequest, text: string): boolean {
  try {
    JSON.stringify(readText(request, text));
    return true;
  } catch (thrown) {
    ok(
      thrown instanceof Fault && thrown.kind === "upstream_answer_invalid",
      `${request.task}: ${thrown}: ${text}`,
    );
    return false;
  }
}

Deno.test("the wire says how it is asked for health and how it carries a secret", () => {
  strictEqual(openaiWire.kind, "openai");
  strictEqual(openaiWire.healthPath, "/models");
  deepStrictEqual(openaiWire.credentialHeaders("sk-1"), { Authorization: "Bearer sk-1" });
});

Deno.test("tensors are beyond this protocol", () => {
  refuses(
    () => openaiWire.whole({ task: "tensor", inputs: [], outputs: [], binaryOutputs: false }, OPTIONS),
    "capability_missing",
  );
  refuses(() => openaiWire.whole({ task: "tensor_metadata" }, OPTIONS), "capability_missing");
});

Deno.test("a model's name stands in the body and never in the path or a header", () => {
  const model = '../admin?x#"\r\nX-Evil: 1';
  for (const { request } of CALLS) {
    const { path, headers } =
      openaiWire.whole(request.task === "transcription" ? transcriptionRequest() : request, {
        ...OPTIONS,
        model,
      }).request;
    ok(/^\/[a-z/]+$/.test(path), path);
    for (const value of Object.values(headers)) ok(!value.includes("X-Evil"));
  }
});

Deno.test("property: arbitrary JSON, and arbitrary text, is read or refused with the one Fault", () => {
  fc.assert(fc.property(fc.constantFrom(...CALLS), fc.oneof(fc.json(), fc.string()), ({ request }, text) => {
    isRead(fresh(request), text);
  }));
});

Deno.test("property: a good answer damaged anywhere is read or refused with the one Fault", () => {
  let read = 0, refused = 0;
  const damaged = fc.constantFrom(...CALLS).chain(({ request, answer }) =>
    fc.tuple(fc.constant(request), mutateJson(answer).chain(mutateJson))
  );
  fc.assert(
    fc.property(damaged, ([request, answer]) => {
      if (isRead(fresh(request), JSON.stringify(answer))) read++;
      else refused++;
    }),
    { numRuns: 1000 },
  );
  ok(read > 50 && refused > 50, `${read} read, ${refused} refused`);
});

Deno.test("the answers that are damaged above are good before", () => {
  for (const { request, answer } of CALLS) strictEqual(isRead(fresh(request), JSON.stringify(answer)), true);
});

/** An upload can be asked for once. */
function fresh(request: WholeRequest): WholeRequest {
  return request.task === "transcription" ? transcriptionRequest({ format: request.format }) : request;
}
