// Open Inference Protocol, version 2, REST with JSON tensors (kserve/open-inference-protocol, inference_rest.yaml).
import { z } from "@hono/zod-openapi";
import { Fault } from "../../faults/fault.ts";
import { findModel } from "../../inference/find_model.ts";
import type { RunInference } from "../../inference/run_inference.ts";
import type { Catalog } from "../../registry/catalog.ts";
import { inferenceContextOf, principalOf } from "../exchange.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { readModel } from "../read_model.ts";
import { placeTexts } from "../text_fields.ts";
import { vectorNumbers } from "../vector_numbers.ts";
import { oipDialect } from "./oip_error.ts";

/** What the routes need. */
export interface OipParts {
  readonly catalog: Catalog;
  readonly runInference: RunInference;
  readonly requestTimeoutMs: number;
  /** Whether the server takes inferences now. */
  readonly isReady: () => boolean;
  /** Whether one model takes inferences now. */
  readonly isModelReady: (id: string) => boolean;
  /** Version of the server, for authenticated callers only. */
  readonly version: string;
}

const INPUT = "text";
const OUTPUT = "embedding";

const inferRequest = z.strictObject({
  id: z.string().min(1).max(128).optional().describe("Echoed in the answer."),
  inputs: z.tuple([z.strictObject({
    name: z.literal(INPUT),
    shape: z.array(z.int().min(1).max(2048)).length(1, "is not of the form [n]"),
    datatype: z.literal("BYTES"),
    data: z.array(z.string().min(1, "is empty")).min(1).max(2048),
  })]),
  outputs: z.tuple([z.strictObject({ name: z.literal(OUTPUT) })]).optional(),
});

const inferResponse = z.strictObject({
  model_name: z.string(),
  id: z.string().optional(),
  outputs: z.array(z.strictObject({
    name: z.literal(OUTPUT),
    shape: z.array(z.int()),
    datatype: z.literal("FP32"),
    data: z.array(z.number()).describe("Row-major."),
  })),
});

const serverMetadata = z.strictObject({
  name: z.string(),
  version: z.string(),
  extensions: z.array(z.string()),
});
const tensorMetadata = z.strictObject({ name: z.string(), datatype: z.string(), shape: z.array(z.int()) });
const modelMetadata = z.strictObject({
  name: z.string(),
  platform: z.string(),
  inputs: z.array(tensorMetadata),
  outputs: z.array(tensorMetadata),
});
const live = z.strictObject({ live: z.boolean() });
const ready = z.strictObject({ ready: z.boolean() });
const modelReady = z.strictObject({ name: z.string(), ready: z.boolean() });

/** `/v2`, `/v2/health/live`, `/v2/health/ready`, `/v2/models/{id}`, `/v2/models/{id}/ready` and `/v2/models/{id}/infer`. */
export function oipRoutes(
  { catalog, runInference, requestTimeoutMs, isReady, isModelReady, version }: OipParts,
): AnyRoute[] {
  const read = {
    policy: { kind: "action", action: "model:read" },
    dialect: oipDialect,
    rated: true,
    method: "GET",
  } as const;
  const probe = { policy: { kind: "public" }, dialect: oipDialect, rated: false, method: "GET" } as const;
  return [
    defineRoute({
      ...read,
      path: "/v2",
      summary: "Server metadata",
      answers: { 200: { description: "Name, version and extensions.", schema: serverMetadata } },
      faults: [],
      async handle({ record }) {
        await record.allowed("model:read", null);
        return { status: 200, body: { name: "portcullis", version, extensions: [] } };
      },
    }),
    defineRoute({
      ...probe,
      path: "/v2/health/live",
      summary: "Whether the server runs",
      answers: { 200: { description: "It does.", schema: live } },
      faults: [],
      handle: () => ({ status: 200, body: { live: true } }),
    }),
    defineRoute({
      ...probe,
      path: "/v2/health/ready",
      summary: "Whether the server takes inferences",
      answers: {
        200: { description: "It does.", schema: ready },
        503: { description: "Not now.", schema: ready },
      },
      faults: [],
      handle: () =>
        isReady() ? { status: 200, body: { ready: true } } : { status: 503, body: { ready: false } },
    }),
    defineRoute({
      ...read,
      path: "/v2/models/{id}",
      summary: "Model metadata",
      answers: { 200: { description: "The model's tensors.", schema: modelMetadata } },
      faults: ["model_not_found", "unavailable"],
      async handle(exchange) {
        const card = await readModel(catalog, exchange);
        const inputs = [{ name: INPUT, datatype: "BYTES", shape: [-1] }];
        const outputs = [{ name: OUTPUT, datatype: "FP32", shape: [-1, card.dimensions] }];
        return { status: 200, body: { name: card.id, platform: "onnx", inputs, outputs } };
      },
    }),
    defineRoute({
      ...read,
      path: "/v2/models/{id}/ready",
      summary: "Whether a model takes inferences",
      answers: {
        200: { description: "It does.", schema: modelReady },
        503: { description: "Not now.", schema: modelReady },
      },
      faults: ["model_not_found"],
      async handle(exchange) {
        const card = await readModel(catalog, exchange);
        const isReadyNow = isModelReady(card.id);
        return { status: isReadyNow ? 200 : 503, body: { name: card.id, ready: isReadyNow } };
      },
    }),
    defineRoute({
      method: "POST",
      path: "/v2/models/{id}/infer",
      summary: "Run a model on tensors",
      policy: { kind: "action", action: "model:infer" },
      dialect: oipDialect,
      rated: true,
      body: inferRequest,
      answers: { 200: { description: "The output tensors.", schema: inferResponse } },
      faults: ["model_not_found", "overloaded", "deadline_exceeded"],
      async handle(exchange, body) {
        const principal = principalOf(exchange);
        const [tensor] = body.inputs;
        const modelId = exchange.parameters.id ?? "";
        findModel(catalog, principal, "model:infer", modelId);
        if (tensor.shape[0] !== tensor.data.length) {
          throw shapeMismatch(tensor.shape[0] ?? 0, tensor.data.length);
        }
        const result = await placeTexts(
          (index) => `/inputs/0/data/${index}`,
          "/inputs/0/data",
          () => runInference({ modelId, texts: tensor.data }, inferenceContextOf(exchange, requestTimeoutMs)),
        );
        const shape = [result.tokenCounts.length, result.card.dimensions];
        const outputs = [{ name: OUTPUT, shape, datatype: "FP32", data: vectorNumbers(result.vectors) }];
        const id = body.id === undefined ? {} : { id: body.id };
        return { status: 200, body: { model_name: result.card.id, ...id, outputs } };
      },
    }),
  ];
}

function shapeMismatch(expected: number, actual: number): Fault {
  const message = `has ${actual} elements where the shape says ${expected}`;
  return new Fault("fields_invalid", "Cannot run an inference: shape and data differ", {
    fields: [{ path: "/inputs/0/data", message }],
  });
}
