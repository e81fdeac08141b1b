// Engine: the port behind which a model computes, in a worker of this process or on another server.

/** What bounds one run. */
export interface RunBounds {
  /** Aborts when the client leaves or the server stops: queued work is dropped, running work is not awaited. */
  readonly signal: AbortSignal;
  /** The moment by which the answer must be there: milliseconds of `Clock.monotonic()`. */
  readonly deadlineMs: number;
}

/** The result of embedding `texts.length` texts. */
export interface Embeddings {
  /** Row-major, shape [texts, dimensions]; each row has Euclidean length 1 where the model normalises. */
  readonly vectors: Float32Array;
  /** Tokens of each text, as the model's own tokenizer counts them; shape [texts]. */
  readonly tokenCounts: readonly number[];
}

/** `warming` before the first answer can be quick; `ready` takes work; `failed` will not recover; `closed` is over. */
export type EngineState = "warming" | "ready" | "failed" | "closed";

/** One model that can compute. */
export interface Engine {
  readonly modelId: string;
  state(): EngineState;
  /**
   * Embeds texts, in their order. The caller has checked the card's limits that need no tokenizer.
   *
   * @throws Fault `fields_invalid` when a text has too many tokens (its `path` is `/INDEX`, or "" for the sum of all) ·
   * `overloaded` when the queue is full · `deadline_exceeded` · `client_left` when the signal aborts · `unavailable` when
   * no worker can take it or its worker died
   */
  embed(texts: readonly string[], bounds: RunBounds): Promise<Embeddings>;
  /** Refuses new work, lets running work end, frees the workers. */
  close(): Promise<void>;
}
