// Tests of bans at the gate: what a stranger does leads to one, what honest clients do does not, and nothing gets past it.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { makeForeignKey } from "../identity/foreign_key.ts";
import { forgeToken } from "../identity/forge_token.ts";
import { type AppUnderTest, getAs, openAppUnderTest, PASSWORD, postJson } from "../support/app_under_test.ts";
import { manualClock } from "../support/manual_clock.ts";

const STRANGER = "198.51.100.7";
const BANS = {
  credentials: { count: 3, seconds: 300 },
  validation: { count: 5, seconds: 600 },
  probes: { count: 2, seconds: 600 },
};

async function withApp(
  test: (app: AppUnderTest, clock: ReturnType<typeof manualClock>) => Promise<void>,
  variables: Record<string, string> = {},
): Promise<void> {
  const clock = manualClock();
  const app = await openAppUnderTest({ PORTCULLIS_BANS: JSON.stringify(BANS), ...variables }, { clock });
  try {
    await test(app, clock);
  } finally {
    await app.close();
  }
}

/** The statuses of a call again and again. */
async function again(
  { call }: AppUnderTest,
  times: number,
  path: string,
  init: RequestInit | ((at: number) => RequestInit) = {},
  from = STRANGER,
): Promise<number[]> {
  const statuses: number[] = [];
  for (let at = 1; at <= times; at++) {
    const response = await call(path, { ...(typeof init === "function" ? init(at) : init), from });
    await response.body?.cancel();
    statuses.push(response.status);
  }
  return statuses;
}

function tokenRequest(client: Record<string, string>, headers: Record<string, string> = {}): RequestInit {
  return {
    method: "POST",
    headers,
    body: new URLSearchParams({ grant_type: "client_credentials", ...client }),
  };
}

/** One that was never used, of a client that is none. */
function assertion(clientId: string): Record<string, string> {
  const claims = { iss: clientId, sub: clientId, jti: crypto.randomUUID() };
  return {
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: forgeToken({ alg: "ES256" }, claims, makeForeignKey("ES256").signer),
  };
}

const banned = (app: AppUnderTest) => app.auditEvents().filter(({ type }) => type === "address.banned");

Deno.test("who guesses passwords, tokens, keys or clients' secrets is banned, and then not even the right password helps", () =>
  withApp(async (app, clock) => {
    const good = postJson({ username: "admin", password: PASSWORD });
    const basic = (at: number) => ({ authorization: `Basic ${btoa(`cli_x:guess${at}`)}` });
    const guesses: readonly [string, (at: number) => RequestInit][] = [
      ["/v1/auth/login", (at) => postJson({ username: "somebody", password: `guess${at}` })],
      ["/v1/auth/login", (at) => postJson({ username: `somebody${at}`, password: "guess" })],
      ["/v1/models", (at) => getAs(`abc.def.ghi${at}`)],
      ["/v1/models", (at) => getAs(`pck_${"0".repeat(69)}${at}`)],
      ["/v1/models", (at) => ({ headers: basic(at) })],
      ["/oauth2/token", (at) => tokenRequest({}, basic(at))],
      ["/oauth2/token", (at) => tokenRequest({ client_id: "cli_x", client_secret: `guess${at}` })],
      ["/oauth2/token", (at) => tokenRequest(assertion(`cli_x${at}`))],
    ];
    for (const [index, [path, init]] of guesses.entries()) {
      const from = `198.51.100.${index + 10}`;
      deepStrictEqual(await again(app, 4, path, init, from), [401, 401, 401, 403], path);
      const refused = await app.call("/v1/auth/login", { ...good, from });
      deepStrictEqual([refused.status, refused.headers.get("retry-after")], [403, "86400"]);
      const { type, detail } = await refused.json();
      strictEqual(type, "urn:portcullis:problem:banned");
      match(detail, /^This address is banned until 2025-06-16T15:0\d:\d\dZ\.$/);
    }
    deepStrictEqual(banned(app).map(({ trigger }) => trigger), guesses.map(() => "credentials"));
    // Another address is another matter.
    strictEqual((await app.call("/v1/auth/login", good)).status, 200);
    clock.advance(86_400_000);
    strictEqual((await app.call("/v1/auth/login", { ...good, from: "198.51.100.10" })).status, 200);
  }));

Deno.test("a client that goes on with one key, secret or password that is over does not have its address banned", () =>
  withApp(async (app) => {
    const token = await app.tokenFor("user");
    const { id, key } = await (await app.call("/v1/keys", postJson({ name: "old" }, token))).json();
    strictEqual((await app.call("/v1/models", { ...getAs(key), from: STRANGER })).status, 200);
    const deleted = await app.call(`/v1/keys/${id}`, { ...getAs(token), method: "DELETE" });
    ok(deleted.ok);
    const headers = { authorization: `Basic ${btoa("cli_old:secret")}` };
    const stale: readonly [string, RequestInit | (() => RequestInit)][] = [
      ["/v1/models", getAs(key)],
      ["/oauth2/token", tokenRequest({}, headers)],
      ["/oauth2/token", tokenRequest({ client_id: "cli_old", client_secret: "secret" })],
      // Each of them is a new text.
      ["/oauth2/token", () => tokenRequest(assertion("cli_old"))],
      // Fewer, for the account is slowed down.
      ["/v1/auth/login", postJson({ username: "somebody", password: "Capslock" })],
    ];
    for (const [index, [path, init]] of stale.entries()) {
      const times = path === "/v1/auth/login" ? 4 : 9;
      const from = `198.51.100.${index + 10}`;
      deepStrictEqual(await again(app, times, path, init, from), Array(times).fill(401), `${index} ${path}`);
    }
    deepStrictEqual(banned(app), []);
    // And nothing of it is told to tools that ban by logs.
    await app.portcullis.log.flush();
    const strikes = app.logLines().filter(({ event }) => event === "address.strike");
    deepStrictEqual(
      strikes.map(({ address }) => address),
      stale.map((_, index) => `198.51.100.${index + 10}`),
    );
  }));

Deno.test("no page of another origin has its readers banned, and no Host that is not served here its senders", () =>
  withApp(async (app) => {
    for (const site of ["cross-site", "same-site"]) {
      const headers = { "sec-fetch-site": site };
      deepStrictEqual(await again(app, 9, "/.env", { headers }), Array(9).fill(404), site);
      const form = { ...tokenRequest({ client_id: "cli_x", client_secret: "guess" }, headers) };
      deepStrictEqual(await again(app, 9, "/oauth2/token", form), Array(9).fill(401), site);
      deepStrictEqual(await again(app, 9, "/v1/auth/login", form), Array(9).fill(415), site);
    }
    for (const host of ["evil.example", "203.0.113.9", "under_score.example", "evil.example:8000"]) {
      for (const path of ["/healthz", "/.env"]) {
        deepStrictEqual(await again(app, 9, path, { headers: { host } }), Array(9).fill(400), host);
      }
    }
    deepStrictEqual(banned(app), []);
    deepStrictEqual(await again(app, 3, "/.env", { headers: { "sec-fetch-site": "none" } }), [404, 404, 403]);
  }));

Deno.test("what a banned address goes on to send leaves its ban in the trail, and a line each in the log", () =>
  withApp(async (app) => {
    await again(app, 2, "/.env");
    const before = app.auditEvents().length;
    deepStrictEqual(await again(app, 9, "/v1/models"), Array(9).fill(403));
    deepStrictEqual(await again(app, 9, "/v1/auth/login", postJson({})), Array(9).fill(403));
    strictEqual(app.auditEvents().length, before);
    strictEqual(banned(app).length, 1);
    await app.portcullis.log.flush();
    strictEqual(app.logLines().filter(({ code }) => code === "banned").length, 18);
  }));

Deno.test("an honest client is not banned for a token that has expired, for none, for what it may not, or for a wrong name", () =>
  withApp(async (app, clock) => {
    const token = await app.tokenFor("user");
    strictEqual((await app.call("/v1/models", { ...getAs(token), from: STRANGER })).status, 200);
    deepStrictEqual(await again(app, 9, "/v1/users/x", getAs(token)), Array(9).fill(404));
    deepStrictEqual(await again(app, 9, "/v1/signing-keys", getAs(token)), Array(9).fill(403));
    deepStrictEqual(await again(app, 9, "/v1/models/..%2f..%2f.env", getAs(token)), Array(9).fill(404));
    clock.advance(3600_000);
    deepStrictEqual(await again(app, 9, "/v1/models", getAs(token)), Array(9).fill(401));
    deepStrictEqual(await again(app, 9, "/v1/models"), Array(9).fill(401));
    deepStrictEqual(await again(app, 9, "/v1/modles"), Array(9).fill(404));
    deepStrictEqual(banned(app), []);
  }));

Deno.test("requests that break the rules of their form, and probes, lead to a ban; SQL in a prompt does not", () =>
  withApp(async (app) => {
    const token = await app.tokenFor("user");
    const prompt = postJson(
      { model: "open", input: "' or 1=1 -- <script> ../../etc/passwd union select" },
      token,
    );
    deepStrictEqual(await again(app, 9, "/v1/embeddings", prompt), Array(9).fill(200));
    deepStrictEqual(await again(app, 6, "/v1/embeddings", postJson({ model: "open" }, token)), [
      ...Array(5).fill(422),
      403,
    ]);
    deepStrictEqual(await again(app, 3, "/.env", {}, "198.51.100.8"), [404, 404, 403]);
    const injection = "/v1/models?id=1%27%20or%201=1";
    deepStrictEqual(await again(app, 3, injection, {}, "198.51.100.9"), [400, 400, 403]);
    // A target that no route is looked for.
    deepStrictEqual(await again(app, 6, "/v1/%zz", {}, "198.51.100.10"), Array(6).fill(400));
    deepStrictEqual(banned(app).map(({ trigger }) => trigger), [
      "validation",
      "probes",
      "probes",
      "validation",
    ]);
  }));

Deno.test("neither a trusted proxy nor what is exempt is ever banned; a proxy's client is", () =>
  withApp(async (app) => {
    for (const from of ["203.0.113.1", "192.0.2.77", "127.0.0.1"]) {
      deepStrictEqual(await again(app, 9, "/.env", {}, from), Array(9).fill(404), from);
    }
    const client = { headers: { "x-forwarded-for": STRANGER } };
    deepStrictEqual(await again(app, 3, "/.env", client, "203.0.113.1"), [404, 404, 403]);
    deepStrictEqual(await again(app, 1, "/v1/models", {}, "203.0.113.1"), [401]);
  }, {
    PORTCULLIS_TRUSTED_PROXIES: "203.0.113.0/24",
    PORTCULLIS_BAN_EXEMPT: "192.0.2.0/24,127.0.0.0/8",
  }));

Deno.test("an admin sees a ban that the server made, and lifts it", () =>
  withApp(async (app) => {
    await again(app, 2, "/.env");
    const token = await app.tokenFor("admin");
    const { data: [ban] } = await (await app.call("/v1/bans", getAs(token))).json();
    deepStrictEqual([ban.address, ban.reason, ban.actor, ban.count], [STRANGER, "probes", null, 1]);
    strictEqual(banned(app)[0]?.ban, ban.id);
    deepStrictEqual(await again(app, 1, "/v1/models"), [403]);
    const lifted = await app.call(`/v1/bans/${ban.id}`, { ...getAs(token), method: "DELETE" });
    strictEqual(lifted.status, 204);
    deepStrictEqual(await again(app, 1, "/v1/models"), [401]);
  }));

Deno.test("where the server is not to ban by itself it does not, and logs what others may judge", () =>
  withApp(async (app) => {
    deepStrictEqual(await again(app, 9, "/.env"), Array(9).fill(404));
    await app.portcullis.log.flush();
    const strikes = app.logLines().filter(({ event }) => event === "address.strike");
    deepStrictEqual(
      strikes.map(({ address, trigger }) => [address, trigger]),
      Array(9).fill([STRANGER, "probes"]),
    );
    ok(strikes.every(({ request }) => typeof request === "string"));
  }, { PORTCULLIS_BANS: JSON.stringify({ ...BANS, enabled: false }) }));
