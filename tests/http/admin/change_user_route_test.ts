// PATCH /v1/users/{id}: what can be changed, by whom, and what a change ends.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import { Fault } from "../../../src/faults/fault.ts";
import type { User } from "../../../src/identity/users.ts";
import {
  NOBODY,
  openWorld,
  OTHER_PASSWORD,
  PASSWORD,
  refusalOf,
  typesOf,
  type World,
} from "./handler_under_test.ts";

type Caller = ReturnType<World["as"]>;

// Programs: behind a user there would have to be an account, which every change asks after.
const admin = (world: World) => world.as({ id: `cli_${NOBODY}`, team: "default", roles: ["admin"] });
const lead = (world: World, team = "red") =>
  world.as({ id: `cli_${NOBODY}`, team, roles: ["team-admin", "user"] });
const change = (world: World, caller: Caller, { id }: User, body: JsonValue) =>
  world.call(caller, "PATCH", `/v1/users/${id}`, body);
const signIn = async (world: World, username: string, password: string): Promise<boolean> =>
  (await world.signIn({ username, password, network: "198.51.100.1" })).ok;
const FORBIDDEN = [403, "forbidden"];

/** What becomes of a session that is open at the change. */
async function sessionAfter(world: World, user: User, body: JsonValue): Promise<"ended" | "goes on"> {
  const { session } = await world.sessions.open({ userId: user.id, network: "192.0.2.1", boundTo: null });
  strictEqual((await change(world, admin(world), user, body)).status, 200);
  return await world.sessions.read(session.id) === undefined ? "ended" : "goes on";
}

Deno.test("what the body names is changed and all else stays; the record has both, without names and secrets", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  const called = await change(world, admin(world), mia, {
    roles: ["user", "team-admin"],
    password: OTHER_PASSWORD,
  });
  deepStrictEqual([called.status, called.body], [200, {
    id: mia.id,
    username: "mia",
    team: "red",
    roles: ["user", "team-admin"],
    disabled: false,
    created_at: Math.floor(mia.createdAtMs / 1000),
  }]);
  const account = world.labelAccount("mia");
  deepStrictEqual(
    called.events.map((event) =>
      event.type === "object.changed" && [event.action, event.object, event.before, event.after]
    ),
    [[
      "user:write",
      `user/${mia.id}`,
      { account, team: "red", roles: ["user"], disabled: false },
      { account, team: "red", roles: ["user", "team-admin"], disabled: false, password: "changed" },
    ]],
  );
  deepStrictEqual([await signIn(world, "mia", OTHER_PASSWORD), await signIn(world, "mia", PASSWORD)], [
    true,
    false,
  ]);
});

Deno.test("the gate knows of a change from the next request on", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  await world.standings.load(mia.id);
  await change(world, admin(world), mia, { roles: [], disabled: true });
  strictEqual(world.standings.known(mia.id), undefined);
  deepStrictEqual(await world.standings.load(mia.id), {
    kind: "user",
    team: "red",
    roles: [],
    active: false,
  });
});

Deno.test("a disabled user, a new password and another team end all sessions; other roles do not", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  strictEqual(await sessionAfter(world, mia, { roles: ["user", "team-admin"] }), "goes on");
  strictEqual(await sessionAfter(world, mia, { password: OTHER_PASSWORD }), "ended");
  strictEqual(await sessionAfter(world, mia, { team: "blue" }), "ended");
  strictEqual(await sessionAfter(world, mia, { disabled: true }), "ended");
  strictEqual(await signIn(world, "mia", OTHER_PASSWORD), false);
  strictEqual((await change(world, admin(world), mia, { disabled: false })).status, 200);
  strictEqual(await signIn(world, "mia", OTHER_PASSWORD), true);
});

Deno.test("a body that changes nothing, or something that nobody changes, is refused", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  for (
    const [body, field] of [
      [{}, ""],
      [{ id: `usr_${NOBODY}`, disabled: true }, "/id"],
      [{ username: "max", disabled: true }, "/username"],
      [{ passwordHash: "x", disabled: true }, "/passwordHash"],
      [{ created_at: 0, disabled: true }, "/created_at"],
      [{ disabled: "true" }, "/disabled"],
      [{ disabled: null }, "/disabled"],
      [{ roles: { 0: "admin" } }, "/roles"],
      [{ roles: ["emperor"] }, "/roles/0"],
      [{ team: "green" }, "/team"],
      [{ password: "short" }, "/password"],
      [{ password: "password1234" }, "/password"],
    ] as const
  ) {
    const called = await change(world, admin(world), mia, body as unknown as JsonValue);
    deepStrictEqual(refusalOf(called), [422, "fields_invalid", field]);
    deepStrictEqual(called.events, []);
  }
  deepStrictEqual((await world.users.read(mia.id))?.value, mia);
});

Deno.test("whoever looks after a team changes its users and no others", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  const callers = {
    mate: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] }),
    lead: lead(world),
    otherLead: lead(world, "blue"),
    auditor: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["auditor"] }),
    admin: admin(world),
  };
  const statuses: Record<string, number> = {};
  for (const [name, caller] of Object.entries(callers)) {
    statuses[name] = (await change(world, caller, mia, { disabled: false })).status;
  }
  deepStrictEqual(statuses, { mate: 403, lead: 200, otherLead: 404, auditor: 403, admin: 200 });
});

Deno.test("nobody changes oneself here: not the roles, not the team, not whether one is disabled, not the password", async () => {
  const world = await openWorld();
  const bo = await world.user("bo", ["admin"]);
  for (
    const body of [{ roles: ["admin"] }, { roles: [] }, { team: "blue" }, { disabled: true }, {
      password: OTHER_PASSWORD,
    }]
  ) {
    const called = await change(world, world.as(bo), bo, body);
    deepStrictEqual([...refusalOf(called), called.detail], [
      409,
      "conflict",
      "Somebody else has to do that.",
    ]);
  }
  deepStrictEqual((await world.users.read(bo.id))?.value, bo);
});

Deno.test("nobody gives a role with more rights than their own", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  for (const role of ["admin", "operator", "auditor"]) {
    const called = await change(world, lead(world), mia, { roles: ["user", role] });
    deepStrictEqual([refusalOf(called), called.events], [FORBIDDEN, []], role);
  }
  strictEqual((await change(world, lead(world), mia, { roles: ["user", "team-admin"] })).status, 200);
});

Deno.test("nobody changes a user who has more rights: no new password, no demotion, no disabling", async () => {
  const world = await openWorld();
  const [bo, ann] = [await world.user("bo", ["admin"]), await world.user("ann", ["user", "auditor"])];
  for (const user of [bo, ann]) {
    for (const body of [{ password: OTHER_PASSWORD }, { roles: ["user"] }, { disabled: true }]) {
      const called = await change(world, lead(world), user, body);
      deepStrictEqual([refusalOf(called), called.events], [FORBIDDEN, []]);
    }
    ok(await signIn(world, user.username, PASSWORD));
  }
  // A token of the admin that is narrowed to users is no admin's.
  const narrowed = world.as({ id: `usr_${NOBODY}`, team: "default", roles: ["admin"] }, {
    scope: ["user:read", "user:write"],
  });
  deepStrictEqual(refusalOf(await change(world, narrowed, bo, { password: OTHER_PASSWORD })), FORBIDDEN);
});

Deno.test("into another team moves a user only who may write both, and with roles that there are there", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  deepStrictEqual(refusalOf(await change(world, lead(world), mia, { team: "blue" })), [404, "not_found"]);
  const helper = { name: "helper", description: "", builtIn: false, createdAtMs: 0 };
  const [read] = world.as({ id: "", team: "red", roles: ["team-admin"] }).grants;
  ok(read);
  await world.roleBook.put({ ...helper, team: "red", grants: [read] }, undefined);
  strictEqual((await change(world, admin(world), mia, { roles: ["helper"] })).status, 200);
  deepStrictEqual(refusalOf(await change(world, admin(world), mia, { team: "blue" })), [
    422,
    "fields_invalid",
    "/roles/0",
  ]);
  const moved = await change(world, admin(world), mia, { team: "blue", roles: ["user"] });
  deepStrictEqual([moved.body.team, moved.body.roles], ["blue", ["user"]]);
  deepStrictEqual(refusalOf(await change(world, lead(world), mia, { disabled: true })), [404, "not_found"]);
});

Deno.test("a role of one team is no role in another, whatever its name", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  const [read] = world.as({ id: "", team: "red", roles: ["team-admin"] }).grants;
  ok(read);
  await world.roleBook.put({
    name: "helper",
    team: "blue",
    description: "",
    builtIn: false,
    createdAtMs: 0,
    grants: [read],
  }, undefined);
  deepStrictEqual(refusalOf(await change(world, lead(world), mia, { roles: ["helper"] })), [
    422,
    "fields_invalid",
    "/roles/0",
  ]);
});

Deno.test("a user that was changed meanwhile is not changed: conflict, and no session ends", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  const { session } = await world.sessions.open({ userId: mia.id, network: "192.0.2.1", boundTo: null });
  world.changeMeanwhile(async () => {
    const found = await world.users.read(mia.id);
    ok(found && await world.users.replace(found, { ...mia, roles: ["admin"] }));
  });
  const called = await change(world, lead(world), mia, { password: OTHER_PASSWORD });
  deepStrictEqual([...refusalOf(called), called.detail], [
    409,
    "conflict",
    "It was changed meanwhile. Read it again.",
  ]);
  deepStrictEqual(typesOf(called), ["object.changed"]);
  deepStrictEqual((await world.users.read(mia.id))?.value.roles, ["admin"]);
  ok(await world.sessions.read(session.id));
  ok(await signIn(world, "mia", PASSWORD));
});

Deno.test("without a record nothing is changed", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  world.trail.setFailing(true);
  deepStrictEqual(refusalOf(await change(world, admin(world), mia, { disabled: true })), [
    503,
    "unavailable",
  ]);
  deepStrictEqual((await world.users.read(mia.id))?.value, mia);
});

Deno.test("of two admins who demote each other at the same moment, one stays an admin", async () => {
  const world = await openWorld();
  const [ann, bo] = [await world.user("ann", ["admin"]), await world.user("bo", ["admin"])];
  const body = { roles: ["user"] };
  world.changeMeanwhile(async () => {
    strictEqual((await change(world, world.as(bo), ann, body)).status, 200);
  });
  deepStrictEqual(refusalOf(await change(world, world.as(ann), bo, body)), [409, "conflict"]);
  deepStrictEqual((await world.users.read(bo.id))?.value, bo);
  // Whoever is none any more is told so before anything is recorded.
  const late = await change(world, world.as(ann), bo, body);
  deepStrictEqual([refusalOf(late), late.events], [[409, "conflict"], []]);
});

Deno.test("what a failure left of the sessions ends with the next try, also where nothing else is to be changed", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  for (const body of [{ team: "blue" }, { disabled: true }, { password: OTHER_PASSWORD }]) {
    strictEqual((await change(world, admin(world), mia, body)).status, 200);
    strictEqual(await sessionAfter(world, mia, body), "ended", Object.keys(body).join());
  }
  strictEqual(await sessionAfter(world, mia, { disabled: false }), "goes on");
  strictEqual(await sessionAfter(world, mia, { roles: ["user"] }), "goes on");
});

/** Two keys of a user: one that a lead made and so has seen, and the user's own. */
async function openKeysOf(world: World, user: User) {
  const seen = await world.call(lead(world, user.team), "POST", "/v1/keys", {
    name: "seen",
    owner: user.id,
    scopes: ["user:read/own"],
  });
  const own = await world.call(world.as(user), "POST", "/v1/keys", {
    name: "own",
    scopes: ["user:read/own"],
  });
  deepStrictEqual([seen.status, own.status], [201, 201]);
  return async (): Promise<readonly boolean[]> => {
    const work = [
      (await world.apiKeys.verify(seen.body.key)).ok,
      (await world.apiKeys.verify(own.body.key)).ok,
    ];
    // Their uses are written in the background, which is not to outlive the test.
    await world.apiKeys.flush();
    return work;
  };
}

const keysInRecord = ({ events: [event] }: Awaited<ReturnType<typeof change>>): unknown =>
  event?.type === "object.changed" ? (event.after as { keys?: string } | null)?.keys : event;

Deno.test("another team, and roles that give more, end the keys that others have seen: these grow with nobody else", async () => {
  for (const body of [{ team: "blue" }, { roles: ["user", "auditor"] }, { roles: ["admin"] }]) {
    const world = await openWorld();
    const mia = await world.user("mia", ["user"]);
    const work = await openKeysOf(world, mia);
    deepStrictEqual(await work(), [true, true]);
    const called = await change(world, admin(world), mia, body);
    deepStrictEqual([called.status, keysInRecord(called)], [200, "ended"]);
    deepStrictEqual(await work(), [false, true], JSON.stringify(body));
  }
});

Deno.test("roles that give nothing new, a new password and a disabled user end no keys", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user", "auditor"]);
  const { body: key } = await world.call(admin(world), "POST", "/v1/keys", { name: "seen", owner: mia.id });
  for (
    const body of [
      { roles: ["auditor", "user"] },
      { team: "red" },
      { roles: ["user"] },
      { password: OTHER_PASSWORD },
      { disabled: true },
      { disabled: false, roles: [] },
    ]
  ) {
    const called = await change(world, admin(world), mia, body);
    deepStrictEqual([called.status, keysInRecord(called)], [200, undefined], JSON.stringify(body));
    ok(await world.apiKeys.read(key.id));
  }
});

Deno.test("the record of a change says that keys end only where there are any that others have seen", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  strictEqual((await world.call(world.as(mia), "POST", "/v1/keys", { name: "own" })).status, 201);
  strictEqual(keysInRecord(await change(world, admin(world), mia, { team: "blue" })), undefined);
});

Deno.test("a key that somebody else makes just before its owner's roles are changed ends with the others", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  let key = "";
  world.changeMeanwhile(async () => {
    const called = await world.call(lead(world), "POST", "/v1/keys", { name: "seen", owner: mia.id });
    strictEqual(called.status, 201);
    key = called.body.key;
  });
  strictEqual((await change(world, admin(world), mia, { roles: ["admin"] })).status, 200);
  deepStrictEqual(await world.apiKeys.verify(key), { ok: false, reason: "key_unknown" });
});

Deno.test("a key that somebody else makes while its owner's roles are changed is none", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  world.changeMeanwhile(async () => {
    strictEqual((await change(world, admin(world), mia, { roles: ["admin"] })).status, 200);
  });
  const called = await world.call(lead(world), "POST", "/v1/keys", { name: "seen", owner: mia.id });
  deepStrictEqual(refusalOf(called), [409, "conflict"]);
  deepStrictEqual(await world.apiKeys.list({ ownerId: mia.id, limit: 10 }), []);
});

Deno.test("a change that cannot end the keys which others have seen is not made", async () => {
  const world = await openWorld();
  const mia = await world.user("mia", ["user"]);
  const work = await openKeysOf(world, mia);
  const { write } = world.store;
  world.store.write = (changes) =>
    changes.some(({ table }) => table === "api_keys")
      ? Promise.reject(new Fault("unavailable", "the disk is gone"))
      : write(changes);
  deepStrictEqual(refusalOf(await change(world, admin(world), mia, { roles: ["admin"] })), [
    503,
    "unavailable",
  ]);
  deepStrictEqual([(await world.users.read(mia.id))?.value.roles, await work()], [["user"], [true, true]]);
});
