// Fake door: an inference door that keeps what it is asked and answers from a script, for tests of the dialect alone.
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import type { ChatAnswer, ChatChoice, ChatEvent, ChatRequest } from "../../../src/engines/chat.ts";
import type { TaskRequest } from "../../../src/engines/task.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { FAULT_TABLE } from "../../../src/faults/fault_table.ts";
import { anthropicDialect } from "../../../src/http/anthropic/anthropic_error.ts";
import { anthropicRoutes } from "../../../src/http/anthropic/anthropic_routes.ts";
import type { Exchange } from "../../../src/http/exchange.ts";
import type { InferenceDoor, PlaceField } from "../../../src/http/inference_door.ts";
import { parseFields } from "../../../src/http/middleware/parse_fields.ts";
import type { Answer } from "../../../src/http/route.ts";
import type { ServedModel } from "../../../src/registry/served_model.ts";

export const MODEL: ServedModel = {
  id: "m1",
  aliases: ["nick"],
  capabilities: ["chat"],
  ownedBy: "tests",
  createdSeconds: 1,
  access: { see: ["user"], use: ["user"], teams: null },
  accepted: true,
  sha256: null,
  limits: {
    textsPerRequestMax: 64,
    charactersPerTextMax: 1000,
    contextTokensMax: null,
    outputTokensMax: null,
  },
  dimensions: null,
  dimensionsReducible: false,
  passFields: ["min_p"],
  prices: null,
  fallbacks: [],
};

export interface Script {
  readonly model?: Partial<ServedModel>;
  readonly answer?: ChatAnswer;
  readonly batches?: readonly (readonly ChatEvent[])[];
  /** Thrown instead of an answer; with batches, behind them. */
  readonly fault?: Fault;
}

export interface FakeDoor {
  /** Sends a body to a path, as the gate does behind its own steps. */
  send(path: string, body: unknown): Promise<Answer>;
  /** The same with faults written in the dialect. */
  answer(path: string, body: unknown): Promise<Response>;
  /** What passed the door, in order. */
  readonly requests: TaskRequest[];
  /** What went on record without a run. */
  readonly allowed: [action: string, object: string | null][];
  /** What the last request places paths by. */
  place: PlaceField | undefined;
  cancelled: number;
}

export const REQUEST_ID = "req_0123456789";

/** Makes one, with the routes before it. It knows the model `m1`, also called `nick`. */
export function fakeDoor(
  { model: changed, answer = answerWith({ text: "x" }), batches, fault }: Script = {},
): FakeDoor {
  const model = { ...MODEL, ...changed };
  const door: InferenceDoor = {
    find(_exchange, modelId, capability) {
      if (modelId !== model.id && !model.aliases.includes(modelId)) {
        throw new Fault("model_not_found", "Cannot find a model: none is called so");
      }
      if (!model.capabilities.includes(capability)) {
        throw new Fault("capability_missing", "Cannot use a model: it lacks the capability");
      }
      return model;
    },
    whole(_exchange, _modelId, request, placeField) {
      fake.requests.push(request);
      fake.place = placeField;
      if (fault !== undefined) return Promise.reject(fault);
      return Promise.resolve({ model, answer, servedBy: null } as never);
    },
    stream(_exchange, _modelId, request, placeField) {
      fake.requests.push(request);
      fake.place = placeField;
      if (fault !== undefined && batches === undefined) return Promise.reject(fault);
      const left = [...batches ?? []];
      return Promise.resolve({
        model,
        servedBy: null,
        next() {
          const batch = left.shift();
          return batch === undefined && fault !== undefined ? Promise.reject(fault) : Promise.resolve(batch);
        },
        cancel() {
          fake.cancelled++;
        },
      } as never);
    },
  };
  const routes = anthropicRoutes({
    door,
    imageHosts: new Set(["images.example"]),
    mediaBodyBytesMax: 1_000_000,
  });
  const send: FakeDoor["send"] = async (path, body) => {
    const route = routes.find((row) => row.path === path);
    if (route?.body === undefined) throw new Error(`no route takes a body at ${path}`);
    const record = {
      allowed(action: string, object: string | null) {
        fake.allowed.push([action, object]);
        return Promise.resolve();
      },
    };
    const exchange = { id: REQUEST_ID, record, answerHeaders: {} } as unknown as Exchange;
    return await route.handle(exchange, parseFields(route.body, body as JsonValue));
  };
  const fake: FakeDoor = {
    send,
    async answer(path, body) {
      try {
        const { status, headers, body: content, stream } = await send(path, body);
        if (stream === undefined) return Response.json(content, { status });
        const pieces = new ReadableStream<Uint8Array>({
          async pull(controller) {
            const batch = await stream.next();
            if (batch === undefined) controller.close();
            else for (const piece of batch) controller.enqueue(piece);
          },
          cancel: () => stream.cancel(),
        }, { highWaterMark: 0 });
        return new Response(pieces, { status, headers: { ...headers } });
      } catch (thrown) {
        if (!(thrown instanceof Fault)) throw thrown;
        const row = FAULT_TABLE[thrown.kind];
        return Response.json(anthropicDialect.errorBody(thrown, row, REQUEST_ID), { status: row.status });
      }
    },
    requests: [],
    allowed: [],
    place: undefined,
    cancelled: 0,
  };
  return fake;
}

/** An answer of one choice. */
export function answerWith(
  choice: Partial<ChatChoice>,
  usage: Partial<ChatAnswer["usage"]> = {},
): ChatAnswer {
  return {
    choices: [{ text: "", reasoning: "", toolCalls: [], finish: "stop", ...choice }],
    usage: { inputTokens: 5, outputTokens: 7, countedBy: "engine", ...usage },
  };
}

export const HELLO = [{ role: "user", content: "hello" }] as const;

/** A body of `POST /v1/messages`. */
export function bodyWith(fields: object = {}): Record<string, unknown> {
  return { model: "m1", max_tokens: 2000, messages: HELLO, ...fields };
}

/** The neutral request that a body becomes. */
export async function neutral(fields: object = {}): Promise<ChatRequest> {
  const fake = fakeDoor();
  await fake.send("/v1/messages", bodyWith(fields));
  return fake.requests[0] as ChatRequest;
}

/** Sends a body that is to be refused; the paths and the words. */
export async function refusalOf(fields: object, path = "/v1/messages"): Promise<string[]> {
  const fake = fakeDoor();
  try {
    await fake.send(path, bodyWith(fields));
  } catch (thrown) {
    if (thrown instanceof Fault && thrown.kind === "fields_invalid") {
      return (thrown.details.fields ?? []).map(({ path, message }) => `${path} ${message}`);
    }
    throw thrown;
  }
  return [];
}
