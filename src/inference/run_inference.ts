// Run an inference: the one act of this server. Find, check, record the intent, compute, record the outcome.
import type { RequestRecord } from "../audit/request_record.ts";
import type { Embeddings, Engine } from "../engines/engine.ts";
import type { EngineTable } from "../engines/engine_table.ts";
import { Fault, toFault } from "../faults/fault.ts";
import { FAULT_TABLE } from "../faults/fault_table.ts";
import type { Principal } from "../identity/principal.ts";
import type { ConcurrencyLimit } from "../limits/concurrency.ts";
import type { Catalog } from "../registry/catalog.ts";
import type { ModelCard } from "../registry/model_card.ts";
import type { Clock } from "../time/clock.ts";
import { findModel } from "./find_model.ts";

/** What every dialect turns its wire form into. */
export interface InferenceRequest {
  readonly modelId: string;
  readonly texts: readonly string[];
}

/** Around the request: who asks, its place in the trail, and when it is over. */
export interface InferenceContext {
  readonly principal: Principal;
  readonly record: RequestRecord;
  /** Aborts when the client leaves. */
  readonly signal: AbortSignal;
  /** A moment of `Clock.monotonic()`, milliseconds. */
  readonly deadlineMs: number;
}

/** What every dialect turns into its answer. */
export interface InferenceResult extends Embeddings {
  readonly card: ModelCard;
  readonly tokens: number;
}

/** Runs one inference. Throws the Faults of `findModel`, of the engine's `embed`, and `unavailable` without a durable record. */
export type RunInference = (request: InferenceRequest, context: InferenceContext) => Promise<InferenceResult>;

/** Makes the act over its parts. */
export function openRunInference(parts: {
  catalog: Catalog;
  engines: EngineTable;
  /** Requests of one principal that may be under way: nobody fills the queue alone. */
  atOnce: ConcurrencyLimit;
  clock: Clock;
}): RunInference {
  const { catalog, engines, atOnce, clock } = parts;
  return async (request, context) => {
    const { principal } = context;
    const { card } = findModel(catalog, principal, "model:infer", request.modelId);
    checkTexts(card, request.texts);
    const engine = engines.get(card.id);
    if (engine === undefined || engine.state() !== "ready") throw notReady(card);
    const release = atOnce.take(`${principal.issuer} ${principal.subject}`);
    try {
      return await runRecorded(engine, card, request, context, clock);
    } finally {
      release();
    }
  };
}

/** Intent, run, outcome. */
async function runRecorded(
  engine: Engine,
  card: ModelCard,
  { texts }: InferenceRequest,
  { record, signal, deadlineMs }: InferenceContext,
  clock: Clock,
): Promise<InferenceResult> {
  await record.inferenceStarted({ model: card.id, sha256: card.artefacts.graph.sha256, texts: texts.length });
  const startedMs = clock.monotonic();
  const finish = (outcome: string, tokens: number): Promise<void> =>
    record.inferenceFinished(card.id, outcome, tokens, Math.round(clock.monotonic() - startedMs));
  let embeddings: Embeddings;
  try {
    embeddings = await engine.embed(texts, { signal, deadlineMs });
  } catch (thrown) {
    await finish(FAULT_TABLE[toFault(thrown).kind].code, 0);
    throw thrown;
  }
  const tokens = embeddings.tokenCounts.reduce((sum, count) => sum + count, 0);
  // Awaited: no result leaves before the record of it is durable.
  await finish("completed", tokens);
  return { ...embeddings, card, tokens };
}

/** The card's limits that need no tokenizer; the engine checks the others before it dispatches. */
function checkTexts(card: ModelCard, texts: readonly string[]): void {
  const { textsPerRequestMax, charactersPerTextMax } = card.limits;
  if (texts.length > textsPerRequestMax) {
    throw invalid("", `has ${texts.length} texts; at most ${textsPerRequestMax} are allowed`);
  }
  texts.forEach((text, index) => {
    if (text.length > charactersPerTextMax) {
      throw invalid(
        `/${index}`,
        `has ${text.length} characters; at most ${charactersPerTextMax} are allowed`,
      );
    }
  });
}

function invalid(path: string, message: string): Fault {
  return new Fault("fields_invalid", "Cannot run an inference: the texts break a limit of the card", {
    fields: [{ path, message }],
  });
}

function notReady(card: ModelCard): Fault {
  return new Fault("unavailable", `Cannot run ${card.id}: its engine is not ready`, {
    detail: "The model is not ready.",
    retryAfterSeconds: 2,
  });
}
