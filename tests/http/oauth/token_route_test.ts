// Tests of the token endpoint: tokens for clients, what they narrow to, and what is refused (RFC 6749).
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { claimsOf, outcomeOf, refreshing } from "./oauth_messages.ts";
import { ISSUER, openOauthUnderTest, TOKEN_TTL_SECONDS, TOKEN_URL, withOauth } from "./oauth_under_test.ts";

const GRANT = { grant_type: "client_credentials" };
/** For all that is refused: none of it changes anything, so that one door serves. */
const shared = await openOauthUnderTest().then(async (oauth) => {
  const { by } = await oauth.secretClient(["user"]);
  const { refreshToken } = await oauth.session(["user"]);
  return { oauth, by, refreshToken, issued: oauth.events("token.issued").length };
});

Deno.test("client_credentials gives a Bearer token of the client itself, which opens the gate (RFC 6749 §4.4)", async () => {
  await withOauth(async (oauth) => {
    const { client, by } = await oauth.secretClient(["user"]);
    const { status, headers, body } = await oauth.post(TOKEN_URL, GRANT, by);
    const { access_token: token, ...others } = body;
    deepStrictEqual([status, others], [200, { token_type: "Bearer", expires_in: TOKEN_TTL_SECONDS }]);
    // RFC 6749 §5.1.
    deepStrictEqual([headers.get("content-type"), headers.get("cache-control"), headers.get("pragma")], [
      "application/json",
      "no-store",
      "no-cache",
    ]);
    const { iss, aud, sub, client_id, exp, iat, jti, ...rest } = claimsOf(token);
    deepStrictEqual([iss, aud, sub, client_id, Number(exp) - Number(iat), rest], [
      ISSUER,
      ISSUER,
      client.id,
      client.id,
      TOKEN_TTL_SECONDS,
      {},
    ]);
    ok(await oauth.opens(`Bearer ${token}`));
    deepStrictEqual(oauth.events().map((event) => ({ ...event, request: "" })), [{
      type: "token.issued",
      request: "",
      address: "192.0.2.1",
      route: "POST /oauth2/token",
      issuer: ISSUER,
      subject: client.id,
      team: "default",
      credential: String(jti),
      agent: null,
      grant: "client_credentials",
      session: null,
      expiresAtSeconds: Number(exp),
      bound: false,
    }]);
  });
});

Deno.test("a client that is disabled loses its tokens with it, at once (ASVS V7.4.2)", async () => {
  await withOauth(async (oauth) => {
    const { client, by } = await oauth.secretClient(["user"]);
    const { body } = await oauth.post(TOKEN_URL, GRANT, by);
    const found = await oauth.clients.read(client.id);
    ok(found && await oauth.clients.replace(found, { ...found.value, disabled: true }));
    oauth.standings.forget(client.id);
    strictEqual(await oauth.opens(`Bearer ${body.access_token}`), false);
  });
});

Deno.test("a token is narrowed to the scope that is asked for, and says so", async () => {
  await withOauth(async (oauth) => {
    const { by } = await oauth.secretClient(["user"]);
    const { status, body } = await oauth.post(
      TOKEN_URL,
      { ...GRANT, scope: "model:infer/use-* key:read/own model:read/*" },
      by,
    );
    const scope = "model:infer/use-* key:read/own model:read";
    deepStrictEqual([status, body.scope, claimsOf(body.access_token).scope], [200, scope, scope]);
    ok(await oauth.opens(`Bearer ${body.access_token}`));
  });
});

for (
  const [what, scope] of [
    ["an action that the roles do not give", "model:read user:write"],
    ["more of an action than the roles give", "key:read/team"],
    ["all of an action that the roles give on one's own", "key:read"],
    ["a word that is no grant", "model:read openid"],
    ["a pattern that is none", "model:infer/?"],
    ["two spaces in a row", "model:read  model:infer"],
    ["a space behind the last word", "model:read "],
    ["a quote", 'model:read"'],
    ["more than two thousand characters", `model:infer/${"a".repeat(100)} `.repeat(20).trim()],
  ] as const
) {
  Deno.test(`a scope with ${what} is invalid_scope, in both grants, and uses no refresh token up`, async () => {
    const { oauth, by, refreshToken, issued } = shared;
    for (const [form, headers] of [[GRANT, by], [refreshing(refreshToken), {}]] as const) {
      deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, { ...form, scope }, headers)), [
        400,
        "invalid_scope",
      ]);
    }
    strictEqual(oauth.events("token.issued").length, issued);
    ok(await oauth.sessions.inspect(refreshToken) !== undefined);
  });
}

for (
  const [form, error] of [
    ["", "invalid_request"],
    ["scope=model:read", "invalid_request"],
    ["grant_type=", "invalid_request"],
    ["grant_type=refresh_token", "invalid_request"],
    ["grant_type=client_credentials&grant_type=client_credentials", "invalid_request"],
    ["grant_type=client_credentials&scope=%zz", "invalid_request"],
    ["grant_type=password&username=admin&password=x", "unsupported_grant_type"],
    ["grant_type=authorization_code&code=x", "unsupported_grant_type"],
    ["grant_type=Client_Credentials", "unsupported_grant_type"],
    ["grant_type=toString", "unsupported_grant_type"],
  ] as const
) {
  Deno.test(`the form "${form}" is ${error}`, async () => {
    const { oauth, by } = shared;
    const before = oauth.events().length;
    deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, form, by)), [400, error]);
    deepStrictEqual(oauth.events().slice(before).map(({ type }) => type), ["request.refused"]);
  });
}

Deno.test("a parameter that the endpoint does not know is ignored (RFC 6749 §3.2)", async () => {
  await withOauth(async (oauth) => {
    const { by } = await oauth.secretClient(["user"]);
    const form = {
      ...GRANT,
      resource: ISSUER,
      sub: "usr_1",
      roles: "admin",
      client_assertion: "",
      scope: "",
    };
    const { status, body } = await oauth.post(TOKEN_URL, form, by);
    deepStrictEqual([status, Object.keys(claimsOf(body.access_token)).includes("roles")], [200, false]);
  });
});

Deno.test("the token endpoint takes a POST of a form only, without a query, and answers errors as OAuth has them", async () => {
  await withOauth(async (oauth) => {
    const { by } = await oauth.secretClient(["user"]);
    for (
      const [path, init, status] of [
        [TOKEN_URL, { method: "GET" }, 405],
        [TOKEN_URL, { method: "PUT", body: "grant_type=client_credentials" }, 405],
        [`${TOKEN_URL}?grant_type=client_credentials`, { method: "POST", body: "" }, 400],
        [TOKEN_URL, { method: "POST", body: "{}", headers: { "content-type": "application/json" } }, 415],
        [TOKEN_URL, { method: "POST", body: "a".repeat(16 * 1024 + 1) }, 413],
      ] as const
    ) {
      const headers = { "content-type": "application/x-www-form-urlencoded", ...by };
      const response = await oauth.call(path, {
        ...init,
        headers: { ...headers, ...("headers" in init ? init.headers : {}) },
      });
      const body = await response.json();
      deepStrictEqual([response.status, Object.keys(body), body.error], [
        status,
        ["error", "error_description"],
        "invalid_request",
      ]);
    }
  });
});

Deno.test("no token leaves without its record: with a trail that fails, the answer is 503 temporarily_unavailable", async () => {
  await withOauth(async (oauth) => {
    const { by } = await oauth.secretClient(["user"]);
    const { refreshToken } = await oauth.session(["user"]);
    oauth.trail.setFailing(true);
    for (const [form, headers] of [[GRANT, by], [refreshing(refreshToken), {}]] as const) {
      const { status, body } = await oauth.post(TOKEN_URL, form, headers);
      deepStrictEqual([status, Object.keys(body), body.error], [
        503,
        ["error", "error_description"],
        "temporarily_unavailable",
      ]);
    }
  });
});

Deno.test("the token endpoint is under a rate of its own, which refuses with 429 before the client is looked at", async () => {
  await withOauth(async (oauth) => {
    const { by } = await oauth.secretClient(["user"]);
    for (let index = 0; index < 3; index++) strictEqual((await oauth.post(TOKEN_URL, GRANT, by)).status, 200);
    const { status, headers, body } = await oauth.post(TOKEN_URL, GRANT, by);
    deepStrictEqual([status, body.error], [429, "temporarily_unavailable"]);
    match(headers.get("retry-after") ?? "", /^\d+$/);
    match(headers.get("ratelimit-policy") ?? "", /"token"/);
  }, { tokenRatePerMinute: 3 });
});
