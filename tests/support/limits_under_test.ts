// Limits under test: the real limiter and admission in memory, and the parts of the gate that turn nobody away.
import type { BanWatch } from "../../src/http/middleware/ban_watch.ts";
import { type Admission, openAdmission } from "../../src/inference/admission.ts";
import { type LimitPolicy, readyPolicies } from "../../src/limits/limit_policy.ts";
import { type Limiter, openLimiter } from "../../src/limits/limiter.ts";
import { openMemoryLimitStore } from "../../src/limits/memory_limit_store.ts";
import type { Pressure } from "../../src/limits/pressure.ts";
import { openLog } from "../../src/telemetry/log.ts";
import type { Clock } from "../../src/time/clock.ts";

/** A limiter in memory. */
export function openLimiterUnderTest(clock: Clock): Limiter {
  return openLimiter({
    store: openMemoryLimitStore(clock),
    local: openMemoryLimitStore(clock),
    degradedFraction: 0.25,
    clock,
    log: openLog({ level: "error", clock, sink: (bytes) => Promise.resolve(bytes.length) }),
  });
}

/** Admission by policies, over a limiter in memory unless told otherwise. Users have a million requests a minute. */
export function openAdmissionUnderTest(
  clock: Clock,
  { policies = [], placesPerUser = 1000, limiter = openLimiterUnderTest(clock) }: {
    readonly policies?: readonly LimitPolicy[];
    readonly placesPerUser?: number;
    readonly limiter?: Limiter;
  } = {},
): Admission {
  return openAdmission({
    limiter,
    policies: readyPolicies(policies),
    userRate: { quota: 1_000_000, windowMs: 60_000 },
    placesPerUser,
    clock,
  });
}

/** Nobody is banned. */
export const NO_BANS: BanWatch = { require() {}, note: () => Promise.resolve() };

/** There is always room. */
export const NO_PRESSURE: Pressure = { requireRoom() {}, close() {} };
