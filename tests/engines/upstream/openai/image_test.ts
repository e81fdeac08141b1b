// Tests of image over the OpenAI wire: bytes are asked for, and nothing but bytes is taken.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { ImageRequest, Images } from "../../../../src/engines/task.ts";
import { openaiWire } from "../../../../src/engines/upstream/openai/openai_wire.ts";
import { bodyOf, jsonAnswer, OPTIONS, refuses } from "./wire_calls.ts";

const REQUEST: ImageRequest = { task: "image", prompt: "a cat", images: 2, extra: {} };

function read(body: unknown): Images {
  return openaiWire.whole<"image">(REQUEST, OPTIONS).read(jsonAnswer(body));
}

Deno.test("a prompt is sent with what was said of the picture, and base64 is asked for", () => {
  const { request } = openaiWire.whole<"image">({
    ...REQUEST,
    size: "1024x1024",
    quality: "high",
    style: "vivid",
    background: "transparent",
    outputFormat: "webp",
    extra: { steps: 20, response_format: "url", stream: true },
  }, OPTIONS);
  strictEqual(request.path, "/images/generations");
  deepStrictEqual(bodyOf(request), {
    model: "upstream-model",
    prompt: "a cat",
    n: 2,
    size: "1024x1024",
    quality: "high",
    style: "vivid",
    background: "transparent",
    output_format: "webp",
    response_format: "b64_json",
    steps: 20,
  });
});

Deno.test("models that refuse the field response_format are not sent it", () => {
  for (const model of ["gpt-image-1", "gpt-image-2-mini"]) {
    const { request } = openaiWire.whole<"image">(REQUEST, { ...OPTIONS, model });
    deepStrictEqual(bodyOf(request), { model, prompt: "a cat", n: 2 });
  }
});

Deno.test("pictures are read with their time, their prompt and what they cost", () => {
  deepStrictEqual(
    read({
      created: 1713833628,
      data: [{ b64_json: "iVBORw0KGgo=", revised_prompt: "a grey cat" }, {
        b64_json: "AAAA",
        revised_prompt: null,
      }],
      usage: {
        total_tokens: 100,
        input_tokens: 50,
        output_tokens: 50,
        input_tokens_details: { text_tokens: 10 },
      },
    }),
    {
      createdSeconds: 1713833628,
      images: [{ base64: "iVBORw0KGgo=", revisedPrompt: "a grey cat" }, { base64: "AAAA" }],
      usage: { inputTokens: 50, outputTokens: 50, countedBy: "engine" },
    },
  );
  deepStrictEqual(read({ data: [{ b64_json: "AA==" }] }), {
    createdSeconds: 0,
    images: [{ base64: "AA==" }],
    usage: { inputTokens: 0, outputTokens: 0, countedBy: "estimate" },
  });
});

Deno.test("an answer with addresses, or with what is no base64, is refused", () => {
  const picture = (b64_json: unknown) => ({ data: [{ b64_json }] });
  const bodies: Record<string, unknown> = {
    "an address": { data: [{ url: "http://10.0.0.1/SECRET.png" }] },
    "no data": { created: 1 },
    "no picture": { data: [] },
    "too many pictures": { data: Array(3).fill({ b64_json: "AAAA" }) },
    "a picture null": { data: [null] },
    "an empty picture": picture(""),
    "a data URL": picture("data:image/png;base64,AAAA"),
    "no padding": picture("AAA"),
    "white space": picture("AAAA\nAAAA"),
    "only white space": picture("    "),
    "the other alphabet": picture("AA-_"),
    "bits left over": picture("AB=="),
    "a number": picture(5),
    "a prompt as a list": { data: [{ b64_json: "AAAA", revised_prompt: [] }] },
    "a time as text": { created: "now", data: [{ b64_json: "AAAA" }] },
    "a time before 1970": { created: -1, data: [{ b64_json: "AAAA" }] },
  };
  for (const [about, body] of Object.entries(bodies)) {
    refuses(() => read(body), "upstream_answer_invalid", about);
  }
});
