// PATCH /v1/users/{id}: what can be changed, by whom, and what a change ends.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
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

const admin = (world: World) => world.as({ id: `usr_${NOBODY}`, team: "default", roles: ["admin"] });
const lead = (world: World, team = "red") =>
  world.as({ id: `usr_${NOBODY}`, team, roles: ["team-admin", "user"] });
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
