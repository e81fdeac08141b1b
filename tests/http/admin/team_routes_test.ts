// Teams and signing keys over HTTP.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import { grantsIn } from "../../../src/access/grant.ts";
import { NOBODY, openWorld, refusalOf, typesOf, type World } from "./handler_under_test.ts";

type Caller = ReturnType<World["as"]>;

// Programs: behind a user there would have to be an account, which every change asks after.
const admin = (world: World) => world.as({ id: `cli_${NOBODY}`, team: "default", roles: ["admin"] });
const lead = (world: World, team = "red") =>
  world.as({ id: `cli_${NOBODY}`, team, roles: ["team-admin", "user"] });
const create = (world: World, caller: Caller, body: JsonValue) =>
  world.call(caller, "POST", "/v1/teams", body);
const CONFLICT = [409, "conflict"];

Deno.test("a team is made, described anew and deleted by an admin, each with its record", async () => {
  const world = await openWorld();
  const made = await create(world, admin(world), { id: "green", description: "Plants." });
  const created_at = Math.floor(world.clock.now() / 1000);
  deepStrictEqual([made.status, made.body], [201, { id: "green", description: "Plants.", created_at }]);
  const changed = await world.call(admin(world), "PATCH", "/v1/teams/green", { description: "Trees." });
  deepStrictEqual([changed.status, changed.body.description], [200, "Trees."]);
  const deleted = await world.call(admin(world), "DELETE", "/v1/teams/green");
  strictEqual(deleted.status, 204);
  deepStrictEqual(
    [...made.events, ...changed.events, ...deleted.events].map((event) =>
      event.type === "object.changed" && [event.action, event.object, event.before, event.after]
    ),
    [
      ["team:write", "team/green", null, { description: "Plants." }],
      ["team:write", "team/green", { description: "Plants." }, { description: "Trees." }],
      ["team:write", "team/green", { description: "Trees." }, null],
    ],
  );
  deepStrictEqual(refusalOf(await world.call(admin(world), "GET", "/v1/teams/green")), [404, "not_found"]);
});

Deno.test("a team's id has a grammar and is there once", async () => {
  const world = await openWorld();
  for (const id of ["", "Green", "-green", "green-", "a/b", "x".repeat(33), "grün", 7]) {
    deepStrictEqual(refusalOf(await create(world, admin(world), { id })), [422, "fields_invalid", "/id"]);
  }
  const other = await create(world, admin(world), { id: "green", createdAtMs: 0 });
  deepStrictEqual(refusalOf(other), [422, "fields_invalid", "/createdAtMs"]);
  deepStrictEqual(refusalOf(await create(world, admin(world), { id: "red" })), CONFLICT);
  deepStrictEqual(
    refusalOf(await world.call(admin(world), "PATCH", "/v1/teams/red", { description: "x", id: "green" })),
    [422, "fields_invalid", "/id"],
  );
});

Deno.test("members see their own team where their role lets them, admins and auditors see all; only admins change them", async () => {
  const world = await openWorld();
  const callers = {
    user: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] }),
    lead: lead(world),
    otherLead: lead(world, "blue"),
    auditor: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["auditor"] }),
    admin: admin(world),
  };
  const statuses: Record<string, readonly number[]> = {};
  const lists: Record<string, readonly string[]> = {};
  for (const [name, caller] of Object.entries(callers)) {
    statuses[name] = [
      (await world.call(caller, "GET", "/v1/teams/red")).status,
      (await world.call(caller, "PATCH", "/v1/teams/red", { description: "x" })).status,
      (await world.call(caller, "DELETE", "/v1/teams/red")).status,
      (await create(world, caller, { id: "red" })).status,
    ];
    const { body } = await world.call(caller, "GET", "/v1/teams");
    lists[name] = body?.data.map(({ id }: { id: string }) => id) ?? [];
  }
  deepStrictEqual(statuses, {
    user: [403, 403, 403, 403],
    lead: [200, 403, 403, 403],
    otherLead: [404, 403, 403, 403],
    auditor: [200, 403, 403, 403],
    admin: [200, 200, 204, 201],
  });
  deepStrictEqual(lists, {
    user: [],
    lead: ["red"],
    otherLead: ["blue"],
    auditor: ["blue", "default", "red"],
    admin: ["blue", "default", "red"],
  });
});

Deno.test("whoever may write the own team writes no other and makes none", async () => {
  const world = await openWorld();
  await world.roleBook.put({
    team: null,
    name: "host",
    description: "",
    builtIn: false,
    createdAtMs: 0,
    grants: grantsIn(["team:read/team", "team:write/team"]),
  }, undefined);
  const host = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["host"] });
  strictEqual((await world.call(host, "PATCH", "/v1/teams/red", { description: "x" })).status, 200);
  const hidden = await world.call(host, "PATCH", "/v1/teams/blue", { description: "x" });
  deepStrictEqual(refusalOf(hidden), [404, "not_found"]);
  for (const id of ["green", "%00", "Blue", "a%2Fb"]) {
    deepStrictEqual(await world.call(host, "PATCH", `/v1/teams/${id}`, { description: "x" }), hidden);
  }
  deepStrictEqual(refusalOf(await create(world, host, { id: "green" })), [404, "not_found"]);
});

Deno.test("a team with a user, a client or a role stays, and so does the default one", async () => {
  const world = await openWorld();
  const remove = async (id: string) => refusalOf(await world.call(admin(world), "DELETE", `/v1/teams/${id}`));
  deepStrictEqual(await remove("default"), CONFLICT);
  const user = await world.user("mia", ["user"]);
  deepStrictEqual(await remove("red"), CONFLICT);
  await world.call(admin(world), "DELETE", `/v1/users/${user.id}`);
  const { client } = await world.clients.create({
    name: "batch",
    team: "red",
    roles: [],
    authentication: "secret",
    keys: [],
  });
  deepStrictEqual(await remove("red"), CONFLICT);
  await world.call(admin(world), "DELETE", `/v1/clients/${client.id}`);
  await world.call(admin(world), "PUT", "/v1/roles/red/helper", { grants: ["user:read/own"] });
  deepStrictEqual(await remove("red"), CONFLICT);
  await world.call(admin(world), "DELETE", "/v1/roles/red/helper");
  deepStrictEqual(await remove("red"), [204, undefined]);
});

Deno.test("whoever joins while a team is being deleted keeps it: conflict", async () => {
  const world = await openWorld();
  world.changeMeanwhile(() => world.user("mia", ["user"]));
  deepStrictEqual(refusalOf(await world.call(admin(world), "DELETE", "/v1/teams/red")), CONFLICT);
  ok(await world.teams.read("red"));
});

Deno.test("a team that was changed meanwhile is not changed: conflict", async () => {
  const world = await openWorld();
  world.changeMeanwhile(async () => {
    const found = await world.teams.read("red");
    ok(found && await world.teams.replace(found, { ...found.value, description: "first" }));
  });
  deepStrictEqual(
    refusalOf(await world.call(admin(world), "PATCH", "/v1/teams/red", { description: "second" })),
    CONFLICT,
  );
  strictEqual((await world.teams.read("red"))?.value.description, "first");
});

Deno.test("signing keys are told by their public halves alone, and a rotation makes a new one sign", async () => {
  const world = await openWorld();
  const before = world.signingKeys.active().keyId;
  world.clock.advance(1000);
  const called = await world.call(admin(world), "POST", "/v1/signing-keys/rotate");
  const { keyId } = world.signingKeys.active();
  deepStrictEqual([called.status, called.body], [201, { key_id: keyId }]);
  deepStrictEqual(typesOf(called), ["object.changed", "request.allowed"]);
  const [changed, allowed] = called.events;
  deepStrictEqual(changed?.type === "object.changed" && changed.before, { active: before });
  deepStrictEqual(allowed?.type === "request.allowed" && allowed.object, `signing_key/${keyId}`);

  const { body } = await world.call(admin(world), "GET", "/v1/signing-keys");
  const nowSeconds = Math.floor(world.clock.now() / 1000);
  deepStrictEqual(
    body.data.map((
      { key_id, state, created_at, retired_at, public_key }: Record<string, JsonValue>,
    ) => [key_id, state, created_at, retired_at, Object.keys(public_key ?? {}).sort()]),
    [
      [keyId, "active", nowSeconds, null, ["alg", "crv", "kid", "kty", "use", "x"]],
      [before, "retired", nowSeconds - 1, nowSeconds, ["alg", "crv", "kid", "kty", "use", "x"]],
    ],
  );
});

Deno.test("only who may rotate signing keys sees or rotates them, and not without a record", async () => {
  const world = await openWorld();
  for (const roles of [["operator", "auditor", "user"], ["team-admin"]]) {
    const caller = world.as({ id: `usr_${NOBODY}`, team: "default", roles });
    for (const [method, path] of [["GET", ""], ["POST", "/rotate"]] as const) {
      deepStrictEqual(refusalOf(await world.call(caller, method, `/v1/signing-keys${path}`)), [
        403,
        "forbidden",
      ]);
    }
  }
  const before = world.signingKeys.active().keyId;
  world.trail.setFailing(true);
  deepStrictEqual(refusalOf(await world.call(admin(world), "POST", "/v1/signing-keys/rotate")), [
    503,
    "unavailable",
  ]);
  strictEqual(world.signingKeys.active().keyId, before);
});

Deno.test("a team that is not there is refused as one that is, before anything is read", async () => {
  const world = await openWorld();
  await world.roleBook.put({
    team: null,
    name: "host",
    description: "",
    builtIn: false,
    createdAtMs: 0,
    grants: grantsIn(["team:read", "team:write/team"]),
  }, undefined);
  const host = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["host"] });
  let reads = 0;
  world.store.get = (table, key) => {
    if (table === "teams") reads++;
    return world.memory.get(table, key);
  };
  for (const id of ["blue", "green"]) {
    const seen = await world.call(host, "PATCH", `/v1/teams/${id}`, { description: "x" });
    deepStrictEqual(refusalOf(seen), [403, "forbidden"], id);
    const hidden = await world.call(lead(world), "GET", `/v1/teams/${id}`);
    deepStrictEqual(refusalOf(hidden), [404, "not_found"], id);
  }
  strictEqual(reads, 0);
  deepStrictEqual(refusalOf(await world.call(host, "GET", "/v1/teams/green")), [404, "not_found"]);
});
