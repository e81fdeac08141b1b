// PUT /v1/roles/{team}/{name}: custom roles, and none that gives more than its writer has.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { formatGrant, grantsIn } from "../../../src/access/grant.ts";
import { OWN_GRANTS } from "../../../src/access/role.ts";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import { NOBODY, openWorld, refusalOf, type World } from "./handler_under_test.ts";

type Caller = ReturnType<World["as"]>;
const FORBIDDEN = [403, "forbidden"];

const admin = (world: World) => world.as({ id: `usr_${NOBODY}`, team: "default", roles: ["admin"] });
const lead = (world: World, team = "red") =>
  world.as({ id: `usr_${NOBODY}`, team, roles: ["team-admin", "user"] });
const put = (world: World, caller: Caller, place: string, grants: JsonValue, description?: string) =>
  world.call(caller, "PUT", `/v1/roles/${place}`, {
    grants,
    ...(description === undefined ? {} : { description }),
  });
const book = (world: World, team: string | null, name: string, grants: readonly string[]) =>
  world.roleBook.put({
    team,
    name,
    description: "",
    builtIn: false,
    createdAtMs: world.clock.now(),
    grants: grantsIn(grants),
  }, world.roleBook.find(team, name));

Deno.test("a custom role is made, gives what it says from then on, and is replaced by another PUT", async () => {
  const world = await openWorld();
  const made = await put(world, lead(world), "red/helper", ["user:read/team"], "Looks people up.");
  const created_at = Math.floor(world.clock.now() / 1000);
  const helper = {
    team: "red",
    name: "helper",
    description: "Looks people up.",
    grants: ["user:read/team"],
    built_in: false,
    created_at,
  };
  deepStrictEqual([made.status, made.body], [201, helper]);
  // Besides what everybody may do with what is their own.
  const given = world.roleBook.grantsOf("red", ["helper"]).filter((grant) => !OWN_GRANTS.includes(grant));
  deepStrictEqual(given.map(formatGrant), ["user:read/team"]);
  deepStrictEqual(world.roleBook.grantsOf("blue", ["helper"]), []);
  world.clock.advance(10_000);
  const replaced = await put(world, lead(world), "red/helper", ["client:read/team", "key:read/own"]);
  deepStrictEqual([replaced.status, replaced.body], [200, {
    ...helper,
    description: "",
    grants: ["client:read/team", "key:read/own"],
  }]);
  deepStrictEqual(
    [...made.events, ...replaced.events].map((event) =>
      event.type === "object.changed" && [event.action, event.object, event.before, event.after]
    ),
    [
      ["role:write", "role/red/helper", null, {
        description: "Looks people up.",
        grants: ["user:read/team"],
      }],
      [
        "role:write",
        "role/red/helper",
        { description: "Looks people up.", grants: ["user:read/team"] },
        { description: "", grants: ["client:read/team", "key:read/own"] },
      ],
    ],
  );
});

Deno.test("nobody writes a role with more than they have", async () => {
  const world = await openWorld();
  for (
    const grants of [["password:write/team"], ["user:read/team", "model:infer"], ["model:read/use-*"]]
  ) {
    const called = await put(world, lead(world), "red/helper", grants);
    deepStrictEqual([...refusalOf(called), called.detail, called.events], [
      ...FORBIDDEN,
      "You cannot give what you do not have.",
      [],
    ], grants.join());
  }
  // The card of a model may open it to admins alone: a role past the cards is an admin's to write.
  strictEqual((await put(world, admin(world), "red/embedder", ["model:infer/use-*"])).status, 201);
  const narrowed = world.as({ id: `usr_${NOBODY}`, team: "default", roles: ["admin"] }, {
    scope: ["role:read", "role:write"],
  });
  deepStrictEqual(refusalOf(await put(world, narrowed, "red/helper", ["user:read/own"])), FORBIDDEN);
});

Deno.test("a team's role reaches the team at most, whoever writes it", async () => {
  const world = await openWorld();
  for (
    const grants of [["user:read"], ["user:read/*"], ["user:read/team", "signing_key:rotate"], [
      "upstream:read",
    ]]
  ) {
    const called = await put(world, admin(world), "red/helper", grants);
    deepStrictEqual(refusalOf(called), [422, "fields_invalid", `/grants/${grants.length - 1}`]);
  }
  strictEqual((await put(world, admin(world), "-/helper", ["user:read", "upstream:read"])).status, 201);
});

Deno.test("a role of the whole server is written by who reaches all teams: a team's admin neither makes nor deletes one", async () => {
  const world = await openWorld();
  strictEqual((await put(world, admin(world), "-/helper", ["user:read/team"])).status, 201);
  strictEqual(world.roleBook.find("blue", "helper")?.team, null);
  for (
    const called of [
      await put(world, lead(world), "-/other", ["user:read/team"]),
      await put(world, lead(world), "-/helper", ["user:read/team"]),
      await world.call(lead(world), "DELETE", "/v1/roles/-/helper"),
    ]
  ) deepStrictEqual([refusalOf(called), called.events], [[404, "not_found"], []]);
});

Deno.test("the grants that reach a team are given to all teams only by who has them everywhere", async () => {
  const world = await openWorld();
  await book(world, null, "roles", ["role:read", "role:write", "user:read"]);
  const caller = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["roles", "team-admin"] });
  deepStrictEqual(refusalOf(await put(world, caller, "-/helper", ["client:write/team"])), FORBIDDEN);
  deepStrictEqual(refusalOf(await put(world, caller, "blue/helper", ["client:write/team"])), FORBIDDEN);
  strictEqual((await put(world, caller, "red/helper", ["client:write/team"])).status, 201);
  strictEqual((await put(world, caller, "-/reader", ["user:read/team"])).status, 201);
});

Deno.test("no custom role takes the name of a built-in one, or one that means something elsewhere", async () => {
  const world = await openWorld();
  for (const place of ["red/admin", "-/admin", "red/team-admin", "-/user"]) {
    const called = await put(world, admin(world), place, ["user:read/own"]);
    deepStrictEqual([...refusalOf(called), called.events], [409, "conflict", []], place);
  }
  await book(world, null, "helper", ["user:read/own"]);
  await book(world, "blue", "reader", ["user:read/own"]);
  for (const place of ["red/helper", "-/reader"]) {
    deepStrictEqual(refusalOf(await put(world, admin(world), place, ["user:read/own"])), [409, "conflict"]);
  }
  strictEqual((await put(world, admin(world), "red/reader", ["user:read/own"])).status, 201);
});

Deno.test("each field of a role has its rules, and a path that names none is not found", async () => {
  const world = await openWorld();
  for (
    const [body, field] of [
      [{}, "/grants"],
      [{ grants: [] }, "/grants"],
      [{ grants: ["user:fly/team"] }, "/grants/0"],
      [{ grants: ["user:read/own", "user:read/own"] }, "/grants"],
      [{ grants: ["user:read/own"], description: "two\nlines" }, "/description"],
      [{ grants: ["user:read/own"], team: null }, "/team"],
      [{ grants: ["user:read/own"], builtIn: true }, "/builtIn"],
      [{ grants: ["user:read/own"], name: "x" }, "/name"],
    ] as const
  ) {
    const called = await world.call(
      admin(world),
      "PUT",
      "/v1/roles/red/helper",
      body as unknown as JsonValue,
    );
    deepStrictEqual(refusalOf(called), [422, "fields_invalid", field]);
  }
  for (const place of ["red/Helper", "red/-", "Red/helper", "green/helper", "*/helper", "red/%00"]) {
    deepStrictEqual(refusalOf(await put(world, admin(world), place, ["user:read/own"])), [404, "not_found"]);
  }
});

Deno.test("no role is made under a name that somebody there bears already: they would have it at once", async () => {
  const world = await openWorld();
  // As after a role that was deleted while somebody was given it.
  await world.user("mia", ["user", "ghost"]);
  await world.clients.create({
    name: "batch",
    team: "blue",
    roles: ["shade"],
    authentication: "secret",
    keys: [],
  });
  for (const place of ["red/ghost", "-/ghost", "blue/shade", "-/shade"]) {
    const called = await put(world, admin(world), place, ["user:read/own"]);
    deepStrictEqual([...refusalOf(called), called.detail, called.events], [
      409,
      "conflict",
      "Users or clients have a role of that name. Take it from them first.",
      [],
    ], place);
  }
  for (const place of ["blue/ghost", "red/shade"]) {
    strictEqual((await put(world, admin(world), place, ["user:read/own"])).status, 201, place);
  }
  // Whoever may not write it at all is not told.
  deepStrictEqual(refusalOf(await put(world, lead(world), "red/ghost", ["model:read/use-*"])), FORBIDDEN);
});

Deno.test("a role that somebody has can be replaced", async () => {
  const world = await openWorld();
  await book(world, "red", "helper", ["user:read/team"]);
  await world.user("mia", ["helper"]);
  strictEqual((await put(world, lead(world), "red/helper", ["user:read/own"])).status, 200);
});

Deno.test("a role does not outlive its team: where the team is deleted meanwhile, there is none", async () => {
  const world = await openWorld();
  world.changeMeanwhile(async () => {
    strictEqual((await world.call(admin(world), "DELETE", "/v1/teams/red")).status, 204);
  });
  deepStrictEqual(refusalOf(await put(world, admin(world), "red/helper", ["user:read/own"])), [
    409,
    "conflict",
  ]);
  strictEqual(world.roleBook.find("red", "helper"), undefined);
});

Deno.test("a team that is given a role while it is being deleted stays", async () => {
  const world = await openWorld();
  world.changeMeanwhile(async () => {
    strictEqual((await put(world, admin(world), "red/helper", ["user:read/own"])).status, 201);
  });
  deepStrictEqual(refusalOf(await world.call(admin(world), "DELETE", "/v1/teams/red")), [409, "conflict"]);
});
