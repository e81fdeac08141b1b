// Tests of the circuit breaker: when it opens, how it probes, how long it rests.
import { deepStrictEqual, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { type CircuitBreaker, createCircuitBreaker } from "../../../src/engines/upstream/circuit_breaker.ts";
import { manualClock } from "../../support/manual_clock.ts";

function breakerUnderTest(random = 0) {
  const clock = manualClock();
  const changes: string[] = [];
  const breaker = createCircuitBreaker({
    clock,
    random: () => random,
    onChange: (state) => changes.push(state),
  });
  return { clock, changes, breaker };
}

function tell(breaker: CircuitBreaker, ...outcomes: readonly ("success" | "failure" | "neutral")[]): void {
  for (const outcome of outcomes) breaker.enter()?.settle(outcome);
}
const times = <Value>(count: number, value: Value): Value[] => Array(count).fill(value);

Deno.test("a breaker opens after five failures in a row and lets nothing through", () => {
  const { breaker, changes } = breakerUnderTest();
  tell(breaker, ...times(4, "failure" as const));
  strictEqual(breaker.state(), "closed");
  tell(breaker, "failure");
  strictEqual(breaker.state(), "open");
  strictEqual(breaker.lets(), false);
  strictEqual(breaker.enter(), undefined);
  deepStrictEqual(changes, ["open"]);
});

Deno.test("a breaker opens when half of the last twenty calls failed, and not before", () => {
  const { breaker } = breakerUnderTest();
  for (let pair = 0; pair < 9; pair++) tell(breaker, "failure", "success");
  tell(breaker, "failure");
  strictEqual(breaker.state(), "closed");
  tell(breaker, "failure");
  strictEqual(breaker.state(), "open");

  const mostlyWell = breakerUnderTest().breaker;
  for (let round = 0; round < 30; round++) tell(mostlyWell, "failure", "success", "success");
  strictEqual(mostlyWell.state(), "closed");
});

Deno.test("outcomes that say nothing of the upstream neither open a breaker nor interrupt a row of failures", () => {
  const { breaker } = breakerUnderTest();
  tell(breaker, ...times(50, "neutral" as const), ...times(4, "failure" as const), "neutral");
  strictEqual(breaker.state(), "closed");
  tell(breaker, "failure");
  strictEqual(breaker.state(), "open");
});

Deno.test("a half-open breaker lets exactly one probe through; its success closes the breaker", () => {
  const { breaker, clock, changes } = breakerUnderTest();
  tell(breaker, ...times(5, "failure" as const));
  clock.advance(3_999);
  strictEqual(breaker.enter(), undefined);
  clock.advance(1);
  strictEqual(breaker.state(), "half-open");
  const probe = breaker.enter();
  notStrictEqual(probe, undefined);
  strictEqual(breaker.lets(), false);
  strictEqual(breaker.enter(), undefined);
  probe?.settle("success");
  strictEqual(breaker.state(), "closed");
  deepStrictEqual(changes, ["open", "closed"]);
  tell(breaker, ...times(4, "failure" as const));
  strictEqual(breaker.state(), "closed", "the failures before the opening are forgotten");
});

Deno.test("a probe that fails opens the breaker for twice as long, up to a minute; a success starts anew", () => {
  const { breaker, clock } = breakerUnderTest(1 - 1e-9);
  tell(breaker, ...times(5, "failure" as const));
  for (const seconds of [5, 10, 20, 40, 60, 60]) {
    clock.advance(seconds * 1000 - 10);
    strictEqual(breaker.state(), "open", `still open just before ${seconds} s`);
    clock.advance(10);
    strictEqual(breaker.state(), "half-open", `probes after ${seconds} s`);
    breaker.enter()?.settle("failure");
  }
  clock.advance(60_000);
  breaker.enter()?.settle("success");
  tell(breaker, ...times(5, "failure" as const));
  clock.advance(5_000);
  strictEqual(breaker.state(), "half-open");
});

Deno.test("a probe that was given up gives its place back", () => {
  const { breaker, clock } = breakerUnderTest();
  tell(breaker, ...times(5, "failure" as const));
  clock.advance(5_000);
  breaker.enter()?.settle("neutral");
  strictEqual(breaker.state(), "half-open");
  ok(breaker.lets());
});

Deno.test("a probe that answers closes the breaker at once; what becomes of the rest counts as any other call", () => {
  const { breaker, clock } = breakerUnderTest();
  tell(breaker, ...times(5, "failure" as const));
  clock.advance(5_000);
  const probe = breaker.enter();
  probe?.answering();
  strictEqual(breaker.state(), "closed");
  tell(breaker, ...times(4, "failure" as const));
  probe?.settle("failure");
  strictEqual(breaker.state(), "open");
});

Deno.test("a probe keeps others away for a second and no longer, however slow it is", () => {
  const { breaker, clock } = breakerUnderTest();
  tell(breaker, ...times(5, "failure" as const));
  clock.advance(5_000);
  const slow = breaker.enter();
  notStrictEqual(slow, undefined);
  clock.advance(999);
  strictEqual(breaker.enter(), undefined);
  clock.advance(1);
  ok(breaker.lets());
  const second = breaker.enter();
  notStrictEqual(second, undefined);
  strictEqual(breaker.enter(), undefined, "the second has its own second");
  slow?.settle("neutral");
  strictEqual(breaker.enter(), undefined, "the first has no place to give back any more");
  second?.settle("success");
  strictEqual(breaker.state(), "closed");
});

Deno.test("of several probes the first that says something decides", () => {
  const { breaker, clock } = breakerUnderTest();
  tell(breaker, ...times(5, "failure" as const));
  clock.advance(5_000);
  const slow = breaker.enter();
  clock.advance(1_000);
  const second = breaker.enter();
  slow?.settle("failure");
  strictEqual(breaker.state(), "open");
  second?.settle("success");
  strictEqual(breaker.state(), "open", "it began before the breaker opened again");
});

Deno.test("calls that began before the breaker opened neither close it nor count later", () => {
  const { breaker, clock } = breakerUnderTest();
  const slow = breaker.enter();
  const slower = breaker.enter();
  tell(breaker, ...times(5, "failure" as const));
  slow?.settle("success");
  strictEqual(breaker.state(), "open");
  clock.advance(5_000);
  breaker.enter()?.settle("success");
  tell(breaker, ...times(4, "failure" as const));
  slower?.settle("failure");
  strictEqual(breaker.state(), "closed");
});

Deno.test("whatever happens, an open breaker lets nothing through, and a half-open one no two calls at once", () => {
  const act = fc.oneof(
    fc.record({ act: fc.constant("enter" as const) }),
    fc.record({ act: fc.constant("advance" as const), milliseconds: fc.nat(20_000) }),
    fc.record({
      act: fc.constant("settle" as const),
      which: fc.nat(5),
      outcome: fc.constantFrom(
        "success" as const,
        "failure" as const,
        "failure" as const,
        "neutral" as const,
      ),
    }),
  );
  fc.assert(fc.property(fc.array(act, { maxLength: 200 }), (acts) => {
    const { breaker, clock } = breakerUnderTest(0.5);
    const passes: ReturnType<CircuitBreaker["enter"]>[] = [];
    for (const step of acts) {
      if (step.act === "advance") clock.advance(step.milliseconds);
      else if (step.act === "settle") passes[step.which % Math.max(1, passes.length)]?.settle(step.outcome);
      else {
        const before = breaker.state();
        const pass = breaker.enter();
        if (pass !== undefined) passes.push(pass);
        if (before === "open") strictEqual(pass, undefined);
        if (before === "half-open") strictEqual(breaker.enter(), undefined);
      }
    }
  }));
});
