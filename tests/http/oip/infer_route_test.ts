// Infer route: what passes to the engine and back, in both forms, and what is refused where.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import { openinferenceWire } from "../../../src/engines/upstream/openinference/openinference_wire.ts";
import {
  HEAD_LENGTH_HEADER,
  parseTensorRequest,
  splitTensorBody,
  writeTensorAnswer,
} from "../../../src/engines/tensor_codec.ts";
import { textBytes } from "../../../src/engines/tensor_data.ts";
import type { Embeddings } from "../../../src/engines/task.ts";
import type { Tensor, TensorAnswer } from "../../../src/engines/tensor.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { mutateJson } from "../../engines/upstream/mutate_json.ts";
import { anyText } from "../../support/any_text.ts";
import { binaryBody, BODY_BYTES_MAX, openOipUnderTest, partsOf } from "./oip_under_test.ts";

const OCTETS = "application/octet-stream";
const NUMBERS = new Uint8Array([0, 0, 128, 63, 0, 0, 0, 64]); // 1 and 2 as little-endian FP32

const jsonInput = { name: "x", shape: [2], datatype: "FP32", data: [1, 2] };
const rawInput = { name: "x", shape: [2], datatype: "FP32", parameters: { binary_data_size: 8 } };
const tensor = (name: string, data: Tensor["data"]): Tensor => ({ name, datatype: "FP32", shape: [2], data });
const answerOf = (...outputs: readonly Tensor[]) => (): TensorAnswer => ({ outputs });

const textInput = (changes: object = {}) => ({
  name: "text",
  shape: [2],
  datatype: "BYTES",
  data: ["ab", "ü"],
  ...changes,
});
const VECTORS = new Float32Array([0.5, -1, 3, 0.1]);
const embeddings = (): Embeddings => ({
  vectors: VECTORS,
  dimensions: 2,
  usage: { inputTokens: 1, outputTokens: 0, countedBy: "engine" },
});
const rawTexts = (...texts: readonly string[]) =>
  binaryBody({
    inputs: [{
      name: "text",
      shape: [texts.length],
      datatype: "BYTES",
      parameters: { binary_data_size: textBytes(texts).length },
    }],
  }, textBytes(texts));

/** The words of an error, which is all that its body has. */
async function errorOf(response: Response): Promise<string> {
  strictEqual(response.headers.get("content-type"), "application/json");
  const body = await response.json();
  deepStrictEqual(Object.keys(body), ["error"]);
  return body.error;
}

Deno.test("JSON tensors pass as they are, and the answer is JSON with the id of the request and the model's", async () => {
  const test = openOipUnderTest(() => ({
    parameters: { took: 3 },
    outputs: [tensor("y", { json: [0.1, 2] }), { ...tensor("z", { json: [[1], [2]] }), shape: [2, 1] }],
  }));
  const body = {
    id: "mine",
    parameters: { sequence_id: 7, priority: "high", last: true },
    inputs: [{ ...jsonInput, parameters: { scale: 0.5 } }],
    outputs: [{ name: "y", parameters: { classification: 2 } }, { name: "z" }],
  };
  const response = await test.infer("tensors", JSON.stringify(body));
  strictEqual(response.status, 200);
  strictEqual(response.headers.get("content-type"), "application/json");
  deepStrictEqual(await partsOf(response), [
    '{"model_name":"tensors","id":"mine","parameters":{"took":3},"outputs":[' +
    '{"name":"y","shape":[2],"datatype":"FP32","data":[0.1,2]},' +
    '{"name":"z","shape":[2,1],"datatype":"FP32","data":[[1],[2]]}]}',
    undefined,
  ]);
  deepStrictEqual(test.asked, [{
    task: "tensor",
    parameters: { sequence_id: 7, priority: "high", last: true },
    inputs: [{
      name: "x",
      shape: [2],
      datatype: "FP32",
      parameters: { scale: 0.5 },
      data: { json: [1, 2] },
    }],
    outputs: [{ name: "y", binary: false, parameters: { classification: 2 } }, { name: "z", binary: false }],
    binaryOutputs: false,
  }]);
});

Deno.test("bytes of tensors pass as they are, and those of the answer stand behind its JSON in the order of the outputs", async () => {
  const test = openOipUnderTest(answerOf(
    tensor("y", { bytes: NUMBERS }),
    tensor("z", { json: [3, 4] }),
    { name: "t", datatype: "BYTES", shape: [1], data: { bytes: textBytes(["ab"]) } },
  ));
  const { bytes, headers } = binaryBody(
    { parameters: { binary_data_output: true }, inputs: [rawInput] },
    NUMBERS,
  );
  const response = await test.infer("tensors", bytes, headers);
  strictEqual(response.status, 200);
  strictEqual(response.headers.get("content-type"), OCTETS);
  deepStrictEqual(await partsOf(response), [
    '{"model_name":"tensors","outputs":[' +
    '{"name":"y","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}},' +
    '{"name":"z","shape":[2],"datatype":"FP32","data":[3,4]},' +
    '{"name":"t","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}]}',
    [...NUMBERS, 2, 0, 0, 0, 0x61, 0x62],
  ]);
  deepStrictEqual(test.asked, [{
    task: "tensor",
    inputs: [tensor("x", { bytes: NUMBERS })],
    outputs: [],
    binaryOutputs: true,
  }]);
});

Deno.test("what an output says of its form goes over what the request says of all", async () => {
  const test = openOipUnderTest();
  const body = {
    parameters: { binary_data_output: true },
    inputs: [jsonInput],
    outputs: [{ name: "a" }, { name: "b", parameters: { binary_data: false } }],
  };
  await (await test.infer("tensors", JSON.stringify(body))).body?.cancel();
  const [asked] = test.asked;
  ok(asked?.task === "tensor");
  deepStrictEqual(asked.outputs, [{ name: "a", binary: true }, { name: "b", binary: false }]);
});

const ALL_JSON = JSON.stringify({ inputs: [jsonInput] });
for (
  const [what, contentType, body] of [
    [
      "no media type, as Triton's Python client sends it",
      undefined,
      binaryBody({ inputs: [rawInput] }, NUMBERS),
    ],
    [
      "the media type of JSON",
      "application/json; charset=utf-8",
      binaryBody({ inputs: [rawInput] }, NUMBERS),
    ],
    ["a head that is all of the body, as Triton's C++ client sends it", OCTETS, binaryBody(ALL_JSON)],
    ["upper case in the media type", "Application/Octet-Stream", binaryBody({ inputs: [rawInput] }, NUMBERS)],
  ] as const
) {
  Deno.test(`a body with the length of its head is taken with ${what}`, async () => {
    const test = openOipUnderTest();
    const { "content-type": _, ...headers } = body.headers;
    const response = await test.infer("tensors", body.bytes, {
      ...headers,
      ...(contentType === undefined ? {} : { "content-type": contentType }),
    });
    await response.body?.cancel();
    strictEqual(response.status, 200);
    strictEqual(test.asked.length, 1);
  });
}

Deno.test("a body in pieces is put together again", async () => {
  const test = openOipUnderTest();
  const { bytes, headers } = binaryBody({ inputs: [rawInput] }, NUMBERS);
  const pieces = [...bytes].map((byte) => Uint8Array.of(byte));
  const response = await test.infer("tensors", ReadableStream.from(pieces), headers);
  await response.body?.cancel();
  strictEqual(response.status, 200);
  const [asked] = test.asked;
  ok(asked?.task === "tensor");
  deepStrictEqual(asked.inputs[0]?.data, { bytes: NUMBERS });
});

Deno.test("a model that is called by its alias answers by its id", async () => {
  const test = openOipUnderTest();
  const response = await test.infer("nick", ALL_JSON);
  deepStrictEqual(await response.json(), { model_name: "tensors", outputs: [] });
});

Deno.test("a model that does tensors and embeddings is asked for tensors", async () => {
  const test = openOipUnderTest();
  await (await test.infer("both", JSON.stringify({ inputs: [textInput()] }))).body?.cancel();
  strictEqual(test.asked[0]?.task, "tensor");
});

Deno.test("what goes to an upstream and back over the wire arrives bit by bit", async () => {
  const test = openOipUnderTest((request) => {
    if (request.task !== "tensor") throw new Error("no tensors");
    const call = openinferenceWire.whole<"tensor">(request, { model: "there", usageInStreams: false });
    const { body, headers: sent, path } = call.request;
    ok(body instanceof Uint8Array);
    strictEqual(path, "/v2/models/there/infer");
    const parts = splitTensorBody(body, sent[HEAD_LENGTH_HEADER] ?? null);
    ok(parts.ok);
    const there = parseTensorRequest(JSON.parse(new TextDecoder().decode(parts.value.json)), parts.value.raw);
    ok(there.ok);
    const outputs = there.value.request.inputs.map((input) => ({ ...input, name: `${input.name}-out` }));
    const { bytes, headers } = writeTensorAnswer({ outputs }, { modelName: "there", id: "theirs" });
    return call.read({ mediaType: OCTETS, headers: new Headers({ ...headers }), bytes });
  });
  const head = {
    id: "mine",
    parameters: { binary_data_output: true },
    inputs: [jsonInput, { ...rawInput, name: "r" }],
  };
  const { bytes, headers } = binaryBody(head, NUMBERS);
  deepStrictEqual(await partsOf(await test.infer("tensors", bytes, headers)), [
    '{"model_name":"tensors","id":"mine","outputs":[' +
    '{"name":"x-out","shape":[2],"datatype":"FP32","data":[1,2]},' +
    '{"name":"r-out","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}',
    [...NUMBERS],
  ]);
});

for (
  const [what, body] of [
    ["JSON", { bytes: JSON.stringify({ inputs: [textInput()] }), headers: undefined }],
    ["raw bytes", rawTexts("ab", "ü")],
    ["JSON under the length of its head", binaryBody({ inputs: [textInput()] })],
  ] as const
) {
  Deno.test(`an embedding model takes its texts as ${what}`, async () => {
    const test = openOipUnderTest(embeddings);
    const response = await test.infer("embeds", body.bytes, body.headers);
    strictEqual(response.status, 200);
    deepStrictEqual(test.asked, [{ task: "embedding", texts: ["ab", "ü"] }]);
    deepStrictEqual(await partsOf(response), [
      '{"model_name":"embeds","outputs":[{"name":"embedding","shape":[2,2],"datatype":"FP32",' +
      '"data":[0.5,-1,3,0.10000000149011612]}]}',
      undefined,
    ]);
  });
}

for (
  const [what, isBinary, changes] of [
    ["the request asks for bytes of all", true, { parameters: { binary_data_output: true } }],
    ["the output asks for bytes", true, {
      outputs: [{ name: "embedding", parameters: { binary_data: true } }],
    }],
    ["the output asks for JSON where the request asks for bytes", false, {
      parameters: { binary_data_output: true },
      outputs: [{ name: "embedding", parameters: { binary_data: false } }],
    }],
    ["the output is named only", false, { outputs: [{ name: "embedding" }] }],
  ] as const
) {
  Deno.test(`vectors come as ${isBinary ? "bytes" : "JSON"} where ${what}`, async () => {
    const test = openOipUnderTest(embeddings);
    const response = await test.infer(
      "embeds",
      JSON.stringify({ id: "mine", inputs: [textInput()], ...changes }),
    );
    strictEqual(response.headers.get("content-type"), isBinary ? OCTETS : "application/json");
    const [json, raw] = await partsOf(response);
    if (!isBinary) return strictEqual(raw, undefined);
    strictEqual(
      json,
      '{"model_name":"embeds","id":"mine","outputs":[{"name":"embedding","shape":[2,2],"datatype":"FP32",' +
        '"parameters":{"binary_data_size":16}}]}',
    );
    deepStrictEqual(raw, [...new Uint8Array(VECTORS.buffer)]);
  });
}

Deno.test("a text that the engine refuses is named by its place in the body", async () => {
  const test = openOipUnderTest(() => {
    throw new Fault("fields_invalid", "Cannot embed", {
      fields: [{ path: "/texts/1", message: "has too many tokens" }, { path: "/texts", message: "too" }],
    });
  });
  const { bytes, headers } = rawTexts("a", "b");
  const response = await test.infer("embeds", bytes, headers);
  strictEqual(response.status, 422);
  strictEqual(await errorOf(response), "/inputs/0/data/1: has too many tokens; /inputs/0/data: too");
});

/** Raw bytes of a BYTES tensor that are no UTF-8. */
const NOT_UTF8 = new Uint8Array([1, 0, 0, 0, 0xff]);
const many = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`p${index}`, 1]));

for (
  const [what, model, head, raw, words] of [
    [
      "an unknown field",
      "tensors",
      { inputs: [jsonInput], role: 1 },
      undefined,
      "/role: is not a known field",
    ],
    ["no inputs", "tensors", { inputs: [] }, undefined, "/inputs: is empty"],
    ["a body that is no object", "tensors", [], undefined, "body: is no object"],
    [
      "an id of 129 characters",
      "tensors",
      { id: "x".repeat(129), inputs: [jsonInput] },
      undefined,
      /^\/id: /,
    ],
    [
      "a datatype that there is not",
      "tensors",
      { inputs: [{ ...jsonInput, datatype: "FP31" }] },
      undefined,
      /^\/inputs\/0\/datatype: is none of/,
    ],
    [
      "a shape that is not the data's",
      "tensors",
      { inputs: [{ ...jsonInput, shape: [3] }] },
      undefined,
      "/inputs/0/data: has 2 elements where the shape says 3",
    ],
    [
      "a shape that is not the bytes'",
      "tensors",
      { inputs: [{ ...rawInput, shape: [3] }] },
      NUMBERS,
      "/inputs/0/parameters/binary_data_size: has 8 bytes where datatype and shape say 12",
    ],
    [
      "bytes that no tensor takes",
      "tensors",
      { inputs: [rawInput] },
      new Uint8Array(9),
      "body: has 1 bytes behind those of its tensors",
    ],
    [
      "fewer bytes than a tensor takes",
      "tensors",
      { inputs: [rawInput] },
      NUMBERS.subarray(1),
      "/inputs/0/parameters/binary_data_size: is more than the body has",
    ],
    [
      "a tensor of bytes in a body of JSON",
      "tensors",
      { inputs: [rawInput] },
      undefined,
      /^\/inputs\/0\/parameters\/binary_data_size: stands in a body without the header/,
    ],
    [
      "shared memory of the engine",
      "tensors",
      { inputs: [{ ...jsonInput, parameters: { shared_memory_region: "a" } }] },
      undefined,
      "/inputs/0/parameters/shared_memory_region: is not let through",
    ],
    [
      "a parameter that is an object",
      "tensors",
      { inputs: [jsonInput], parameters: { a: {} } },
      undefined,
      /^\/parameters\/a: is neither text/,
    ],
    [
      "33 parameters",
      "tensors",
      { inputs: [jsonInput], parameters: many(33) },
      undefined,
      "/parameters: has more than 32 members",
    ],
    [
      "33 parameters of an input",
      "tensors",
      { inputs: [{ ...jsonInput, parameters: many(33) }] },
      undefined,
      "/inputs/0/parameters: has more than 32 members",
    ],
    [
      "33 parameters of an output",
      "tensors",
      { inputs: [jsonInput], outputs: [{ name: "a" }, { name: "b", parameters: many(33) }] },
      undefined,
      "/outputs/1/parameters: has more than 32 members",
    ],
    [
      "a form that is neither true nor false",
      "tensors",
      { inputs: [jsonInput], parameters: { binary_data_output: 1 } },
      undefined,
      "/parameters/binary_data_output: is neither true nor false",
    ],
    [
      "an output twice",
      "tensors",
      { inputs: [jsonInput], outputs: [{ name: "a" }, { name: "a" }] },
      undefined,
      "/outputs/1/name: stands there twice",
    ],
    [
      "numbers for texts",
      "embeds",
      { inputs: [jsonInput] },
      undefined,
      /^\/inputs\/0\/name: .*\/inputs\/0\/datatype: .*\/inputs\/0\/data\/0: /,
    ],
    [
      "other parameters for an embedding",
      "embeds",
      { inputs: [textInput()], parameters: { dimensions: 1 } },
      undefined,
      "/parameters/dimensions: is not a known field",
    ],
    [
      "parameters of an embedding's JSON tensor",
      "embeds",
      { inputs: [textInput({ parameters: { binary_data_size: 3 } })] },
      undefined,
      "/inputs/0/parameters: is not a known field",
    ],
    [
      "an empty text",
      "embeds",
      { inputs: [textInput({ data: ["a", ""] })] },
      undefined,
      "/inputs/0/data/1: is empty",
    ],
    [
      "2049 texts, without a look at each",
      "embeds",
      `{"inputs":[{"name":"text","shape":[2],"datatype":"BYTES","data":[${"1,".repeat(2048)}1]}]}`,
      undefined,
      "/inputs/0/data: Too big: expected array to have <=2048 items",
    ],
    [
      "a shape of 1000 lengths, without a look at each",
      "embeds",
      { inputs: [textInput({ shape: Array(1000).fill(-1) })] },
      undefined,
      "/inputs/0/shape: is not of the form [n]",
    ],
    [
      "texts that end too early",
      "embeds",
      { inputs: [{ name: "text", shape: [2], datatype: "BYTES", parameters: { binary_data_size: 5 } }] },
      NOT_UTF8,
      "/inputs/0/parameters/binary_data_size: ends before its 2 elements do",
    ],
    [
      "texts that are not UTF-8",
      "embeds",
      { inputs: [{ name: "text", shape: [1], datatype: "BYTES", parameters: { binary_data_size: 5 } }] },
      NOT_UTF8,
      "/inputs/0/data: is not UTF-8",
    ],
    [
      "an empty text among bytes",
      "embeds",
      { inputs: [{ name: "text", shape: [1], datatype: "BYTES", parameters: { binary_data_size: 4 } }] },
      new Uint8Array(4),
      "/inputs/0/data/0: is empty",
    ],
    [
      "JSON data before bytes",
      "embeds",
      { inputs: [textInput()] },
      NUMBERS,
      /^\/inputs\/0\/parameters: .*\/inputs\/0\/data: is not a known field/,
    ],
    [
      "more texts than the model takes",
      "embeds",
      { inputs: [textInput({ shape: [65], data: Array(65).fill("a") })] },
      undefined,
      "/inputs/0/data: has 65 texts; at most 64 are allowed",
    ],
  ] as const
) {
  Deno.test(`POST /v2/models/{id}/infer refuses ${what}, naming the place, and runs nothing`, async () => {
    const test = openOipUnderTest(embeddings, { bodyBytesMax: 65_536 });
    const { bytes, headers } = raw === undefined
      ? { bytes: typeof head === "string" ? head : JSON.stringify(head), headers: undefined }
      : binaryBody(head, raw);
    const response = await test.infer(model, bytes, headers);
    const error = await errorOf(response);
    strictEqual(response.status, 422, error);
    if (typeof words === "string") strictEqual(error, words);
    else match(error, words);
    deepStrictEqual(test.asked, []);
    deepStrictEqual(test.events.map(({ type }) => type), ["request.refused"]);
  });
}

Deno.test("32 parameters pass, those of the binary extension not counted", async () => {
  const test = openOipUnderTest();
  const body = { inputs: [jsonInput], parameters: { ...many(32), binary_data_output: false } };
  const response = await test.infer("tensors", JSON.stringify(body));
  await response.body?.cancel();
  strictEqual(response.status, 200);
});

const RAW = binaryBody({ inputs: [rawInput] }, NUMBERS);
const rawWith = (headers: Readonly<Record<string, string>>) => ({
  bytes: RAW.bytes,
  headers: { ...RAW.headers, ...headers },
});
const headLength = (value: string) => rawWith({ "inference-header-content-length": value });
for (
  const [what, { bytes, headers }, status, words] of [
    [
      "text under a head's length",
      rawWith({ "content-type": "text/plain" }),
      415,
      /octet-stream, uncompressed/,
    ],
    ["a form under a head's length", rawWith({ "content-type": "multipart/form-data" }), 415, /octet-stream/],
    ["a charset of bytes", rawWith({ "content-type": `${OCTETS}; charset=utf-8` }), 415, /octet-stream/],
    [
      "bytes without a head's length",
      { bytes: RAW.bytes, headers: { "content-type": OCTETS } },
      415,
      /application\/json/,
    ],
    ["a compressed body", rawWith({ "content-encoding": "gzip" }), 415, /uncompressed/],
    ["an unknown transfer coding", rawWith({ "transfer-encoding": "gzip, chunked" }), 400, /transfer coding/],
    [
      "a length beyond the limit",
      rawWith({ "content-length": String(BODY_BYTES_MAX + 1) }),
      413,
      /larger than 4096/,
    ],
    [
      "a body beyond the limit",
      { bytes: new Uint8Array(BODY_BYTES_MAX + 1), headers: RAW.headers },
      413,
      /larger/,
    ],
    ["a head of no length", headLength("0"), 400, /Inference-Header-Content-Length is not/],
    ["a head's length with a sign", headLength("+90"), 400, /Inference-Header-Content-Length is not/],
    ["a head's length in other digits", headLength("0x10"), 400, /Inference-Header-Content-Length is not/],
    ["a head's length twice", headLength("90, 90"), 400, /Inference-Header-Content-Length is not/],
    ["a head longer than the limit", headLength(String(BODY_BYTES_MAX + 1)), 400, /Inference-Header-/],
    ["a head longer than the body", headLength(String(RAW.bytes.length + 1)), 400, /Inference-Header-/],
    [
      "a head longer than the announced body",
      rawWith({ "content-length": "10", "inference-header-content-length": "11" }),
      400,
      /Inference-Header-/,
    ],
    [
      "a head's length that cuts the JSON",
      headLength("20"),
      400,
      "The first 20 bytes of the body are not strict JSON (malformed).",
    ],
    [
      "a head's length that reaches into the bytes",
      headLength(String(RAW.bytes.length)),
      400,
      /not strict JSON \((?:not_utf8|malformed)\)/,
    ],
    ["a head with a member twice", binaryBody('{"id":"a","id":"b"}', NUMBERS), 400, /\(duplicate_member\)/],
    ["a head nested too deep", binaryBody("[".repeat(40) + "]".repeat(40)), 400, /\(too_deep\)/],
    ["no body", { bytes: null, headers: RAW.headers }, 400, /Inference-Header-/],
  ] as const
) {
  Deno.test(`POST /v2/models/{id}/infer refuses ${what} with ${status}`, async () => {
    const test = openOipUnderTest();
    const response = await test.infer("tensors", bytes, headers);
    const error = await errorOf(response);
    strictEqual(response.status, status, error);
    if (typeof words === "string") strictEqual(error, words);
    else match(error, words);
    deepStrictEqual(test.asked, []);
  });
}

Deno.test("a body that drips is refused with 408 when its whole time is over, though each piece comes in time", async () => {
  const test = openOipUnderTest(undefined, { bodyTimeoutMs: 100 });
  let timer: ReturnType<typeof setInterval> | undefined;
  let left = false;
  const drip = new ReadableStream<Uint8Array>({
    start(controller) {
      timer = setInterval(() => controller.enqueue(Uint8Array.of(0x20)), 20);
    },
    cancel() {
      left = true;
      clearInterval(timer);
    },
  });
  const response = await test.infer("tensors", drip, RAW.headers);
  strictEqual(response.status, 408);
  await errorOf(response);
  ok(left);
});

for (
  const [what, model, status] of [
    ["a model that there is not", "none", 404],
    ["a model that is hidden", "hidden", 404],
    ["a model that the caller may see and not use", "guarded", 403],
    ["a model that does neither tensors nor embeddings", "chats", 400],
  ] as const
) {
  Deno.test(`POST /v2/models/{id}/infer refuses ${what} with ${status}, whatever the body says`, async () => {
    const test = openOipUnderTest();
    for (const body of [ALL_JSON, "{}"]) {
      const response = await test.infer(model, body);
      await errorOf(response);
      strictEqual(response.status, status);
    }
    deepStrictEqual(test.asked, []);
  });
}

Deno.test("a hidden model is refused in the words of one that there is not", async () => {
  const test = openOipUnderTest();
  strictEqual(
    await errorOf(await test.infer("hidden", ALL_JSON)),
    await errorOf(await test.infer("none", ALL_JSON)),
  );
});

for (
  const [path, status] of [
    ["team%2Fresnet:50", 200],
    ["team%2fresnet%3A50", 200],
    ["t%65am%2Fresnet:50", 200],
    ["team/resnet:50", 404],
    ["team%252Fresnet:50", 404],
    ["team%25252Fresnet:50", 404],
    ["team%5Cresnet:50", 404],
    ["team%2F%2E%2E%2Fteam%2Fresnet:50", 404],
    ["team%2Fresnet:50%00", 404],
    ["%FF", 404],
    ["%C0%AF", 404],
  ] as const
) {
  Deno.test(`the path's ${path} is decoded once: ${status}`, async () => {
    const test = openOipUnderTest();
    const response = await test.infer(path, ALL_JSON);
    strictEqual(response.status, status);
    const body = await response.json();
    if (status === 200) strictEqual(body.model_name, "team/resnet:50");
  });
}

Deno.test("whatever an engine fails with is answered as the protocol's error, and recorded", async () => {
  const test = openOipUnderTest(() => {
    throw new Fault("upstream_failed", "Cannot run: secret words");
  });
  const response = await test.infer("tensors", ALL_JSON);
  strictEqual(response.status, 502);
  ok(!(await errorOf(response)).includes("secret"));
  deepStrictEqual(test.events.map(({ type }) => type), ["inference.started", "inference.finished"]);
});

const GOOD: readonly JsonValue[] = [
  { id: "a", inputs: [jsonInput, { ...rawInput, name: "r" }], outputs: [{ name: "y" }] },
  { inputs: [textInput()], outputs: [{ name: "embedding" }], parameters: { binary_data_output: true } },
  { inputs: [{ name: "text", shape: [1], datatype: "BYTES", parameters: { binary_data_size: 5 } }] },
];

Deno.test("any JSON before any bytes is run or refused: nothing is answered with 500", async () => {
  const test = openOipUnderTest((request) => request.task === "embedding" ? embeddings() : { outputs: [] });
  const statuses = new Set<number>();
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom("tensors", "embeds", "both"),
      fc.oneof(
        fc.json({ maxDepth: 4 }),
        fc.constantFrom(...GOOD).chain(mutateJson).map((json) => JSON.stringify(json)),
        fc.constantFrom(...GOOD).map((json) => JSON.stringify(json)),
        anyText,
      ),
      fc.uint8Array({ maxLength: 24 }),
      fc.oneof(fc.constant(0), fc.integer({ min: -3, max: 3 })),
      fc.boolean(),
      async (model, text, raw, off, plain) => {
        const { bytes, headers } = binaryBody(text, raw);
        const length = Number(headers["inference-header-content-length"]) + off;
        const response = plain
          ? await test.infer(model, text)
          : await test.infer(model, bytes, { ...headers, "inference-header-content-length": String(length) });
        statuses.add(response.status);
        if (response.status !== 200) await errorOf(response);
        else await partsOf(response);
      },
    ),
    { numRuns: 500 },
  );
});
