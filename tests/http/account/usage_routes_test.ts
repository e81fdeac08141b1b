// Tests of one's own usage: whose rows it holds, over which days, and what it says of limits.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Principal } from "../../../src/access/principal.ts";
import { openAdmission } from "../../../src/inference/admission.ts";
import { type UsageRow, usageTallies, type UsedAmounts } from "../../../src/limits/usage_book.ts";
import type { LimitPolicy } from "../../../src/limits/limit_policy.ts";
import { CHAT, servedModel } from "../../inference/gateway_under_test.ts";
import { ISSUER, openWorld, type World } from "../admin/handler_under_test.ts";

/** The day of the clock of tests. */
const TODAY = "2025-06-15";
const DAY_MS = 86_400_000;
const USED: UsedAmounts = { requests: 2, inputTokens: 30, outputTokens: 5, cost: 2_500_000_000 };
const SEEN = { requests: 2, input_tokens: 30, output_tokens: 5, cost: 2.5 };
const NONE = { requests: 0, input_tokens: 0, output_tokens: 0, cost: 0 };

/** No password is needed: these are never signed in. */
const mia = { id: "usr_mia", team: "red", roles: ["user"] };
const ben = { ...mia, id: "usr_ben" };
let hold = 0;

/** Puts a use of today, or of so many days ago, into the book. */
function use(world: World, row: Partial<UsageRow>, daysAgo = 0, used = USED): void {
  const whole = { team: "red", issuer: ISSUER, subject: "", key: "", model: "m", ...row };
  const tallies = usageTallies(whole, used, world.clock.now() - daysAgo * DAY_MS);
  world.limiter.settle(`hold-${hold++}`, [], tallies);
}

async function openWithMia(
  policies: readonly LimitPolicy[] = [],
): Promise<{ world: World; caller: Principal }> {
  const world = await openWorld(policies);
  return { world, caller: world.as(mia) };
}

Deno.test("who has used nothing is told so, of the month until today", async () => {
  const { world, caller } = await openWithMia();
  const { status, body, events } = await world.call(caller, "GET", "/v1/usage");
  deepStrictEqual([status, body], [200, {
    object: "usage",
    from: "2025-06-01",
    to: TODAY,
    data: [],
    total: NONE,
    limits: [],
  }]);
  deepStrictEqual(
    events.map((event) => event.type === "request.allowed" ? [event.action, event.object] : event.type),
    [["usage:read", null]],
  );
});

Deno.test("the answer holds the caller's own rows by day, model and key, and nobody else's", async () => {
  const { world, caller } = await openWithMia();
  const subject = mia.id;
  use(world, { subject, model: "b" });
  use(world, { subject, model: "a", key: "pck_2" });
  use(world, { subject, model: "a" });
  use(world, { subject, model: "a", key: "pck_1" }, 3);
  // Of the same team, of another team, and of another issuer's account that is called the same.
  use(world, { subject: "usr_2" });
  use(world, { subject: "usr_3", team: "blue" });
  use(world, { subject, issuer: "https://login.example.org" });
  const { body } = await world.call(caller, "GET", "/v1/usage");
  deepStrictEqual(body.data, [
    { day: "2025-06-12", model: "a", key: "pck_1", ...SEEN },
    { day: TODAY, model: "a", key: null, ...SEEN },
    { day: TODAY, model: "a", key: "pck_2", ...SEEN },
    { day: TODAY, model: "b", key: null, ...SEEN },
  ]);
  deepStrictEqual(body.total, { requests: 8, input_tokens: 120, output_tokens: 20, cost: 10 });
});

Deno.test("a key sees what its owner has used by whatever credential", async () => {
  const { world } = await openWithMia();
  use(world, { subject: mia.id, key: "pck_1" });
  use(world, { subject: mia.id });
  const byKey = world.as(mia, { kind: "api_key", id: "pck_1", scope: ["usage:read/own"] });
  strictEqual((await world.call(byKey, "GET", "/v1/usage")).body.data.length, 2);
});

Deno.test("whoever changed teams has one row a day for both; whoever may read a team's usage only sees what was used in it", async () => {
  const { world, caller } = await openWithMia();
  use(world, { subject: mia.id, team: "red" });
  use(world, { subject: mia.id, team: "blue" });
  const { body } = await world.call(caller, "GET", "/v1/usage");
  deepStrictEqual(body.data, [{
    day: TODAY,
    model: "m",
    key: null,
    requests: 4,
    input_tokens: 60,
    output_tokens: 10,
    cost: 5,
  }]);
  const lead = world.as({ ...mia, roles: ["team-admin"] });
  deepStrictEqual((await world.call(lead, "GET", "/v1/usage")).body.total, SEEN);
});

Deno.test("from and to are both included, and days are those of UTC", async () => {
  const { world, caller } = await openWithMia();
  for (const daysAgo of [0, 1, 2, 3]) use(world, { subject: mia.id }, daysAgo);
  const daysOf = async (query: string) => {
    const { body } = await world.call(caller, "GET", `/v1/usage?${query}`);
    return [body.from, body.to, body.data.map(({ day }: { day: string }) => day)];
  };
  deepStrictEqual(await daysOf("from=2025-06-13&to=2025-06-14"), [
    "2025-06-13",
    "2025-06-14",
    ["2025-06-13", "2025-06-14"],
  ]);
  deepStrictEqual(await daysOf("from=2025-06-12&to=2025-06-12"), ["2025-06-12", "2025-06-12", [
    "2025-06-12",
  ]]);
  // Without a first day, the month of the last one.
  deepStrictEqual((await daysOf("to=2024-02-29")).slice(0, 2), ["2024-02-01", "2024-02-29"]);
  deepStrictEqual((await daysOf("from=2025-06-14"))[2], ["2025-06-14", TODAY]);
  // The last millisecond of a day, and the first of the next.
  world.clock.advance(DAY_MS - world.clock.now() % DAY_MS - 1);
  strictEqual((await daysOf(""))[1], TODAY);
  world.clock.advance(1);
  strictEqual((await daysOf(""))[1], "2025-06-16");
});

Deno.test("ninety-two days are read, one more is refused, and so is a range that ends before it begins", async () => {
  const { world, caller } = await openWithMia();
  const ask = (query: string) => world.call(caller, "GET", `/v1/usage?${query}`);
  strictEqual((await ask("from=2025-01-01&to=2025-04-02")).status, 200);
  const long = await ask("from=2025-01-01&to=2025-04-03");
  deepStrictEqual([long.status, long.fault, long.detail], [
    400,
    "request_invalid",
    "The query parameter from asks for more than 92 days.",
  ]);
  const reversed = await ask("from=2025-06-14&to=2025-06-13");
  deepStrictEqual([reversed.status, reversed.detail], [
    400,
    "The query parameter from lies behind the last day, 2025-06-13.",
  ]);
  strictEqual((await ask("from=0000-01-01")).fault, "request_invalid");
});

Deno.test("days with more than 20,000 rows are read one at a time", async () => {
  const { world, caller } = await openWithMia();
  const used = { requests: 1, inputTokens: 0, outputTokens: 0, cost: 0 };
  for (let key = 0; key <= 20_000; key++) use(world, { subject: mia.id, key: `pck_${key}` }, 1, used);
  const day = "2025-06-14";
  const { status, body } = await world.call(caller, "GET", `/v1/usage?from=${day}&to=${day}`);
  deepStrictEqual([status, body.data.length, body.total.requests], [200, 20_001, 20_001]);
  const both = await world.call(caller, "GET", `/v1/usage?from=${day}&to=${TODAY}`);
  deepStrictEqual([both.status, both.fault, both.detail], [
    400,
    "request_invalid",
    "The query parameter from asks for more than 20000 rows: name fewer days.",
  ]);
});

Deno.test("what is no day of the calendar is refused", async () => {
  const { world, caller } = await openWithMia();
  const texts = [
    "",
    "2025-6-1",
    "2025-02-29",
    "2025-13-01",
    "20250601",
    "2025-06-01T00:00",
    "today",
    "-2025-06-01",
  ];
  for (const text of texts) {
    const query = new URLSearchParams({ to: text });
    let refused: unknown;
    try {
      refused = (await world.call(caller, "GET", `/v1/usage?${query}`)).status;
    } catch (thrown) {
      refused = (thrown as Error).message;
    }
    strictEqual(refused, "Cannot accept a query: a parameter breaks its rule", text);
  }
});

const POLICIES: readonly LimitPolicy[] = [
  { name: "people", subject: "user", for: {}, requestsPerDay: 10, costPerMonth: 20.5, requestsPerMinute: 5 },
  { name: "reds", subject: "team", for: { teams: ["red"] }, tokensPerMonth: 10_000, requestsAtOnce: 4 },
  { name: "keys", subject: "key", for: {}, tokensPerDay: 500 },
  { name: "blues", subject: "team", for: { teams: ["blue"] }, tokensPerDay: 1 },
  { name: "admins", subject: "user", for: { roles: ["admin"] }, tokensPerDay: 1 },
  { name: "some-models", subject: "user", for: { models: ["m*"] }, tokensPerDay: 1000 },
  { name: "networks", subject: "address", for: {}, tokensPerDay: 1000 },
  { name: "each-model", subject: "model", for: {}, tokensPerDay: 1000 },
];

Deno.test("the limits of a day or month that hold for the caller whatever it asks for are told with what is left of them", async () => {
  const { world, caller } = await openWithMia(POLICIES);
  const dayEnds = Date.UTC(2025, 5, 16) / 1000;
  const monthEnds = Date.UTC(2025, 6, 1) / 1000;
  const people = [
    {
      name: "people:requestsPerDay",
      unit: "requests",
      per: "day",
      quota: 10,
      used: 0,
      remaining: 10,
      ends_at: dayEnds,
    },
    {
      name: "people:costPerMonth",
      unit: "cost",
      per: "month",
      quota: 20.5,
      used: 0,
      remaining: 20.5,
      ends_at: monthEnds,
    },
  ];
  const reds = {
    name: "reds:tokensPerMonth",
    unit: "tokens",
    per: "month",
    quota: 10_000,
    used: 0,
    remaining: 10_000,
    ends_at: monthEnds,
  };
  deepStrictEqual((await world.call(caller, "GET", "/v1/usage")).body.limits, [...people, reds]);
  const byKey = world.as(mia, { kind: "api_key", id: "pck_1" });
  deepStrictEqual((await world.call(byKey, "GET", "/v1/usage")).body.limits, [...people, reds, {
    name: "keys",
    unit: "tokens",
    per: "day",
    quota: 500,
    used: 0,
    remaining: 500,
    ends_at: dayEnds,
  }]);
});

Deno.test("what an inference has taken is what the limits say is used: reserved while it runs, as it was after it, of a team by all", async () => {
  const { world, caller } = await openWithMia(POLICIES);
  const other = servedModel({ id: "other", prices: { inputPerMillion: 1000, outputPerMillion: 10_000 } });
  const admission = openAdmission({
    limiter: world.limiter,
    policies: world.policies,
    userRate: { quota: 100, windowMs: 60_000 },
    placesPerUser: 10,
    clock: world.clock,
  });
  const admit = async (principal: Principal) =>
    await admission.admit(
      { principal, network: "192.0.2.1", deadlineMs: 30_000, tellLimits: () => {} },
      [{ model: other, request: { ...CHAT, outputTokensMax: 100 } }],
    );
  const limitsSeen = async () => {
    const { body } = await world.call(caller, "GET", "/v1/usage");
    return body.limits.map(({ used, quota, remaining }: Record<string, number>) => [used, quota, remaining]);
  };
  const admitted = await admit(world.as(mia));
  const [requests, cost, tokens] = await limitsSeen();
  deepStrictEqual(requests, [1, 10, 9]);
  ok(cost[0] > 1 && cost[0] < 2 && tokens[0] > 100 && tokens[0] < 150, JSON.stringify([cost, tokens]));
  admitted.settle({ inputTokens: 7, outputTokens: 5, countedBy: "engine" }, other);
  deepStrictEqual(await limitsSeen(), [[1, 10, 9], [0.057, 20.5, 20.443], [12, 10_000, 9988]]);
  (await admit(world.as(ben))).settle({ inputTokens: 1000, outputTokens: 9500, countedBy: "engine" }, other);
  // Of the budget that they share more was used than there was, as the engine counted more than was reserved.
  deepStrictEqual((await limitsSeen())[2], [10_512, 10_000, 0]);
  const { body } = await world.call(caller, "GET", "/v1/usage");
  deepStrictEqual(body.data, [
    { day: TODAY, model: "other", key: null, requests: 1, input_tokens: 7, output_tokens: 5, cost: 0.057 },
  ]);
});
