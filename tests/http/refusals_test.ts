// Tests of every route against every way to be refused. A route without a good call fails.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { ACTIONS } from "../../src/access/action.ts";
import { parseGrant } from "../../src/access/grant.ts";
import type { AnyRoute } from "../../src/http/route.ts";
import { type AppUnderTest, openAppUnderTest, PASSWORD } from "../support/app_under_test.ts";
import { type Call, type GoodCall, openObjects, prepare } from "./good_calls.ts";
import { type Accounts, GOOD_CALLS, methodsOf, nameOf, type Refusal, REFUSALS, tokenOf } from "./refusals.ts";

Deno.test("every route has a good call in the table, and every good call a route", () =>
  withApp(({ portcullis: { routes } }) => {
    deepStrictEqual(Object.keys(GOOD_CALLS).sort(), routes.map(nameOf).sort());
    for (const { path, policy: { kind }, method } of routes) {
      const { as = "admin" } = goodCall(`${method} ${path}`);
      const expected = { action: ["admin", "user"], client: ["client"] }[kind as string] ?? ["nobody"];
      ok(expected.includes(as), `${method} ${path}: as ${as}`);
    }
  }));

Deno.test("every route answers its good call, by HEAD too where it is a GET", () =>
  withApp(async (app, accounts) => {
    const token = await tokenOf(accounts);
    for (const name of app.portcullis.routes.map(nameOf)) {
      const { status = 200 } = goodCall(name);
      // Objects of its own, for some calls delete theirs.
      const { path, init } = await prepare(name, goodCall(name), openObjects(app.call, token), token);
      const response = await app.call(path, init);
      strictEqual(response.status, status, `${name} answered ${response.status}: ${await response.text()}`);
      checkHeaders(response, name);
      if (init.method !== "GET") continue;
      const head = await app.call(path, { ...init, method: "HEAD" });
      strictEqual(head.status, status, `HEAD ${path}`);
      strictEqual(head.body, null, `HEAD ${path} has a body`);
    }
  }));

for (const refusal of REFUSALS) {
  Deno.test(`every route refuses ${refusal.name} with ${refusal.status} ${refusal.code}, and leaves a record where it is not public`, () =>
    withApp(async (app, accounts) => {
      const token = await tokenOf(accounts);
      const objects = openObjects(app.call, token);
      const routes = app.portcullis.routes.filter(refusal.applies);
      ok(routes.length > 0);
      for (const route of routes) {
        const name = nameOf(route);
        const good = await prepare(name, goodCall(name), objects, token);
        const { path, init } = await refusal.spoil(good, route, accounts);
        await checkRefused(app, route, { path, init }, refusal);
      }
      for (const engine of app.engines.values()) {
        deepStrictEqual(engine.asked, [], "a refused request reached the engine");
      }
    }));
}

/** Calls that name what is not there, by the beginning of their paths: in the caller's own team, and in another. */
const STRANGE_PLACES: Readonly<Record<string, Readonly<Record<string, string>>[]>> = {
  "/v1/models/": [{ id: "no-such-model" }, { id: "%00" }],
  "/v2/models/": [{ id: "no-such-model" }, { id: "a%2Fb" }],
  "/v1/auth/sessions/": [{ id: `ses_${"0".repeat(26)}` }, { id: "ses_" }, { id: `usr_${"0".repeat(26)}` }],
  "/v1/keys/": [{ id: `pck_${"0".repeat(26)}` }, { id: "pck_1" }, { id: `ses_${"0".repeat(26)}` }],
  "/v1/users/": [{ id: `usr_${"0".repeat(26)}` }, { id: "admin" }, { id: `cli_${"0".repeat(26)}` }],
  "/v1/clients/": [{ id: `cli_${"0".repeat(26)}` }, { id: "portcullis" }, { id: `usr_${"0".repeat(26)}` }],
  "/v1/teams/": [{ id: "no-such-team" }, { id: "-" }, { id: "DEFAULT" }],
  "/v1/roles/": [{ team: "no-such-team", name: "some-role" }, { team: "default", name: "Some%20Role" }],
};

Deno.test("an object that does not exist and one of another team are answered in the same words, on every route that names one", () =>
  withApp(async (app, accounts) => {
    const admin = await tokenOf(accounts);
    const token = await tokenOf(accounts, { subject: await teamLeader(app) });
    await app.portcullis.identity.teams.create({ id: "elsewhere", description: "", createdAtMs: 0 });
    const elsewhere = openObjects(app.call, admin, "elsewhere");
    let checked = 0;
    for (const route of app.portcullis.routes.filter(isAboutAnObject)) {
      const name = nameOf(route);
      const [start = "", strange = []] = Object.entries(STRANGE_PLACES).find(([each]) =>
        route.path.startsWith(each)
      ) ?? [];
      const theirs = /models/.test(start)
        ? { id: "hidden" }
        : /teams/.test(start)
        ? { id: "elsewhere" }
        : await goodCall(name).at?.(elsewhere) ?? {};
      const places = [...strange, theirs];
      // What is not there yet, a PUT makes.
      if (name === "GET /v1/roles/{team}/{name}") places.push({ team: "default", name: "no-such-role" });
      const answers: unknown[] = [];
      for (const place of places) {
        const good = await prepare(
          name,
          { ...goodCall(name), at: () => Promise.resolve(place) },
          elsewhere,
          token,
        );
        const response = await app.call(good.path, good.init);
        const { instance: _, request_id: __, ...body } = await response.json();
        answers.push([response.status, body, withoutIdAndRates(response.headers)]);
      }
      strictEqual((answers[0] as unknown[])[0], 404, name);
      for (const [at, answer] of answers.entries()) {
        deepStrictEqual(answer, answers[0], `${name}: ${JSON.stringify(places[at])}`);
      }
      checked += answers.length;
    }
    ok(checked > 60, `only ${checked} were checked`);
    for (const engine of app.engines.values()) deepStrictEqual(engine.asked, []);
  }));

Deno.test("openapi.json lists exactly the routes, each with its action and its credential; every action is demanded somewhere", () =>
  withApp(async (app) => {
    const description = await (await app.call("/openapi.json")).json();
    type Operation = { "x-portcullis-action"?: string; security: Record<string, unknown>[] };
    const described = Object.entries(description.paths as Record<string, Record<string, Operation>>)
      .flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, operation]) => [
          `${method.toUpperCase()} ${path}`,
          operation["x-portcullis-action"] ?? null,
          ...operation.security.map((each) => Object.keys(each).join()),
        ])
      );
    deepStrictEqual(
      described.sort(),
      app.portcullis.routes.map((route) => {
        const { policy } = route;
        return policy.kind === "action"
          ? [nameOf(route), policy.action, "accessToken"]
          : [nameOf(route), null, ...(policy.kind === "client" ? ["clientSecretBasic", ""] : [])];
      }).sort(),
    );
    const demanded = described.flatMap(([, action]) => action ?? []);
    // These two are asked by handlers: tests/http/upstream_gate_test.ts, tests/http/access_matrix_test.ts.
    const all = new Set([...demanded, "upstream:read", "token:introspect"]);
    deepStrictEqual([...all].sort(), Object.keys(ACTIONS).sort(), "an action that nothing demands");
  }));

/** What belongs to the server as a whole, no team has and none is kept from seeing. */
function isAboutAnObject({ path, policy }: AnyRoute): boolean {
  return path.includes("{") && !(policy.kind === "action" && ACTIONS[policy.action] === "system");
}

/** An app with the accounts that the rows need; closed after the test. */
async function withApp(test: (app: AppUnderTest, accounts: Accounts) => Promise<void> | void): Promise<void> {
  const app = await openAppUnderTest();
  try {
    const { identity } = app.portcullis;
    const admin = await identity.users.findByName("admin");
    const order = { roles: [], team: "default", authentication: "secret" as const, keys: [] };
    const { client } = await identity.clients.create({ ...order, name: "without a role" });
    const { client: disabled } = await identity.clients.create({
      ...order,
      name: "disabled",
      roles: ["admin"],
    });
    const found = await identity.clients.read(disabled.id);
    ok(found !== undefined && await identity.clients.replace(found, { ...disabled, disabled: true }));
    await test(app, { identity, adminId: admin?.id ?? "", clientId: client.id, disabledId: disabled.id });
  } finally {
    await app.close();
  }
}

/** Somebody who may do everything within the team, and nothing elsewhere. */
async function teamLeader({ portcullis: { identity } }: AppUnderTest): Promise<string> {
  const grants = Object.keys(ACTIONS).map((action) => parseGrant(`${action}/team`))
    .flatMap((grant) => grant.ok && ACTIONS[grant.value.action] === "object" ? [grant.value] : []);
  const role = { name: "leader", team: "default", description: "", grants, builtIn: false, createdAtMs: 0 };
  await identity.roleBook.put(role, undefined);
  const roles = ["user", "leader"];
  return (await identity.users.create({ username: "leader", password: PASSWORD, roles, team: "default" })).id;
}

function goodCall(name: string): GoodCall {
  const call = GOOD_CALLS[name];
  ok(call, `${name} has no row`);
  return call;
}

async function checkRefused(
  app: AppUnderTest,
  route: AnyRoute,
  { path, init }: Call,
  refusal: Refusal,
): Promise<void> {
  const recordsBefore = app.auditEvents().length;
  const response = await app.call(path, init);
  const where = `${nameOf(route)}: ${refusal.name}`;
  strictEqual(response.status, refusal.status, where);
  checkHeaders(response, where);
  checkChallenge(response, refusal, route, where);
  await checkErrorBody(response, refusal, route, where);
  // What is refused before a route is known belongs to none; a wrong method is no route's.
  const leavesRecord = route.policy.kind !== "public" &&
    !["target-invalid", "method-not-allowed"].includes(refusal.code);
  const added = app.auditEvents().slice(recordsBefore);
  strictEqual(added.length, leavesRecord ? 1 : 0, `${where}: records`);
  if (leavesRecord) {
    deepStrictEqual(
      [added[0]?.type, added[0]?.status, added[0]?.code, added[0]?.request],
      ["request.refused", refusal.status, refusal.code, response.headers.get("x-request-id")],
    );
  }
}

function checkHeaders(response: Response, where: string): void {
  const { headers } = response;
  strictEqual(headers.get("x-content-type-options"), "nosniff", where);
  strictEqual(headers.get("referrer-policy"), "no-referrer", where);
  match(headers.get("content-security-policy") ?? "", /default-src 'none'.*frame-ancestors 'none'/, where);
  match(headers.get("x-request-id") ?? "", /^req_[0-9a-z]{26}$/, where);
  match(headers.get("cache-control") ?? "", /^no-store$|^public, max-age=300$/, where);
  for (const name of ["server", "x-powered-by", "via", "access-control-allow-origin"]) {
    strictEqual(headers.get(name), null, `${where}: ${name}`);
  }
}

/** What a refusal says of how to come in (RFC 6749 §5.2, RFC 6750 §3, RFC 9449 §7.1, RFC 9728 §5.1), and of which methods work. */
function checkChallenge(
  { headers }: Response,
  { status, code }: Refusal,
  route: AnyRoute,
  where: string,
): void {
  const challenge = headers.get("www-authenticate") ?? "";
  if (code === "client-refused") strictEqual(challenge, 'Basic realm="portcullis"', where);
  else if (status === 401) {
    match(challenge, /^Bearer realm="portcullis"/, where);
    ok(
      challenge.includes('resource_metadata="http://127.0.0.1:8000/.well-known/oauth-protected-resource"'),
      where,
    );
    match(challenge, /, DPoP algs="/, where);
  } else if (status === 403) {
    const { policy } = route;
    const action = policy.kind === "action" ? policy.action : "";
    strictEqual(challenge, `Bearer realm="portcullis", error="insufficient_scope", scope="${action}"`, where);
  } else strictEqual(challenge, "", where);
  const methods = methodsOf(route.path).flatMap((method) => method === "GET" ? ["GET", "HEAD"] : [method]);
  deepStrictEqual(
    headers.get("allow")?.split(", ").sort(),
    status === 405 ? methods.sort() : undefined,
    where,
  );
}

const OAUTH_ERRORS: Readonly<Record<string, string>> = { "client-refused": "invalid_client" };

async function checkErrorBody(
  response: Response,
  { code, status }: Refusal,
  route: AnyRoute,
  where: string,
): Promise<void> {
  const body = await response.json();
  // What is refused before a route is known is answered in no dialect.
  const dialect = code === "target-invalid" ? "problem" : route.dialect.name;
  strictEqual(
    response.headers.get("content-type"),
    dialect === "problem" ? "application/problem+json" : "application/json",
    where,
  );
  if (dialect === "problem") {
    deepStrictEqual([body.type, body.status], [`urn:portcullis:problem:${code}`, status], where);
  } else if (dialect === "openai") {
    strictEqual(body.error.code, code.replaceAll("-", "_"), where);
    ok(
      typeof body.error.message === "string" && typeof body.error.type === "string" && "param" in body.error,
    );
  } else if (dialect === "anthropic") {
    deepStrictEqual([body.type, Object.keys(body.error), typeof body.request_id], [
      "error",
      ["type", "message"],
      "string",
    ]);
  } else if (dialect === "oauth") {
    deepStrictEqual(Object.keys(body), ["error", "error_description"], where);
    strictEqual(body.error, OAUTH_ERRORS[code] ?? "invalid_request", where);
    match(body.error_description, /^[\x20\x21\x23-\x5b\x5d-\x7e]+$/, where);
  } else {
    deepStrictEqual(Object.keys(body), ["error"], where);
    ok(typeof body.error === "string");
  }
}

/** Headers that do not differ by the request alone. */
function withoutIdAndRates(headers: Headers): string[][] {
  return [...headers].filter(([name]) => name !== "x-request-id" && !name.startsWith("ratelimit"));
}
