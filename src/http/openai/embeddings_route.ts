// Embeddings route: texts to vectors.
import { z } from "@hono/zod-openapi";
import type { Embeddings } from "../../engines/task.ts";
import { Fault } from "../../faults/fault.ts";
import type { InferenceResult } from "../../inference/run_inference.ts";
import type { ServedModel } from "../../registry/served_model.ts";
import { INFERENCE_FAULTS, type InferenceDoor } from "../inference_door.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { vectorNumbers } from "../vector_numbers.ts";
import { openaiDialect } from "./openai_error.ts";

const text = z.string({
  error: ({ input }) =>
    typeof input === "number" || Array.isArray(input)
      ? "is a token or a list of tokens; send text, for another model's tokens mean nothing to this one"
      : "is not a text",
}).min(1, "is empty");

const input = z.union([text, z.array(text).min(1, "has no texts").max(2048, "has more than 2048 texts")], {
  error: ({ input }) => input === "" ? "is empty" : "is neither a text nor a list of texts",
});

const embeddingsRequest = z.strictObject({
  model: z.string().min(1).max(128),
  input,
  encoding_format: z.enum(["float", "base64"]).default("float"),
  dimensions: z.int().min(1).max(65_536).optional().describe(
    "Only for models that were trained for shorter vectors.",
  ),
  user: z.string().max(256).optional().describe(
    "Accepted for compatibility and not used: who asks is known from the token.",
  ),
});

const embeddingList = z.strictObject({
  object: z.literal("list"),
  model: z.string(),
  data: z.array(z.strictObject({
    object: z.literal("embedding"),
    index: z.int(),
    embedding: z.union([z.array(z.number()), z.string().describe("Little-endian float32, base64.")]),
  })),
  usage: z.strictObject({ prompt_tokens: z.int(), total_tokens: z.int() }),
});

/** `POST /v1/embeddings`. */
export function embeddingsRoute({ door }: { readonly door: InferenceDoor }): AnyRoute {
  return defineRoute({
    method: "POST",
    path: "/v1/embeddings",
    summary: "Embed one text or several",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: openaiDialect,
    rated: true,
    body: embeddingsRequest,
    answers: { 200: { description: "One vector a text, in order.", schema: embeddingList } },
    faults: INFERENCE_FAULTS,
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "embedding");
      checkDimensions(model, body.dimensions);
      const isList = Array.isArray(body.input);
      const texts = isList ? body.input as string[] : [body.input as string];
      const dimensions = body.dimensions === undefined ? {} : { dimensions: body.dimensions };
      const result = await door.whole<"embedding">(
        exchange,
        model.id,
        { task: "embedding", texts, ...dimensions },
        (path) => isList ? path.replace(/^\/texts/, "/input") : "/input",
      );
      return { status: 200, body: describeEmbeddings(result, body.encoding_format, body.dimensions) };
    },
  });
}

/** Where nobody said how long the vectors are, the engine decides. */
function checkDimensions(model: ServedModel, dimensions: number | undefined): void {
  if (dimensions === undefined || model.dimensions === null || dimensions === model.dimensions) return;
  const message = model.dimensionsReducible && dimensions < model.dimensions
    ? undefined
    : model.dimensionsReducible
    ? `is ${dimensions}; this model has vectors of ${model.dimensions} numbers or fewer`
    : `is ${dimensions}; this model has vectors of ${model.dimensions} numbers only`;
  if (message === undefined) return;
  throw new Fault("fields_invalid", "Cannot embed: the model has no vectors of this length", {
    fields: [{ path: "/dimensions", message }],
  });
}

function describeEmbeddings(
  { model, answer }: InferenceResult<Embeddings>,
  format: "float" | "base64",
  wanted: number | undefined,
): z.infer<typeof embeddingList> {
  const { vectors, dimensions: full, usage } = answer;
  const dimensions = wanted ?? full;
  const data = Array.from({ length: vectors.length / full }, (_, index) => {
    const row = vectors.subarray(index * full, (index + 1) * full);
    // An engine that shortens by itself has done it already.
    const vector = dimensions === full ? row : shorten(row, dimensions);
    return {
      object: "embedding" as const,
      index,
      embedding: format === "float" ? vectorNumbers(vector) : littleEndianBase64(vector),
    };
  });
  return {
    object: "list",
    model: model.id,
    data,
    usage: { prompt_tokens: usage.inputTokens, total_tokens: usage.inputTokens },
  };
}

/** The first numbers of a vector at length 1 again (Matryoshka representation learning, arXiv:2205.13147). */
function shorten(vector: Float32Array, dimensions: number): Float32Array {
  const head = vector.slice(0, dimensions);
  const length = Math.hypot(...head);
  return length === 0 ? head : head.map((value) => value / length);
}

/** Every platform that this server runs on is little-endian, and so is the format. */
function littleEndianBase64(vector: Float32Array): string {
  return new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength).toBase64();
}
