// Sign-in: the session and the tokens that it gives, the proof of possession before the password, and one answer to all refusals.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { hash } from "node:crypto";
import { parseJws } from "../../../src/identity/strict_jws.ts";
import { thumbprint } from "../../../src/identity/public_key.ts";
import { forgeToken } from "../../identity/forge_token.ts";
import { makeForeignKey } from "../../identity/foreign_key.ts";
import {
  ISSUER,
  openWorld,
  PASSWORD,
  refusalOf,
  SESSION_TTL_SECONDS,
  TOKEN_TTL_SECONDS,
  typesOf,
  type World,
} from "../admin/handler_under_test.ts";

const PATH = "/v1/auth/login";
const key = makeForeignKey("ES256");

const login = (world: World, username: string, password: string, headers: Record<string, string> = {}) =>
  world.call(undefined, "POST", PATH, { username, password }, headers);

const proofOf = (world: World, claims: Record<string, unknown> = {}): string =>
  forgeToken(
    { typ: "dpop+jwt", alg: "ES256", jwk: key.publicJwk },
    {
      jti: crypto.randomUUID(),
      htm: "POST",
      htu: `${ISSUER}${PATH}`,
      iat: Math.floor(world.clock.now() / 1000),
      nonce: world.proofs.nonce(),
      ...claims,
    },
    key.signer,
  );

async function claimsOf(world: World, token: string) {
  const jws = parseJws(token);
  ok(jws.ok);
  const verified = await world.accessTokens.verify(jws.value, hash("sha256", token, "base64"));
  ok(verified.ok);
  return verified.value;
}

Deno.test("a sign-in opens a session and gives its access token and its refresh token; the record is there first", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const called = await login(world, "mia", PASSWORD);
  const { access_token, refresh_token, ...rest } = called.body;
  deepStrictEqual([called.status, rest], [200, {
    token_type: "Bearer",
    expires_in: TOKEN_TTL_SECONDS,
    refresh_expires_in: SESSION_TTL_SECONDS,
  }]);
  const [session] = await world.sessions.list(user.id);
  const claims = await claimsOf(world, access_token);
  deepStrictEqual([claims.subject, claims.session, claims.scope, claims.boundTo], [
    user.id,
    session?.id,
    null,
    null,
  ]);
  strictEqual((await world.sessions.inspect(refresh_token))?.id, session?.id);
  strictEqual(session?.network, "192.0.2.1");
  const [event] = called.events;
  ok(called.events.length === 1 && event?.type === "session.started");
  deepStrictEqual([event.issuer, event.subject, event.team, event.credential, event.expiresAtSeconds], [
    ISSUER,
    user.id,
    "red",
    claims.tokenId,
    Math.floor((session?.expiresAtMs ?? 0) / 1000),
  ]);
  deepStrictEqual([event.session, event.displaced], [session?.id, []]);
  const text = JSON.stringify(called.events);
  ok(!text.includes(access_token) && !text.includes(refresh_token) && !text.includes("mia"));
});

Deno.test("a wrong password, an unknown user and a disabled one are answered the same; the trail tells them apart, by pseudonyms", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const wrong = await login(world, "mia", "wrong");
  const unknown = await login(world, "nobody", PASSWORD);
  const found = await world.users.read(user.id);
  ok(found && await world.users.replace(found, { ...user, disabled: true }));
  const disabled = await login(world, "mia", PASSWORD);
  for (const called of [wrong, unknown, disabled]) {
    deepStrictEqual({ ...called, events: [] }, {
      status: 401,
      fault: "sign_in_refused",
      headers: {},
      events: [],
    });
  }
  const events = [wrong, unknown, disabled].flatMap((called) => called.events);
  deepStrictEqual(events.map((event) => event.type === "session.refused" && event.reason), [
    "wrong_password",
    "unknown_user",
    "disabled",
  ]);
  ok(!/mia|nobody/.test(JSON.stringify(events)), "a name that was tried is in the trail");
  deepStrictEqual(await world.sessions.list(user.id), []);
});

Deno.test("a sign-in with a proof of possession is bound to its key, tokens and session both (RFC 9449 §5)", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const called = await login(world, "mia", PASSWORD, { dpop: proofOf(world) });
  const print = await thumbprint(key.publicJwk);
  ok(print.ok);
  deepStrictEqual([called.status, called.body.token_type, called.headers["DPoP-Nonce"]], [
    200,
    "DPoP",
    world.proofs.nonce(),
  ]);
  strictEqual((await claimsOf(world, called.body.access_token)).boundTo, print.value);
  strictEqual((await world.sessions.list(user.id))[0]?.boundTo, print.value);
});

Deno.test("a proof that is refused ends the sign-in before the password counts, and brings the nonce for the next one", async () => {
  const world = await openWorld();
  await world.user("mia", ["user"]);
  for (
    const [proof, fault] of [
      [proofOf(world, { nonce: undefined }), "proof_nonce_needed"],
      [proofOf(world, { nonce: "old" }), "proof_nonce_needed"],
      [proofOf(world, { htm: "GET" }), "proof_refused"],
      [proofOf(world, { htu: `${ISSUER}/v1/auth/password` }), "proof_refused"],
      ["no proof", "proof_refused"],
      ["", "proof_refused"],
    ] as const
  ) {
    const called = await login(world, "mia", "wrong", { dpop: proof });
    deepStrictEqual([refusalOf(called), called.headers["DPoP-Nonce"], called.events], [
      [400, fault],
      world.proofs.nonce(),
      [],
    ]);
  }
  const once = proofOf(world);
  strictEqual((await login(world, "mia", PASSWORD, { dpop: once })).status, 200);
  deepStrictEqual(refusalOf(await login(world, "mia", PASSWORD, { dpop: once })), [400, "proof_refused"]);
});

Deno.test("too many wrong passwords make the right one wait: rate_limited", async () => {
  const world = await openWorld();
  await world.user("mia", ["user"]);
  for (let attempt = 0; attempt < 4; attempt++) await login(world, "mia", "wrong");
  deepStrictEqual(refusalOf(await login(world, "mia", PASSWORD)), [429, "rate_limited"]);
  world.clock.advance(1000);
  strictEqual((await login(world, "mia", PASSWORD)).status, 200);
});

Deno.test("a session that opens while the account is disabled, deleted or given another password is over at once", async () => {
  for (const change of ["disable", "delete", "password"] as const) {
    const world = await openWorld();
    const user = await world.user("mia", ["user"]);
    const { open } = world.sessions;
    // Between the check of the password and the opening: all sessions are ended before this one is there.
    world.sessions.open = async (order) => {
      const found = await world.users.read(user.id);
      ok(found);
      if (change === "disable") await world.users.replace(found, { ...user, disabled: true });
      else if (change === "delete") await world.users.remove(found);
      else await world.users.setPassword(found, "another good long one");
      await world.sessions.endAll(user.id);
      return await open(order);
    };
    const called = await login(world, "mia", PASSWORD);
    deepStrictEqual(refusalOf(called), [401, "sign_in_refused"], change);
    deepStrictEqual(await world.sessions.list(user.id), [], change);
    const [event] = called.events;
    deepStrictEqual(event?.type === "session.refused" && event.reason, "changed_meanwhile");
  }
});

Deno.test("a password that was hashed anew for its cost while it was checked still signs in", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const { open } = world.sessions;
  world.sessions.open = async (order) => {
    const found = await world.users.read(user.id);
    ok(found && await world.users.setPassword(found, PASSWORD));
    return await open(order);
  };
  strictEqual((await login(world, "mia", PASSWORD)).status, 200);
});

Deno.test("no token leaves without its record", async () => {
  const world = await openWorld();
  await world.user("mia", ["user"]);
  world.trail.setFailing(true);
  deepStrictEqual(refusalOf(await login(world, "mia", PASSWORD)), [503, "unavailable"]);
});

Deno.test("a body with another field, or a field of another type, is refused", async () => {
  const world = await openWorld();
  for (
    const [body, field] of [
      [{ username: "mia", password: PASSWORD, roles: ["admin"] }, "/roles"],
      [{ username: "mia", password: 1 }, "/password"],
      [{ username: ["mia"], password: "x" }, "/username"],
      [{ username: "mia" }, "/password"],
      [{ username: "mia", password: "x".repeat(1025) }, "/password"],
    ] as const
  ) {
    const called = await world.call(undefined, "POST", PATH, body);
    deepStrictEqual(refusalOf(called), [422, "fields_invalid", field]);
    deepStrictEqual(typesOf(called), []);
  }
});

Deno.test("the record of a sign-in names the sessions that it pushed out", async () => {
  const world = await openWorld();
  const user = await world.user("mia", ["user"]);
  const opened: string[] = [];
  for (let count = 0; count < 101; count++) {
    const { session } = await world.sessions.open({ userId: user.id, network: "192.0.2.1", boundTo: null });
    opened.push(session.id);
    world.clock.advance(1); // ids sort by the millisecond of their birth
  }
  const { events: [event] } = await login(world, "mia", PASSWORD);
  deepStrictEqual(event?.type === "session.started" && event.displaced, [opened[1]]);
});
