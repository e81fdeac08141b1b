// Inference door: the one way from a dialect's handler to the act, and what every answer of a model brings along.
import { decide } from "../access/decide.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import type {
  StreamItem,
  StreamRequest,
  StreamTask,
  WholeAnswer,
  WholeRequest,
  WholeTask,
} from "../engines/task.ts";
import { Fault, type FaultKind } from "../faults/fault.ts";
import { findModel, requireCapability } from "../inference/find_model.ts";
import type { InferenceResult, InferenceStream, RunInference } from "../inference/run_inference.ts";
import type { Catalog } from "../registry/catalog.ts";
import type { Capability, ServedModel } from "../registry/served_model.ts";
import { type Exchange, inferenceContextOf, principalOf } from "./exchange.ts";

/** From a path of the neutral request (`/outputTokensMax`) to the path in the dialect's own body (`/max_tokens`). */
export type PlaceField = (path: string) => string;

/** The kinds of fault that every route behind the door can answer, for the API description. */
export const INFERENCE_FAULTS: readonly FaultKind[] = [
  "model_not_found",
  "capability_missing",
  "input_refused",
  "context_length_exceeded",
  "budget_exhausted",
  "overloaded",
  "deadline_exceeded",
  "stopping",
  "upstream_unreachable",
  "upstream_failed",
  "upstream_answer_invalid",
  "upstream_timeout",
];

/** What handlers call. All of it throws the Faults of `findModel` and of the act. */
export interface InferenceDoor {
  /**
   * The model that a caller names, for a handler's own checks.
   *
   * @throws Fault `capability_missing` besides those of `findModel`
   */
  find(exchange: Exchange, modelId: string, capability: Capability): ServedModel;
  /** Runs a task and returns its whole answer, once its record is durable. */
  whole<T extends WholeTask>(
    exchange: Exchange,
    modelId: string,
    request: WholeRequest<T>,
    placeField?: PlaceField,
  ): Promise<InferenceResult<WholeAnswer<T>>>;
  /** Begins a task whose answer comes in pieces; whoever has the stream reads it to its end or cancels it. */
  stream<T extends StreamTask>(
    exchange: Exchange,
    modelId: string,
    request: StreamRequest<T>,
    placeField?: PlaceField,
  ): Promise<InferenceStream<StreamItem<T>>>;
}

/** Opens the door over the act. */
export function openInferenceDoor(parts: {
  readonly catalog: Catalog;
  readonly runInference: RunInference;
  /** For answers that are computed at once: embeddings, tensors, rankings. */
  readonly requestTimeoutMs: number;
  /** For answers that are generated. */
  readonly generationTimeoutMs: number;
}): InferenceDoor {
  const { catalog, runInference } = parts;
  const timeoutMs = (task: string): number =>
    COMPUTED_AT_ONCE.includes(task) ? parts.requestTimeoutMs : parts.generationTimeoutMs;
  return {
    find(exchange, modelId, capability) {
      const model = findModel(catalog, principalOf(exchange), "model:infer", modelId);
      requireCapability(model, capability);
      return model;
    },
    async whole(exchange, modelId, request, placeField) {
      const context = inferenceContextOf(exchange, timeoutMs(request.task));
      const result = await placed(placeField, () => runInference.run(modelId, request, context));
      tellOperators(exchange, result.servedBy);
      return result as InferenceResult<never>;
    },
    async stream(exchange, modelId, request, placeField) {
      const context = inferenceContextOf(exchange, timeoutMs(request.task));
      const stream = await placed(placeField, () => runInference.stream(modelId, request, context));
      tellOperators(exchange, stream.servedBy);
      return stream as InferenceStream<never>;
    },
  };
}

const COMPUTED_AT_ONCE: readonly string[] = [
  "embedding",
  "tensor",
  "tensor_metadata",
  "rerank",
  "moderation",
];

/** Fields beyond a dialect's own that the model's settings let through; any other unknown field is refused. */
export function extraFields(
  body: Readonly<Record<string, unknown>>,
  known: ReadonlySet<string>,
  model: ServedModel,
): Record<string, JsonValue> {
  const names = Object.keys(body).filter((name) => !known.has(name));
  const unknown = names.filter((name) => !model.passFields.includes(name));
  if (unknown.length > 0) {
    throw new Fault("fields_invalid", "Cannot accept a body: it has fields that nobody let through", {
      fields: unknown.slice(0, 8).map((name) => ({
        path: `/${name.slice(0, 64).replaceAll("~", "~0").replaceAll("/", "~1")}`,
        message: "is not a known field",
      })),
    });
  }
  return Object.fromEntries(names.map((name) => [name, body[name] as JsonValue]));
}

/** What answered is nobody's business but that of those who run the server. */
function tellOperators(exchange: Exchange, servedBy: string | null): void {
  if (servedBy !== null && decide(principalOf(exchange), "upstream:read").ok) {
    exchange.answerHeaders["X-Portcullis-Served-By"] = servedBy;
  }
}

/** Runs, and rewrites the paths of faults about fields into the dialect's own. */
async function placed<Value>(placeField: PlaceField | undefined, run: () => Promise<Value>): Promise<Value> {
  try {
    return await run();
  } catch (thrown) {
    if (placeField === undefined || !(thrown instanceof Fault) || thrown.details.fields === undefined) {
      throw thrown;
    }
    const fields = thrown.details.fields.map(({ path, message }) => ({ path: placeField(path), message }));
    throw new Fault(thrown.kind, thrown.message, { ...thrown.details, fields });
  }
}
