// Engine: the port behind which a model computes, in a worker of this process or on another server.
import { Fault } from "../faults/fault.ts";
import type { AnswerStream } from "./answer_stream.ts";
import type { StreamItem, StreamRequest, StreamTask, WholeAnswer, WholeRequest, WholeTask } from "./task.ts";

/** What bounds one run, and what it leaves behind for the record. */
export interface RunBounds {
  /** Aborts when the client leaves or the server stops: queued work is dropped; work under way is stopped where it can be. */
  readonly signal: AbortSignal;
  /** The moment by which the answer must be there, streams included: milliseconds of `Clock.monotonic()`. */
  readonly deadlineMs: number;
  readonly trace: RunTrace;
}

/** Why a run ends early: the Fault that its signal was aborted with, else that the client left. */
export function abortedBy(signal: AbortSignal): Fault {
  return signal.reason instanceof Fault
    ? signal.reason
    : new Fault("client_left", "Cannot go on: the client left");
}

/** What an engine writes down about a run as it goes; true also when the run fails. */
export interface RunTrace {
  /** `UPSTREAM/MODEL` that got the last attempt; null for a model of this process. */
  servedBy: string | null;
  /** How often the run was begun somewhere. */
  attempts: number;
}

/**
 * `warming` before the first answer can be quick; `ready` takes work; `down` cannot be served now and comes back by itself;
 * `failed` will not recover; `closed` is over.
 */
export type EngineState = "warming" | "ready" | "down" | "failed" | "closed";

/** One model that can compute. */
export interface Engine {
  readonly modelId: string;
  state(): EngineState;
  /**
   * Runs a task and answers it whole. The caller has checked what the model's limits say without a tokenizer.
   *
   * @throws Fault `capability_missing` for a task that it cannot do · `fields_invalid` when a text has too many tokens (its
   * `path` is `/texts/INDEX`, or `/texts` for the sum of all) · `overloaded` when the queue is full · `deadline_exceeded` ·
   * `client_left` when the signal aborts · `unavailable` when nothing can take it · for upstreams also `input_refused`,
   * `context_length_exceeded`, `upstream_unreachable`, `upstream_failed`, `upstream_answer_invalid`, `upstream_timeout`
   */
  run<T extends WholeTask>(request: WholeRequest<T>, bounds: RunBounds): Promise<WholeAnswer<T>>;
  /**
   * Begins a task whose answer comes in pieces. Resolves when the first piece is there, so that what fails before it can still
   * be answered with a status of its own; throws what `run` throws.
   */
  stream<T extends StreamTask>(
    request: StreamRequest<T>,
    bounds: RunBounds,
  ): Promise<AnswerStream<StreamItem<T>>>;
  /** Refuses new work, lets running work end, frees what it holds. */
  close(): Promise<void>;
}
