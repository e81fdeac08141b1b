// External issuers: companies' own identity providers beside this server's accounts: down, up, rotating and hostile.
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { decodeJwt, importJWK, SignJWT } from "jose";
import * as client from "openid-client";
import { makeProviderKey, startProvider } from "../identity/oidc/provider_under_test.ts";
import { freePort, startServerUnderTest } from "../support/server_under_test.ts";
import {
  callsOf,
  expectStatus,
  requireIntactTrail,
  requireNowhere,
  signIn,
  trailOf,
  until,
} from "./api_calls.ts";
import { makeCompanyProvider } from "./company_provider.ts";

Deno.test("tokens of identity providers are good for what their groups map to, whatever becomes of the providers", async (test) => {
  const dataDir = await Deno.makeTempDir();
  const port = freePort();
  const audience = `http://127.0.0.1:${port}`;
  const [first, second] = [await makeProviderKey("one", "ES256"), await makeProviderKey("two", "EdDSA")];
  const partnerKey = await makeProviderKey("one", "ES256");
  const company = makeCompanyProvider({
    port: freePort(),
    audience,
    groups: ["staff", "chess club"],
    key: first,
  });
  const partner = await startProvider({ audience, roles: ["staff"], keys: [partnerKey] });
  const strangers = await startProvider({ audience, roles: ["admin", "staff"], keys: [first] });
  const unnamed = await startProvider({ audience, roles: ["staff"], keys: [first] });
  const issuers = [
    {
      issuer: company.issuer,
      discovery: true,
      rolesClaim: "/directory/groups~1all",
      roles: { staff: ["user"] },
    },
    { issuer: partner.issuer, discovery: true, roles: { staff: ["user"] }, team: "partners" },
    // Its tokens hold the names of roles of ours: without a mapping they are nothing.
    { issuer: strangers.issuer, discovery: true, roles: { "chess club": ["user"] } },
  ];
  const secrets: Record<string, string> = {};
  const keep = (name: string, token: string): string => secrets[name] = token;

  await company.start();
  const companyToken = keep("the company's token", await company.token());
  await company.stop();
  const server = await startServerUnderTest({
    dataDir,
    variables: { PORTCULLIS_PORT: String(port), PORTCULLIS_ISSUERS: JSON.stringify(issuers) },
  });
  try {
    await server.whenReady();
    const own = (await signIn(server)).access_token;
    const models = (token: string) => callsOf(server, token)("GET", "/v1/models");
    const embed = (token: string) =>
      callsOf(server, token)("POST", "/v1/embeddings", { model: "use-lite", input: "hello" });
    const partnerToken = keep("the partner's token", await partner.token());

    await test.step("while a provider is down: 503 with Retry-After for its tokens; ours and others' work", async () => {
      const answer = await models(companyToken);
      strictEqual(answer.status, 503, answer.text);
      match(answer.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
      strictEqual((await models(own)).status, 200);
      strictEqual((await embed(partnerToken)).status, 200);
      match(server.output(), /"event":"issuer\.keys_unavailable"/);
    });

    await test.step("it comes back, and its tokens work by themselves: models and embeddings", async () => {
      await company.start();
      await until(() => models(companyToken), ({ status }) => status !== 503);
      const { data } = await expectStatus(models(companyToken), 200);
      deepStrictEqual(data.map(({ id }: { id: string }) => id), ["use-lite"]);
      const { data: [embedded] } = await expectStatus(embed(companyToken), 200);
      strictEqual(embedded.embedding.length, 512);
      strictEqual(company.keyRequests(), 1);
    });

    await test.step("a scope in our words narrows what the roles give", async () => {
      const answer = await models(partnerToken);
      strictEqual(answer.status, 403);
      match(answer.headers.get("www-authenticate") ?? "", /error="insufficient_scope", scope="model:read"/);
    });

    await test.step("a token whose roles map to nothing may do nothing: 403, whatever it calls its roles", async () => {
      const token = keep("a stranger's token", await strangers.token());
      for (const path of ["/v1/models", "/v1/users", "/v1/keys", "/v1/signing-keys"]) {
        strictEqual((await callsOf(server, token)("GET", path)).status, 403, path);
      }
      strictEqual((await embed(token)).status, 403);
    });

    await test.step("what only accounts of this server have, others' tokens neither see nor make", async () => {
      const calls = callsOf(server, companyToken);
      const passwords = { current_password: "whatever it is", new_password: "whatever it will be" };
      strictEqual((await calls("POST", "/v1/auth/password", passwords)).status, 403);
      strictEqual((await calls("POST", "/v1/keys", { name: "mine" })).status, 403);
      for (const path of ["/v1/users", "/v1/keys", "/v1/auth/sessions"]) {
        deepStrictEqual((await expectStatus(calls("GET", path), 200)).data, [], path);
      }
    });

    await test.step("RFC 9449: a token that the provider bound to a key is worth nothing without it", async () => {
      const keyPair = await client.randomDPoPKeyPair("ES256");
      const token = keep("the company's bound token", await company.token(keyPair));
      strictEqual((await models(token)).status, 401);
      const configuration = new client.Configuration({ issuer: company.issuer }, "robot");
      client.allowInsecureRequests(configuration);
      configuration[client.customFetch] = async (url, options) => {
        const response = await fetch(url, options as RequestInit);
        return new Response(await response.bytes(), response);
      };
      const withKeys = (keys: client.CryptoKeyPair) =>
        client.fetchProtectedResource(
          configuration,
          token,
          new URL(`${server.origin}/v1/models`),
          "GET",
          undefined,
          undefined,
          { DPoP: client.getDPoPHandle(configuration, keys) },
        ).then(({ status }) => status, ({ status }) => status);
      strictEqual(await withKeys(keyPair), 200);
      strictEqual(await withKeys(await client.randomDPoPKeyPair("ES256")), 401);
    });

    await test.step("nobody speaks for another issuer, nor does an issuer that nobody named", async () => {
      const claims = decodeJwt(companyToken);
      const [companys, partners] = [await importJWK(first, "ES256"), await importJWK(partnerKey, "ES256")];
      const forged = (key: typeof companys, changes: Record<string, unknown>) =>
        new SignJWT({ ...claims, ...changes })
          .setProtectedHeader({ alg: "ES256", typ: "at+jwt", kid: "one" }).sign(key);
      strictEqual((await models(await forged(companys, {}))).status, 200, "the control");
      const attacks: Record<string, string> = {
        "the company's claims under the partner's key of the same name": await forged(partners, {}),
        "the company's key under our own issuer": await forged(companys, { iss: audience }),
        "the company's key for another audience": await forged(companys, { aud: "https://other.example" }),
        "the company's key, expired": await forged(companys, { exp: Number(claims.iat) - 100 }),
        "the company's key, for a day": await forged(companys, { exp: Number(claims.exp) + 86_400 }),
        "an issuer that nobody named": await unnamed.token(),
      };
      for (const [name, token] of Object.entries(attacks)) {
        const answer = await models(keep(name, token));
        strictEqual(answer.status, 401, name);
        match(answer.headers.get("www-authenticate") ?? "", /^Bearer .*error="invalid_token"/, name);
      }
      strictEqual(unnamed.keyRequests(), 0);
    });

    await test.step("one subject of two issuers is two callers: in the trail, and when one of them signs out", async () => {
      const asked = [await embed(companyToken), await embed(partnerToken)];
      const requests = asked.map(({ request }) => request);
      const recorded = trailOf(dataDir).filter(({ type, request }) =>
        type === "inference.started" && requests.includes(String(request))
      );
      deepStrictEqual(recorded.map(({ issuer, subject, team }) => [issuer, subject, team]), [
        [company.issuer, "robot", "default"],
        [partner.issuer, "robot", "partners"],
      ]);
      notStrictEqual(recorded[0]?.credential, recorded[1]?.credential);
      const leaving = keep("a token of the company that is ended", await company.token());
      await expectStatus(models(leaving), 200);
      await expectStatus(callsOf(server, leaving)("POST", "/v1/auth/logout"), 204);
      deepStrictEqual(
        [await models(leaving), await models(companyToken), await embed(partnerToken)]
          .map(({ status }) => status),
        [401, 200, 200],
      );
    });

    await test.step("ASVS V13.3.4: the provider rotates its keys while the server runs, and is followed", async () => {
      company.useKeys(second, first);
      const token = keep("a token of the second key", await company.token());
      // Unknown key ids come from anybody: the server asks for them every half minute at most.
      await until(() => models(token), ({ status }) => status !== 401);
      await expectStatus(models(token), 200);
      await expectStatus(models(companyToken), 200);
      strictEqual(company.keyRequests(), 2);
    });

    await test.step("a provider that goes down later keeps nobody out whose key is known", async () => {
      const token = keep("the last token", await company.token());
      await company.stop();
      await expectStatus(models(token), 200);
      await expectStatus(models(companyToken), 200);
    });
  } finally {
    await server.stop();
    await company.stop();
    for (const provider of [partner, strangers, unnamed]) await provider.close();
  }
  try {
    await requireIntactTrail(dataDir);
    requireNowhere(secrets, dataDir, server.output());
    ok(!/"level":"error"/.test(server.output()), server.output());
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});
