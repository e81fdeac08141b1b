// Sign-in and sign-out over HTTP.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { getAs, openAppUnderTest, PASSWORD, postJson } from "../../support/app_under_test.ts";

Deno.test("POST /v1/auth/login answers a Bearer token of the set life, and records the session by its token's id", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_TOKEN_TTL_SECONDS: "120" });
  try {
    const response = await app.call("/v1/auth/login", postJson({ username: "admin", password: PASSWORD }));
    const body = await response.json();
    deepStrictEqual([response.status, Object.keys(body).sort(), body.token_type, body.expires_in], [
      200,
      ["access_token", "expires_in", "token_type"],
      "Bearer",
      120,
    ]);
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
      "roles",
      "sub",
    ]);
    const record = app.auditEvents().at(-1);
    deepStrictEqual([record?.type, record?.credential, record?.subject], [
      "session.started",
      claims.jti,
      claims.sub,
    ]);
    const jwks = await (await app.call("/.well-known/jwks.json")).json();
    ok(jwks.keys.some(({ kid }: { kid: string }) => kid === header.kid));
    ok(!JSON.stringify(jwks).includes('"d"'), "the private half is in the key set");
  } finally {
    await app.close();
  }
});

Deno.test("POST /v1/auth/login gives a wrong password and an unknown user the same answer; the trail tells them apart", async () => {
  const app = await openAppUnderTest();
  try {
    const answers = [];
    for (
      const credentials of [{ username: "admin", password: "wrong" }, {
        username: "nobody",
        password: "wrong",
      }, { username: "Admin", password: PASSWORD }]
    ) {
      const response = await app.call("/v1/auth/login", postJson(credentials));
      const { instance, ...body } = await response.json();
      match(instance, /^urn:portcullis:request:req_/);
      answers.push([response.status, response.headers.get("www-authenticate"), body]);
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

Deno.test("POST /v1/auth/logout makes the token worthless at once and for good, and no other one", async () => {
  const app = await openAppUnderTest();
  try {
    const tokens = [];
    for (let index = 0; index < 2; index++) {
      tokens.push(
        (await (await app.call("/v1/auth/login", postJson({ username: "admin", password: PASSWORD }))).json())
          .access_token,
      );
    }
    const [ended, other] = tokens;
    strictEqual((await app.call("/v1/auth/logout", { method: "POST", ...getAs(ended) })).status, 204);
    const statusWith = async (token: string): Promise<number> => {
      const response = await app.call("/v1/models", getAs(token));
      await response.body?.cancel();
      return response.status;
    };
    deepStrictEqual([await statusWith(ended), await statusWith(other)], [401, 200]);
    const again = await app.call("/v1/auth/logout", { method: "POST", ...getAs(ended) });
    match(again.headers.get("www-authenticate") ?? "", /error="invalid_token"/);
    await again.body?.cancel();
  } finally {
    await app.close();
  }
});
