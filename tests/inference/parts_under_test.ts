// Parts under test: a catalog in memory, the stub engine and the trail in memory, for the tests of inference.
import { openConcurrencyLimit } from "../../src/limits/concurrency.ts";
import type { AuditEvent } from "../../src/audit/audit_event.ts";
import { type MemoryAuditTrail, memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { RequestRecord } from "../../src/audit/request_record.ts";
import { createEngineTable } from "../../src/engines/engine_table.ts";
import type { Principal } from "../../src/identity/principal.ts";
import {
  type InferenceContext,
  type InferenceRequest,
  type InferenceResult,
  openRunInference,
} from "../../src/inference/run_inference.ts";
import type { Catalog, CatalogModel } from "../../src/registry/catalog.ts";
import type { ModelCard } from "../../src/registry/model_card.ts";
import { StubEngine } from "../support/app_under_test.ts";
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
  const models = (Object.keys(ACCESS) as (keyof typeof ACCESS)[]).map((id): CatalogModel => ({
    card: cardOf(id),
    accepted: !id.startsWith("broken"),
  }));
  return { find: (id) => models.find(({ card }) => card.id === id), list: () => models };
})();

export function principal(...roles: string[]): Principal {
  return {
    issuer: "https://ai.example.com",
    subject: "usr_1",
    roles,
    credential: { kind: "access_token", id: "tok_1", expiresAtSeconds: 1_750_000_900 },
  };
}

/** What one test drives. */
export interface InferenceUnderTest {
  readonly clock: ManualClock;
  readonly trail: MemoryAuditTrail;
  readonly engine: StubEngine;
  /** Each event so far as its type, with the outcome where there is one. */
  summary(): string[];
  run(request?: Partial<InferenceRequest>, context?: Partial<InferenceContext>): Promise<InferenceResult>;
}

/** One inference of `open` by a user, unless told otherwise. The stub engine gives two numbers and seven tokens for each text. */
export function openInferenceUnderTest(): InferenceUnderTest {
  const clock = manualClock();
  const trail = memoryAuditTrail();
  const engine = new StubEngine("open");
  engine.behave = (texts) =>
    Promise.resolve({
      vectors: new Float32Array(texts.length * 2).fill(0.5),
      tokenCounts: texts.map(() => 7),
    });
  const others = ["guarded", "hidden", "broken", "broken-hidden"].map((id) => new StubEngine(id));
  const runInference = openRunInference({
    catalog,
    engines: createEngineTable([engine, ...others]),
    atOnce: openConcurrencyLimit(1000),
    clock,
  });
  return {
    clock,
    trail,
    engine,
    summary: () => trail.events.map(summaryOf),
    run(request, context) {
      const record = new RequestRecord(trail, { request: "req_1", address: "192.0.2.1", route: "POST /x" });
      record.identify("usr_1", "tok_1");
      return runInference({ modelId: "open", texts: ["a", "b"], ...request }, {
        principal: principal("user"),
        record,
        signal: new AbortController().signal,
        deadlineMs: 30_000,
        ...context,
      });
    },
  };
}

function summaryOf(event: AuditEvent): string {
  return event.type === "inference.finished" ? `${event.type} ${event.outcome}` : event.type;
}
