// Inference worker: runs the ONNX graph over token ids. Everything that it needs comes in its first message.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import * as ort from "onnxruntime-web";
import {
  type InferenceOrder,
  packRows,
  type TokenRows,
  type VectorsAnswer,
  type WorkerReport,
} from "./worker_messages.ts";

/**
 * V8 compiles hot code again while it runs; until then a run takes several times as long. These runs, twice, were
 * measured to be enough.
 */
const WARM_UP_LENGTHS: readonly (readonly number[])[] = [
  [5],
  [12],
  [5, 5, 5, 5],
  [24, 24],
  [64],
  [8, 8, 8, 8, 8, 8, 8, 8],
];

let session: ort.InferenceSession | undefined;

self.onmessage = async ({ data }: MessageEvent<InferenceOrder>) => {
  if (data.kind === "start") self.postMessage(await start(data.graph, data.runtimeWasm));
  else await answer(data);
};

async function start(graph: Uint8Array, runtimeWasm: Uint8Array): Promise<WorkerReport> {
  try {
    ort.env.wasm.wasmBinary = runtimeWasm;
    ort.env.wasm.numThreads = 1; // more threads collapse under load; the engine scales by workers
    session = await ort.InferenceSession.create(graph, {
      executionProviders: ["wasm"],
      // The graph runs no faster for the optimiser's work, which takes a third of the start.
      graphOptimizationLevel: "disabled",
      logSeverityLevel: 4, // nothing to the console: a refusal tells its reason
    });
    for (const lengths of [...WARM_UP_LENGTHS, ...WARM_UP_LENGTHS]) {
      await embed(packRows(lengths.map((length) => new Int32Array(length))));
    }
    return { kind: "started" };
  } catch (error) {
    return { kind: "refused", reason: String(error) };
  }
}

async function answer(rows: TokenRows): Promise<void> {
  try {
    const vectors = await embed(rows);
    const message: VectorsAnswer = { kind: "vectors", vectors };
    self.postMessage(message, [vectors.buffer]);
  } catch (error) {
    const report: WorkerReport = { kind: "refused", reason: String(error) };
    self.postMessage(report);
  }
}

/**
 * The graph takes a sparse matrix: (row, position) and id of each token. It counts its rows by the last one that it
 * sees, so that an empty last text would have no vector (and a run of empty texts alone would fail): a row of one token
 * closes such a run and its vector is left out. An empty row before others has one fixed vector.
 */
async function embed({ ids, lengths }: TokenRows): Promise<Float32Array<ArrayBuffer>> {
  if (session === undefined) throw new Error("Cannot run the graph: not started");
  const closing = lengths.at(-1) === 0 ? 1 : 0;
  const tokens = ids.length + closing;
  const indices = new BigInt64Array(tokens * 2);
  const values = new BigInt64Array(tokens);
  let token = 0;
  lengths.forEach((length, row) => {
    for (let position = 0; position < length; position++, token++) {
      indices[token * 2] = BigInt(row);
      indices[token * 2 + 1] = BigInt(position);
      values[token] = BigInt(ids[token] ?? 0);
    }
  });
  if (closing === 1) indices[token * 2] = BigInt(lengths.length);
  const { embedding } = await session.run({
    indices: new ort.Tensor("int64", indices, [tokens, 2]),
    values: new ort.Tensor("int64", values, [tokens]),
  });
  if (embedding === undefined || !(embedding.data instanceof Float32Array)) {
    throw new Error("Cannot use the graph: it has no float32 output called embedding");
  }
  const dimensions = embedding.data.length / (lengths.length + closing);
  const vectors = embedding.data.slice(0, dimensions * lengths.length);
  embedding.dispose();
  return vectors;
}
