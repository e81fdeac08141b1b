// Tests of tokens that are bound to a key: proofs at the token endpoint, nonces, and sessions with a key (RFC 9449 §5, §8).
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { claimsOf, outcomeOf, refreshing } from "./oauth_messages.ts";
import { ISSUER, openHolder, TOKEN_URL, withOauth } from "./oauth_under_test.ts";

const GRANT = { grant_type: "client_credentials" };

Deno.test("a DPoP proof binds the token to its key, in both grants (RFC 9449 §5)", async () => {
  await withOauth(async (oauth) => {
    const holder = await openHolder(oauth);
    const { by } = await oauth.secretClient(["user"]);
    const { refreshToken } = await oauth.session(["user"], { boundTo: holder.thumbprint });
    for (const [form, headers] of [[GRANT, by], [refreshing(refreshToken), {}]] as const) {
      const { status, headers: answered, body } = await oauth.post(TOKEN_URL, form, {
        ...headers,
        dpop: holder.proof(),
      });
      deepStrictEqual([status, body.token_type, claimsOf(body.access_token).cnf], [
        200,
        "DPoP",
        { jkt: holder.thumbprint },
      ]);
      strictEqual(answered.get("dpop-nonce"), oauth.proofs.nonce());
      strictEqual(await oauth.opens(`Bearer ${body.access_token}`), false);
    }
    deepStrictEqual(oauth.events().map((event) => event.type === "token.issued" && event.bound), [
      true,
      true,
    ]);
  });
});

Deno.test("a proof without the nonce, or with an old one, is use_dpop_nonce with the nonce to use (RFC 9449 §8)", async () => {
  await withOauth(async (oauth) => {
    const holder = await openHolder(oauth);
    const { by } = await oauth.secretClient(["user"]);
    for (const nonce of [undefined, "old"]) {
      const { status, headers, body } = await oauth.post(TOKEN_URL, GRANT, {
        ...by,
        dpop: holder.proof({ nonce }),
      });
      deepStrictEqual([status, body.error], [400, "use_dpop_nonce"]);
      const again = await oauth.post(TOKEN_URL, GRANT, {
        ...by,
        dpop: holder.proof({ nonce: headers.get("dpop-nonce") }),
      });
      deepStrictEqual([again.status, again.body.token_type], [200, "DPoP"]);
    }
  });
});

Deno.test("a proof that is wrong is invalid_dpop_proof, gives no token and uses no refresh token up", async () => {
  await withOauth(async (oauth) => {
    const holder = await openHolder(oauth);
    const { by } = await oauth.secretClient(["user"]);
    const { refreshToken } = await oauth.session(["user"], { boundTo: holder.thumbprint });
    const used = holder.proof();
    strictEqual((await oauth.post(TOKEN_URL, GRANT, { ...by, dpop: used })).status, 200);
    const proofs = [
      "x",
      used,
      `${holder.proof()}, ${holder.proof()}`,
      holder.proof({ htm: "GET" }),
      holder.proof({ htu: `${ISSUER}/oauth2/revoke` }),
      holder.proof({ htu: `https://other.example.com${TOKEN_URL}` }),
      holder.proof({ iat: oauth.clock.now() / 1000 - 120 }),
      holder.proof({ ath: "x" }),
    ];
    for (const dpop of proofs) {
      const answers = [
        await oauth.post(TOKEN_URL, GRANT, { ...by, dpop }),
        await oauth.post(TOKEN_URL, refreshing(refreshToken), { dpop }),
      ];
      for (const answer of answers) {
        deepStrictEqual(outcomeOf(answer), [400, "invalid_dpop_proof"]);
        strictEqual(answer.headers.get("dpop-nonce"), oauth.proofs.nonce());
      }
    }
    strictEqual(oauth.events("token.issued").length, 1);
    strictEqual(
      (await oauth.post(TOKEN_URL, refreshing(refreshToken), { dpop: holder.proof() })).status,
      200,
    );
  });
});

Deno.test("the refresh token of a session with a key is worthless without that key, and not used up by trying", async () => {
  await withOauth(async (oauth) => {
    const holder = await openHolder(oauth);
    const thief = await openHolder(oauth);
    const { refreshToken } = await oauth.session(["user"], { boundTo: holder.thumbprint });
    for (const headers of [{}, { dpop: thief.proof() }] as Record<string, string>[]) {
      deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, refreshing(refreshToken), headers)), [
        400,
        "invalid_grant",
      ]);
    }
    const { status, body } = await oauth.post(TOKEN_URL, refreshing(refreshToken), { dpop: holder.proof() });
    strictEqual(status, 200);
    // Nor can the thief end the session with one that was used.
    for (const headers of [{}, { dpop: thief.proof() }] as Record<string, string>[]) {
      await oauth.post(TOKEN_URL, refreshing(refreshToken), headers);
    }
    const following = refreshing(String(body.refresh_token));
    strictEqual((await oauth.post(TOKEN_URL, following, { dpop: holder.proof() })).status, 200);
    deepStrictEqual(oauth.events("session.reuse_detected"), []);
  });
});
