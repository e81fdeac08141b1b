// Tests of the rate arithmetic: a quota is that many requests exactly, at any moment of a long run.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import {
  decideRate,
  drained,
  filled,
  observeLevel,
  observeRate,
  type Rate,
  type RateDecision,
} from "../../src/limits/gcra.ts";

/** One client of one rate: keeps the state between requests. */
function client(rate: Rate) {
  let kept: number | undefined;
  return {
    observe: (nowMs: number): RateDecision => observeRate(rate, kept, nowMs),
    request(nowMs: number): RateDecision {
      const decision = decideRate(rate, kept, nowMs);
      kept = decision.arrival;
      return decision;
    },
  };
}

Deno.test("exactly the quota passes at once, then one each interval", () => {
  const { request } = client({ quota: 10, windowMs: 60_000 });
  for (let left = 9; left >= 0; left--) {
    const decision = request(1000);
    deepStrictEqual([decision.allowed, decision.remaining], [true, left]);
  }
  strictEqual(request(1000).allowed, false);
  for (let interval = 1; interval <= 20; interval++) {
    strictEqual(request(1000 + 6000 * interval - 1).allowed, false);
    strictEqual(request(1000 + 6000 * interval).allowed, true);
    strictEqual(request(1000 + 6000 * interval).allowed, false);
  }
});

Deno.test("exactly the quota passes at once whatever the quota is and however long the clock has run", () => {
  const dayMs = 86_400_000;
  for (const upMs of [0, 0.1, 3_600_000.25, dayMs + 0.123456, 30 * dayMs + 0.7, 400 * dayMs]) {
    for (let quota = 1; quota <= 1000; quota += quota < 100 ? 1 : 37) {
      const { request } = client({ quota, windowMs: 60_000 });
      for (let taken = 1; taken <= quota; taken++) {
        const { allowed, remaining } = request(upMs);
        if (!allowed || remaining !== quota - taken) {
          throw new Error(`request ${taken} of ${quota} at ${upMs} ms: ${allowed}, ${remaining} left`);
        }
      }
      strictEqual(request(upMs).allowed, false, `one more than ${quota} at ${upMs} ms`);
    }
  }
});

Deno.test("a decision tells when the next request is allowed and when the quota is whole again", () => {
  const { request, observe } = client({ quota: 4, windowMs: 1000 });
  deepStrictEqual(observe(0), { allowed: true, arrival: 0, remaining: 4, retryAfterMs: 0, resetAfterMs: 0 });
  strictEqual(request(0).resetAfterMs, 250);
  strictEqual(request(0).resetAfterMs, 500);
  strictEqual(request(100).resetAfterMs, 650);
  const last = request(100);
  deepStrictEqual([last.allowed, last.remaining, last.retryAfterMs, last.resetAfterMs], [true, 0, 150, 900]);
  const refused = request(200);
  deepStrictEqual([refused.allowed, refused.remaining, refused.retryAfterMs], [false, 0, 50]);
  strictEqual(request(249).allowed, false);
  strictEqual(request(250).allowed, true);
  strictEqual(observe(1250).remaining, 4);
});

Deno.test("a refused request costs nothing: storms of them delay nobody", () => {
  const { request } = client({ quota: 3, windowMs: 3000 });
  for (let taken = 0; taken < 3; taken++) strictEqual(request(0).allowed, true);
  for (let ms = 1; ms < 1000; ms++) strictEqual(request(ms).allowed, false);
  strictEqual(request(1000).allowed, true);
});

Deno.test("observing takes nothing", () => {
  const { request, observe } = client({ quota: 2, windowMs: 1000 });
  for (let round = 0; round < 10; round++) strictEqual(observe(0).remaining, 2);
  strictEqual(request(0).remaining, 1);
  for (let round = 0; round < 10; round++) strictEqual(observe(0).remaining, 1);
});

Deno.test("a long rest saves up no more than one quota", () => {
  const { request } = client({ quota: 3, windowMs: 1000 });
  strictEqual(request(0).allowed, true);
  const results = Array.from({ length: 5 }, () => request(1_000_000).allowed);
  deepStrictEqual(results, [true, true, true, false, false]);
});

Deno.test("no fraction is lost: who asks all the time gets the quota exactly, hour after hour", () => {
  // 7 a minute: an interval of 8571.428… ms that no binary fraction holds.
  const rate = { quota: 7, windowMs: 60_000 };
  const { request } = client(rate);
  const startMs = 86_400_000;
  let allowed = 0;
  const minutes = 3 * 60;
  for (let ms = 0; ms <= minutes * rate.windowMs; ms += 20) if (request(startMs + ms).allowed) allowed++;
  strictEqual(allowed, rate.quota * minutes + rate.quota);
});

const schedule = fc.record({
  quota: fc.integer({ min: 1, max: 500 }),
  windowMs: fc.constantFrom(1, 999, 1000, 60_000, 3_600_000),
  startMs: fc.oneof(fc.nat(1000), fc.nat(1_000_000_000)),
  /** Steps as shares of a window: many at once, some short, a few long. */
  steps: fc.array(
    fc.oneof(
      fc.constant(0),
      fc.constant(0),
      fc.double({ min: 0, max: 0.1, noNaN: true }),
      fc.double({ min: 0, max: 2, noNaN: true }),
    ),
    {
      minLength: 1,
      maxLength: 200,
    },
  ),
}).map(({ quota, windowMs, startMs, steps }) => {
  let nowMs = startMs;
  const moments = steps.map((step) => nowMs += Math.floor(step * windowMs));
  return { rate: { quota, windowMs }, moments };
});

Deno.test("property: over any schedule of whole milliseconds the decisions are those of exact arithmetic", () => {
  fc.assert(
    fc.property(schedule, ({ rate, moments }) => {
      const { request } = client(rate);
      // A bucket of `quota` requests that leaks all the time, in units of one request divided by windowMs.
      const full = BigInt(rate.quota) * BigInt(rate.windowMs);
      const one = BigInt(rate.windowMs);
      let level = 0n;
      let lastMs = moments[0] ?? 0;
      for (const nowMs of moments) {
        const leaked = level - BigInt(nowMs - lastMs) * BigInt(rate.quota);
        level = leaked > 0n ? leaked : 0n;
        lastMs = nowMs;
        const allowed = level + one <= full;
        if (allowed) level += one;
        const decision = request(nowMs);
        strictEqual(decision.allowed, allowed);
        strictEqual(decision.remaining, Number((full - level) / one));
      }
    }),
    { numRuns: 300 },
  );
});

Deno.test("property: in no stretch of time more pass than the quota and what has come back since", () => {
  fc.assert(fc.property(schedule, ({ rate, moments }) => {
    const { request } = client(rate);
    const passed = moments.filter((nowMs) => request(nowMs).allowed);
    passed.forEach((fromMs, first) => {
      for (let last = first; last < passed.length; last++) {
        const cameBack = ((passed[last] ?? 0) - fromMs) * rate.quota / rate.windowMs;
        ok(last - first + 1 <= rate.quota + cameBack + 1e-9);
      }
    });
  }));
});

Deno.test("property: who waits for retryAfterMs is allowed, and who waits for resetAfterMs has the whole quota", () => {
  fc.assert(fc.property(schedule, ({ rate, moments }) => {
    const { request } = client(rate);
    for (const nowMs of moments) {
      const decision = request(nowMs);
      strictEqual(decision.retryAfterMs > 0, decision.remaining === 0);
      // A hair later, for the sum of moment and wait is rounded.
      const later = (waitMs: number) => observeRate(rate, decision.arrival, nowMs + waitMs + 1e-3);
      strictEqual(later(decision.retryAfterMs).allowed, true);
      strictEqual(later(decision.resetAfterMs).remaining, rate.quota);
    }
  }));
});

Deno.test("property: amounts are decided as by exact arithmetic, in both forms of the algorithm", () => {
  const asked = fc.array(fc.nat(600), { minLength: 200, maxLength: 200 });
  fc.assert(
    fc.property(schedule, asked, ({ rate, moments }, amounts) => {
      const full = BigInt(rate.quota) * BigInt(rate.windowMs);
      let level = 0n;
      let arrival: number | undefined;
      let bucket = 0;
      let lastMs = moments[0] ?? 0;
      for (const [index, nowMs] of moments.entries()) {
        const amount = amounts[index] ?? 0;
        const leaked = level - BigInt(nowMs - lastMs) * BigInt(rate.quota);
        level = leaked > 0n ? leaked : 0n;
        bucket = drained(rate, bucket, nowMs - lastMs);
        lastMs = nowMs;
        const need = level + BigInt(amount) * BigInt(rate.windowMs);
        const allowed = need <= full;

        const seen = observeLevel(rate, bucket, amount);
        strictEqual(seen.allowed, allowed);
        strictEqual(seen.remaining, Number((full - level) / BigInt(rate.windowMs)));
        strictEqual(
          seen.retryAfterMs,
          allowed ? 0 : amount > rate.quota ? Infinity : Number(need - full) / rate.quota,
        );
        const decision = decideRate(rate, arrival, nowMs, amount);
        strictEqual(decision.allowed, allowed);
        arrival = decision.arrival;
        if (!allowed) continue;
        level = need;
        bucket = filled(rate, bucket, amount);
        strictEqual(bucket, Number(level));
        strictEqual(decision.remaining, Number((full - level) / BigInt(rate.windowMs)));
      }
    }),
    { numRuns: 300 },
  );
});

Deno.test("a bucket holds no less than nothing and no more than is exact, and stays as it is where time goes back", () => {
  const rate = { quota: 10, windowMs: 1000 };
  strictEqual(filled(rate, 3000, -4), 0);
  strictEqual(filled(rate, 3000, Number.MAX_SAFE_INTEGER), Number.MAX_SAFE_INTEGER);
  strictEqual(drained(rate, 3000, -5), 3000);
  strictEqual(drained(rate, 3000, Number.MAX_SAFE_INTEGER), 0);
});
