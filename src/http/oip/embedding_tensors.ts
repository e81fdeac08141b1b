// Embedding tensors: texts as a BYTES tensor called "text", their vectors as an FP32 tensor called "embedding".
import { z } from "@hono/zod-openapi";
import { parseTensorRequest } from "../../engines/tensor_codec.ts";
import { float32Bytes, readTexts } from "../../engines/tensor_data.ts";
import type { Embeddings } from "../../engines/task.ts";
import type { Tensor, TensorDescription } from "../../engines/tensor.ts";
import type { ServedModel } from "../../registry/served_model.ts";
import { parseFields } from "../middleware/parse_fields.ts";
import { vectorNumbers } from "../vector_numbers.ts";
import { fieldMistake } from "./field_mistake.ts";
import type { TensorPost } from "./tensor_post.ts";

const INPUT = "text";
const OUTPUT = "embedding";
const TEXTS_MAX = 2048;

const described = {
  name: z.literal(INPUT),
  shape: z.array(z.int().min(1).max(TEXTS_MAX)).length(1, "is not of the form [n]"),
  datatype: z.literal("BYTES"),
};
const texts = z.array(z.string().min(1, "is empty")).min(1).max(TEXTS_MAX);
const around = {
  id: z.string().min(1).max(128).optional(),
  parameters: z.strictObject({ binary_data_output: z.boolean().optional() }).optional(),
  outputs: z.tuple([z.strictObject({
    name: z.literal(OUTPUT),
    parameters: z.strictObject({ binary_data: z.boolean().optional() }).optional(),
  })]).optional(),
};
const jsonForm = z.strictObject({
  ...around,
  inputs: z.tuple([z.strictObject({ ...described, data: texts })]),
});
const rawForm = z.strictObject({
  ...around,
  inputs: z.tuple([
    z.strictObject({ ...described, parameters: z.strictObject({ binary_data_size: z.int().min(0) }) }),
  ]),
});

/** Texts to be embedded, and how their vectors are wanted. */
export interface EmbeddingPost {
  readonly id: string | undefined;
  readonly texts: readonly string[];
  readonly binary: boolean;
}

/**
 * The texts in a body.
 *
 * @throws Fault `fields_invalid`
 */
export function parseEmbeddingPost(post: TensorPost): EmbeddingPost {
  // A body with a head and nothing behind it is JSON all the same; Triton's C++ client sends such.
  const isRaw = post.raw !== undefined && post.raw.length > 0;
  const head = isRaw ? parseFields(rawForm, post.json) : parseFields(jsonForm, post.json);
  const [input] = head.inputs;
  const texts = "data" in input ? input.data : readRawTexts(post);
  if (input.shape[0] !== texts.length) {
    throw fieldMistake({
      path: "/inputs/0/data",
      message: `has ${texts.length} elements where the shape says ${input.shape[0] ?? 0}`,
    });
  }
  const binary = head.outputs?.[0].parameters?.binary_data ?? head.parameters?.binary_data_output ?? false;
  return { id: head.id, texts, binary };
}

/** From a path in the neutral request to the one in the body, where the texts stand for themselves or raw. */
export function placeEmbeddingField(path: string): string {
  return path.replace(/^\/texts/, "/inputs/0/data");
}

/** The vectors of texts, row-major. */
export function embeddingTensor({ vectors, dimensions }: Embeddings, binary: boolean): Tensor {
  return {
    name: OUTPUT,
    shape: [vectors.length / dimensions, dimensions],
    datatype: "FP32",
    data: binary ? { bytes: float32Bytes(vectors) } : { json: vectorNumbers(vectors) },
  };
}

/** What an embedding model takes and gives. */
export function describeEmbeddingTensors(
  { dimensions }: ServedModel,
): { readonly inputs: readonly TensorDescription[]; readonly outputs: readonly TensorDescription[] } {
  return {
    inputs: [{ name: INPUT, datatype: "BYTES", shape: [-1] }],
    outputs: [{ name: OUTPUT, datatype: "FP32", shape: [-1, dimensions ?? -1] }],
  };
}

/** Texts that stand as raw bytes behind a head of the raw form. */
function readRawTexts({ json, raw }: TensorPost): readonly string[] {
  const parsed = parseTensorRequest(json, raw);
  if (!parsed.ok) throw fieldMistake(parsed.mistake);
  const texts = parsed.value.request.inputs.flatMap((tensor) => {
    const read = readTexts(tensor);
    if (!read.ok) throw fieldMistake({ path: "/inputs/0/data", message: "is not UTF-8" });
    return read.value;
  });
  const empty = texts.indexOf("");
  if (empty >= 0) throw fieldMistake({ path: `/inputs/0/data/${empty}`, message: "is empty" });
  return texts;
}
