// Embed pipeline: takes requests through two stages, tokenize and infer, and settles each by whatever comes first.
import { Fault, toFault } from "../../faults/fault.ts";
import type { Clock } from "../../time/clock.ts";
import { abortedBy, type RunBounds } from "../engine.ts";
import type { Embeddings } from "../task.ts";
import { type QueuedText, RunQueue } from "./run_queue.ts";
import { packRows, type TokenRows } from "./worker_messages.ts";

/** One that does a run at a time: a worker. */
export interface Runner<Order, Answer> {
  /** Whether it takes a run now; false from the moment `run` is called until its promise is settled. */
  idle(): boolean;
  /** @throws Fault `unavailable` when the run comes to nothing */
  run(order: Order): Promise<Answer>;
}

/** What the pipeline is made of, and its bounds. */
export interface EmbedPipelineSettings {
  readonly dimensions: number;
  readonly tokensPerTextMax: number;
  readonly tokensPerRequestMax: number;
  /** Requests that may be unfinished at a time. */
  readonly requestsMax: number;
  readonly clock: Clock;
  readonly tokenizer: Runner<readonly string[], TokenRows>;
  /** Answers: row-major, shape [texts, dimensions]. */
  readonly inferrers: readonly Runner<TokenRows, Float32Array>[];
}

/** What the pipeline has done and holds, as plain counts. */
export interface EmbedPipelineFigures {
  /** Requests that are neither answered nor refused. */
  readonly requestsUnfinished: number;
  /** Runs and texts that were given to inference workers since the start. */
  readonly runsDispatched: number;
  readonly textsDispatched: number;
}

/** One request on its way. */
interface Job {
  readonly texts: readonly string[];
  readonly deadlineMs: number;
  /** Ids of each text; filled by the first stage. */
  readonly ids: Int32Array[];
  readonly tokenCounts: number[];
  /** Filled by the second stage. */
  readonly vectors: Float32Array;
  /** Texts that the present stage still owes. */
  owed: number;
  readonly resolve: (embeddings: Embeddings) => void;
  readonly reject: (fault: Fault) => void;
  readonly forgetSignal: () => void;
}

// A run that is under way holds up whoever comes next: it should take about 100 ms at most. Measured on one core: 0.5 ms
// for each padded token (the graph pads each text to the longest of its run) and 4 ms for the run itself; more than 8
// texts in a run gain next to nothing.
const INFERENCE_RUN = {
  textsMax: 8,
  costMax: 192,
  cost: (texts: number, longest: number) => texts * Math.max(longest, 1),
  costOfRun: 8,
} as const;

// Sizes are UTF-16 code units, of which the tokenizer was measured to do about 5,000 in a millisecond.
const TOKENIZER_RUN = {
  textsMax: 256,
  costMax: 32_768,
  cost: (_texts: number, _longest: number, total: number) => total,
  costOfRun: 0,
} as const;

/** setTimeout takes no more. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Takes requests and sees each to its end. */
export class EmbedPipeline {
  readonly #settings: EmbedPipelineSettings;
  readonly #unfinished = new Set<Job>();
  readonly #untokenized = new RunQueue<Job>(TOKENIZER_RUN);
  readonly #uninferred = new RunQueue<Job>(INFERENCE_RUN);
  #deadlineTimer: ReturnType<typeof setTimeout> | undefined;
  #timerAtMs = Infinity;
  #drained: (() => void) | undefined;
  #runsDispatched = 0;
  #textsDispatched = 0;

  constructor(settings: EmbedPipelineSettings) {
    this.#settings = settings;
  }

  /** The counts. */
  figures(): EmbedPipelineFigures {
    return {
      requestsUnfinished: this.#unfinished.size,
      runsDispatched: this.#runsDispatched,
      textsDispatched: this.#textsDispatched,
    };
  }

  /** Embeds texts; returns and throws what `Engine.run` says. */
  embed(texts: readonly string[], bounds: Pick<RunBounds, "signal" | "deadlineMs">): Promise<Embeddings> {
    const { signal, deadlineMs } = bounds;
    const { promise, resolve, reject } = Promise.withResolvers<Embeddings>();
    if (signal.aborted) {
      reject(abortedBy(signal));
    } else if (deadlineMs <= this.#settings.clock.monotonic()) {
      reject(deadlineExceeded());
    } else if (this.#unfinished.size >= this.#settings.requestsMax) {
      const reason = `Cannot queue a request: ${this.#unfinished.size} are unfinished`;
      reject(new Fault("overloaded", reason, { retryAfterSeconds: 1 }));
    } else if (texts.length === 0) {
      resolve(embeddingsOf(new Float32Array(0), this.#settings.dimensions, []));
    } else {
      const onAbort = () => this.#fail(job, abortedBy(signal));
      const job: Job = {
        texts,
        deadlineMs,
        ids: [],
        tokenCounts: [],
        vectors: new Float32Array(texts.length * this.#settings.dimensions),
        owed: texts.length,
        resolve,
        reject,
        forgetSignal: () => signal.removeEventListener("abort", onAbort),
      };
      signal.addEventListener("abort", onAbort);
      this.#unfinished.add(job);
      this.#untokenized.add(job, texts.map((text) => text.length));
      this.#watchDeadline(deadlineMs);
      this.pump();
    }
    return promise;
  }

  /** Gives runs to whoever is idle. To be called when a runner has become idle other than by ending a run. */
  pump(): void {
    this.#dropExpired();
    const { tokenizer, inferrers } = this.#settings;
    while (tokenizer.idle()) {
      const run = this.#untokenized.take();
      if (run.length === 0) break;
      void this.#tokenize(run);
    }
    for (const inferrer of inferrers) {
      if (!inferrer.idle()) continue;
      const run = this.#uninferred.take();
      if (run.length === 0) break;
      void this.#infer(run, inferrer);
    }
  }

  /** Rejects every request whose texts are not all inferred or in a run. */
  rejectQueued(fault: Fault): void {
    for (const job of [...this.#unfinished]) {
      if (job.tokenCounts.length === 0 || this.#uninferred.has(job)) this.#fail(job, fault);
    }
  }

  /** Rejects every request. */
  rejectAll(fault: Fault): void {
    for (const job of [...this.#unfinished]) this.#fail(job, fault);
  }

  /** Resolves when no request is unfinished. */
  drained(): Promise<void> {
    if (this.#unfinished.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#drained = resolve);
  }

  async #tokenize(run: readonly QueuedText<Job>[]): Promise<void> {
    try {
      const rows = await this.#settings.tokenizer.run(
        run.map(({ owner, index }) => owner.texts[index] ?? ""),
      );
      let offset = 0;
      run.forEach(({ owner, index }, row) => {
        const ids = rows.ids.subarray(offset, offset += rows.lengths[row] ?? 0);
        owner.ids[index] = ids;
        if (--owner.owed === 0 && this.#unfinished.has(owner)) this.#enterInference(owner);
      });
    } catch (thrown) {
      this.#failRun(run, thrown);
    }
    this.pump();
  }

  #enterInference(job: Job): void {
    const { tokensPerTextMax, tokensPerRequestMax } = this.#settings;
    job.tokenCounts.push(...job.ids.map((ids) => ids.length));
    // Now or never: a worker that computes cannot be stopped.
    const fields = job.tokenCounts.flatMap((count, index) =>
      count <= tokensPerTextMax
        ? []
        : [{ path: `/texts/${index}`, message: hasTokens(count, tokensPerTextMax) }]
    );
    const sum = job.tokenCounts.reduce((left, right) => left + right, 0);
    if (fields.length === 0 && sum > tokensPerRequestMax) {
      fields.push({ path: "/texts", message: hasTokens(sum, tokensPerRequestMax) });
    }
    if (fields.length > 0) {
      this.#fail(job, new Fault("fields_invalid", "Cannot embed texts: too many tokens", { fields }));
      return;
    }
    job.owed = job.texts.length;
    this.#uninferred.add(job, job.tokenCounts);
  }

  async #infer(run: readonly QueuedText<Job>[], inferrer: Runner<TokenRows, Float32Array>): Promise<void> {
    this.#runsDispatched++;
    this.#textsDispatched += run.length;
    try {
      const { dimensions } = this.#settings;
      const vectors = await inferrer.run(
        packRows(run.map(({ owner, index }) => owner.ids[index] ?? new Int32Array())),
      );
      run.forEach(({ owner, index }, row) => {
        owner.vectors.set(vectors.subarray(row * dimensions, (row + 1) * dimensions), index * dimensions);
        if (--owner.owed === 0) this.#finish(owner);
      });
    } catch (thrown) {
      this.#failRun(run, thrown);
    }
    this.pump();
  }

  #finish(job: Job): void {
    if (this.#forget(job)) job.resolve(embeddingsOf(job.vectors, this.#settings.dimensions, job.tokenCounts));
  }

  #fail(job: Job, fault: Fault): void {
    if (this.#forget(job)) job.reject(fault);
  }

  #failRun(run: readonly QueuedText<Job>[], thrown: unknown): void {
    const fault = toFault(thrown);
    for (const { owner } of run) this.#fail(owner, fault);
  }

  /** Takes a request off everything that holds it; false when it was settled before. */
  #forget(job: Job): boolean {
    if (!this.#unfinished.delete(job)) return false;
    job.forgetSignal();
    this.#untokenized.drop(job);
    this.#uninferred.drop(job);
    if (this.#unfinished.size === 0) {
      clearTimeout(this.#deadlineTimer);
      this.#timerAtMs = Infinity;
      this.#drained?.();
    }
    return true;
  }

  /** One timer serves all requests: it waits for the earliest deadline. */
  #watchDeadline(deadlineMs: number): void {
    if (deadlineMs >= this.#timerAtMs) return;
    clearTimeout(this.#deadlineTimer);
    this.#timerAtMs = deadlineMs;
    const delayMs = Math.min(Math.ceil(deadlineMs - this.#settings.clock.monotonic()), TIMER_MS_MAX);
    this.#deadlineTimer = setTimeout(() => {
      this.#timerAtMs = Infinity;
      this.#dropExpired();
      let earliest = Infinity;
      for (const job of this.#unfinished) earliest = Math.min(earliest, job.deadlineMs);
      this.#watchDeadline(earliest);
    }, delayMs);
  }

  #dropExpired(): void {
    const nowMs = this.#settings.clock.monotonic();
    for (const job of this.#unfinished) {
      if (job.deadlineMs <= nowMs) this.#fail(job, deadlineExceeded());
    }
  }
}

function hasTokens(count: number, max: number): string {
  return `has ${count} tokens; at most ${max} are allowed`;
}

function embeddingsOf(vectors: Float32Array, dimensions: number, tokenCounts: readonly number[]): Embeddings {
  const inputTokens = tokenCounts.reduce((sum, count) => sum + count, 0);
  return { vectors, dimensions, tokenCounts, usage: { inputTokens, outputTokens: 0, countedBy: "engine" } };
}

function deadlineExceeded(): Fault {
  return new Fault("deadline_exceeded", "Cannot go on: the deadline has passed");
}
