// Pressure: how loaded this process is, and whom it turns away first, cheaply and before the load becomes an outage.
import { Fault } from "../faults/fault.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";

/** What the gate asks. */
export interface Pressure {
  /**
   * @param runsModel whether an inference is asked for
   * @throws Fault `overloaded` when there is no room for somebody with these roles now
   */
  requireRoom(roles: readonly string[], runsModel: boolean): void;
  close(): void;
}

const SAMPLE_MS = 100;
/** A peak of the lag is half forgotten after each sample. */
const DECAY = 0.5;
/** From this part of all places on, the rest is for those of higher priority. */
const LOW_PRIORITY_SHARE = 0.8;
/** So many times the lag that turns low priorities away turns everybody away who does not run the server. */
const ALL_LAG_FACTOR = 4;
const RETRY_AFTER_SECONDS = 2;
/** They must be able to act when the server is in trouble. */
const NEVER_TURNED_AWAY: readonly string[] = ["admin", "operator"];

/**
 * Watches the event loop.
 *
 * @param options.underWay inferences at this moment
 * @param options.lowPriorityRoles who has no other role is turned away first
 */
export function openPressure(options: {
  readonly lagMsMax: number;
  readonly atOnceMax: number;
  readonly lowPriorityRoles: readonly string[];
  readonly underWay: () => number;
  readonly clock: Clock;
  readonly log: Log;
}): Pressure {
  const { lagMsMax, atOnceMax, underWay, clock, log } = options;
  const lowPriority = new Set(options.lowPriorityRoles);
  let lagMs = 0;
  let sampledMs = clock.monotonic();
  let shedSince = 0;
  const timer = setInterval(() => {
    const nowMs = clock.monotonic();
    lagMs = Math.max(nowMs - sampledMs - SAMPLE_MS, lagMs * DECAY, 0);
    sampledMs = nowMs;
    if (shedSince > 0 && lagMs < lagMsMax && underWay() < atOnceMax * LOW_PRIORITY_SHARE) {
      log.write("info", "load.shed_ended", { turnedAway: shedSince });
      shedSince = 0;
    }
  }, SAMPLE_MS);
  Deno.unrefTimer(timer);

  return {
    requireRoom(roles, runsModel) {
      const running = runsModel ? underWay() : 0;
      if (lagMs < lagMsMax && running < atOnceMax * LOW_PRIORITY_SHARE) return;
      if (roles.some((role) => NEVER_TURNED_AWAY.includes(role))) return;
      const isLow = roles.every((role) => lowPriority.has(role));
      if (!isLow && lagMs < lagMsMax * ALL_LAG_FACTOR && running < atOnceMax) return;
      if (shedSince++ === 0) {
        log.write("warn", "load.shed", { lagMs: Math.round(lagMs), underWay: underWay() });
      }
      throw new Fault(
        "overloaded",
        `Cannot take a request: the event loop lags ${Math.round(lagMs)} ms, ${running} inferences run`,
        { retryAfterSeconds: RETRY_AFTER_SECONDS },
      );
    },
    close: () => clearInterval(timer),
  };
}
