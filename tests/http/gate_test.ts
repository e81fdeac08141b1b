// The gate's steps one by one: addresses, rates, headers across origins, bodies, durability.
import { deepStrictEqual, match, notStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../src/faults/fault.ts";
import { createApp } from "../../src/http/app.ts";
import { clientAddress } from "../../src/http/middleware/client_address.ts";
import { BODY_CONTAINERS_MAX, readJsonBody } from "../../src/http/middleware/read_body.ts";
import type { AnyRoute } from "../../src/http/route.ts";
import { formatAddress, parseAddressRange } from "../../src/encoding/ip_address.ts";
import {
  type AppUnderTest,
  getAs,
  openAppUnderTest,
  postJson,
  stubEmbeddings,
} from "../support/app_under_test.ts";

Deno.test("createApp() refuses a route table with a route that declares no policy", () => {
  const route = { method: "GET", path: "/x", answers: {}, faults: [] } as unknown as AnyRoute;
  let thrown: unknown;
  try {
    createApp({} as never, [route]);
  } catch (error) {
    thrown = error;
  }
  ok(thrown instanceof Fault);
  match(thrown.message, /GET \/x: it declares no policy/);
});

const PROXIES = ["10.0.0.0/8", "fd00::/8"].flatMap((text) => {
  const range = parseAddressRange(text);
  return range.ok ? [range.value] : [];
});
for (
  const [what, peer, header, expected] of [
    ["the peer where there is no header", "192.0.2.9", null, "192.0.2.9"],
    [
      "the peer where the peer is no proxy, whatever the header says",
      "192.0.2.9",
      "198.51.100.1",
      "192.0.2.9",
    ],
    ["the rightmost hop behind a proxy", "10.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"],
    [
      "the first hop from the right that is no proxy",
      "10.0.0.1",
      "203.0.113.7, 10.1.1.1, 10.2.2.2",
      "203.0.113.7",
    ],
    [
      "the last named proxy where a hop is no address",
      "10.0.0.1",
      "203.0.113.7, unknown, 10.2.2.2",
      "10.2.2.2",
    ],
    ["the proxy itself where the header is garbage", "10.0.0.1", ",,'; DROP", "10.0.0.1"],
    ["an IPv6 hop behind an IPv6 proxy", "fd00::1", "2001:db8::5", "2001:db8:0:0:0:0:0:5"],
    ["IPv4 where the peer is IPv4-mapped", "::ffff:192.0.2.9", null, "192.0.2.9"],
  ] as const
) {
  Deno.test(`clientAddress() is ${what}`, () =>
    strictEqual(formatAddress(clientAddress(peer, header, PROXIES)), expected));
}

Deno.test("the address tier refuses the request after its quota, says so in fields that agree, and counts each address for itself", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_RATE_ADDRESS_PER_MINUTE: "3" });
  try {
    for (const left of [2, 1, 0]) {
      const response = await app.call("/openapi.json", { from: "198.51.100.1" });
      await response.body?.cancel();
      strictEqual(response.status, 200);
      strictEqual(response.headers.get("ratelimit-policy"), '"address";q=3;w=60');
      match(response.headers.get("ratelimit") ?? "", new RegExp(`^"address";r=${left};t=\\d+$`));
    }
    const refused = await app.call("/openapi.json", { from: "198.51.100.1" });
    const body = await refused.json();
    strictEqual(refused.status, 429);
    strictEqual(body.type, "urn:portcullis:problem:rate-limited");
    const retryAfter = refused.headers.get("retry-after");
    strictEqual(refused.headers.get("ratelimit"), `"address";r=0;t=${retryAfter}`);
    ok(Number(retryAfter) >= 1 && Number(retryAfter) <= 20);
    const other = await app.call("/openapi.json", { from: "198.51.100.2" });
    await other.body?.cancel();
    strictEqual(other.status, 200);
  } finally {
    await app.close();
  }
});

Deno.test("one IPv6 /64 is one client to the address tier", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_RATE_ADDRESS_PER_MINUTE: "1" });
  try {
    const statuses = [];
    for (const from of ["2001:db8:1:1::1", "2001:db8:1:1:ffff::2", "2001:db8:1:2::1"]) {
      const response = await app.call("/openapi.json", { from });
      await response.body?.cancel();
      statuses.push(response.status);
    }
    deepStrictEqual(statuses, [200, 429, 200]);
  } finally {
    await app.close();
  }
});

Deno.test("the sign-in tier stops guessing from one address, and X-Forwarded-For or another name do not evade it", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_RATE_SIGN_IN_PER_MINUTE: "2" });
  try {
    const statuses = [];
    for (let attempt = 0; attempt < 4; attempt++) {
      const init = postJson({ username: `admin${attempt}`, password: "wrong" });
      const headers = {
        ...init.headers as Record<string, string>,
        "x-forwarded-for": `203.0.113.${attempt}`,
        "user-agent": `agent ${attempt}`,
      };
      const response = await app.call("/v1/auth/login", { ...init, headers });
      await response.body?.cancel();
      statuses.push(response.status);
    }
    deepStrictEqual(statuses, [401, 401, 429, 429]);
    strictEqual(app.auditEvents().filter(({ type }) => type === "session.refused").length, 2);
    strictEqual(
      app.auditEvents().filter(({ code }) => code === "rate-limited").length,
      2,
      "refusals by rate leave records too",
    );
  } finally {
    await app.close();
  }
});

Deno.test("the user tier counts a user over all its addresses and tokens, and the refused request is recorded with its subject", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_RATE_USER_PER_MINUTE: "2" });
  try {
    const token = await app.tokenFor("user");
    const statuses = [];
    for (const from of ["198.51.100.1", "198.51.100.2", "198.51.100.3"]) {
      const response = await app.call("/v1/models", { ...getAs(token), from });
      await response.body?.cancel();
      statuses.push(response.status);
    }
    deepStrictEqual(statuses, [200, 200, 429]);
    match(String(app.auditEvents().at(-1)?.subject), /^usr_/);
  } finally {
    await app.close();
  }
});

Deno.test("probes answer however busy their address is", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_RATE_ADDRESS_PER_MINUTE: "1" });
  try {
    for (const path of ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/healthz"]) {
      const response = await app.call(path);
      await response.body?.cancel();
      strictEqual(response.status, 200, path);
    }
  } finally {
    await app.close();
  }
});

Deno.test("CORS: a listed origin may read and preflight, any other gets no header", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_CORS_ORIGINS: "https://app.example.com" });
  try {
    const ask = async (
      origin: string,
      method: string,
      headers: Record<string, string> = {},
    ): Promise<Response> => {
      const response = await app.call("/v1/embeddings", { method, headers: { origin, ...headers } });
      await response.body?.cancel();
      return response;
    };
    const preflight = {
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization",
    };
    const allowed = await ask("https://app.example.com", "OPTIONS", preflight);
    deepStrictEqual([allowed.status, allowed.headers.get("access-control-allow-origin")], [
      204,
      "https://app.example.com",
    ]);
    strictEqual(allowed.headers.get("access-control-allow-credentials"), null);
    for (
      const origin of [
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "null",
        "https://APP.example.com",
      ]
    ) {
      const refused = await ask(origin, "OPTIONS", preflight);
      deepStrictEqual(
        [refused.status, refused.headers.get("access-control-allow-origin")],
        [405, null],
        origin,
      );
    }
    const refusal = await ask("https://app.example.com", "POST");
    deepStrictEqual([refusal.status, refusal.headers.get("access-control-allow-origin")], [
      415,
      "https://app.example.com",
    ]);
    strictEqual(refusal.headers.get("vary"), "Origin");
  } finally {
    await app.close();
  }
});

Deno.test("HSTS is sent where the public origin is https", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_PUBLIC_URL: "https://ai.example.com" });
  try {
    const local = await app.call("/nothing-here");
    await local.body?.cancel();
    match(local.headers.get("strict-transport-security") ?? "", /max-age=63072000/);
  } finally {
    await app.close();
  }
});

Deno.test("readJsonBody() gives up on a body that stops arriving", async () => {
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode("{")),
  });
  const request = new Request("http://x/", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  strictEqual(
    await kindOfRefusal(readJsonBody(request, { bodyBytesMax: 100, bodyTimeoutMs: 30 })),
    "body_timeout",
  );
});

Deno.test("readJsonBody() puts a body together from pieces of any size (property)", async () => {
  await fc.assert(
    fc.asyncProperty(
      // A member called "__proto__" is refused, and that has a test of its own.
      fc.json().filter((text) => !text.includes("__proto__")),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
      fc.boolean(),
      async (text, cuts, announced) => {
        const bytes = new TextEncoder().encode(text);
        let offset = 0;
        let cut = 0;
        const body = new ReadableStream<Uint8Array>({
          pull(controller) {
            if (offset >= bytes.length) return controller.close();
            const end = offset + (cuts[cut++ % cuts.length] ?? 1);
            controller.enqueue(bytes.subarray(offset, end));
            offset = end;
          },
        });
        const headers = {
          "content-type": "application/json",
          ...(announced ? { "content-length": String(bytes.length) } : {}),
        };
        const request = new Request("http://x/", { method: "POST", headers, body });
        deepStrictEqual(
          await readJsonBody(request, { bodyBytesMax: 100_000, bodyTimeoutMs: 5000 }),
          JSON.parse(text),
        );
      },
    ),
  );
});

Deno.test("OWASP API4: readJsonBody() refuses a body of more objects and arrays than a conversation needs", async () => {
  const read = (items: number) =>
    readJsonBody(
      new Request("http://x/", { method: "POST", body: `[${Array(items).fill("{}").join(",")}]` }),
      { bodyBytesMax: 100_000, bodyTimeoutMs: 5000 },
    );
  strictEqual((await read(BODY_CONTAINERS_MAX - 1) as unknown[]).length, 19_999);
  strictEqual(await kindOfRefusal(read(BODY_CONTAINERS_MAX)), "request_invalid");
});

Deno.test("readJsonBody() stops at the limit where no length was announced", async () => {
  let pulled = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      pulled++;
      controller.enqueue(new Uint8Array(64).fill(0x20));
    },
  }, { highWaterMark: 0 });
  const request = new Request("http://x/", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  strictEqual(
    await kindOfRefusal(readJsonBody(request, { bodyBytesMax: 1000, bodyTimeoutMs: 5000 })),
    "body_too_large",
  );
  ok(pulled <= 17, `${pulled} pieces were read`);
});

Deno.test("an inference leaves an intent before the engine is asked and an outcome after, with the same request id", async () => {
  const app = await openAppUnderTest();
  try {
    const token = await app.tokenFor("user");
    let recordsSeenByEngine: unknown[] = [];
    const engine = app.engines.get("open");
    ok(engine);
    engine.behave = (texts) => {
      recordsSeenByEngine = app.auditEvents().filter(({ type }) => String(type).startsWith("inference."));
      return Promise.resolve(stubEmbeddings(texts));
    };
    const response = await app.call(
      "/v1/embeddings",
      postJson({ model: "open", input: ["one two", "three"] }, token),
    );
    await response.body?.cancel();
    strictEqual(recordsSeenByEngine.length, 1);
    const [started, finished] = app.auditEvents().slice(-2);
    deepStrictEqual([started?.type, started?.items, started?.model], ["inference.started", 2, "open"]);
    deepStrictEqual([finished?.type, finished?.inputTokens, finished?.outcome], [
      "inference.finished",
      3,
      "completed",
    ]);
    strictEqual(started?.request, response.headers.get("x-request-id"));
    strictEqual(finished?.request, started?.request);
  } finally {
    await app.close();
  }
});

Deno.test("when the trail cannot write, no model runs, no token is issued, probes of life answer, and all recovers by itself", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_AUDIT_TIMEOUT_MS: "500" });
  try {
    const token = await app.tokenFor("user");
    await takeTrailAway(app);
    const infer = async (): Promise<number> => {
      const response = await app.call("/v1/embeddings", postJson({ model: "open", input: "a" }, token));
      await response.body?.cancel();
      return response.status;
    };
    strictEqual(await infer(), 503);
    const signIn = await app.call(
      "/v1/auth/login",
      postJson({ username: "admin", password: "correct horse battery staple" }),
    );
    strictEqual(signIn.status, 503);
    ok(!(await signIn.text()).includes("eyJ"), "a token was answered without its record");
    deepStrictEqual(app.engines.get("open")?.asked, []);
    strictEqual((await drained(app.call("/healthz"))).status, 200);
    strictEqual((await drained(app.call("/readyz"))).status, 503);
    await bringTrailBack(app);
    strictEqual(await infer(), 200);
  } finally {
    await app.close();
  }
});

Deno.test("an error that nobody foresaw is answered 500 without a word of it, and is in the log and the trail", async () => {
  const app = await openAppUnderTest();
  try {
    const token = await app.tokenFor("user");
    const engine = app.engines.get("open");
    ok(engine);
    engine.behave = () => Promise.reject(new TypeError("secret inside at /srv/portcullis/src/x.ts"));
    const response = await app.call("/v1/embeddings", postJson({ model: "open", input: "a" }, token));
    const text = await response.text();
    strictEqual(response.status, 500);
    ok(!/secret|TypeError|\.ts/.test(text), text);
    await app.portcullis.log.flush();
    ok(
      app.logLines().some(({ level, reason }) =>
        level === "error" && String(reason).includes("secret inside")
      ),
    );
    strictEqual(app.auditEvents().at(-1)?.outcome, "internal");
  } finally {
    await app.close();
  }
});

Deno.test("a path that does not exist is 404 in the dialect of its prefix, whatever is sent to it; a wrong method is 405 with a body too", async () => {
  const app = await openAppUnderTest();
  try {
    const chat = await app.call("/v1/no/such/route", postJson({ model: "open", messages: [] }));
    deepStrictEqual([chat.status, (await chat.json()).error.code], [404, "not_found"]);
    const oip = await app.call("/v2/repository/index", postJson({}));
    deepStrictEqual([oip.status, Object.keys(await oip.json())], [404, ["error"]]);
    const other = await app.call("/admin?x=1", postJson({}));
    deepStrictEqual([other.status, (await other.json()).type], [404, "urn:portcullis:problem:not-found"]);
    const put = await app.call("/v1/models?x=1", { ...postJson({}), method: "PUT" });
    deepStrictEqual([put.status, put.headers.get("allow")], [405, "GET, HEAD"]);
    await put.body?.cancel();
    deepStrictEqual(app.auditEvents().filter(({ type }) => type === "request.refused"), []);
  } finally {
    await app.close();
  }
});

Deno.test("a stranger's body is not read: without a credential the answer is 401 whatever the body is", async () => {
  const app = await openAppUnderTest();
  try {
    let read = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        read++;
        controller.enqueue(new TextEncoder().encode("{"));
      },
    }, { highWaterMark: 0 });
    const response = await app.call("/v1/embeddings", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    await response.body?.cancel();
    deepStrictEqual([response.status, read], [401, 0]);
  } finally {
    await app.close();
  }
});

Deno.test("POST /v1/auth/login takes 8 KiB at most: strangers send it", async () => {
  const app = await openAppUnderTest();
  try {
    const response = await app.call(
      "/v1/auth/login",
      postJson({ username: "admin", password: "x".repeat(8 * 1024) }),
    );
    await response.body?.cancel();
    strictEqual(response.status, 413);
    const longest = await app.call(
      "/v1/auth/login",
      postJson({ username: "u".repeat(256), password: "\u{1F512}".repeat(512) }),
    );
    await longest.body?.cancel();
    strictEqual(longest.status, 401);
  } finally {
    await app.close();
  }
});

Deno.test("sign-out is recorded before it is done: without a record the token still works and the answer is 503", async () => {
  const app = await openAppUnderTest({ PORTCULLIS_AUDIT_TIMEOUT_MS: "500" });
  try {
    const token = await app.tokenFor("user");
    await takeTrailAway(app);
    const refused = await drained(app.call("/v1/auth/logout", { method: "POST", ...getAs(token) }));
    strictEqual(refused.status, 503);
    await bringTrailBack(app);
    strictEqual((await drained(app.call("/v1/models", getAs(token)))).status, 200);
  } finally {
    await app.close();
  }
});

Deno.test("a request that is refused before it has a route is in the log with its address and code", async () => {
  const app = await openAppUnderTest();
  try {
    await drained(app.call("/healthz", { headers: { host: "evil.example" }, from: "198.51.100.7" }));
    await app.portcullis.log.flush();
    const line = app.logLines().find(({ route }) => route === "none");
    deepStrictEqual([line?.status, line?.code, line?.address], [400, "target-invalid", "198.51.100.7"]);
  } finally {
    await app.close();
  }
});

Deno.test("every request has an id of its own, and one that a client sends is not taken over", async () => {
  const app = await openAppUnderTest();
  try {
    const ids = [];
    for (let index = 0; index < 2; index++) {
      const response = await drained(app.call("/healthz", { headers: { "x-request-id": "mine" } }));
      ids.push(response.headers.get("x-request-id"));
    }
    notStrictEqual(ids[0], ids[1]);
    ok(!ids.includes("mine"));
  } finally {
    await app.close();
  }
});

async function drained(asked: Promise<Response>): Promise<Response> {
  const response = await asked;
  await response.body?.cancel();
  return response;
}

/** The kind of the Fault that a promise is rejected with; undefined when it is not rejected. */
async function kindOfRefusal(asked: Promise<unknown>): Promise<string | undefined> {
  try {
    await asked;
    return undefined;
  } catch (thrown) {
    return thrown instanceof Fault ? thrown.kind : String(thrown);
  }
}

/** From now on the trail cannot write. */
async function takeTrailAway({ folder }: AppUnderTest): Promise<void> {
  await Deno.rename(`${folder}/data/audit`, `${folder}/data/audit-away`);
}

/** Gives the trail its folder back and waits until the server says by itself that it is ready again. */
async function bringTrailBack(app: AppUnderTest): Promise<void> {
  await Deno.remove(`${app.folder}/data/audit`, { recursive: true }).catch(() => undefined);
  await Deno.rename(`${app.folder}/data/audit-away`, `${app.folder}/data/audit`);
  for (let tries = 0; tries < 100 && (await drained(app.call("/readyz"))).status !== 200; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

Deno.test("ASVS V8.3.2: rights that are withdrawn while a body comes are gone when it has come, and nothing is done", async () => {
  const app = await openAppUnderTest();
  try {
    const token = await app.tokenFor("team-admin");
    const { identity } = app.portcullis;
    const caller = await identity.users.findByName("test-team-admin");
    const found = await identity.users.read(caller?.id ?? "");
    ok(found);
    const bytes = new TextEncoder().encode(
      JSON.stringify({
        username: "backdoor",
        password: "a phrase that is long enough",
        roles: ["team-admin"],
      }),
    );
    const rest = Promise.withResolvers<void>();
    let pulls = 0;
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (pulls++ === 0) return controller.enqueue(bytes.subarray(0, 10));
        await rest.promise;
        controller.enqueue(bytes.subarray(10));
        controller.close();
      },
    });
    const pending = app.call("/v1/users", {
      method: "POST",
      headers: {
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
        "content-length": String(bytes.length),
      },
      body,
      duplex: "half",
    } as RequestInit);
    // Longer than a decision is believed.
    await new Promise((resolve) => setTimeout(resolve, 400));
    ok(await identity.users.remove(found));
    rest.resolve();
    const response = await pending;
    strictEqual(response.status, 401);
    await response.body?.cancel();
    strictEqual(await identity.users.findByName("backdoor"), undefined);
  } finally {
    await app.close();
  }
});
