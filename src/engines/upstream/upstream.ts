// Upstream: one server behind this one, with its connections, its bounds, its breaker and its health.
import type { AnswerStream } from "../answer_stream.ts";
import { Fault } from "../../faults/fault.ts";
import type { StreamItem, StreamTask, WholeAnswer, WholeTask } from "../task.ts";
import type { Clock } from "../../time/clock.ts";
import { type BreakerPass, createCircuitBreaker } from "./circuit_breaker.ts";
import { createConnectProbe } from "./connect_probe.ts";
import { startHealthCheck } from "./health_check.ts";
import { randomFraction } from "./random_fraction.ts";
import { createRetryBudget, type RetryBudget } from "./retry_budget.ts";
import { type CallBounds, type CallTarget, UpstreamCall } from "./upstream_call.ts";
import { breakerOutcome, UpstreamFault } from "./upstream_fault.ts";
import type { UpstreamSettings } from "./upstream_settings.ts";
import { faultOfReading, openUpstreamStream } from "./upstream_stream.ts";
import type { StreamCall, WholeCall, Wire } from "./wire.ts";

/** Why an upstream takes no call now. `resting`: its breaker is open, or a probe is under way. */
export type UpstreamRefusal = "closed" | "unhealthy" | "resting" | "full";

/** One server. */
export interface Upstream {
  readonly name: string;
  readonly wire: Wire;
  /** Whether it understands `stream_options.include_usage`. */
  readonly usageInStreams: boolean;
  /** Calls under way, streams included. */
  readonly inFlight: number;
  readonly retryBudget: RetryBudget;
  /** Why a call would be refused now; undefined where it would be made. */
  refusal(): UpstreamRefusal | undefined;
  /** Private words: why it is not healthy; undefined where it is. */
  unhealthyReason(): string | undefined;
  /**
   * Makes a call and reads its answer whole.
   *
   * @throws Fault `overloaded` when too many are under way here or there · `unavailable` while it rests · `client_left` and
   * `stopping` when the signal aborts · `deadline_exceeded` · `input_refused` · `context_length_exceeded` · `upstream_unreachable` ·
   * `upstream_failed` · `upstream_answer_invalid` · `upstream_timeout`
   */
  whole<T extends WholeTask>(call: WholeCall<T>, bounds: CallBounds): Promise<WholeAnswer<T>>;
  /** Makes a call and resolves when its first pieces are there; throws what `whole` throws. */
  stream<T extends StreamTask>(call: StreamCall<T>, bounds: CallBounds): Promise<AnswerStream<StreamItem<T>>>;
  /** Refuses new calls and ends those under way with Fault `stopping`. */
  close(): Promise<void>;
}

/** What an upstream tells the log. The words are private and hold nothing that the upstream sent. */
export interface UpstreamEvents {
  healthChanged?(upstream: string, healthy: boolean, reason: string | undefined): void;
  breakerChanged?(upstream: string, state: "open" | "closed"): void;
}

/** Shorter than what most servers keep idle connections for (5 s), so that none is used at the moment when they close it. */
const IDLE_CONNECTION_MS = 4_000;
/** However patient the settings are with answers: health is asked for little. */
const HEALTH_TIMEOUT_MS_MAX = 10_000;
const BUSY_RETRY_AFTER_SECONDS = 1;

/**
 * Opens an upstream. It is taken to be well until the first health check, which begins at once, says otherwise.
 *
 * @throws TypeError when the address is none · Error when the certificates cannot be read
 */
export function openUpstream(
  settings: UpstreamSettings,
  wire: Wire,
  clock: Clock,
  events: UpstreamEvents = {},
): Upstream {
  const { name } = settings;
  const url = new URL(settings.url);
  const client = Deno.createHttpClient({
    ...(settings.caCertificates === undefined ? {} : { caCerts: [settings.caCertificates] }),
    poolIdleTimeout: IDLE_CONNECTION_MS,
  });
  const probe = createConnectProbe({ url, timeoutMs: settings.connectTimeoutMs, clock });
  const lingering = new Set<Promise<void>>();
  const target: CallTarget = {
    settings,
    base: url.href.replace(/\/$/, ""),
    client,
    headers: {
      "user-agent": "portcullis",
      // Nothing is to be unpacked here: small answers that unfold into huge ones are refused.
      "accept-encoding": "identity",
      ...(settings.key === undefined ? {} : wire.credentialHeaders(settings.key)),
    },
    clock,
    reachable: probe.reachable,
    lingers(work) {
      lingering.add(work);
      work.then(() => lingering.delete(work));
    },
  };
  const breaker = createCircuitBreaker({
    clock,
    random: randomFraction,
    onChange: (state) => events.breakerChanged?.(name, state),
  });
  const health = startHealthCheck({
    ask: (signal) =>
      new UpstreamCall(
        target,
        {
          signal,
          deadlineMs: clock.monotonic() + Math.min(settings.firstByteTimeoutMs, HEALTH_TIMEOUT_MS_MAX),
        },
        () => undefined,
      ).status({
        method: "GET",
        path: settings.healthPath ?? wire.healthPath,
        headers: {},
        accept: ["*/*"],
      }),
    everySeconds: settings.healthSeconds,
    onChange: (healthy, reason) => events.healthChanged?.(name, healthy, reason),
  });
  const underWay = new Set<UpstreamCall>();
  let closing: Promise<void> | undefined;

  /** Takes a place for one call, and frees it when the call ends. */
  function begin(bounds: CallBounds): { readonly call: UpstreamCall; readonly pass: BreakerPass } {
    if (closing !== undefined) throw new UpstreamFault("unavailable", `Cannot run on ${name}: it is closed`);
    if (underWay.size >= settings.requestsAtOnceMax) {
      throw new UpstreamFault(
        "overloaded",
        `Cannot run on ${name}: too many calls are under way`,
        undefined,
        {
          retryAfterSeconds: BUSY_RETRY_AFTER_SECONDS,
        },
      );
    }
    const pass = breaker.enter();
    if (pass === undefined) {
      throw new UpstreamFault("unavailable", `Cannot run on ${name}: it failed too often`);
    }
    const call = new UpstreamCall(target, bounds, (end) => {
      underWay.delete(call);
      pass.settle(end instanceof Fault ? breakerOutcome(end) : end === "done" ? "success" : "neutral");
    });
    underWay.add(call);
    return { call, pass };
  }

  async function close(): Promise<void> {
    for (const call of [...underWay]) call.fail(new Fault("stopping", "Cannot go on: the server stops"));
    probe.close();
    await Promise.all([health.close(), ...lingering]);
    client.close();
  }

  return {
    name,
    wire,
    usageInStreams: settings.usageInStreams,
    get inFlight() {
      return underWay.size;
    },
    retryBudget: createRetryBudget(clock),
    refusal() {
      if (closing !== undefined) return "closed";
      if (!health.healthy) return "unhealthy";
      if (!breaker.lets()) return "resting";
      return underWay.size >= settings.requestsAtOnceMax ? "full" : undefined;
    },
    unhealthyReason: () => health.reason,
    async whole<T extends WholeTask>(wireCall: WholeCall<T>, bounds: CallBounds) {
      const { call } = begin(bounds);
      const { mediaType, headers } = await call.open(wireCall.request);
      const bytes = await call.readWhole();
      let answer: WholeAnswer<T>;
      try {
        answer = wireCall.read({ mediaType, headers, bytes });
      } catch (thrown) {
        throw call.fail(faultOfReading(thrown));
      }
      call.finish();
      return answer;
    },
    async stream<T extends StreamTask>(wireCall: StreamCall<T>, bounds: CallBounds) {
      const { call, pass } = begin(bounds);
      return await openUpstreamStream<T>(call, wireCall, pass.answering);
    },
    close: () => closing ??= close(),
  };
}
