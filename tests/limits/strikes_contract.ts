// The contract of strikes: what every adapter must do, as tests that each of them runs.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { Strikes, StrikeThresholds } from "../../src/limits/strikes.ts";

/** Strikes and what goes with them. */
export interface StrikesUnderTest {
  readonly strikes: Strikes;
  /** So much time passes, or a little more. */
  pass(ms: number): Promise<void> | void;
  dispose(): Promise<void> | void;
}

/** `probes` have a window that a test can wait for. */
export const THRESHOLDS: StrikeThresholds = {
  credentials: { count: 3, seconds: 60 },
  validation: { count: 5, seconds: 60 },
  probes: { count: 3, seconds: 0.5 },
};

/**
 * Registers the tests.
 *
 * @param ignore where the adapter cannot be tried on this machine
 */
export function testStrikes(
  name: string,
  open: (thresholds: StrikeThresholds) => Promise<StrikesUnderTest> | StrikesUnderTest,
  ignore = false,
): void {
  const test = (what: string, run: (opened: StrikesUnderTest) => Promise<void>, thresholds = THRESHOLDS) =>
    Deno.test({
      name: `${name}: ${what}`,
      ignore,
      async fn() {
        const opened = await open(thresholds);
        try {
          await run(opened);
        } finally {
          await opened.dispose();
        }
      },
    });

  test("the strike that reaches the threshold says so, and the count starts anew", async ({ strikes }) => {
    const reached: boolean[] = [];
    for (let strike = 1; strike <= 7; strike++) reached.push(await strikes.add("credentials", "192.0.2.1"));
    deepStrictEqual(reached, [false, false, true, false, false, true, false]);
  });

  test("networks and triggers are counted apart", async ({ strikes }) => {
    for (const network of ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::/64"]) {
      for (const trigger of ["credentials", "validation", "probes"] as const) {
        for (let strike = 1; strike <= 2; strike++) {
          strictEqual(await strikes.add(trigger, network), false, `${trigger} of ${network}`);
        }
      }
    }
    strictEqual(await strikes.add("credentials", "192.0.2.2"), true);
    strictEqual(await strikes.add("credentials", "192.0.2.1"), true);
  });

  test("strikes that are older than the window do not count, and each leaves it by itself", async ({ strikes, pass }) => {
    strictEqual(await strikes.add("probes", "192.0.2.1"), false);
    await pass(300);
    strictEqual(await strikes.add("probes", "192.0.2.1"), false);
    await pass(300);
    // The first has left; a window that starts anew with each strike, or with none, would know three or one.
    strictEqual(await strikes.add("probes", "192.0.2.1"), false);
  });

  test("of 200 strikes at once every fifth reaches a threshold of five", async ({ strikes }) => {
    const reached = await Promise.all(
      Array.from({ length: 200 }, () => strikes.add("validation", "192.0.2.1")),
    );
    strictEqual(reached.filter(Boolean).length, 40);
  });

  test("a threshold of one is reached by every strike", async ({ strikes }) => {
    for (let strike = 1; strike <= 3; strike++) strictEqual(await strikes.add("probes", "192.0.2.1"), true);
  }, { ...THRESHOLDS, probes: { count: 1, seconds: 60 } });

  test("the largest threshold is exact", async ({ strikes }) => {
    let reached = 0;
    for (let strike = 1; strike < 1000; strike++) {
      if (await strikes.add("credentials", "192.0.2.1")) reached++;
    }
    strictEqual(reached, 0);
    strictEqual(await strikes.add("credentials", "192.0.2.1"), true);
  }, { ...THRESHOLDS, credentials: { count: 1000, seconds: 86_400 } });
}
