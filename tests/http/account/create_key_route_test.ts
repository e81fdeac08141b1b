// New API keys over HTTP: their text is told once, and they do no more than who makes and who owns them.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import type { User } from "../../../src/identity/users.ts";
import { NOBODY, openWorld, refusalOf, typesOf, type World } from "../admin/handler_under_test.ts";

const DAY_SECONDS = 86_400;
type Caller = ReturnType<World["as"]>;

const create = (world: World, caller: Caller, body: Record<string, unknown> = {}) =>
  world.call(caller, "POST", "/v1/keys", { name: "ci", ...body } as never);
const kept = async (world: World, { id }: User) => {
  const { key } = await world.apiKeys.create({
    name: "kept",
    ownerId: id,
    scopes: ["model:read"],
    addresses: [],
    boundTo: null,
    expiresAtMs: world.clock.now() + 1000 * DAY_SECONDS,
    seenByOthers: false,
  });
  return key;
};

Deno.test("a key is made with what the body says, its text is told once and works, and the trail has all but the text", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const print = "A".repeat(43);
  const called = await create(world, world.as(user), {
    scopes: ["model:infer/use-*", "key:read/own"],
    expires_in: DAY_SECONDS,
    addresses: ["192.0.2.0/24"],
    dpop_jkt: print,
  });
  const { id, key: text, ...rest } = called.body;
  match(id, /^pck_[0-9a-z]{26}$/);
  const nowSeconds = Math.floor(world.clock.now() / 1000);
  deepStrictEqual([called.status, rest], [201, {
    name: "ci",
    owner: user.id,
    scopes: ["model:infer/use-*", "key:read/own"],
    addresses: ["192.0.2.0/24"],
    dpop_jkt: print,
    created_at: nowSeconds,
    expires_at: nowSeconds + DAY_SECONDS,
    last_used_at: null,
    rotated_at: null,
    previous_until: null,
  }]);
  const verified = await world.apiKeys.verify(text);
  deepStrictEqual(verified.ok && [verified.value.ownerId, verified.value.boundTo], [user.id, print]);
  const [changed, allowed] = called.events;
  deepStrictEqual(typesOf(called), ["object.changed", "request.allowed"]);
  deepStrictEqual(changed?.type === "object.changed" && [changed.object, changed.before, changed.after], [
    "key/new",
    null,
    {
      name: "ci",
      owner: user.id,
      scopes: ["model:infer/use-*", "key:read/own"],
      address_ranges: 1,
      dpop_jkt: print,
      expires_at: nowSeconds + DAY_SECONDS,
    },
  ]);
  deepStrictEqual(allowed?.type === "request.allowed" && allowed.object, `key/${id}`);
  const secret = text.slice(31);
  ok(secret.length === 43 && !JSON.stringify(called.events).includes(secret));
  const read = await world.call(world.as(user), "GET", `/v1/keys/${id}`);
  ok(!JSON.stringify(read.body).includes(secret));
});

Deno.test("without more than a name a key reads and runs models for 90 days, from everywhere", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { body } = await create(world, world.as(user));
  deepStrictEqual([body.scopes, body.addresses, body.dpop_jkt, body.expires_at - body.created_at], [
    ["model:read", "model:infer"],
    [],
    null,
    90 * DAY_SECONDS,
  ]);
});

Deno.test("each field of a key has its bounds, and there is no other field", async () => {
  const world = await openWorld();
  const caller = world.as(await world.user("mia", ["user"]));
  for (
    const [body, field] of [
      [{ name: "" }, "/name"],
      [{ name: "x".repeat(65) }, "/name"],
      [{ name: "two\nlines" }, "/name"],
      [{ scopes: [] }, "/scopes"],
      [{ scopes: ["model:fly"] }, "/scopes/0"],
      [{ scopes: ["key:read/theirs"] }, "/scopes/0"],
      [{ scopes: ["model:read", "model:read"] }, "/scopes"],
      [{ scopes: "model:read" }, "/scopes"],
      [{ expires_in: 0 }, "/expires_in"],
      [{ expires_in: 366 * DAY_SECONDS + 1 }, "/expires_in"],
      [{ expires_in: "60" }, "/expires_in"],
      [{ addresses: ["192.0.2.0/33"] }, "/addresses/0"],
      [{ addresses: Array.from({ length: 33 }, () => "192.0.2.1") }, "/addresses"],
      [{ dpop_jkt: "short" }, "/dpop_jkt"],
      [{ owner: "admin" }, "/owner"],
      [{ team: "blue" }, "/team"],
      [{ ownerId: `usr_${NOBODY}` }, "/ownerId"],
      [{ last_used_at: 0 }, "/last_used_at"],
    ] as const
  ) {
    deepStrictEqual(refusalOf(await create(world, caller, body)), [422, "fields_invalid", field]);
  }
  deepStrictEqual((await world.apiKeys.list({ limit: 10 })).length, 0);
});

Deno.test("no key is wider than who makes it: not by roles, not by the credential that is sent", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const refused = [403, "forbidden"];
  for (
    const scope of ["user:read/team", "key:write", "key:read/team", "upstream:read", "signing_key:rotate"]
  ) {
    const called = await create(world, world.as(user), { scopes: ["model:read", scope] });
    deepStrictEqual([...refusalOf(called), called.detail], [
      ...refused,
      "You cannot give what you do not have.",
    ], scope);
    deepStrictEqual(called.events, []);
  }
  const narrow = world.as(user, { scope: ["key:write/own", "model:infer/use-*"] });
  deepStrictEqual(refusalOf(await create(world, narrow)), refused);
  deepStrictEqual(refusalOf(await create(world, narrow, { scopes: ["model:infer"] })), refused);
  deepStrictEqual(
    (await create(world, narrow, { scopes: ["model:infer/use-lite", "key:write/own"] })).status,
    201,
  );
  const withoutKeys = world.as(user, { scope: ["model:infer"] });
  deepStrictEqual(refusalOf(await create(world, withoutKeys)), [403, "scope_insufficient"]);
});

Deno.test("a key for somebody else: by who looks after the owner, and never wider than the owner", async () => {
  const world = await openWorld();
  const owner = await world.user("mia", ["user"]);
  const lead = world.as(await world.user("lea", ["team-admin", "user"]));
  const admin = world.as({ id: `usr_${NOBODY}`, team: "default", roles: ["admin"] });
  const mate = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] });
  const stranger = world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["team-admin", "user"] });
  const statusOf = async (caller: Caller, body: Record<string, unknown>): Promise<number> =>
    (await create(world, caller, { owner: owner.id, ...body })).status;
  deepStrictEqual([
    await statusOf(lead, {}),
    await statusOf(admin, {}),
    await statusOf(mate, {}),
    await statusOf(stranger, {}),
  ], [201, 201, 404, 404]);
  const wide = await create(world, admin, { owner: owner.id, scopes: ["user:write/team"] });
  deepStrictEqual([...refusalOf(wide), wide.detail], [
    403,
    "forbidden",
    "A key cannot do more than its owner.",
  ]);
  deepStrictEqual(refusalOf(await create(world, lead, { owner: `usr_${NOBODY}` })), [404, "not_found"]);
  strictEqual((await world.apiKeys.list({ ownerId: owner.id, limit: 10 })).length, 2);
});

Deno.test("nobody makes or rotates a key that speaks for somebody with more rights: not even one of a narrow scope", async () => {
  const world = await openWorld();
  const boss = await world.user("bo", ["admin"]);
  const lead = world.as(await world.user("lea", ["team-admin", "user"]));
  const refused = [403, "forbidden"];
  // By its text the scope is covered; the models that only the admin's role opens would be open by it.
  deepStrictEqual(refusalOf(await create(world, lead, { owner: boss.id, scopes: ["model:infer"] })), refused);
  deepStrictEqual(
    refusalOf(await create(world, lead, { owner: boss.id, scopes: ["key:write/own"] })),
    refused,
  );
  const { id } = await kept(world, boss);
  const rotated = await world.call(lead, "POST", `/v1/keys/${id}/rotate`, {});
  deepStrictEqual([refusalOf(rotated), rotated.events], [refused, []]);
  strictEqual((await world.call(world.as(boss), "POST", `/v1/keys/${id}/rotate`, {})).status, 200);
});

Deno.test("people of other issuers own no keys here, and can make one for an account that they look after", async () => {
  const world = await openWorld();
  const owner = await world.user("mia", ["user"]);
  const outsider = world.external(["admin"]);
  const called = await create(world, outsider);
  deepStrictEqual([...refusalOf(called), called.detail], [
    403,
    "forbidden",
    "Only accounts of this server can own keys. Name one as the owner.",
  ]);
  strictEqual((await create(world, outsider, { owner: owner.id })).status, 201);
  const twin = world.external(["user"], "red", owner.id);
  deepStrictEqual(refusalOf(await create(world, twin, { owner: owner.id })), [404, "not_found"]);
  deepStrictEqual((await world.call(twin, "GET", "/v1/keys")).body, { data: [], next: null });
});

Deno.test("nobody has more than 200 keys", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  for (let count = 0; count < 199; count++) await kept(world, user);
  strictEqual((await create(world, world.as(user))).status, 201);
  deepStrictEqual(refusalOf(await create(world, world.as(user))), [409, "conflict"]);
});

Deno.test("an API key makes no keys: one that ends, or is bound, would make one that is not", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  for (const body of [{}, { owner: `usr_${NOBODY}` }, { scopes: ["key:read/own"] }]) {
    const called = await create(world, world.as(user, { kind: "api_key" }), body);
    deepStrictEqual([...refusalOf(called), called.detail, called.events], [
      403,
      "forbidden",
      "An API key makes no keys: sign in, or use a client's token.",
      [],
    ]);
  }
  deepStrictEqual(await world.apiKeys.list({ limit: 10 }), []);
});
