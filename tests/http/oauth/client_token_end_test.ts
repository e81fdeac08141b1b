// Tests of how the access tokens of a client end with what made them: disabling it, a secret or a key that is taken from it.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Client } from "../../../src/identity/clients.ts";
import type { Kept } from "../../../src/identity/kept.ts";
import { makeForeignKey } from "../../identity/foreign_key.ts";
import { basic, claimsOf } from "./oauth_messages.ts";
import { manualClock } from "../../support/manual_clock.ts";
import { ManualFeed } from "../../support/manual_feed.ts";
import {
  assertionOf,
  INTROSPECT_URL,
  type OauthUnderTest,
  openOauthUnderTest,
  TOKEN_URL,
  withOauth,
} from "./oauth_under_test.ts";

const GRANT = { grant_type: "client_credentials" };
const key = makeForeignKey("ES256");
const JWK = { ...key.publicJwk, alg: "ES256" };
const OTHER_JWK = { ...makeForeignKey("EdDSA").publicJwk, alg: "EdDSA" };

async function found({ clients }: OauthUnderTest, id: string): Promise<Kept<Client>> {
  const kept = await clients.read(id);
  ok(kept);
  return kept;
}

async function change(oauth: OauthUnderTest, id: string, changed: Partial<Client>): Promise<void> {
  const kept = await found(oauth, id);
  strictEqual(await oauth.clients.replace(kept, { ...kept.value, ...changed }), true);
}

/** Whether the gate opens to a token, and whether introspection calls it active. */
async function worthOf(oauth: OauthUnderTest, token: unknown): Promise<readonly [boolean, unknown]> {
  const { by } = await oauth.secretClient(["admin"]);
  const { body } = await oauth.post(INTROSPECT_URL, { token: String(token) }, by);
  return [await oauth.opens(`Bearer ${token}`), body.active];
}

const GOOD = [true, true];
const OVER = [false, false];

Deno.test("ASVS V7.4.2: a client that is enabled again has none of its tokens of before, and gets new ones at once", async () => {
  await withOauth(async (oauth) => {
    const { client, by } = await oauth.secretClient(["user"]);
    const { body: before } = await oauth.post(TOKEN_URL, GRANT, by);
    deepStrictEqual(await worthOf(oauth, before.access_token), GOOD);
    await change(oauth, client.id, { disabled: true });
    deepStrictEqual(await worthOf(oauth, before.access_token), OVER);
    await change(oauth, client.id, { disabled: false });
    deepStrictEqual(await worthOf(oauth, before.access_token), OVER);
    const { body: after } = await oauth.post(TOKEN_URL, GRANT, by);
    deepStrictEqual(await worthOf(oauth, after.access_token), GOOD);
    oauth.clock.advance(60_000);
    deepStrictEqual(await worthOf(oauth, before.access_token), OVER);
    deepStrictEqual(await worthOf(oauth, after.access_token), GOOD);
  });
});

Deno.test("a token that was being issued while its client was disabled is over when it is enabled again", async () => {
  await withOauth(async (oauth) => {
    const { client } = await oauth.secretClient(["user"]);
    await change(oauth, client.id, { disabled: true });
    oauth.clock.advance(1000);
    const order = { subject: client.id, clientId: client.id, session: null, scope: null, boundTo: null };
    const { token } = await oauth.accessTokens.issue(order);
    await change(oauth, client.id, { disabled: false });
    deepStrictEqual(await worthOf(oauth, token), OVER);
  });
});

Deno.test("a secret that is rotated without a grace takes its tokens along; with one they go on", async () => {
  await withOauth(async (oauth) => {
    const { client, by } = await oauth.secretClient(["user"]);
    const { body: first } = await oauth.post(TOKEN_URL, GRANT, by);
    oauth.clock.advance(5000);
    ok(await oauth.clients.rotateSecret(await found(oauth, client.id), 60));
    deepStrictEqual(await worthOf(oauth, first.access_token), GOOD);
    const rotated = await oauth.clients.rotateSecret(await found(oauth, client.id), 0);
    ok(rotated);
    deepStrictEqual(await worthOf(oauth, first.access_token), OVER);
    const nowSeconds = Math.floor(oauth.clock.now() / 1000);
    const issuedAt = async (): Promise<unknown> => {
      const { body } = await oauth.post(TOKEN_URL, GRANT, basic(client.id, rotated.secret));
      deepStrictEqual(await worthOf(oauth, body.access_token), GOOD);
      const { iat, exp } = claimsOf(body.access_token);
      strictEqual(Number(exp) - Number(iat), oauth.accessTokens.ttlSeconds);
      return iat;
    };
    // In the seconds that are over for clocks which differ; and in every later one as it is.
    deepStrictEqual(await issuedAt(), nowSeconds + 3);
    oauth.clock.advance(1000);
    deepStrictEqual(await issuedAt(), nowSeconds + 3);
    oauth.clock.advance(3000);
    deepStrictEqual(await issuedAt(), nowSeconds + 4);
  });
});

Deno.test("ASVS V7.4.2: tokens end with their secret over instances whose clocks differ by two seconds, and those of the new one are good", async () => {
  for (const startMs of [0, 1, 500, 999].map((ms) => 1_750_000_000_000 + ms)) {
    for (const aheadMs of [-2000, -1000, -1, 0, 1, 1000, 2000]) {
      const here = await openOauthUnderTest();
      here.clock.advance(startMs - here.clock.now());
      const feed = new ManualFeed();
      const elsewhere = await openOauthUnderTest(
        {},
        { ...here, clock: manualClock(startMs + aheadMs) },
        feed,
      );
      const { client, by } = await here.secretClient(["user"]);
      const tokenOf = async (oauth: OauthUnderTest, proof: Readonly<Record<string, string>>) =>
        `Bearer ${(await oauth.post(TOKEN_URL, GRANT, proof)).body.access_token}`;
      const old = [await tokenOf(elsewhere, by), await tokenOf(here, by)];
      for (const token of old) ok(await here.opens(token) && await elsewhere.opens(token));
      const rotated = await here.clients.rotateSecret(await found(here, client.id), 0);
      ok(rotated);
      await feed.tell("clients", client.id);
      const next = basic(client.id, rotated.secret);
      const given = [await tokenOf(elsewhere, next), await tokenOf(here, next)];
      for (const oauth of [here, elsewhere]) {
        const opened: boolean[] = [];
        for (const token of [...old, ...given]) opened.push(await oauth.opens(token));
        deepStrictEqual(opened, [false, false, true, true], `${startMs} ${aheadMs}`);
      }
      await here.close();
      await elsewhere.close();
    }
  }
});

Deno.test("tokens end with a key that is taken from their client, and not when it gets one more or another name", async () => {
  await withOauth(async (oauth) => {
    const { id } = await oauth.keyClient(["user"], key);
    const give = async (): Promise<unknown> =>
      (await oauth.post(TOKEN_URL, { ...GRANT, ...assertionOf(oauth, id, key) })).body.access_token;
    const token = await give();
    await change(oauth, id, { name: "another", roles: ["operator"], keys: [OTHER_JWK, JWK] });
    deepStrictEqual(await worthOf(oauth, token), GOOD);
    await change(oauth, id, { keys: [JWK] });
    deepStrictEqual(await worthOf(oauth, token), OVER);
    deepStrictEqual(await worthOf(oauth, await give()), GOOD);
  });
});

Deno.test("an API key of a client has an end of its own: a rotated secret is not it", async () => {
  await withOauth(async (oauth) => {
    const { client } = await oauth.secretClient(["user"]);
    const { text } = await oauth.apiKeys.create({
      name: "key",
      ownerId: client.id,
      scopes: ["model:read"],
      addresses: [],
      boundTo: null,
      expiresAtMs: oauth.clock.now() + 60_000,
      seenByOthers: false,
    });
    ok(await oauth.clients.rotateSecret(await found(oauth, client.id), 0));
    deepStrictEqual(await worthOf(oauth, text), GOOD);
  });
});
