// Infer route: tensors in, tensors out, as JSON or in the binary tensor data extension.
import { z } from "@hono/zod-openapi";
import { DATATYPES, type TensorRequest } from "../../engines/tensor.ts";
import { parseTensorRequest, type TensorBody, writeTensorAnswer } from "../../engines/tensor_codec.ts";
import type { FieldMistake } from "../../faults/fault.ts";
import type { Catalog } from "../../registry/catalog.ts";
import type { Exchange } from "../exchange.ts";
import { INFERENCE_FAULTS, type InferenceDoor } from "../inference_door.ts";
import { type Answer, type AnyRoute, defineRoute } from "../route.ts";
import { embeddingTensor, parseEmbeddingPost, placeEmbeddingField } from "./embedding_tensors.ts";
import { fieldMistake } from "./field_mistake.ts";
import { oipDialect } from "./oip_error.ts";
import { readTensorPost, requireTensorsAnnounced, type TensorPost } from "./tensor_post.ts";

/** What the route needs. */
export interface InferParts {
  readonly catalog: Catalog;
  readonly door: InferenceDoor;
  readonly mediaBodyBytesMax: number;
}

const PARAMETERS_MAX = 32;

// For the API description; the codec checks.
const parameters = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).optional();
const tensor = z.strictObject({
  name: z.string(),
  shape: z.array(z.int()),
  datatype: z.enum(Object.keys(DATATYPES) as (keyof typeof DATATYPES)[]),
  parameters: parameters.describe("With binary_data_size, the tensor's bytes stand behind the JSON."),
  data: z.array(z.unknown()).optional().describe("Row-major, flat or nested as the shape."),
});
const inferRequest = z.strictObject({
  id: z.string().min(1).max(128).optional().describe("Echoed in the answer."),
  parameters: parameters.describe("With binary_data_output, the outputs are wanted as bytes."),
  inputs: z.array(tensor).min(1),
  outputs: z.array(z.strictObject({
    name: z.string(),
    parameters: parameters.describe("With binary_data, this output is wanted as bytes."),
  })).optional().describe("Absent: all of them."),
}).describe(
  "With the header Inference-Header-Content-Length, bytes of tensors follow this JSON, as application/octet-stream.",
);
const inferResponse = z.strictObject({
  model_name: z.string(),
  id: z.string().optional(),
  parameters,
  outputs: z.array(tensor),
}).describe("Where bytes of tensors follow: application/octet-stream, with Inference-Header-Content-Length.");

/** `POST /v2/models/{id}/infer`. */
export function inferRoute({ catalog, door, mediaBodyBytesMax }: InferParts): AnyRoute {
  return defineRoute<TensorPost>({
    method: "POST",
    path: "/v2/models/{id}/infer",
    summary: "Run a model on tensors",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: oipDialect,
    rated: true,
    bodyForm: {
      mediaType: "application/json",
      schema: inferRequest,
      requireAnnounced: requireTensorsAnnounced,
      read: readTensorPost,
    },
    bodyBytesMax: mediaBodyBytesMax,
    answers: { 200: { description: "The output tensors.", schema: inferResponse } },
    faults: INFERENCE_FAULTS,
    async handle(exchange, post) {
      const name = exchange.parameters.id ?? "";
      // A model that does both is asked in the protocol's own terms. Whether the caller may know of it, the door decides.
      const takesTensors = catalog.find(name)?.capabilities.includes("tensor") === true;
      return await (takesTensors ? runOnTensors : runOnTexts)(door, exchange, name, post);
    },
  });
}

async function runOnTensors(
  door: InferenceDoor,
  exchange: Exchange,
  name: string,
  { json, raw }: TensorPost,
): Promise<Answer> {
  const model = door.find(exchange, name, "tensor");
  const parsed = parseTensorRequest(json, raw);
  if (!parsed.ok) throw fieldMistake(parsed.mistake);
  const { id, request } = parsed.value;
  const mistake = findParametersMistake(request);
  if (mistake !== undefined) throw fieldMistake(mistake);
  const { answer } = await door.whole<"tensor">(exchange, model.id, request);
  return answerWith(writeTensorAnswer(answer, { modelName: model.id, id }));
}

async function runOnTexts(
  door: InferenceDoor,
  exchange: Exchange,
  name: string,
  post: TensorPost,
): Promise<Answer> {
  const model = door.find(exchange, name, "embedding");
  const { id, texts, binary } = parseEmbeddingPost(post);
  const request = { task: "embedding", texts } as const;
  const { answer } = await door.whole<"embedding">(exchange, model.id, request, placeEmbeddingField);
  const outputs = [embeddingTensor(answer, binary)];
  return answerWith(writeTensorAnswer({ outputs }, { modelName: model.id, id }));
}

function answerWith({ bytes, headers }: TensorBody): Answer {
  return { status: 200, bytes, headers };
}

/** Parameters beyond those of the binary extension, which are no part of the neutral request. */
function findParametersMistake({ parameters, inputs, outputs }: TensorRequest): FieldMistake | undefined {
  const places = [
    { path: "", parameters },
    ...inputs.map((input, index) => ({ path: `/inputs/${index}`, parameters: input.parameters })),
    ...outputs.map((output, index) => ({ path: `/outputs/${index}`, parameters: output.parameters })),
  ];
  const place = places.find((each) => Object.keys(each.parameters ?? {}).length > PARAMETERS_MAX);
  if (place === undefined) return undefined;
  return { path: `${place.path}/parameters`, message: `has more than ${PARAMETERS_MAX} members` };
}
