// Tests of limit faults: what a caller is told when limits refuse.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import type { Fault } from "../../src/faults/fault.ts";
import type { LimitDecision } from "../../src/limits/limit_store.ts";
import { limitFault } from "../../src/limits/limit_fault.ts";
import {
  type LimitedWork,
  type LimitPolicy,
  limitsOf,
  type LimitView,
  readyPolicies,
  requestLimit,
} from "../../src/limits/limit_policy.ts";

const WORK: LimitedWork = {
  address: "192.0.2.1",
  user: "https://ai.example.com usr_1",
  team: "red",
  roles: [],
  key: null,
  model: "m",
};
const ALLOWED: LimitDecision = { allowed: true, remaining: 3, retryAfterMs: 0, resetAfterMs: 9000 };

function refusedFor(retryAfterMs: number): LimitDecision {
  return { allowed: false, remaining: 0, retryAfterMs, resetAfterMs: 60_000 };
}

/** The views of a policy's limits, each decided so. */
function views(
  quotas: Partial<LimitPolicy>,
  decision: LimitDecision,
  amounts = { requests: 1, tokens: 300, cost: 2_500_000_000 },
): LimitView[] {
  return readyPolicies([{ name: "free", subject: "user", for: {}, ...quotas }])
    .flatMap((policy) => limitsOf(policy, WORK, amounts, 1000, Date.UTC(2026, 10, 22)))
    .map((limit) => ({ limit, decision }));
}

function faultOf(all: readonly LimitView[]): Fault {
  const fault = limitFault(all);
  ok(fault !== undefined);
  return fault;
}

Deno.test("where all limits allow there is no fault", () => {
  strictEqual(limitFault([]), undefined);
  strictEqual(
    limitFault(views({ requestsPerMinute: 5, tokensPerDay: 5, requestsAtOnce: 5 }, ALLOWED)),
    undefined,
  );
});

Deno.test("a rate says that it is used up, how much it is, and when to come back, in whole seconds rounded up", () => {
  const cases: readonly (readonly [number, number])[] = [[1, 1], [999, 1], [1000, 1], [1001, 2], [
    59_001,
    60,
  ]];
  for (const [ms, seconds] of cases) {
    const { kind, details } = faultOf(views({ requestsPerMinute: 5 }, refusedFor(ms)));
    deepStrictEqual([kind, details.retryAfterSeconds], ["rate_limited", seconds]);
    strictEqual(
      details.detail,
      `The limit "free" (5 requests a minute) is used up. Try again in ${seconds} s.`,
    );
  }
});

Deno.test("a budget of a day or month is another kind, with its own unit; money is told in the currency", () => {
  const cases: readonly (readonly [Partial<LimitPolicy>, string])[] = [
    [{ requestsPerDay: 5 }, "5 requests a day"],
    [{ tokensPerMonth: 5000 }, "5000 tokens a month"],
    [{ costPerDay: 2.5 }, "2.5 cost a day"],
  ];
  for (const [quotas, words] of cases) {
    const { kind, details } = faultOf(views(quotas, refusedFor(3_600_000)));
    deepStrictEqual([kind, details.retryAfterSeconds], ["budget_exhausted", 3600]);
    strictEqual(details.detail, `The limit "free" (${words}) is used up. Try again in 3600 s.`);
  }
});

Deno.test("places say how many there are, and to try again in a second", () => {
  const { kind, details } = faultOf(views({ requestsAtOnce: 2 }, refusedFor(1000)));
  deepStrictEqual([kind, details.retryAfterSeconds], ["rate_limited", 1]);
  strictEqual(details.detail, 'At most 2 requests may be under way at once (limit "free").');
});

Deno.test("a request larger than the whole quota is told so, and is not told to try again", () => {
  const cases: readonly (readonly [Partial<LimitPolicy>, string, RegExp])[] = [
    [{ tokensPerMinute: 299 }, "rate_limited", /alone may take 300 \(tokens\); the limit "free" is 299\./],
    [{ tokensPerDay: 299 }, "budget_exhausted", /alone may take 300 \(tokens\); the limit "free" is 299\./],
    [{ costPerMonth: 2.4 }, "budget_exhausted", /alone may take 2\.5 \(cost\); the limit "free" is 2\.4\./],
  ];
  for (const [quotas, kind, words] of cases) {
    const fault = faultOf(views(quotas, refusedFor(Infinity)));
    deepStrictEqual([fault.kind, fault.details.retryAfterSeconds], [kind, undefined]);
    match(fault.details.detail ?? "", words);
    match(fault.details.detail ?? "", /Ask for less/);
  }
});

Deno.test("of several refusals the longest is told, wherever it stands, and those that allow say nothing", () => {
  const short = views({ name: "short", requestsPerMinute: 1 }, refusedFor(2000));
  const long = views({ name: "long", requestsPerDay: 1 }, refusedFor(50_000));
  const never = views({ name: "never", tokensPerMinute: 1 }, refusedFor(Infinity));
  const open = views({ name: "open", requestsPerMonth: 9 }, { ...ALLOWED, retryAfterMs: 99_000 });
  const nameOf = (...all: LimitView[][]) =>
    /limit "(\w+)"/.exec(faultOf(all.flat()).details.detail ?? "")?.[1];
  strictEqual(nameOf(short, long, open), "long");
  strictEqual(nameOf(long, open, short), "long");
  strictEqual(nameOf(short, never, long), "never");
  strictEqual(nameOf(open, short), "short");
});

Deno.test("no caller's name, network or key stands in the words or in the reason", () => {
  const limit = requestLimit("address", WORK.address, { quota: 5, windowMs: 60_000 }, "degraded");
  const all = [
    { limit, decision: refusedFor(1000) },
    ...views(
      { requestsPerMinute: 1, requestsAtOnce: 1, tokensPerDay: 1, requestsPerMonth: 1 },
      refusedFor(9),
    ),
  ];
  for (const view of all) {
    const { message, details } = faultOf([view]);
    ok(!/192\.0|usr_1|ai\.example/.test(`${message} ${details.detail}`), message);
    match(message, /^Cannot pass a request: limit [\w:-]+ is used up/);
  }
});
