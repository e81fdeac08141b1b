// The own password: only by who knows the old one, by the rules for new ones, and with all other sessions ended.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { User } from "../../../src/identity/users.ts";
import {
  NOBODY,
  openWorld,
  OTHER_PASSWORD,
  PASSWORD,
  refusalOf,
  typesOf,
  type World,
} from "../admin/handler_under_test.ts";

const PATH = "/v1/auth/password";
const change = (world: World, caller: ReturnType<World["as"]>, current: string, next: string) =>
  world.call(caller, "POST", PATH, { current_password: current, new_password: next });
const signIn = async (world: World, username: string, password: string): Promise<boolean> =>
  (await world.signIn({ username, password, network: "198.51.100.1" })).ok;
const open = async (world: World, { id }: User) =>
  (await world.sessions.open({ userId: id, network: "192.0.2.1", boundTo: null })).session;

Deno.test("a user changes the password: the new one signs in, the old one does not, and only this session is left", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const [own] = [await open(world, user), await open(world, user), await open(world, user)];
  const called = await change(world, world.as(user, { session: own.id }), PASSWORD, OTHER_PASSWORD);
  strictEqual(called.status, 204);
  deepStrictEqual([await signIn(world, "mia", OTHER_PASSWORD), await signIn(world, "mia", PASSWORD)], [
    true,
    false,
  ]);
  deepStrictEqual((await world.sessions.list(user.id)).map(({ id }) => id), [own.id]);
  deepStrictEqual(
    called.events.map((event) =>
      event.type === "object.changed" && [event.action, event.object, event.before, event.after]
    ),
    [["password:write", `user/${user.id}`, null, { password: "changed" }]],
  );
  ok(!JSON.stringify(called.events).includes(OTHER_PASSWORD));
});

Deno.test("a password changed by an API key leaves no session", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  await open(world, user);
  strictEqual(
    (await change(world, world.as(user, { kind: "api_key" }), PASSWORD, OTHER_PASSWORD)).status,
    204,
  );
  deepStrictEqual(await world.sessions.list(user.id), []);
});

Deno.test("a wrong current password is refused, recorded, and counts towards the lockout of the account", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const caller = world.as(user);
  for (let attempt = 0; attempt < 4; attempt++) {
    const called = await change(world, caller, "wrong", OTHER_PASSWORD);
    deepStrictEqual([...refusalOf(called), called.detail], [
      401,
      "sign_in_refused",
      "The current password is wrong.",
    ]);
    deepStrictEqual(typesOf(called), ["session.refused"]);
    ok(!JSON.stringify(called.events).includes("mia"));
  }
  deepStrictEqual(refusalOf(await change(world, caller, PASSWORD, OTHER_PASSWORD)), [429, "rate_limited"]);
  const login = await world.call(undefined, "POST", "/v1/auth/login", {
    username: "mia",
    password: PASSWORD,
  });
  deepStrictEqual(refusalOf(login), [429, "rate_limited"]);
});

Deno.test("a new password that breaks the rules is refused with words for people, and no attempt is counted", async () => {
  const world = await openWorld();
  const user = await world.user("mia-the-reader", ["user"]);
  for (const next of ["short", "password1234", "mia-the-reader"]) {
    const called = await change(world, world.as(user), "wrong", next);
    deepStrictEqual(refusalOf(called), [422, "fields_invalid", "/new_password"], next);
    deepStrictEqual(called.events, []);
  }
  strictEqual((await change(world, world.as(user), PASSWORD, OTHER_PASSWORD)).status, 204);
});

Deno.test("whoever has no password here has none to change: clients, and people of other issuers", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { client } = await world.clients.create({
    name: "batch",
    team: "red",
    roles: ["user"],
    authentication: "secret",
    keys: [],
  });
  for (
    const caller of [world.as(client), world.external(["user"]), world.external(["user"], "red", user.id)]
  ) {
    const called = await change(world, caller, PASSWORD, OTHER_PASSWORD);
    deepStrictEqual([...refusalOf(called), called.detail], [
      403,
      "forbidden",
      "Only users of this server have a password here.",
    ]);
  }
  ok(await signIn(world, "mia", PASSWORD));
  const gone = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] });
  deepStrictEqual(refusalOf(await change(world, gone, PASSWORD, OTHER_PASSWORD)), [404, "not_found"]);
});

Deno.test("an admin's reset that comes between wins: the old password cannot overwrite it", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const reset = "what the admin has set now";
  world.changeMeanwhile(async () => {
    const found = await world.users.read(user.id);
    ok(found && await world.users.setPassword(found, reset));
  });
  deepStrictEqual(refusalOf(await change(world, world.as(user), PASSWORD, OTHER_PASSWORD)), [
    409,
    "conflict",
  ]);
  deepStrictEqual([await signIn(world, "mia", reset), await signIn(world, "mia", OTHER_PASSWORD)], [
    true,
    false,
  ]);
});

Deno.test("without a record the password stays", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  world.trail.setFailing(true);
  deepStrictEqual(refusalOf(await change(world, world.as(user), PASSWORD, OTHER_PASSWORD)), [
    503,
    "unavailable",
  ]);
  ok(await signIn(world, "mia", PASSWORD));
});
