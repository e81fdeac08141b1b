// Tests against a real OpenID Connect provider: its tokens are accepted, its keys are found, and a rotation of them is followed.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { hash } from "node:crypto";
import {
  type ExternalIssuerSettings,
  type ExternalTokens,
  openExternalTokens,
} from "../../../src/identity/oidc/external_tokens.ts";
import { ALGORITHMS } from "../../../src/identity/public_key.ts";
import { parseJws } from "../../../src/identity/strict_jws.ts";
import { clockAndLog } from "./issuer_under_test.ts";
import { makeProviderKey, startProvider } from "./provider_under_test.ts";

const AUDIENCE = "https://ai.example.com";

async function open(
  keys: Parameters<typeof startProvider>[0]["keys"],
  settings: Partial<ExternalIssuerSettings> = {},
) {
  const provider = await startProvider({ audience: AUDIENCE, roles: ["staff", "other"], keys });
  // The provider knows the real time only.
  const { clock, log } = clockAndLog(Date.now());
  const tokens = openExternalTokens(
    {
      issuer: provider.issuer,
      audience: AUDIENCE,
      algorithms: ALGORITHMS,
      leewaySeconds: 60,
      lifetimeSecondsMax: 3600,
      tokenType: "at+jwt",
      rolesClaim: "/roles",
      roles: { staff: ["user"] },
      team: "default",
      ...settings,
    },
    clock,
    log,
  );
  return {
    provider,
    clock,
    tokens,
    close: async () => {
      await tokens.close();
      await provider.close();
      await log.flush();
    },
  };
}

async function check(tokens: ExternalTokens, text: string) {
  const sha256 = hash("sha256", text, "base64");
  const jws = parseJws(text);
  ok(jws.ok);
  return tokens.cached(sha256) ?? await tokens.verify(jws.value, sha256);
}

for (const alg of ["ES256", "RS256", "EdDSA"] as const) {
  Deno.test(`RFC 9068: an access token of a real provider is accepted, found by discovery: ${alg}`, async () => {
    const { provider, tokens, close } = await open([await makeProviderKey("one", alg)]);
    const outcome = await check(tokens, await provider.token());
    ok(outcome.ok, JSON.stringify(outcome));
    const { tokenId, expiresAtSeconds, ...rest } = outcome.value;
    deepStrictEqual(rest, {
      issuer: provider.issuer,
      subject: "robot",
      team: "default",
      roles: ["user"],
      clientId: "robot",
      scope: "model:infer",
      boundTo: null,
    });
    match(tokenId, /^[\w-]{20,}$/);
    ok(expiresAtSeconds > 0);
    await close();
  });
}

Deno.test("a real provider's token is refused by an issuer's verifier of other settings", async () => {
  const key = await makeProviderKey("one", "ES256");
  for (
    const [settings, reason] of [
      [{ audience: "https://other.example" }, "audience_wrong"],
      [{ algorithms: ["EdDSA"] }, "algorithm_refused"],
      [{ tokenType: "JWT" }, "type_refused"],
      [{ lifetimeSecondsMax: 599 }, "lifetime_too_long"],
    ] as const
  ) {
    const { provider, tokens, close } = await open([key], settings);
    deepStrictEqual(await check(tokens, await provider.token()), { ok: false, reason });
    await close();
  }
});

Deno.test("ASVS V13.3.4: a rotation of the provider's keys is followed: the new token at once, the old one until its key is gone", async () => {
  const [first, second] = [await makeProviderKey("one", "ES256"), await makeProviderKey("two", "EdDSA")];
  const { provider, tokens, clock, close } = await open([first]);
  const before = await provider.token();
  strictEqual((await check(tokens, before)).ok, true);
  strictEqual(provider.keyRequests(), 1);

  // Both are published: old tokens live on, and a token of the new key makes us look.
  provider.useKeys(second, first);
  clock.advance(30_000);
  const after = await provider.token();
  strictEqual((await check(tokens, after)).ok, true);
  strictEqual((await check(tokens, before)).ok, true);
  strictEqual(provider.keyRequests(), 2);

  // The old key is gone. What it signed has half a minute to live, and is refused with the end of the keys' ten minutes.
  provider.useKeys(second);
  clock.advance(4 * 60_000);
  strictEqual((await check(tokens, before)).ok, true);
  strictEqual(provider.keyRequests(), 2);
  clock.advance(6 * 60_000);
  deepStrictEqual(await check(tokens, before), { ok: false, reason: "key_unknown" });
  strictEqual((await check(tokens, after)).ok, true);
  strictEqual(provider.keyRequests(), 3);
  await close();
});

Deno.test("a provider that was replaced with all its keys is followed after ten minutes, though the name of the key stays", async () => {
  const [first, second] = [await makeProviderKey("one", "ES256"), await makeProviderKey("one", "ES256")];
  const { provider, tokens, clock, close } = await open([first]);
  const before = await provider.token();
  strictEqual((await check(tokens, before)).ok, true);
  // Another key under the same name.
  provider.useKeys(second);
  clock.advance(10 * 60_000);
  deepStrictEqual(await check(tokens, before), { ok: false, reason: "signature_wrong" });
  await close();
});
