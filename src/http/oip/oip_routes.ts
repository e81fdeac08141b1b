// Open Inference Protocol, version 2, REST (kserve/open-inference-protocol, inference_rest.yaml), with Triton's binary tensor data.
import { z } from "@hono/zod-openapi";
import { requireCapability } from "../../inference/find_model.ts";
import type { Catalog } from "../../registry/catalog.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { INFERENCE_FAULTS, type InferenceDoor } from "../inference_door.ts";
import { readModel } from "../read_model.ts";
import { describeEmbeddingTensors } from "./embedding_tensors.ts";
import { inferRoute } from "./infer_route.ts";
import { oipDialect } from "./oip_error.ts";
import type { DescribeTensors } from "./tensor_descriptions.ts";

/** What the routes need. */
export interface OipParts {
  readonly catalog: Catalog;
  readonly door: InferenceDoor;
  /** Whether the server takes inferences now. */
  readonly isReady: () => boolean;
  /** Whether one model takes inferences now. */
  readonly isModelReady: (id: string) => boolean;
  /** Version of the server, for authenticated callers only. */
  readonly version: string;
  /** Largest body of an inference. */
  readonly mediaBodyBytesMax: number;
  readonly describeTensors: DescribeTensors;
}

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
  { catalog, door, isReady, isModelReady, version, mediaBodyBytesMax, describeTensors }: OipParts,
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
        return { status: 200, body: { name: "portcullis", version, extensions: ["binary_tensor_data"] } };
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
      faults: INFERENCE_FAULTS,
      async handle(exchange) {
        const model = await readModel(catalog, exchange);
        const takesTensors = model.capabilities.includes("tensor");
        if (!takesTensors) requireCapability(model, "embedding");
        const { inputs, outputs } = takesTensors
          ? await describeTensors(model)
          : describeEmbeddingTensors(model);
        // Weights that are ours are run here; where others are run is no caller's business.
        const platform = model.sha256 === null ? "upstream" : "onnx";
        return { status: 200, body: { name: model.id, platform, inputs, outputs } };
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
        const model = await readModel(catalog, exchange);
        const isReadyNow = isModelReady(model.id);
        return { status: isReadyNow ? 200 : 503, body: { name: model.id, ready: isReadyNow } };
      },
    }),
    inferRoute({ catalog, door, mediaBodyBytesMax }),
  ];
}
