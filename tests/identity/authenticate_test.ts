// Tests of authenticate: one header, one scheme, one credential; who it is of is asked at every request; all else is nobody.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { hash } from "node:crypto";
import {
  type AuthenticationRefusal,
  externalTokenName,
  type Presented,
  type Recognition,
} from "../../src/identity/authenticate.ts";
import { grantsIn } from "../../src/access/grant.ts";
import { BUILT_IN_ROLES, OWN_GRANTS } from "../../src/access/role.ts";
import { Fault } from "../../src/faults/fault.ts";
import type { Outcome } from "../../src/faults/outcome.ts";
import type { Principal } from "../../src/access/principal.ts";
import type { Kept } from "../../src/identity/kept.ts";
import type { User } from "../../src/identity/users.ts";
import { ISSUER, makeSharedMatter, openIdentityUnderTest } from "../support/identity_under_test.ts";
import { ManualFeed } from "../support/manual_feed.ts";
import { encodePart, forgeToken } from "./forge_token.ts";
import { makeForeignKey } from "./foreign_key.ts";
import { answerKeys, makeKey, startKeyServer } from "./oidc/issuer_under_test.ts";

const PASSWORD = "correct horse battery staple";
const LOOPBACK = [127, 0, 0, 1];

async function openEntrance() {
  const identity = await openIdentityUnderTest();
  const { users, accessTokens, apiKeys, authenticate, clock } = identity;
  const user = await users.create({ username: "ada", password: PASSWORD, roles: ["user"], team: "default" });
  const order = { subject: user.id, session: "ses_1", scope: null, boundTo: null };
  const { token, id: tokenId, expiresAtSeconds } = await accessTokens.issue(order);
  const keyOrder = {
    name: "notebook",
    ownerId: user.id,
    scopes: ["model:infer/use-*"],
    addresses: ["192.0.2.0/24"],
    boundTo: null,
    expiresAtMs: clock.now() + 86_400_000,
    seenByOthers: false,
  };
  const recognise = (authorization: string | null, more: Partial<Presented> = {}): Promise<Recognition> =>
    authenticate({
      authorization,
      proof: null,
      method: "GET",
      path: "/v1/models",
      address: LOOPBACK,
      ...more,
    });
  return {
    ...identity,
    user,
    order,
    token,
    tokenId,
    expiresAtSeconds,
    keyOrder,
    makeKey: async () => await apiKeys.create(keyOrder),
    present: async (authorization: string | null, more: Partial<Presented> = {}) =>
      bare(await recognise(authorization, more)),
    recognise,
    /** The user as it is kept. */
    async kept(): Promise<Kept<User>> {
      const found = await users.read(user.id);
      ok(found);
      return found;
    },
  };
}

/** Without what is for the record alone. */
function bare(recognition: Recognition): Outcome<Principal, AuthenticationRefusal> {
  return recognition.ok ? recognition : { ok: false, reason: recognition.reason };
}

const refused = (reason: AuthenticationRefusal) => ({ ok: false, reason });

Deno.test("a user's token is its user, with the team, the roles and what they give at this moment", async () => {
  const entrance = await openEntrance();
  deepStrictEqual(await entrance.present(`Bearer ${entrance.token}`), {
    ok: true,
    value: {
      issuer: ISSUER,
      subject: entrance.user.id,
      kind: "user",
      team: "default",
      roles: ["user"],
      grants: BUILT_IN_ROLES.get("user")?.grants,
      scope: null,
      credential: {
        kind: "access_token",
        id: entrance.tokenId,
        expiresAtSeconds: entrance.expiresAtSeconds,
        session: "ses_1",
        boundTo: null,
      },
    },
  });
  await entrance.close();
});

Deno.test("RFC 9110 §11.1: the scheme is recognised in any case, with one space or more", async () => {
  const { present, token, user, close } = await openEntrance();
  for (const scheme of ["Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer    "]) {
    const outcome = await present(`${scheme}${token}`);
    strictEqual(outcome.ok && outcome.value.subject, user.id, scheme);
  }
  await close();
});

Deno.test("RFC 6750 §3.1: no header is told from a header with something else in it", async () => {
  const { present, close } = await openEntrance();
  deepStrictEqual(await present(null), refused("missing"));
  deepStrictEqual(await present(""), refused("scheme_unknown"));
  await close();
});

Deno.test("other schemes, several credentials and texts that are no b64token are refused unread", async () => {
  const { present, token, close } = await openEntrance();
  for (
    const header of [
      "Bearer",
      "Bearer ",
      token,
      `Bearer${token}`,
      `Bearer\t${token}`,
      `Bearer\u00a0${token}`,
      `Basic ${token}`,
      "Basic dXNlcjpwYXNz",
      `Token ${token}`,
      `Bearer ${token}, Bearer ${token}`, // two headers, joined
      `Bearer ${token},Bearer ${token}`,
      `Bearer ${token}, DPoP ${token}`,
      `Bearer ${token} ${token}`,
      `Basic dXNlcjpwYXNz, Bearer ${token}`,
      `Bearer ${token}\r\nX-Role: admin`,
      `Bearer "${token}"`,
      `Bearer token=${token},x`,
      `xBearer ${token}`,
      ` Bearer ${token}`,
      `Bearer ${token} `,
    ]
  ) deepStrictEqual(await present(header), refused("scheme_unknown"), header.slice(0, 20));
  await close();
});

Deno.test("a token's own refusal comes through", async () => {
  const { present, token, clock, close } = await openEntrance();
  deepStrictEqual(await present("Bearer abc"), refused("malformed"));
  deepStrictEqual(await present(`Bearer =${token}`), refused("malformed"));
  deepStrictEqual(await present(`Bearer ${"A".repeat(100_000)}`), refused("malformed"));
  clock.advance(900_000);
  deepStrictEqual(await present(`Bearer ${token}`), refused("expired"));
  await close();
});

Deno.test("RFC 8725 §3.8: a token of an issuer that nobody configured is judged as ours, and is not ours", async () => {
  const { present, user, close } = await openEntrance();
  const key = makeForeignKey("EdDSA");
  const header = { alg: "EdDSA", typ: "at+jwt", kid: "theirs" };
  const claims = {
    iss: "https://idp.example",
    aud: ISSUER,
    sub: user.id,
    iat: 1_750_000_000,
    exp: 1_750_000_900,
  };
  deepStrictEqual(await present(`Bearer ${forgeToken(header, claims, key.signer)}`), refused("key_unknown"));
  await close();
});

Deno.test("ASVS V7.4.2, V8.3.2: a changed role, a disabled user and a deleted one hold from the next request on, for tokens and keys", async () => {
  const entrance = await openEntrance();
  const { users, present, token, makeKey, kept, close } = entrance;
  const { text } = await makeKey();
  const from = { address: [192, 0, 2, 7] };
  const rolesOf = async (credential: string) => {
    const outcome = await present(`Bearer ${credential}`, from);
    return outcome.ok ? outcome.value.roles : outcome.reason;
  };
  for (const credential of [token, text]) deepStrictEqual(await rolesOf(credential), ["user"]);
  let found = await kept();
  ok(await users.replace(found, { ...found.value, roles: ["auditor"] }));
  for (const credential of [token, text]) deepStrictEqual(await rolesOf(credential), ["auditor"]);
  found = await kept();
  ok(await users.replace(found, { ...found.value, disabled: true }));
  for (const credential of [token, text]) strictEqual(await rolesOf(credential), "subject_inactive");
  found = await kept();
  ok(await users.replace(found, { ...found.value, disabled: false }));
  for (const credential of [token, text]) deepStrictEqual(await rolesOf(credential), ["auditor"]);
  ok(await users.remove(await kept()));
  for (const credential of [token, text]) strictEqual(await rolesOf(credential), "subject_inactive");
  await close();
});

Deno.test("an API key is its owner narrowed to its scopes, from its addresses only", async () => {
  const { present, makeKey, user, close } = await openEntrance();
  const { key, text } = await makeKey();
  const outcome = await present(`Bearer ${text}`, { address: [192, 0, 2, 7] });
  ok(outcome.ok);
  deepStrictEqual(
    [outcome.value.subject, outcome.value.scope, outcome.value.credential],
    [user.id, [{ action: "model:infer", on: "use-*", cardRole: null }], {
      kind: "api_key",
      id: key.id,
      expiresAtSeconds: null,
      session: null,
      boundTo: null,
    }],
  );
  for (const address of [LOOPBACK, [192, 0, 3, 7], [0x20, 0x01, ...Array(14).fill(0)]]) {
    deepStrictEqual(await present(`Bearer ${text}`, { address }), refused("address_not_allowed"));
  }
  deepStrictEqual(await present(`Bearer ${text}x`, { address: [192, 0, 2, 7] }), refused("key_malformed"));
  await close();
});

/** A proof of possession by hand (RFC 9449 §4.2). */
function proofFor(
  entrance: Awaited<ReturnType<typeof openEntrance>>,
  key: ReturnType<typeof makeForeignKey>,
  credential: string,
  claims: Readonly<Record<string, unknown>> = {},
): string {
  return forgeToken({ typ: "dpop+jwt", alg: "ES256", jwk: key.publicJwk }, {
    jti: crypto.randomUUID(),
    htm: "GET",
    htu: `${ISSUER}/v1/models`,
    iat: Math.floor(entrance.clock.now() / 1000),
    nonce: entrance.proofs.nonce(),
    ath: hash("sha256", credential, "base64url"),
    ...claims,
  }, key.signer);
}

/** RFC 7638 §3, by hand. */
function thumbprintOf({ crv, kty, x, y }: Readonly<Record<string, string>>): string {
  return encodePart(Uint8Array.fromBase64(hash("sha256", JSON.stringify({ crv, kty, x, y }), "base64")));
}

for (const kind of ["access token", "API key"] as const) {
  Deno.test(`RFC 9449 §7.1, ASVS V10.3.5: a bound ${kind} is worth nothing without a proof by its key for this request`, async () => {
    const entrance = await openEntrance();
    const { present, accessTokens, apiKeys, order, keyOrder, close } = entrance;
    const [key, other] = [makeForeignKey("ES256"), makeForeignKey("ES256")];
    const boundTo = thumbprintOf(key.publicJwk);
    const credential = kind === "API key"
      ? (await apiKeys.create({ ...keyOrder, addresses: [], boundTo })).text
      : (await accessTokens.issue({ ...order, boundTo })).token;
    const proof = proofFor(entrance, key, credential);

    deepStrictEqual(await present(`Bearer ${credential}`), refused("proof_missing"));
    deepStrictEqual(await present(`Bearer ${credential}`, { proof }), refused("proof_missing"));
    deepStrictEqual(await present(`DPoP ${credential}`), refused("proof_missing"));
    const outcome = await present(`DPoP ${credential}`, { proof });
    strictEqual(outcome.ok && outcome.value.credential.boundTo, boundTo);
    deepStrictEqual(await present(`DPoP ${credential}`, { proof }), refused("proof_replayed"));
    deepStrictEqual(
      await present(`DPoP ${credential}`, { proof: proofFor(entrance, other, credential) }),
      refused("bound_to_other_key"),
    );
    deepStrictEqual(
      await present(`DPoP ${credential}`, { proof: proofFor(entrance, key, "another token") }),
      refused("proof_token_wrong"),
    );
    deepStrictEqual(
      await present(`DPoP ${credential}`, { proof: proofFor(entrance, key, credential), method: "POST" }),
      refused("proof_for_other_request"),
    );
    deepStrictEqual(
      await present(`DPoP ${credential}`, { proof: proofFor(entrance, key, credential), path: "/v1/keys" }),
      refused("proof_for_other_request"),
    );
    await close();
  });
}

Deno.test("RFC 9449 §7.1: a credential that is not bound is refused under the scheme DPoP, proof or not", async () => {
  const entrance = await openEntrance();
  const key = makeForeignKey("ES256");
  const proof = proofFor(entrance, key, entrance.token);
  deepStrictEqual(await entrance.present(`DPoP ${entrance.token}`), refused("not_bound"));
  deepStrictEqual(await entrance.present(`DPoP ${entrance.token}`, { proof }), refused("not_bound"));
  strictEqual((await entrance.present(`Bearer ${entrance.token}`, { proof })).ok, true);
  await entrance.close();
});

const IDP = "https://idp.example";

/** An entrance that believes one other issuer, and tokens of that one. */
async function openForeignEntrance() {
  const server = await startKeyServer();
  const key = makeKey("k1", "EdDSA");
  server.plays(answerKeys(key));
  const setting = { issuer: IDP, jwksUrl: `${server.url}/jwks`, roles: { staff: ["user"] }, team: "default" };
  const identity = await openIdentityUnderTest({ PORTCULLIS_ISSUERS: JSON.stringify([setting]) });
  const seconds = identity.clock.now() / 1000;
  const claims = { iss: IDP, aud: ISSUER, sub: "42", iat: seconds, exp: seconds + 900, roles: ["staff"] };
  return {
    ...identity,
    present: async (more: Readonly<Record<string, unknown>>) =>
      bare(
        await identity.authenticate({
          authorization: `Bearer ${
            forgeToken({ alg: "EdDSA", typ: "at+jwt", kid: "k1" }, { ...claims, ...more }, key.sign)
          }`,
          proof: null,
          method: "GET",
          path: "/v1/models",
          address: LOOPBACK,
        }),
      ),
    async close() {
      await identity.close();
      await server.close();
    },
  };
}

Deno.test("ASVS V10.3.2: another issuer's scope narrows where it speaks of our actions, and what is wrong in it gives nothing", async () => {
  const { present, close } = await openForeignEntrance();
  const scopeOf = async (scope: string | undefined) => {
    const outcome = await present(scope === undefined ? {} : { scope });
    ok(outcome.ok);
    return outcome.value.scope?.map(({ action, on }) => `${action}/${on}`) ?? null;
  };
  for (const scope of [undefined, "", "openid profile email", "users:read", "api://x/.default"]) {
    strictEqual(await scopeOf(scope), null, scope ?? "no scope");
  }
  deepStrictEqual(await scopeOf("openid model:infer/use-* model:read"), [
    "model:infer/use-*",
    "model:read/*",
  ]);
  for (
    const scope of ["key:read/mine", "model:infer/\u00fc", "model:use", "model:infer/", "user:write/all"]
  ) {
    deepStrictEqual(await scopeOf(scope), [], scope);
  }
  deepStrictEqual(await scopeOf("model:use model:read"), ["model:read/*"]);
  await close();
});

Deno.test("ASVS V7.4.1, V6.8.1: an external token that its holder ended is refused, and one of the same id by us or others is not", async () => {
  const { present, revocations, clock, close } = await openForeignEntrance();
  strictEqual((await present({ jti: "tok_1" })).ok, true);
  await revocations.revoke("tok_1", clock.now() + 900_000);
  strictEqual((await present({ jti: "tok_1" })).ok, true);
  await revocations.revoke(externalTokenName(IDP, "tok_1"), clock.now() + 900_000);
  deepStrictEqual(await present({ jti: "tok_1" }), refused("revoked"));
  strictEqual((await present({ jti: "tok_2" })).ok, true);
  await close();
});

Deno.test("ASVS V16.2.1: a genuine credential that is refused says whose it is, for the record; a claimed id is told as that", async () => {
  const entrance = await openEntrance();
  const { recognise, accessTokens, apiKeys, revocations, order, keyOrder, user, tokenId, token } = entrance;
  const whose = (credential: string) => ({ issuer: ISSUER, subject: user.id, team: "default", credential });
  const { key, text } = await apiKeys.create(keyOrder);
  deepStrictEqual(await recognise(`Bearer ${text}`), {
    ok: false,
    reason: "address_not_allowed",
    whose: whose(key.id),
  });
  const bound = await accessTokens.issue({ ...order, boundTo: encodePart(new Uint8Array(32)) });
  deepStrictEqual(await recognise(`Bearer ${bound.token}`), {
    ok: false,
    reason: "proof_missing",
    whose: whose(bound.id),
  });
  deepStrictEqual(await recognise(`DPoP ${token}`), {
    ok: false,
    reason: "not_bound",
    whose: whose(tokenId),
  });
  await revocations.revoke(tokenId, entrance.clock.now() + 900_000);
  deepStrictEqual(await recognise(`Bearer ${token}`), {
    ok: false,
    reason: "revoked",
    whose: whose(tokenId),
  });
  deepStrictEqual(await recognise(`Bearer ${key.id}_${"A".repeat(43)}`), {
    ok: false,
    reason: "key_wrong",
    claimed: key.id,
  });
  await entrance.close();
});

/** Two instances over one store; the second is told by hand of what the first changes. */
async function openTwo() {
  const matter = await makeSharedMatter();
  const feed = new ManualFeed();
  const here = await openIdentityUnderTest({}, matter);
  const there = await openIdentityUnderTest({}, { ...matter, feed });
  const { clock } = matter;
  const present = async (credential: string): Promise<AuthenticationRefusal | Principal> => {
    const recognition = await there.authenticate({
      authorization: `Bearer ${credential}`,
      proof: null,
      method: "GET",
      path: "/v1/models",
      address: LOOPBACK,
    });
    return recognition.ok ? recognition.value : recognition.reason;
  };
  return {
    here,
    there,
    feed,
    clock,
    present,
    async close() {
      await here.close();
      await there.close();
    },
  };
}

/** What the second instance is told of: one record, or that any of a table may have changed. */
for (const tellsAll of [false, true]) {
  const scope = tellsAll ? "that anything changed" : "of it";

  Deno.test(`ASVS V7.4.1, V8.3.2: what one instance ends or changes holds at the next request to another that is told ${scope}`, async () => {
    const { here, feed, clock, present, close } = await openTwo();
    const tell = (table: string, key: string): Promise<void> => feed.tell(table, tellsAll ? undefined : key);
    const user = await here.users.create({
      username: "ada",
      password: PASSWORD,
      roles: ["user", "labs"],
      team: "default",
    });
    const kept = async (): Promise<Kept<User>> => {
      const found = await here.users.read(user.id);
      ok(found);
      return found;
    };
    const issue = async (session: string) =>
      await here.accessTokens.issue({ subject: user.id, session, scope: null, boundTo: null });
    const grantsThere = async (credential: string): Promise<number | string> => {
      const principal = await present(credential);
      return typeof principal === "string" ? principal : principal.grants.length;
    };
    const [one, two, three] = [await issue("ses_1"), await issue("ses_1"), await issue("ses_2")];
    const own = BUILT_IN_ROLES.get("user")?.grants.length ?? 0;
    for (const { token } of [one, two, three]) strictEqual(await grantsThere(token), own);

    // A role is made, changed and removed.
    const role = { name: "labs", team: "default", description: "", builtIn: false, createdAtMs: 0 };
    await here.roleBook.put({ ...role, grants: grantsIn(["model:infer/lab-*"]) }, undefined);
    strictEqual(await grantsThere(one.token), own, "it is not told yet");
    await tell("roles", '["default","labs"]');
    const withRole = own + 1 + OWN_GRANTS.length;
    strictEqual(await grantsThere(one.token), withRole);
    await here.roleBook.put({ ...role, grants: [] }, here.roleBook.find("default", "labs"));
    await tell("roles", '["default","labs"]');
    strictEqual(await grantsThere(one.token), withRole - 1);

    // A token is revoked, and a session ends.
    await here.revocations.revoke(one.id, one.expiresAtSeconds * 1000);
    await tell("revoked_tokens", one.id);
    strictEqual(await present(one.token), "revoked");
    ok(typeof await present(two.token) === "object");
    await here.revocations.revoke("ses_1", clock.now() + 3_600_000);
    await tell("revoked_tokens", "ses_1");
    strictEqual(await present(two.token), "revoked");

    // A key is removed.
    const { key, text } = await here.apiKeys.create({
      name: "notebook",
      ownerId: user.id,
      scopes: ["model:infer"],
      addresses: [],
      boundTo: null,
      expiresAtMs: clock.now() + 86_400_000,
      seenByOthers: false,
    });
    ok(typeof await present(text) === "object");
    const keptKey = await here.apiKeys.read(key.id);
    ok(keptKey && await here.apiKeys.remove(keptKey));
    await tell("api_keys", key.id);
    strictEqual(await present(text), "key_unknown");

    // A user gets other roles, and is disabled.
    ok(await here.users.replace(await kept(), { ...(await kept()).value, roles: [] }));
    await tell("users", user.id);
    strictEqual(await grantsThere(three.token), 0);
    ok(await here.users.replace(await kept(), { ...(await kept()).value, disabled: true }));
    await tell("users", user.id);
    strictEqual(await present(three.token), "subject_inactive");

    // A client gets other roles, and loses its tokens.
    const { client } = await here.clients.create({
      name: "nightly",
      team: "default",
      roles: ["user"],
      authentication: "secret",
      keys: [],
    });
    const order = { subject: client.id, clientId: client.id, session: null, scope: null, boundTo: null };
    const ofClient = await here.accessTokens.issue(order);
    strictEqual(await grantsThere(ofClient.token), own);
    const keptClient = await here.clients.read(client.id);
    ok(keptClient && await here.clients.replace(keptClient, { ...keptClient.value, disabled: true }));
    await tell("clients", client.id);
    strictEqual(await present(ofClient.token), "subject_inactive");
    await close();
  });

  Deno.test(`a token of a signing key that another instance made is recognised by one that is told ${scope}`, async () => {
    const { here, feed, clock, present, close } = await openTwo();
    const user = await here.users.create({
      username: "ada",
      password: PASSWORD,
      roles: ["user"],
      team: "default",
    });
    const order = { subject: user.id, session: "ses_1", scope: null, boundTo: null };
    const before = await here.accessTokens.issue(order);
    clock.advance(1);
    const keyId = await here.signingKeys.rotate();
    const after = await here.accessTokens.issue(order);
    strictEqual(await present(after.token), "key_unknown");
    await feed.tell("signing_keys", tellsAll ? undefined : keyId);
    for (const { token } of [before, after]) ok(typeof await present(token) === "object");
    await close();
  });
}

Deno.test("each table whose records are kept at hand is followed", async () => {
  const { feed, close } = await openTwo();
  deepStrictEqual(feed.tables(), ["api_keys", "clients", "revoked_tokens", "roles", "signing_keys", "users"]);
  await close();
});

Deno.test("ASVS V16.5.3: while it is not known what other instances changed nobody is recognised, and nothing is looked at", async () => {
  const { here, feed, present, close } = await openTwo();
  const user = await here.users.create({
    username: "ada",
    password: PASSWORD,
    roles: ["user"],
    team: "default",
  });
  const { token } = await here.accessTokens.issue({
    subject: user.id,
    session: "ses_1",
    scope: null,
    boundTo: null,
  });
  ok(typeof await present(token) === "object");
  feed.current = false;
  for (const credential of [token, "abc", `pck_${"0".repeat(26)}_${"A".repeat(43)}`]) {
    await rejects(present(credential), (thrown) => {
      ok(thrown instanceof Fault);
      deepStrictEqual([thrown.kind, thrown.details.retryAfterSeconds], ["unavailable", 1]);
      return true;
    });
  }
  feed.current = true;
  ok(typeof await present(token) === "object");
  await close();
});
