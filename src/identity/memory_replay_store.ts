// Replay store in memory: bounded, and closed when it is full: to forget an id early would let a replay pass.
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import type { ReplayStore } from "./replay_store.ts";

/** Ids are forgotten together by the tens of seconds in which they end: no look at each of them, ever. */
const SPAN_MS = 10_000;

/**
 * Opens a replay store of this process.
 *
 * @param entriesMax with so many remembered, `firstUse` of another throws Fault `overloaded`
 */
export function openMemoryReplayStore(clock: Clock, entriesMax = 1_000_000): ReplayStore {
  const idsByEndMs = new Map<number, Set<string>>();
  let entries = 0;
  return {
    firstUse(id, expiresAtMs) {
      const nowMs = clock.now();
      for (const [endMs, ids] of idsByEndMs) {
        if (endMs > nowMs) continue;
        idsByEndMs.delete(endMs);
        entries -= ids.size;
      }
      // Whatever end it was given then: the same id is the same.
      for (const ids of idsByEndMs.values()) if (ids.has(id)) return false;
      if (entries >= entriesMax) {
        throw new Fault("overloaded", `Cannot remember what was used: ${entries} entries are alive`, {
          retryAfterSeconds: SPAN_MS / 1000,
        });
      }
      const endMs = Math.ceil(expiresAtMs / SPAN_MS) * SPAN_MS;
      const ids = idsByEndMs.get(endMs);
      if (ids === undefined) idsByEndMs.set(endMs, new Set([id]));
      else ids.add(id);
      entries++;
      return true;
    },
  };
}
