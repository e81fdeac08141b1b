// OpenAI-compatible routes: what they answer, refuse and hide.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../../src/faults/fault.ts";
import {
  type AppUnderTest,
  DIMENSIONS,
  getAs,
  openAppUnderTest,
  postJson,
} from "../../support/app_under_test.ts";

async function withApp(run: (app: AppUnderTest) => Promise<void>): Promise<void> {
  const app = await openAppUnderTest();
  try {
    await run(app);
  } finally {
    await app.close();
  }
}

Deno.test("GET /v1/models lists what the caller may see and what can be run, in order", () =>
  withApp(async (app) => {
    const idsFor = async (role: string): Promise<string[]> => {
      const body = await (await app.call("/v1/models", getAs(await app.tokenFor(role)))).json();
      strictEqual(body.object, "list");
      return body.data.map(({ id }: { id: string }) => id);
    };
    deepStrictEqual(await idsFor("admin"), ["generalist", "guarded", "hidden", "open", "tensors"]);
    deepStrictEqual(await idsFor("user"), ["generalist", "guarded", "open", "tensors"]);
  }));

Deno.test("POST /v1/embeddings answers vectors in order, as floats or as base64 of the same numbers, with true usage", () =>
  withApp(async (app) => {
    const token = await app.tokenFor("user");
    const input = ["one", "two words", "three words here"];
    const floats = await (await app.call("/v1/embeddings", postJson({ model: "open", input }, token))).json();
    deepStrictEqual(floats.usage, { prompt_tokens: 6, total_tokens: 6 });
    deepStrictEqual(
      floats.data.map((
        { index, embedding }: { index: number; embedding: number[] },
      ) => [index, embedding.length, embedding[0]]),
      [
        [0, DIMENSIONS, 3],
        [1, DIMENSIONS, 9],
        [2, DIMENSIONS, 16],
      ],
    );
    const packed = await (await app.call(
      "/v1/embeddings",
      postJson({ model: "open", input, encoding_format: "base64" }, token),
    )).json();
    for (const [index, { embedding }] of packed.data.entries()) {
      deepStrictEqual(
        [...new Float32Array(Uint8Array.fromBase64(embedding).buffer)],
        floats.data[index].embedding,
      );
    }
  }));

Deno.test("POST /v1/embeddings gives shorter vectors of length 1 only where the model's card allows it", () =>
  withApp(async (app) => {
    const token = await app.tokenFor("admin");
    const shorter = await (await app.call(
      "/v1/embeddings",
      postJson({ model: "guarded", input: "abc", dimensions: 2 }, token),
    )).json();
    deepStrictEqual(shorter.data[0].embedding, [1, 0]);
    const longer = await app.call(
      "/v1/embeddings",
      postJson({ model: "guarded", input: "abc", dimensions: 5 }, token),
    );
    deepStrictEqual([longer.status, (await longer.json()).error.param], [422, "dimensions"]);
    const fixed = await app.call(
      "/v1/embeddings",
      postJson({ model: "open", input: "abc", dimensions: 2 }, token),
    );
    deepStrictEqual([fixed.status, (await fixed.json()).error.param], [422, "dimensions"]);
    const same = await app.call(
      "/v1/embeddings",
      postJson({ model: "open", input: "abc", dimensions: DIMENSIONS }, token),
    );
    strictEqual(same.status, 200);
    await same.body?.cancel();
  }));

for (
  const [what, body, param, words] of [
    ["tokens instead of text", { model: "open", input: [1, 2] }, "input[0]", /send text/],
    ["lists of tokens", { model: "open", input: [[1], [2]] }, "input[0]", /send text/],
    ["an empty text", { model: "open", input: "" }, "input", /is empty/],
    ["an empty text among others", { model: "open", input: ["a", ""] }, "input[1]", /is empty/],
    ["no texts", { model: "open", input: [] }, "input", /no texts|neither/],
    ["a number", { model: "open", input: 5 }, "input", /neither|text/],
    ["no input", { model: "open" }, "input", /./],
    ["no model", { input: "a" }, "model", /./],
    ["a number as model", { model: 5, input: "a" }, "model", /./],
    ["another encoding", { model: "open", input: "a", encoding_format: "hex" }, "encoding_format", /./],
    ["dimensions as text", { model: "open", input: "a", dimensions: "4" }, "dimensions", /./],
    ["a fraction of a dimension", { model: "open", input: "a", dimensions: 1.5 }, "dimensions", /./],
    [
      "more texts than the card allows",
      { model: "open", input: Array(9).fill("a") },
      "input",
      /9 texts; at most 8/,
    ],
    [
      "a longer text than the card allows",
      { model: "open", input: ["a", "x".repeat(101)] },
      "input[1]",
      /101 characters; at most 100/,
    ],
    ["a longer single text", { model: "open", input: "x".repeat(101) }, "input", /at most 100/],
  ] as const
) {
  Deno.test(`POST /v1/embeddings refuses ${what}, naming the field`, () =>
    withApp(async (app) => {
      const response = await app.call("/v1/embeddings", postJson(body, await app.tokenFor("user")));
      const { error } = await response.json();
      deepStrictEqual([response.status, error.type, error.code, error.param], [
        422,
        "invalid_request_error",
        "fields_invalid",
        param,
      ]);
      match(error.message, words);
      deepStrictEqual(app.engines.get("open")?.asked, []);
    }));
}

Deno.test("POST /v1/embeddings passes the engine's word on a text on, with the text's place in the request", () =>
  withApp(async (app) => {
    const engine = app.engines.get("open");
    ok(engine);
    engine.behave = () =>
      Promise.reject(
        new Fault("fields_invalid", "too many", {
          fields: [{ path: "/texts/1", message: "has 51 tokens; at most 50 are allowed" }],
        }),
      );
    const response = await app.call(
      "/v1/embeddings",
      postJson({ model: "open", input: ["a", "b"] }, await app.tokenFor("user")),
    );
    const { error } = await response.json();
    deepStrictEqual([response.status, error.message], [
      422,
      "input[1]: has 51 tokens; at most 50 are allowed",
    ]);
    strictEqual(app.auditEvents().at(-1)?.outcome, "fields-invalid");
  }));

for (
  const [kind, status, retryAfter] of [["overloaded", 503, "1"], ["unavailable", 503, "1"], [
    "deadline_exceeded",
    504,
    null,
  ], ["client_left", 499, null]] as const
) {
  Deno.test(`POST /v1/embeddings answers ${status} when the engine says ${kind}, and records that outcome`, () =>
    withApp(async (app) => {
      const engine = app.engines.get("open");
      ok(engine);
      engine.behave = () =>
        Promise.reject(new Fault(kind, "stub", retryAfter === null ? {} : { retryAfterSeconds: 1 }));
      const response = await app.call(
        "/v1/embeddings",
        postJson({ model: "open", input: "a" }, await app.tokenFor("user")),
      );
      await response.body?.cancel();
      deepStrictEqual([response.status, response.headers.get("retry-after")], [status, retryAfter]);
      strictEqual(app.auditEvents().at(-1)?.outcome, kind.replaceAll("_", "-"));
    }));
}

/** What says how many requests came before. */
const COUNTED = ["ratelimit", "ratelimit-policy", "x-ratelimit-remaining-requests"];

Deno.test("a model that the caller may not see answers exactly like one that does not exist, on every route that names one", () =>
  withApp(async (app) => {
    const token = await app.tokenFor("user");
    const calls: Record<string, (id: string) => [string, RequestInit]> = {
      read: (id) => [`/v1/models/${id}`, getAs(token)],
      embed: (id) => ["/v1/embeddings", postJson({ model: id, input: "a" }, token)],
      metadata: (id) => [`/v2/models/${id}`, getAs(token)],
      ready: (id) => [`/v2/models/${id}/ready`, getAs(token)],
      infer: (
        id,
      ) => [
        `/v2/models/${id}/infer`,
        postJson({ inputs: [{ name: "text", shape: [1], datatype: "BYTES", data: ["a"] }] }, token),
      ],
    };
    for (const [name, call] of Object.entries(calls)) {
      const [hidden, unknown] = await Promise.all(["hidden", "nosuch"].map(async (id) => {
        const response = await app.call(...call(id));
        const headers = Object.fromEntries(response.headers);
        for (const own of ["x-request-id", ...COUNTED]) {
          delete headers[own];
        }
        return { status: response.status, headers, body: await response.text() };
      }));
      deepStrictEqual(hidden, unknown, name);
      strictEqual(hidden?.status, 404, name);
    }
  }));

Deno.test("a model that the caller sees but may not use is 403, and one whose files were refused is 503", () =>
  withApp(async (app) => {
    const token = await app.tokenFor("user");
    const statusOf = async (model: string): Promise<number> => {
      const response = await app.call("/v1/embeddings", postJson({ model, input: "a" }, token));
      await response.body?.cancel();
      return response.status;
    };
    deepStrictEqual([await statusOf("guarded"), await statusOf("broken")], [403, 503]);
    ok(
      app.auditEvents().some(({ type, model, reason }) =>
        type === "model.refused" && model === "broken" && String(reason).startsWith("digest_mismatch")
      ),
    );
  }));

Deno.test("POST /v1/embeddings answers 4xx and never 5xx, whatever JSON it is sent (property)", () =>
  withApp(async (app) => {
    const token = await app.tokenFor("user");
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.json(),
          fc.record({
            model: fc.oneof(fc.constant("open"), fc.jsonValue()),
            input: fc.jsonValue(),
            dimensions: fc.option(fc.jsonValue(), { nil: undefined }),
          })
            .map((value) => JSON.stringify(value)),
        ),
        async (text) => {
          const response = await app.call("/v1/embeddings", postJson(text, token));
          const body = await response.json();
          ok(
            response.status === 200 || (response.status >= 400 && response.status < 500),
            `${response.status} for ${text}`,
          );
          ok(response.status === 200 ? body.object === "list" : typeof body.error.message === "string");
        },
      ),
      { numRuns: 200 },
    );
  }));

Deno.test("a prototype that a client tries to pollute stays clean", () =>
  withApp(async (app) => {
    const token = await app.tokenFor("user");
    for (
      const body of [
        '{"constructor":{"prototype":{"polluted":1}},"model":"open","input":"a"}',
        '{"\\u005f_proto__":{"polluted":1}}',
      ]
    ) {
      const response = await app.call("/v1/embeddings", postJson(body, token));
      await response.body?.cancel();
      ok([400, 422].includes(response.status));
    }
    strictEqual(({} as Record<string, unknown>).polluted, undefined);
  }));
