// Run an inference: the one act of this server. Find, check, record the intent, compute, record the outcome.
import type { RequestCaps } from "../access/request_caps.ts";
import type { RequestRecord } from "../audit/request_record.ts";
import type { AnswerStream } from "../engines/answer_stream.ts";
import { abortedBy, type Engine, type RunBounds, type RunTrace } from "../engines/engine.ts";
import type { EngineTable } from "../engines/engine_table.ts";
import type {
  StreamItem,
  StreamRequest,
  StreamTask,
  TaskRequest,
  WholeAnswer,
  WholeRequest,
  WholeTask,
} from "../engines/task.ts";
import { Fault, type FaultKind, toFault } from "../faults/fault.ts";
import { FAULT_TABLE } from "../faults/fault_table.ts";
import type { Principal } from "../access/principal.ts";
import type { Usage } from "../engines/usage.ts";
import type { Catalog } from "../registry/catalog.ts";
import type { ServedModel } from "../registry/served_model.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import type { Admission, AdmissionContext, Admitted, Candidate, Candidates } from "./admission.ts";
import { boundRequest, itemsOf } from "./bound_request.ts";
import { findModel, requireCapability } from "./find_model.ts";
import { KeptPayload, type PayloadKeeping } from "./kept_payload.ts";
import { type Ending, type Settlement, settlementOf } from "./settlement.ts";

/** Around the request: who asks, its place in the trail, and when it is over. */
export interface InferenceContext extends AdmissionContext {
  readonly record: RequestRecord;
  /** Aborts when the client leaves. */
  readonly signal: AbortSignal;
}

/** A whole answer and the model that gave it. */
export interface InferenceResult<Answer> {
  /** The model that was asked for, by its id and never by an alias. */
  readonly model: ServedModel;
  readonly answer: Answer;
  /** `UPSTREAM/MODEL`, or null for a model of this process. For operators. */
  readonly servedBy: string | null;
}

/** An answer in pieces and the model that gives it. The outcome is on record before `next()` says that it ended. */
export interface InferenceStream<Item> extends AnswerStream<Item> {
  readonly model: ServedModel;
  readonly servedBy: string | null;
}

/**
 * The act. Both methods throw the Faults of `findModel` and of the engine, `capability_missing`, `fields_invalid` with paths of
 * the neutral request, `rate_limited` and `budget_exhausted`, and `unavailable` without a durable record.
 */
export interface RunInference {
  run<T extends WholeTask>(
    modelId: string,
    request: WholeRequest<T>,
    context: InferenceContext,
  ): Promise<InferenceResult<WholeAnswer<T>>>;
  stream<T extends StreamTask>(
    modelId: string,
    request: StreamRequest<T>,
    context: InferenceContext,
  ): Promise<InferenceStream<StreamItem<T>>>;
  /** How many are under way at this moment. */
  underWay(): number;
  /** How many of them are asked of this model, or may yet come to it. */
  underWayOn(modelId: string): number;
  /** Ends all that is under way with Fault `stopping`; each of them is still recorded. What comes later does not begin. */
  stop(): void;
}

/** What the act is made of. */
export interface InferenceParts {
  readonly catalog: Catalog;
  readonly engines: EngineTable;
  /** All limits: rates, budgets, places. */
  readonly admission: Admission;
  /** How much one request of a principal may ask for. */
  readonly capsOf: (principal: Principal) => RequestCaps;
  /** Absent: nothing of what is asked and answered is kept. */
  readonly payloads?: PayloadKeeping | undefined;
  readonly log: Log;
  readonly clock: Clock;
}

/** Makes the act over its parts. */
export function openRunInference(parts: InferenceParts): RunInference {
  const { log, clock } = parts;
  const underWay: UnderWay = new Map();
  let isStopping = false;
  let notBelievedMs = -Infinity;

  /** Whose figures cannot be true is told, but not by every answer. */
  function settlementFor(run: Run<TaskRequest>): Settlement {
    return settlementOf(() => run.request, ({ inputTokens, outputTokens }, ours) => {
      if (clock.monotonic() - notBelievedMs < NOT_BELIEVED_EVERY_MS) return;
      notBelievedMs = clock.monotonic();
      log.write("warn", "usage.not_believed", {
        model: run.ranOn.id,
        servedBy: run.trace.servedBy,
        inputTokens,
        outputTokens,
        inputTokensCounted: ours.inputTokens,
        outputTokensCounted: ours.outputTokens,
      });
    });
  }

  /** Steps 1 to 4: find, check, take from the limits, record the intent. */
  async function begin<Request extends TaskRequest>(
    name: string,
    asked: Request,
    context: InferenceContext,
  ): Promise<Run<Request>> {
    const { principal, record } = context;
    const model = findModel(parts.catalog, principal, "model:infer", name);
    requireCapability(model, asked.task === "tensor_metadata" ? "tensor" : asked.task);
    const request = boundRequest(asked, model, parts.capsOf(principal));
    const standIns = standInsOf(model, asked, parts, principal);
    const run = new Run(parts, underWay, [{ model, request }, ...standIns], context);
    // A model that nobody can serve now, and that no other stands in for, leaves a refusal and no intent.
    run.requireSomeEngine();
    await run.admit();
    if (isStopping) {
      run.withdraw();
      throw stopped();
    }
    try {
      await record.inferenceStarted({
        model: model.id,
        task: request.task,
        sha256: model.sha256,
        items: itemsOf(request),
      }, await run.kept?.input(model.id, run.request));
    } catch (thrown) {
      run.withdraw();
      throw thrown;
    }
    return run;
  }

  return {
    async run<T extends WholeTask>(name: string, asked: WholeRequest<T>, context: InferenceContext) {
      const run = await begin(name, asked, context);
      const settlement = settlementFor(run);
      const answer = await run.settled(
        settlement,
        async () => {
          const answered = settlement.answered(
            await run.onSomeEngine((engine, bounds, request) => engine.run<T>(request, bounds)),
          );
          run.kept?.answered<T>(asked.task as T, answered);
          return answered;
        },
      );
      return { model: run.model, answer, servedBy: run.trace.servedBy };
    },

    async stream<T extends StreamTask>(name: string, asked: StreamRequest<T>, context: InferenceContext) {
      const run = await begin(name, asked, context);
      const settlement = settlementFor(run);
      const source = await run.settledOnFault(
        settlement,
        () => run.onSomeEngine((engine, bounds, request) => engine.stream<T>(request, bounds)),
      );
      return run.overseen(source, settlement);
    },

    underWay: () => underWay.size,
    underWayOn: (modelId) => [...underWay.values()].filter((models) => models.includes(modelId)).length,

    stop() {
      isStopping = true;
      for (const controller of underWay.keys()) controller.abort(stopped());
    },
  };
}

/** Faults after which another model may stand in: the engine failed, not the request. */
const ENGINE_FAULTS: readonly FaultKind[] = [
  "unavailable",
  "overloaded",
  "upstream_unreachable",
  "upstream_failed",
  "upstream_answer_invalid",
  "upstream_timeout",
];

const NOT_BELIEVED_EVERY_MS = 60_000;

/** Each inference by what ends it, with the models that it may come to. */
type UnderWay = Map<AbortController, readonly string[]>;

/** One inference from its intent to its outcome. */
class Run<Request extends TaskRequest> {
  readonly model: ServedModel;
  readonly trace: RunTrace = { servedBy: null, attempts: 0 };
  readonly kept: KeptPayload | undefined;
  readonly #parts: InferenceParts;
  readonly #context: InferenceContext;
  readonly #underWay: UnderWay;
  readonly #controller = new AbortController();
  #candidates: Candidates<Request>;
  /** The one that was tried last. */
  #current: Candidate<Request>;
  readonly #startedMs: number;
  readonly #onClientLeft = (): void => this.#controller.abort();
  #admitted: Admitted | undefined;
  /** Pieces of the answer were handed on. */
  #anySent = false;
  #finishing: Promise<void> | undefined;
  #deadlineTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    parts: InferenceParts,
    underWay: UnderWay,
    candidates: Candidates<Request>,
    context: InferenceContext,
  ) {
    this.#parts = parts;
    this.#underWay = underWay;
    this.model = candidates[0].model;
    this.#context = context;
    this.#startedMs = parts.clock.monotonic();
    this.#candidates = candidates;
    this.#current = candidates[0];
    const { payloads } = parts;
    if (payloads !== undefined) {
      this.kept = new KeptPayload(payloads, context.principal, context.record.request);
    }
  }

  /** The request as it runs. */
  get request(): Request {
    return this.#current.request;
  }

  /** The model that it runs on. */
  get ranOn(): ServedModel {
    return this.#current.model;
  }

  /** Takes from the limits; from here on it is under way. */
  async admit(): Promise<void> {
    const { signal } = this.#context;
    const admitted = await this.#parts.admission.admit(this.#context, this.#candidates);
    this.#admitted = admitted;
    const [first, ...standIns] = this.#candidates;
    const others = standIns.filter(({ model }) => admitted.models.includes(model));
    const bounded = ({ model, request }: Candidate<Request>) => ({ model, request: admitted.bound(request) });
    this.#candidates = [bounded(first), ...others.map(bounded)];
    this.#current = this.#candidates[0];
    this.#underWay.set(this.#controller, this.#candidates.map(({ model }) => model.id));
    if (signal.aborted) this.#controller.abort();
    else signal.addEventListener("abort", this.#onClientLeft, { once: true });
  }

  /** It does not run after all: nothing is charged. */
  withdraw(): void {
    this.#end(null);
  }

  #end(usage: Usage | null): void {
    this.#context.signal.removeEventListener("abort", this.#onClientLeft);
    this.#underWay.delete(this.#controller);
    this.#admitted?.settle(usage, this.ranOn);
  }

  requireSomeEngine(): void {
    const { engines } = this.#parts;
    if (this.#candidates.some(({ model }) => engines.get(model.id)?.state() === "ready")) return;
    throw notReady(this.model);
  }

  /** Tries the model, then those that stand in for it. Each change of model is on record before it happens. */
  async onSomeEngine<Value>(
    attempt: (engine: Engine, bounds: RunBounds, request: Request) => Promise<Value>,
  ): Promise<Value> {
    const { signal } = this.#controller;
    const bounds = { signal, deadlineMs: this.#context.deadlineMs, trace: this.trace };
    let last: Fault | undefined;
    for (const [index, candidate] of this.#candidates.entries()) {
      const { model, request } = candidate;
      const engine = this.#parts.engines.get(model.id);
      if (engine?.state() !== "ready") continue;
      if (index > 0) {
        await this.#context.record.inferenceRerouted(
          this.model.id,
          model.id,
          FAULT_TABLE[(last ?? notReady(this.model)).kind].code,
          await this.kept?.input(model.id, request),
        );
      }
      if (signal.aborted) throw abortedBy(signal);
      this.#current = candidate;
      try {
        return await attempt(engine, bounds, request);
      } catch (thrown) {
        last = toFault(thrown);
        if (!ENGINE_FAULTS.includes(last.kind) || isSpent(this.request)) throw thrown;
      }
    }
    throw last ?? notReady(this.model);
  }

  /** Runs and records the outcome, good or bad. No result leaves before the record of it is durable. */
  async settled<Value>(settlement: Settlement, act: () => Promise<Value>): Promise<Value> {
    const value = await this.settledOnFault(settlement, act);
    await this.#finish("completed", settlement);
    return value;
  }

  /** Runs and records the outcome if it is bad. */
  async settledOnFault<Value>(settlement: Settlement, act: () => Promise<Value>): Promise<Value> {
    try {
      return await act();
    } catch (thrown) {
      await this.#finish(toFault(thrown).kind, settlement);
      throw thrown;
    }
  }

  /** A stream that counts what passes and records the outcome before it says that it ended, however it ends. */
  overseen<Item>(source: AnswerStream<Item>, settlement: Settlement): InferenceStream<Item> {
    const { servedBy } = this.trace;
    const { signal } = this.#controller;
    let owedSent = false;
    const end = (reason: Fault): void => {
      source.cancel(reason);
      // Nobody waits for this record any more; the trail itself refuses the next request if it could not be kept.
      this.#finish(reason.kind, settlement).catch((thrown) =>
        this.#parts.log.write("error", "inference.outcome_not_recorded", { reason: toFault(thrown).message })
      );
    };
    // A client that takes nothing pulls nothing: its time ends all the same, and so does the server's.
    const onAbort = (): void => end(abortedBy(signal));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    this.#deadlineTimer = setTimeout(
      () => this.#controller.abort(new Fault("deadline_exceeded", "Cannot go on: the deadline has passed")),
      Math.max(0, this.#context.deadlineMs - this.#parts.clock.monotonic()),
    );
    return {
      model: this.model,
      servedBy,
      ...(source.mediaType === undefined ? {} : { mediaType: source.mediaType }),
      next: async () => {
        // What is owed came last; the source is over by then.
        const items = owedSent ? undefined : await this.settledOnFault(settlement, () => source.next());
        // What was ended early must not look like a good end.
        if (signal.aborted) throw abortedBy(signal);
        if (items !== undefined) {
          settlement.sent(items);
          this.kept?.sent(items);
          this.#anySent = true;
          return items;
        }
        const owed = owedSent ? [] : settlement.owed<Item>();
        owedSent = true;
        if (owed.length > 0) return owed;
        await this.#finish("completed", settlement);
        return undefined;
      },
      cancel: (reason) => end(reason ?? new Fault("client_left", "Cannot go on: the client left")),
    };
  }

  /** Once: the first way of ending is the one that counts. */
  #finish(outcome: "completed" | FaultKind, settlement: Settlement): Promise<void> {
    this.#finishing ??= this.#recordFinished(outcome, settlement);
    return this.#finishing;
  }

  async #recordFinished(outcome: "completed" | FaultKind, settlement: Settlement): Promise<void> {
    clearTimeout(this.#deadlineTimer);
    const ending = this.#endingOf(outcome);
    const usage = settlement.usage(ending);
    const charged = ending === "failed" && !this.#anySent ? null : usage;
    try {
      await this.#context.record.inferenceFinished({
        model: this.model.id,
        sha256: this.ranOn.sha256,
        outcome: outcome === "completed" ? outcome : FAULT_TABLE[outcome].code,
        inputTokens: usage.inputTokens,
        outputTokens: usage.outputTokens,
        countedBy: usage.countedBy,
        ...this.trace,
        durationMs: Math.round(this.#parts.clock.monotonic() - this.#startedMs),
      }, this.kept?.output(this.ranOn.id));
      this.#end(charged);
    } catch (thrown) {
      // A whole answer without its record does not leave: what nobody got costs nothing.
      this.#end(ending === "completed" && !this.#anySent ? null : charged);
      throw thrown;
    }
  }

  /** Whoever leaves an engine that works, or gives it too little time, has used it; that it failed is not their doing. */
  #endingOf(outcome: "completed" | FaultKind): Ending {
    if (outcome === "completed") return outcome;
    const isGivenUp = outcome === "client_left" || outcome === "deadline_exceeded";
    return isGivenUp && this.trace.attempts > 0 ? "given_up" : "failed";
  }
}

/**
 * The models that stand in for another: of the same capability, open to the caller as well, and allowed by their own settings
 * to run what was asked.
 */
function standInsOf<Request extends TaskRequest>(
  model: ServedModel,
  asked: Request,
  { catalog, capsOf }: InferenceParts,
  principal: Principal,
): readonly Candidate<Request>[] {
  return model.fallbacks.flatMap((name) => {
    try {
      const standIn = findModel(catalog, principal, "model:infer", name);
      if (!standIn.capabilities.includes(asked.task as never) || !passesAll(standIn, asked)) return [];
      return [{ model: standIn, request: boundRequest(asked, standIn, capsOf(principal)) }];
    } catch {
      // Not open to this caller, refused, or asked for too much: it does not stand in for anything.
      return [];
    }
  });
}

/** Whether a model lets all fields through that are of no dialect. */
function passesAll({ passFields }: ServedModel, asked: TaskRequest): boolean {
  const extra = "extra" in asked ? asked.extra : {};
  return Object.keys(extra).every((name) => passFields.includes(name));
}

/** A body that was given away in pieces cannot be sent a second time. */
function isSpent(request: TaskRequest): boolean {
  return request.task === "transcription";
}

function stopped(): Fault {
  return new Fault("stopping", "Cannot go on: the server stops");
}

function notReady(model: ServedModel): Fault {
  return new Fault("unavailable", `Cannot run ${model.id}: its engine is not ready`, {
    detail: "The model is not ready.",
    retryAfterSeconds: 2,
  });
}
