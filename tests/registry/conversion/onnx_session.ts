// Runs ONNX bytes in the test process, on the runtime that the server uses.
import * as ort from "onnxruntime-web";
import { encodeOnnxModel, type OnnxPort } from "../../../src/registry/conversion/onnx_model.ts";

ort.env.wasm.wasmBinary = Deno.readFileSync(
  new URL("../../../node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", import.meta.url),
).buffer;
ort.env.wasm.numThreads = 1;

// The runtime opens a message port with its first session and keeps it. So that happens here, before any test: in one,
// it would count as a leak.
const port = (name: string): OnnxPort => ({ name, elementType: "float32", dimensions: [1] });
const first = await openSession(encodeOnnxModel({
  name: "identity",
  nodes: [{ name: "y", operation: "Identity", inputs: ["x"], outputs: ["y"], attributes: {} }],
  constants: [],
  inputs: [port("x")],
  outputs: [port("y")],
}));
await first.release();

/** Opens a session; `release` it at the end. */
export function openSession(model: Uint8Array): Promise<ort.InferenceSession> {
  return ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
}

/** A tensor of int64. */
export function int64Tensor(values: readonly number[], dimensions: readonly number[]): ort.Tensor {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), dimensions);
}

/** A tensor of float32. */
export function float32Tensor(values: readonly number[], dimensions: readonly number[]): ort.Tensor {
  return new ort.Tensor("float32", Float32Array.from(values), dimensions);
}

/** A tensor's numbers. */
export function numbersOf(tensor: ort.Tensor | undefined): number[] {
  if (tensor === undefined || tensor.type === "string") throw new Error("not a tensor of numbers");
  return Array.from(tensor.data as Float32Array | BigInt64Array, Number);
}
