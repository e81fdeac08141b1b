// Users over HTTP: made, seen and deleted, by whom and with what left behind.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import { NOBODY, openWorld, OTHER_PASSWORD, refusalOf, typesOf, type World } from "./handler_under_test.ts";

type Caller = ReturnType<World["as"]>;

// Programs: behind a user there would have to be an account, which every change asks after.
const admin = (world: World) => world.as({ id: `cli_${NOBODY}`, team: "default", roles: ["admin"] });
const lead = (world: World, team = "red") =>
  world.as({ id: `cli_${NOBODY}`, team, roles: ["team-admin", "user"] });
const create = (world: World, caller: Caller, body: Record<string, JsonValue> = {}) =>
  world.call(caller, "POST", "/v1/users", {
    username: "mia",
    password: OTHER_PASSWORD,
    roles: ["user"],
    ...body,
  });

Deno.test("a user is seen by oneself, the own team's admin, auditors and admins, and is not there for all others", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  const callers = {
    oneself: world.as(mia),
    mate: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] }),
    lead: lead(world),
    otherLead: lead(world, "blue"),
    auditor: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["auditor"] }),
    admin: admin(world),
    twin: world.external(["user"], "red", mia.id),
    nobody: world.as({ id: `usr_${NOBODY}`, team: "red", roles: [] }),
  };
  const statuses: Record<string, number> = {};
  const lists: Record<string, number> = {};
  for (const [name, caller] of Object.entries(callers)) {
    statuses[name] = (await world.call(caller, "GET", `/v1/users/${mia.id}`)).status;
    const list = await world.call(caller, "GET", "/v1/users");
    lists[name] = list.body?.data.length ?? list.status;
  }
  deepStrictEqual(statuses, {
    oneself: 200,
    mate: 404,
    lead: 200,
    otherLead: 404,
    auditor: 200,
    admin: 200,
    twin: 404,
    nobody: 403,
  });
  deepStrictEqual(lists, {
    oneself: 1,
    mate: 0,
    lead: 1,
    otherLead: 0,
    auditor: 1,
    admin: 1,
    twin: 0,
    nobody: 403,
  });
});

Deno.test("what is told of a user holds no hash, and each read leaves its record", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  const one = await world.call(admin(world), "GET", `/v1/users/${mia.id}`);
  const list = await world.call(admin(world), "GET", "/v1/users");
  deepStrictEqual(Object.keys(one.body).sort(), [
    "created_at",
    "disabled",
    "id",
    "roles",
    "team",
    "username",
  ]);
  deepStrictEqual(list.body, { data: [one.body], next: null });
  deepStrictEqual(
    [...one.events, ...list.events].map((event) =>
      event.type === "request.allowed" && [event.action, event.object]
    ),
    [["user:read", `user/${mia.id}`], ["user:read", null]],
  );
});

Deno.test("a user that is hidden and one that is not there are refused in the same words", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  const caller = lead(world, "blue");
  for (
    const [method, path] of [["GET", ""], ["DELETE", ""], ["GET", "/sessions"], ["DELETE", "/sessions"], [
      "POST",
      "/unlock",
    ]] as const
  ) {
    const hidden = await world.call(caller, method, `/v1/users/${mia.id}${path}`);
    deepStrictEqual([refusalOf(hidden), hidden.events], [[404, "not_found"], []]);
    for (const id of [`usr_${NOBODY}`, "mia", "%00", "..%2Fteams", `cli_${NOBODY}`]) {
      deepStrictEqual(await world.call(caller, method, `/v1/users/${id}${path}`), hidden);
    }
  }
});

Deno.test("a deleted user is gone with all sessions and keys, and the name is free", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  await world.sessions.open({ userId: mia.id, network: "192.0.2.1", boundTo: null });
  const { text } = await world.apiKeys.create({
    name: "ci",
    ownerId: mia.id,
    scopes: ["model:read"],
    addresses: [],
    boundTo: null,
    expiresAtMs: world.clock.now() + 60_000,
    seenByOthers: false,
  });
  await world.standings.load(mia.id);
  const called = await world.call(lead(world), "DELETE", `/v1/users/${mia.id}`);
  strictEqual(called.status, 204);
  deepStrictEqual([
    await world.users.read(mia.id),
    await world.sessions.list(mia.id),
    (await world.apiKeys.verify(text)).ok,
    world.standings.known(mia.id),
  ], [undefined, [], false, undefined]);
  deepStrictEqual(
    called.events.map((event) =>
      event.type === "object.changed" && [event.object, event.before, event.after]
    ),
    [[
      `user/${mia.id}`,
      { account: world.labelAccount("mia"), team: "red", roles: ["user"], disabled: false },
      null,
    ]],
  );
  strictEqual((await create(world, lead(world))).status, 201);
});

Deno.test("nobody deletes oneself, nor anybody with more rights", async () => {
  const world = await openWorld();
  const [lea, bo, ann] = [
    await world.user("lea", ["team-admin", "user"]),
    await world.user("bo", ["admin"]),
    await world.user("ann", ["auditor"]),
  ];
  const own = await world.call(world.as(bo), "DELETE", `/v1/users/${bo.id}`);
  deepStrictEqual([...refusalOf(own), own.detail], [409, "conflict", "Somebody else has to do that."]);
  for (const { id } of [bo, ann]) {
    deepStrictEqual(refusalOf(await world.call(world.as(lea), "DELETE", `/v1/users/${id}`)), [
      403,
      "forbidden",
    ]);
  }
  strictEqual((await world.call(world.as(bo), "DELETE", `/v1/users/${lea.id}`)).status, 204);
});

Deno.test("a user that is changed while being deleted stays: conflict", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  world.changeMeanwhile(async () => {
    const found = await world.users.read(mia.id);
    ok(found && await world.users.replace(found, { ...mia, roles: ["admin"] }));
  });
  deepStrictEqual(refusalOf(await world.call(lead(world), "DELETE", `/v1/users/${mia.id}`)), [
    409,
    "conflict",
  ]);
  ok(await world.users.read(mia.id));
});

Deno.test("whoever looks after a user sees and ends the user's sessions, and lets the user try again", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  for (let count = 0; count < 2; count++) {
    await world.sessions.open({ userId: mia.id, network: "192.0.2.1", boundTo: null });
  }
  const seen = await world.call(lead(world), "GET", `/v1/users/${mia.id}/sessions`);
  deepStrictEqual([seen.status, seen.body.data.length, typesOf(seen)], [200, 2, ["request.allowed"]]);
  const ended = await world.call(lead(world), "DELETE", `/v1/users/${mia.id}/sessions`);
  deepStrictEqual([ended.body, typesOf(ended), await world.sessions.list(mia.id)], [
    { ended: 2 },
    ["object.changed"],
    [],
  ]);

  const attempt = { username: "mia", password: "wrong", network: "192.0.2.1" };
  for (let count = 0; count < 4; count++) await world.signIn(attempt);
  const unlock = await world.call(lead(world), "POST", `/v1/users/${mia.id}/unlock`);
  deepStrictEqual([unlock.status, unlock.body], [200, { unlocked: true }]);
  strictEqual((await world.signIn(attempt)).ok, false);
  const auditor = world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["auditor"] });
  strictEqual((await world.call(auditor, "GET", `/v1/users/${mia.id}/sessions`)).status, 200);
  deepStrictEqual(refusalOf(await world.call(auditor, "DELETE", `/v1/users/${mia.id}/sessions`)), [
    403,
    "forbidden",
  ]);
});

Deno.test("the failures of somebody with more rights are not forgotten by who has less", async () => {
  const world = await openWorld();
  const bo = await world.user("bo", ["admin"]);
  deepStrictEqual(refusalOf(await world.call(lead(world), "POST", `/v1/users/${bo.id}/unlock`)), [
    403,
    "forbidden",
  ]);
});

Deno.test("no user is made, seen or deleted without a record", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  world.trail.setFailing(true);
  const unavailable = [503, "unavailable"];
  for (
    const [method, path] of [
      ["GET", ""],
      ["GET", `/${mia.id}`],
      ["DELETE", `/${mia.id}`],
      [
        "GET",
        `/${mia.id}/sessions`,
      ],
      ["DELETE", `/${mia.id}/sessions`],
      ["POST", `/${mia.id}/unlock`],
    ] as const
  ) {
    deepStrictEqual(refusalOf(await world.call(admin(world), method, `/v1/users${path}`)), unavailable);
  }
  deepStrictEqual(refusalOf(await create(world, admin(world), { username: "max" })), unavailable);
  deepStrictEqual((await world.users.list({ limit: 10 })).map(({ id }) => id), [mia.id]);
});

Deno.test("nobody ends the sessions of somebody with more rights; one's own end whatever one may do", async () => {
  const world = await openWorld();
  const bo = await world.user("bo", ["admin"]);
  await world.sessions.open({ userId: bo.id, network: "192.0.2.1", boundTo: null });
  const called = await world.call(lead(world), "DELETE", `/v1/users/${bo.id}/sessions`);
  deepStrictEqual([refusalOf(called), called.events], [[403, "forbidden"], []]);
  strictEqual((await world.sessions.list(bo.id)).length, 1);
  // A credential that is narrowed to it does less than its owner, and still ends the owner's sessions.
  const narrowed = world.as(bo, { scope: ["user:read/own", "session:read/own", "session:end/own"] });
  deepStrictEqual((await world.call(narrowed, "DELETE", `/v1/users/${bo.id}/sessions`)).body, { ended: 1 });
});

Deno.test("nobody forgets the failures of oneself: the limit of guesses would be none", async () => {
  const world = await openWorld();
  const lea = await world.user("lea", ["team-admin", "user"]);
  const called = await world.call(world.as(lea), "POST", `/v1/users/${lea.id}/unlock`);
  deepStrictEqual([...refusalOf(called), called.detail, called.events], [
    409,
    "conflict",
    "Somebody else has to do that.",
    [],
  ]);
});

Deno.test("of two admins who delete each other at the same moment, one is left", async () => {
  const world = await openWorld();
  const [ann, bo] = [await world.user("ann", ["admin"]), await world.user("bo", ["admin"])];
  world.changeMeanwhile(async () => {
    strictEqual((await world.call(world.as(bo), "DELETE", `/v1/users/${ann.id}`)).status, 204);
  });
  const called = await world.call(world.as(ann), "DELETE", `/v1/users/${bo.id}`);
  deepStrictEqual(refusalOf(called), [409, "conflict"]);
  deepStrictEqual((await world.users.list({ limit: 10 })).map(({ id }) => id), [bo.id]);
});

Deno.test("a user who is no more what the gate saw deletes nobody: conflict, before it is recorded", async () => {
  const world = await openWorld();
  const [ann, bo, mia] = [
    await world.user("ann", ["admin"]),
    await world.user("bo", ["admin"]),
    await world.user("mia", ["user"]),
  ];
  const refused = async (): Promise<void> => {
    const called = await world.call(world.as(ann), "DELETE", `/v1/users/${mia.id}`);
    deepStrictEqual([...refusalOf(called), called.detail, called.events], [
      409,
      "conflict",
      "Your own account was changed meanwhile. Try again.",
      [],
    ]);
  };
  for (const body of [{ roles: ["admin", "user"] }, { roles: ["admin"], disabled: true }, { team: "blue" }]) {
    strictEqual((await world.call(world.as(bo), "PATCH", `/v1/users/${ann.id}`, body)).status, 200);
    await refused();
  }
  strictEqual((await world.call(world.as(bo), "DELETE", `/v1/users/${ann.id}`)).status, 204);
  await refused();
  ok(await world.users.read(mia.id));
});
