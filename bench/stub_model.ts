// Stub model: called "stub" wherever it shows. It computes nothing, so that what is measured with it is the gate.
import type { Engine } from "../src/engines/engine.ts";
import type { EmbeddingRequest, WholeAnswer, WholeRequest, WholeTask } from "../src/engines/task.ts";

export const STUB_ID = "stub";
const DIMENSIONS = 384;

/** 384 numbers as long in JSON as a real model's are. */
export const STUB_VECTOR: Float32Array = Float32Array.from(
  { length: DIMENSIONS },
  (_, index) => Math.sin(index + 1) / Math.sqrt(DIMENSIONS / 2),
);

/** Answers at once, and every text with the same vector. */
export const stubEngine: Engine = {
  modelId: STUB_ID,
  state: () => "ready",
  run<T extends WholeTask>(request: WholeRequest<T>): Promise<WholeAnswer<T>> {
    const { texts } = request as EmbeddingRequest;
    const vectors = new Float32Array(texts.length * DIMENSIONS);
    texts.forEach((_, index) => vectors.set(STUB_VECTOR, index * DIMENSIONS));
    const usage = { inputTokens: 12 * texts.length, outputTokens: 0, countedBy: "engine" } as const;
    return Promise.resolve({ vectors, dimensions: DIMENSIONS, usage } as WholeAnswer<T>);
  },
  stream: () => Promise.reject(new Error("the stub does not stream")),
  close: () => Promise.resolve(),
};

/** Writes a models folder with the stub's card, for the catalog to accept. */
export async function writeStubModel(folder: string): Promise<void> {
  await Deno.mkdir(`${folder}/${STUB_ID}`, { recursive: true });
  const bytes = new TextEncoder().encode("not a graph: the engine is a stub");
  const sha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
  const artefact = { file: "stub.bin", sha256, bytes: bytes.length };
  await Deno.writeFile(`${folder}/${STUB_ID}/${artefact.file}`, bytes);
  const card = {
    id: STUB_ID,
    task: "embedding",
    name: "Stub",
    description: "Computes nothing.",
    license: "Apache-2.0",
    source: "bench",
    createdSeconds: 1,
    artefacts: { graph: artefact, vocabulary: artefact },
    dimensions: DIMENSIONS,
    dimensionsReducible: false,
    limits: {
      textsPerRequestMax: 8,
      charactersPerTextMax: 1000,
      tokensPerTextMax: 128,
      tokensPerRequestMax: 1024,
    },
    access: { see: ["admin"], use: ["admin"] },
  };
  await Deno.writeTextFile(`${folder}/${STUB_ID}/card.json`, JSON.stringify(card));
}
