// Roles over HTTP: built-in ones to be seen, custom ones of a team or of the whole server, and none that gives more than its writer has.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import { grantsIn } from "../../../src/access/grant.ts";
import { NOBODY, openWorld, refusalOf, typesOf, type World } from "./handler_under_test.ts";

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

Deno.test("a role is seen in its team and by who sees all; what is for every team, by everybody who sees roles", async () => {
  const world = await openWorld();
  await book(world, "red", "helper", ["user:read/team"]);
  await book(world, null, "reader", ["user:read/team"]);
  const callers = {
    user: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] }),
    lead: lead(world),
    otherLead: lead(world, "blue"),
    auditor: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["auditor"] }),
  };
  const statuses: Record<string, readonly number[]> = {};
  const lists: Record<string, readonly string[]> = {};
  for (const [name, caller] of Object.entries(callers)) {
    statuses[name] = [];
    for (const place of ["red/helper", "-/reader", "-/admin", "red/admin", "red/reader", "blue/helper"]) {
      statuses[name] = [
        ...statuses[name] ?? [],
        (await world.call(caller, "GET", `/v1/roles/${place}`)).status,
      ];
    }
    const { body } = await world.call(caller, "GET", "/v1/roles?limit=200");
    lists[name] = body?.data.map((role: { team: string | null; name: string }) =>
      `${role.team ?? "-"}/${role.name}`
    ) ?? [];
  }
  deepStrictEqual(statuses, {
    user: [403, 403, 403, 403, 403, 403],
    lead: [200, 200, 200, 404, 404, 404],
    otherLead: [404, 200, 200, 404, 404, 404],
    auditor: [200, 200, 200, 404, 404, 404],
  });
  const all = ["-/admin", "-/auditor", "-/operator", "-/reader", "-/team-admin", "-/user"];
  deepStrictEqual(lists, {
    user: [],
    lead: [...all, "red/helper"],
    otherLead: all,
    auditor: [...all, "red/helper"],
  });
});

Deno.test("the list of roles comes in pages, and a page goes on where a role was deleted", async () => {
  const world = await openWorld();
  await book(world, "red", "helper", ["user:read/team"]);
  const first = await world.call(lead(world), "GET", "/v1/roles?limit=6");
  deepStrictEqual([first.body.data.length, first.body.next], [6, null]);
  const names = async (query: string): Promise<string[]> =>
    (await world.call(lead(world), "GET", `/v1/roles?${query}`)).body.data.map((role: { name: string }) =>
      role.name
    );
  deepStrictEqual(await names("limit=2&after=-/auditor"), ["operator", "team-admin"]);
  deepStrictEqual(await names("after=-/nobody"), ["operator", "team-admin", "user", "helper"]);
});

Deno.test("a deleted role gives nothing any more; built-in ones stay", async () => {
  const world = await openWorld();
  await book(world, "red", "helper", ["user:read/team"]);
  const called = await world.call(lead(world), "DELETE", "/v1/roles/red/helper");
  deepStrictEqual([called.status, typesOf(called)], [204, ["object.changed"]]);
  deepStrictEqual(world.roleBook.grantsOf("red", ["helper"]), []);
  deepStrictEqual(refusalOf(await world.call(lead(world), "DELETE", "/v1/roles/red/helper")), [
    404,
    "not_found",
  ]);
  deepStrictEqual(refusalOf(await world.call(admin(world), "DELETE", "/v1/roles/-/auditor")), [
    409,
    "conflict",
  ]);
  ok(world.roleBook.find("red", "auditor"));
});

Deno.test("nobody replaces or deletes a role that gives more than they have", async () => {
  const world = await openWorld();
  await book(world, "red", "embedder", ["model:infer/use-*"]);
  deepStrictEqual(refusalOf(await put(world, lead(world), "red/embedder", ["user:read/own"])), FORBIDDEN);
  deepStrictEqual(refusalOf(await world.call(lead(world), "DELETE", "/v1/roles/red/embedder")), FORBIDDEN);
  strictEqual(world.roleBook.grantsOf("red", ["embedder"])[0]?.action, "model:infer");
});

Deno.test("a role of another team is not there: not to be read, replaced or deleted", async () => {
  const world = await openWorld();
  await book(world, "red", "helper", ["user:read/team"]);
  for (
    const called of [
      await world.call(lead(world, "blue"), "GET", "/v1/roles/red/helper"),
      await put(world, lead(world, "blue"), "red/helper", ["user:read/team"]),
      await world.call(lead(world, "blue"), "DELETE", "/v1/roles/red/helper"),
    ]
  ) deepStrictEqual([refusalOf(called), called.events], [[404, "not_found"], []]);
});

Deno.test("a role that another writes meanwhile is neither replaced nor deleted: conflict", async () => {
  const world = await openWorld();
  await book(world, "red", "helper", ["user:read/team"]);
  for (
    const call of [
      () => put(world, lead(world), "red/helper", ["client:read/team"]),
      () => world.call(lead(world), "DELETE", "/v1/roles/red/helper"),
    ]
  ) {
    world.changeMeanwhile(async () => {
      const [record] = await world.memory.list("roles", { limit: 1 });
      ok(record);
      // As another instance would: by the store, past this one's memory.
      await world.memory.delete("roles", record.key);
    });
    deepStrictEqual(refusalOf(await call()), [409, "conflict"]);
    await book(world, "red", "helper", ["user:read/team"]);
  }
});

Deno.test("no role is written, read or deleted without a record", async () => {
  const world = await openWorld();
  await book(world, "red", "helper", ["user:read/team"]);
  world.trail.setFailing(true);
  const unavailable = [503, "unavailable"];
  deepStrictEqual(refusalOf(await put(world, admin(world), "red/new", ["user:read/own"])), unavailable);
  deepStrictEqual(refusalOf(await world.call(admin(world), "GET", "/v1/roles")), unavailable);
  deepStrictEqual(refusalOf(await world.call(admin(world), "GET", "/v1/roles/red/helper")), unavailable);
  deepStrictEqual(refusalOf(await world.call(admin(world), "DELETE", "/v1/roles/red/helper")), unavailable);
  ok(world.roleBook.find("red", "helper"));
  strictEqual(world.roleBook.find("red", "new"), undefined);
});

Deno.test("a role that a user or a client of its team has is not deleted, or its name could come back to them as another", async () => {
  const world = await openWorld();
  await book(world, "red", "helper", ["user:read/team"]);
  await book(world, "blue", "helper", ["user:read/own"]);
  const remove = (place: string) => world.call(admin(world), "DELETE", `/v1/roles/${place}`);
  const held = async (place: string): Promise<void> => {
    const called = await remove(place);
    deepStrictEqual([...refusalOf(called), called.detail, called.events], [
      409,
      "conflict",
      "The role is still held by users or clients.",
      [],
    ]);
  };
  const mia = await world.user("mia", ["user", "helper"]);
  await held("red/helper");
  // Whose name it is elsewhere is somebody else.
  strictEqual((await remove("blue/helper")).status, 204);
  const found = await world.users.read(mia.id);
  ok(found && await world.users.remove(found));
  const { client } = await world.clients.create({
    name: "batch",
    team: "red",
    roles: ["helper"],
    authentication: "secret",
    keys: [],
  });
  await held("red/helper");
  const batch = await world.clients.read(client.id);
  ok(batch && await world.clients.remove(batch));
  strictEqual((await remove("red/helper")).status, 204);
  await book(world, null, "reader", ["user:read/team"]);
  await world.user("max", ["reader"], "blue");
  await held("-/reader");
});

Deno.test("of many users and clients the last one's role counts too", async () => {
  const world = await openWorld();
  await book(world, "red", "helper", ["user:read/team"]);
  for (let count = 0; count <= 200; count++) {
    const roles = count === 200 ? ["helper"] : [];
    await world.clients.create({ name: "batch", team: "red", roles, authentication: "secret", keys: [] });
    world.clock.advance(1); // ids sort by the millisecond of their birth
  }
  deepStrictEqual(refusalOf(await world.call(lead(world), "DELETE", "/v1/roles/red/helper")), [
    409,
    "conflict",
  ]);
});
