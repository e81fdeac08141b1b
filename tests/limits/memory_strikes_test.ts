// Tests of strikes in memory: the contract, the window's border to the millisecond, and that memory is bounded.
import { strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { openMemoryStrikes } from "../../src/limits/memory_strikes.ts";
import { manualClock } from "../support/manual_clock.ts";
import { testStrikes, THRESHOLDS } from "./strikes_contract.ts";

testStrikes("in memory", (thresholds) => {
  const clock = manualClock();
  return {
    strikes: openMemoryStrikes(clock, thresholds),
    pass: (ms) => clock.advance(ms),
    dispose() {},
  };
});

Deno.test("a strike is in the window until exactly its seconds have passed", async () => {
  for (const [passedMs, isReached] of [[59_999, true], [60_000, false]] as const) {
    const clock = manualClock();
    const strikes = openMemoryStrikes(clock, THRESHOLDS);
    await strikes.add("credentials", "192.0.2.1");
    clock.advance(passedMs);
    await strikes.add("credentials", "192.0.2.1");
    strictEqual(await strikes.add("credentials", "192.0.2.1"), isReached);
  }
});

Deno.test("somebody who sets the machine's clock moves no window", async () => {
  const clock = manualClock();
  const strikes = openMemoryStrikes(clock, THRESHOLDS);
  await strikes.add("credentials", "192.0.2.1");
  clock.jumpWall(3_600_000);
  await strikes.add("credentials", "192.0.2.1");
  clock.jumpWall(-7_200_000);
  strictEqual(await strikes.add("credentials", "192.0.2.1"), true);
});

Deno.test("property: a strike reaches the threshold exactly when so many lie within the window, since it was last reached", () => {
  const strike = fc.record({ afterMs: fc.nat({ max: 40_000 }), host: fc.integer({ min: 1, max: 2 }) });
  fc.assert(
    fc.property(
      fc.array(strike, { maxLength: 60 }),
      fc.integer({ min: 1, max: 6 }),
      (strikesOfTest, count) => {
        const clock = manualClock();
        const thresholds = { ...THRESHOLDS, probes: { count, seconds: 60 } };
        const strikes = openMemoryStrikes(clock, thresholds);
        const all = new Map<number, number[]>();
        for (const { afterMs, host } of strikesOfTest) {
          clock.advance(afterMs);
          const times = all.get(host) ?? [];
          times.push(clock.monotonic());
          const isReached = times.filter((ms) => ms > clock.monotonic() - 60_000).length >= count;
          all.set(host, isReached ? [] : times);
          strictEqual(strikes.add("probes", `192.0.2.${host}`), isReached);
        }
      },
    ),
  );
});

Deno.test("more networks than are kept push out the one that was longest unseen, of their own trigger alone", () => {
  const strikes = openMemoryStrikes(manualClock(), {
    ...THRESHOLDS,
    // So high that few networks are kept.
    probes: { count: 1000, seconds: 60 },
  });
  const strike = (times: number, network: string): boolean[] =>
    Array.from({ length: times }, () => strikes.add("probes", network) as boolean);
  strikes.add("credentials", "192.0.2.1");
  strikes.add("credentials", "192.0.2.1");
  strike(999, "192.0.2.1");
  for (let other = 0; other < 5000; other++) strike(1, `other ${other}`);
  strictEqual(strike(1, "192.0.2.1")[0], false);
  strictEqual(strikes.add("credentials", "192.0.2.1"), true);
});
