// Tests of clients that prove themselves with a key: assertions that are wrong, and that each works once (RFC 7523 §3).
import { deepStrictEqual } from "node:assert/strict";
import { encodeBase64url } from "../../../src/encoding/base64url.ts";
import { makeForeignKey } from "../../identity/foreign_key.ts";
import { type Form, outcomeOf } from "./oauth_messages.ts";
import {
  ASSERTION_TYPE,
  assertionOf,
  ISSUER,
  type OauthUnderTest,
  openOauthUnderTest,
  REVOKE_URL,
  TOKEN_URL,
  withOauth,
} from "./oauth_under_test.ts";

const GRANT = { grant_type: "client_credentials" };
const key = makeForeignKey("ES256");
const stranger = makeForeignKey("ES256");
/** For all that is refused: none of it changes anything, so that one door serves. */
const shared = await openOauthUnderTest();

for (
  const [what, of] of [
    ["signed with another key", (oauth, id) => assertionOf(oauth, id, stranger)],
    [
      "for another audience",
      (oauth, id) => assertionOf(oauth, id, key, { aud: "https://other.example.com" }),
    ],
    ["for another endpoint", (oauth, id) => assertionOf(oauth, id, key, { aud: `${ISSUER}${REVOKE_URL}` })],
    ["that has expired", (oauth, id) => assertionOf(oauth, id, key, { exp: oauth.clock.now() / 1000 - 1 })],
    [
      "that lives too long",
      (oauth, id) => assertionOf(oauth, id, key, { exp: oauth.clock.now() / 1000 + 3600 }),
    ],
    ["about another subject", (oauth, id) => assertionOf(oauth, id, key, { sub: "cli_other" })],
    ["of a client that is none", (oauth) => assertionOf(oauth, "cli_other", key)],
    ["beside another client_id", (oauth, id) => ({ ...assertionOf(oauth, id, key), client_id: "cli_other" })],
    [
      "of another type",
      (oauth, id) => ({
        ...assertionOf(oauth, id, key),
        client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
      }),
    ],
    [
      "without a signature",
      (oauth, id) => {
        const [, claims = ""] = (assertionOf(oauth, id, key).client_assertion ?? "").split(".");
        const header = encodeBase64url(new TextEncoder().encode('{"alg":"none"}'));
        return { client_assertion_type: ASSERTION_TYPE, client_assertion: `${header}.${claims}.` };
      },
    ],
  ] as readonly (readonly [string, (oauth: OauthUnderTest, id: string) => Form])[]
) {
  Deno.test(`an assertion ${what} is answered invalid_client`, async () => {
    const oauth = shared;
    const { id } = await oauth.keyClient(["user"], key);
    deepStrictEqual(outcomeOf(await oauth.post(TOKEN_URL, { ...GRANT, ...of(oauth, id) })), [
      401,
      "invalid_client",
    ]);
  });
}

Deno.test("an assertion works once, also where two come at the same time (RFC 7523 §3)", async () => {
  await withOauth(async (oauth) => {
    const { id } = await oauth.keyClient(["user"], key);
    const form = { ...GRANT, ...assertionOf(oauth, id, key) };
    const answers = await Promise.all([1, 2, 3].map(() => oauth.post(TOKEN_URL, form)));
    deepStrictEqual(answers.map(({ status }) => status).sort(), [200, 401, 401]);
  });
});

Deno.test("an assertion that was used before a restart is not accepted after it (RFC 7523 §3)", async () => {
  const before = await openOauthUnderTest();
  const { id } = await before.keyClient(["user"], key);
  const form = { ...GRANT, ...assertionOf(before, id, key) };
  deepStrictEqual((await before.post(TOKEN_URL, form)).status, 200);
  await before.close();
  const after = await openOauthUnderTest({}, before);
  deepStrictEqual(outcomeOf(await after.post(TOKEN_URL, form)), [401, "invalid_client"]);
  deepStrictEqual((await after.post(TOKEN_URL, { ...GRANT, ...assertionOf(after, id, key) })).status, 200);
  await after.close();
});
