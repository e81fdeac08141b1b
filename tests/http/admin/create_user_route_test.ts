// POST /v1/users: new users, with no more rights than whoever makes them.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import { NOBODY, openWorld, OTHER_PASSWORD, refusalOf, typesOf, type World } from "./handler_under_test.ts";

type Caller = ReturnType<World["as"]>;

const admin = (world: World) => world.as({ id: `usr_${NOBODY}`, team: "default", roles: ["admin"] });
const lead = (world: World, team = "red") =>
  world.as({ id: `usr_${NOBODY}`, team, roles: ["team-admin", "user"] });
const create = (world: World, caller: Caller, body: Record<string, JsonValue> = {}) =>
  world.call(caller, "POST", "/v1/users", {
    username: "mia",
    password: OTHER_PASSWORD,
    roles: ["user"],
    ...body,
  });

Deno.test("a user is made in the caller's team, signs in, and nothing of the password or the name is in the trail", async () => {
  const world = await openWorld();
  const called = await create(world, lead(world));
  const { id, ...rest } = called.body;
  match(id, /^usr_/);
  deepStrictEqual([called.status, rest], [201, {
    username: "mia",
    team: "red",
    roles: ["user"],
    disabled: false,
    created_at: Math.floor(world.clock.now() / 1000),
  }]);
  ok((await world.signIn({ username: "mia", password: OTHER_PASSWORD, network: "192.0.2.1" })).ok);
  deepStrictEqual(typesOf(called), ["object.changed", "request.allowed"]);
  const [changed, allowed] = called.events;
  deepStrictEqual(changed?.type === "object.changed" && [changed.action, changed.before, changed.after], [
    "user:write",
    null,
    { account: world.labelAccount("mia"), team: "red", roles: ["user"], disabled: false },
  ]);
  deepStrictEqual(allowed?.type === "request.allowed" && allowed.object, `user/${id}`);
  ok(!/mia|grey cat|argon2/.test(JSON.stringify(called.events)));
});

Deno.test("an admin makes users in every team that there is", async () => {
  const world = await openWorld();
  strictEqual((await create(world, admin(world), { team: "blue" })).body.team, "blue");
  deepStrictEqual(refusalOf(await create(world, admin(world), { username: "max", team: "green" })), [
    422,
    "fields_invalid",
    "/team",
  ]);
});

Deno.test("each field of a user has its rules, and there is no other field", async () => {
  const world = await openWorld();
  for (
    const [body, field] of [
      [{ username: "" }, "/username"],
      [{ username: "a b" }, "/username"],
      [{ username: "x".repeat(129) }, "/username"],
      [{ username: "e\u0301" }, "/username"],
      [{ username: 7 }, "/username"],
      [{ password: "short" }, "/password"],
      [{ password: "password1234" }, "/password"],
      [{ username: "mia-the-reader", password: "mia-the-reader" }, "/password"],
      [{ roles: "user" }, "/roles"],
      [{ roles: ["user", "user"] }, "/roles"],
      [{ roles: ["user", "emperor"] }, "/roles/1"],
      [{ roles: ["constructor"] }, "/roles/0"],
      [{ roles: Array.from({ length: 17 }, (_, index) => `role-${index}`) }, "/roles"],
      [{ team: "Red" }, "/team"],
      [{ id: `usr_${NOBODY}` }, "/id"],
      [{ disabled: false }, "/disabled"],
      [{ passwordHash: "$argon2id$" }, "/passwordHash"],
    ] as const
  ) {
    const called = await create(world, admin(world), body as Record<string, JsonValue>);
    deepStrictEqual(refusalOf(called), [422, "fields_invalid", field]);
    deepStrictEqual(called.events, [], "nothing was intended");
  }
  ok(await world.users.isEmpty());
});

Deno.test("a name that is taken is a conflict, in whatever team", async () => {
  const world = await openWorld();
  await world.user("mia", ["user"], "blue");
  const called = await create(world, lead(world));
  deepStrictEqual([...refusalOf(called), called.detail], [409, "conflict", "The user name is taken."]);
});

Deno.test("nobody gives a role that gives more than they have: not to a new user either", async () => {
  const world = await openWorld();
  const refused = [403, "forbidden"];
  for (const role of ["admin", "operator", "auditor"]) {
    const called = await create(world, lead(world), { roles: ["user", role] });
    deepStrictEqual([...refusalOf(called), called.detail], [
      ...refused,
      "You cannot give what you do not have.",
    ], role);
  }
  const onlyLead = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["team-admin"] });
  deepStrictEqual(refusalOf(await create(world, onlyLead, { roles: ["user"] })), refused);
  strictEqual((await create(world, onlyLead, { roles: ["team-admin"] })).status, 201);
  const narrowed = world.as({ id: `usr_${NOBODY}`, team: "default", roles: ["admin"] }, {
    scope: ["user:write", "user:read"],
  });
  deepStrictEqual(refusalOf(await create(world, narrowed, { username: "max" })), refused);
  strictEqual((await create(world, narrowed, { username: "max", roles: [] })).status, 201);
});

Deno.test("a role that reaches the team is given in another team only by who reaches all of them", async () => {
  const world = await openWorld();
  const people = { name: "people", team: null, description: "", builtIn: false, createdAtMs: 0 };
  const { grants } = world.as({ id: "", team: "red", roles: ["team-admin"] });
  const everywhere = grants.filter(({ action }) => action.startsWith("user:")).map((grant) => ({
    ...grant,
    on: "*",
  }));
  await world.roleBook.put({ ...people, grants: everywhere }, undefined);
  // Looks after users everywhere, and after clients in its own team alone.
  const caller = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["people", "team-admin"] });
  strictEqual((await create(world, caller, { roles: ["team-admin"] })).status, 201);
  deepStrictEqual(
    refusalOf(await create(world, caller, { username: "max", team: "blue", roles: ["team-admin"] })),
    [403, "forbidden"],
  );
  strictEqual(
    (await create(world, caller, { username: "max", team: "blue", roles: ["people"] })).status,
    201,
  );
});

Deno.test("whoever looks after one team makes nobody in another: it is not there for them", async () => {
  const world = await openWorld();
  for (const team of ["blue", "green"]) {
    deepStrictEqual(refusalOf(await create(world, lead(world), { team })), [404, "not_found"]);
  }
  const user = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] });
  deepStrictEqual(refusalOf(await create(world, user)), [403, "forbidden"]);
});
