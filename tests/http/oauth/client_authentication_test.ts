// Tests of client authentication: every way in, every wrong one, and that no two ways go together (RFC 6749 §2.3, RFC 7523).
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { makeForeignKey } from "../../identity/foreign_key.ts";
import { basic, claimsOf, type Form, type JsonAnswer } from "./oauth_messages.ts";
import {
  ASSERTION_TYPE,
  assertionOf,
  ISSUER,
  type OauthUnderTest,
  openOauthUnderTest,
  TOKEN_URL,
  withOauth,
} from "./oauth_under_test.ts";

const GRANT = { grant_type: "client_credentials" };
const key = makeForeignKey("ES256");

type Client = Awaited<ReturnType<OauthUnderTest["secretClient"]>>;

function isRefused(answer: JsonAnswer): void {
  deepStrictEqual([answer.status, answer.body.error], [401, "invalid_client"]);
  match(answer.headers.get("www-authenticate") ?? "", /^Basic realm=/);
}

Deno.test("a client proves itself by Basic, by its secret in the form, and by an assertion of its key", async () => {
  await withOauth(async (oauth) => {
    const { client, secret, by } = await oauth.secretClient(["user"]);
    const plain = { authorization: `Basic ${btoa(`${client.id}:${secret}`)}` };
    const keyed = await oauth.keyClient(["user"], key);
    for (
      const [form, headers, id] of [
        [GRANT, by, client.id],
        [GRANT, plain, client.id],
        [GRANT, { authorization: plain.authorization.replace("Basic", "bASIC ") }, client.id],
        [{ ...GRANT, client_id: client.id }, by, client.id],
        [{ ...GRANT, client_id: client.id, client_secret: secret }, {}, client.id],
        [{ ...GRANT, ...assertionOf(oauth, keyed.id, key) }, {}, keyed.id],
        [{ ...GRANT, ...assertionOf(oauth, keyed.id, key), client_id: keyed.id }, {}, keyed.id],
        [{ ...GRANT, ...assertionOf(oauth, keyed.id, key, { aud: `${ISSUER}${TOKEN_URL}` }) }, {}, keyed.id],
      ] as const
    ) {
      const { status, body } = await oauth.post(TOKEN_URL, form, headers);
      deepStrictEqual([status, claimsOf(body.access_token).client_id], [200, id]);
    }
  });
});

Deno.test("id and secret in Basic are form-encoded: colons, plus signs, spaces and characters beyond ASCII arrive as they are", async () => {
  await withOauth(async (oauth) => {
    // What is asked of the clients is what was sent.
    const asked: string[][] = [];
    const verify = oauth.clients.verifySecret;
    (oauth.clients as { verifySecret: typeof verify }).verifySecret = (id, secret) => {
      asked.push([id, secret]);
      return verify(id, secret);
    };
    const form = (text: string) => new URLSearchParams({ "": text }).toString().slice(1);
    for (const secret of ["a:b+c d%2B&=", "pässwörd €𝄞", "%", "+", '"\\']) {
      isRefused(await oauth.post(TOKEN_URL, GRANT, basic("cli:1", secret)));
      isRefused(
        await oauth.post(TOKEN_URL, GRANT, { authorization: `Basic ${btoa(`cli%3A1:${form(secret)}`)}` }),
      );
      deepStrictEqual(asked.splice(0), [["cli:1", secret], ["cli:1", secret]]);
    }
  });
});

const WRONG: readonly (readonly [string, (client: Client) => readonly [Form, Record<string, string>]])[] = [
  ["a wrong secret", ({ client }) => [{}, basic(client.id, `pcs_${"A".repeat(43)}`)]],
  ["an empty secret", ({ client }) => [{}, basic(client.id, "")]],
  ["a wrong secret in the form", ({ client }) => [{ client_id: client.id, client_secret: "x" }, {}]],
  ["an unknown client", ({ secret }) => [{}, basic(`cli_${"0".repeat(26)}`, secret)]],
  ["an id that is none", ({ secret }) => [{}, basic("x y\u0000", secret)]],
  ["an empty id", ({ secret }) => [{}, basic("", secret)]],
  ["Basic for another client than the form names", ({ by }) => [{ client_id: "cli_other" }, by]],
  ["Basic for the client of users in the form", ({ by }) => [{ client_id: "portcullis" }, by]],
  ["a secret for the client of users", () => [{ client_id: "portcullis", client_secret: "x" }, {}]],
  ["no proof at all", () => [{}, {}]],
  ["no proof but an id", ({ client }) => [{ client_id: client.id }, {}]],
  ["no proof but the id of the client of users", () => [{ client_id: "portcullis" }, {}]],
  ["Bearer instead of Basic", ({ secret }) => [{}, { authorization: `Bearer ${secret}` }]],
  ["Basic with nothing", () => [{}, { authorization: "Basic" }]],
  [
    "Basic without a colon",
    ({ client }) => [{}, { authorization: `Basic ${btoa(client.id)}` }],
  ],
  [
    "Basic in base64 without its padding",
    ({ client, secret }) => [{}, { authorization: `Basic ${padded(client.id, secret).replace(/=+$/, "")}` }],
  ],
  [
    "Basic in base64 with bits behind its end",
    ({ client, secret }) => [{}, {
      authorization: `Basic ${
        padded(client.id, secret).replace(/(.)(=+)$/, (_, last, pad) => next(last) + pad)
      }`,
    }],
  ],
  [
    "Basic with bytes that are not UTF-8",
    ({ client }) => [{}, { authorization: `Basic ${btoa(`${client.id}:\xff`)}` }],
  ],
  [
    "Basic with a malformed escape",
    ({ client, secret }) => [{}, { authorization: `Basic ${btoa(`${client.id}:${secret}%zz`)}` }],
  ],
];
/** A pair whose base64 ends with padding, by a secret that is longer by what it takes. */
function padded(id: string, secret: string): string {
  return btoa(
    `${id}:${secret}`.length % 3 === 0
      ? `${id}:%${secret.charCodeAt(0).toString(16)}${secret.slice(1)}`
      : `${id}:${secret}`,
  );
}
/** The next letter of base64: other bits behind the end, the same bytes. */
function next(letter: string): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  return alphabet.charAt(alphabet.indexOf(letter) + 1);
}

Deno.test("a pair with padding is taken as it is, which is what the two rows about padding rest on", async () => {
  await withOauth(async (oauth) => {
    const { client, secret } = await oauth.secretClient([]);
    const text = padded(client.id, secret);
    match(text, /=$/);
    strictEqual((await oauth.post(TOKEN_URL, GRANT, { authorization: `Basic ${text}` })).status, 200);
  });
});

// For all that is refused: none of it changes anything, so that one door serves.
const shared = await openOauthUnderTest();

for (const [what, of] of WRONG) {
  Deno.test(`${what} is answered invalid_client with a challenge, recorded and without a token`, async () => {
    const oauth = shared;
    const client = await oauth.secretClient(["user"]);
    const before = oauth.events().length;
    const [form, headers] = of(client);
    isRefused(await oauth.post(TOKEN_URL, { ...GRANT, ...form }, headers));
    const recorded = oauth.events().slice(before);
    deepStrictEqual(recorded.map(({ type }) => type), ["request.refused"]);
    ok(!JSON.stringify(recorded).includes(client.secret), "the secret is in the trail");
  });
}

Deno.test("a disabled client, and one that is deleted, are refused like one that never was", async () => {
  await withOauth(async (oauth) => {
    const { client, by } = await oauth.secretClient(["user"]);
    const keyed = await oauth.keyClient(["user"], key);
    for (const id of [client.id, keyed.id]) {
      const found = await oauth.clients.read(id);
      ok(found !== undefined && await oauth.clients.replace(found, { ...found.value, disabled: true }));
    }
    const answers = [
      await oauth.post(TOKEN_URL, GRANT, by),
      await oauth.post(TOKEN_URL, { ...GRANT, ...assertionOf(oauth, keyed.id, key) }),
    ];
    for (const id of [client.id, keyed.id]) {
      const found = await oauth.clients.read(id);
      ok(found !== undefined && await oauth.clients.remove(found));
    }
    answers.push(await oauth.post(TOKEN_URL, GRANT, by));
    answers.push(await oauth.post(TOKEN_URL, { ...GRANT, ...assertionOf(oauth, keyed.id, key) }));
    answers.push(await oauth.post(TOKEN_URL, GRANT, basic(`cli_${"0".repeat(26)}`, "x")));
    answers.forEach(isRefused);
    strictEqual(new Set(answers.map(({ body }) => JSON.stringify(body))).size, 1);
  });
});

Deno.test("a client proves itself in one way only: any two are invalid_request, also where both are right (RFC 6749 §2.3)", async () => {
  await withOauth(async (oauth) => {
    const { client, secret, by } = await oauth.secretClient(["user"]);
    const keyed = await oauth.keyClient(["user"], key);
    const post = { client_id: client.id, client_secret: secret };
    const assertion = () => assertionOf(oauth, keyed.id, key);
    for (
      const [form, headers] of [
        [post, by],
        [assertion(), by],
        [{ ...post, ...assertion() }, {}],
        [{ client_assertion_type: ASSERTION_TYPE }, by],
        [{ ...post, ...assertion() }, by],
        [post, { authorization: "Bearer x" }],
        // Halves of one way.
        [{ client_secret: secret }, {}],
        [{ client_assertion_type: ASSERTION_TYPE, client_id: keyed.id }, {}],
        [{ client_assertion: assertion().client_assertion ?? "" }, {}],
      ] as const
    ) {
      const { status, body } = await oauth.post(TOKEN_URL, { ...GRANT, ...form }, headers);
      deepStrictEqual([status, body.error], [400, "invalid_request"]);
    }
  });
});

Deno.test("a client with a key has no secret that would pass, and one with a secret no key", async () => {
  await withOauth(async (oauth) => {
    const { client } = await oauth.secretClient(["user"]);
    const keyed = await oauth.keyClient(["user"], key);
    isRefused(await oauth.post(TOKEN_URL, GRANT, basic(keyed.id, `pcs_${"A".repeat(43)}`)));
    isRefused(await oauth.post(TOKEN_URL, { ...GRANT, ...assertionOf(oauth, client.id, key) }));
  });
});

Deno.test("the old secret works for the grace of a rotation, and the new one at once", async () => {
  await withOauth(async (oauth) => {
    const { client, by } = await oauth.secretClient(["user"]);
    const found = await oauth.clients.read(client.id);
    const rotated = found && await oauth.clients.rotateSecret(found, 60);
    const statuses = async () => [
      (await oauth.post(TOKEN_URL, GRANT, by)).status,
      (await oauth.post(TOKEN_URL, GRANT, basic(client.id, rotated?.secret ?? ""))).status,
    ];
    deepStrictEqual(await statuses(), [200, 200]);
    oauth.clock.advance(61_000);
    deepStrictEqual(await statuses(), [401, 200]);
  });
});

Deno.test("no secret and no assertion is in the log or the trail, whatever becomes of the request", async () => {
  await withOauth(async (oauth) => {
    const { client, secret, by } = await oauth.secretClient(["user"]);
    const keyed = await oauth.keyClient(["user"], key);
    const assertion = assertionOf(oauth, keyed.id, key);
    await oauth.post(TOKEN_URL, GRANT, by);
    await oauth.post(TOKEN_URL, { ...GRANT, client_id: client.id, client_secret: secret, scope: "x" });
    await oauth.post(TOKEN_URL, { ...GRANT, ...assertion });
    await oauth.post(TOKEN_URL, { ...GRANT, ...assertion });
    const written = JSON.stringify(oauth.trail.events) + oauth.logged();
    for (const kept of [secret, by.authorization, assertion.client_assertion ?? ""]) {
      ok(!written.includes(kept));
    }
  });
});
