// Clients over HTTP: programs' accounts, their secrets that are told once, and their public keys.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import type { Client } from "../../../src/identity/clients.ts";
import { makeForeignKey } from "../../identity/foreign_key.ts";
import { NOBODY, openWorld, refusalOf, typesOf, type World } from "./handler_under_test.ts";

type Caller = ReturnType<World["as"]>;
const pair = makeForeignKey("EdDSA");
const JWK = { ...pair.publicJwk, alg: "EdDSA", kid: "first", use: "sig" };

const admin = (world: World) => world.as({ id: `usr_${NOBODY}`, team: "default", roles: ["admin"] });
const lead = (world: World, team = "red") =>
  world.as({ id: `usr_${NOBODY}`, team, roles: ["team-admin", "user"] });
const create = (world: World, caller: Caller, body: Record<string, JsonValue> = {}) =>
  world.call(caller, "POST", "/v1/clients", {
    name: "batch",
    roles: ["user"],
    authentication: "secret",
    ...body,
  });
const made = async (world: World, order: Partial<Pick<Client, "roles" | "team" | "authentication">> = {}) => {
  const { client } = await world.clients.create({
    name: "batch",
    team: "red",
    roles: ["user"],
    authentication: "secret",
    ...order,
    keys: order.authentication === "private_key_jwt" ? [JWK] : [],
  });
  return client;
};
const change = (world: World, caller: Caller, { id }: Client, body: JsonValue) =>
  world.call(caller, "PATCH", `/v1/clients/${id}`, body);

Deno.test("a client is seen, changed, rotated and deleted by who looks after its team, and is not there for others", async () => {
  const world = await openWorld();
  const callers = {
    oneself: undefined,
    mate: world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] }),
    lead: lead(world),
    otherLead: lead(world, "blue"),
    auditor: world.as({ id: `usr_${NOBODY}`, team: "blue", roles: ["auditor"] }),
    admin: admin(world),
  };
  const statuses: Record<string, readonly number[]> = {};
  for (const [name, caller] of Object.entries(callers)) {
    const client = await made(world);
    const by = caller ?? world.as(client);
    statuses[name] = [
      (await world.call(by, "GET", `/v1/clients/${client.id}`)).status,
      (await change(world, by, client, { name: "new" })).status,
      (await world.call(by, "POST", `/v1/clients/${client.id}/rotate`, {})).status,
      (await world.call(by, "DELETE", `/v1/clients/${client.id}`)).status,
    ];
    strictEqual(await world.clients.read(client.id) === undefined, statuses[name]?.[3] === 204, name);
  }
  deepStrictEqual(statuses, {
    // `user` gives nothing over clients, not even over oneself.
    oneself: [403, 403, 403, 403],
    mate: [403, 403, 403, 403],
    lead: [200, 200, 200, 204],
    otherLead: [404, 404, 404, 404],
    auditor: [200, 403, 403, 403],
    admin: [200, 200, 200, 204],
  });
});

Deno.test("a client that is hidden and one that is not there are refused in the same words", async () => {
  const world = await openWorld();
  const client = await made(world);
  const caller = lead(world, "blue");
  const hidden = await world.call(caller, "GET", `/v1/clients/${client.id}`);
  for (const id of [`cli_${NOBODY}`, "batch", "%00", `usr_${NOBODY}`]) {
    deepStrictEqual(await world.call(caller, "GET", `/v1/clients/${id}`), hidden);
  }
});

Deno.test("the list shows each caller the clients that they may see", async () => {
  const world = await openWorld();
  const [red, blue] = [await made(world), await made(world, { team: "blue" })];
  const seen = async (caller: Caller): Promise<string[]> =>
    (await world.call(caller, "GET", "/v1/clients")).body.data.map(({ id }: { id: string }) => id);
  deepStrictEqual(await seen(lead(world)), [red.id]);
  deepStrictEqual(await seen(lead(world, "blue")), [blue.id]);
  deepStrictEqual(await seen(admin(world)), [red.id, blue.id].sort());
});

Deno.test("a rotation tells the new secret once, and lets the old one go on for the grace", async () => {
  const world = await openWorld();
  const { body: first } = await create(world, lead(world));
  const called = await world.call(lead(world), "POST", `/v1/clients/${first.id}/rotate`, {
    grace_seconds: 30,
  });
  const { secret } = called.body;
  const works = async (text: string): Promise<boolean> =>
    (await world.clients.verifySecret(first.id, text)).ok;
  deepStrictEqual([await works(secret), await works(first.secret)], [true, true]);
  world.clock.advance(30_000);
  deepStrictEqual([await works(secret), await works(first.secret)], [true, false]);
  deepStrictEqual(typesOf(called), ["object.changed"]);
  ok(!JSON.stringify(called.events).includes(secret.slice(4)));
});

Deno.test("a client with keys has no secret to rotate: conflict", async () => {
  const world = await openWorld();
  const client = await made(world, { authentication: "private_key_jwt" });
  deepStrictEqual(refusalOf(await world.call(lead(world), "POST", `/v1/clients/${client.id}/rotate`, {})), [
    409,
    "conflict",
  ]);
});

Deno.test("a deleted client is gone with its keys", async () => {
  const world = await openWorld();
  const client = await made(world);
  const { text } = await world.apiKeys.create({
    name: "ci",
    ownerId: client.id,
    scopes: ["model:read"],
    addresses: [],
    boundTo: null,
    expiresAtMs: world.clock.now() + 60_000,
    seenByOthers: false,
  });
  strictEqual((await world.call(lead(world), "DELETE", `/v1/clients/${client.id}`)).status, 204);
  deepStrictEqual([await world.clients.read(client.id), (await world.apiKeys.verify(text)).ok], [
    undefined,
    false,
  ]);
});

Deno.test("no client is made, seen, changed or deleted without a record", async () => {
  const world = await openWorld();
  const client = await made(world);
  world.trail.setFailing(true);
  const unavailable = [503, "unavailable"];
  deepStrictEqual(refusalOf(await create(world, admin(world))), unavailable);
  deepStrictEqual(refusalOf(await change(world, admin(world), client, { disabled: true })), unavailable);
  for (
    const [method, path] of [["GET", ""], ["GET", `/${client.id}`], ["DELETE", `/${client.id}`]] as const
  ) {
    deepStrictEqual(refusalOf(await world.call(admin(world), method, `/v1/clients${path}`)), unavailable);
  }
  deepStrictEqual((await world.clients.list({ limit: 10 })).map(({ disabled }) => disabled), [false]);
});
