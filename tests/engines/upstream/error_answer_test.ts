// Tests of what error answers of upstreams mean.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { errorBodyMatters, faultOfErrorAnswer } from "../../../src/engines/upstream/error_answer.ts";
import { breakerOutcome, retryPlace } from "../../../src/engines/upstream/upstream_fault.ts";
import type { FaultKind } from "../../../src/faults/fault.ts";
import { manualClock } from "../../support/manual_clock.ts";

const SECRET = "sk-4f9a-secret";

function faultOf(status: number, body: unknown = "", headers: Record<string, string> = {}) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return faultOfErrorAnswer(
    "gpu1",
    { status, headers: new Headers(headers), body: new TextEncoder().encode(text) },
    manualClock(Date.UTC(2026, 0, 1)),
  );
}

Deno.test("each status has its kind of fault, its place for retries and its meaning for the breaker", () => {
  const rows: readonly [
    number,
    FaultKind,
    ReturnType<typeof retryPlace>,
    ReturnType<typeof breakerOutcome>,
  ][] = [
    [400, "input_refused", "nowhere", "success"],
    [413, "input_refused", "nowhere", "success"],
    [422, "input_refused", "nowhere", "success"],
    [401, "upstream_failed", "nowhere", "success"],
    [402, "upstream_failed", "nowhere", "success"],
    [403, "upstream_failed", "nowhere", "success"],
    [404, "upstream_failed", "nowhere", "success"],
    [418, "upstream_failed", "nowhere", "success"],
    [408, "upstream_timeout", "elsewhere", "neutral"],
    [429, "overloaded", "elsewhere", "neutral"],
    [503, "overloaded", "elsewhere", "neutral"],
    [529, "overloaded", "elsewhere", "neutral"],
    // A request may be what the engine cannot bear: it is tried on one other, and takes the upstream from nobody.
    [500, "upstream_failed", "elsewhere_once", "neutral"],
    [501, "upstream_failed", "elsewhere_once", "neutral"],
    [507, "upstream_failed", "elsewhere_once", "neutral"],
    [599, "upstream_failed", "elsewhere_once", "neutral"],
    // What stands before the engine could not reach it.
    [502, "upstream_failed", "anywhere", "failure"],
    [504, "upstream_failed", "anywhere", "failure"],
  ];
  for (const [status, kind, place, outcome] of rows) {
    const fault = faultOf(status, { error: { message: "no" } });
    deepStrictEqual(
      [status, fault.kind, retryPlace(fault), breakerOutcome(fault)],
      [status, kind, place, outcome],
    );
  }
});

Deno.test("an input that is too long is known by the words of each engine", () => {
  const answers: readonly [string, number, unknown][] = [
    ["OpenAI", 400, {
      error: {
        message:
          "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
        type: "invalid_request_error",
        param: "messages",
        code: "context_length_exceeded",
      },
    }],
    ["a code alone", 400, { error: { message: "Too long.", code: "context_length_exceeded" } }],
    ["vLLM", 400, {
      object: "error",
      message: "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
      type: "BadRequestError",
      param: null,
      code: 400,
    }],
    ["vLLM, newer", 400, {
      error: {
        message: "The decoder prompt (length 9000) is longer than the maximum model length of 4096.",
        code: 400,
      },
    }],
    ["llama.cpp", 400, {
      error: {
        code: 400,
        message: "the request exceeds the available context size, try increasing it",
        type: "exceed_context_size_error",
        n_prompt_tokens: 9000,
        n_ctx: 4096,
      },
    }],
    ["llama.cpp, a type alone", 400, {
      error: { code: 400, message: "no", type: "exceed_context_size_error" },
    }],
    ["llama.cpp, embeddings", 500, {
      error: {
        code: 500,
        message: "input is too large to process. increase the physical batch size",
        type: "server_error",
      },
    }],
    ["Ollama", 400, { error: "the input length exceeds the context length" }],
    ["Ollama, OpenAI form", 500, {
      error: { message: "the input length exceeds the context length", type: "api_error", code: null },
    }],
    ["Anthropic", 400, {
      type: "error",
      error: { type: "invalid_request_error", message: "prompt is too long: 210000 tokens > 200000 maximum" },
    }],
    ["Anthropic, with the output", 400, {
      type: "error",
      error: {
        type: "invalid_request_error",
        message: "input length and `max_tokens` exceed context limit: 197202 + 21333 > 200000",
      },
    }],
    ["SGLang", 400, {
      object: "error",
      message: "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
      type: "BadRequestError",
      code: 400,
    }],
    ["TEI", 413, {
      error: "Input validation error: `inputs` must have less than 512 tokens. Given: 900",
      error_type: "Validation",
    }],
    ["FastAPI", 422, { detail: "Prompt does not fit the context window" }],
  ];
  for (const [engine, status, body] of answers) {
    const fault = faultOf(status, body);
    deepStrictEqual([engine, fault.kind], [engine, "context_length_exceeded"]);
    deepStrictEqual([retryPlace(fault), breakerOutcome(fault)], ["nowhere", "success"]);
  }
});

Deno.test("words about length mean nothing under a status that does not speak of the input", () => {
  for (const status of [401, 404, 429, 502, 503]) {
    ok(!errorBodyMatters(status));
    ok(
      faultOf(status, { error: { message: "context length", code: "context_length_exceeded" } }).kind !==
        "context_length_exceeded",
    );
  }
});

Deno.test("bodies that are no JSON, no object or no text do no harm", () => {
  for (
    const body of [
      "",
      "<html>context length</html>",
      "null",
      "[]",
      '"context length"',
      "{",
      '{"error":null}',
      '{"error":{"message":7,"code":{}}}',
    ]
  ) {
    strictEqual(faultOf(400, body).kind, "input_refused");
  }
  const notUtf8 = { status: 400, headers: new Headers(), body: Uint8Array.of(0xff, 0xfe) };
  strictEqual(faultOfErrorAnswer("gpu1", notUtf8, manualClock()).kind, "input_refused");
});

Deno.test("Retry-After is taken over in seconds and as a date, from 1 to 60, and is 1 where it says nothing", () => {
  const after = (value?: string) =>
    faultOf(429, "", value === undefined ? {} : { "retry-after": value }).details.retryAfterSeconds;
  deepStrictEqual(
    [after(), after("7"), after(" 7 "), after("0"), after("3600"), after("-5"), after("1.5"), after("soon")],
    [1, 7, 7, 1, 60, 1, 1, 1],
  );
  strictEqual(after("Thu, 01 Jan 2026 00:00:09 GMT"), 9);
  strictEqual(after("Thu, 01 Jan 2026 01:00:00 GMT"), 60);
  strictEqual(after("Wed, 31 Dec 2025 23:00:00 GMT"), 1);
  strictEqual(after("Xyz, 99 Foo 2026 00:00:00 GMT"), 1);
});

Deno.test("no word of an error's body or headers stands in the fault", () => {
  for (const status of [400, 401, 404, 408, 413, 422, 429, 500, 503]) {
    const fault = faultOf(
      status,
      { error: { message: `key ${SECRET}, context length`, code: SECRET, type: SECRET }, detail: SECRET },
      { "retry-after": SECRET, "www-authenticate": SECRET },
    );
    ok(
      !`${fault.message} ${fault.stack} ${JSON.stringify(fault.details)} ${JSON.stringify(fault)}`.includes(
        SECRET,
      ),
    );
    strictEqual(fault.cause, undefined);
  }
});
