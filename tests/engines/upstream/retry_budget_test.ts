// Tests of the retry budget and of the backoff.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { backoffMs, createRetryBudget } from "../../../src/engines/upstream/retry_budget.ts";
import { manualClock } from "../../support/manual_clock.ts";

function taken(budget: { takeRetry(): boolean }, tries: number): number {
  return Array.from({ length: tries }, () => budget.takeRetry()).filter(Boolean).length;
}

Deno.test("an upstream that is seldom asked has 30 retries in ten seconds", () => {
  const clock = manualClock();
  const budget = createRetryBudget(clock);
  strictEqual(taken(budget, 100), 30);
  clock.advance(9_000);
  strictEqual(taken(budget, 100), 0);
  clock.advance(1_000);
  strictEqual(taken(budget, 100), 30);
});

Deno.test("one retry comes on top for every five requests of the last ten seconds", () => {
  const clock = manualClock();
  const budget = createRetryBudget(clock);
  for (let second = 0; second < 5; second++) {
    for (let request = 0; request < 100; request++) budget.countRequest();
    clock.advance(1_000);
  }
  strictEqual(taken(budget, 1_000), 30 + 100);
  clock.advance(10_000);
  strictEqual(taken(budget, 1_000), 30);
});

Deno.test("in no window of ten seconds are there more retries than the budget, whatever comes when", () => {
  const step = fc.record({ milliseconds: fc.nat(4_000), requests: fc.nat(60), tries: fc.nat(60) });
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const clock = manualClock();
    const budget = createRetryBudget(clock);
    const log: { second: number; requests: number; retries: number }[] = [];
    for (const { milliseconds, requests, tries } of steps) {
      clock.advance(milliseconds);
      for (let request = 0; request < requests; request++) budget.countRequest();
      const second = Math.floor(clock.monotonic() / 1000);
      log.push({ second, requests, retries: taken(budget, tries) });
      const window = log.filter((entry) => entry.second > second - 10);
      const total = (name: "requests" | "retries") => window.reduce((sum, entry) => sum + entry[name], 0);
      // Where none was taken now, requests may have left the window that earlier ones were taken for.
      if (log.at(-1)?.retries !== 0) ok(total("retries") <= 30 + 0.2 * total("requests"));
    }
  }));
});

Deno.test("the backoff doubles from 50 ms to a second, with full jitter", () => {
  deepStrictEqual([1, 2, 3, 5, 6, 20].map((attempts) => backoffMs(attempts, 1)), [
    50,
    100,
    200,
    800,
    1000,
    1000,
  ]);
  strictEqual(backoffMs(3, 0), 0);
  strictEqual(backoffMs(3, 0.5), 100);
});
