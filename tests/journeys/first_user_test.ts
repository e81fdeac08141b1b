// The first user's journey: start, sign in, real vectors, by fetch and by OpenAI's official client.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import OpenAI from "openai";
import { type ServerUnderTest, startServerUnderTest } from "../support/server_under_test.ts";

interface ReferenceCase {
  readonly text: string;
  readonly ids: readonly number[];
  readonly vector: readonly number[];
}

const REFERENCE: { readonly cases: readonly ReferenceCase[] } = JSON.parse(
  Deno.readTextFileSync(`${import.meta.dirname}/../registry/fixtures/use_lite_reference.json`),
);

function post(server: ServerUnderTest, path: string, token: string, body: unknown): Promise<Response> {
  return fetch(`${server.origin}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify(body),
  });
}

function assertClose(actual: readonly number[], expected: readonly number[], what: string): void {
  strictEqual(actual.length, expected.length, what);
  const worst = Math.max(...actual.map((value, index) => Math.abs(value - (expected[index] ?? NaN))));
  ok(worst <= 1e-5, `${what}: a component differs by ${worst}`);
}

Deno.test("a newcomer's journey through a real server with its real permissions", async (test) => {
  const server = await startServerUnderTest();
  try {
    await server.whenReady();
    const token = await server.signIn();
    const cases = REFERENCE.cases.filter(({ text }) => text !== "");

    await test.step("POST /v1/embeddings gives the reference vectors and counts the reference tokens", async () => {
      const body = await (await post(server, "/v1/embeddings", token, {
        model: "use-lite",
        input: cases.map(({ text }) => text),
      })).json();
      for (const [index, { text, vector }] of cases.entries()) {
        assertClose(body.data[index].embedding, vector, text);
      }
      strictEqual(body.usage.prompt_tokens, cases.reduce((sum, { ids }) => sum + ids.length, 0));
    });

    await test.step("POST /v2/models/use-lite/infer gives the same numbers", async () => {
      const [first] = cases;
      ok(first);
      const inputs = [{ name: "text", shape: [1], datatype: "BYTES", data: [first.text] }];
      const { outputs: [output] } = await (await post(server, "/v2/models/use-lite/infer", token, { inputs }))
        .json();
      deepStrictEqual(output.shape, [1, 512]);
      assertClose(output.data, first.vector, first.text);
    });

    await test.step("OpenAI's client works with only its base address and key changed", async () => {
      const client = new OpenAI({ baseURL: `${server.origin}/v1`, apiKey: token, maxRetries: 0 });
      const models = await client.models.list();
      deepStrictEqual(models.data.map(({ id }) => id), ["use-lite"]);
      strictEqual((await client.models.retrieve("use-lite")).object, "model");
      const [first] = cases;
      ok(first);
      // The client asks for base64 by itself and decodes it.
      const embedded = await client.embeddings.create({ model: "use-lite", input: first.text });
      assertClose(embedded.data[0]?.embedding ?? [], first.vector, first.text);
      strictEqual(embedded.usage.total_tokens, first.ids.length);
      const plain = await client.embeddings.create({
        model: "use-lite",
        input: [first.text],
        encoding_format: "float",
      });
      assertClose(plain.data[0]?.embedding ?? [], first.vector, first.text);
      await rejects(
        () => client.embeddings.create({ model: "no-such-model", input: "a" }),
        (error: unknown) => {
          ok(error instanceof OpenAI.NotFoundError);
          strictEqual(error.code, "model_not_found");
          return true;
        },
      );
      await rejects(
        () => client.embeddings.create({ model: "use-lite", input: [1, 2, 3] }),
        OpenAI.UnprocessableEntityError,
      );
      const stranger = new OpenAI({ baseURL: `${server.origin}/v1`, apiKey: "nobody", maxRetries: 0 });
      await rejects(() => stranger.models.list(), OpenAI.AuthenticationError);
    });

    await test.step("a text of more tokens than the card allows is refused before anything computes", async () => {
      const response = await post(server, "/v1/embeddings", token, {
        model: "use-lite",
        input: ["short", "word ".repeat(300)],
      });
      const { error } = await response.json();
      strictEqual(response.status, 422);
      match(error.message, /^input\[1\]: has \d+ tokens; at most 128 are allowed$/);
    });

    await test.step("a client that leaves is recorded as such and its queued work is dropped", async () => {
      // The runtime notices it for requests that come in one small piece: see SECURITY.md.
      const sentence =
        "The quick brown fox jumps over the lazy dog near the river bank while the sun sets behind the hills. ";
      const busy = post(server, "/v1/embeddings", token, {
        model: "use-lite",
        input: Array.from({ length: 60 }, () => sentence.repeat(2)),
      });
      const leaving = new AbortController();
      const asked = fetch(`${server.origin}/v1/embeddings`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
        body: JSON.stringify({
          model: "use-lite",
          input: Array.from({ length: 40 }, (_, index) => `a${index}`),
        }),
        signal: leaving.signal,
      });
      setTimeout(() => leaving.abort(), 150);
      await rejects(asked);
      await (await busy).body?.cancel();
      const outcomes = (): unknown[] =>
        auditEvents(server).filter(({ type }) => type === "inference.finished").map(({ outcome }) => outcome);
      for (let tries = 0; tries < 50 && !outcomes().includes("client-left"); tries++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      ok(outcomes().includes("client-left"), `outcomes: ${outcomes()}`);
    });

    await test.step("one user cannot fill the queue alone", async () => {
      const limited = await startServerUnderTest({
        variables: { PORTCULLIS_REQUESTS_AT_ONCE_PER_USER: "3" },
      });
      try {
        await limited.whenReady();
        const mine = await limited.signIn();
        const asked = Array.from(
          { length: 8 },
          () =>
            post(limited, "/v1/embeddings", mine, {
              model: "use-lite",
              input: Array.from({ length: 20 }, () => "some words to read"),
            }),
        );
        const statuses = await Promise.all(asked.map(async (response) => {
          const { status, body, headers } = await response;
          await body?.cancel();
          if (status === 429) strictEqual(headers.get("retry-after"), "1");
          return status;
        }));
        deepStrictEqual([
          statuses.filter((status) => status === 200).length,
          statuses.filter((status) => status === 429).length,
        ], [3, 5]);
      } finally {
        await limited.stop();
      }
    });

    await test.step("each inference left exactly one intent and one outcome", () => {
      const events = auditEvents(server);
      const requests = (type: string): string[] =>
        events.filter((event) => event.type === type).map(({ request }) => String(request)).sort();
      deepStrictEqual(requests("inference.finished"), requests("inference.started"));
      ok(requests("inference.started").length >= 5);
      strictEqual(new Set(requests("inference.started")).size, requests("inference.started").length);
    });

    await test.step("what the start says is enough to go on: address, user, a line to try", () => {
      const said = server.output();
      for (const words of [server.origin, "sign in as   admin", "curl -s", "/v1/embeddings"]) {
        ok(said.includes(words), `it does not say "${words}":\n${said}`);
      }
    });
  } finally {
    await server.stop();
  }
});

function auditEvents(server: ServerUnderTest): Record<string, unknown>[] {
  const folder = `${server.dataDir}/audit`;
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort().flatMap((name) =>
    Deno.readTextFileSync(`${folder}/${name}`).split("\n")
  )
    .filter((line) => line.endsWith("}")).flatMap((line) => JSON.parse(line).event ?? []);
}
