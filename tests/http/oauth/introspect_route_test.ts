// Tests of introspection: what is said of tokens that are worth something, and nothing of all others (RFC 7662).
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { makeForeignKey } from "../../identity/foreign_key.ts";
import { ManualFeed } from "../../support/manual_feed.ts";
import { basic, claimsOf, refreshing } from "./oauth_messages.ts";
import {
  assertionOf,
  INTROSPECT_URL,
  ISSUER,
  type OauthUnderTest,
  openHolder,
  openOauthUnderTest,
  REVOKE_URL,
  TOKEN_URL,
  withOauth,
} from "./oauth_under_test.ts";

const GRANT = { grant_type: "client_credentials" };
const INACTIVE = { active: false };

/** What a client that may ask about everything is told. */
async function openAsker(oauth: OauthUnderTest, roles = ["admin"], team = "default") {
  const { client, by } = await oauth.secretClient(roles, team);
  return {
    client,
    async ask(token: unknown): Promise<Record<string, unknown>> {
      const { status, body } = await oauth.post(INTROSPECT_URL, { token: String(token) }, by);
      strictEqual(status, 200);
      return body;
    },
  };
}

Deno.test("an access token of a client is told as it stands (RFC 7662 §2.2)", async () => {
  await withOauth(async (oauth) => {
    const asker = await openAsker(oauth);
    const { client, by } = await oauth.secretClient(["user"]);
    const { body } = await oauth.post(TOKEN_URL, { ...GRANT, scope: "model:read model:infer/a*" }, by);
    const { exp, iat, jti } = claimsOf(body.access_token);
    deepStrictEqual(await asker.ask(body.access_token), {
      active: true,
      iss: ISSUER,
      sub: client.id,
      aud: ISSUER,
      client_id: client.id,
      exp,
      iat,
      jti,
      scope: "model:read model:infer/a*",
      token_type: "Bearer",
    });
    const event = oauth.events().at(-1);
    ok(event?.type === "request.allowed");
    deepStrictEqual([event.action, event.object, event.subject, event.credential], [
      "token:introspect",
      `client/${client.id}`,
      asker.client.id,
      asker.client.id,
    ]);
  });
});

Deno.test("an access token of a session tells the session, and the key that it is bound to", async () => {
  await withOauth(async (oauth) => {
    const asker = await openAsker(oauth);
    const holder = await openHolder(oauth);
    const { user, session, refreshToken } = await oauth.session(["user"], { boundTo: holder.thumbprint });
    const { body } = await oauth.post(TOKEN_URL, refreshing(refreshToken), { dpop: holder.proof() });
    const { exp, iat, jti } = claimsOf(body.access_token);
    deepStrictEqual(await asker.ask(body.access_token), {
      active: true,
      iss: ISSUER,
      sub: user.id,
      aud: ISSUER,
      client_id: "portcullis",
      exp,
      iat,
      jti,
      sid: session.id,
      token_type: "DPoP",
      cnf: { jkt: holder.thumbprint },
    });
    // The refresh token is for the token endpoint only: it has no audience and no type of access token.
    deepStrictEqual(await asker.ask(body.refresh_token), {
      active: true,
      iss: ISSUER,
      sub: user.id,
      client_id: "portcullis",
      exp: Math.floor(session.expiresAtMs / 1000),
      iat: Math.floor(session.createdAtMs / 1000),
      sid: session.id,
      cnf: { jkt: holder.thumbprint },
    });
  });
});

Deno.test("an API key is told with its owner, its scope and its end, and as inactive where it holds from some addresses only", async () => {
  await withOauth(async (oauth) => {
    const asker = await openAsker(oauth);
    const holder = await openHolder(oauth);
    const { user } = await oauth.session(["user"]);
    const order = {
      name: "key",
      ownerId: user.id,
      scopes: ["model:read", "model:infer/a*"],
      addresses: [],
      boundTo: holder.thumbprint,
      expiresAtMs: oauth.clock.now() + 60_000,
      seenByOthers: false,
    };
    const { key, text } = await oauth.apiKeys.create(order);
    const told = {
      active: true,
      iss: ISSUER,
      sub: user.id,
      aud: ISSUER,
      exp: Math.floor(key.expiresAtMs / 1000),
      iat: Math.floor(key.createdAtMs / 1000),
      jti: key.id,
      scope: "model:read model:infer/a*",
    };
    deepStrictEqual(await asker.ask(text), { ...told, token_type: "DPoP", cnf: { jkt: holder.thumbprint } });
    const plain = await oauth.apiKeys.create({ ...order, boundTo: null });
    deepStrictEqual(await asker.ask(plain.text), { ...told, jti: plain.key.id, token_type: "Bearer" });
    const fromSome = await oauth.apiKeys.create({ ...order, addresses: ["192.0.2.0/24"] });
    deepStrictEqual(await asker.ask(fromSome.text), INACTIVE);
    deepStrictEqual(await asker.ask(`${text.slice(0, -1)}${text.endsWith("A") ? "B" : "A"}`), INACTIVE);
    oauth.clock.advance(60_000);
    deepStrictEqual(await asker.ask(text), INACTIVE);
  });
});

Deno.test('a token that is worth nothing is exactly {"active":false}, whatever the reason (RFC 7662 §2.2)', async () => {
  await withOauth(async (oauth) => {
    const asker = await openAsker(oauth);
    const { client, by } = await oauth.secretClient(["user"]);
    const get = async () => String((await oauth.post(TOKEN_URL, GRANT, by)).body.access_token);
    const [good, revoked] = [await get(), await get()];
    await oauth.post(REVOKE_URL, { token: revoked }, by);
    const { refreshToken: used } = await oauth.session(["user"]);
    const { body } = await oauth.post(TOKEN_URL, refreshing(used));
    const ended = await oauth.session(["user"]);
    const ofEnded = (await oauth.post(TOKEN_URL, refreshing(ended.refreshToken))).body;
    await oauth.sessions.end(ended.session);
    for (
      const token of [
        revoked,
        used,
        ofEnded.access_token,
        ofEnded.refresh_token,
        `${good.slice(0, -4)}AAAA`,
        `${good}.x`,
        `prt_${"A".repeat(43)}`,
        `pck_${"0".repeat(26)}_${"A".repeat(43)}`,
        "pck_",
        "x",
        "\u0000",
        "é".repeat(1000),
        "x".repeat(15_000),
      ]
    ) deepStrictEqual(await asker.ask(token), INACTIVE);

    for (const token of [good, body.access_token, body.refresh_token]) {
      strictEqual((await asker.ask(token)).active, true);
    }
    // The account behind it is disabled.
    const found = await oauth.clients.read(client.id);
    ok(found && await oauth.clients.replace(found, { ...found.value, disabled: true }));
    deepStrictEqual(await asker.ask(good), INACTIVE);
    oauth.clock.advance(3_600_000);
    deepStrictEqual(await asker.ask(body.access_token), INACTIVE);
  });
});

Deno.test("a client of one team is told nothing of another team's tokens, and its own team's all the same (ASVS V8.4.1)", async () => {
  await withOauth(async (oauth) => {
    await oauth.team("red");
    await oauth.team("blue");
    const [red, blue, any] = [
      await openAsker(oauth, ["team-admin"], "red"),
      await openAsker(oauth, ["team-admin"], "blue"),
      await openAsker(oauth),
    ];
    const { refreshToken } = await oauth.session(["user"], { team: "red" });
    const { body } = await oauth.post(TOKEN_URL, refreshing(refreshToken));
    for (const token of [body.access_token, body.refresh_token]) {
      strictEqual((await red.ask(token)).active, true);
      strictEqual((await any.ask(token)).active, true);
      deepStrictEqual(await blue.ask(token), INACTIVE);
    }
  });
});

Deno.test("a client whose roles do not give token:introspect is unauthorized_client, whatever the token", async () => {
  await withOauth(async (oauth) => {
    const { by } = await oauth.secretClient(["user", "auditor"]);
    const own = String((await oauth.post(TOKEN_URL, GRANT, by)).body.access_token);
    for (const token of [own, "x"]) {
      const { status, body } = await oauth.post(INTROSPECT_URL, { token }, by);
      deepStrictEqual([status, body.error], [403, "unauthorized_client"]);
    }
    deepStrictEqual(oauth.events("request.allowed"), []);
  });
});

Deno.test("nobody asks without proving to be a client: not even whoever holds the token (RFC 7662 §2.1)", async () => {
  await withOauth(async (oauth) => {
    const { client, by } = await oauth.secretClient(["admin"]);
    const token = String((await oauth.post(TOKEN_URL, GRANT, by)).body.access_token);
    for (
      const [form, headers] of [
        [{}, {}],
        [{ client_id: "portcullis" }, {}],
        [{ client_id: client.id }, {}],
        [{}, basic(client.id, "x")],
        [{}, { authorization: `Bearer ${token}` }],
      ] as const
    ) {
      const { status, headers: answered, body } = await oauth.post(
        INTROSPECT_URL,
        { token, ...form },
        headers,
      );
      deepStrictEqual([status, body.error, "active" in body], [401, "invalid_client", false]);
      ok(answered.has("www-authenticate"));
    }
    const key = makeForeignKey("ES256");
    const keyed = await oauth.keyClient(["admin"], key);
    for (const aud of [ISSUER, `${ISSUER}${TOKEN_URL}`, `${ISSUER}${INTROSPECT_URL}`]) {
      const { body } = await oauth.post(INTROSPECT_URL, {
        token,
        ...assertionOf(oauth, keyed.id, key, { aud }),
      });
      strictEqual(body.active, true);
    }
  });
});

Deno.test("an introspection without a token is invalid_request; one that cannot be recorded is 503", async () => {
  await withOauth(async (oauth) => {
    const { by } = await oauth.secretClient(["admin"]);
    const { status, body } = await oauth.post(INTROSPECT_URL, "token_type_hint=access_token", by);
    deepStrictEqual([status, body.error], [400, "invalid_request"]);
    oauth.trail.setFailing(true);
    const answer = await oauth.post(INTROSPECT_URL, { token: "x" }, by);
    deepStrictEqual([answer.status, answer.body.error], [503, "temporarily_unavailable"]);
  });
});

Deno.test("the record of an introspection names whose token was asked about, where the asker may know of them", async () => {
  await withOauth(async (oauth) => {
    await oauth.team("red");
    await oauth.team("blue");
    const [red, blue] = [
      await openAsker(oauth, ["team-admin"], "red"),
      await openAsker(oauth, ["team-admin"], "blue"),
    ];
    const { user, refreshToken } = await oauth.session(["user"], { team: "red" });
    const { body } = await oauth.post(TOKEN_URL, refreshing(refreshToken));
    const recorded = async (asker: typeof red, token: unknown): Promise<unknown> => {
      await asker.ask(token);
      const event = oauth.events().at(-1);
      return event?.type === "request.allowed" && event.object;
    };
    for (const token of [body.access_token, body.refresh_token]) {
      strictEqual(await recorded(red, token), `user/${user.id}`);
      strictEqual(await recorded(blue, token), null);
    }
    strictEqual(await recorded(red, "x"), null);
    // Also where the token is worth nothing any more because its account is disabled.
    const found = await oauth.users.read(user.id);
    ok(found && await oauth.users.replace(found, { ...user, disabled: true }));
    strictEqual(await recorded(red, body.access_token), `user/${user.id}`);
    deepStrictEqual(await red.ask(body.access_token), INACTIVE);
  });
});

Deno.test("nothing is said of any token while it is not known what other instances changed", async () => {
  const feed = new ManualFeed();
  const oauth = await openOauthUnderTest({}, undefined, feed);
  try {
    const asker = await openAsker(oauth);
    const { by } = await oauth.secretClient(["user"]);
    const { body } = await oauth.post(TOKEN_URL, GRANT, by);
    feed.current = false;
    const answer = await oauth.post(INTROSPECT_URL, { token: String(body.access_token) }, by);
    deepStrictEqual([answer.status, answer.body.error], [503, "temporarily_unavailable"]);
    strictEqual(answer.headers.get("retry-after"), "1");
    feed.current = true;
    strictEqual((await asker.ask(body.access_token)).active, true);
  } finally {
    await oauth.close();
  }
});

Deno.test("a token that another instance revoked is worth nothing here once that is told", async () => {
  const feed = new ManualFeed();
  const elsewhere = await openOauthUnderTest();
  const oauth = await openOauthUnderTest({}, elsewhere, feed);
  try {
    const asker = await openAsker(oauth);
    const { by } = await elsewhere.secretClient(["user"]);
    const { body } = await elsewhere.post(TOKEN_URL, GRANT, by);
    strictEqual((await asker.ask(body.access_token)).active, true);
    strictEqual((await elsewhere.post(REVOKE_URL, { token: String(body.access_token) }, by)).status, 200);
    await feed.tell("revoked_tokens", String(claimsOf(body.access_token).jti));
    deepStrictEqual(await asker.ask(body.access_token), INACTIVE);
  } finally {
    await oauth.close();
    await elsewhere.close();
  }
});
