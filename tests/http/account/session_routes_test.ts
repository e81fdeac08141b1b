// Sign-out, and the list of one's own sessions: whose they are, and that what is ended is over.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { grantsIn } from "../../../src/access/grant.ts";
import { Fault } from "../../../src/faults/fault.ts";
import type { User } from "../../../src/identity/users.ts";
import { NOBODY, openWorld, refusalOf, typesOf, type World } from "../admin/handler_under_test.ts";

const open = async (world: World, { id }: User) =>
  (await world.sessions.open({ userId: id, network: "192.0.2.1", boundTo: null })).session;

Deno.test("logout ends the session of the token that is sent and no other, and records which", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const [ended, other] = [await open(world, user), await open(world, user)];
  const called = await world.call(world.as(user, { session: ended.id }), "POST", "/v1/auth/logout");
  strictEqual(called.status, 204);
  deepStrictEqual(called.events.map((event) => event.type === "session.ended" && event.session), [ended.id]);
  deepStrictEqual((await world.sessions.list(user.id)).map(({ id }) => id), [other.id]);
  deepStrictEqual([world.revocations.isRevoked(ended.id), world.revocations.isRevoked(other.id)], [
    true,
    false,
  ]);
});

Deno.test("ASVS V16.5.3: a logout that could not be written is 503 and ends nothing; the same call again ends it", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const session = await open(world, user);
  const inSession = world.as(user, { session: session.id });
  const alone = world.as(user, { session: `ses_${NOBODY}` });
  const logOut = async () => {
    const statuses: number[] = [];
    for (const caller of [inSession, alone]) {
      statuses.push((await world.call(caller, "POST", "/v1/auth/logout")).status);
    }
    return statuses;
  };
  const isOver = () => [session.id, alone.credential.id].map((id) => world.revocations.isRevoked(id));
  world.store.write = () => Promise.reject(new Fault("unavailable", "the store is gone"));
  deepStrictEqual([await logOut(), isOver()], [[503, 503], [false, false]]);
  world.store.write = world.memory.write;
  deepStrictEqual([await logOut(), isOver()], [[204, 204], [true, true]]);
  strictEqual(await world.sessions.read(session.id), undefined);
});

Deno.test("logout with a token whose session is over already ends the token itself", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const caller = world.as(user, { session: `ses_${NOBODY}` });
  strictEqual((await world.call(caller, "POST", "/v1/auth/logout")).status, 204);
  ok(world.revocations.isRevoked(caller.credential.id));
});

Deno.test("logout with a client's token revokes that token", async () => {
  const world = await openWorld();
  const { client } = await world.clients.create({
    name: "batch",
    team: "red",
    roles: ["user"],
    authentication: "secret",
    keys: [],
  });
  const caller = world.as(client);
  const called = await world.call(caller, "POST", "/v1/auth/logout");
  deepStrictEqual([called.status, typesOf(called)], [204, ["session.ended"]]);
  ok(world.revocations.isRevoked(caller.credential.id));
});

Deno.test("logout with another issuer's token cannot end one of ours, whatever its jti is", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const session = await open(world, user);
  const outsider = world.external(["user"]);
  const caller = { ...outsider, credential: { ...outsider.credential, id: session.id } };
  strictEqual((await world.call(caller, "POST", "/v1/auth/logout")).status, 204);
  strictEqual(world.revocations.isRevoked(session.id), false);
  ok(world.revocations.isRevoked(`${caller.issuer} ${session.id}`));
});

Deno.test("logout with an API key is refused with what to do instead, and revokes nothing", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const caller = world.as(user, { kind: "api_key", id: `pck_${NOBODY}`, expiresAtSeconds: null });
  const called = await world.call(caller, "POST", "/v1/auth/logout");
  deepStrictEqual([...refusalOf(called), called.detail], [
    400,
    "request_invalid",
    "An API key has no session: delete it.",
  ]);
  strictEqual(world.revocations.isRevoked(`pck_${NOBODY}`), false);
});

Deno.test("the list of sessions holds the caller's own and says which one is in use; nothing secret is in it", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const mate = await world.user("max", ["user"]);
  const first = await open(world, user);
  world.clock.advance(5000);
  const second = await open(world, user);
  await open(world, mate);
  const called = await world.call(world.as(user, { session: second.id }), "GET", "/v1/auth/sessions");
  const seconds = (ms: number): number => Math.floor(ms / 1000);
  deepStrictEqual(
    called.body.data,
    [first, second].map((session) => ({
      id: session.id,
      user: user.id,
      created_at: seconds(session.createdAtMs),
      last_used_at: seconds(session.createdAtMs),
      expires_at: seconds(session.expiresAtMs),
      network: "192.0.2.1",
      bound: false,
      current: session.id === second.id,
    })),
  );
  deepStrictEqual(typesOf(called), ["request.allowed"]);
});

Deno.test("somebody of another issuer with the id of a user of ours sees and ends none of that user's sessions", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const session = await open(world, user);
  const twin = world.external(["user"], "red", user.id);
  deepStrictEqual((await world.call(twin, "GET", "/v1/auth/sessions")).body, { data: [] });
  deepStrictEqual((await world.call(twin, "DELETE", "/v1/auth/sessions")).body, { ended: 0 });
  deepStrictEqual(refusalOf(await world.call(twin, "DELETE", `/v1/auth/sessions/${session.id}`)), [
    404,
    "not_found",
  ]);
  strictEqual((await world.sessions.list(user.id)).length, 1);
});

Deno.test("signing out everywhere ends all of the caller's own sessions and nobody else's", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const mate = await world.user("max", ["user"]);
  const own = [];
  for (let count = 0; count < 3; count++) {
    own.push(await open(world, user));
    world.clock.advance(1); // ids sort by the millisecond of their birth
  }
  await open(world, mate);
  const called = await world.call(world.as(user), "DELETE", "/v1/auth/sessions");
  deepStrictEqual([called.status, called.body], [200, { ended: 3 }]);
  deepStrictEqual(
    called.events.map((event) =>
      event.type === "object.changed" && [event.action, event.object, event.before, event.after]
    ),
    [["session:end", `user/${user.id}`, { sessions: own.map(({ id }) => id) }, { sessions: [] }]],
  );
  deepStrictEqual(
    [(await world.sessions.list(user.id)).length, (await world.sessions.list(mate.id)).length],
    [
      0,
      1,
    ],
  );
});

Deno.test("one session is ended by its owner, by who looks after the team, and by an admin; for others it is not there", async () => {
  const world = await openWorld();
  const owner = await world.user("mia", ["user"]);
  const people = {
    owner: world.as(owner),
    mate: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] }),
    lead: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["team-admin", "user"] }),
    stranger: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["team-admin"] }),
    auditor: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["auditor"] }),
    admin: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["admin"] }),
  };
  const statuses: Record<string, number> = {};
  for (const [name, caller] of Object.entries(people)) {
    const session = await open(world, owner);
    statuses[name] = (await world.call(caller, "DELETE", `/v1/auth/sessions/${session.id}`)).status;
    strictEqual(await world.sessions.read(session.id) === undefined, statuses[name] === 204, name);
  }
  deepStrictEqual(statuses, { owner: 204, mate: 404, lead: 204, stranger: 404, auditor: 403, admin: 204 });
});

Deno.test("a session of somebody else and one that is not there are refused in the same words", async () => {
  const world = await openWorld();
  const owner = await world.user("mia", ["user"]);
  const session = await open(world, owner);
  const mate = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] });
  const hidden = await world.call(mate, "DELETE", `/v1/auth/sessions/${session.id}`);
  for (const id of [`ses_${NOBODY}`, "ses_", "..%2F..", "ses_%00", `usr_${NOBODY}`]) {
    deepStrictEqual(await world.call(mate, "DELETE", `/v1/auth/sessions/${id}`), hidden, id);
  }
  deepStrictEqual(hidden.events, []);
});

Deno.test("the record of an ended session says whose it was and leaves the address out; without a record it goes on", async () => {
  const world = await openWorld();
  const owner = await world.user("mia", ["user"]);
  const session = await open(world, owner);
  world.trail.setFailing(true);
  const target = `/v1/auth/sessions/${session.id}`;
  deepStrictEqual(refusalOf(await world.call(world.as(owner), "DELETE", target)), [503, "unavailable"]);
  ok(await world.sessions.read(session.id));
  world.trail.setFailing(false);
  const { events } = await world.call(world.as(owner), "DELETE", target);
  deepStrictEqual(
    events.map((event) => event.type === "object.changed" && [event.object, event.before, event.after]),
    [[`session/${session.id}`, {
      user: owner.id,
      created_at: Math.floor(session.createdAtMs / 1000),
      expires_at: Math.floor(session.expiresAtMs / 1000),
    }, null]],
  );
});

Deno.test("a token narrowed to something else neither sees nor ends sessions", async () => {
  const world = await openWorld();
  const owner = await world.user("mia", ["user"]);
  const caller = world.as(owner, { scope: ["model:infer"] });
  for (const [method, path] of [["GET", "sessions"], ["DELETE", "sessions"], ["POST", "logout"]] as const) {
    deepStrictEqual(refusalOf(await world.call(caller, method, `/v1/auth/${path}`)), [
      403,
      "scope_insufficient",
    ]);
  }
});

Deno.test("nobody ends a session of somebody with more rights; one of an account that is gone, who reaches it", async () => {
  const world = await openWorld();
  const bo = await world.user("bo", ["admin"]);
  const session = await open(world, bo);
  const lead = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["team-admin", "user"] });
  const target = `/v1/auth/sessions/${session.id}`;
  const called = await world.call(lead, "DELETE", target);
  deepStrictEqual([refusalOf(called), called.events], [[403, "forbidden"], []]);
  ok(await world.sessions.read(session.id));
  const grants = grantsIn(["session:read", "session:end"]);
  await world.roleBook.put(
    { team: null, name: "porter", description: "", builtIn: false, createdAtMs: 0, grants },
    undefined,
  );
  const porter = world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["porter"] });
  deepStrictEqual(refusalOf(await world.call(porter, "DELETE", target)), [403, "forbidden"]);
  const found = await world.users.read(bo.id);
  ok(found && await world.users.remove(found));
  strictEqual((await world.call(porter, "DELETE", target)).status, 204);
});

Deno.test("one's own session ends by a credential that does less than its owner", async () => {
  const world = await openWorld();
  const bo = await world.user("bo", ["admin"]);
  const session = await open(world, bo);
  const narrowed = world.as(bo, { scope: ["session:read/own", "session:end/own"] });
  strictEqual((await world.call(narrowed, "DELETE", `/v1/auth/sessions/${session.id}`)).status, 204);
});
