// OpenAI-compatible routes: models and embeddings, as its official clients speak.
import { z } from "@hono/zod-openapi";
import { Fault } from "../../faults/fault.ts";
import { findModel, listModels } from "../../inference/find_model.ts";
import type { InferenceResult, RunInference } from "../../inference/run_inference.ts";
import type { Catalog } from "../../registry/catalog.ts";
import type { ModelCard } from "../../registry/model_card.ts";
import { readModel } from "../read_model.ts";
import { placeTexts } from "../text_fields.ts";
import { vectorNumbers } from "../vector_numbers.ts";
import { inferenceContextOf, principalOf } from "../exchange.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { openaiDialect } from "./openai_error.ts";

/** What the routes need. */
export interface OpenaiParts {
  readonly catalog: Catalog;
  readonly runInference: RunInference;
  readonly requestTimeoutMs: number;
}

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
  model: z.string().min(1).max(64),
  input,
  encoding_format: z.enum(["float", "base64"]).default("float"),
  dimensions: z.int().min(1).max(65_536).optional().describe(
    "Only for models that were trained for shorter vectors.",
  ),
  user: z.string().max(256).optional().describe(
    "Accepted for compatibility and not used: who asks is known from the token.",
  ),
});

const model = z.strictObject({
  id: z.string(),
  object: z.literal("model"),
  created: z.int().describe("Seconds since 1970."),
  owned_by: z.string(),
});

const modelList = z.strictObject({ object: z.literal("list"), data: z.array(model) });

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

/** `GET /v1/models`, `GET /v1/models/{id}` and `POST /v1/embeddings`. */
export function openaiRoutes({ catalog, runInference, requestTimeoutMs }: OpenaiParts): AnyRoute[] {
  const read = {
    method: "GET",
    policy: { kind: "action", action: "model:read" },
    dialect: openaiDialect,
    rated: true,
  } as const;
  return [
    defineRoute({
      ...read,
      path: "/v1/models",
      summary: "Models that are open to the caller",
      answers: { 200: { description: "The models.", schema: modelList } },
      faults: [],
      async handle(exchange) {
        const models = listModels(catalog, principalOf(exchange));
        await exchange.record.allowed("model:read", null);
        return { status: 200, body: { object: "list", data: models.map(({ card }) => describeModel(card)) } };
      },
    }),
    defineRoute({
      ...read,
      path: "/v1/models/{id}",
      summary: "One model",
      answers: { 200: { description: "The model.", schema: model } },
      faults: ["model_not_found", "unavailable"],
      async handle(exchange) {
        const card = await readModel(catalog, exchange);
        return { status: 200, body: describeModel(card) };
      },
    }),
    defineRoute({
      method: "POST",
      path: "/v1/embeddings",
      summary: "Embed one text or several",
      policy: { kind: "action", action: "model:infer" },
      dialect: openaiDialect,
      rated: true,
      body: embeddingsRequest,
      answers: { 200: { description: "One vector a text, in order.", schema: embeddingList } },
      faults: ["model_not_found", "overloaded", "deadline_exceeded"],
      async handle(exchange, body) {
        const principal = principalOf(exchange);
        const { card } = findModel(catalog, principal, "model:infer", body.model);
        checkDimensions(card, body.dimensions);
        const isList = Array.isArray(body.input);
        const texts = isList ? body.input as string[] : [body.input as string];
        const result = await placeTexts(
          isList ? (index) => `/input/${index}` : () => "/input",
          "/input",
          () => runInference({ modelId: card.id, texts }, inferenceContextOf(exchange, requestTimeoutMs)),
        );
        return {
          status: 200,
          body: describeEmbeddings(result, body.encoding_format, body.dimensions ?? card.dimensions),
        };
      },
    }),
  ];
}

function describeModel(card: ModelCard): z.infer<typeof model> {
  return { id: card.id, object: "model", created: card.createdSeconds, owned_by: card.source };
}

function checkDimensions(card: ModelCard, dimensions: number | undefined): void {
  if (dimensions === undefined || dimensions === card.dimensions) return;
  const message = card.dimensionsReducible && dimensions < card.dimensions
    ? undefined
    : card.dimensionsReducible
    ? `is ${dimensions}; this model has vectors of ${card.dimensions} numbers or fewer`
    : `is ${dimensions}; this model has vectors of ${card.dimensions} numbers only`;
  if (message === undefined) return;
  throw new Fault("fields_invalid", "Cannot embed: the model has no vectors of this length", {
    fields: [{ path: "/dimensions", message }],
  });
}

function describeEmbeddings(
  result: InferenceResult,
  format: "float" | "base64",
  dimensions: number,
): z.infer<typeof embeddingList> {
  const full = result.card.dimensions;
  const data = result.tokenCounts.map((_, index) => {
    const row = result.vectors.subarray(index * full, (index + 1) * full);
    const vector = dimensions === full ? row : shorten(row, dimensions);
    return {
      object: "embedding" as const,
      index,
      embedding: format === "float" ? vectorNumbers(vector) : littleEndianBase64(vector),
    };
  });
  return {
    object: "list",
    model: result.card.id,
    data,
    usage: { prompt_tokens: result.tokens, total_tokens: result.tokens },
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
