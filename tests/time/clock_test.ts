// Tests of the system clock: wall time is the machine's, monotonic time never goes back.
import { ok, strictEqual } from "node:assert/strict";
import { systemClock } from "../../src/time/clock.ts";
import { manualClock } from "../support/manual_clock.ts";

Deno.test("the system clock's wall time lies between two readings of the machine's", () => {
  const before = Date.now();
  const now = systemClock.now();
  ok(before <= now && now <= Date.now());
});

Deno.test("the system clock's monotonic time never goes back, and goes on over a pause", async () => {
  const start = systemClock.monotonic();
  let last = start;
  for (let reading = 0; reading < 1000; reading++) {
    const next = systemClock.monotonic();
    ok(next >= last);
    last = next;
  }
  await new Promise((resolve) => setTimeout(resolve, 2));
  ok(systemClock.monotonic() > start);
});

Deno.test("the manual clock stands still, moves both times together, and lets wall time jump alone", () => {
  const clock = manualClock(1000);
  strictEqual(clock.now(), 1000);
  strictEqual(clock.monotonic(), 0);
  clock.advance(5);
  strictEqual(clock.now(), 1005);
  strictEqual(clock.monotonic(), 5);
  clock.jumpWall(-500);
  strictEqual(clock.now(), 505);
  strictEqual(clock.monotonic(), 5);
});
