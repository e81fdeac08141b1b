// A Portcullis behind a Portcullis: the vectors, tensors and answers of the one behind, by either protocol.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import OpenAI from "openai";
import { throughTheGate } from "../support/gate_journey.ts";
import { openLlamaServer, testWithEngine } from "../support/llama_server.ts";
import { type ServerUnderTest, startServerUnderTest } from "../support/server_under_test.ts";
import { ENDLESS_BEGINNING, GREETING } from "../support/tiny_language_model.ts";

const TEXTS = ["How old are you?", "What is your age?", "Grüße, 世界"];
const TENSORS = { inputs: [{ name: "text", shape: [TEXTS.length], datatype: "BYTES", data: TEXTS }] };

async function postJson(
  send: typeof fetch,
  url: string,
  token: string,
  body: unknown,
): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await send(url, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

Deno.test("a Portcullis serves the vectors and tensors of another one, equal to those of the other asked directly", async (test) => {
  const behind = await startServerUnderTest();
  try {
    await behind.whenReady();
    const key = await behind.signIn();
    const direct = (path: string, body: unknown) => postJson(fetch, `${behind.origin}${path}`, key, body);
    const model = { servedBy: [{ upstream: "behind-oip", model: "use-lite" }] };
    await throughTheGate({
      upstreams: [
        { name: "behind", kind: "openai", url: `${behind.origin}/v1`, key },
        { name: "behind-oip", kind: "openinference", url: behind.origin, key },
      ],
      models: [
        {
          id: "by-openai",
          capabilities: ["embedding"],
          servedBy: [{ upstream: "behind", model: "use-lite" }],
          dimensions: 512,
        },
        { id: "by-oip", capabilities: ["embedding"], ...model, dimensions: 512 },
        { id: "by-tensors", capabilities: ["tensor"], ...model },
      ],
    }, async (journey) => {
      const ask = (path: string, body: unknown) =>
        postJson(journey.fetch, `${journey.origin}${path}`, journey.token, body);

      for (const id of ["by-openai", "by-oip"]) {
        await test.step(`${id}: the same embeddings, in both forms`, async () => {
          for (const encoding_format of ["float", "base64"]) {
            const body = { input: TEXTS, encoding_format };
            const here = await ask("/v1/embeddings", { ...body, model: id });
            const there = await direct("/v1/embeddings", { ...body, model: "use-lite" });
            strictEqual(here.status, 200, JSON.stringify(here.body));
            deepStrictEqual(here.body.data, there.body.data);
            strictEqual(here.body.model, id);
            if (id === "by-openai") deepStrictEqual(here.body.usage, there.body.usage);
          }
          const outcome = await journey.outcomeOf(journey.lastRequestId());
          deepStrictEqual([outcome.outcome, outcome.attempts, outcome.countedBy], [
            "completed",
            1,
            // The Open Inference Protocol tells no tokens.
            id === "by-openai" ? "engine" : "estimate",
          ]);
        });
      }

      await test.step("an embedding model behind can be asked by Open Inference here", async () => {
        const here = await ask("/v2/models/by-openai/infer", TENSORS);
        const there = await direct("/v2/models/use-lite/infer", TENSORS);
        strictEqual(here.status, 200, JSON.stringify(here.body));
        deepStrictEqual(here.body.outputs, there.body.outputs);
      });

      await test.step("a text that is too long for the one behind: its refusal is one of the input here", async () => {
        const { status, body } = await ask("/v1/embeddings", {
          model: "by-openai",
          input: "word ".repeat(300),
        });
        strictEqual(status, 400);
        strictEqual((body.error as { code: string }).code, "input_refused");
      });

      await test.step("tensors: metadata, JSON and raw bytes as they are there", async () => {
        const metadata = async (send: typeof fetch, origin: string, id: string, token: string) => {
          const response = await send(`${origin}/v2/models/${id}`, {
            headers: { authorization: `Bearer ${token}` },
          });
          const { inputs, outputs } = await response.json();
          return { inputs, outputs };
        };
        deepStrictEqual(
          await metadata(journey.fetch, journey.origin, "by-tensors", journey.token),
          await metadata(fetch, behind.origin, "use-lite", key),
        );
        const there = await direct("/v2/models/use-lite/infer", TENSORS);
        const here = await ask("/v2/models/by-tensors/infer", TENSORS);
        strictEqual(here.status, 200, JSON.stringify(here.body));
        deepStrictEqual(here.body.outputs, there.body.outputs);

        const [output] = there.body.outputs as { name: string; data: number[] }[];
        ok(output);
        const head = JSON.stringify({
          ...TENSORS,
          outputs: [{ name: output.name, parameters: { binary_data: true } }],
        });
        const raw = await journey.fetch(`${journey.origin}/v2/models/by-tensors/infer`, {
          method: "POST",
          headers: { "content-type": "application/json", authorization: `Bearer ${journey.token}` },
          body: head,
        });
        strictEqual(raw.status, 200);
        const bytes = await raw.bytes();
        const headLength = Number(raw.headers.get("inference-header-content-length"));
        const floats = new Float32Array(bytes.slice(headLength).buffer);
        deepStrictEqual([...floats], output.data.map(Math.fround));
        strictEqual((await journey.outcomeOf(journey.lastRequestId())).servedBy, "behind-oip/use-lite");
      });

      await test.step("the one behind has a record of its own for each request", () => {
        const here = journey.records().filter(({ type, servedBy }) =>
          type === "inference.finished" && servedBy !== null
        );
        ok(finishedIn(behind) >= here.length);
      });
    });
  } finally {
    await behind.stop();
  }
});

testWithEngine(
  "an answer streams through two gates, and who leaves the first frees the engine behind the second",
  async (test) => {
    const engine = await openLlamaServer({ key: `canary-${crypto.randomUUID()}` });
    const noModels = await Deno.makeTempDir();
    const behind = await startServerUnderTest({
      variables: {
        PORTCULLIS_MODELS_DIR: noModels,
        PORTCULLIS_UPSTREAMS: JSON.stringify([{ name: "llama", kind: "openai", url: `${engine.origin}/v1` }]),
        PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([{
          id: "tiny",
          capabilities: ["chat", "completion"],
          servedBy: [{ upstream: "llama" }],
        }]),
        PORTCULLIS_UPSTREAM_LLAMA_KEY: engine.key,
      },
    });
    try {
      await behind.whenReady();
      await throughTheGate({
        upstreams: [{
          name: "behind",
          kind: "openai",
          url: `${behind.origin}/v1`,
          key: await behind.signIn(),
        }],
        models: [{ id: "tiny", capabilities: ["chat", "completion"], servedBy: [{ upstream: "behind" }] }],
      }, async ({ origin, token, fetch, lastRequestId, outcomeOf }) => {
        const client = new OpenAI({ baseURL: `${origin}/v1`, apiKey: token, maxRetries: 0, fetch });

        await test.step("a whole stream, and both count the same", async () => {
          const chunks = await Array.fromAsync(
            await client.chat.completions.create({
              model: "tiny",
              temperature: 0,
              messages: [{ role: "user", content: "hi" }],
              stream: true,
              stream_options: { include_usage: true },
            }),
          );
          strictEqual(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join(""), GREETING);
          const usage = chunks.at(-1)?.usage;
          const outcome = await outcomeOf(lastRequestId());
          deepStrictEqual([outcome.inputTokens, outcome.outputTokens, outcome.countedBy], [
            usage?.prompt_tokens,
            usage?.completion_tokens,
            "engine",
          ]);
        });

        await test.step("an aborted one", async () => {
          const stream = await client.completions.create({
            model: "tiny",
            prompt: ENDLESS_BEGINNING,
            max_tokens: 8000,
            stream: true,
          });
          let pieces = 0;
          for await (const _ of stream) if (++pieces === 5) break;
          strictEqual((await outcomeOf(lastRequestId())).outcome, "client-left");
          await engine.whenIdle();
        });
      });
    } finally {
      await behind.stop();
      await engine.close();
      await Deno.remove(noModels);
    }
  },
);

function finishedIn({ dataDir }: ServerUnderTest): number {
  return Deno.readTextFileSync(`${dataDir}/audit/audit-000001.jsonl`).split('"type":"inference.finished"')
    .length - 1;
}
