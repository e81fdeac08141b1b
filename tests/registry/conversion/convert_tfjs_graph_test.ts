// Tests of the conversion to ONNX: the whole default model by its reference vectors, and single operations by running them.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { hash } from "node:crypto";
import {
  createUnigramTokenizer,
  parseUnigramVocabulary,
} from "../../../src/engines/onnx/unigram_tokenizer.ts";
import { convertTfjsGraph, type GraphEnds } from "../../../src/registry/conversion/convert_tfjs_graph.ts";
import type { OnnxPort } from "../../../src/registry/conversion/onnx_model.ts";
import { listTfjsShards, readTfjsGraph } from "../../../src/registry/conversion/tfjs_graph.ts";
import {
  USE_LITE_ENDS,
  USE_LITE_FILES,
  USE_LITE_PACKAGE,
} from "../../../src/registry/conversion/use_lite.ts";
import { modelCardSchema } from "../../../src/registry/model_card.ts";
import reference from "../fixtures/use_lite_reference.json" with { type: "json" };
import { float32Tensor, int64Tensor, numbersOf, openSession } from "./onnx_session.ts";
import { type ConstantJson, type NodeJson, smallGraph } from "./small_graph.ts";

const ROOT = new URL("../../../", import.meta.url);
const PACKAGE = new URL(`node_modules/${USE_LITE_PACKAGE}/${USE_LITE_FILES.folder}/`, ROOT);

function convertUseLite(): Uint8Array<ArrayBuffer> {
  const modelJson = Deno.readFileSync(new URL(USE_LITE_FILES.model, PACKAGE));
  const shards = new Map(
    listTfjsShards(modelJson).map((name) => [name, Deno.readFileSync(new URL(name, PACKAGE))]),
  );
  return convertTfjsGraph(readTfjsGraph(modelJson, shards), USE_LITE_ENDS);
}

Deno.test("the conversion of use-lite gives exactly the file that its card describes", () => {
  const card = modelCardSchema.parse(
    JSON.parse(Deno.readTextFileSync(new URL("models/use-lite/card.json", ROOT))),
  );
  const bytes = convertUseLite();
  strictEqual(hash("sha256", bytes, "hex"), card.artefacts.graph.sha256);
  strictEqual(bytes.length, card.artefacts.graph.bytes);
  const vocabulary = Deno.readFileSync(new URL(USE_LITE_FILES.vocabulary, PACKAGE));
  strictEqual(hash("sha256", vocabulary, "hex"), card.artefacts.vocabulary.sha256);
});

Deno.test("the converted use-lite gives the reference's vectors, alone and in a batch", async () => {
  const tokenize = createUnigramTokenizer(
    parseUnigramVocabulary(Deno.readFileSync(new URL(USE_LITE_FILES.vocabulary, PACKAGE))),
  );
  const session = await openSession(convertUseLite());
  try {
    deepStrictEqual([session.inputNames, session.outputNames], [["indices", "values"], ["embedding"]]);
    const embed = async (texts: readonly string[]): Promise<number[]> => {
      const rows = texts.map((text) => [...tokenize(text)]);
      const indices = rows.flatMap((row, text) => row.flatMap((_, place) => [text, place]));
      const { embedding } = await session.run({
        indices: int64Tensor(indices, [indices.length / 2, 2]),
        values: int64Tensor(rows.flat(), [indices.length / 2]),
      });
      deepStrictEqual(embedding?.dims, [texts.length, 512]);
      return numbersOf(embedding);
    };
    const { cases } = reference;
    strictEqual(cases.length, 4);
    for (const { text, vector } of cases) assertClose(await embed([text]), vector);
    assertClose(await embed(cases.map(({ text }) => text)), cases.flatMap(({ vector }) => vector));
  } finally {
    await session.release();
  }
});

function assertClose(actual: readonly number[], expected: readonly number[]): void {
  strictEqual(actual.length, expected.length);
  const worst = Math.max(...actual.map((value, index) => Math.abs(value - (expected[index] ?? NaN))));
  ok(worst <= 1e-5, `a component differs by ${worst}`);
}

/** Converts a small graph whose one node `y` is tried; its other nodes are the inputs. */
function convertSmall(
  y: Omit<NodeJson, "name">,
  inputs: readonly OnnxPort[],
  constants: readonly ConstantJson[],
  output: Omit<OnnxPort, "name">,
  outputNode = "y",
): Uint8Array<ArrayBuffer> {
  const nodes = [...inputs.map(({ name }) => ({ name, op: "Placeholder" })), { name: "y", ...y }];
  const { modelJson, shards } = smallGraph(nodes, constants);
  const ends: GraphEnds = { name: "small", inputs, output: { name: "out", ...output }, outputNode };
  return convertTfjsGraph(readTfjsGraph(modelJson, shards), ends);
}

const int32s = (name: string, values: number[]): ConstantJson => ({
  name,
  shape: [values.length],
  dtype: "int32",
  values,
});

Deno.test("an unsupported operation is refused by its name and its node's", () => {
  throws(() => convertSmall({ op: "FakeQuant" }, [], [], { elementType: "float32", dimensions: [] }), {
    name: "Fault",
    kind: "unavailable",
    message: "Cannot convert y: the operation FakeQuant is not supported",
  });
});

Deno.test("an unsupported variant of a supported operation is refused, not converted wrongly", () => {
  const x: OnnxPort = { name: "x", elementType: "float32", dimensions: [1, 2, 2, 1] };
  const kernel: ConstantJson = { name: "k", shape: [2, 1, 1, 1], dtype: "float32", values: [1, 1] };
  const point: ConstantJson = { name: "k", shape: [1, 1, 1, 1], dtype: "float32", values: [1] };
  const slice = [int32s("begin", [0]), int32s("end", [1]), int32s("stride", [1])];
  const variants: readonly (readonly [Omit<NodeJson, "name">, readonly ConstantJson[], string])[] = [
    [{ op: "MatMul", input: ["x", "x"], attr: { transpose_b: { b: true } } }, [], "transposed operands"],
    [{ op: "BatchMatMul", input: ["x", "x"], attr: { adj_x: { b: true } } }, [], "a transposed left operand"],
    [{ op: "Conv2D", input: ["x", "k"] }, [kernel], "only kernels of 1×1"],
    [
      { op: "Conv2D", input: ["x", "k"], attr: { strides: { list: { i: ["1", "2", "2", "1"] } } } },
      [point],
      "only strides and dilations of 1",
    ],
    [{ op: "BiasAdd", input: ["x", "x"], attr: { data_format: { s: [78, 67, 72, 87] } } }, [], "NHWC"],
    [{ op: "Cast", input: ["x"], attr: { DstT: { type: 7 } } }, [], "target type"],
    [{ op: "Squeeze", input: ["x"] }, [], "axes to remove"],
    [
      { op: "StridedSlice", input: ["x", "begin", "end", "stride"], attr: { ellipsis_mask: { i: "1" } } },
      slice,
      "ellipses",
    ],
    [
      { op: "StridedSlice", input: ["x", "begin", "end", "back"] },
      [...slice.slice(0, 2), int32s("back", [-1])],
      "negative strides",
    ],
    [{ op: "Transpose", input: ["x", "x"] }, [], "its input 1 is not a constant"],
    [{ op: "Transpose", input: ["x", "k"] }, [point], "its input 1 holds no integers"],
    [{ op: "Square" }, [], "it has no input 0"],
  ];
  for (const [y, constants, words] of variants) {
    throws(
      () => convertSmall(y, [x], constants, { elementType: "float32", dimensions: [] }),
      (error: Error) =>
        error.message.startsWith(`Cannot convert y (${y.op}): `) && error.message.includes(words),
      words,
    );
  }
});

Deno.test("inputs and outputs that the graph does not have are refused", () => {
  const output = { elementType: "float32", dimensions: [] } as const;
  throws(
    () => convertSmall({ op: "Placeholder" }, [], [], output),
    /y \(Placeholder\): it is not among the inputs/,
  );
  throws(
    () => convertSmall({ op: "Range" }, [], [], output, "z"),
    /Cannot convert the graph: it has no node z$/,
  );
});

Deno.test("StridedSlice keeps TensorFlow's meaning of its masks and of −1", async () => {
  const x: OnnxPort = { name: "x", elementType: "float32", dimensions: [3, 4] };
  const constants = [int32s("begin", [-1, 1]), int32s("end", [0, 2]), int32s("stride", [1, 2])];
  // x[-1, :: 2] from column 1 on: shrink the first axis, ignore the second's end.
  const bytes = convertSmall(
    {
      op: "StridedSlice",
      input: ["x", "begin", "end", "stride"],
      attr: { shrink_axis_mask: { i: "1" }, end_mask: { i: "2" } },
    },
    [x],
    constants,
    { elementType: "float32", dimensions: ["n"] },
  );
  const session = await openSession(bytes);
  try {
    const { out } = await session.run({
      x: float32Tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [3, 4]),
    });
    deepStrictEqual([out?.dims, numbersOf(out)], [[2], [9, 11]]);
  } finally {
    await session.release();
  }
});

Deno.test("Slice reads to the end where the size is −1", async () => {
  const x: OnnxPort = { name: "x", elementType: "float32", dimensions: [2, 3] };
  const bytes = convertSmall(
    { op: "Slice", input: ["x", "begin", "size"] },
    [x],
    [int32s("begin", [0, 1]), int32s("size", [1, -1])],
    { elementType: "float32", dimensions: ["a", "b"] },
  );
  const session = await openSession(bytes);
  try {
    const { out } = await session.run({ x: float32Tensor([0, 1, 2, 3, 4, 5], [2, 3]) });
    deepStrictEqual([out?.dims, numbersOf(out)], [[1, 2], [1, 2]]);
  } finally {
    await session.release();
  }
});

Deno.test("the second output of a node is reached by its name", async () => {
  const bytes = (() => {
    const { modelJson, shards } = smallGraph(
      [
        { name: "x", op: "Placeholder" },
        { name: "parts", op: "SplitV", input: ["x", "lengths", "axis"], attr: { num_split: { i: "2" } } },
        { name: "y", op: "Square", input: ["parts:1"] },
      ],
      [int32s("lengths", [1, 2]), { name: "axis", shape: [], dtype: "int32", values: [0] }],
    );
    return convertTfjsGraph(readTfjsGraph(modelJson, shards), {
      name: "small",
      inputs: [{ name: "x", elementType: "float32", dimensions: [3] }],
      output: { name: "out", elementType: "float32", dimensions: [2] },
      outputNode: "y",
    });
  })();
  const session = await openSession(bytes);
  try {
    const { out } = await session.run({ x: float32Tensor([2, 3, 4], [3]) });
    deepStrictEqual(numbersOf(out), [9, 16]);
  } finally {
    await session.release();
  }
});
