// Tests of the reader of TF.js graph models: what fits together is read, all else is refused with the place.
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { Fault } from "../../../src/faults/fault.ts";
import { listTfjsShards, readTfjsGraph } from "../../../src/registry/conversion/tfjs_graph.ts";
import { type ConstantJson, encodeJson, smallGraph } from "./small_graph.ts";

const two: ConstantJson = { name: "two", shape: [2], dtype: "float32", values: [1.5, -2] };

function refusalOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof Fault && error.kind === "unavailable") return error.message;
    throw error;
  }
  throw new Error("nothing was refused");
}

Deno.test("a graph is read with its weights, and each node behind what it reads", () => {
  const { modelJson, shards } = smallGraph(
    [{ name: "sum", op: "Add", input: ["x:0", "two", "^x"] }, { name: "x", op: "Placeholder" }],
    [two],
  );
  deepStrictEqual(listTfjsShards(modelJson), ["shard1of1"]);
  const graph = readTfjsGraph(modelJson, shards);
  deepStrictEqual(graph.nodes.map(({ name }) => name), ["x", "two", "sum"]);
  deepStrictEqual(graph.nodes.at(-1)?.inputs, ["x", "two"]);
  const weight = graph.weights.get("two");
  deepStrictEqual(weight?.dimensions, [2]);
  strictEqual(weight?.bytes.toHex(), "0000c03f000000c0");
});

Deno.test("weight files that are truncated, too long or missing are refused with the place", () => {
  const { modelJson, shards } = smallGraph([], [two]);
  const whole = shards.get("shard1of1") ?? new Uint8Array();
  const read = (bytes: Uint8Array) => () => readTfjsGraph(modelJson, new Map([["shard1of1", bytes]]));
  strictEqual(
    refusalOf(read(whole.subarray(0, 7))),
    "Cannot read the TF.js model: the weight files end at byte 7, inside two",
  );
  strictEqual(
    refusalOf(read(Uint8Array.of(...whole, 0))),
    "Cannot read the TF.js model: the weight files hold 9 bytes, the manifest describes 8",
  );
  strictEqual(
    refusalOf(() => readTfjsGraph(modelJson, new Map())),
    "Cannot read the TF.js model: the weight file shard1of1 is missing",
  );
});

Deno.test("a model.json that is malformed is refused with the place, never with a raw error", () => {
  const group = { paths: ["a"], weights: [{ name: "w", shape: [1], dtype: "float32" }] };
  const model = (change: object) =>
    encodeJson({ modelTopology: { node: [] }, weightsManifest: [group], ...change });
  const cases: readonly (readonly [Uint8Array, RegExp])[] = [
    [Uint8Array.of(0xff), /model\.json is not UTF-8$/],
    [new TextEncoder().encode("{"), /model\.json is not JSON$/],
    [encodeJson([]), /model\.json is wrong at \//],
    [model({ weightsManifest: [{ ...group, paths: ["../a"] }] }), /at \/weightsManifest\/0\/paths\/0:/],
    [model({ weightsManifest: [{ ...group, paths: ["/etc/a"] }] }), /at \/weightsManifest\/0\/paths\/0:/],
    [
      model({ weightsManifest: [{ ...group, weights: [{ name: "w", shape: [-1], dtype: "float32" }] }] }),
      /weights\/0\/shape\/0:/,
    ],
    [
      model({ weightsManifest: [{ ...group, weights: [{ name: "w", shape: [1], dtype: "string" }] }] }),
      /weights\/0\/dtype:/,
    ],
    [
      model({
        weightsManifest: [{
          ...group,
          weights: [{ name: "w", shape: [1], dtype: "float32", quantization: { dtype: "uint8" } }],
        }],
      }),
      /weights\/0\/quantization: quantized weights are not supported$/,
    ],
    [model({ modelTopology: { node: [{ name: "n" }] } }), /at \/modelTopology\/node\/0\/op:/],
  ];
  for (const [bytes, expected] of cases) {
    throws(() => readTfjsGraph(bytes, new Map([["a", new Uint8Array(4)]])), {
      name: "Fault",
      message: expected,
    });
  }
});

Deno.test("a graph whose parts do not fit together is refused with the node's name", () => {
  const refusal = (nodes: Parameters<typeof smallGraph>[0]) => {
    const { modelJson, shards } = smallGraph(nodes, []);
    return refusalOf(() => readTfjsGraph(modelJson, shards)).replace("Cannot read the TF.js model: ", "");
  };
  strictEqual(refusal([{ name: "c", op: "Const" }]), "no weights belong to the constant c");
  strictEqual(
    refusal([{ name: "a", op: "Relu", input: ["b:0"] }]),
    "a reads b, which is not there",
  );
  strictEqual(
    refusal([{ name: "a", op: "Range" }, { name: "a", op: "Range" }]),
    "two nodes have the same name",
  );
  strictEqual(
    refusal([{ name: "a", op: "Relu", input: ["b"] }, { name: "b", op: "Relu", input: ["a:1"] }]),
    "the graph runs in a circle through a",
  );
});

Deno.test("two weights of one name are refused", () => {
  const { modelJson, shards } = smallGraph([], [two, two]);
  strictEqual(
    refusalOf(() => readTfjsGraph(modelJson, shards)),
    "Cannot read the TF.js model: two weights are called two",
  );
});
