// Bare model: the model in a worker with the server's settings, called without a server.
import { runtimeWasmUrl } from "../src/engines/onnx/runtime_wasm.ts";
import { startSandboxedWorker } from "../src/engines/onnx/sandboxed_worker.ts";
import { createUnigramTokenizer, parseUnigramVocabulary } from "../src/engines/onnx/unigram_tokenizer.ts";
import { packRows, type TokenRows } from "../src/engines/onnx/worker_messages.ts";
import type { BareOrder, BareReport } from "./bare_model_worker.ts";

export interface BareModel {
  /** Runs batch after batch; texts a second. */
  textsPerSecond(batches: readonly (readonly string[])[], durationMs: number): Promise<number>;
  close(): void;
}

/** @param modelFolder a model's folder, built */
export async function openBareModel(modelFolder: string): Promise<BareModel> {
  const { artefacts } = JSON.parse(await Deno.readTextFile(`${modelFolder}/card.json`));
  const read = (artefact: { file: string }) => Deno.readFile(`${modelFolder}/${artefact.file}`);
  const tokenize = createUnigramTokenizer(parseUnigramVocabulary(await read(artefacts.vocabulary)));
  const worker = startSandboxedWorker(new URL("./bare_model_worker.ts", import.meta.url));
  const order = (message: BareOrder): Promise<BareReport> => {
    const { promise, resolve, reject } = Promise.withResolvers<BareReport>();
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(`Cannot run the bare model: ${event.message}`));
    };
    worker.postMessage(message);
    return promise;
  };
  await order({
    kind: "start",
    graph: await read(artefacts.graph),
    runtimeWasm: await Deno.readFile(runtimeWasmUrl),
  });
  return {
    async textsPerSecond(texts, durationMs) {
      const batches = texts.map((batch): TokenRows => packRows(batch.map(tokenize)));
      const { texts: count, elapsedMs } = await order({ kind: "run", batches, durationMs });
      return count * 1000 / elapsedMs;
    },
    close: () => worker.terminate(),
  };
}
