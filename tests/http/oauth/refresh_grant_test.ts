// Tests of the refresh grant: tokens that work once, whose they are, and what ends with them (RFC 6749 §6, RFC 9700 §4.14).
import { deepStrictEqual, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { basic, claimsOf, outcomeOf, refreshing } from "./oauth_messages.ts";
import { TOKEN_TTL_SECONDS, TOKEN_URL, withOauth } from "./oauth_under_test.ts";

Deno.test("refresh_token trades a token for the next one and an access token of the session (RFC 6749 §6)", async () => {
  await withOauth(async (oauth) => {
    const { user, session, refreshToken } = await oauth.session(["user"]);
    const first = await oauth.post(TOKEN_URL, refreshing(refreshToken));
    const { access_token: token, refresh_token: following, ...others } = first.body;
    deepStrictEqual([first.status, others], [200, { token_type: "Bearer", expires_in: TOKEN_TTL_SECONDS }]);
    notStrictEqual(following, refreshToken);
    const { sub, client_id, sid, scope, jti } = claimsOf(token);
    deepStrictEqual([sub, client_id, sid, scope], [user.id, "portcullis", session.id, undefined]);
    ok(await oauth.opens(`Bearer ${token}`));
    const [event] = oauth.events("token.issued");
    ok(event?.type === "token.issued");
    deepStrictEqual([event.subject, event.credential, event.session, event.grant, event.bound], [
      user.id,
      jti,
      session.id,
      "refresh_token",
      false,
    ]);
    // With the id of the public client, which it may say, and narrowed for this one token.
    const narrowed = await oauth.post(
      TOKEN_URL,
      refreshing(String(following), { client_id: "portcullis", scope: "model:read" }),
    );
    deepStrictEqual([narrowed.status, narrowed.body.scope], [200, "model:read"]);
    const wide = await oauth.post(TOKEN_URL, refreshing(String(narrowed.body.refresh_token)));
    deepStrictEqual([wide.status, wide.body.scope], [200, undefined]);
  });
});

Deno.test("a refresh token that comes a second time ends the session with all its tokens, and is recorded (RFC 9700 §4.14.2)", async () => {
  await withOauth(async (oauth) => {
    const { user, session, refreshToken } = await oauth.session(["user"]);
    const { body } = await oauth.post(TOKEN_URL, refreshing(refreshToken));
    deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, refreshing(refreshToken))), [400, "invalid_grant"]);
    strictEqual(await oauth.opens(`Bearer ${body.access_token}`), false);
    deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, refreshing(String(body.refresh_token)))), [
      400,
      "invalid_grant",
    ]);
    const reused = oauth.events().filter((event) =>
      event.type === "session.reuse_detected" && event.session === session.id
    );
    deepStrictEqual([reused.length, oauth.events("request.refused").length], [1, 2]);
    // Whose it was stands in the record, and nowhere else (ASVS V16.2.1).
    for (const event of [reused[0], oauth.events("request.refused")[0]]) {
      ok(event !== undefined && "credential" in event);
      deepStrictEqual([event.subject, event.credential], [user.id, session.id]);
    }
  });
});

Deno.test("of many refreshes with one token at the same time, at most one gets a next token", async () => {
  await withOauth(async (oauth) => {
    const { refreshToken } = await oauth.session(["user"]);
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => oauth.post(TOKEN_URL, refreshing(refreshToken))),
    );
    const given = answers.filter(({ status }) => status === 200);
    ok(given.length <= 1);
    ok(answers.filter(({ status }) => status !== 200).every(({ body }) => body.error === "invalid_grant"));
    for (const { body } of given) strictEqual(await oauth.opens(`Bearer ${body.access_token}`), false);
  });
});

Deno.test("refresh_token is invalid_grant for a token that is unknown, malformed, ended or expired, in the same words", async () => {
  await withOauth(async (oauth) => {
    const ended = await oauth.session(["user"]);
    await oauth.sessions.end(ended.session);
    const expired = await oauth.session(["user"]);
    const answers = [`prt_${"A".repeat(43)}`, "x", "prt_\u0000é", ended.refreshToken].map((token) =>
      oauth.post(TOKEN_URL, refreshing(token))
    );
    await Promise.all(answers);
    oauth.clock.advance(86_400_000);
    answers.push(oauth.post(TOKEN_URL, refreshing(expired.refreshToken)));
    const bodies = (await Promise.all(answers)).map((answer) => {
      deepStrictEqual(outcomeOf(answer), [400, "invalid_grant"]);
      return JSON.stringify(answer.body);
    });
    strictEqual(new Set(bodies).size, 1);
  });
});

Deno.test("a user who is disabled or deleted gets no more tokens by refresh", async () => {
  await withOauth(async (oauth) => {
    for (const change of ["disable", "delete"]) {
      const { user, refreshToken } = await oauth.session(["user"]);
      const found = await oauth.users.read(user.id);
      ok(found);
      ok(
        change === "delete"
          ? await oauth.users.remove(found)
          : await oauth.users.replace(found, { ...found.value, disabled: true }),
      );
      deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, refreshing(refreshToken))), [
        400,
        "invalid_grant",
      ]);
    }
    deepStrictEqual(oauth.events("token.issued"), []);
  });
});

Deno.test("a client cannot refresh the session of a user, and does not use it up by trying", async () => {
  await withOauth(async (oauth) => {
    const { client, by } = await oauth.secretClient(["admin"]);
    const { refreshToken } = await oauth.session(["user"]);
    deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, refreshing(refreshToken), by)), [
      400,
      "invalid_grant",
    ]);
    deepStrictEqual(
      outcomeOf(await oauth.post(TOKEN_URL, refreshing(refreshToken, { client_id: client.id }))),
      [
        401,
        "invalid_client",
      ],
    );
    deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, refreshing(refreshToken), basic(client.id, "x"))), [
      401,
      "invalid_client",
    ]);
    strictEqual((await oauth.post(TOKEN_URL, refreshing(refreshToken))).status, 200);
  });
});

Deno.test("no token, of any kind, is in the log or the trail", async () => {
  await withOauth(async (oauth) => {
    const { refreshToken } = await oauth.session(["user"]);
    const { body } = await oauth.post(TOKEN_URL, refreshing(refreshToken));
    await oauth.post(TOKEN_URL, refreshing(refreshToken));
    const written = JSON.stringify(oauth.trail.events) + oauth.logged();
    for (const kept of [refreshToken, String(body.access_token), String(body.refresh_token)]) {
      ok(!written.includes(kept));
    }
  });
});

Deno.test("ASVS V16.5.2: while nothing can be recorded a refresh is 503 and uses nothing up; afterwards the same token works", async () => {
  await withOauth(async (oauth) => {
    const { refreshToken } = await oauth.session(["user"]);
    oauth.trail.setFailing(true);
    deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, refreshing(refreshToken))), [
      503,
      "temporarily_unavailable",
    ]);
    oauth.trail.setFailing(false);
    strictEqual((await oauth.post(TOKEN_URL, refreshing(refreshToken))).status, 200);
    deepStrictEqual(oauth.events("session.reuse_detected"), []);
  });
});
