// The gateway under test: the act over models of upstreams, with engines that do as they are told and the trail in memory.
import { DEFAULT_CAPS, type RequestCaps } from "../../src/access/request_caps.ts";
import { type MemoryAuditTrail, memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { RequestRecord } from "../../src/audit/request_record.ts";
import type { AnswerStream } from "../../src/engines/answer_stream.ts";
import type { ChatEvent, ChatRequest } from "../../src/engines/chat.ts";
import type { Engine, EngineState, RunBounds } from "../../src/engines/engine.ts";
import { createEngineTable } from "../../src/engines/engine_table.ts";
import type { WholeAnswer, WholeRequest, WholeTask } from "../../src/engines/task.ts";
import type { PayloadKeeping } from "../../src/inference/kept_payload.ts";
import {
  type InferenceContext,
  openRunInference,
  type RunInference,
} from "../../src/inference/run_inference.ts";
import { openAdmissionUnderTest } from "../support/limits_under_test.ts";
import type { ServedModel } from "../../src/registry/served_model.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { type ManualClock, manualClock } from "../support/manual_clock.ts";
import { principal } from "./parts_under_test.ts";

/** A model of upstreams that chats, for all but auditors. */
export function servedModel(changes: Partial<ServedModel> & { readonly id: string }): ServedModel {
  return {
    aliases: [],
    capabilities: ["chat"],
    ownedBy: "upstream",
    createdSeconds: 0,
    access: { see: ["admin", "auditor", "user"], use: ["admin", "user"], teams: null },
    accepted: true,
    sha256: null,
    limits: {
      textsPerRequestMax: 4,
      charactersPerTextMax: 1000,
      contextTokensMax: null,
      outputTokensMax: null,
    },
    dimensions: null,
    dimensionsReducible: true,
    passFields: [],
    prices: null,
    fallbacks: [],
    ...changes,
  };
}

/** One question and nothing else asked for. */
export const CHAT: ChatRequest = {
  task: "chat",
  messages: [{ role: "user", parts: [{ type: "text", text: "hello there" }] }],
  tools: [],
  stop: [],
  choices: 1,
  extra: {},
};

/** An engine that does as it is told. */
export class ToldEngine implements Engine {
  readonly modelId: string;
  stateNow: EngineState = "ready";
  readonly asked: (WholeRequest | ChatRequest)[] = [];
  readonly bounds: RunBounds[] = [];
  /** What `run` gives. */
  answer: () => Promise<unknown> = () => Promise.reject(new Error("not told"));
  /** What the stream's `next()` gives, call by call; the first before `stream` resolves, as the port says. */
  batches: (readonly ChatEvent[] | Error | Promise<readonly ChatEvent[] | undefined>)[] = [];
  cancelled = 0;

  constructor(modelId: string) {
    this.modelId = modelId;
  }

  state(): EngineState {
    return this.stateNow;
  }

  async run<T extends WholeTask>(request: WholeRequest<T>, bounds: RunBounds): Promise<WholeAnswer<T>> {
    this.#asked(request, bounds);
    return await this.answer() as WholeAnswer<T>;
  }

  // deno-lint-ignore require-await -- what it throws is a rejection, as the port says
  async stream(request: unknown, bounds: RunBounds): Promise<AnswerStream<never>> {
    this.#asked(request as ChatRequest, bounds);
    const [first] = this.batches;
    if (first instanceof Error) throw first;
    return {
      next: async () => {
        const batch = await this.batches.shift();
        if (batch instanceof Error) throw batch;
        return batch as readonly never[] | undefined;
      },
      cancel: () => {
        this.cancelled++;
      },
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #asked(request: WholeRequest | ChatRequest, bounds: RunBounds): void {
    this.asked.push(request);
    this.bounds.push(bounds);
    bounds.trace.servedBy = `upstream-of-${this.modelId}/m`;
    bounds.trace.attempts++;
  }
}

/** What a test drives. */
export interface GatewayUnderTest {
  readonly clock: ManualClock;
  readonly trail: MemoryAuditTrail;
  readonly act: RunInference;
  engine(id: string): ToldEngine;
  /** The context of a request by a user. */
  context(changes?: Partial<InferenceContext>): InferenceContext;
  /** The records so far, without what is the same in all. */
  records(): unknown[];
}

/** Opens the act over models. */
export function openGateway(
  models: readonly ServedModel[],
  caps: RequestCaps = DEFAULT_CAPS,
  payloads?: PayloadKeeping,
): GatewayUnderTest {
  const clock = manualClock();
  const trail = memoryAuditTrail();
  const engines = new Map(models.map(({ id }) => [id, new ToldEngine(id)]));
  const byName = new Map(
    models.flatMap((model) => [model.id, ...model.aliases].map((name) => [name, model])),
  );
  const act = openRunInference({
    catalog: { find: (name) => byName.get(name), list: () => models },
    engines: createEngineTable([...engines.values()]),
    admission: openAdmissionUnderTest(clock, { placesPerUser: 2 }),
    capsOf: () => caps,
    payloads,
    log: openLog({ level: "error", clock, sink: (bytes) => Promise.resolve(bytes.length) }),
    clock,
  });
  return {
    clock,
    trail,
    act,
    engine(id) {
      const engine = engines.get(id);
      if (engine === undefined) throw new Error(`no engine ${id}`);
      return engine;
    },
    context(changes = {}) {
      const record = new RequestRecord(trail, { request: "req_1", address: "192.0.2.1", route: "POST /x" });
      record.identify({
        issuer: "https://ai.example.com",
        subject: "usr_1",
        team: "default",
        credential: "tok_1",
      });
      return {
        principal: principal("user"),
        record,
        signal: new AbortController().signal,
        deadlineMs: 30_000,
        network: "192.0.2.1",
        tellLimits() {},
        ...changes,
      };
    },
    records: () =>
      trail.events.map((event) => {
        const {
          request: _,
          address: __,
          route: ___,
          issuer: ____,
          subject: _____,
          team: ______,
          credential: _______,
          ...rest
        } = event as Record<
          string,
          unknown
        >;
        return rest;
      }),
  };
}
