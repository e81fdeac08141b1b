// API keys over HTTP: their text is told once, they do no more than who makes and who owns them, and belong to one account.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { grantsIn } from "../../../src/access/grant.ts";
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

Deno.test("a narrowed credential does not learn the new secret of a wider key of the same owner", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { id } = await kept(world, user);
  const narrow = world.as(user, { scope: ["key:write/own", "key:read/own"] });
  deepStrictEqual(refusalOf(await world.call(narrow, "POST", `/v1/keys/${id}/rotate`, {})), [
    403,
    "forbidden",
  ]);
  strictEqual((await world.call(narrow, "GET", `/v1/keys/${id}`)).status, 200);
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
    ok(found && await world.apiKeys.rotate(found, 0, "owner"));
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

Deno.test("nobody deletes a key of somebody with more rights; one of an account that is gone, who reaches it", async () => {
  const world = await openWorld();
  const bo = await world.user("bo", ["admin"]);
  const { id } = await kept(world, bo);
  const lead = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["team-admin", "user"] });
  const called = await world.call(lead, "DELETE", `/v1/keys/${id}`);
  deepStrictEqual([refusalOf(called), called.events], [[403, "forbidden"], []]);
  const grants = grantsIn(["key:read", "key:write"]);
  await world.roleBook.put(
    { team: null, name: "locksmith", description: "", builtIn: false, createdAtMs: 0, grants },
    undefined,
  );
  const locksmith = world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["locksmith"] });
  deepStrictEqual(refusalOf(await world.call(locksmith, "DELETE", `/v1/keys/${id}`)), [403, "forbidden"]);
  ok(await world.apiKeys.read(id));
  const found = await world.users.read(bo.id);
  ok(found && await world.users.remove(found));
  strictEqual((await world.call(locksmith, "DELETE", `/v1/keys/${id}`)).status, 204);
});

Deno.test("one's own key is deleted by a credential that does less than its owner", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { id } = await kept(world, user);
  const narrowed = world.as(user, { kind: "api_key", scope: ["key:read/own", "key:write/own"] });
  strictEqual((await world.call(narrowed, "DELETE", `/v1/keys/${id}`)).status, 204);
});

Deno.test("an API key rotates no key, not even itself", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { id } = await kept(world, user);
  for (const target of [id, `pck_${NOBODY}`]) {
    const called = await world.call(
      world.as(user, { kind: "api_key", id }),
      "POST",
      `/v1/keys/${target}/rotate`,
      {},
    );
    deepStrictEqual([...refusalOf(called), called.detail, called.events], [
      403,
      "forbidden",
      "An API key makes no keys: sign in, or use a client's token.",
      [],
    ]);
  }
});

Deno.test("who else has seen a key is known from who made it and who rotated it last", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const lead = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["team-admin", "user"] });
  const own = (await create(world, world.as(user))).body.id;
  const given = (await create(world, lead, { owner: user.id })).body.id;
  const twins = (await create(world, world.external(["admin"]), { owner: user.id })).body.id;
  const isSeen = async (id: string): Promise<boolean | undefined> =>
    (await world.apiKeys.read(id))?.value.seenByOthers;
  deepStrictEqual([await isSeen(own), await isSeen(given), await isSeen(twins)], [false, true, true]);
  const rotate = async (caller: Caller, grace: number): Promise<boolean | undefined> => {
    const called = await world.call(caller, "POST", `/v1/keys/${own}/rotate`, { grace_seconds: grace });
    strictEqual(called.status, 200);
    return await isSeen(own);
  };
  deepStrictEqual(
    [
      await rotate(world.as(user), 60),
      await rotate(lead, 60),
      // The text that the other one knows still passes.
      await rotate(world.as(user), 60),
      await rotate(world.as(user), 0),
      await rotate(lead, 0),
    ],
    [false, true, true, false, true],
  );
});

Deno.test("a key that somebody else rotates while its owner's roles are changed is none any more", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { id } = await kept(world, user);
  const lead = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["team-admin", "user"] });
  world.changeMeanwhile(async () => {
    const found = await world.users.read(user.id);
    ok(found && await world.users.replace(found, { ...user, roles: ["admin"] }));
  });
  deepStrictEqual(refusalOf(await world.call(lead, "POST", `/v1/keys/${id}/rotate`, {})), [409, "conflict"]);
  strictEqual(await world.apiKeys.read(id), undefined);
});
