// OAuth clients: the libraries that programs use (openid-client, oauth4webapi) against the real server.
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { hash } from "node:crypto";
import { exportJWK, SignJWT } from "jose";
import * as oauth from "oauth4webapi";
import * as client from "openid-client";
import { type ServerUnderTest, startServerUnderTest } from "../support/server_under_test.ts";
import {
  answerOf,
  callsOf,
  expectStatus,
  requireIntactTrail,
  requireNowhere,
  type SignedIn,
  signIn,
  trailOf,
} from "./api_calls.ts";

const PASSWORD = "seven green bicycles by the lake";

/** A client's configuration as the library finds it out by itself (RFC 8414). */
async function discover(
  server: ServerUnderTest,
  clientId: string,
  authentication: client.ClientAuth,
): Promise<client.Configuration> {
  return await client.discovery(
    new URL(server.origin),
    clientId,
    undefined,
    authentication,
    { algorithm: "oauth2", execute: [client.allowInsecureRequests], [client.customFetch]: fetchWhole },
  );
}

/** @throws AssertionError unless an endpoint of `/oauth2` refuses with this error (RFC 6749 §5.2) */
async function refusedWith(asked: Promise<unknown>, error: string, status = 400): Promise<void> {
  const thrown = await asked.then(() => undefined, (reason: unknown) => reason);
  if (thrown instanceof client.WWWAuthenticateChallengeError) {
    // A 401 has its challenge (RFC 9110 §15.5.2), which the library looks at first.
    deepStrictEqual([(await thrown.response.json()).error, thrown.status], [error, status]);
  } else {
    ok(thrown instanceof client.ResponseBodyError, String(thrown));
    deepStrictEqual([thrown.error, thrown.status], [error, status]);
  }
}

/** What a resource's refusal says in its challenge, as the library reads it. */
async function challengeOf(asked: Promise<unknown>): Promise<readonly unknown[]> {
  const thrown = await asked.then(() => undefined, (reason: unknown) => reason);
  ok(thrown instanceof client.WWWAuthenticateChallengeError, String(thrown));
  const challenge = thrown.cause.find((each) => each.parameters.error !== undefined);
  return [thrown.status, challenge?.scheme, challenge?.parameters.error];
}

/** @throws AssertionError unless the resource answers 401 `invalid_token` for this scheme */
async function tokenRefused(asked: Promise<unknown>, scheme: "bearer" | "dpop" = "bearer"): Promise<void> {
  deepStrictEqual(await challengeOf(asked), [401, scheme, "invalid_token"]);
}

async function statusOf(
  configuration: client.Configuration,
  token: string,
  url: string,
  options?: client.DPoPOptions,
): Promise<number> {
  const response = await client.fetchProtectedResource(
    configuration,
    token,
    new URL(url),
    "GET",
    undefined,
    undefined,
    options,
  );
  await response.body?.cancel();
  return response.status;
}

/** Fetches an answer to its end: the library leaves those of refusals that it retries unread. */
const fetchWhole: client.CustomFetch = async (url, options) => {
  const response = await fetch(url, options as RequestInit);
  const { status, headers } = response;
  const bytes = await response.bytes();
  return new Response(bytes.length === 0 ? null : bytes, { status, headers });
};

/** What the library sends from now on, and what is answered. */
function watch(configuration: client.Configuration): string[] {
  const seen: string[] = [];
  configuration[client.customFetch] = async (url, options) => {
    const response = await fetchWhole(url, options);
    seen.push(`${options.method} ${new URL(url).pathname} ${response.status}`);
    return response;
  };
  return seen;
}

Deno.test("OAuth libraries get, use, refresh, ask about and end tokens, by discovery alone", async (test) => {
  const dataDir = await Deno.makeTempDir();
  const server = await startServerUnderTest({
    dataDir,
    variables: { PORTCULLIS_RATE_TOKEN_PER_MINUTE: "1000000" },
  });
  const models = `${server.origin}/v1/models`;
  const secrets: Record<string, string> = { "the user's password": PASSWORD };
  const keep = (name: string, secret: string): string => secrets[name] = secret;
  try {
    const admin = callsOf(server, keep("the admin's token", (await signIn(server)).access_token));
    const made = await expectStatus(
      admin("POST", "/v1/clients", { name: "robot", roles: ["user"], authentication: "secret" }),
      201,
    );
    const [id, secret]: [string, string] = [made.id, keep("the client's secret", made.secret)];

    await test.step("RFC 8414: the metadata name every endpoint, and this server as the issuer", async () => {
      const configuration = await discover(server, id, client.ClientSecretBasic(secret));
      const metadata = configuration.serverMetadata();
      deepStrictEqual(
        [
          metadata.issuer,
          metadata.token_endpoint,
          metadata.revocation_endpoint,
          metadata.introspection_endpoint,
        ],
        [
          server.origin,
          ...["token", "revoke", "introspect"].map((name) => `${server.origin}/oauth2/${name}`),
        ],
      );
    });

    for (
      const [method, authentication] of [
        ["client_secret_basic", client.ClientSecretBasic(secret)],
        ["client_secret_post", client.ClientSecretPost(secret)],
      ] as const
    ) {
      await test.step(`client_credentials by ${method}: a token as wide as the roles, or narrowed`, async () => {
        const configuration = await discover(server, id, authentication);
        const whole = await client.clientCredentialsGrant(configuration);
        keep(`${method}: the token`, whole.access_token);
        deepStrictEqual([whole.token_type, whole.scope, whole.refresh_token], [
          "bearer",
          undefined,
          undefined,
        ]);
        ok((whole.expires_in ?? 0) > 0);
        strictEqual(await statusOf(configuration, whole.access_token, models), 200);

        const narrow = await client.clientCredentialsGrant(configuration, { scope: "key:read/own" });
        strictEqual(narrow.scope, "key:read/own");
        strictEqual(await statusOf(configuration, narrow.access_token, `${server.origin}/v1/keys`), 200);
        deepStrictEqual(await challengeOf(statusOf(configuration, narrow.access_token, models)), [
          403,
          "bearer",
          "insufficient_scope",
        ]);
        await refusedWith(
          client.clientCredentialsGrant(configuration, { scope: "user:write" }),
          "invalid_scope",
        );
        await refusedWith(
          client.clientCredentialsGrant(configuration, { scope: "no-grant-at-all" }),
          "invalid_scope",
        );
      });
    }

    await test.step("a wrong secret, and the client of another method, are invalid_client", async () => {
      for (
        const wrong of [client.ClientSecretBasic(`${secret.slice(0, -1)}!`), client.ClientSecretPost("pcs_")]
      ) {
        await refusedWith(
          client.clientCredentialsGrant(await discover(server, id, wrong)),
          "invalid_client",
          401,
        );
      }
      const { privateKey } = await client.randomDPoPKeyPair("ES256");
      await refusedWith(
        client.clientCredentialsGrant(await discover(server, id, client.PrivateKeyJwt(privateKey))),
        "invalid_client",
        401,
      );
    });

    for (const algorithm of ["ES256", "Ed25519"]) {
      await test.step(`client_credentials by private_key_jwt: ${algorithm}`, async () => {
        const { publicKey, privateKey } = await client.randomDPoPKeyPair(algorithm);
        const { kty, crv, x, y } = await exportJWK(publicKey);
        const jwk = { kty, crv, x, ...(y === undefined ? {} : { y }), alg: algorithm, kid: "mine" };
        const robot = await expectStatus(
          admin("POST", "/v1/clients", {
            name: `robot ${algorithm}`,
            roles: ["user"],
            authentication: "private_key_jwt",
            keys: [jwk],
          }),
          201,
        );
        strictEqual(robot.secret, null);
        const configuration = await discover(
          server,
          robot.id,
          client.PrivateKeyJwt({ key: privateKey, kid: "mine" }),
        );
        const { access_token: token } = await client.clientCredentialsGrant(configuration);
        strictEqual(await statusOf(configuration, token, models), 200);
        const narrow = await client.clientCredentialsGrant(configuration, { scope: "model:read" });
        strictEqual(narrow.scope, "model:read");
        strictEqual(await statusOf(configuration, narrow.access_token, models), 200);

        const { privateKey: stolen } = await client.randomDPoPKeyPair(algorithm);
        const impostor = await discover(
          server,
          robot.id,
          client.PrivateKeyJwt({ key: stolen, kid: "mine" }),
        );
        await refusedWith(client.clientCredentialsGrant(impostor), "invalid_client", 401);

        // The assertion that just worked, once more.
        let body = "";
        configuration[client.customFetch] = (url, options) => {
          body = String(options.body);
          return fetchWhole(url, options);
        };
        await client.clientCredentialsGrant(configuration);
        match(body, /client_assertion=ey/);
        const again = await callsOf(server)("POST", "/oauth2/token", body);
        deepStrictEqual([again.status, again.body.error], [401, "invalid_client"]);

        await expectStatus(admin("PATCH", `/v1/clients/${robot.id}`, { disabled: true }), 200);
        await tokenRefused(statusOf(configuration, token, models));
        await refusedWith(client.clientCredentialsGrant(configuration), "invalid_client", 401);
      });
    }

    for (const algorithm of ["ES256", "Ed25519"]) {
      await test.step(`RFC 9449: the library binds a token to its key, and retries with the nonce by itself: ${algorithm}`, async () => {
        const configuration = await discover(server, id, client.ClientSecretBasic(secret));
        const seen = watch(configuration);
        const DPoP = client.getDPoPHandle(configuration, await client.randomDPoPKeyPair(algorithm));
        const { access_token: token, token_type: type } = await client.clientCredentialsGrant(
          configuration,
          {},
          { DPoP },
        );
        keep(`${algorithm}: the bound token`, token);
        strictEqual(type, "dpop");
        deepStrictEqual(seen, ["POST /oauth2/token 400", "POST /oauth2/token 200"]);
        strictEqual(await statusOf(configuration, token, models, { DPoP }), 200);
        strictEqual(await statusOf(configuration, token, `${models}/use-lite`, { DPoP }), 200);

        await tokenRefused(statusOf(configuration, token, models));
        const other = client.getDPoPHandle(configuration, await client.randomDPoPKeyPair(algorithm));
        await tokenRefused(
          statusOf(configuration, token, models, { DPoP: other }),
          "dpop",
        );
        // A handle that knows of no nonce yet is told it at the resource, and comes again.
        const fresh = client.getDPoPHandle(configuration, await client.randomDPoPKeyPair(algorithm));
        const before = seen.length;
        await tokenRefused(statusOf(configuration, token, models, { DPoP: fresh }), "dpop");
        deepStrictEqual(seen.slice(before), ["GET /v1/models 401", "GET /v1/models 401"]);
        const bearer = await client.clientCredentialsGrant(configuration);
        await tokenRefused(
          statusOf(configuration, bearer.access_token, models, { DPoP }),
          "dpop",
        );
      });
    }

    await test.step("RFC 9068: a resource server of another make accepts our tokens by our key set", async () => {
      const issuer = new URL(server.origin);
      const loopback = { [oauth.allowInsecureRequests]: true };
      const metadata = await oauth.processDiscoveryResponse(
        issuer,
        await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...loopback }),
      );
      const configuration = await discover(server, id, client.ClientSecretBasic(secret));
      const { access_token: token } = await client.clientCredentialsGrant(configuration, {
        scope: "model:read",
      });
      const claims = await oauth.validateJwtAccessToken(
        metadata,
        new Request(models, { headers: { authorization: `Bearer ${token}` } }),
        server.origin,
        loopback,
      );
      deepStrictEqual([claims.iss, claims.sub, claims.client_id, claims.scope], [
        server.origin,
        id,
        id,
        "model:read",
      ]);
    });

    await test.step("RFC 9728: the resource says whose tokens it takes", async () => {
      const resource = new URL(server.origin);
      const metadata = await oauth.processResourceDiscoveryResponse(
        resource,
        await oauth.resourceDiscoveryRequest(resource, { [oauth.allowInsecureRequests]: true }),
      );
      deepStrictEqual(metadata.authorization_servers, [server.origin]);
      const refused = await fetch(models);
      await refused.body?.cancel();
      match(
        refused.headers.get("www-authenticate") ?? "",
        new RegExp(`resource_metadata="${server.origin}/\\.well-known/oauth-protected-resource"`),
      );
    });

    const own = await discover(server, "portcullis", client.None());
    const user = await expectStatus(
      admin("POST", "/v1/users", { username: "uma", password: PASSWORD, roles: ["user"] }),
      201,
    );
    const session = async (): Promise<SignedIn> => {
      const signedIn = await signIn(server, "uma", PASSWORD);
      keep(`an access token ${signedIn.access_token.slice(-6)}`, signedIn.access_token);
      keep(`a refresh token ${signedIn.refresh_token.slice(-6)}`, signedIn.refresh_token);
      return signedIn;
    };

    await test.step("refresh_token: each works once and gives the next; the tokens before stay good", async () => {
      const first = await session();
      const second = await client.refreshTokenGrant(own, first.refresh_token);
      ok(second.refresh_token);
      keep("the second refresh token", second.refresh_token);
      notStrictEqual(second.refresh_token, first.refresh_token);
      notStrictEqual(second.access_token, first.access_token);
      const third = await client.refreshTokenGrant(own, second.refresh_token, { scope: "model:read" });
      strictEqual(third.scope, "model:read");
      for (const { access_token: token } of [first, second, third]) {
        strictEqual(await statusOf(own, token, models), 200);
      }
      deepStrictEqual(await challengeOf(statusOf(own, third.access_token, `${server.origin}/v1/keys`)), [
        403,
        "bearer",
        "insufficient_scope",
      ]);
    });

    await test.step("RFC 9700 §4.14.2: a refresh token that comes again ends the session, and the trail tells", async () => {
      const first = await session();
      const second = await client.refreshTokenGrant(own, first.refresh_token);
      ok(second.refresh_token);
      const { data: sessions } = await expectStatus(
        callsOf(server, second.access_token)("GET", "/v1/auth/sessions"),
        200,
      );
      const current = sessions.find((each: { current: boolean }) => each.current).id;
      await refusedWith(client.refreshTokenGrant(own, first.refresh_token), "invalid_grant");
      await refusedWith(client.refreshTokenGrant(own, second.refresh_token), "invalid_grant");
      for (const { access_token: token } of [first, second]) {
        await tokenRefused(statusOf(own, token, models));
      }
      const told = trailOf(dataDir).filter(({ type }) => type === "session.reuse_detected");
      deepStrictEqual(told.map((event) => event.session), [current]);
    });

    await test.step("a session that was opened with a proof is refreshed with that key only, and a try without costs nothing", async () => {
      const keys = await client.randomDPoPKeyPair("ES256");
      const login = (nonce?: string) => signInBound(server, "uma", PASSWORD, keys, nonce);
      const asked = await login();
      match(asked.body.type, /:proof-nonce-needed$/);
      const { body: bound } = await login(asked.headers.get("dpop-nonce") ?? "");
      strictEqual(bound.token_type, "DPoP");
      keep("the bound refresh token", bound.refresh_token);
      await refusedWith(client.refreshTokenGrant(own, bound.refresh_token), "invalid_grant");
      const other = client.getDPoPHandle(own, await client.randomDPoPKeyPair("ES256"));
      await refusedWith(
        client.refreshTokenGrant(own, bound.refresh_token, {}, { DPoP: other }),
        "invalid_grant",
      );
      const DPoP = client.getDPoPHandle(own, keys);
      const next = await client.refreshTokenGrant(own, bound.refresh_token, {}, { DPoP });
      strictEqual(next.token_type, "dpop");
      strictEqual(await statusOf(own, next.access_token, models, { DPoP }), 200);
    });

    await test.step("RFC 7662 and RFC 7009: the library asks about tokens and ends them", async () => {
      await expectStatus(
        admin("PUT", "/v1/roles/-/inspector", { grants: ["token:introspect"] }),
        201,
      );
      const asker = await expectStatus(
        admin("POST", "/v1/clients", { name: "asker", roles: ["inspector"], authentication: "secret" }),
        201,
      );
      keep("the asker's secret", asker.secret);
      const asking = await discover(server, asker.id, client.ClientSecretBasic(asker.secret));
      const robot = await discover(server, id, client.ClientSecretPost(secret));
      const { access_token: token } = await client.clientCredentialsGrant(robot, { scope: "model:read" });
      const told = await client.tokenIntrospection(asking, token);
      deepStrictEqual([told.active, told.sub, told.client_id, told.scope, told.token_type], [
        true,
        id,
        id,
        "model:read",
        "Bearer",
      ]);
      await refusedWith(client.tokenIntrospection(robot, token), "unauthorized_client", 403);

      // Of another client nothing is ended, and nothing is said.
      await client.tokenRevocation(asking, token);
      strictEqual(await statusOf(robot, token, models), 200);
      await client.tokenRevocation(robot, token, { token_type_hint: "access_token" });
      await tokenRefused(statusOf(robot, token, models));
      deepStrictEqual(await client.tokenIntrospection(asking, token), { active: false });
      await client.tokenRevocation(robot, token);
      await client.tokenRevocation(robot, "a token that never was");

      const signedIn = await session();
      const aboutSession = await client.tokenIntrospection(asking, signedIn.refresh_token);
      deepStrictEqual([aboutSession.active, aboutSession.sub], [true, user.id]);
      await client.tokenRevocation(own, signedIn.refresh_token, { token_type_hint: "refresh_token" });
      deepStrictEqual(await client.tokenIntrospection(asking, signedIn.refresh_token), { active: false });
      await tokenRefused(statusOf(own, signedIn.access_token, models));
      await refusedWith(client.refreshTokenGrant(own, signedIn.refresh_token), "invalid_grant");
    });

    await test.step("a secret is rotated without a gap, and a deleted client is nobody", async () => {
      const rotated = await expectStatus(
        admin("POST", `/v1/clients/${id}/rotate`, { grace_seconds: 600 }),
        200,
      );
      keep("the client's second secret", rotated.secret);
      for (const each of [secret, rotated.secret]) {
        const configuration = await discover(server, id, client.ClientSecretBasic(each));
        await client.clientCredentialsGrant(configuration);
      }
      const last = await expectStatus(admin("POST", `/v1/clients/${id}/rotate`, {}), 200);
      keep("the client's third secret", last.secret);
      for (const each of [secret, rotated.secret]) {
        await refusedWith(
          client.clientCredentialsGrant(await discover(server, id, client.ClientSecretBasic(each))),
          "invalid_client",
          401,
        );
      }
      const configuration = await discover(server, id, client.ClientSecretBasic(last.secret));
      const { access_token: token } = await client.clientCredentialsGrant(configuration);
      await expectStatus(admin("DELETE", `/v1/clients/${id}`), 204);
      await tokenRefused(statusOf(configuration, token, models));
      await refusedWith(client.clientCredentialsGrant(configuration), "invalid_client", 401);
    });
  } finally {
    await server.stop();
  }
  try {
    await requireIntactTrail(dataDir);
    requireNowhere(secrets, dataDir, server.output());
    ok(!/"level":"error"/.test(server.output()), server.output());
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

/** A sign-in with a proof of possession, which no library writes. */
async function signInBound(
  server: ServerUnderTest,
  username: string,
  password: string,
  { publicKey, privateKey }: client.CryptoKeyPair,
  nonce: string | undefined,
) {
  const url = `${server.origin}/v1/auth/login`;
  const { kty, crv, x, y } = await exportJWK(publicKey);
  const proof = await new SignJWT({
    jti: hash("sha256", crypto.randomUUID(), "base64url"),
    htm: "POST",
    htu: url,
    ...(nonce === undefined ? {} : { nonce }),
  }).setProtectedHeader({ typ: "dpop+jwt", alg: "ES256", jwk: { kty, crv, x, y } as JsonWebKey })
    .setIssuedAt().sign(privateKey);
  return await answerOf(
    await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", dpop: proof },
      body: JSON.stringify({ username, password }),
    }),
  );
}
