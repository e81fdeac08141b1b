// ONNX engine: an embedding model in workers of this process, one that tokenizes and several that infer.
import { Fault } from "../../faults/fault.ts";
import type { ModelCard } from "../../registry/model_card.ts";
import type { Clock } from "../../time/clock.ts";
import type { Engine, EngineState, RunBounds } from "../engine.ts";
import type { WholeAnswer, WholeRequest, WholeTask } from "../task.ts";
import { EmbedPipeline, type EmbedPipelineFigures } from "./embed_pipeline.ts";
import { startSandboxedWorker } from "./sandboxed_worker.ts";
import { type InferenceOrder, parseTokens, parseVectors, type TokenizerOrder } from "./worker_messages.ts";
import { WorkerSlot } from "./worker_slot.ts";

/** What an engine is opened with. The caller has read the bytes and checked them against the card. */
export interface OnnxEngineOptions {
  readonly card: Pick<ModelCard, "id" | "dimensions" | "limits">;
  readonly graph: Uint8Array;
  readonly vocabulary: Uint8Array;
  /** The bytes at `runtimeWasmUrl`. */
  readonly runtimeWasm: Uint8Array;
  /** Inference workers, at least 1; one for each core that the model may use. */
  readonly workers: number;
  /** Requests that may wait while each worker has one. */
  readonly queueMax: number;
  readonly clock: Clock;
  /** Hears of each worker that dies or cannot start. */
  readonly onFault?: (fault: Fault) => void;
  /** How long a run may take before its worker counts as dead; default 60,000, where 100 is usual. */
  readonly runMsMax?: number;
  /** Starts a worker; a test's way to lay hands on it. Default: `startSandboxedWorker`. */
  readonly startWorker?: (url: URL) => Worker;
}

// Generous: they tell a worker that hangs from one that is slow. A start takes 2 s on a core of its own.
const START_MS_MAX = 60_000;
const RUN_MS_MAX = 60_000;
/** How long running work may hold up the end. */
const CLOSE_MS_MAX = 5_000;

/** Counts for metrics. */
export interface OnnxEngineFigures extends EmbedPipelineFigures {
  /** Inference workers that are warm. */
  readonly workersAlive: number;
  /** Workers of both kinds that took the place of a dead one. */
  readonly workersReplaced: number;
}

/** An engine in this process. */
export interface OnnxEngine extends Engine {
  figures(): OnnxEngineFigures;
}

/**
 * Opens an engine and returns at once: its state is `warming` until all workers are warm. It is `failed` for good when a
 * worker says that it cannot use the bytes; a worker that dies otherwise is replaced.
 *
 * The engine keeps the bytes for replacements, and each worker has its own copy: memory that is shared could be
 * rewritten by a worker that was taken over, under the feet of its successors.
 */
export function openOnnxEngine(options: OnnxEngineOptions): OnnxEngine {
  const {
    card,
    graph,
    vocabulary,
    runtimeWasm,
    workers,
    queueMax,
    clock,
    startWorker = startSandboxedWorker,
  } = options;
  let ended: "failed" | "closed" | undefined;
  let closing: Promise<void> | undefined;

  const openSlot = (name: string, file: string, startOrder: TokenizerOrder | InferenceOrder): WorkerSlot =>
    new WorkerSlot({
      name,
      startWorker: () => startWorker(new URL(file, import.meta.url)),
      startOrder,
      startMsMax: START_MS_MAX,
      runMsMax: options.runMsMax ?? RUN_MS_MAX,
      onChange,
      onFault: (fault) => options.onFault?.(fault),
    });
  const tokenizer = openSlot("the tokenizer worker", "tokenizer_worker.ts", { kind: "start", vocabulary });
  const inferrers = Array.from(
    { length: workers },
    (_, index) =>
      openSlot(`inference worker ${index + 1}`, "inference_worker.ts", { kind: "start", graph, runtimeWasm }),
  );
  const slots = [tokenizer, ...inferrers];

  const pipeline = new EmbedPipeline({
    dimensions: card.dimensions,
    tokensPerTextMax: card.limits.tokensPerTextMax,
    tokensPerRequestMax: card.limits.tokensPerRequestMax,
    requestsMax: workers + queueMax,
    clock,
    tokenizer: {
      idle: () => tokenizer.idle(),
      run: (texts) =>
        tokenizer.run(
          { kind: "tokenize", texts } satisfies TokenizerOrder,
          (data) => parseTokens(data, texts.length),
        ),
    },
    inferrers: inferrers.map((slot) => ({
      idle: () => slot.idle(),
      run: (rows) =>
        slot.run(
          { kind: "run", ...rows } satisfies InferenceOrder,
          (data) => parseVectors(data, rows.lengths.length * card.dimensions),
        ),
    })),
  });

  for (const slot of slots) slot.start();

  function onChange(): void {
    if (ended !== undefined) return;
    if (slots.some((slot) => slot.useless())) {
      end("failed");
    } else {
      pipeline.pump();
    }
  }

  function state(): EngineState {
    if (ended !== undefined) return ended;
    if (closing !== undefined) return "closed";
    if (slots.some((slot) => slot.undecided())) return "warming";
    return tokenizer.alive() && inferrers.some((slot) => slot.alive()) ? "ready" : "warming";
  }

  function end(how: "failed" | "closed"): void {
    ended = how;
    for (const slot of slots) slot.close();
    pipeline.rejectAll(unavailable(how));
  }

  const unavailable = (now: string) =>
    new Fault("unavailable", `Cannot embed with ${card.id}: its engine is ${now}`, { retryAfterSeconds: 1 });

  const cannotDo = (task: string) =>
    new Fault("capability_missing", `Cannot run ${task} on ${card.id}: it only embeds`);

  async function close(): Promise<void> {
    if (ended !== undefined) return;
    pipeline.rejectQueued(unavailable("closed"));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, CLOSE_MS_MAX));
    await Promise.race([pipeline.drained(), late]);
    clearTimeout(timer);
    end("closed");
  }

  return {
    modelId: card.id,
    state,
    async run<T extends WholeTask>(request: WholeRequest<T>, bounds: RunBounds): Promise<WholeAnswer<T>> {
      if (request.task !== "embedding") throw cannotDo(request.task);
      const now = state();
      if (now !== "ready") throw unavailable(now);
      bounds.trace.attempts++;
      return await pipeline.embed(request.texts, bounds) as WholeAnswer<T>;
    },
    stream: (request) => Promise.reject(cannotDo(request.task)),
    close: () => closing ??= close(),
    figures: () => ({
      ...pipeline.figures(),
      workersAlive: inferrers.filter((slot) => slot.alive()).length,
      workersReplaced: slots.reduce((sum, slot) => sum + slot.replacements(), 0),
    }),
  };
}
