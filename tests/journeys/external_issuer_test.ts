// External issuers: a company's own identity provider beside this server's accounts, up, down, rotating and hostile.
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import { decodeJwt, importJWK, SignJWT } from "jose";
import OpenAI from "openai";
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

Deno.test("tokens of companies' identity providers are good for what their roles map to, whatever becomes of the providers", async (test) => {
  const dataDir = await Deno.makeTempDir();
  const port = freePort();
  const audience = `http://127.0.0.1:${port}`;
  const [first, second] = [await makeProviderKey("one", "ES256"), await makeProviderKey("two", "EdDSA")];
  const partnerKey = await makeProviderKey("one", "ES256");
  const company = await startProvider({ audience, roles: ["staff", "chess club"], keys: [first] });
  const partner = await startProvider({ audience, roles: ["staff"], keys: [partnerKey] });
  const strangers = await startProvider({ audience, roles: ["admin", "staff"], keys: [first] });
  const foreign = await startProvider({ audience, roles: ["staff"], keys: [first] });
  // The partner's keys are behind a door that is closed at first.
  const doorPort = freePort();
  const issuers = [
    { issuer: company.issuer, discovery: true, roles: { staff: ["user"] } },
    {
      issuer: partner.issuer,
      jwksUrl: `http://127.0.0.1:${doorPort}/jwks`,
      roles: { staff: ["user"] },
      team: "partners",
    },
    // Roles of ours under the issuer's names: without a mapping they are nothing.
    { issuer: strangers.issuer, discovery: true, roles: { "chess club": ["user"] } },
  ];
  let door: Deno.HttpServer | undefined;
  const secrets: Record<string, string> = {};
  const server = await startServerUnderTest({
    dataDir,
    variables: { PORTCULLIS_PORT: String(port), PORTCULLIS_ISSUERS: JSON.stringify(issuers) },
  });
  try {
    await server.whenReady();
    const tokenOf = async (provider: typeof company, name: string): Promise<string> =>
      secrets[`${name} (${Object.keys(secrets).length})`] = await provider.token();
    const own = (await signIn(server)).access_token;
    const models = async (token: string) => await callsOf(server, token)("GET", "/v1/models");
    const companyToken = await tokenOf(company, "a token of the company");
    const partnerToken = await tokenOf(partner, "a token of the partner");

    await test.step("a provider that is down when its first token comes: 503 with Retry-After; our own tokens work", async () => {
      const answer = await models(partnerToken);
      strictEqual(answer.status, 503, answer.text);
      match(answer.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
      strictEqual((await models(partnerToken)).status, 503);
      strictEqual((await models(own)).status, 200);
      match(server.output(), /"event":"issuer\.keys_unavailable"/);
    });

    await test.step("the company's token lists models and embeds, by fetch and by OpenAI's client", async () => {
      const { data } = await expectStatus(models(companyToken), 200);
      deepStrictEqual(data.map(({ id }: { id: string }) => id), ["use-lite"]);
      const client = new OpenAI({ baseURL: `${server.origin}/v1`, apiKey: companyToken, maxRetries: 0 });
      const { data: [embedded] } = await client.embeddings.create({ model: "use-lite", input: "hello" });
      strictEqual(embedded?.embedding.length, 512);
      strictEqual(company.keyRequests(), 1);
    });

    await test.step("a token whose roles map to nothing may do nothing: 403, whatever it calls its roles", async () => {
      const token = await tokenOf(strangers, "a stranger's token");
      const calls = callsOf(server, token);
      for (
        const [method, path] of [["GET", "/v1/models"], ["GET", "/v1/users"], ["GET", "/v1/keys"]] as const
      ) {
        strictEqual((await calls(method, path)).status, 403, path);
      }
      strictEqual((await calls("POST", "/v1/embeddings", { model: "use-lite", input: "a" })).status, 403);
    });

    await test.step("what only accounts of this server have, others' tokens cannot make", async () => {
      const calls = callsOf(server, companyToken);
      const passwords = { current_password: "whatever it is", new_password: "whatever it will be" };
      strictEqual((await calls("POST", "/v1/auth/password", passwords)).status, 403);
      strictEqual((await calls("POST", "/v1/keys", { name: "mine" })).status, 403);
      strictEqual((await calls("GET", "/v1/users")).status, 200);
      deepStrictEqual((await calls("GET", "/v1/users")).body.data, []);
      deepStrictEqual((await calls("GET", "/v1/auth/sessions")).body.data, []);
    });

    await test.step("nobody speaks for another issuer, nor an issuer that nobody named", async () => {
      const claims = decodeJwt(companyToken);
      const forged = (key: CryptoKey | Uint8Array, kid: string, changes: Record<string, unknown>) =>
        new SignJWT({ ...claims, ...changes }).setProtectedHeader({ alg: "ES256", typ: "at+jwt", kid }).sign(
          key,
        );
      const companys = await importJWK(first, "ES256");
      const partners = await importJWK(partnerKey, "ES256");
      const attacks: Record<string, string> = {
        "the company's claims under the partner's key of the same name": await forged(partners, "one", {}),
        "the company's key under our own issuer": await forged(companys, "one", { iss: audience }),
        "the company's key for another audience": await forged(companys, "one", {
          aud: "https://other.example",
        }),
        "the company's key, expired": await forged(companys, "one", {
          exp: Number(claims.exp) - 7200,
          iat: 1,
        }),
        "the company's key, for a day": await forged(companys, "one", { exp: Number(claims.exp) + 86_400 }),
        "an issuer that nobody named": await tokenOf(foreign, "a foreign token"),
      };
      strictEqual((await models(await forged(companys, "one", {}))).status, 200, "the control");
      for (const [name, token] of Object.entries(attacks)) {
        const answer = await models(token);
        strictEqual(answer.status, 401, name);
        match(answer.headers.get("www-authenticate") ?? "", /^Bearer .*error="invalid_token"/, name);
      }
      strictEqual(foreign.keyRequests(), 0);
    });

    await test.step("the provider that was down comes back, and its tokens work by themselves", async () => {
      door = Deno.serve({ hostname: "127.0.0.1", port: doorPort, onListen() {} }, async () => {
        const response = await fetch(`${partner.issuer}/jwks`);
        return new Response(await response.text(), { headers: { "content-type": "application/json" } });
      });
      await until(() => models(partnerToken), ({ status }) => status !== 503);
      await expectStatus(models(partnerToken), 200);
    });

    await test.step("one subject of two issuers is two callers: in the trail, and when one of them signs out", async () => {
      const asked = [await models(companyToken), await models(partnerToken)];
      const requests = asked.map(({ request }) => request);
      const recorded = trailOf(dataDir).filter(({ request }) => requests.includes(String(request)));
      deepStrictEqual(
        recorded.map(({ type, issuer, subject, team }) => [type, issuer, subject, team]),
        [
          ["request.allowed", company.issuer, "robot", "default"],
          ["request.allowed", partner.issuer, "robot", "partners"],
        ],
      );
      notStrictEqual(recorded[0]?.credential, recorded[1]?.credential);
      const leaving = await tokenOf(partner, "a token of the partner that is ended");
      await expectStatus(models(leaving), 200);
      await expectStatus(callsOf(server, leaving)("POST", "/v1/auth/logout"), 204);
      strictEqual((await models(leaving)).status, 401);
      strictEqual((await models(partnerToken)).status, 200);
      strictEqual((await models(companyToken)).status, 200);
    });

    await test.step("ASVS V13.3.4: the provider rotates its keys while the server runs, and is followed", async () => {
      company.useKeys(second, first);
      const token = await tokenOf(company, "a token of the second key");
      // Unknown key ids come from anybody: the server asks for them every half minute at most.
      await until(() => models(token), ({ status }) => status !== 401);
      await expectStatus(models(token), 200);
      await expectStatus(models(companyToken), 200);
      strictEqual(company.keyRequests(), 2);
    });

    await test.step("a provider that goes down later keeps nobody out whose key is known", async () => {
      const token = await tokenOf(company, "the last token");
      await company.close();
      await expectStatus(models(token), 200);
      await expectStatus(models(companyToken), 200);
    });
  } finally {
    await server.stop();
    await door?.shutdown();
    for (const provider of [company, partner, strangers, foreign]) await provider.close();
  }
  try {
    await requireIntactTrail(dataDir);
    requireNowhere(secrets, dataDir, server.output());
    ok(!/"level":"error"/.test(server.output()), server.output());
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});
