// POST /v1/clients: programs' accounts, with a secret that is told once or with public keys.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../../src/encoding/canonical_json.ts";
import { thumbprint } from "../../../src/identity/public_key.ts";
import { makeForeignKey } from "../../identity/foreign_key.ts";
import { NOBODY, openWorld, refusalOf, typesOf, type World } from "./handler_under_test.ts";

type Caller = ReturnType<World["as"]>;
const FORBIDDEN = [403, "forbidden"];
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

Deno.test("a client with a secret: it is told once and proves the client; the trail does not have it", async () => {
  const world = await openWorld();
  const called = await create(world, lead(world));
  const { id, secret, ...rest } = called.body;
  match(secret, /^pcs_[A-Za-z0-9_-]{43}$/);
  deepStrictEqual([called.status, rest], [201, {
    name: "batch",
    team: "red",
    roles: ["user"],
    authentication: "secret",
    keys: [],
    disabled: false,
    created_at: Math.floor(world.clock.now() / 1000),
    secret_rotated_at: null,
    previous_until: null,
  }]);
  ok((await world.clients.verifySecret(id, secret)).ok);
  deepStrictEqual(typesOf(called), ["object.changed", "request.allowed"]);
  const [changed, allowed] = called.events;
  deepStrictEqual(changed?.type === "object.changed" && [changed.before, changed.after], [null, {
    name: "batch",
    team: "red",
    roles: ["user"],
    authentication: "secret",
    keys: [],
    disabled: false,
  }]);
  deepStrictEqual(allowed?.type === "request.allowed" && allowed.object, `client/${id}`);
  ok(!JSON.stringify(called.events).includes(secret.slice(4)));
  const read = await world.call(lead(world), "GET", `/v1/clients/${id}`);
  deepStrictEqual(read.body, { id, ...rest });
});

Deno.test("a client with keys has no secret; its record names the keys by their thumbprints", async () => {
  const world = await openWorld();
  const called = await create(world, lead(world), { authentication: "private_key_jwt", keys: [JWK] });
  deepStrictEqual([called.status, called.body.secret, called.body.keys], [201, null, [JWK]]);
  const print = await thumbprint(JWK);
  const [changed] = called.events;
  ok(print.ok && changed?.type === "object.changed");
  deepStrictEqual((changed.after as { keys: unknown }).keys, [print.value]);
});

Deno.test("each field of a client has its rules; no private key is taken, and none that contradicts the kind of proof", async () => {
  const world = await openWorld();
  const keyed = { authentication: "private_key_jwt" };
  for (
    const [body, ...fields] of [
      [{ name: "" }, "/name"],
      [{ name: " batch" }, "/name"],
      [{ roles: ["emperor"] }, "/roles/0"],
      [{ authentication: "none" }, "/authentication"],
      [{ team: "green" }, "/team"],
      [{ keys: [JWK] }, "/keys"],
      [{ ...keyed, keys: [] }, "/keys"],
      [keyed, "/keys"],
      [{ ...keyed, keys: Array.from({ length: 9 }, () => JWK) }, "/keys"],
      [{ ...keyed, keys: [{ ...pair.privateJwk, alg: "EdDSA" }] }, "/keys/0/d"],
      [{ ...keyed, keys: [pair.publicJwk] }, "/keys/0/alg"],
      [{ ...keyed, keys: [{ ...pair.publicJwk, alg: "ES256" }] }, "/keys/0"],
      [{ ...keyed, keys: [{ ...pair.publicJwk, alg: "none" }] }, "/keys/0/alg"],
      [{ ...keyed, keys: [JWK, { kty: "oct", alg: "EdDSA", k: "AAAA" }] }, "/keys/1/k"],
      [{ ...keyed, keys: [{ ...JWK, x5u: "https://evil.example" }] }, "/keys/0/x5u"],
      [{ id: `cli_${NOBODY}` }, "/id"],
      [{ secret: "mine" }, "/secret"],
      [{ disabled: false }, "/disabled"],
    ] as const
  ) {
    const called = await create(world, admin(world), body as unknown as Record<string, JsonValue>);
    deepStrictEqual(refusalOf(called), [422, "fields_invalid", ...fields], JSON.stringify(body));
    deepStrictEqual(called.events, []);
  }
  deepStrictEqual(await world.clients.list({ limit: 10 }), []);
});

Deno.test("nobody makes a client with more rights than their own, nor in a team that is not theirs", async () => {
  const world = await openWorld();
  for (const role of ["admin", "operator", "auditor"]) {
    deepStrictEqual(refusalOf(await create(world, lead(world), { roles: [role] })), FORBIDDEN, role);
  }
  deepStrictEqual(refusalOf(await create(world, lead(world), { team: "blue" })), [404, "not_found"]);
  const user = world.as({ id: `usr_${NOBODY}`, team: "red", roles: ["user"] });
  deepStrictEqual(refusalOf(await create(world, user)), FORBIDDEN);
  strictEqual((await create(world, admin(world), { team: "blue", roles: ["admin"] })).status, 201);
});
