// Replay store in memory: bounded, and closed when it is full: to forget an id early would let a replay pass.
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import type { ReplayStore } from "./replay_store.ts";

/** Ids are forgotten together by the tens of seconds in which they end: no look at each of them, ever. */
const SPAN_MS = 10_000;

/** Ids that end in the same tens of seconds of wall time. */
interface Span {
  readonly ids: Set<string>;
  /** Monotonic time of the latest of their ends: each as far off as it was when it came. */
  endsAtMonotonicMs: number;
}

/**
 * Opens a replay store of this process. An id is forgotten when it has ended by both clocks: a wall clock that is set on and
 * back again brings nothing back.
 *
 * @param entriesMax with so many remembered, `firstUse` of another throws Fault `overloaded`
 */
export function openMemoryReplayStore(clock: Clock, entriesMax = 1_000_000): ReplayStore {
  const spans = new Map<number, Span>();
  let entries = 0;
  return {
    firstUse(id, expiresAtMs) {
      const [nowMs, monotonicMs] = [clock.now(), clock.monotonic()];
      for (const [endMs, { ids, endsAtMonotonicMs }] of spans) {
        if (endMs > nowMs || endsAtMonotonicMs > monotonicMs) continue;
        spans.delete(endMs);
        entries -= ids.size;
      }
      // Whatever end it was given then: the same id is the same.
      for (const { ids } of spans.values()) if (ids.has(id)) return false;
      if (entries >= entriesMax) {
        throw new Fault("overloaded", `Cannot remember what was used: ${entries} entries are alive`, {
          retryAfterSeconds: SPAN_MS / 1000,
        });
      }
      const endMs = Math.ceil(expiresAtMs / SPAN_MS) * SPAN_MS;
      const span = spans.get(endMs) ?? { ids: new Set(), endsAtMonotonicMs: 0 };
      spans.set(endMs, span);
      span.ids.add(id);
      span.endsAtMonotonicMs = Math.max(span.endsAtMonotonicMs, monotonicMs + expiresAtMs - nowMs);
      entries++;
      return true;
    },
  };
}
