// Tests of limit policies: to whom they apply, and which cells they come down to.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import {
  applies,
  dayOf,
  type LimitedWork,
  type LimitPolicy,
  type LimitQuotas,
  limitsOf,
  monthOf,
  type NamedLimit,
  readyPolicies,
  type ReadyPolicy,
  requestLimit,
} from "../../src/limits/limit_policy.ts";

const WORK: LimitedWork = {
  address: "192.0.2.1",
  user: "https://ai.example.com usr_1",
  team: "red",
  roles: ["user", "writer"],
  key: "pck_1",
  model: "llama3.2:3b",
};
const AMOUNTS = { requests: 1, tokens: 300, cost: 70 };
const HELD_MS = 90_000;
const NOW_MS = Date.UTC(2026, 10, 22, 13, 14, 15, 16);

function ready(policy: Partial<LimitPolicy>): ReadyPolicy {
  const [one] = readyPolicies([{ name: "some", subject: "user", for: {}, requestsPerDay: 1, ...policy }]);
  ok(one);
  return one;
}

function limits(policy: Partial<LimitPolicy>, work = WORK, nowMs = NOW_MS): readonly NamedLimit[] {
  const [one] = readyPolicies([{ name: "some", subject: "user", for: {}, ...policy }]);
  ok(one);
  return limitsOf(one, work, AMOUNTS, HELD_MS, nowMs);
}

Deno.test("a policy that names no condition applies to everybody; of those on keys, to whoever brings one", () => {
  for (const subject of ["address", "user", "key", "team", "model"] as const) {
    strictEqual(applies(ready({ subject }), WORK), true, subject);
    strictEqual(applies(ready({ subject }), { ...WORK, key: null }), subject !== "key", subject);
  }
});

Deno.test("each condition lets through what it names and nothing else", () => {
  const cases: readonly (readonly [LimitPolicy["for"], Partial<LimitedWork>, boolean])[] = [
    [{ roles: ["writer"] }, {}, true],
    [{ roles: ["admin", "user"] }, {}, true],
    [{ roles: ["admin"] }, {}, false],
    [{ roles: ["user"] }, { roles: [] }, false],
    [{ roles: ["User"] }, {}, false],
    // Roles are names, not patterns.
    [{ roles: ["*"] }, {}, false],
    [{ teams: ["blue", "red"] }, {}, true],
    [{ teams: ["blue"] }, {}, false],
    [{ teams: ["re*"] }, {}, false],
    [{ keys: ["pck_1"] }, {}, true],
    [{ keys: ["pck_2"] }, {}, false],
    [{ keys: ["pck_1"] }, { key: null }, false],
    [{ models: ["llama3.2:3b"] }, {}, true],
    [{ models: ["gpt-*", "llama*"] }, {}, true],
    [{ models: ["*:3b"] }, {}, true],
    [{ models: ["l*3*b"] }, {}, true],
    [{ models: ["*"] }, {}, true],
    [{ models: ["llama"] }, {}, false],
    [{ models: ["llama3.2:3"] }, {}, false],
    // A point stands for a point alone.
    [{ models: ["llama3.2:3b"] }, { model: "llama3x2:3b" }, false],
    [{ models: ["Llama*"] }, {}, false],
  ];
  for (const [conditions, changes, expected] of cases) {
    const text = JSON.stringify([conditions, changes]);
    strictEqual(applies(ready({ for: conditions }), { ...WORK, ...changes }), expected, text);
  }
});

Deno.test("property: all that is named has to fit", () => {
  const FITS = { roles: ["user"], teams: ["red"], keys: ["pck_1"], models: ["llama*"] };
  const FAILS = { roles: ["none"], teams: ["none"], keys: ["none"], models: ["none"] };
  const names = ["roles", "teams", "keys", "models"] as const;
  const each = fc.constantFrom("absent", "fits", "fails");
  fc.assert(
    fc.property(fc.tuple(each, each, each, each), (states) => {
      const conditions = Object.fromEntries(
        names.flatMap((name, index) =>
          states[index] === "absent" ? [] : [[name, states[index] === "fits" ? FITS[name] : FAILS[name]]]
        ),
      );
      strictEqual(applies(ready({ for: conditions }), WORK), !states.includes("fails"));
    }),
    { numRuns: 200 },
  );
});

Deno.test("each quota comes down to its own cell, in its own unit and over its own time", () => {
  const all: Required<LimitQuotas> = {
    requestsPerMinute: 1,
    tokensPerMinute: 2,
    requestsAtOnce: 3,
    requestsPerDay: 4,
    requestsPerMonth: 5,
    tokensPerDay: 6,
    tokensPerMonth: 7,
    costPerDay: 8,
    costPerMonth: 9,
  };
  const dayEndsInMs = Date.UTC(2026, 10, 23) - NOW_MS;
  const monthEndsInMs = Date.UTC(2026, 11, 1) - NOW_MS;
  const key = WORK.user;
  const rate = (quota: string, max: number, amount: number) => (
    { kind: "rate", key: `some/${quota}/${key}`, quota: max, windowMs: 60_000, amount }
  );
  const count = (quota: string, of: string, max: number, amount: number, endsInMs: number) => (
    { kind: "count", book: `some/${quota}/${of}`, key, quota: max, amount, endsInMs }
  );
  deepStrictEqual(
    limits(all).map(({ name, unit, windowSeconds, whenStoreFails, fixed, cell }) => [
      name,
      unit,
      windowSeconds,
      whenStoreFails,
      fixed,
      cell,
    ]),
    [
      ["some:requestsPerMinute", "requests", 60, "degraded", true, rate("requestsPerMinute", 1, 1)],
      ["some:tokensPerMinute", "tokens", 60, "degraded", false, rate("tokensPerMinute", 2, 300)],
      ["some:requestsAtOnce", "places", 0, "degraded", false, {
        kind: "place",
        key: `some/${key}`,
        quota: 3,
        heldMs: HELD_MS,
      }],
      ["some:requestsPerDay", "requests", 86_400, "closed", true, [4, 1, dayEndsInMs]],
      ["some:requestsPerMonth", "requests", 30 * 86_400, "closed", true, [5, 1, monthEndsInMs]],
      ["some:tokensPerDay", "tokens", 86_400, "closed", false, [6, 300, dayEndsInMs]],
      ["some:tokensPerMonth", "tokens", 30 * 86_400, "closed", false, [7, 300, monthEndsInMs]],
      ["some:costPerDay", "cost", 86_400, "closed", false, [8e9, 70, dayEndsInMs]],
      ["some:costPerMonth", "cost", 30 * 86_400, "closed", false, [9e9, 70, monthEndsInMs]],
    ].map(([name, unit, windowSeconds, fails, fixed, cell]) => [
      name,
      unit,
      windowSeconds,
      fails,
      fixed,
      Array.isArray(cell)
        ? count(
          String(name).slice("some:".length),
          windowSeconds === 86_400 ? "2026-11-22" : "2026-11",
          ...cell as [number, number, number],
        )
        : cell,
    ]),
  );
});

Deno.test("a limit goes by its policy's name where that limits one thing, and else says which", () => {
  deepStrictEqual(limits({ requestsPerDay: 5 }).map(({ name }) => name), ["some"]);
  deepStrictEqual(limits({ requestsPerDay: 5, costPerMonth: 1 }).map(({ name }) => name), [
    "some:requestsPerDay",
    "some:costPerMonth",
  ]);
});

Deno.test("what a policy says of a failing store holds for all of its limits", () => {
  const policy = { requestsPerMinute: 1, requestsAtOnce: 1, whenStoreFails: "closed" } as const;
  deepStrictEqual(limits(policy).map(({ whenStoreFails }) => whenStoreFails), ["closed", "closed"]);
});

Deno.test("each subject counts by itself, and no two limits share a cell", () => {
  const quotas = {
    requestsPerMinute: 1,
    tokensPerMinute: 1,
    requestsAtOnce: 1,
    requestsPerDay: 1,
    tokensPerDay: 1,
  };
  const cells = (["address", "user", "key", "team", "model"] as const).flatMap((subject) =>
    ["one", "other"].flatMap((name) => limits({ name, subject, ...quotas }))
  ).map(({ cell }) => cell.kind === "count" ? `${cell.book} ${cell.key}` : `${cell.kind} ${cell.key}`);
  strictEqual(new Set(cells).size, cells.length);
  for (const subject of ["address", "user", "key", "team", "model"] as const) {
    const [limit] = limits({ subject, requestsPerDay: 1 });
    strictEqual(limit?.cell.key, WORK[subject]);
  }
});

Deno.test("costs are counted in billionths, exactly as the settings write them", () => {
  const cases: readonly (readonly [number, number])[] = [
    [1, 1_000_000_000],
    [0.1, 100_000_000],
    [0.3, 300_000_000],
    [2.675, 2_675_000_000],
    [1.1, 1_100_000_000],
    [0.000000001, 1],
    [1_000_000, 1e15],
    [999_999.999999999, 999_999_999_999_999],
  ];
  for (const [costPerDay, quota] of cases) {
    strictEqual(limits({ costPerDay })[0]?.cell.quota, quota, String(costPerDay));
  }
});

Deno.test("tokens have to be known before a request where a policy counts tokens or money, and only there", () => {
  const counts: Readonly<Record<keyof LimitQuotas, boolean>> = {
    requestsPerMinute: false,
    tokensPerMinute: true,
    requestsAtOnce: false,
    requestsPerDay: false,
    requestsPerMonth: false,
    tokensPerDay: true,
    tokensPerMonth: true,
    costPerDay: true,
    costPerMonth: true,
  };
  for (const [quota, expected] of Object.entries(counts)) {
    const [policy] = readyPolicies([{ name: "some", subject: "user", for: {}, [quota]: 1 }]);
    strictEqual(policy?.countsTokens, expected, quota);
  }
});

Deno.test("days and months are those of UTC, to the millisecond", () => {
  const last = Date.UTC(2026, 11, 31, 23, 59, 59, 999);
  deepStrictEqual(dayOf(last), {
    name: "2026-12-31",
    startMs: Date.UTC(2026, 11, 31),
    endMs: Date.UTC(2027, 0, 1),
  });
  strictEqual(dayOf(last + 1).name, "2027-01-01");
  deepStrictEqual(monthOf(last), {
    name: "2026-12",
    startMs: Date.UTC(2026, 11, 1),
    endMs: Date.UTC(2027, 0, 1),
  });
  strictEqual(monthOf(last + 1).name, "2027-01");
});

Deno.test("a month is as long as the calendar has it, in leap years as well", () => {
  const days = (year: number, month: number): number => {
    const { startMs, endMs } = monthOf(Date.UTC(year, month, 15));
    return (endMs - startMs) / 86_400_000;
  };
  deepStrictEqual([2023, 2024, 2100, 2000].map((year) => days(year, 1)), [28, 29, 28, 29]);
  deepStrictEqual([0, 3, 10, 11].map((month) => days(2026, month)), [31, 30, 30, 31]);
  strictEqual(dayOf(Date.UTC(2024, 1, 29, 12)).name, "2024-02-29");
});

Deno.test("property: a period holds its moment, ends where the next begins, and every cell ends in more than 0 ms", () => {
  // 1970 to 2200.
  const anyMoment = fc.integer({ min: 0, max: 7_258_118_400_000 });
  fc.assert(
    fc.property(anyMoment, (nowMs) => {
      for (const period of [dayOf, monthOf]) {
        const { name, startMs, endMs } = period(nowMs);
        ok(startMs <= nowMs && nowMs < endMs);
        strictEqual(period(endMs).startMs, endMs);
        strictEqual(period(endMs - 1).name, name);
      }
      for (const { cell } of limits({ requestsPerDay: 1, requestsPerMonth: 1 }, WORK, nowMs)) {
        ok(cell.kind === "count" && cell.endsInMs > 0);
      }
    }),
    { numRuns: 300 },
  );
});

Deno.test("a rate of requests is one cell of one request, under its own name", () => {
  deepStrictEqual(requestLimit("sign-in", "192.0.2.1", { quota: 10, windowMs: 60_000 }, "closed"), {
    name: "sign-in",
    unit: "requests",
    isShared: false,
    windowSeconds: 60,
    whenStoreFails: "closed",
    fixed: true,
    cell: { kind: "rate", key: "sign-in/192.0.2.1", quota: 10, windowMs: 60_000, amount: 1 },
  });
});

Deno.test("of tokens and money at least 1 is asked for, so that what is used up refuses also what nobody can count before", () => {
  const [one] = readyPolicies([{
    name: "some",
    subject: "user",
    for: {},
    requestsPerDay: 5,
    tokensPerMinute: 5,
    tokensPerDay: 5,
    costPerMonth: 5,
  }]);
  ok(one);
  const amounts = limitsOf(one, WORK, { requests: 1, tokens: 0, cost: 0 }, HELD_MS, NOW_MS)
    .map(({ cell }) => cell.kind === "place" ? null : cell.amount);
  deepStrictEqual(amounts, [1, 1, 1, 1]);
});

Deno.test("limits on models and on networks are shared, those on a caller's own name, key and team are not", () => {
  for (const subject of ["address", "user", "key", "team", "model"] as const) {
    const [limit] = limits({ subject, requestsPerDay: 1 });
    strictEqual(limit?.isShared, subject === "address" || subject === "model", subject);
  }
  strictEqual(requestLimit("address", "192.0.2.1", { quota: 1, windowMs: 1 }, "closed").isShared, false);
});
