// Parts under test: a catalog in memory, the stub engine and the trail in memory, for the tests of inference.
import { openAdmissionUnderTest } from "../support/limits_under_test.ts";
import type { AuditEvent } from "../../src/audit/audit_event.ts";
import { type MemoryAuditTrail, memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { RequestRecord } from "../../src/audit/request_record.ts";
import { createEngineTable } from "../../src/engines/engine_table.ts";
import type { Principal } from "../../src/access/principal.ts";
import { DEFAULT_CAPS } from "../../src/access/request_caps.ts";
import type { Embeddings } from "../../src/engines/task.ts";
import {
  type InferenceContext,
  type InferenceResult,
  openRunInference,
} from "../../src/inference/run_inference.ts";
import type { Catalog } from "../../src/registry/catalog.ts";
import { servedModelOfCard } from "../../src/registry/served_model.ts";
import { openLog } from "../../src/telemetry/log.ts";
import type { ModelCard } from "../../src/registry/model_card.ts";
import { StubEngine } from "../support/app_under_test.ts";
import { principalOf } from "../access/principal_of.ts";
import { type ManualClock, manualClock } from "../support/manual_clock.ts";

/** Who may see and use which model. */
const ACCESS = {
  open: { see: ["admin", "auditor", "user"], use: ["admin", "auditor", "user"] },
  guarded: { see: ["admin", "auditor", "user"], use: ["admin"] },
  hidden: { see: ["admin"], use: ["admin"] },
  broken: { see: ["admin", "auditor", "user"], use: ["admin", "user"] },
  "broken-hidden": { see: ["admin"], use: ["admin"] },
  engineless: { see: ["admin", "user"], use: ["admin", "user"] },
} as const;

export const TEXTS_MAX = 3;
export const CHARACTERS_MAX = 5;

function cardOf(id: keyof typeof ACCESS): ModelCard {
  const artefact = { file: "x", sha256: "ab".repeat(32), bytes: 1 };
  return {
    id,
    task: "embedding",
    name: id,
    description: "",
    license: "x",
    source: "x",
    createdSeconds: 0,
    artefacts: { graph: artefact, vocabulary: artefact },
    dimensions: 2,
    dimensionsReducible: false,
    limits: {
      textsPerRequestMax: TEXTS_MAX,
      charactersPerTextMax: CHARACTERS_MAX,
      tokensPerTextMax: 10,
      tokensPerRequestMax: 10,
    },
    access: { see: [...ACCESS[id].see], use: [...ACCESS[id].use] },
  };
}

export const catalog: Catalog = (() => {
  const models = (Object.keys(ACCESS) as (keyof typeof ACCESS)[]).map((id) =>
    servedModelOfCard(cardOf(id), !id.startsWith("broken"))
  );
  return { find: (name) => models.find(({ id }) => id === name), list: () => models };
})();

export function principal(...roles: string[]): Principal {
  return principalOf(roles);
}

/** What one test drives. */
export interface InferenceUnderTest {
  readonly clock: ManualClock;
  readonly trail: MemoryAuditTrail;
  readonly engine: StubEngine;
  /** Each event so far as its type, with the outcome where there is one. */
  summary(): string[];
  run(
    request?: { readonly modelId?: string; readonly texts?: readonly string[] },
    context?: Partial<InferenceContext>,
  ): Promise<InferenceResult<Embeddings>>;
}

/** One inference of `open` by a user, unless told otherwise. The stub engine gives two numbers and seven tokens for each text. */
export function openInferenceUnderTest(): InferenceUnderTest {
  const clock = manualClock();
  const trail = memoryAuditTrail();
  const engine = new StubEngine("open");
  engine.behave = (texts) =>
    Promise.resolve({
      vectors: new Float32Array(texts.length * 2).fill(0.5),
      dimensions: 2,
      usage: { inputTokens: texts.length * 7, outputTokens: 0, countedBy: "engine" },
    });
  const others = ["guarded", "hidden", "broken", "broken-hidden"].map((id) => new StubEngine(id));
  const runInference = openRunInference({
    catalog,
    engines: createEngineTable([engine, ...others]),
    admission: openAdmissionUnderTest(clock),
    capsOf: () => DEFAULT_CAPS,
    log: openLog({ level: "error", clock, sink: (bytes) => Promise.resolve(bytes.length) }),
    clock,
  });
  return {
    clock,
    trail,
    engine,
    summary: () => trail.events.map(summaryOf),
    run({ modelId = "open", texts = ["a", "b"] } = {}, context = {}) {
      const record = new RequestRecord(trail, { request: "req_1", address: "192.0.2.1", route: "POST /x" });
      record.identify({
        issuer: "https://ai.example.com",
        subject: "usr_1",
        team: "default",
        credential: "tok_1",
      });
      return runInference.run<"embedding">(modelId, { task: "embedding", texts }, {
        principal: principal("user"),
        record,
        signal: new AbortController().signal,
        deadlineMs: 30_000,
        network: "192.0.2.1",
        tellLimits() {},
        ...context,
      });
    },
  };
}

function summaryOf(event: AuditEvent): string {
  return event.type === "inference.finished" ? `${event.type} ${event.outcome}` : event.type;
}
