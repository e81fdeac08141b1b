import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import { parseStrictJson } from "../../src/encoding/strict_json.ts";
import { decodeUtf8, encodeUtf8 } from "../../src/encoding/utf8.ts";
import type { Datatype, Tensor, TensorAnswer, TensorRequest } from "../../src/engines/tensor.ts";
import { DATATYPES } from "../../src/engines/tensor.ts";
import {
  HEAD_LENGTH_HEADER,
  type Parsed,
  type ParsedTensorRequest,
  parseTensorAnswer,
  parseTensorMetadata,
  parseTensorRequest,
  splitTensorBody,
  type TensorBody,
  writeTensorAnswer,
  writeTensorRequest,
} from "../../src/engines/tensor_codec.ts";
import { textBytes } from "../../src/engines/tensor_data.ts";
import { anyText } from "../support/any_text.ts";
import { mutateJson } from "./upstream/mutate_json.ts";

/** The parts of a written body, as a receiver comes to them. */
function received({ bytes, headers }: TensorBody): [JsonValue, Uint8Array | undefined] {
  const parts = splitTensorBody(bytes, headers[HEAD_LENGTH_HEADER] ?? null);
  ok(parts.ok);
  const text = decodeUtf8(parts.value.json);
  ok(text.ok);
  const json = parseStrictJson(text.value, 32);
  ok(json.ok);
  return [json.value, parts.value.raw];
}

function valueOf<Value>(parsed: Parsed<Value>): Value {
  ok(parsed.ok, parsed.ok ? "" : JSON.stringify(parsed.mistake));
  return parsed.value;
}

/** The place of the mistake, and its words. */
function mistakeOf(parsed: Parsed<unknown>): string {
  return parsed.ok ? "accepted" : `${parsed.mistake.path} ${parsed.mistake.message}`;
}

const FLOATS: Tensor = { name: "x", datatype: "FP32", shape: [2], data: { json: [1, 2] } };
const input = (changes: Record<string, unknown>): JsonValue => ({
  inputs: [{ name: "x", shape: [2], datatype: "FP32", data: [1, 2], ...changes } as JsonValue],
});
const request = (json: JsonValue, raw?: Uint8Array) => parseTensorRequest(json, raw);

Deno.test("the request of the specification is parsed", () => {
  const json = {
    id: "42",
    inputs: [
      { name: "input0", shape: [2, 2], datatype: "UINT32", data: [1, 2, 3, 4] },
      { name: "input1", shape: [1], datatype: "BOOL", data: [true] },
    ],
    outputs: [{ name: "output0" }],
  };
  deepStrictEqual(valueOf(request(json)), {
    id: "42",
    request: {
      task: "tensor",
      inputs: [
        { name: "input0", shape: [2, 2], datatype: "UINT32", data: { json: [1, 2, 3, 4] } },
        { name: "input1", shape: [1], datatype: "BOOL", data: { json: [true] } },
      ],
      outputs: [{ name: "output0", binary: false }],
      binaryOutputs: false,
    },
  });
});

Deno.test("the binary request of the extension's specification is parsed and written to the very bytes", () => {
  const head = '{"inputs":[' +
    '{"name":"input0","shape":[2,2],"datatype":"UINT32","parameters":{"binary_data_size":16}},' +
    '{"name":"input1","shape":[3],"datatype":"BOOL","parameters":{"binary_data_size":3}}],' +
    '"outputs":[{"name":"output0","parameters":{"binary_data":true}}]}';
  const raw = [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 1, 0, 1];
  const bytes = new Uint8Array([...encodeUtf8(head), ...raw]);
  const headers = {
    "Content-Type": "application/octet-stream",
    "Inference-Header-Content-Length": String(head.length),
  };
  const parsed = valueOf(request(...received({ bytes, headers }))).request;
  deepStrictEqual(parsed, {
    task: "tensor",
    inputs: [
      {
        name: "input0",
        shape: [2, 2],
        datatype: "UINT32",
        data: { bytes: new Uint8Array(raw.slice(0, 16)) },
      },
      { name: "input1", shape: [3], datatype: "BOOL", data: { bytes: new Uint8Array(raw.slice(16)) } },
    ],
    outputs: [{ name: "output0", binary: true }],
    binaryOutputs: false,
  });
  deepStrictEqual(writeTensorRequest(parsed), { bytes, headers });
});

Deno.test("the binary answer of the extension's specification is parsed, and what it does not know passed over", () => {
  const raw = new Uint8Array(new Float32Array([1, 1.5, 2, 2.5, 3, -0]).buffer);
  const json = {
    model_name: "mymodel",
    model_version: "1",
    new_field: { a: [1] },
    parameters: { sequence_id: 0, sequence_end: false, nested: { a: 1 } },
    outputs: [{
      name: "output0",
      shape: [3, 2],
      datatype: "FP32",
      new_field: 1,
      parameters: { binary_data_size: 24 },
    }],
  };
  deepStrictEqual(valueOf(parseTensorAnswer(json, raw)), {
    parameters: { sequence_id: 0, sequence_end: false },
    outputs: [{ name: "output0", shape: [3, 2], datatype: "FP32", data: { bytes: raw } }],
  });
});

Deno.test("an answer is written with the model's name and the request's id", () => {
  const { bytes, headers } = writeTensorAnswer({ outputs: [FLOATS] }, { modelName: "m", id: "42" });
  strictEqual(
    new TextDecoder().decode(bytes),
    '{"model_name":"m","id":"42","outputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}]}',
  );
  deepStrictEqual(headers, { "Content-Type": "application/json" });
});

Deno.test("a binary form that is asked for all outputs holds where an output says nothing else", () => {
  const json = {
    ...input({}) as Record<string, JsonValue>,
    parameters: { binary_data_output: true, priority: 3 },
    outputs: [{ name: "a" }, { name: "b", parameters: { binary_data: false, classification: 2 } }],
  };
  const parsed = valueOf(request(json)).request;
  deepStrictEqual(parsed, {
    task: "tensor",
    inputs: [FLOATS],
    outputs: [{ name: "a", binary: true }, { name: "b", binary: false, parameters: { classification: 2 } }],
    binaryOutputs: true,
    parameters: { priority: 3 },
  });
  deepStrictEqual(valueOf(request(...received(writeTensorRequest(parsed)))).request, parsed);
});

Deno.test("every rule of a request is told at the place where it is broken", () => {
  const many = (count: number) => Array.from({ length: count }, (_, index) => index);
  const named = (name: string) => ({ name, shape: [0], datatype: "FP32", data: [] });
  const cases: readonly (readonly [string, JsonValue])[] = [
    [" is no object", null],
    [" is no object", []],
    ["/inputs is no array of at most 256 tensors", {}],
    ["/inputs is no array of at most 256 tensors", { inputs: many(257).map((index) => named(`n${index}`)) }],
    ["/inputs is empty", { inputs: [] }],
    ["/inputs/0 is no object", { inputs: ["x"] }],
    ["/inputs/1/name stands there twice", { inputs: [named("x"), named("x")] }],
    ["/model_name is not a known field", { model_name: "m", inputs: [] }],
    ["/a~1b~0 is not a known field", { "a/b~": 1, inputs: [] }],
    ["/inputs/0/dtype is not a known field", input({ dtype: "FP32" })],
    ["/id is no text of 1 to 128 characters", { id: "", inputs: [] }],
    ["/id is no text of 1 to 128 characters", { id: "i".repeat(129), inputs: [] }],
    ["/inputs/0/name is no text of 1 to 256 printable characters", input({ name: "" })],
    ["/inputs/0/name is no text of 1 to 256 printable characters", input({ name: "n".repeat(257) })],
    ["/inputs/0/name is no text of 1 to 256 printable characters", input({ name: "a\nb" })],
    ["/inputs/0/name is no text of 1 to 256 printable characters", input({ name: "a\u202eb" })],
    ["/inputs/0/name is no text of 1 to 256 printable characters", input({ name: 1 })],
    ["/inputs/0/shape is no array of at most 16 lengths", input({ shape: 2 })],
    ["/inputs/0/shape is no array of at most 16 lengths", input({ shape: many(17).map(() => 1) })],
    ["/inputs/0/shape/0 is no length", input({ shape: [-1] })],
    ["/inputs/0/shape/1 is no length", input({ shape: [2, 1.5] })],
    ["/inputs/0/shape/0 is no length", input({ shape: ["2"] })],
    ["/inputs/0/shape/0 is no length", input({ shape: [2 ** 53] })],
    ["/inputs/0/shape says more than 2^31 elements", input({ shape: [2 ** 31 + 1] })],
    ["/inputs/0/shape says more than 2^31 elements", input({ shape: [2 ** 16, 2 ** 16, 0] })],
    ["/inputs/0/data has 2 elements where the shape says 2147483648", input({ shape: [2 ** 31] })],
    ["/inputs/0/data is no array", input({ data: "abc" })],
    ["/inputs/0/data is no array", input({ data: null })],
    ["/inputs/0/data/1 is no number that FP32 can hold", input({ data: [1, "2"] })],
    [
      "/inputs/0/data is JSON, which does not carry FP16: send it as binary data",
      input({ datatype: "FP16" }),
    ],
    [
      "/inputs/0/data is JSON, which does not carry BF16: send it as binary data",
      input({ datatype: "BF16" }),
    ],
    ["/inputs/0/parameters is no object", input({ parameters: [] })],
    ["/inputs/0/parameters/a is neither text nor number nor truth value", input({ parameters: { a: null } })],
    ["/inputs/0/parameters/a is neither text nor number nor truth value", input({ parameters: { a: {} } })],
    [
      "/inputs/0/parameters/a is longer than 4096 characters",
      input({ parameters: { a: "b".repeat(4097) } }),
    ],
    [
      "/inputs/0/parameters has more than 64 members",
      input({ parameters: Object.fromEntries(many(65).map((each) => [`p${each}`, 1])) }),
    ],
    [
      "/inputs/0/parameters/ has a name that is not 1 to 256 printable characters",
      input({ parameters: { "": 1 } }),
    ],
    [
      "/inputs/0/parameters/shared_memory_region is not let through",
      input({ parameters: { shared_memory_region: "r" } }),
    ],
    ["/parameters/binary_data_output is neither true nor false", { parameters: { binary_data_output: 1 } }],
    ["/outputs is no array of at most 256 tensors", { ...input({}) as object, outputs: null }],
    ["/outputs/0/data is not a known field", { ...input({}) as object, outputs: [{ name: "a", data: [] }] }],
    ["/outputs/1/name stands there twice", {
      ...input({}) as object,
      outputs: [{ name: "a" }, { name: "a" }],
    }],
    ["/outputs/0/parameters/binary_data is neither true nor false", {
      ...input({}) as object,
      outputs: [{ name: "a", parameters: { binary_data: "true" } }],
    }],
    ["/outputs/0/parameters/shared_memory_offset is not let through", {
      ...input({}) as object,
      outputs: [{ name: "a", parameters: { shared_memory_offset: 1 } }],
    }],
  ];
  for (const [words, json] of cases) strictEqual(mistakeOf(request(json)), words);
  const datatype = mistakeOf(request(input({ datatype: "fp32" })));
  strictEqual(datatype, `/inputs/0/datatype is none of ${Object.keys(DATATYPES).join(", ")}`);
  strictEqual(mistakeOf(request(input({ datatype: "toString" }))).startsWith("/inputs/0/datatype"), true);
});

Deno.test("sizes of raw bytes must fit datatype, shape and body exactly", () => {
  const sized = (size: unknown, changes: Record<string, unknown> = {}) =>
    input({ data: undefined, ...changes, parameters: { binary_data_size: size } });
  const place = "/inputs/0/parameters/binary_data_size";
  const eight = new Uint8Array(8);
  strictEqual(mistakeOf(request(sized(8), eight)), "accepted");
  strictEqual(
    mistakeOf(request(sized(8))),
    `${place} stands in a body without the header Inference-Header-Content-Length`,
  );
  strictEqual(mistakeOf(request(sized(8), eight.subarray(1))), `${place} is more than the body has`);
  strictEqual(mistakeOf(request(sized(8), new Uint8Array(9))), " has 1 bytes behind those of its tensors");
  strictEqual(mistakeOf(request(input({}), eight)), " has 8 bytes behind those of its tensors");
  strictEqual(
    mistakeOf(request(sized(4), eight)),
    `${place} has 4 bytes where datatype and shape say 8`,
  );
  for (const size of [-1, 1.5, "8", null, true]) {
    const words = mistakeOf(request(sized(size), eight));
    strictEqual(words.startsWith("/inputs/0/parameters/binary_data_size"), true, words);
  }
  strictEqual(
    mistakeOf(request(sized(8, { data: [1, 2] }), eight)),
    "/inputs/0/data stands beside binary_data_size: one of them too many",
  );
  strictEqual(
    mistakeOf(request(sized(2, { datatype: "BOOL" }), new Uint8Array([0, 2]))),
    `${place} has a byte that is neither 0 nor 1`,
  );
  strictEqual(mistakeOf(request(sized(4, { datatype: "FP16" }), new Uint8Array(4))), "accepted");
  strictEqual(mistakeOf(request(sized(0, { shape: [3, 0] }), new Uint8Array(0))), "accepted");
});

Deno.test("a body is split where its header says, and a header that says nothing sound is refused", () => {
  const bytes = encodeUtf8("{}abc");
  const split = (header: string | null) => {
    const parts = splitTensorBody(bytes, header);
    return parts.ok ? [parts.value.json.length, parts.value.raw?.length] : parts.reason;
  };
  deepStrictEqual(split(null), [5, undefined]);
  deepStrictEqual(split("2"), [2, 3]);
  deepStrictEqual(split("5"), [5, 0]);
  for (
    const header of ["", "0", "6", "-1", "+2", "02", "2.0", "2, 2", " 2", "0x2", "1e0", "9".repeat(40), "٢"]
  ) {
    strictEqual(split(header), "head_length_invalid", header);
  }
});

Deno.test("an answer with a mistake is refused, and its words quote nothing of it", () => {
  const output = (changes: Record<string, unknown>): JsonValue => ({
    outputs: [{ name: "x", shape: [1], datatype: "BYTES", data: ["SECRET"], ...changes } as JsonValue],
  });
  strictEqual(mistakeOf(parseTensorAnswer(output({}), undefined)), "accepted");
  for (
    const json of [
      null,
      {},
      { outputs: "SECRET" },
      { outputs: ["SECRET"] },
      output({ name: "SECRET\n" }),
      output({ shape: [2] }),
      output({ shape: ["SECRET"] }),
      output({ datatype: "SECRET" }),
      output({ data: [["SECRET"]] }),
      output({ data: [{ SECRET: 1 }] }),
      output({ data: undefined, parameters: { binary_data_size: "SECRET" } }),
      output({ parameters: { binary_data_size: 10 } }),
    ]
  ) {
    const words = mistakeOf(parseTensorAnswer(json, undefined));
    strictEqual(words === "accepted" || words.includes("SECRET"), false, words);
  }
});

Deno.test("what a model says of its tensors is parsed; open lengths are -1", () => {
  const json = {
    name: "m",
    versions: ["1"],
    platform: "onnxruntime_onnx",
    inputs: [{ name: "text", datatype: "BYTES", shape: [-1, -1], new_field: 1 }],
    outputs: [{ name: "embedding", datatype: "FP32", shape: [-1, 512] }],
  };
  deepStrictEqual(valueOf(parseTensorMetadata(json)), {
    platform: "onnxruntime_onnx",
    inputs: [{ name: "text", datatype: "BYTES", shape: [-1, -1] }],
    outputs: [{ name: "embedding", datatype: "FP32", shape: [-1, 512] }],
  });
  strictEqual(valueOf(parseTensorMetadata({ inputs: [], outputs: [] })).platform, "");
  for (
    const changes of [
      { platform: 1 },
      { platform: "a\u0000" },
      { inputs: undefined },
      { inputs: {} },
      { outputs: [{ name: "a", datatype: "FP32", shape: [-2] }] },
      { outputs: [{ name: "a", datatype: "FP33", shape: [1] }] },
    ]
  ) {
    strictEqual(parseTensorMetadata({ ...json, ...changes } as JsonValue).ok, false);
  }
});

// Arbitraries of what the neutral form can hold.

const name = anyText.map((text) => `n${text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "")}`);
const parameters = fc.option(
  fc.dictionary(name, fc.oneof(fc.boolean(), fc.integer(), anyText), { minKeys: 1, maxKeys: 3 })
    .map((entries) => Object.fromEntries(Object.entries(entries))),
  { nil: undefined },
);
const shape = fc.array(fc.nat(4), { maxLength: 4 });

function elementOf(datatype: Datatype): fc.Arbitrary<JsonValue> {
  switch (datatype) {
    case "BOOL":
      return fc.boolean();
    case "BYTES":
      return anyText;
    case "FP16":
    case "BF16":
    case "FP32":
      // No -0: JSON.stringify writes it as 0.
      return fc.float({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
    case "FP64":
      return fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0);
    default: {
      const signed = datatype.startsWith("INT");
      const bits = Math.min(DATATYPES[datatype] * 8, 53);
      return signed
        ? fc.integer({ min: -(2 ** Math.min(bits - 1, 52)), max: 2 ** Math.min(bits - 1, 52) - 1 })
        : fc.maxSafeNat().map((value) => value % 2 ** bits);
    }
  }
}

function nest(flat: readonly JsonValue[], lengths: readonly number[]): JsonValue[] {
  const [length = 0, ...inner] = lengths;
  if (inner.length === 0) return [...flat];
  const size = inner.reduce((product, each) => product * each, 1);
  return Array.from(
    { length },
    (_, index) => nest(flat.slice(index * size, (index + 1) * size), inner),
  );
}

const tensorOf = (datatypes: readonly Datatype[]): fc.Arbitrary<Omit<Tensor, "name">> =>
  fc.tuple(fc.constantFrom(...datatypes), shape, fc.constantFrom("flat", "nested", "raw"), parameters).chain(
    ([datatype, lengths, form, given]): fc.Arbitrary<Omit<Tensor, "name">> => {
      const count = lengths.reduce((product, each) => product * each, 1);
      const described = { datatype, shape: lengths, ...(given === undefined ? {} : { parameters: given }) };
      const size = DATATYPES[datatype];
      if (form === "raw" || datatype === "FP16" || datatype === "BF16") {
        const bytes = size === undefined
          ? fc.array(anyText, { minLength: count, maxLength: count }).map(textBytes)
          : fc.uint8Array({
            minLength: count * size,
            maxLength: count * size,
            ...(datatype === "BOOL" ? { max: 1 } : {}),
          });
        return bytes.map((each) => ({ ...described, data: { bytes: new Uint8Array(each) } }));
      }
      return fc.array(elementOf(datatype), { minLength: count, maxLength: count }).map((flat) => ({
        ...described,
        data: { json: form === "nested" && lengths.length > 1 ? nest(flat, lengths) : flat },
      }));
    },
  );
const tensors = fc.array(tensorOf(Object.keys(DATATYPES) as Datatype[]), { minLength: 1, maxLength: 4 })
  .chain((list) =>
    fc.uniqueArray(name, { minLength: list.length, maxLength: list.length }).map((names) =>
      list.map((tensor, index): Tensor => ({ name: names[index] ?? "", ...tensor }))
    )
  );
const wanted = fc.uniqueArray(fc.tuple(name, fc.boolean(), parameters), {
  maxLength: 3,
  selector: ([each]) => each,
}).map((list) =>
  list.map(([each, binary, given]) => ({
    name: each,
    binary,
    ...(given === undefined ? {} : { parameters: given }),
  }))
);
const requests: fc.Arbitrary<TensorRequest> = fc.tuple(tensors, wanted, fc.boolean(), parameters).map(
  ([inputs, outputs, binaryOutputs, given]) => ({
    task: "tensor",
    inputs,
    outputs,
    binaryOutputs,
    ...(given === undefined ? {} : { parameters: given }),
  }),
);

Deno.test("any request that is written is parsed to the same, and written again to the same bytes", () => {
  fc.assert(
    fc.property(requests, (written) => {
      const body = writeTensorRequest(written);
      const { request: parsed }: ParsedTensorRequest = valueOf(request(...received(body)));
      deepStrictEqual(parsed, written);
      deepStrictEqual(writeTensorRequest(parsed), body);
    }),
    { numRuns: 200 },
  );
});

Deno.test("any answer that is written is parsed to the same, and written again to the same bytes", () => {
  fc.assert(
    fc.property(tensors, parameters, (outputs, given) => {
      const written: TensorAnswer = { outputs, ...(given === undefined ? {} : { parameters: given }) };
      const body = writeTensorAnswer(written, { modelName: "m" });
      const parsed = valueOf(parseTensorAnswer(...received(body)));
      deepStrictEqual(parsed, written);
      deepStrictEqual(writeTensorAnswer(parsed, { modelName: "m" }), body);
    }),
    { numRuns: 200 },
  );
});

Deno.test("whatever is changed in a body, it is parsed or refused in words, and never thrown", () => {
  const [json, raw] = received(writeTensorRequest({
    task: "tensor",
    inputs: [
      { name: "a", datatype: "FP32", shape: [2, 2], data: { json: [[1, 2], [3, 4]] } },
      { name: "b", datatype: "BYTES", shape: [2], data: { bytes: textBytes(["a", "bc"]) } },
      { name: "c", datatype: "UINT8", shape: [3], parameters: { p: 1 }, data: { bytes: new Uint8Array(3) } },
    ],
    outputs: [{ name: "o", binary: true }],
    binaryOutputs: false,
    parameters: { priority: 1 },
  }));
  const seen = new Set<boolean>();
  const bodies = fc.oneof(
    fc.tuple(mutateJson(json), fc.constant(raw)),
    fc.tuple(fc.constant(json), fc.option(fc.uint8Array({ maxLength: 20 }), { nil: undefined })),
    fc.tuple(fc.constant(json), fc.uint8Array({ minLength: raw?.length ?? 0, maxLength: raw?.length ?? 0 })),
  );
  fc.assert(
    fc.property(bodies, ([changed, rest]) => {
      for (
        const parsed of [
          request(changed, rest),
          parseTensorAnswer(changed, rest),
          parseTensorMetadata(changed),
        ]
      ) {
        if (!parsed.ok) deepStrictEqual(Object.keys(parsed.mistake), ["path", "message"]);
      }
      seen.add(request(changed, rest).ok);
    }),
    { numRuns: 500 },
  );
  deepStrictEqual([...seen].sort(), [false, true]);
});
