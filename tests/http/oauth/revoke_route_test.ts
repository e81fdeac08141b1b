// Tests of revocation: whose tokens end, whose do not, and that nothing is said of those that are not one's own (RFC 7009).
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { makeForeignKey } from "../../identity/foreign_key.ts";
import { basic, claimsOf, refreshing } from "./oauth_messages.ts";
import {
  assertionOf,
  ISSUER,
  type OauthUnderTest,
  openHolder,
  openOauthUnderTest,
  REVOKE_URL,
  TOKEN_URL,
  withOauth,
} from "./oauth_under_test.ts";
import { watchStore } from "../../identity/watched_store.ts";

const GRANT = { grant_type: "client_credentials" };

Deno.test("a refresh token ends its session for whoever has it: neither it nor any access token works any more", async () => {
  await withOauth(async (oauth) => {
    const { user, session, refreshToken } = await oauth.session(["user"]);
    const { body } = await oauth.post(TOKEN_URL, refreshing(refreshToken));
    const before = oauth.events().length;
    const answer = await oauth.post(REVOKE_URL, {
      token: String(body.refresh_token),
      token_type_hint: "refresh_token",
      client_id: "portcullis",
    });
    deepStrictEqual([answer.status, answer.body, answer.headers.get("cache-control")], [200, {}, "no-store"]);
    strictEqual(await oauth.opens(`Bearer ${body.access_token}`), false);
    strictEqual((await oauth.post(TOKEN_URL, refreshing(String(body.refresh_token)))).status, 400);
    const [ended] = oauth.events().slice(before);
    deepStrictEqual({ ...ended, request: "" }, {
      type: "session.ended",
      request: "",
      address: "192.0.2.1",
      route: "POST /oauth2/revoke",
      issuer: ISSUER,
      subject: user.id,
      team: "default",
      credential: session.id,
      session: session.id,
    });
  });
});

Deno.test("ASVS V16.5.3: an end that could not be written is 503 and ends nothing; the same call again ends it on every instance", async () => {
  const matter = await openOauthUnderTest();
  const store = watchStore(matter.store);
  const here = await openOauthUnderTest({}, { ...matter, store });
  const { refreshToken } = await here.session(["user"]);
  const { body } = await here.post(TOKEN_URL, refreshing(refreshToken));
  const { body: other } = await here.post(TOKEN_URL, refreshing((await here.session(["user"])).refreshToken));
  const tokens = [String(body.refresh_token), String(other.access_token)];
  const revoke = async () => {
    const statuses: number[] = [];
    for (const token of tokens) statuses.push((await here.post(REVOKE_URL, { token })).status);
    return statuses;
  };
  const isGood = async (oauth: OauthUnderTest) => [
    await oauth.opens(`Bearer ${body.access_token}`),
    await oauth.opens(`Bearer ${other.access_token}`),
    await oauth.sessions.inspect(tokens[0] ?? "") !== undefined,
  ];
  store.dieAfter(0);
  for (let call = 0; call < 2; call++) {
    deepStrictEqual(await revoke(), [503, 503]);
    deepStrictEqual(await isGood(here), [true, true, true]);
  }
  store.dieAfter(Infinity);
  deepStrictEqual(await revoke(), [200, 200]);
  const elsewhere = await openOauthUnderTest({}, matter);
  for (const oauth of [here, elsewhere]) deepStrictEqual(await isGood(oauth), [false, false, false]);
  for (const oauth of [elsewhere, here, matter]) await oauth.close();
});

Deno.test("the session of a user who is deleted can still be ended", async () => {
  await withOauth(async (oauth) => {
    const { user, session, refreshToken } = await oauth.session(["user"]);
    const found = await oauth.users.read(user.id);
    ok(found && await oauth.users.remove(found));
    strictEqual((await oauth.post(REVOKE_URL, { token: refreshToken })).status, 200);
    strictEqual(await oauth.sessions.read(session.id), undefined);
  });
});

Deno.test("an access token of a user ends for whoever has it, alone: its session goes on (RFC 7009 §2.1)", async () => {
  await withOauth(async (oauth) => {
    const { user, refreshToken } = await oauth.session(["user"]);
    const { body } = await oauth.post(TOKEN_URL, refreshing(refreshToken));
    const next = await oauth.post(TOKEN_URL, refreshing(String(body.refresh_token)));
    strictEqual((await oauth.post(REVOKE_URL, { token: String(body.access_token) })).status, 200);
    strictEqual(await oauth.opens(`Bearer ${body.access_token}`), false);
    strictEqual(await oauth.opens(`Bearer ${next.body.access_token}`), true);
    strictEqual((await oauth.post(TOKEN_URL, refreshing(String(next.body.refresh_token)))).status, 200);
    const [ended] = oauth.events("session.ended");
    ok(ended?.type === "session.ended");
    deepStrictEqual([ended.subject, ended.credential, ended.session], [
      user.id,
      claimsOf(body.access_token).jti,
      null,
    ]);
  });
});

Deno.test("an access token of a client ends when that client asks, by any of its proofs, and no other one", async () => {
  await withOauth(async (oauth) => {
    const key = makeForeignKey("ES256");
    const { client, secret, by } = await oauth.secretClient(["user"]);
    const keyed = await oauth.keyClient(["user"], key);
    const endpoint = { aud: `${ISSUER}${REVOKE_URL}` };
    for (
      const [give, form, headers] of [
        [by, {}, by],
        [by, { client_id: client.id, client_secret: secret }, {}],
        [{}, assertionOf(oauth, keyed.id, key, endpoint), {}],
      ] as const
    ) {
      const got = async () =>
        String(
          (await oauth.post(TOKEN_URL, {
            ...GRANT,
            ...(give === by ? {} : assertionOf(oauth, keyed.id, key)),
          }, give)).body.access_token,
        );
      const [token, other] = [await got(), await got()];
      strictEqual(
        (await oauth.post(REVOKE_URL, { token, token_type_hint: "nonsense", ...form }, headers)).status,
        200,
      );
      deepStrictEqual([await oauth.opens(`Bearer ${token}`), await oauth.opens(`Bearer ${other}`)], [
        false,
        true,
      ]);
    }
  });
});

Deno.test("a client's token is not ended without that client's proof, and whoever sends it is told so (RFC 7009 §2.1)", async () => {
  await withOauth(async (oauth) => {
    const { client, by } = await oauth.secretClient(["user"]);
    const token = String((await oauth.post(TOKEN_URL, GRANT, by)).body.access_token);
    for (
      const [form, headers] of [[{}, {}], [{ client_id: client.id }, {}], [
        {},
        basic(client.id, "x"),
      ]] as const
    ) {
      const { status, body } = await oauth.post(REVOKE_URL, { token, ...form }, headers);
      deepStrictEqual([status, body.error], [401, "invalid_client"]);
    }
    strictEqual(await oauth.opens(`Bearer ${token}`), true);
  });
});

Deno.test("tokens of others, and texts that are no token, are answered like one's own, and nothing ends (RFC 7009 §2.2)", async () => {
  await withOauth(async (oauth) => {
    const mine = await oauth.secretClient(["admin"]);
    const others = await oauth.secretClient(["user"]);
    const { refreshToken } = await oauth.session(["user"]);
    const user = (await oauth.post(TOKEN_URL, refreshing(refreshToken))).body;
    const foreign = String((await oauth.post(TOKEN_URL, GRANT, others.by)).body.access_token);
    const { text: key } = await oauth.apiKeys.create({
      name: "key",
      ownerId: mine.client.id,
      scopes: ["model:read"],
      addresses: [],
      boundTo: null,
      expiresAtMs: oauth.clock.now() + 60_000,
      seenByOthers: false,
    });
    const before = oauth.events().length;
    const tokens = [
      foreign,
      String(user.access_token),
      String(user.refresh_token),
      refreshToken, // used
      key,
      `prt_${"A".repeat(43)}`,
      "x",
      "a.b.c",
      `${foreign.slice(0, -4)}AAAA`,
      "x".repeat(15_000),
    ];
    for (const token of tokens) {
      const { status, body } = await oauth.post(REVOKE_URL, { token }, mine.by);
      deepStrictEqual([status, body], [200, {}]);
    }
    for (const token of [refreshToken, "x", "a.b.c", key]) {
      strictEqual((await oauth.post(REVOKE_URL, { token })).status, 200);
    }
    deepStrictEqual(
      oauth.events().slice(before).map((event) => event.type === "request.allowed" && event.action),
      Array(tokens.length + 4).fill("token:revoke"),
    );
    for (const open of [foreign, user.access_token, key]) ok(await oauth.opens(`Bearer ${open}`));
    strictEqual((await oauth.post(TOKEN_URL, refreshing(String(user.refresh_token)))).status, 200);
  });
});

Deno.test("a token that is revoked a second time, or after it has expired, is no error", async () => {
  await withOauth(async (oauth) => {
    const { by } = await oauth.secretClient(["user"]);
    const first = String((await oauth.post(TOKEN_URL, GRANT, by)).body.access_token);
    const second = String((await oauth.post(TOKEN_URL, GRANT, by)).body.access_token);
    for (const token of [first, first]) {
      strictEqual((await oauth.post(REVOKE_URL, { token }, by)).status, 200);
    }
    oauth.clock.advance(3_600_000);
    strictEqual((await oauth.post(REVOKE_URL, { token: second }, by)).status, 200);
    strictEqual(oauth.events("session.ended").length, 1);
  });
});

Deno.test("a bound refresh token ends its session without the key: possession of it suffices to give it up", async () => {
  await withOauth(async (oauth) => {
    const holder = await openHolder(oauth);
    const { session, refreshToken } = await oauth.session(["user"], { boundTo: holder.thumbprint });
    strictEqual((await oauth.post(REVOKE_URL, { token: refreshToken })).status, 200);
    strictEqual(await oauth.sessions.read(session.id), undefined);
  });
});

Deno.test("a revocation without a token is invalid_request; one that cannot be recorded is 503 and ends nothing", async () => {
  await withOauth(async (oauth) => {
    const { session, refreshToken } = await oauth.session(["user"]);
    for (const form of ["", "token=", "token_type_hint=access_token", "token=x&token=y"]) {
      const { status, body } = await oauth.post(REVOKE_URL, form);
      deepStrictEqual([status, body.error], [400, "invalid_request"]);
    }
    oauth.trail.setFailing(true);
    strictEqual((await oauth.post(REVOKE_URL, { token: refreshToken })).status, 503);
    oauth.trail.setFailing(false);
    ok(await oauth.sessions.read(session.id) !== undefined);
  });
});
