// A real engine behind the gate: what happens to it, to the client and to the records when somebody leaves, stops, fails or dies.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type AuditRecord, type GateJourney, throughTheGate } from "../support/gate_journey.ts";
import { openLlamaServer, testWithEngine } from "../support/llama_server.ts";
import { GREETING } from "../support/tiny_language_model.ts";

/** Far longer than any test, at some thousand tokens a second and less. */
const ENDLESS = { max_tokens: 30_000, ignore_eos: true };
const CONTEXT_TOKENS = 32_768;
const HELLO = [{ role: "user", content: "hi" }];

function post(
  { origin, token, fetch }: GateJourney,
  path: string,
  body: unknown,
  signal?: AbortSignal,
): Promise<Response> {
  return fetch(`${origin}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  });
}

/** The data of the events that have come, as soon as there are so many of them, or all of them. */
function eventReader(
  response: Response,
): { until(count: number): Promise<string[]>; cancel(): Promise<void> } {
  ok(response.body);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  const events = () => text.split("\n\n").slice(0, -1).map((event) => event.replace(/^data: /, ""));
  return {
    async until(count) {
      while (events().length < count) {
        const { value, done } = await reader.read();
        if (done) break;
        text += decoder.decode(value, { stream: true });
      }
      return events();
    },
    cancel: () => reader.cancel(),
  };
}

function requestIdOf(response: Response): string {
  return response.headers.get("x-request-id") ?? "";
}

/** The record of a run whose stream broke off. */
function assertBroken(outcome: AuditRecord, code: string): void {
  strictEqual(outcome.outcome, code);
  strictEqual(outcome.countedBy, "estimate");
  ok(Number(outcome.inputTokens) > 0 && Number(outcome.outputTokens) > 0, "what was sent was not counted");
  strictEqual(outcome.servedBy, "llama/tiny");
}

testWithEngine(
  "a real engine: callers who leave free it at once, and what it says or hides is put into our words",
  async (test) => {
    const engine = await openLlamaServer({
      key: `canary-${crypto.randomUUID()}`,
      contextTokens: CONTEXT_TOKENS,
    });
    const upstream = { kind: "openai", url: `${engine.origin}/v1` };
    try {
      await throughTheGate({
        upstreams: [
          { ...upstream, name: "llama", key: engine.key, requestsAtOnceMax: 2 },
          // Its health can be asked without a key.
          {
            kind: "openai",
            url: engine.origin,
            healthPath: "/health",
            name: "llama-locked",
            key: `canary-${crypto.randomUUID()}`,
          },
          { ...upstream, name: "llama-silent", key: engine.key, usageInStreams: false },
        ],
        models: [
          {
            id: "tiny",
            capabilities: ["chat", "completion"],
            servedBy: [{ upstream: "llama" }],
            passFields: ["ignore_eos"],
          },
          { id: "locked", capabilities: ["chat"], servedBy: [{ upstream: "llama-locked", model: "tiny" }] },
          { id: "silent", capabilities: ["chat"], servedBy: [{ upstream: "llama-silent", model: "tiny" }] },
        ],
      }, async (journey) => {
        for (const path of ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"]) {
          await test.step(`${path}: the engine is idle soon after its caller left in the middle of a stream`, async () => {
            const body = {
              "/v1/chat/completions": { messages: HELLO, ...ENDLESS },
              "/v1/completions": { prompt: "One two", ...ENDLESS },
              "/v1/messages": { messages: HELLO, ...ENDLESS },
              "/v1/responses": { input: "hi", max_output_tokens: 30_000, ignore_eos: true },
            }[path];
            const response = await post(journey, path, { model: "tiny", stream: true, ...body });
            strictEqual(response.status, 200);
            strictEqual(response.headers.get("x-portcullis-served-by"), "llama/tiny");
            const stream = eventReader(response);
            ok((await stream.until(12)).length >= 12);
            strictEqual(await engine.answersUnderWay(), 1);
            await stream.cancel();
            assertBroken(await journey.outcomeOf(requestIdOf(response)), "client-left");
            await engine.whenIdle();
          });
        }

        await test.step("a caller who leaves before the whole answer is recorded, and its place is free", async () => {
          const leaving = new AbortController();
          const before = journey.records().length;
          const asked = post(journey, "/v1/chat/completions", {
            model: "tiny",
            messages: HELLO,
            ...ENDLESS,
            max_tokens: 1500,
          }, leaving.signal).catch((error: Error) => error.name);
          await whenRecorded(journey, before, "inference.started");
          leaving.abort();
          strictEqual(await asked, "AbortError");
          await whenRecorded(journey, before, "inference.finished");
          const outcome = journey.records().slice(before).find(({ type }) => type === "inference.finished");
          strictEqual(outcome?.outcome, "client-left");
          // The engine itself goes on with an answer that is not streamed.
          await engine.whenIdle();
        });

        await test.step("what is beyond the places of an upstream is refused with a time to come back", async () => {
          const running = await Promise.all(
            [1, 2].map(() =>
              post(journey, "/v1/chat/completions", {
                model: "tiny",
                messages: HELLO,
                stream: true,
                ...ENDLESS,
              })
            ),
          );
          const refused = await post(journey, "/v1/chat/completions", { model: "tiny", messages: HELLO });
          deepStrictEqual([refused.status, (await refused.json()).error.code], [503, "overloaded"]);
          match(refused.headers.get("retry-after") ?? "", /^\d+$/);
          for (const response of running) await response.body?.cancel();
          for (const response of running) await journey.outcomeOf(requestIdOf(response));
          await engine.whenIdle();
        });

        await test.step("the engine's own word on a context that is too long becomes ours, and none of its text", async () => {
          for (const stream of [false, true]) {
            const response = await post(journey, "/v1/chat/completions", {
              model: "tiny",
              stream,
              messages: [{ role: "user", content: "x ".repeat(20_000) }],
            });
            const text = await response.text();
            strictEqual(response.status, 400);
            strictEqual(JSON.parse(text).error.code, "context_length_exceeded");
            ok(!/32768|exceed_context|n_ctx/.test(text), text);
            const outcome = await journey.outcomeOf(requestIdOf(response));
            deepStrictEqual([outcome.outcome, outcome.attempts], ["context-length-exceeded", 1]);
          }
        });

        await test.step("an engine that refuses our key is a failed engine, never the caller's 401", async () => {
          const response = await post(journey, "/v1/chat/completions", { model: "locked", messages: HELLO });
          const text = await response.text();
          strictEqual(response.status, 502);
          strictEqual(JSON.parse(text).error.code, "upstream_failed");
          ok(!/invalid api key/i.test(text), text);
        });

        await test.step("an engine that tells no usage in streams is counted by us, and marked so", async () => {
          const response = await post(journey, "/v1/chat/completions", {
            model: "silent",
            messages: HELLO,
            temperature: 0,
            stream: true,
            stream_options: { include_usage: true },
          });
          const events = await eventReader(response).until(Infinity);
          strictEqual(events.at(-1), "[DONE]");
          const { choices, usage } = JSON.parse(events.at(-2) ?? "");
          deepStrictEqual(choices, []);
          strictEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
          const outcome = await journey.outcomeOf(requestIdOf(response));
          deepStrictEqual([outcome.outcome, outcome.countedBy, outcome.inputTokens, outcome.outputTokens], [
            "completed",
            "estimate",
            usage.prompt_tokens,
            usage.completion_tokens,
          ]);
        });

        await test.step("many answers at once are each whole and each recorded", async () => {
          const answers = [];
          for (let round = 0; round < 5; round++) {
            answers.push(
              ...await Promise.all([1, 2].map(async () => {
                const response = await post(journey, "/v1/chat/completions", {
                  model: "tiny",
                  messages: HELLO,
                  temperature: 0,
                });
                return (await response.json()).choices[0].message.content;
              })),
            );
          }
          deepStrictEqual(answers, Array.from({ length: 10 }, () => GREETING));
        });
      });
    } finally {
      await engine.close();
    }
  },
);

testWithEngine(
  "an engine that dies in the middle of a stream ends it with an error event; a stand-in takes the next request",
  async () => {
    const [dying, other] = await Promise.all([
      openLlamaServer({ contextTokens: CONTEXT_TOKENS }),
      openLlamaServer({ contextTokens: CONTEXT_TOKENS }),
    ]);
    try {
      await throughTheGate({
        upstreams: [
          { name: "llama", kind: "openai", url: `${dying.origin}/v1` },
          { name: "other", kind: "openai", url: `${other.origin}/v1` },
        ],
        models: [
          {
            id: "tiny",
            capabilities: ["chat"],
            servedBy: [{ upstream: "llama" }],
            passFields: ["ignore_eos"],
            fallbacks: ["spare"],
          },
          { id: "spare", capabilities: ["chat"], servedBy: [{ upstream: "other", model: "tiny" }] },
        ],
      }, async (journey) => {
        const response = await post(journey, "/v1/chat/completions", {
          model: "tiny",
          messages: HELLO,
          stream: true,
          ...ENDLESS,
        });
        const stream = eventReader(response);
        await stream.until(10);
        await dying.close();
        const events = await stream.until(Infinity);
        strictEqual(JSON.parse(events.at(-1) ?? "").error.code, "upstream_unreachable");
        ok(!events.includes("[DONE]"));
        assertBroken(await journey.outcomeOf(requestIdOf(response)), "upstream-unreachable");

        const next = await post(journey, "/v1/chat/completions", {
          model: "tiny",
          messages: HELLO,
          temperature: 0,
        });
        const body = await next.json();
        deepStrictEqual([next.status, body.choices?.[0].message.content], [200, GREETING]);
        const outcome = await journey.outcomeOf(requestIdOf(next));
        deepStrictEqual([outcome.model, outcome.outcome, outcome.servedBy], [
          "tiny",
          "completed",
          "other/tiny",
        ]);
        const rerouted = journey.records().filter(({ type }) => type === "inference.rerouted");
        deepStrictEqual(
          rerouted.map(({ request, to, reason }) => [request, to, reason]),
          [[requestIdOf(next), "spare", "upstream-unreachable"]],
        );
      });
    } finally {
      await dying.close();
      await other.close();
    }
  },
);

testWithEngine(
  "SIGTERM in the middle of a stream: short ones finish, endless ones end with an error event, all are recorded",
  async () => {
    const engine = await openLlamaServer({ contextTokens: CONTEXT_TOKENS });
    try {
      await throughTheGate({
        upstreams: [{ name: "llama", kind: "openai", url: `${engine.origin}/v1` }],
        models: [{
          id: "tiny",
          capabilities: ["chat"],
          servedBy: [{ upstream: "llama" }],
          passFields: ["ignore_eos"],
        }],
        variables: { PORTCULLIS_SHUTDOWN_TIMEOUT_MS: "4000" },
      }, async (journey) => {
        const [endless, short] = await Promise.all(
          [ENDLESS.max_tokens, 100].map((max_tokens) =>
            post(journey, "/v1/chat/completions", {
              model: "tiny",
              messages: HELLO,
              stream: true,
              ...ENDLESS,
              max_tokens,
            })
          ),
        );
        ok(endless && short);
        const streams = [eventReader(endless), eventReader(short)];
        await Promise.all(streams.map((stream) => stream.until(5)));
        const stopping = journey.stop();
        const [cut = [], whole = []] = await Promise.all(streams.map((stream) => stream.until(Infinity)));
        strictEqual(JSON.parse(cut.at(-1) ?? "").error.code, "stopping");
        ok(!cut.includes("[DONE]"));
        strictEqual(whole.at(-1), "[DONE]");
        assertBroken(await journey.outcomeOf(requestIdOf(endless)), "stopping");
        const outcome = await journey.outcomeOf(requestIdOf(short));
        deepStrictEqual([outcome.outcome, outcome.outputTokens, outcome.countedBy], [
          "completed",
          100,
          "engine",
        ]);
        await engine.whenIdle();
        strictEqual((await stopping).code, 0);
      });
    } finally {
      await engine.close();
    }
  },
);

async function whenRecorded(journey: GateJourney, from: number, type: string): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if (journey.records().slice(from).some((record) => record.type === type)) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`no ${type} is on record`);
}
