// Bare model worker: the ONNX runtime and nothing else, over inputs that were tokenized beforehand.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import * as ort from "onnxruntime-web";
import type { TokenRows } from "../src/engines/onnx/worker_messages.ts";

export type BareOrder =
  | { readonly kind: "start"; readonly graph: Uint8Array; readonly runtimeWasm: Uint8Array }
  | { readonly kind: "run"; readonly batches: readonly TokenRows[]; readonly durationMs: number };

/** To `run`; a start is answered with zeros. */
export interface BareReport {
  readonly texts: number;
  readonly elapsedMs: number;
}

let session: ort.InferenceSession | undefined;

self.onmessage = async ({ data }: MessageEvent<BareOrder>) => {
  if (data.kind === "run") {
    self.postMessage(await runFor(data.batches.map(toFeeds), data.durationMs));
    return;
  }
  ort.env.wasm.wasmBinary = data.runtimeWasm;
  ort.env.wasm.numThreads = 1;
  session = await ort.InferenceSession.create(data.graph, { executionProviders: ["wasm"] });
  self.postMessage({ texts: 0, elapsedMs: 0 } satisfies BareReport);
};

interface Feeds {
  readonly texts: number;
  readonly tensors: { readonly indices: ort.Tensor; readonly values: ort.Tensor };
}

async function runFor(batches: readonly Feeds[], durationMs: number): Promise<BareReport> {
  if (session === undefined) throw new Error("Cannot run the graph: not started");
  let texts = 0;
  const startMs = performance.now();
  for (let call = 0; performance.now() - startMs < durationMs; call++) {
    const batch = batches[call % batches.length];
    if (batch === undefined) throw new Error("Cannot run the graph: there are no inputs");
    const { embedding } = await session.run(batch.tensors);
    embedding?.dispose();
    texts += batch.texts;
  }
  return { texts, elapsedMs: performance.now() - startMs };
}

/** (row, position) and id of each token; no text is empty. */
function toFeeds({ ids, lengths }: TokenRows): Feeds {
  const places = [...lengths].flatMap((length, row) =>
    Array.from({ length }, (_, position) => [BigInt(row), BigInt(position)]).flat()
  );
  return {
    texts: lengths.length,
    tensors: {
      indices: new ort.Tensor("int64", BigInt64Array.from(places), [ids.length, 2]),
      values: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [ids.length]),
    },
  };
}
