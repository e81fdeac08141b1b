// Accounts through the whole gate: what a sign-in gives, and that what is ended, disabled or withdrawn is so at the next request.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type AppUnderTest, openAppUnderTest, PASSWORD, postJson } from "../../support/app_under_test.ts";

interface Answered {
  readonly status: number;
  // deno-lint-ignore no-explicit-any -- what tests look into
  readonly body: any;
  readonly headers: Headers;
}

async function call(
  app: AppUnderTest,
  method: string,
  path: string,
  token?: string,
  body?: unknown,
): Promise<Answered> {
  const init = body === undefined
    ? { headers: token === undefined ? {} : { authorization: `Bearer ${token}` } }
    : postJson(body, token);
  const response = await app.call(path, { ...init, method });
  const text = await response.text();
  return {
    status: response.status,
    body: text === "" ? undefined : JSON.parse(text),
    headers: response.headers,
  };
}

const login = (app: AppUnderTest, username: string, password = PASSWORD): Promise<Answered> =>
  call(app, "POST", "/v1/auth/login", undefined, { username, password });
const works = async (app: AppUnderTest, credential: string): Promise<number> =>
  (await call(app, "GET", "/v1/models", credential)).status;

/** An app with its admin's token, and a user `mia` with a token and a key. */
async function openWithMia(): Promise<
  { app: AppUnderTest; admin: string; id: string; token: string; key: string }
> {
  const app = await openAppUnderTest();
  const { access_token: admin } = (await login(app, "admin")).body;
  const { body: { id } } = await call(app, "POST", "/v1/users", admin, {
    username: "mia",
    password: PASSWORD,
    roles: ["user"],
  });
  const { access_token: token } = (await login(app, "mia")).body;
  const { key } = (await call(app, "POST", "/v1/keys", token, { name: "ci" })).body;
  deepStrictEqual([await works(app, token), await works(app, key)], [200, 200]);
  return { app, admin, id, token, key };
}

Deno.test("a sign-in answers a Bearer token of the set life, a refresh token, and records the session by its token's id", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_TOKEN_TTL_SECONDS: "120" });
  try {
    const { status, body, headers } = await login(app, "admin");
    deepStrictEqual([status, Object.keys(body).sort(), body.token_type, body.expires_in], [
      200,
      ["access_token", "expires_in", "refresh_expires_in", "refresh_token", "token_type"],
      "Bearer",
      120,
    ]);
    strictEqual(headers.get("cache-control"), "no-store");
    const [header, claims] = body.access_token.split(".").slice(0, 2).map((part: string) =>
      JSON.parse(new TextDecoder().decode(Uint8Array.fromBase64(part, { alphabet: "base64url" })))
    );
    deepStrictEqual([header.alg, header.typ], ["EdDSA", "at+jwt"]);
    deepStrictEqual(Object.keys(claims).sort(), [
      "aud",
      "client_id",
      "exp",
      "iat",
      "iss",
      "jti",
      "sid",
      "sub",
    ]);
    const record = app.auditEvents().at(-1);
    deepStrictEqual([record?.type, record?.credential, record?.subject], [
      "session.started",
      claims.jti,
      claims.sub,
    ]);
    const { body: jwks } = await call(app, "GET", "/.well-known/jwks.json");
    ok(jwks.keys.some(({ kid }: { kid: string }) => kid === header.kid));
    ok(!JSON.stringify(jwks).includes('"d"'), "the private half is in the key set");
  } finally {
    await app.close();
  }
});

Deno.test("a wrong password and an unknown user get the same answer; the trail tells them apart", async () => {
  const app = await openAppUnderTest();
  try {
    const answers = [];
    for (const [name, password] of [["admin", "wrong"], ["nobody", "wrong"], ["Admin", PASSWORD]] as const) {
      const { status, headers, body: { instance, ...body } } = await login(app, name, password);
      match(instance, /^urn:portcullis:request:req_/);
      answers.push([status, headers.get("www-authenticate"), body]);
    }
    deepStrictEqual(answers[0], answers[1]);
    deepStrictEqual(answers[0], answers[2]);
    const refused = app.auditEvents().filter(({ type }) => type === "session.refused");
    deepStrictEqual(refused.map(({ reason }) => reason), ["wrong_password", "unknown_user", "unknown_user"]);
    ok(!JSON.stringify(refused).includes("nobody"), "a name that was tried is in the trail");
  } finally {
    await app.close();
  }
});

Deno.test("logout makes the session's tokens worthless at once and for good, and no other session's", async () => {
  const app = await openAppUnderTest();
  try {
    const [ended, other] = [
      (await login(app, "admin")).body.access_token,
      (await login(app, "admin")).body.access_token,
    ];
    strictEqual((await call(app, "POST", "/v1/auth/logout", ended)).status, 204);
    deepStrictEqual([await works(app, ended), await works(app, other)], [401, 200]);
    const again = await call(app, "POST", "/v1/auth/logout", ended);
    match(again.headers.get("www-authenticate") ?? "", /error="invalid_token"/);
    const { body: { data } } = await call(app, "GET", "/v1/auth/sessions", other);
    deepStrictEqual(data.map(({ current }: { current: boolean }) => current), [true]);
  } finally {
    await app.close();
  }
});

Deno.test("a user that is disabled has neither tokens nor keys from the next request on, and keys again when enabled", async () => {
  const { app, admin, id, token, key } = await openWithMia();
  try {
    const patch = (body: unknown) => call(app, "PATCH", `/v1/users/${id}`, admin, body);
    strictEqual((await patch({ disabled: true })).status, 200);
    deepStrictEqual([await works(app, token), await works(app, key)], [401, 401]);
    strictEqual((await login(app, "mia")).status, 401);
    strictEqual((await patch({ disabled: false })).status, 200);
    deepStrictEqual([await works(app, token), await works(app, key)], [401, 200]);
  } finally {
    await app.close();
  }
});

Deno.test("a role that is withdrawn holds no more from the next request on, by token and by key", async () => {
  const { app, admin, id, token, key } = await openWithMia();
  try {
    strictEqual((await call(app, "PATCH", `/v1/users/${id}`, admin, { roles: [] })).status, 200);
    deepStrictEqual([await works(app, token), await works(app, key)], [403, 403]);
  } finally {
    await app.close();
  }
});

Deno.test("a custom role gives and takes from the next request on", async () => {
  const { app, admin, id, token } = await openWithMia();
  try {
    const role = (grants: readonly string[]) =>
      call(app, "PUT", "/v1/roles/default/reader", admin, { grants });
    strictEqual((await role(["model:read"])).status, 201);
    strictEqual((await call(app, "PATCH", `/v1/users/${id}`, admin, { roles: ["reader"] })).status, 200);
    strictEqual(await works(app, token), 200);
    strictEqual((await role(["user:read/own"])).status, 200);
    strictEqual(await works(app, token), 403);
  } finally {
    await app.close();
  }
});

Deno.test("a deleted user has neither tokens nor keys from the next request on", async () => {
  const { app, admin, id, token, key } = await openWithMia();
  try {
    strictEqual((await call(app, "DELETE", `/v1/users/${id}`, admin)).status, 204);
    deepStrictEqual([await works(app, token), await works(app, key)], [401, 401]);
    strictEqual((await login(app, "mia")).status, 401);
  } finally {
    await app.close();
  }
});

Deno.test("a key does what its scope says and nothing besides; deleted, it does nothing", async () => {
  const { app, token, key } = await openWithMia();
  try {
    const other = await call(app, "GET", "/v1/keys", key);
    deepStrictEqual([other.status, other.body.type], [403, "urn:portcullis:problem:scope-insufficient"]);
    match(other.headers.get("www-authenticate") ?? "", /error="insufficient_scope", scope="key:read"/);
    const { body: { data: [{ id }] } } = await call(app, "GET", "/v1/keys", token);
    strictEqual((await call(app, "DELETE", `/v1/keys/${id}`, token)).status, 204);
    strictEqual(await works(app, key), 401);
  } finally {
    await app.close();
  }
});

Deno.test("each allowed request leaves one verdict, and each change its record before it", async () => {
  const { app, admin, id } = await openWithMia();
  try {
    const before = app.auditEvents().length;
    await call(app, "GET", `/v1/users/${id}`, admin);
    await call(app, "PATCH", `/v1/users/${id}`, admin, { roles: ["user"] });
    await call(app, "PATCH", `/v1/users/${id}`, admin, { roles: ["emperor"] });
    await call(app, "POST", "/v1/teams", admin, { id: "default" });
    deepStrictEqual(app.auditEvents().slice(before).map(({ type }) => type), [
      "request.allowed",
      "object.changed",
      "request.refused",
      // Intended, and then not made.
      "object.changed",
      "request.refused",
    ]);
  } finally {
    await app.close();
  }
});

Deno.test("ASVS V16.3.1: a sign-in that is not even tried, after too many failures, is on record with its account", async () => {
  const app = await openAppUnderTest();
  try {
    const attempt = async () =>
      (await app.call("/v1/auth/login", postJson({ username: "admin", password: "wrong wrong wrong" })))
        .status;
    deepStrictEqual([await attempt(), await attempt(), await attempt(), await attempt()], [
      401,
      401,
      401,
      401,
    ]);
    strictEqual(await attempt(), 429);
    const refusals = app.auditEvents().filter(({ type }) => type === "session.refused");
    deepStrictEqual(refusals.map(({ reason }) => reason).slice(-2), ["wrong_password", "rate_limited"]);
    strictEqual(new Set(refusals.map(({ account }) => account)).size, 1);
    strictEqual(app.auditEvents().filter(({ type }) => type === "request.refused").length, 0);
  } finally {
    await app.close();
  }
});
