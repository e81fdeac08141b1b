import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import type { JsonValue } from "../../../../src/encoding/canonical_json.ts";
import { encodeUtf8 } from "../../../../src/encoding/utf8.ts";
import type { TensorRequest } from "../../../../src/engines/tensor.ts";
import { writeTensorAnswer } from "../../../../src/engines/tensor_codec.ts";
import { float32Bytes } from "../../../../src/engines/tensor_data.ts";
import { openinferenceWire } from "../../../../src/engines/upstream/openinference/openinference_wire.ts";
import type { WireAnswer, WireRequest } from "../../../../src/engines/upstream/wire.ts";
import { Fault, type FaultKind } from "../../../../src/faults/fault.ts";
import { mutateJson } from "../mutate_json.ts";

const OPTIONS = { model: "resnet", usageInStreams: false };
const BYTES = new Uint8Array([1, 2, 3]);
const REQUEST: TensorRequest = {
  task: "tensor",
  inputs: [
    { name: "a", datatype: "INT64", shape: [2], data: { json: [1, 2] } },
    { name: "b", datatype: "UINT8", shape: [3], data: { bytes: BYTES } },
  ],
  outputs: [],
  binaryOutputs: false,
};

function answer(body: JsonValue | Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}): WireAnswer {
  const bytes = body instanceof Uint8Array ? body : encodeUtf8(JSON.stringify(body));
  return { mediaType: "application/json", headers: new Headers(headers), bytes };
}

function textOf({ body }: WireRequest): string {
  return new TextDecoder().decode(body as Uint8Array);
}

function isKind(kind: FaultKind) {
  return (thrown: unknown) => thrown instanceof Fault && thrown.kind === kind;
}

const tensor = (request: Partial<TensorRequest>) =>
  openinferenceWire.whole<"tensor">({ ...REQUEST, ...request }, OPTIONS);
const output = (changes: Record<string, unknown>): JsonValue =>
  ({ name: "o", datatype: "FP32", shape: [2], data: [1, 2], ...changes }) as JsonValue;

Deno.test("tensors go to the model's infer path in the form in which they came", () => {
  const { body, ...request } = tensor({}).request;
  const head = '{"inputs":[{"name":"a","shape":[2],"datatype":"INT64","data":[1,2]},' +
    '{"name":"b","shape":[3],"datatype":"UINT8","parameters":{"binary_data_size":3}}]}';
  deepStrictEqual(request, {
    method: "POST",
    path: "/v2/models/resnet/infer",
    headers: {
      "Content-Type": "application/octet-stream",
      "Inference-Header-Content-Length": String(head.length),
    },
    accept: ["application/json"],
  });
  deepStrictEqual(body, new Uint8Array([...encodeUtf8(head), 1, 2, 3]));

  const json = tensor({ inputs: REQUEST.inputs.slice(0, 1), outputs: [{ name: "o", binary: true }] }).request;
  strictEqual(
    textOf(json),
    '{"inputs":[{"name":"a","shape":[2],"datatype":"INT64","data":[1,2]}],' +
      '"outputs":[{"name":"o","parameters":{"binary_data":true}}]}',
  );
  deepStrictEqual(json.headers, { "Content-Type": "application/json" });
  deepStrictEqual(json.accept, ["application/json", "application/octet-stream"]);
  deepStrictEqual(tensor({ binaryOutputs: true }).request.accept.length, 2);
});

Deno.test("a model's name stays one segment of the path, or is refused", () => {
  const pathOf = (model: string) =>
    openinferenceWire.whole<"tensor_metadata">({ task: "tensor_metadata" }, { ...OPTIONS, model }).request
      .path;
  strictEqual(pathOf("a/b?c#d@e%2e"), "/v2/models/a%2Fb%3Fc%23d%40e%252e");
  strictEqual(pathOf("../admin"), "/v2/models/..%2Fadmin");
  for (const model of ["", ".", "..", "\ud800"]) throws(() => pathOf(model), isKind("internal"));
  fc.assert(fc.property(fc.string({ unit: "grapheme", minLength: 1 }), (model) => {
    fc.pre(model !== "." && model !== "..");
    const { pathname, search, hash } = new URL(`http://upstream${pathOf(model)}`);
    strictEqual(decodeURIComponent(pathname.slice("/v2/models/".length)), model);
    deepStrictEqual([pathname.split("/").length, search, hash], [4, "", ""]);
  }));
});

Deno.test("an answer in JSON is read, and one in raw bytes where those were asked for", () => {
  const json = { model_name: "resnet", id: "1", outputs: [output({})], parameters: { sequence_id: 0 } };
  deepStrictEqual(tensor({}).read(answer(json)), {
    outputs: [{ name: "o", datatype: "FP32", shape: [2], data: { json: [1, 2] } }],
    parameters: { sequence_id: 0 },
  });
  const bytes = float32Bytes(new Float32Array([1, 2]));
  const written = writeTensorAnswer(
    { outputs: [{ name: "o", datatype: "FP32", shape: [2], data: { bytes } }] },
    { modelName: "resnet" },
  );
  const raw = answer(written.bytes, written.headers);
  const expected = { outputs: [{ name: "o", datatype: "FP32", shape: [2], data: { bytes } }] };
  deepStrictEqual(tensor({ binaryOutputs: true }).read(raw), expected);
  deepStrictEqual(tensor({ outputs: [{ name: "o", binary: true }] }).read(raw), expected);
  // Who can read raw bytes can read JSON.
  strictEqual(tensor({ binaryOutputs: true }).read(answer(json)).outputs.length, 1);
  throws(() => tensor({}).read(raw), isKind("upstream_answer_invalid"));
  throws(
    () => tensor({ outputs: [{ name: "o", binary: false }] }).read(raw),
    isKind("upstream_answer_invalid"),
  );
});

Deno.test("the outputs that were asked for come in that order, and no others", () => {
  const json = { outputs: [output({ name: "x" }), output({ name: "o" }), output({ name: "p" })] };
  const { outputs } = tensor({ outputs: [{ name: "p", binary: false }, { name: "o", binary: false }] })
    .read(answer(json));
  deepStrictEqual(outputs.map(({ name }) => name), ["p", "o"]);
  throws(
    () => tensor({ outputs: [{ name: "q", binary: false }] }).read(answer(json)),
    isKind("upstream_answer_invalid"),
  );
});

Deno.test("an answer that is none is refused, and the reason quotes nothing of it", () => {
  const { read } = tensor({});
  const broken: readonly WireAnswer[] = [
    answer(new Uint8Array()),
    answer(new Uint8Array([0xff])),
    answer(encodeUtf8("<html>SECRET</html>")),
    answer(encodeUtf8(`${"[".repeat(100_000)}${"]".repeat(100_000)}`)),
    answer(
      encodeUtf8(
        `{"outputs":[{"name":"o","shape":[1,1],"datatype":"FP32","data":[${"[".repeat(1e5)}${
          "]".repeat(1e5)
        }]}]}`,
      ),
    ),
    answer({ error: "SECRET" }),
    answer({ outputs: [output({ data: ["SECRET"] })] }),
    answer({ outputs: [output({ shape: [3] })] }),
    answer({ outputs: [output({ datatype: "SECRET" })] }),
    answer({ outputs: [] }, { "inference-header-content-length": "99" }),
    answer({ outputs: [] }, { "inference-header-content-length": "SECRET" }),
    answer({ outputs: [] }, { "inference-header-content-length": "10" }),
  ];
  for (const each of broken) {
    throws(() => read(each), (thrown) => {
      strictEqual(isKind("upstream_answer_invalid")(thrown), true);
      strictEqual((thrown as Fault).message.includes("SECRET"), false);
      return true;
    });
  }
});

Deno.test("a model's metadata is asked for and read", () => {
  const { request, read } = openinferenceWire.whole<"tensor_metadata">({ task: "tensor_metadata" }, OPTIONS);
  deepStrictEqual(request, {
    method: "GET",
    path: "/v2/models/resnet",
    headers: {},
    accept: ["application/json"],
  });
  const described = {
    platform: "onnx",
    inputs: [{ name: "text", datatype: "BYTES", shape: [-1] }],
    outputs: [{ name: "embedding", datatype: "FP32", shape: [-1, 512] }],
  };
  deepStrictEqual(read(answer({ name: "resnet", versions: ["1"], ...described })), described);
  throws(() => read(answer({ ...described, inputs: null })), isKind("upstream_answer_invalid"));
});

Deno.test("texts are embedded as a BYTES tensor, and the first FP32 output is their vectors", () => {
  const { request, read } = openinferenceWire.whole<"embedding">(
    { task: "embedding", texts: ["a", 'b"'] },
    OPTIONS,
  );
  strictEqual(request.path, "/v2/models/resnet/infer");
  strictEqual(
    textOf(request),
    '{"inputs":[{"name":"text","shape":[2],"datatype":"BYTES","data":["a","b\\""]}]}',
  );
  const vectors = new Float32Array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
  const found = {
    vectors,
    dimensions: 3,
    usage: { inputTokens: 0, outputTokens: 0, countedBy: "estimate" },
  };
  const other = output({ name: "tokens", datatype: "INT64" });
  const flat = output({ name: "embedding", shape: [2, 3], data: [...vectors] });
  deepStrictEqual(read(answer({ outputs: [other, flat] })), found);
  const nested = output({ shape: [2, 3], data: [[...vectors.subarray(0, 3)], [...vectors.subarray(3)]] });
  deepStrictEqual(read(answer({ outputs: [nested] })), found);
  for (
    const outputs of [
      [],
      [other],
      [output({ shape: [6], data: [...vectors] })],
      [output({ shape: [3, 2], data: [...vectors] })],
      [output({ shape: [2, 0], data: [] })],
      [output({ shape: [2, 3, 1], data: [...vectors] })],
    ]
  ) {
    throws(() => read(answer({ outputs })), isKind("upstream_answer_invalid"));
  }
});

Deno.test("another length of vectors is refused at its place: the protocol has no word for it", () => {
  throws(
    () => openinferenceWire.whole<"embedding">({ task: "embedding", texts: ["a"], dimensions: 64 }, OPTIONS),
    (thrown) =>
      isKind("fields_invalid")(thrown) && (thrown as Fault).details.fields?.[0]?.path === "/dimensions",
  );
});

Deno.test("the secret is a bearer token, health is readiness, and all other tasks are missing", () => {
  strictEqual(openinferenceWire.kind, "openinference");
  strictEqual(openinferenceWire.healthPath, "/v2/health/ready");
  deepStrictEqual(openinferenceWire.credentialHeaders("KEY"), { authorization: "Bearer KEY" });
  const missing = isKind("capability_missing");
  throws(() => openinferenceWire.whole<"moderation">({ task: "moderation", texts: ["a"] }, OPTIONS), missing);
  throws(
    () =>
      openinferenceWire.stream<"speech">({ task: "speech", text: "a", voice: "b", format: "wav" }, OPTIONS),
    missing,
  );
});

Deno.test("whatever is changed in an answer, it is read or refused as invalid", () => {
  const json = {
    model_name: "resnet",
    outputs: [
      output({ shape: [2, 2], data: [[1, 2], [3, 4]] }),
      output({ name: "b", datatype: "BYTES", data: ["x", "y"] }),
    ],
    parameters: { a: 1 },
  };
  const calls = [
    tensor({}),
    tensor({ outputs: [{ name: "o", binary: true }] }),
    openinferenceWire.whole<"embedding">({ task: "embedding", texts: ["a", "b"] }, OPTIONS),
    openinferenceWire.whole<"tensor_metadata">({ task: "tensor_metadata" }, OPTIONS),
  ];
  const seen = new Set<FaultKind | "read">();
  fc.assert(
    fc.property(mutateJson(json), fc.constantFrom(...calls), (changed, { read }) => {
      try {
        read(answer(changed));
        seen.add("read");
      } catch (thrown) {
        if (!(thrown instanceof Fault)) throw thrown;
        seen.add(thrown.kind);
      }
    }),
    { numRuns: 500 },
  );
  deepStrictEqual([...seen].sort(), ["read", "upstream_answer_invalid"]);
});
