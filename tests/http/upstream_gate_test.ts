// The gate before upstreams: what of a request reaches an engine, what of its answer reaches the caller, and what neither does.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { type AppUnderTest, getAs } from "../support/app_under_test.ts";
import { recordsOf, withUpstreams } from "../support/app_with_upstreams.ts";
import { answerWell, DOORS } from "../support/doors.ts";
import {
  answerBytes,
  answerJson,
  answerStatus,
  type Script,
  type ScriptedRequest,
  type ScriptedUpstream,
  startScriptedUpstream,
} from "../support/scripted_upstream.ts";

const HELLO = "hello";
const KEY = `canary-${crypto.randomUUID()}`;
const PICTURE = "data:image/png;base64,iVBORw0KGgo=";
/** What no upstream's answer may bring to a caller. */
const FOREIGN_HEADERS = {
  "server": "engine/1",
  "set-cookie": "a=b",
  "x-foo": "foreign",
  "x-request-id": "foreign",
  "x-portcullis-served-by": "foreign",
  "access-control-allow-origin": "*",
  "strict-transport-security": "max-age=1",
  "cache-control": "public, max-age=31536000",
  "retry-after": "77",
  "location": "http://127.0.0.1:9/",
  "www-authenticate": "Basic",
  "openai-organization": "foreign",
  "ratelimit": "foreign",
};

/** Everything is behind it: a server for each protocol on one port, told apart by their targets. */
const ANSWERS: Readonly<Record<string, Script>> = {
  "/v1/chat/completions": (reply, request) =>
    answerWell(request.json().stream === true ? DOORS.chatStream : DOORS.chat, HELLO)(reply, request),
  "/v1/completions": answerJson({ choices: [{ index: 0, text: HELLO, finish_reason: "stop" }] }),
  "/v1/embeddings": answerJson({ data: [{ index: 0, embedding: [0.5, 0.25] }] }),
  "/v1/rerank": answerJson({ results: [{ index: 0, relevance_score: 0.5 }] }),
  "/v1/moderations": answerJson({ results: [{ flagged: false, categories: {}, category_scores: {} }] }),
  "/v1/images/generations": answerJson({ data: [{ b64_json: "aGk=" }] }),
  "/v1/audio/speech": answerBytes(Uint8Array.of(1, 2, 3), "audio/mpeg"),
  "/v1/audio/transcriptions": answerJson({ text: HELLO }),
  "/v1/messages": (reply, request) =>
    answerWell(request.json().stream === true ? DOORS.messagesStream : DOORS.messages, HELLO)(reply, request),
  "/v2/models/tensors/infer": answerWell(DOORS.infer, HELLO),
};

const UPSTREAM_TASKS = [
  "chat",
  "completion",
  "embedding",
  "rerank",
  "moderation",
  "speech",
  "transcription",
  "image",
];

/** An app before that server. */
async function withGate(
  run: (app: AppUnderTest, server: ScriptedUpstream) => Promise<void>,
  variables: Record<string, string> = {},
): Promise<void> {
  const server = await startScriptedUpstream();
  server.plays((reply, request) => (ANSWERS[request.target] ?? answerStatus(404))(reply, request));
  const common = { key: KEY, healthSeconds: 3600 };
  const passFields = ["top_k", "chat_template_kwargs"];
  try {
    await withUpstreams({
      upstreams: [
        { ...common, name: "a", kind: "openai", url: `${server.url}/v1` },
        { ...common, name: "m", kind: "anthropic", url: server.url },
        { ...common, name: "t", kind: "openinference", url: server.url },
      ],
      models: [
        { id: "all", capabilities: UPSTREAM_TASKS, servedBy: [{ upstream: "a" }], passFields },
        { id: "claude", capabilities: ["chat"], servedBy: [{ upstream: "m" }], passFields },
        { id: "bare", capabilities: ["chat", "completion"], servedBy: [{ upstream: "a" }] },
        { id: "talker", capabilities: ["chat"], servedBy: [{ upstream: "a" }] },
        { id: "embedder", capabilities: ["embedding"], servedBy: [{ upstream: "a" }] },
        { id: "tensors", capabilities: ["tensor"], servedBy: [{ upstream: "t" }] },
        {
          id: "hidden",
          aliases: ["org/hidden"],
          capabilities: UPSTREAM_TASKS,
          servedBy: [{ upstream: "a" }],
          see: ["admin"],
          use: ["admin"],
        },
        {
          id: "shown",
          capabilities: UPSTREAM_TASKS,
          servedBy: [{ upstream: "a" }],
          see: ["admin", "user"],
          use: ["admin"],
        },
      ],
      variables,
    }, (app) => run(app, server));
  } finally {
    await server.close();
  }
}

const MESSAGES = [{ role: "user", content: "hi" }];
/** One request for each route that runs a model, without the model's name. */
const ROUTES: Readonly<Record<string, Record<string, unknown>>> = {
  "/v1/chat/completions": { messages: MESSAGES },
  "/v1/completions": { prompt: "hi" },
  "/v1/responses": { input: "hi" },
  "/v1/embeddings": { input: "hi" },
  "/v1/moderations": { input: "hi" },
  "/v1/rerank": { query: "hi", documents: ["hi"] },
  "/v1/audio/speech": { input: "hi", voice: "a" },
  "/v1/images/generations": { prompt: "hi" },
  "/v1/messages": { max_tokens: 5, messages: MESSAGES },
  "/v2/models/{id}/infer": DOORS.infer.body("", "hi") as Record<string, unknown>,
};
/** Those that take JSON, and the form. */
const TRANSCRIPTIONS = "/v1/audio/transcriptions";

function call(
  app: AppUnderTest,
  route: string,
  model: string,
  token: string,
  { fields = {}, headers = {} }: {
    readonly fields?: Readonly<Record<string, unknown>>;
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Promise<Response> {
  const authorization = `Bearer ${token}`;
  if (route === TRANSCRIPTIONS) {
    const body = new FormData();
    body.set("model", model);
    body.set("file", new File(["fLaC and so on"], "a.flac"));
    return app.call(route, { method: "POST", body, headers: { authorization, ...headers } });
  }
  const inPath = route.includes("{id}");
  return app.call(route.replace("{id}", encodeURIComponent(model)), {
    method: "POST",
    headers: { "content-type": "application/json", authorization, ...headers },
    body: JSON.stringify({ ...ROUTES[route], ...(inPath ? {} : { model }), ...fields }),
  });
}

/** Status, code or type, message and field of a refusal, out of the envelope of the route's dialect. */
async function refusalOf(route: string, response: Response): Promise<readonly [number, string, string]> {
  const body = await response.json();
  if (route === "/v1/messages") {
    deepStrictEqual(Object.keys(body), ["type", "error", "request_id"]);
    strictEqual(body.request_id, response.headers.get("x-request-id"));
    return [response.status, body.error.type, body.error.message];
  }
  if (route.startsWith("/v2/")) {
    deepStrictEqual(Object.keys(body), ["error"]);
    return [response.status, "", body.error];
  }
  deepStrictEqual(Object.keys(body.error), ["message", "type", "param", "code"]);
  return [response.status, body.error.code, body.error.message];
}

Deno.test("what answered is told to admins and operators and to nobody else, whole or as events, in each dialect", async () => {
  await withGate(async (app) => {
    for (const [role, told] of [["admin", true], ["operator", true], ["user", false]] as const) {
      const token = await app.tokenFor(role);
      for (
        const [route, model, servedBy, fields] of [
          ["/v1/chat/completions", "all", "a/all", {}],
          ["/v1/chat/completions", "claude", "m/claude", { stream: true }],
          ["/v1/responses", "all", "a/all", { stream: true }],
          ["/v1/embeddings", "all", "a/all", {}],
          ["/v1/audio/speech", "all", "a/all", {}],
          [TRANSCRIPTIONS, "all", "a/all", {}],
          ["/v1/messages", "claude", "m/claude", {}],
          ["/v1/messages", "all", "a/all", { stream: true }],
          ["/v2/models/{id}/infer", "tensors", "t/tensors", {}],
        ] as const
      ) {
        const response = await call(app, route, model, token, { fields });
        const text = await response.text();
        strictEqual(response.status, 200, text);
        strictEqual(
          response.headers.get("x-portcullis-served-by"),
          told ? servedBy : null,
          `${role} ${route}`,
        );
        if (!told) ok(!text.includes(servedBy), text);
      }
    }
  });
});

const CAPS = JSON.stringify({
  user: { outputTokensMax: 100, choicesMax: 2, stopSequencesMax: 1, imagesMax: 1, toolsMax: 1 },
});
const tool = (name: string) => ({ type: "function", function: { name } });
const responsesTool = (name: string) => ({ type: "function", name });
const messagesTool = (name: string) => ({ name, input_schema: { type: "object" } });
const openaiPicture = { type: "image_url", image_url: { url: PICTURE } };
const responsesPicture = { type: "input_image", detail: "auto", image_url: PICTURE };
const messagesPicture = {
  type: "image",
  source: { type: "base64", media_type: "image/png", data: PICTURE.split(",")[1] },
};
const twice = <Value>(value: Value): Value[] => [value, value];

Deno.test("caps by role hold in each dialect and name the dialect's own field; who has more gets more", async (test) => {
  await withGate(async (app, server) => {
    const user = await app.tokenFor("user");
    const admin = await app.tokenFor("admin");
    const both = await app.tokenFor("user", "operator");
    for (
      const [route, field, fields] of [
        ["/v1/chat/completions", "max_tokens", { max_tokens: 101 }],
        ["/v1/chat/completions", "max_completion_tokens", { max_completion_tokens: 101 }],
        ["/v1/chat/completions", "n", { n: 3 }],
        ["/v1/chat/completions", "stop", { stop: ["a", "b"] }],
        ["/v1/chat/completions", "tools", { tools: [tool("a"), tool("b")] }],
        ["/v1/chat/completions", "messages", { messages: [{ role: "user", content: twice(openaiPicture) }] }],
        ["/v1/chat/completions", "messages", {
          messages: [1, 2].map(() => ({ role: "user", content: [openaiPicture] })),
        }],
        ["/v1/completions", "max_tokens", { max_tokens: 101 }],
        ["/v1/completions", "n", { n: 3 }],
        ["/v1/completions", "stop", { stop: ["a", "b"] }],
        ["/v1/responses", "max_output_tokens", { max_output_tokens: 101 }],
        ["/v1/responses", "tools", { tools: [responsesTool("a"), responsesTool("b")] }],
        ["/v1/responses", "input", { input: [{ role: "user", content: twice(responsesPicture) }] }],
        ["/v1/messages", "max_tokens", { max_tokens: 101 }],
        ["/v1/messages", "stop_sequences", { stop_sequences: ["a", "b"] }],
        ["/v1/messages", "tools", { tools: [messagesTool("a"), messagesTool("b")] }],
        ["/v1/messages", "messages", { messages: [{ role: "user", content: twice(messagesPicture) }] }],
        ["/v1/images/generations", "n", { n: 2 }],
      ] as const
    ) {
      await test.step(`${route}: ${field}`, async () => {
        const before = server.requests.length;
        const refused = await call(app, route, "all", user, { fields });
        if (route !== "/v1/messages") strictEqual((await refused.clone().json()).error.param, field);
        const [status, code, message] = await refusalOf(route, refused);
        deepStrictEqual([status, code], [
          422,
          route === "/v1/messages" ? "invalid_request_error" : "fields_invalid",
        ]);
        ok(message.startsWith(`${field}: `), message);
        const [record, ...others] = await recordsOf(app, refused);
        deepStrictEqual([record?.type, record?.code, others.length], [
          "request.refused",
          "fields-invalid",
          0,
        ]);
        strictEqual(server.requests.length, before, "an upstream was asked");
        // The most generous role holds.
        for (const token of [admin, both]) {
          const response = await call(app, route, "all", token, { fields });
          const text = await response.text();
          // The scripted engine answers one choice, whatever it is asked for.
          ok(response.status !== 422, text);
        }
        strictEqual(server.requests.length > before, true);
      });
    }

    await test.step("who names no number gets the cap", async () => {
      for (const route of ["/v1/chat/completions", "/v1/completions", "/v1/responses"]) {
        for (const [token, asked] of [[user, 100], [admin, undefined]] as const) {
          await (await call(app, route, "all", token)).body?.cancel();
          const sent = server.requests.at(-1)?.json();
          strictEqual(sent.max_tokens ?? sent.max_completion_tokens, asked, route);
        }
      }
    });
  }, { PORTCULLIS_ROLE_CAPS: CAPS });
});

Deno.test("fields that the model's settings let through reach the engine as they are; all others are refused by name", async (test) => {
  await withGate(async (app, server) => {
    const token = await app.tokenFor("user");
    const passed = { top_k: 7, chat_template_kwargs: { enable_thinking: false, list: [1, null, "a"] } };
    for (const route of ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]) {
      await test.step(`${route}: let through`, async () => {
        const response = await call(app, route, "all", token, { fields: passed });
        strictEqual(response.status, 200, await response.text());
        const { top_k, chat_template_kwargs } = server.requests.at(-1)?.json() ?? {};
        deepStrictEqual({ top_k, chat_template_kwargs }, passed);
      });

      await test.step(`${route}: refused`, async () => {
        const before = server.requests.length;
        for (
          const [model, name] of [["all", "guided_json"], ["all", "TOP_K"], ["bare", "top_p_min"]] as const
        ) {
          const refused = await call(app, route, model, token, { fields: { [name]: { a: 1 } } });
          const [status, , message] = await refusalOf(route, refused);
          deepStrictEqual([status, message], [422, `${name}: is not a known field`]);
        }
        strictEqual(server.requests.length, before);
      });
    }
  });
});

Deno.test("a body beyond its bound is 413 in its dialect, announced or not, and no engine hears of it", async () => {
  const bytesMax = 4096;
  await withGate(async (app, server) => {
    const token = await app.tokenFor("user");
    const padding = "x".repeat(bytesMax);
    for (const announced of [true, false]) {
      for (
        const [route, fields] of [
          ["/v1/chat/completions", { messages: [{ role: "user", content: padding }] }],
          ["/v1/responses", { input: padding }],
          ["/v1/messages", { messages: [{ role: "user", content: padding }] }],
          ["/v2/models/{id}/infer", {
            inputs: [{ name: "x", shape: [1], datatype: "BYTES", data: [padding] }],
          }],
          [TRANSCRIPTIONS, {}],
        ] as const
      ) {
        const isForm = route === TRANSCRIPTIONS;
        const model = route.startsWith("/v2/") ? "tensors" : "all";
        const text = isForm
          ? '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nall\r\n' +
            '--x\r\nContent-Disposition: form-data; name="file"; filename="a.flac"\r\n\r\nfLaC' +
            `${padding}\r\n--x--\r\n`
          : JSON.stringify({ ...ROUTES[route], ...(route.startsWith("/v2/") ? {} : { model }), ...fields });
        const bytes = new TextEncoder().encode(text);
        const response = await app.call(route.replace("{id}", model), {
          method: "POST",
          headers: {
            "content-type": isForm ? "multipart/form-data; boundary=x" : "application/json",
            authorization: `Bearer ${token}`,
            ...(announced ? { "content-length": String(bytes.length) } : {}),
          },
          body: announced ? bytes : ReadableStream.from([bytes.subarray(0, 100), bytes.subarray(100)]),
        });
        const [status, code, message] = await refusalOf(route, response);
        const expected = route.startsWith("/v2/")
          ? ""
          : route === "/v1/messages"
          ? "request_too_large"
          : "body_too_large";
        deepStrictEqual([status, code], [413, expected], route);
        strictEqual(message, `The body is larger than ${bytesMax} bytes.`);
        strictEqual(response.headers.get("connection"), "close");
        const records = await recordsOf(app, response);
        deepStrictEqual(records.map(({ type, code }) => [type, code]), [[
          "request.refused",
          "body-too-large",
        ]]);
      }
    }
    deepStrictEqual(server.requests, []);
  }, {
    PORTCULLIS_MEDIA_BODY_BYTES_MAX: String(bytesMax),
    PORTCULLIS_UPLOAD_BYTES_MAX: String(bytesMax),
  });
});

Deno.test("a model that does something else is refused in each dialect, by what it does", async () => {
  await withGate(async (app, server) => {
    const token = await app.tokenFor("user");
    for (const route of [...Object.keys(ROUTES), TRANSCRIPTIONS]) {
      const model = route === "/v1/embeddings" || route.startsWith("/v2/") ? "talker" : "embedder";
      const does = model === "talker" ? "chat" : "embedding";
      const response = await call(app, route, model, token);
      const [status, code, message] = await refusalOf(route, response);
      const expected = route.startsWith("/v2/")
        ? ""
        : route === "/v1/messages"
        ? "invalid_request_error"
        : "capability_missing";
      deepStrictEqual([status, code], [400, expected], route);
      ok(message.startsWith(`The model ${model} does: ${does}. This route asks for: `), message);
      deepStrictEqual((await recordsOf(app, response)).map(({ type, code }) => [type, code]), [
        ["request.refused", "capability-missing"],
      ]);
    }
    deepStrictEqual(server.requests, []);
  });
});

Deno.test("an auditor runs no model, a model that may only be seen is not run, and a hidden one is like none: in each dialect", async () => {
  await withGate(async (app, server) => {
    const [auditor, user, operator] = [
      await app.tokenFor("auditor"),
      await app.tokenFor("user"),
      await app.tokenFor("operator"),
    ];
    for (const route of [...Object.keys(ROUTES), TRANSCRIPTIONS]) {
      const own = route.startsWith("/v2/") ? "tensors" : "all";
      const codeOf = (code: string, anthropic: string): string =>
        route.startsWith("/v2/") ? "" : route === "/v1/messages" ? anthropic : code;
      const forbidden = await call(app, route, own, auditor);
      deepStrictEqual((await refusalOf(route, forbidden)).slice(0, 2), [
        403,
        codeOf("forbidden", "permission_error"),
      ]);
      const seen = await call(app, route, "shown", user);
      deepStrictEqual((await refusalOf(route, seen)).slice(0, 2), [
        403,
        codeOf("forbidden", "permission_error"),
      ]);

      const unknown = await refusalOf(route, await call(app, route, "no-such-model", user));
      deepStrictEqual(unknown.slice(0, 2), [404, codeOf("model_not_found", "not_found_error")]);
      for (
        const [model, token] of [["hidden", user], ["org/hidden", user], ["hidden", operator], [
          "shown",
          operator,
        ]] as const
      ) {
        deepStrictEqual(
          await refusalOf(route, await call(app, route, model, token)),
          unknown,
          `${route} ${model}`,
        );
      }
    }
    const listed = await (await app.call("/v1/models", getAs(user))).json();
    const ids = listed.data.map(({ id }: { id: string }) => id);
    deepStrictEqual([ids.includes("shown"), ids.includes("hidden")], [true, false]);
    strictEqual((await app.call("/v1/models/hidden", getAs(user))).status, 404);
    deepStrictEqual(server.requests, []);
    ok(!app.auditEvents().some(({ type }) => type === "inference.started"));
  });
});

/** What every answer of the gate has, without what only some have. */
const OWN_HEADERS = [
  "cache-control",
  "content-security-policy",
  "content-type",
  "cross-origin-resource-policy",
  "ratelimit",
  "ratelimit-policy",
  "referrer-policy",
  "x-content-type-options",
  "x-request-id",
];

/** What answers to clients of OpenAI's API have besides, where no limit on tokens applies. */
const OPENAI_HEADERS = [
  "x-ratelimit-limit-requests",
  "x-ratelimit-remaining-requests",
  "x-ratelimit-reset-requests",
];

/** What a client may send and no engine is to get. */
const CLIENT_HEADERS = {
  "cookie": "session=client-words",
  "x-forwarded-for": "203.0.113.77",
  "forwarded": "for=203.0.113.77",
  "x-real-ip": "203.0.113.77",
  "user-agent": "client-words/1.0",
  "x-api-key": "client-words",
  "anthropic-version": "2023-01-01",
  "anthropic-beta": "client-words",
  "openai-organization": "client-words",
  "openai-beta": "client-words",
  "accept": "client-words/json",
  "accept-language": "xx-client-words",
  "accept-encoding": "br",
  "origin": "http://client-words.example",
  "referer": "http://client-words.example/",
  "traceparent": "00-11111111111111111111111111111111-1111111111111111-01",
  "x-stainless-lang": "client-words",
  "x-request-id": "client-words",
  "idempotency-key": "client-words",
};

Deno.test("of a caller's headers none reaches an engine, and of an engine's none reaches the caller", async (test) => {
  await withGate(async (app, server) => {
    const token = await app.tokenFor("user");
    const expected = (request: ScriptedRequest, credential: readonly string[]): void => {
      const sent = Object.fromEntries(request.headerLines);
      const host = new URL(server.url).host;
      deepStrictEqual({ host: sent.host, agent: sent["user-agent"], coding: sent["accept-encoding"] }, {
        host,
        agent: "portcullis",
        coding: "identity",
      });
      const framing = "content-length" in sent ? "content-length" : "transfer-encoding";
      deepStrictEqual(
        request.headerLines.map(([name]) => name).sort(),
        [
          "accept",
          "accept-encoding",
          "accept-language",
          "content-type",
          framing,
          "host",
          "user-agent",
          ...credential,
        ].sort(),
      );
      const all = `${JSON.stringify(request.headerLines)} ${request.target} ${request.text()}`;
      ok(!/client-words|203\.0\.113/.test(all), all);
      ok(!all.includes(token), "the caller's token went to the upstream");
    };
    for (
      const [route, model, fields] of [
        ...[...Object.keys(ROUTES), TRANSCRIPTIONS].map((route) =>
          [route, route.startsWith("/v2/") ? "tensors" : "all", {}] as const
        ),
        ["/v1/messages", "claude", {}],
        ["/v1/messages", "claude", { stream: true }],
        ["/v1/chat/completions", "all", { stream: true }],
      ] as const
    ) {
      await test.step(`${route}: ${model} ${JSON.stringify(fields)}`, async () => {
        const ask = () => call(app, route, model, token, { fields, headers: CLIENT_HEADERS });
        server.plays((reply, request) => (ANSWERS[request.target] ?? answerStatus(404))(reply, request));
        const plain = await ask();
        strictEqual(plain.status, 200, await plain.text());
        const request = server.requests.at(-1);
        ok(request);
        expected(request, model === "claude" ? ["x-api-key", "anthropic-version"] : ["authorization"]);
        strictEqual(
          request.headers.get(model === "claude" ? "x-api-key" : "authorization"),
          model === "claude" ? KEY : `Bearer ${KEY}`,
        );

        // Whatever the engine says in its headers, the answer has ours.
        for (const status of [200, 400, 429]) {
          server.plays((reply, request) =>
            status === 200
              ? (ANSWERS[request.target] ?? answerStatus(404))({
                ...reply,
                head: (code, headers) => reply.head(code, { ...FOREIGN_HEADERS, ...headers }),
              }, request)
              : answerJson({ error: { message: "foreign" } }, status, FOREIGN_HEADERS)(reply, request)
          );
          const response = await ask();
          const text = await response.text();
          strictEqual(response.status, { 200: 200, 400: 400, 429: 503 }[status], text);
          const headers = Object.fromEntries(response.headers);
          const { "retry-after": retryAfter, "x-accel-buffering": _, ...always } = headers;
          const own = route.startsWith("/v1/") ? [...OWN_HEADERS, ...OPENAI_HEADERS].sort() : OWN_HEADERS;
          deepStrictEqual(Object.keys(always).sort(), own, text);
          ok(!JSON.stringify(headers).includes("foreign"), JSON.stringify(headers));
          strictEqual(headers["cache-control"], "no-store");
          strictEqual(retryAfter, status === 429 ? "60" : undefined);
        }
      });
    }
  });
});
