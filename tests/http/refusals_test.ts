// The table of refusals: every route against every way to be refused. A route without a row fails.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { ACTIONS } from "../../src/access/action.ts";
import type { AnyRoute } from "../../src/http/route.ts";
import { type AppUnderTest, getAs, openAppUnderTest, postJson } from "../support/app_under_test.ts";

/** The first bytes of a WAVE file. */
const RIFF = new Uint8Array([...new TextEncoder().encode("RIFF\0\0\0\0WAVEfmt "), ...new Uint8Array(32)]);

/** A call that works, and what it answers. */
interface GoodCall {
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Sent as multipart/form-data, in this order. */
  readonly form?: Readonly<Record<string, string | File>>;
  readonly status: number;
}

/** For each route: a path that works, a body that works where it takes one, and what a good call answers. */
const GOOD_CALLS: Readonly<Record<string, GoodCall>> = {
  "GET /v1/models": { path: "/v1/models", status: 200 },
  "GET /v1/models/{id}": { path: "/v1/models/open", status: 200 },
  "POST /v1/embeddings": {
    path: "/v1/embeddings",
    body: { model: "open", input: "some words" },
    status: 200,
  },
  "POST /v1/chat/completions": {
    path: "/v1/chat/completions",
    body: { model: "generalist", messages: [{ role: "user", content: "hello" }] },
    status: 200,
  },
  "POST /v1/completions": {
    path: "/v1/completions",
    body: { model: "generalist", prompt: "hello" },
    status: 200,
  },
  "POST /v1/responses": { path: "/v1/responses", body: { model: "generalist", input: "hello" }, status: 200 },
  "POST /v1/moderations": {
    path: "/v1/moderations",
    body: { model: "generalist", input: "hello" },
    status: 200,
  },
  "POST /v1/rerank": {
    path: "/v1/rerank",
    body: { model: "generalist", query: "a", documents: ["b"] },
    status: 200,
  },
  "POST /v1/audio/speech": {
    path: "/v1/audio/speech",
    body: { model: "generalist", input: "hello", voice: "alloy" },
    status: 200,
  },
  "POST /v1/audio/transcriptions": {
    path: "/v1/audio/transcriptions",
    form: { model: "generalist", file: new File([RIFF], "a.wav", { type: "audio/wav" }) },
    status: 200,
  },
  "POST /v1/images/generations": {
    path: "/v1/images/generations",
    body: { model: "generalist", prompt: "a house" },
    status: 200,
  },
  "POST /v1/messages": {
    path: "/v1/messages",
    body: { model: "generalist", max_tokens: 5, messages: [{ role: "user", content: "hello" }] },
    status: 200,
  },
  "POST /v1/messages/count_tokens": {
    path: "/v1/messages/count_tokens",
    body: { model: "generalist", messages: [{ role: "user", content: "hello" }] },
    status: 200,
  },
  "GET /v2": { path: "/v2", status: 200 },
  "GET /v2/health/live": { path: "/v2/health/live", status: 200 },
  "GET /v2/health/ready": { path: "/v2/health/ready", status: 200 },
  "GET /v2/models/{id}": { path: "/v2/models/open", status: 200 },
  "GET /v2/models/{id}/ready": { path: "/v2/models/open/ready", status: 200 },
  "POST /v2/models/{id}/infer": {
    path: "/v2/models/open/infer",
    body: { inputs: [{ name: "text", shape: [1], datatype: "BYTES", data: ["some words"] }] },
    status: 200,
  },
  "POST /v1/auth/login": {
    path: "/v1/auth/login",
    body: { username: "admin", password: "correct horse battery staple" },
    status: 200,
  },
  "POST /v1/auth/logout": { path: "/v1/auth/logout", status: 204 },
  "GET /healthz": { path: "/healthz", status: 200 },
  "GET /readyz": { path: "/readyz", status: 200 },
  "GET /.well-known/jwks.json": { path: "/.well-known/jwks.json", status: 200 },
  "GET /openapi.json": { path: "/openapi.json", status: 200 },
};

interface Refusal {
  readonly name: string;
  /** Whether the row speaks of this route at all. */
  applies(route: AnyRoute): boolean;
  /** How the good call is spoilt. */
  spoil(call: { path: string; init: RequestInit }, route: AnyRoute): { path: string; init: RequestInit };
  readonly status: number;
  readonly code: string;
}

const isProtected = (route: AnyRoute): boolean => route.policy.kind === "action";
const takesBody = (route: AnyRoute): boolean => route.body !== undefined || route.bodyForm !== undefined;
const takesJson = (route: AnyRoute): boolean => GOOD_CALLS[nameOf(route)]?.body !== undefined;
const any = (): boolean => true;

const withHeader =
  (name: string, value: string | undefined) => ({ path, init }: { path: string; init: RequestInit }) => {
    const headers = new Headers(init.headers);
    if (value === undefined) headers.delete(name);
    else headers.set(name, value);
    return { path, init: { ...init, headers } };
  };
const withBody =
  (body: string | Uint8Array<ArrayBuffer>) => ({ path, init }: { path: string; init: RequestInit }) => ({
    path,
    init: { ...init, body },
  });

const REFUSALS: readonly Refusal[] = [
  {
    name: "a Host that is not on the allow-list",
    applies: any,
    spoil: withHeader("host", "evil.example"),
    status: 400,
    code: "target-invalid",
  },
  {
    name: "a Host that would move the path",
    applies: any,
    spoil: withHeader("host", "127.0.0.1:8000/healthz?"),
    status: 400,
    code: "target-invalid",
  },
  {
    name: "a query parameter",
    applies: any,
    spoil: ({ path, init }) => ({ path: `${path}?access_token=x`, init }),
    status: 400,
    code: "query-unknown",
  },
  {
    name: "no credential",
    applies: isProtected,
    spoil: withHeader("authorization", undefined),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a credential of another scheme",
    applies: isProtected,
    spoil: withHeader("authorization", "Basic YTpi"),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a token that is none",
    applies: isProtected,
    spoil: withHeader("authorization", "Bearer abc.def.ghi"),
    status: 401,
    code: "unauthenticated",
  },
  {
    name: "a method that the path has not",
    applies: any,
    spoil: ({ path, init }) => ({ path, init: { ...init, method: "DELETE" } }),
    status: 405,
    code: "method-not-allowed",
  },
  {
    name: "a body of another media type",
    applies: takesBody,
    spoil: withHeader("content-type", "text/plain"),
    status: 415,
    code: "media-type-unsupported",
  },
  {
    name: "no media type",
    applies: takesBody,
    spoil: withHeader("content-type", undefined),
    status: 415,
    code: "media-type-unsupported",
  },
  {
    name: "a compressed body",
    applies: takesBody,
    spoil: withHeader("content-encoding", "gzip"),
    status: 415,
    code: "media-type-unsupported",
  },
  {
    name: "a body beyond the limit",
    applies: takesBody,
    spoil: (call, route) => withBody(`{"a":"${"x".repeat(route.bodyBytesMax ?? 1024 * 1024)}"}`)(call),
    status: 413,
    code: "body-too-large",
  },
  {
    name: "a body that is not UTF-8",
    applies: takesJson,
    spoil: withBody(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d])),
    status: 400,
    code: "request-invalid",
  },
  {
    name: "a body that is not JSON",
    applies: takesJson,
    spoil: withBody("{"),
    status: 400,
    code: "request-invalid",
  },
  { name: "an empty body", applies: takesJson, spoil: withBody(""), status: 400, code: "request-invalid" },
  {
    name: "a member twice",
    applies: takesJson,
    spoil: withBody('{"model":"open","\\u006dodel":"open"}'),
    status: 400,
    code: "request-invalid",
  },
  {
    name: "a member called __proto__",
    applies: takesJson,
    spoil: withBody('{"__proto__":{}}'),
    status: 400,
    code: "request-invalid",
  },
  {
    name: "a body nested too deep",
    applies: takesJson,
    spoil: withBody("[".repeat(40) + "]".repeat(40)),
    status: 400,
    code: "request-invalid",
  },
  {
    name: "a field that the schema has not",
    applies: takesJson,
    spoil: ({ path, init }) => ({
      path,
      init: { ...init, body: JSON.stringify({ ...JSON.parse(String(init.body)), role: "admin" }) },
    }),
    status: 422,
    code: "fields-invalid",
  },
  {
    name: "a body that is no object",
    applies: takesJson,
    spoil: withBody("[]"),
    status: 422,
    code: "fields-invalid",
  },
  {
    name: "a body where none is taken",
    applies: (route) => route.method === "POST" && !takesBody(route),
    spoil: ({ path, init }) => withHeader("content-length", "2")({ path, init: { ...init, body: "{}" } }),
    status: 400,
    code: "request-invalid",
  },
];

Deno.test("every route has a good call in the table, and every good call a route", async () => {
  const app = await openAppUnderTest();
  try {
    deepStrictEqual(Object.keys(GOOD_CALLS).sort(), app.portcullis.routes.map(nameOf).sort());
  } finally {
    await app.close();
  }
});

Deno.test("every route answers its good call, by HEAD too where it is a GET", async () => {
  const app = await openAppUnderTest();
  try {
    for (const route of app.portcullis.routes) {
      const { status } = goodCall(route);
      const { path, init } = await prepared(app, route);
      const response = await app.call(path, init);
      await response.body?.cancel();
      strictEqual(response.status, status, nameOf(route));
      checkHeaders(response, nameOf(route));
      if (route.method !== "GET") continue;
      const head = await app.call(path, { ...init, method: "HEAD" });
      strictEqual(head.status, status, `HEAD ${route.path}`);
      strictEqual(head.body, null, `HEAD ${route.path} has a body`);
    }
  } finally {
    await app.close();
  }
});

for (const refusal of REFUSALS) {
  Deno.test(`every route refuses ${refusal.name} with ${refusal.status} ${refusal.code}, and leaves a record where it is not public`, async () => {
    const app = await openAppUnderTest();
    try {
      for (const route of app.portcullis.routes.filter(refusal.applies)) {
        const { path, init } = refusal.spoil(await prepared(app, route), route);
        const recordsBefore = app.auditEvents().length;
        const response = await app.call(path, init);
        const where = `${nameOf(route)}: ${refusal.name}`;
        strictEqual(response.status, refusal.status, where);
        checkHeaders(response, where);
        await checkErrorBody(response, refusal, route);
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
      for (const engine of app.engines.values()) {
        deepStrictEqual(engine.asked, [], "a refused request reached the engine");
      }
    } finally {
      await app.close();
    }
  });
}

Deno.test("every role × every route × no credential: the answer is 401, 403 or the good one, as the roles' actions say", async () => {
  const app = await openAppUnderTest();
  try {
    const description = await (await app.call("/openapi.json")).json();
    const described = Object.entries(
      description.paths as Record<
        string,
        Record<string, { "x-portcullis-action"?: string; security: unknown[] }>
      >,
    )
      .flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, operation]) => ({
          name: `${method.toUpperCase()} ${path}`,
          operation,
        }))
      );
    deepStrictEqual(
      described.map(({ name }) => name).sort(),
      app.portcullis.routes.map(nameOf).sort(),
      "openapi.json lists exactly the routes",
    );
    const seen = new Set<string>();
    for (const { name, operation } of described) {
      const route = app.portcullis.routes.find((each) => nameOf(each) === name);
      ok(route);
      const action = operation["x-portcullis-action"];
      strictEqual(operation.security.length, action === undefined ? 0 : 1, name);
      if (action === undefined) continue;
      seen.add(action);
      const { path, status } = goodCall(route);
      const answers: Record<string, number> = {};
      for (const role of ["admin", "operator", "auditor", "user", "no-such-role", undefined]) {
        // Sign-out ends its token: each call there has one of its own.
        const token = role === undefined
          ? undefined
          : action === "session:end"
          ? await tokenOfItsOwn(app, role)
          : await app.tokenFor(role);
        const response = await app.call(path, await initOf(route, token));
        await response.body?.cancel();
        answers[role ?? "none"] = response.status;
      }
      const auditor = action === "model:infer" ? 403 : status;
      deepStrictEqual(answers, {
        admin: status,
        operator: status,
        auditor,
        user: status,
        "no-such-role": 403,
        none: 401,
      }, name);
    }
    // Decides on a field of answers and not on a route: tests/http/upstream_gate_test.ts.
    seen.add("upstream:read");
    deepStrictEqual([...seen].sort(), Object.keys(ACTIONS).sort(), "an action that no route demands");
  } finally {
    await app.close();
  }
});

function nameOf(route: AnyRoute): string {
  return `${route.method} ${route.path}`;
}

function goodCall(route: AnyRoute): GoodCall {
  const call = GOOD_CALLS[nameOf(route)];
  ok(call, `${nameOf(route)} has no row`);
  return call;
}

async function prepared(app: AppUnderTest, route: AnyRoute): Promise<{ path: string; init: RequestInit }> {
  const token = isProtected(route) ? await tokenOfItsOwn(app, "admin") : undefined;
  return { path: goodCall(route).path, init: await initOf(route, token) };
}

/** The good call's method, credential and body. */
async function initOf(route: AnyRoute, token: string | undefined): Promise<RequestInit> {
  const { body, form } = goodCall(route);
  if (body !== undefined) return postJson(body, token);
  const init = { method: route.method, ...(token === undefined ? {} : getAs(token)) };
  if (form === undefined) return init;
  const fields = new FormData();
  for (const [name, value] of Object.entries(form)) fields.append(name, value);
  const encoded = new Request("http://x/", { method: "POST", body: fields });
  const headers = new Headers(init.headers);
  headers.set("content-type", encoded.headers.get("content-type") ?? "");
  return { ...init, headers, body: await encoded.bytes() };
}

/** A fresh token: some calls end the one they bring. */
async function tokenOfItsOwn(app: AppUnderTest, role: string): Promise<string> {
  await app.tokenFor(role);
  const response = await app.call(
    "/v1/auth/login",
    postJson({ username: `test-${role}`, password: "correct horse battery staple" }),
  );
  return (await response.json()).access_token;
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
  if (response.status === 401) {
    match(headers.get("www-authenticate") ?? "", /^Bearer realm="portcullis"/, where);
  }
  if (response.status === 405) match(headers.get("allow") ?? "", /^(GET, HEAD|POST)$/, where);
}

async function checkErrorBody(response: Response, refusal: Refusal, route: AnyRoute): Promise<void> {
  const body = await response.json();
  // What is refused before a route is known is answered in no dialect.
  const dialect = refusal.code === "target-invalid" ? "problem" : route.dialect.name;
  if (dialect === "problem") {
    strictEqual(response.headers.get("content-type"), "application/problem+json");
    deepStrictEqual([body.type, body.status], [`urn:portcullis:problem:${refusal.code}`, refusal.status]);
  } else if (dialect === "openai") {
    strictEqual(body.error.code, refusal.code.replaceAll("-", "_"));
    ok(
      typeof body.error.message === "string" && typeof body.error.type === "string" && "param" in body.error,
    );
  } else if (dialect === "anthropic") {
    deepStrictEqual([body.type, Object.keys(body.error), typeof body.request_id], [
      "error",
      ["type", "message"],
      "string",
    ]);
  } else {
    deepStrictEqual(Object.keys(body), ["error"]);
    ok(typeof body.error === "string");
  }
}
