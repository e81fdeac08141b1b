// Circuit breaker: stops calling an upstream that fails, and lets single probes find out when it is well again.
import type { Clock } from "../../time/clock.ts";

/** `closed` lets all through, `open` none, `half-open` one probe at a time. */
export type BreakerState = "closed" | "open" | "half-open";

/** The leave to make one call. Its outcome is to be told once; what comes later is ignored. */
export interface BreakerPass {
  /** The first piece of an answer came: a probe has shown what it should; the rest of the call counts as any other. */
  answering(): void;
  /** `neutral`: it says nothing about the upstream; a probe gives its place back. */
  settle(outcome: "success" | "failure" | "neutral"): void;
}

/** One breaker guards one upstream. */
export interface CircuitBreaker {
  state(): BreakerState;
  /** Whether `enter` would give a pass now. */
  lets(): boolean;
  /** A pass, or undefined where no call is let through now. */
  enter(): BreakerPass | undefined;
}

const CONSECUTIVE_FAILURES_MAX = 5;
/** Of so many outcomes, half may not fail. */
const OUTCOMES_KEPT = 20;
const OPEN_MS_MIN = 5_000;
const OPEN_MS_MAX = 60_000;
/** A probe that has said nothing for so long keeps nobody away any more: whoever asks something slow must not hold the door. */
const PROBE_ALONE_MS = 1_000;
/** The shortest part of an opening, so that many gates do not probe in step. */
const JITTER_LEAST = 0.8;

/**
 * Makes a closed breaker.
 *
 * @param random gives numbers from 0 to below 1
 * @param onChange hears when it opens (again) and when it closes
 */
export function createCircuitBreaker(
  options: { clock: Clock; random: () => number; onChange?: (state: "open" | "closed") => void },
): CircuitBreaker {
  const { clock, random, onChange } = options;
  const failed = new Uint8Array(OUTCOMES_KEPT);
  let outcomes = 0;
  let failures = 0;
  let consecutiveFailures = 0;
  /** Undefined while closed. */
  let openUntilMs: number | undefined;
  let openMs = OPEN_MS_MIN;
  /** When the last probe began; undefined where it has its outcome. */
  let probingSinceMs: number | undefined;
  /** Each change of state begins a new one; calls that began in an older one say nothing any more. */
  let generation = 0;

  function open(): void {
    openUntilMs = clock.monotonic() + openMs * (JITTER_LEAST + (1 - JITTER_LEAST) * random());
    openMs = Math.min(OPEN_MS_MAX, openMs * 2);
    probingSinceMs = undefined;
    generation++;
    onChange?.("open");
  }

  function close(): void {
    openUntilMs = undefined;
    openMs = OPEN_MS_MIN;
    probingSinceMs = undefined;
    generation++;
    failed.fill(0);
    outcomes = failures = consecutiveFailures = 0;
    onChange?.("closed");
  }

  function count(failure: boolean): void {
    const place = outcomes++ % OUTCOMES_KEPT;
    failures += Number(failure) - (failed[place] ?? 0);
    failed[place] = Number(failure);
    consecutiveFailures = failure ? consecutiveFailures + 1 : 0;
    const halfFailed = outcomes >= OUTCOMES_KEPT && failures * 2 >= OUTCOMES_KEPT;
    if (failure && (halfFailed || consecutiveFailures >= CONSECUTIVE_FAILURES_MAX)) open();
  }

  function lets(): boolean {
    if (openUntilMs === undefined) return true;
    const now = clock.monotonic();
    return now >= openUntilMs && (probingSinceMs === undefined || now >= probingSinceMs + PROBE_ALONE_MS);
  }

  return {
    state() {
      if (openUntilMs === undefined) return "closed";
      return clock.monotonic() >= openUntilMs ? "half-open" : "open";
    },
    lets,
    enter() {
      if (!lets()) return undefined;
      let isProbe = openUntilMs !== undefined;
      const sinceMs = isProbe ? clock.monotonic() : undefined;
      probingSinceMs = sinceMs;
      let born = generation;
      let settled = false;
      return {
        answering() {
          if (!isProbe || settled || born !== generation) return;
          close();
          isProbe = false;
          born = generation;
        },
        settle(outcome) {
          if (settled || born !== generation) return;
          settled = true;
          if (!isProbe) {
            if (outcome !== "neutral") count(outcome === "failure");
          } else if (outcome === "success") close();
          else if (outcome === "failure") open();
          // A later probe keeps the place that it took.
          else if (probingSinceMs === sinceMs) probingSinceMs = undefined;
        },
      };
    },
  };
}
