// Tests of the sums of usage: what a caller sees of whose use, by what it is summed, and how pages go on.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { type UsageRow, usageTallies } from "../../../src/limits/usage_book.ts";
import { ISSUER, openWorld, type World } from "./handler_under_test.ts";

const DAY_MS = 86_400_000;
const USED = { requests: 1, inputTokens: 10, outputTokens: 2, cost: 500_000_000 };
const ELSEWHERE = "https://login.example.org";

/** So many times what one use is. */
const times = (count: number) => ({
  requests: count,
  input_tokens: 10 * count,
  output_tokens: 2 * count,
  cost: count / 2,
});

const mia = { id: "usr_a", team: "red", roles: ["user"] };
const ben = { ...mia, id: "usr_b" };
const cem = { ...mia, id: "usr_c", team: "blue" };
const root = { id: "usr_root", team: "blue", roles: ["admin"] };
let hold = 0;

function use(world: World, row: Partial<UsageRow>, daysAgo = 0): void {
  const whole = { team: "red", issuer: ISSUER, subject: "usr_1", key: "", model: "m", ...row };
  const tallies = usageTallies(whole, USED, world.clock.now() - daysAgo * DAY_MS);
  world.limiter.settle(`hold-${hold++}`, [], tallies);
}

/** Uses of mia and ben of `red`, of cem of `blue`, and of an account of another issuer in `red` that is called like mia's. */
async function openUsed() {
  const world = await openWorld();
  use(world, { subject: mia.id, model: "a", key: "pck_1" });
  use(world, { subject: mia.id, model: "b" }, 2);
  use(world, { subject: ben.id, model: "a" });
  use(world, { subject: cem.id, model: "a", team: "blue", key: "pck_2" });
  use(world, { subject: mia.id, issuer: ELSEWHERE, model: "c" });
  return world;
}

Deno.test("an admin sees the sums of everybody, by user, team, key or model, in order", async () => {
  const world = await openUsed();
  const admin = world.as(root);
  const sums = async (query: string) => (await world.call(admin, "GET", `/v1/usage/totals?${query}`)).body;
  const byUser = {
    data: [
      { by: { issuer: ISSUER, subject: mia.id }, ...times(2) },
      { by: { issuer: ISSUER, subject: ben.id }, ...times(1) },
      { by: { issuer: ISSUER, subject: cem.id }, ...times(1) },
      { by: { issuer: ELSEWHERE, subject: mia.id }, ...times(1) },
    ],
    next: null,
  };
  deepStrictEqual(await sums(""), byUser);
  deepStrictEqual(await sums("by=user"), byUser);
  deepStrictEqual((await sums("by=team")).data, [
    { by: { team: "blue" }, ...times(1) },
    { by: { team: "red" }, ...times(4) },
  ]);
  deepStrictEqual((await sums("by=key")).data, [
    { by: { key: null }, ...times(3) },
    { by: { key: "pck_1" }, ...times(1) },
    { by: { key: "pck_2" }, ...times(1) },
  ]);
  deepStrictEqual((await sums("by=model")).data, [
    { by: { model: "a" }, ...times(3) },
    { by: { model: "b" }, ...times(1) },
    { by: { model: "c" }, ...times(1) },
  ]);
});

Deno.test("ASVS V8.2.2: each role sees the sums of what it may read, and nothing of the rest is in them", async () => {
  const world = await openUsed();
  const seen = async (roles: readonly string[], team: string, id = mia.id, scope?: readonly string[]) => {
    const caller = world.as({ id, team, roles }, scope === undefined ? {} : { scope });
    const { status, body } = await world.call(caller, "GET", "/v1/usage/totals?by=model");
    return status === 200
      ? body.data.map(({ by, requests }: { by: { model: string }; requests: number }) =>
        `${by.model} ${requests}`
      )
      : status;
  };
  const all = ["a 3", "b 1", "c 1"];
  const reds = ["a 2", "b 1", "c 1"];
  for (const role of ["admin", "operator", "auditor"]) deepStrictEqual(await seen([role], "blue"), all, role);
  deepStrictEqual(await seen(["team-admin"], "red"), reds);
  deepStrictEqual(await seen(["team-admin"], "blue"), ["a 1"]);
  deepStrictEqual(await seen(["user"], "red"), ["a 1", "b 1"]);
  deepStrictEqual(await seen(["user"], "red", ben.id), ["a 1"]);
  deepStrictEqual(await seen(["user"], "red", "usr_nobody"), []);
  deepStrictEqual(await seen([], "red"), 403);
  // The scope of a credential takes away.
  deepStrictEqual(await seen(["admin"], "red", mia.id, ["usage:read/team"]), reds);
  deepStrictEqual(await seen(["admin"], "red", mia.id, ["usage:read/own"]), ["a 1", "b 1"]);
  deepStrictEqual(await seen(["admin"], "red", mia.id, ["key:read"]), 403);
  // Another issuer's account is somebody else, whatever it is called.
  const { body } = await world.call(
    { ...world.as({ id: mia.id, team: "red", roles: ["user"] }), issuer: ELSEWHERE },
    "GET",
    "/v1/usage/totals",
  );
  deepStrictEqual(body.data, [{ by: { issuer: ELSEWHERE, subject: mia.id }, ...times(1) }]);
});

Deno.test("only the days that are asked for count", async () => {
  const world = await openUsed();
  const admin = world.as(root);
  const ask = async (query: string) => (await world.call(admin, "GET", `/v1/usage/totals?by=user&${query}`));
  deepStrictEqual((await ask("from=2025-06-13&to=2025-06-14")).body.data, [
    { by: { issuer: ISSUER, subject: mia.id }, ...times(1) },
  ]);
  deepStrictEqual((await ask("to=2025-05-31")).body, { data: [], next: null });
  strictEqual((await ask("from=2025-01-01&to=2025-04-03")).fault, "request_invalid");
});

Deno.test("pages of any size hold together every sum once, in order, whatever the names are", async () => {
  const world = await openWorld();
  const admin = world.as(root);
  const subjects = ["", "a", "a b", "a-b", "aa", "Z", "0", "é", "漢", "😀", "x".repeat(255)];
  for (const subject of subjects) use(world, { issuer: ELSEWHERE, subject });
  for (const key of ["", "pck_1", "pck_2"]) use(world, { key });
  const pages = async (query: string, limit: number) => {
    const found: unknown[] = [];
    for (let after = "";;) {
      const { body } = await world.call(
        admin,
        "GET",
        `/v1/usage/totals?${query}&limit=${limit}${after === "" ? "" : `&after=${after}`}`,
      );
      found.push(...body.data.map(({ by }: { by: unknown }) => by));
      if (body.next === null) return found;
      strictEqual(body.data.length, limit);
      after = body.next;
    }
  };
  for (const by of ["user", "key", "team", "model"]) {
    const whole = await pages(`by=${by}`, 200);
    for (const limit of [1, 2, 3, 5, 11, 12]) deepStrictEqual(await pages(`by=${by}`, limit), whole, by);
  }
  strictEqual((await pages("by=user", 1)).length, subjects.length + 1);
  deepStrictEqual(await pages("by=key", 1), [{ key: null }, { key: "pck_1" }, { key: "pck_2" }]);
});

Deno.test("an unknown group, a place that no page named and a parameter that there is not are refused", async () => {
  const world = await openWorld();
  const admin = world.as(root);
  const queries = [
    "by=subject",
    "by=",
    "by=User",
    "after=",
    "after=zz",
    "after=0",
    "after=0G",
    "limit=0",
    "limit=201",
    "x=1",
  ];
  for (const query of queries) {
    let refused = "";
    try {
      await world.call(admin, "GET", `/v1/usage/totals?${query}`);
    } catch (thrown) {
      refused = (thrown as Error).message;
    }
    strictEqual(refused.startsWith("Cannot accept a query"), true, query);
  }
});

Deno.test("a look at the sums is on record", async () => {
  const world = await openWorld();
  const admin = world.as(root);
  const { events } = await world.call(admin, "GET", "/v1/usage/totals");
  deepStrictEqual(
    events.map((event) => event.type === "request.allowed" ? [event.action, event.object] : event.type),
    [["usage:read", null]],
  );
});
