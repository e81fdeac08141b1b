// Upstream engine: a model that other servers compute. It chooses one of them, and another where that is safe and helps.
import type { AnswerStream } from "../answer_stream.ts";
import { abortedBy, type Engine, type RunBounds } from "../engine.ts";
import { Fault, toFault } from "../../faults/fault.ts";
import type { StreamItem, StreamRequest, StreamTask, WholeAnswer, WholeRequest, WholeTask } from "../task.ts";
import type { Clock } from "../../time/clock.ts";
import { createReplicaChooser } from "./choose_replica.ts";
import { randomFraction } from "./random_fraction.ts";
import { backoffMs } from "./retry_budget.ts";
import type { Upstream } from "./upstream.ts";
import { retryPlace } from "./upstream_fault.ts";
import type { UpstreamModelSettings } from "./upstream_settings.ts";
import type { WireOptions, WireRequest } from "./wire.ts";

/** So often one request is sent at most, whatever the budgets allow. */
const ATTEMPTS_MAX = 3;
/** Faults that may be the request's own doing, after which another replica is tried. */
const DOUBTFUL_FAULTS_MAX = 1;

/**
 * Whole answers that are text are parsed at once, which holds all others up while it lasts. The longest that models write, and the
 * rankings and judgements of as many texts as may be asked about, are a small part of this.
 */
const TEXT_ANSWER_BYTES_MAX = 8 * 1024 * 1024;

/** Bytes of a whole answer by task. Where they carry data, vectors, pictures, tensors, only the upstream's settings bound them. */
const ANSWER_BYTES_MAX: Readonly<Record<WholeTask, number>> = {
  chat: TEXT_ANSWER_BYTES_MAX,
  completion: TEXT_ANSWER_BYTES_MAX,
  moderation: TEXT_ANSWER_BYTES_MAX,
  rerank: TEXT_ANSWER_BYTES_MAX,
  transcription: TEXT_ANSWER_BYTES_MAX,
  tensor_metadata: TEXT_ANSWER_BYTES_MAX,
  embedding: Infinity,
  image: Infinity,
  tensor: Infinity,
};

/** One place that serves the model. */
interface Replica {
  readonly upstream: Upstream;
  readonly options: WireOptions;
  /** `UPSTREAM/MODEL`. */
  readonly servedBy: string;
}

/**
 * Opens the engine of one model.
 *
 * @param upstreams by name; they stay the caller's to close
 * @throws Error when the settings name an upstream that is not there, or no replica
 */
export function openUpstreamEngine(parts: {
  readonly model: UpstreamModelSettings;
  readonly upstreams: ReadonlyMap<string, Upstream>;
  readonly clock: Clock;
}): Engine {
  const { model, upstreams, clock } = parts;
  const replicas = model.replicas.map(({ upstream: name, model: modelThere }): Replica => {
    const upstream = upstreams.get(name);
    if (upstream === undefined) throw new Error(`Cannot serve ${model.id}: there is no upstream ${name}`);
    const options = { model: modelThere, usageInStreams: upstream.usageInStreams };
    return { upstream, options, servedBy: `${name}/${modelThere}` };
  });
  if (replicas.length === 0) throw new Error(`Cannot serve ${model.id}: it has no replica`);
  const chooser = createReplicaChooser(model.replicas.map(({ weight }) => weight), model.routing);
  let closed = false;

  const inFlight = (index: number): number => replicas[index]?.upstream.inFlight ?? 0;

  /** Sends a request until something comes back, or until trying again would not help or would harm. */
  async function onSomeReplica<Call extends { readonly request: WireRequest }, Value>(
    bounds: RunBounds,
    callFor: (replica: Replica) => Call,
    send: (replica: Replica, call: Call) => Promise<Value>,
  ): Promise<Value> {
    if (closed) throw new Fault("unavailable", `Cannot run ${model.id}: its engine is closed`);
    const tried = new Set<number>();
    /** Those that shall not get this request again. */
    const barred = new Set<number>();
    const isOpen = (index: number): boolean =>
      !barred.has(index) && replicas[index]?.upstream.refusal() === undefined;
    const isFresh = (index: number): boolean => !tried.has(index) && isOpen(index);
    let last: Fault | undefined;
    let doubtfulFaults = 0;

    for (let attempts = 0;;) {
      const index = chooser.choose(isFresh, inFlight) ?? chooser.choose(isOpen, inFlight);
      const replica = index === undefined ? undefined : replicas[index];
      if (index === undefined || replica === undefined) throw last ?? nobody();
      let call: Call;
      try {
        call = callFor(replica);
      } catch (thrown) {
        last = toFault(thrown);
        // Another replica may speak another protocol.
        if (last.kind !== "capability_missing") throw last;
        barred.add(index);
        continue;
      }
      if (attempts === 0) replica.upstream.retryBudget.countRequest();
      else if (!replica.upstream.retryBudget.takeRetry()) throw last ?? nobody();
      attempts++;
      bounds.trace.servedBy = replica.servedBy;
      bounds.trace.attempts++;
      try {
        return await send(replica, call);
      } catch (thrown) {
        last = toFault(thrown);
      }
      const place = retryPlace(last);
      if (place === "elsewhere_once") doubtfulFaults++;
      // A body in pieces is spent with its first reading.
      if (
        place === "nowhere" || attempts >= ATTEMPTS_MAX || doubtfulFaults > DOUBTFUL_FAULTS_MAX ||
        call.request.body instanceof ReadableStream
      ) throw last;
      tried.add(index);
      if (place !== "anywhere") barred.add(index);
      const waitMs = backoffMs(attempts, randomFraction());
      if (!replicas.some((_, other) => isOpen(other)) || clock.monotonic() + waitMs >= bounds.deadlineMs) {
        throw last;
      }
      await pause(waitMs, bounds.signal);
    }
  }

  /** Why no replica can be asked. */
  function nobody(): Fault {
    const isBusy = replicas.some(({ upstream }) => upstream.refusal() === "full");
    return new Fault(
      isBusy ? "overloaded" : "unavailable",
      `Cannot run ${model.id}: ${isBusy ? "too many calls are under way" : "none of its upstreams is well"}`,
      { retryAfterSeconds: isBusy ? 1 : 2 },
    );
  }

  return {
    modelId: model.id,
    state() {
      if (closed) return "closed";
      const takesWork = replicas.some(({ upstream }) => {
        const refusal = upstream.refusal();
        return refusal === undefined || refusal === "full";
      });
      return takesWork ? "ready" : "down";
    },
    run<T extends WholeTask>(request: WholeRequest<T>, bounds: RunBounds): Promise<WholeAnswer<T>> {
      const { signal, deadlineMs } = bounds;
      const callBounds = { signal, deadlineMs, answerBytesMax: ANSWER_BYTES_MAX[request.task] };
      return onSomeReplica(
        bounds,
        ({ upstream, options }) => upstream.wire.whole<T>(request, options),
        ({ upstream }, call) => upstream.whole<T>(call, callBounds),
      );
    },
    stream<T extends StreamTask>(
      request: StreamRequest<T>,
      bounds: RunBounds,
    ): Promise<AnswerStream<StreamItem<T>>> {
      return onSomeReplica(
        bounds,
        ({ upstream, options }) => upstream.wire.stream<T>(request, options),
        ({ upstream }, call) => upstream.stream<T>(call, bounds),
      );
    },
    close() {
      closed = true;
      return Promise.resolve();
    },
  };
}

/** Waits; throws the signal's Fault when it aborts. */
function pause(waitMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(abortedBy(signal));
    const onAbort = (): void => {
      clearTimeout(timer);
      reject(abortedBy(signal));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, waitMs);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
