// Manual clock: a Clock that tests move by hand.
import type { Clock } from "../../src/time/clock.ts";

/** A clock that stands still until it is moved. */
export interface ManualClock extends Clock {
  /** Time passes: wall and monotonic time move together. */
  advance(ms: number): void;
  /** Somebody sets the machine's clock: only wall time moves, back as well as on. */
  jumpWall(ms: number): void;
}

/** @param startMs wall time at the start; the monotonic time starts at 0 */
export function manualClock(startMs: number = 1_750_000_000_000): ManualClock {
  let wallMs = startMs;
  let monotonicMs = 0;
  return {
    now: () => wallMs,
    monotonic: () => monotonicMs,
    advance(ms) {
      wallMs += ms;
      monotonicMs += ms;
    },
    jumpWall(ms) {
      wallMs += ms;
    },
  };
}
