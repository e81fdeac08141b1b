// Tests of limit fields: structured fields that are valid, and that tell of the tightest limit.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { addLimitFields } from "../../../src/http/middleware/limit_fields.ts";
import { limitFault } from "../../../src/limits/limit_fault.ts";
import {
  type LimitedWork,
  type LimitPolicy,
  limitsOf,
  type LimitView,
  readyPolicies,
} from "../../../src/limits/limit_policy.ts";
import type { LimitDecision } from "../../../src/limits/limit_store.ts";
import { openMemoryLimitStore } from "../../../src/limits/memory_limit_store.ts";
import { manualClock } from "../../support/manual_clock.ts";

const WORK: LimitedWork = { address: "192.0.2.1", user: "u", team: "red", roles: [], key: null, model: "m" };
/** A day before a month's end. */
const NOW_MS = Date.UTC(2026, 10, 29);

function view(quotas: Partial<LimitPolicy>, decision: Partial<LimitDecision>): LimitView {
  const [limit] = readyPolicies([{ name: "free", subject: "user", for: {}, ...quotas }])
    .flatMap((policy) => limitsOf(policy, WORK, { requests: 1, tokens: 10, cost: 10 }, 1000, NOW_MS));
  ok(limit);
  return {
    limit,
    decision: { allowed: true, remaining: 3, retryAfterMs: 0, resetAfterMs: 9001, ...decision },
  };
}

function fields(views: readonly LimitView[], inOpenaiForm = false): Record<string, string> {
  const headers: Record<string, string> = {};
  addLimitFields(headers, views, inOpenaiForm);
  return headers;
}

/** A list of one string with parameters that are whole numbers (RFC 9651 §3.1, §3.3.1, §3.3.3, §3.1.2); anything else throws. */
function parseField(text: string | undefined): [name: string, parameters: Record<string, number>] {
  const [, name, rest] = /^"([\x20\x21\x23-\x5b\x5d-\x7e]*)"((?:;[a-z]=-?\d{1,15})*)$/.exec(text ?? "") ?? [];
  ok(name !== undefined && rest !== undefined, `${text} is no list of one item`);
  const parameters = [...rest.matchAll(/;([a-z])=(-?\d+)/g)].map((
    [, key = "", value],
  ) => [key, Number(value)]);
  return [name, Object.fromEntries(parameters)];
}

Deno.test("a request that met no limit has no fields, and neither has one that has its places only", () => {
  deepStrictEqual(fields([], true), {});
  deepStrictEqual(fields([view({ requestsAtOnce: 5 }, {})], true), {});
});

Deno.test("a rate that allows says its quota and window, what is left, and when all of it is there again", () => {
  deepStrictEqual(fields([view({ requestsPerMinute: 5 }, {})]), {
    "RateLimit-Policy": '"free";q=5;w=60',
    "RateLimit": '"free";r=3;t=10',
  });
});

Deno.test("the last one that is allowed says that none is left and until when, not that it is there at once", () => {
  const { RateLimit } = fields([view({ requestsPerMinute: 5 }, { remaining: 0, resetAfterMs: 60_000 })]);
  strictEqual(RateLimit, '"free";r=0;t=60');
});

Deno.test("a month's window is as long as that month; money is told in millionths of the currency", () => {
  deepStrictEqual(
    fields([view({ costPerMonth: 20 }, { remaining: 7_900_000_000, resetAfterMs: 86_400_000 })]),
    {
      "RateLimit-Policy": `"free";q=20000000;w=${30 * 86_400}`,
      "RateLimit": '"free";r=7900000;t=86400',
    },
  );
});

Deno.test("places that refuse have no window", () => {
  const refused = { allowed: false, remaining: 0, retryAfterMs: 1000, resetAfterMs: 0 };
  deepStrictEqual(fields([view({ requestsPerMinute: 5 }, {}), view({ requestsAtOnce: 2 }, refused)]), {
    "RateLimit-Policy": '"free";q=2',
    "RateLimit": '"free";r=0;t=1',
  });
});

Deno.test("where all allow, the one with the smallest part left is told; where some refuse, the one that does for longest", () => {
  const nameOf = (...views: LimitView[]) => parseField(fields(views).RateLimit)[0];
  const wide = view({ name: "wide", requestsPerMinute: 1000 }, { remaining: 90 });
  const narrow = view({ name: "narrow", requestsPerDay: 10 }, { remaining: 1 });
  strictEqual(nameOf(wide, narrow), "wide");
  strictEqual(nameOf(narrow, wide), "wide");
  const short = view({ name: "short", requestsPerMinute: 10 }, {
    allowed: false,
    remaining: 9,
    retryAfterMs: 1,
  });
  const long = view({ name: "long", tokensPerDay: 10 }, { allowed: false, remaining: 9, retryAfterMs: 2 });
  strictEqual(nameOf(wide, short, narrow), "short");
  strictEqual(nameOf(short, long, wide), "long");
  strictEqual(nameOf(long, short), "long");
});

Deno.test("the largest quotas, sums below one unit of the currency, and a wait without an end are valid fields", () => {
  const largest = view({ tokensPerMonth: 1_000_000_000_000 }, { remaining: 999_999_999_999 });
  deepStrictEqual(parseField(fields([largest])["RateLimit-Policy"]), ["free", { q: 1e12, w: 2_592_000 }]);
  const cheap = view({ costPerDay: 0.5 }, { remaining: 200_000_000 });
  deepStrictEqual(parseField(fields([cheap]).RateLimit), ["free", { r: 200_000, t: 10 }]);
  const never = view({ tokensPerMinute: 5 }, { allowed: false, remaining: 5, retryAfterMs: Infinity });
  deepStrictEqual(parseField(fields([never]).RateLimit), ["free", { r: 5, t: 999_999_999_999_999 }]);
});

Deno.test("property: on a refusal t is what Retry-After says, on every answer the fields are valid and name the same limit", () => {
  const clock = manualClock(NOW_MS);
  const anyQuotas = fc.record({
    requestsPerMinute: fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined }),
    tokensPerMinute: fc.option(fc.integer({ min: 10, max: 50 }), { nil: undefined }),
    requestsAtOnce: fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined }),
    costPerDay: fc.option(fc.integer({ min: 1, max: 50 }), { nil: undefined }),
    tokensPerMonth: fc.integer({ min: 10, max: 100 }),
  });
  const anyRequests = fc.array(fc.tuple(fc.nat({ max: 12 }), fc.nat({ max: 20_000 })), { maxLength: 12 });
  fc.assert(
    fc.property(anyQuotas, anyRequests, (quotas, requests) => {
      const store = openMemoryLimitStore(clock);
      const policies = readyPolicies([{ name: "free", subject: "user", for: {}, ...quotas }]);
      requests.forEach(([tokens, afterMs], index) => {
        clock.advance(afterMs);
        const amounts = { requests: 1, tokens, cost: tokens * 1_000_000_000 };
        const limits = policies.flatMap((policy) => limitsOf(policy, WORK, amounts, 60_000, NOW_MS));
        const decisions = store.take(`hold-${index}`, limits.map(({ cell }) => cell));
        const views = limits.flatMap((limit, at) => {
          const decision = decisions[at];
          return decision === undefined ? [] : [{ limit, decision }];
        });
        const headers = fields(views, true);
        const [policyName, { q = -1 }] = parseField(headers["RateLimit-Policy"]);
        const [name, { r = -1, t = -1 }] = parseField(headers.RateLimit);
        strictEqual(policyName, name);
        ok(r >= 0 && r <= q && t >= 0, JSON.stringify(headers));
        const fault = limitFault(views);
        if (fault !== undefined) strictEqual(t, fault.details.retryAfterSeconds ?? 999_999_999_999_999);
        else strictEqual(t > 0, r < q, "something was taken, so that not all of it is there");
        for (const [field, value] of Object.entries(headers)) {
          if (field.startsWith("x-ratelimit-reset-")) match(value, /^(?:\d+ms|(?:\d+h)?(?:\d+m)?\d+s)$/);
          else if (field.startsWith("x-")) match(value, /^\d+$/);
        }
      });
    }),
    { numRuns: 200 },
  );
});

Deno.test("OpenAI's clients are told of the tightest limit on requests and of the tightest on tokens", () => {
  const views = [
    view({ requestsPerMinute: 500 }, { remaining: 400, resetAfterMs: 12_000 }),
    view({ requestsPerDay: 1000 }, { remaining: 10, resetAfterMs: 3_600_000 }),
    view({ tokensPerMinute: 9000 }, { remaining: 8000, resetAfterMs: 20 }),
    view({ costPerDay: 5 }, { remaining: 1 }),
    view({ requestsAtOnce: 5 }, { remaining: 0 }),
  ];
  const { "RateLimit-Policy": _, RateLimit: __, ...openai } = fields(views, true);
  deepStrictEqual(openai, {
    "x-ratelimit-limit-requests": "1000",
    "x-ratelimit-remaining-requests": "10",
    "x-ratelimit-reset-requests": "1h0m0s",
    "x-ratelimit-limit-tokens": "9000",
    "x-ratelimit-remaining-tokens": "8000",
    "x-ratelimit-reset-tokens": "20ms",
  });
  const one = fields([view({ requestsPerMinute: 500 }, {})], true);
  deepStrictEqual(Object.keys(one).filter((name) => name.endsWith("tokens")), []);
  deepStrictEqual(Object.keys(fields(views)), ["RateLimit-Policy", "RateLimit"]);
});

Deno.test("OpenAI's durations are those of Go: milliseconds below a second, else whole seconds rounded up", () => {
  const cases: readonly (readonly [number, string])[] = [
    [0, "0ms"],
    [0.2, "1ms"],
    [20, "20ms"],
    [1000, "1s"],
    [1001, "2s"],
    [59_000, "59s"],
    [59_001, "1m0s"],
    [360_000, "6m0s"],
    [3_600_000, "1h0m0s"],
    [90_061_000, "25h1m1s"],
  ];
  for (const [resetAfterMs, text] of cases) {
    const headers = fields([view({ requestsPerMinute: 5 }, { resetAfterMs })], true);
    strictEqual(headers["x-ratelimit-reset-requests"], text, String(resetAfterMs));
  }
});

Deno.test("OpenAI's reset of a limit that refuses is when to come back", () => {
  const refused = { allowed: false, remaining: 0, retryAfterMs: 1500, resetAfterMs: 60_000 };
  const headers = fields([view({ requestsPerMinute: 5 }, refused)], true);
  strictEqual(headers["x-ratelimit-reset-requests"], "2s");
});

Deno.test("what is left of a limit that others use up as well is not told, but that it refuses is", () => {
  for (const subject of ["model", "address"] as const) {
    const shared = { subject, name: "shared" };
    const allows = view({ ...shared, requestsPerMinute: 5 }, { remaining: 1 });
    deepStrictEqual(fields([allows], true), {});
    const own = view({ requestsPerMinute: 5 }, { remaining: 4 });
    const headers = fields([allows, view({ ...shared, tokensPerDay: 50 }, { remaining: 1 }), own], true);
    strictEqual(headers.RateLimit, '"free";r=4;t=10');
    strictEqual(headers["x-ratelimit-remaining-requests"], "4");
    ok(!("x-ratelimit-remaining-tokens" in headers) && !JSON.stringify(headers).includes("shared"));
    const refuses = view({ ...shared, requestsPerMinute: 5 }, {
      allowed: false,
      remaining: 0,
      retryAfterMs: 500,
    });
    strictEqual(fields([own, refuses]).RateLimit, '"shared";r=0;t=1');
  }
});
