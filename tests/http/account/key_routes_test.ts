// API keys over HTTP: their text is told once, they do no more than who makes and who owns them, and belong to one account.
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
  const narrow = world.as(user, { kind: "api_key", scope: ["key:write/own", "model:infer/use-*"] });
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

Deno.test("a narrowed credential does not learn the new secret of a wider key of the same owner", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { id } = await kept(world, user);
  const narrow = world.as(user, { kind: "api_key", scope: ["key:write/own", "key:read/own"] });
  deepStrictEqual(refusalOf(await world.call(narrow, "POST", `/v1/keys/${id}/rotate`, {})), [
    403,
    "forbidden",
  ]);
  strictEqual((await world.call(narrow, "GET", `/v1/keys/${id}`)).status, 200);
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

Deno.test("reading, rotating and deleting a key: by owner, team, server, and not there for all others", async () => {
  const world = await openWorld();
  const owner = await world.user("mia", ["user"]);
  const callers = {
    owner: world.as(owner),
    mate: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] }),
    lead: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["team-admin", "user"] }),
    otherLead: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["team-admin", "user"] }),
    auditor: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["auditor"] }),
    admin: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["admin"] }),
  };
  const statuses: Record<string, readonly number[]> = {};
  for (const [name, caller] of Object.entries(callers)) {
    const { id } = await kept(world, owner);
    statuses[name] = [
      (await world.call(caller, "GET", `/v1/keys/${id}`)).status,
      (await world.call(caller, "POST", `/v1/keys/${id}/rotate`, {})).status,
      (await world.call(caller, "DELETE", `/v1/keys/${id}`)).status,
    ];
    strictEqual(await world.apiKeys.read(id) === undefined, statuses[name]?.[2] === 204, name);
  }
  deepStrictEqual(statuses, {
    owner: [200, 200, 204],
    mate: [404, 404, 404],
    lead: [200, 200, 204],
    otherLead: [404, 404, 404],
    // Its role lacks the action, which the gate says before any object is known.
    auditor: [200, 403, 403],
    admin: [200, 200, 204],
  });
});

Deno.test("a hidden key and one that is not there are refused in the same words, whatever the path holds", async () => {
  const world = await openWorld();
  const owner = await world.user("mia", ["user"]);
  const mate = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] });
  const { id } = await kept(world, owner);
  const hidden = await world.call(mate, "GET", `/v1/keys/${id}`);
  for (const other of [`pck_${NOBODY}`, "pck_", "a%2Fb", "%00", owner.id]) {
    deepStrictEqual(await world.call(mate, "GET", `/v1/keys/${other}`), hidden, other);
  }
});

Deno.test("the list shows each caller their own, their team's or all keys, in pages that hold", async () => {
  const world = await openWorld();
  const [mia, max, ben] = [
    await world.user("mia", ["user"]),
    await world.user("max", ["user"]),
    await world.user("ben", ["user"], "blue"),
  ];
  const made: Record<string, string[]> = { mia: [], max: [], ben: [] };
  for (let round = 0; round < 3; round++) {
    for (const [name, user] of Object.entries({ mia, max, ben })) {
      world.clock.advance(1);
      made[name]?.push((await kept(world, user)).id);
    }
  }
  const seen = async (caller: Caller): Promise<string[]> => {
    const ids: string[] = [];
    let after = "";
    for (;;) {
      const { body } = await world.call(caller, "GET", `/v1/keys?limit=2${after}`);
      ok(body.data.length <= 2);
      ids.push(...body.data.map(({ id }: { id: string }) => id));
      if (body.next === null) return ids;
      after = `&after=${body.next}`;
    }
  };
  const red = [...made.mia ?? [], ...made.max ?? []].sort();
  deepStrictEqual(await seen(world.as(mia)), made.mia);
  deepStrictEqual(await seen(world.as({ id: mia.id, team: "red", roles: ["team-admin"] })), red);
  deepStrictEqual(
    await seen(world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["auditor"] })),
    [...red, ...made.ben ?? []].sort(),
  );
});

Deno.test("a rotation gives a new text at once, and lets the old one go on for the grace that was asked for", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { body: first } = await create(world, world.as(user));
  const called = await world.call(world.as(user), "POST", `/v1/keys/${first.id}/rotate`, {
    grace_seconds: 60,
  });
  const { key: text, ...rest } = called.body;
  const nowSeconds = Math.floor(world.clock.now() / 1000);
  deepStrictEqual([called.status, rest.id, rest.rotated_at, rest.previous_until], [
    200,
    first.id,
    nowSeconds,
    nowSeconds + 60,
  ]);
  const works = async (key: string): Promise<boolean> => (await world.apiKeys.verify(key)).ok;
  deepStrictEqual([await works(text), await works(first.key)], [true, true]);
  world.clock.advance(60_000);
  deepStrictEqual([await works(text), await works(first.key)], [true, false]);
  const { body: third } = await world.call(world.as(user), "POST", `/v1/keys/${first.id}/rotate`, {});
  deepStrictEqual([await works(third.key), await works(text)], [true, false]);
  deepStrictEqual(typesOf(called), ["object.changed"]);
  ok(!JSON.stringify(called.events).includes(text.slice(31)));
  for (const grace of [-1, 604_801, 1.5, "60"]) {
    const refused = await world.call(world.as(user), "POST", `/v1/keys/${first.id}/rotate`, {
      grace_seconds: grace,
    });
    deepStrictEqual(refusalOf(refused), [422, "fields_invalid", "/grace_seconds"]);
  }
});

Deno.test("a key that is changed meanwhile is neither rotated nor deleted: conflict", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { id } = await kept(world, user);
  const rotateElsewhere = async (): Promise<void> => {
    const found = await world.apiKeys.read(id);
    ok(found && await world.apiKeys.rotate(found, 0));
  };
  world.changeMeanwhile(rotateElsewhere);
  deepStrictEqual(refusalOf(await world.call(world.as(user), "POST", `/v1/keys/${id}/rotate`, {})), [
    409,
    "conflict",
  ]);
  world.changeMeanwhile(rotateElsewhere);
  deepStrictEqual(refusalOf(await world.call(world.as(user), "DELETE", `/v1/keys/${id}`)), [409, "conflict"]);
});

Deno.test("a deleted key works no more, and its record says what it was", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { body } = await create(world, world.as(user), { scopes: ["model:read"] });
  const called = await world.call(world.as(user), "DELETE", `/v1/keys/${body.id}`);
  strictEqual(called.status, 204);
  strictEqual((await world.apiKeys.verify(body.key)).ok, false);
  const [event] = called.events;
  deepStrictEqual(
    event?.type === "object.changed" && [event.action, event.object, event.before, event.after],
    [
      "key:write",
      `key/${body.id}`,
      {
        name: "ci",
        owner: user.id,
        scopes: ["model:read"],
        address_ranges: 0,
        dpop_jkt: null,
        expires_at: body.expires_at,
      },
      null,
    ],
  );
});

Deno.test("nobody has more than 200 keys", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  for (let count = 0; count < 199; count++) await kept(world, user);
  strictEqual((await create(world, world.as(user))).status, 201);
  deepStrictEqual(refusalOf(await create(world, world.as(user))), [409, "conflict"]);
});

Deno.test("no key is made, told or deleted without its record", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { id } = await kept(world, user);
  world.trail.setFailing(true);
  const unavailable = [503, "unavailable"];
  deepStrictEqual(refusalOf(await create(world, world.as(user))), unavailable);
  deepStrictEqual(
    refusalOf(await world.call(world.as(user), "POST", `/v1/keys/${id}/rotate`, {})),
    unavailable,
  );
  deepStrictEqual(refusalOf(await world.call(world.as(user), "DELETE", `/v1/keys/${id}`)), unavailable);
  deepStrictEqual(refusalOf(await world.call(world.as(user), "GET", `/v1/keys/${id}`)), unavailable);
  deepStrictEqual(refusalOf(await world.call(world.as(user), "GET", "/v1/keys")), unavailable);
  strictEqual((await world.apiKeys.list({ limit: 10 })).length, 1);
});
