// PATCH /v1/clients/{id}: what can be changed of a client, and by whom.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import type { Client } from "../../../src/identity/clients.ts";
import { thumbprint } from "../../../src/identity/public_key.ts";
import { makeForeignKey } from "../../identity/foreign_key.ts";
import { NOBODY, openWorld, refusalOf, type World } from "./handler_under_test.ts";

type Caller = ReturnType<World["as"]>;
const FORBIDDEN = [403, "forbidden"];
const pair = makeForeignKey("EdDSA");
const JWK = { ...pair.publicJwk, alg: "EdDSA", kid: "first", use: "sig" };
const OTHER_JWK = { ...makeForeignKey("ES256").publicJwk, alg: "ES256" };

const admin = (world: World) => world.as({ id: `usr_${NOBODY}`, team: "default", roles: ["admin"] });
const lead = (world: World, team = "red") =>
  world.as({ id: `usr_${NOBODY}`, team, roles: ["team-admin", "user"] });
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

Deno.test("a change of name, roles, keys and state holds, and its record has both", async () => {
  const world = await openWorld();
  const client = await made(world, { authentication: "private_key_jwt" });
  const called = await change(world, lead(world), client, {
    name: "nightly",
    roles: [],
    disabled: true,
    keys: [OTHER_JWK],
  });
  const { name, roles, disabled, keys } = called.body;
  deepStrictEqual([called.status, name, roles, disabled, keys], [200, "nightly", [], true, [OTHER_JWK]]);
  deepStrictEqual((await world.clients.read(client.id))?.value.keys, [OTHER_JWK]);
  const [before, after] = [await thumbprint(JWK), await thumbprint(OTHER_JWK)];
  ok(before.ok && after.ok);
  const same = { team: "red", authentication: "private_key_jwt" };
  deepStrictEqual(
    called.events.map((event) =>
      event.type === "object.changed" && [event.action, event.object, event.before, event.after]
    ),
    [["client:write", `client/${client.id}`, {
      ...same,
      name: "batch",
      roles: ["user"],
      keys: [before.value],
      disabled: false,
    }, { ...same, name: "nightly", roles: [], keys: [after.value], disabled: true }]],
  );
  deepStrictEqual(await world.standings.load(client.id), {
    kind: "client",
    team: "red",
    roles: [],
    active: false,
    tokensNotBeforeSeconds: Math.floor(world.clock.now() / 1000) + 2,
  });
});

Deno.test("a body that changes nothing, or what cannot be changed, is refused", async () => {
  const world = await openWorld();
  const client = await made(world);
  for (
    const [body, field] of [
      [{}, ""],
      [{ name: "x", team: "blue" }, "/team"],
      [{ name: "x", authentication: "private_key_jwt" }, "/authentication"],
      [{ name: "x", secret: "y" }, "/secret"],
      [{ keys: [JWK] }, "/keys"],
      [{ roles: ["emperor"] }, "/roles/0"],
    ] as const
  ) {
    const called = await change(world, admin(world), client, body as unknown as JsonValue);
    deepStrictEqual(refusalOf(called), [422, "fields_invalid", field]);
  }
});

Deno.test("nobody takes over a client with more rights: not by its keys, not by its secret, not by its name", async () => {
  const world = await openWorld();
  const strong = await made(world, { roles: ["admin"] });
  const keyed = await made(world, { roles: ["admin"], authentication: "private_key_jwt" });
  const weak = await made(world);
  const refused = [
    await change(world, lead(world), keyed, { keys: [OTHER_JWK] }),
    await change(world, lead(world), strong, { disabled: true }),
    await change(world, lead(world), strong, { roles: ["user"] }),
    await change(world, lead(world), strong, { name: "mine" }),
    await change(world, lead(world), weak, { roles: ["admin"] }),
    await world.call(lead(world), "POST", `/v1/clients/${strong.id}/rotate`, {}),
    await world.call(lead(world), "DELETE", `/v1/clients/${strong.id}`),
  ];
  for (const called of refused) deepStrictEqual([refusalOf(called), called.events], [FORBIDDEN, []]);
});

Deno.test("a client does not disable, demote or delete itself; it may rotate its own secret", async () => {
  const world = await openWorld();
  const client = await made(world, { roles: ["admin"] });
  const own = world.as(client);
  for (const body of [{ disabled: true }, { roles: ["user"] }]) {
    deepStrictEqual(refusalOf(await change(world, own, client, body)), [409, "conflict"]);
  }
  deepStrictEqual(refusalOf(await world.call(own, "DELETE", `/v1/clients/${client.id}`)), [409, "conflict"]);
  strictEqual((await world.call(own, "POST", `/v1/clients/${client.id}/rotate`, {})).status, 200);
});

Deno.test("a client that was changed meanwhile is neither changed, rotated nor deleted: conflict", async () => {
  const world = await openWorld();
  const client = await made(world);
  const elsewhere = async (): Promise<void> => {
    const found = await world.clients.read(client.id);
    ok(found && await world.clients.rotateSecret(found, 0));
  };
  for (
    const call of [
      () => change(world, lead(world), client, { disabled: true }),
      () => world.call(lead(world), "POST", `/v1/clients/${client.id}/rotate`, {}),
      () => world.call(lead(world), "DELETE", `/v1/clients/${client.id}`),
    ]
  ) {
    world.changeMeanwhile(elsewhere);
    deepStrictEqual(refusalOf(await call()), [409, "conflict"]);
  }
  strictEqual((await world.clients.read(client.id))?.value.disabled, false);
});

Deno.test("roles that give a client more end its keys that others have seen; other changes do not", async () => {
  const world = await openWorld();
  const client = await made(world);
  const { body: key } = await world.call(lead(world), "POST", "/v1/keys", { name: "seen", owner: client.id });
  const ended = ({ events: [event] }: Awaited<ReturnType<typeof change>>): unknown =>
    event?.type === "object.changed" && (event.after as { api_keys?: string } | null)?.api_keys;
  for (const body of [{ name: "nightly" }, { roles: ["user"] }, { disabled: true }, { roles: [] }]) {
    strictEqual(ended(await change(world, lead(world), client, body)), undefined);
    ok(await world.apiKeys.read(key.id));
  }
  const called = await change(world, lead(world), client, { roles: ["user"] });
  deepStrictEqual([called.status, ended(called)], [200, "ended"]);
  strictEqual(await world.apiKeys.read(key.id), undefined);
});
