// Fake door: an inference door that keeps what it is asked and answers from a script, for tests of the dialect alone.
import type { ChatAnswer, ChatEvent } from "../../../src/engines/chat.ts";
import type { TaskRequest } from "../../../src/engines/task.ts";
import { Fault } from "../../../src/faults/fault.ts";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import type { Answer, AnyRoute } from "../../../src/http/route.ts";
import type { Exchange } from "../../../src/http/exchange.ts";
import type { InferenceDoor, PlaceField } from "../../../src/http/inference_door.ts";
import { parseFields } from "../../../src/http/middleware/parse_fields.ts";
import type { GenerationParts } from "../../../src/http/openai/generation_parts.ts";
import type { ServedModel } from "../../../src/registry/served_model.ts";

export const MODEL: ServedModel = {
  id: "m1",
  aliases: ["nick"],
  capabilities: ["chat", "completion"],
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
  passFields: ["top_k", "guided_json"],
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
  readonly parts: GenerationParts;
  /** What passed the door, in order. */
  readonly requests: TaskRequest[];
  /** What the last request places paths by. */
  place: PlaceField | undefined;
  cancelled: number;
}

/** Makes one. It knows the model `m1`, also called `nick`. */
export function fakeDoor({ model: changed, answer, batches, fault }: Script = {}): FakeDoor {
  const model = { ...MODEL, ...changed };
  const requests: TaskRequest[] = [];
  const door: InferenceDoor = {
    find(_exchange, modelId, capability) {
      if (modelId !== model.id && !model.aliases.includes(modelId)) {
        throw new Fault("model_not_found", "none");
      }
      if (!model.capabilities.includes(capability)) throw new Fault("capability_missing", "lacks it");
      return model;
    },
    whole(_exchange, _modelId, request, placeField) {
      requests.push(request);
      fake.place = placeField;
      if (fault !== undefined) return Promise.reject(fault);
      return Promise.resolve({ model, answer, servedBy: null } as never);
    },
    stream(_exchange, _modelId, request, placeField) {
      requests.push(request);
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
  const fake: FakeDoor = {
    parts: {
      door,
      newId: (prefix) => `${prefix}1`,
      nowSeconds: () => 1234,
      imageHosts: new Set(["images.example"]),
      mediaBodyBytesMax: 1_000_000,
    },
    requests,
    place: undefined,
    cancelled: 0,
  };
  return fake;
}

/** What the gate does with a body on its way to a route. */
export async function send(route: AnyRoute, body: unknown): Promise<Answer> {
  if (route.body === undefined) throw new Error("the route takes no body");
  return await route.handle({ id: "req_1" } as Exchange, parseFields(route.body, body as JsonValue));
}

/** Sends a body that is to be refused; the paths and the words. */
export async function refusalOf(route: AnyRoute, body: unknown): Promise<string[]> {
  try {
    await send(route, body);
  } catch (thrown) {
    if (thrown instanceof Fault && thrown.kind === "fields_invalid") {
      return (thrown.details.fields ?? []).map(({ path, message }) => `${path} ${message}`);
    }
    throw thrown;
  }
  return [];
}

/** All text of a streamed answer. */
export async function textOf(answer: Answer): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const pieces = await answer.stream?.next();
    if (pieces === undefined) return text;
    for (const piece of pieces) text += decoder.decode(piece, { stream: true });
  }
}

/** The data of each event, read as WHATWG HTML §9.2.6 says: CR, LF and CRLF end a line, an empty line ends an event. */
export function readEvents(text: string): string[] {
  const events: string[] = [];
  let data: string[] = [];
  for (const line of text.split(/\r\n|\r|\n/)) {
    if (line === "" && data.length > 0) {
      events.push(data.join("\n"));
      data = [];
    } else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    else if (line !== "") throw new Error(`a line that is no data: ${line}`);
  }
  if (data.length > 0) throw new Error("an event without an end");
  return events;
}
