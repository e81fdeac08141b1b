// OpenAI's official client against the gate, with a real engine behind it.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import { type GateJourney, throughTheGate } from "../support/gate_journey.ts";
import { openLlamaServer, testWithEngine } from "../support/llama_server.ts";
import { answerBytes, answerJson, type Script, startScriptedUpstream } from "../support/scripted_upstream.ts";
import { GREETING, SENTENCES, TINY_MODEL_DIMENSIONS, TOOL_CALL } from "../support/tiny_language_model.ts";

/** Its words and the mark that ends a turn. */
const GREETING_TOKENS = GREETING.split(" ").length + 1;
const HELLO = [{ role: "user", content: "hi" }] as const;
const WEATHER_PARAMETERS = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
const WEATHER_TOOL = {
  type: "function",
  function: {
    name: TOOL_CALL.name,
    description: "The weather in a city",
    parameters: WEATHER_PARAMETERS,
  },
} as const;

function clientOf({ origin, token, fetch }: GateJourney): OpenAI {
  return new OpenAI({ baseURL: `${origin}/v1`, apiKey: token, maxRetries: 0, fetch });
}

function assertSum(usage: OpenAI.CompletionUsage | null | undefined): asserts usage {
  ok(usage);
  ok(usage.prompt_tokens > 0);
  strictEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
}

/** @throws AssertionError unless `act` fails with the client's class for the status and with our code */
async function rejectsWith(
  act: () => Promise<unknown>,
  type: new (...parameters: never[]) => Error,
  code: string,
): Promise<void> {
  await rejects(act, (error: unknown) => {
    ok(error instanceof type, String(error));
    strictEqual((error as { code?: unknown }).code, code);
    return true;
  });
}

testWithEngine(
  "OpenAI's client chats, calls tools, completes and embeds through the gate, on a real engine",
  async (test) => {
    const engine = await openLlamaServer({ key: `canary-${crypto.randomUUID()}` });
    try {
      await throughTheGate({
        localModels: true,
        upstreams: [{ name: "llama", kind: "openai", url: `${engine.origin}/v1`, key: engine.key }],
        models: [
          {
            id: "tiny",
            aliases: ["gpt-tiny"],
            capabilities: ["chat", "completion", "embedding"],
            servedBy: [{ upstream: "llama" }],
            passFields: ["ignore_eos"],
          },
          {
            id: "tiny-short",
            capabilities: ["chat"],
            contextTokensMax: 64,
            servedBy: [{ upstream: "llama", model: "tiny" }],
          },
        ],
      }, async (journey) => {
        const client = clientOf(journey);

        await test.step("models.list tells what each model does and that it is ready", async () => {
          const { data } = await client.models.list();
          const told = data.map((model) => ({ ...model, created: 0, owned_by: "" }));
          const model = (id: string, capabilities: readonly string[]) => ({
            id,
            object: "model",
            created: 0,
            owned_by: "",
            capabilities,
            ready: true,
          });
          deepStrictEqual(told.sort((a, b) => a.id < b.id ? -1 : 1), [
            model("tiny", ["chat", "completion", "embedding"]),
            model("tiny-short", ["chat"]),
            model("use-lite", ["embedding"]),
          ]);
          strictEqual((await client.models.retrieve("gpt-tiny")).id, "tiny");
        });

        await test.step("chat: the whole answer, the engine's usage, and the same figures on record", async () => {
          const answer = await client.chat.completions.create({
            model: "gpt-tiny",
            temperature: 0,
            messages: [{ role: "system", content: "Be nice." }, ...HELLO],
          });
          deepStrictEqual([answer.object, answer.model, answer.choices.length], [
            "chat.completion",
            "tiny",
            1,
          ]);
          const [choice] = answer.choices;
          deepStrictEqual([choice?.message.content, choice?.finish_reason], [GREETING, "stop"]);
          assertSum(answer.usage);
          strictEqual(answer.usage.completion_tokens, GREETING_TOKENS);
          const outcome = await journey.outcomeOf(journey.lastRequestId());
          deepStrictEqual(
            [
              outcome.model,
              outcome.outcome,
              outcome.inputTokens,
              outcome.outputTokens,
              outcome.countedBy,
              outcome.servedBy,
              outcome.attempts,
            ],
            ["tiny", "completed", answer.usage.prompt_tokens, GREETING_TOKENS, "engine", "llama/tiny", 1],
          );
        });

        await test.step("chat: max_tokens cuts, stop sequences stop, n draws several", async () => {
          const ask = (more: Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>) =>
            client.chat.completions.create({ model: "tiny", temperature: 0, messages: [...HELLO], ...more });
          const cut = (await ask({ max_completion_tokens: 3 })).choices[0];
          deepStrictEqual([cut?.message.content, cut?.finish_reason], ["Hello from a", "length"]);
          const stopped = (await ask({ stop: [" model"] })).choices[0];
          deepStrictEqual([stopped?.message.content, stopped?.finish_reason], ["Hello from a tiny", "stop"]);
          const { choices, usage } = await ask({ n: 2 });
          deepStrictEqual(choices.map(({ index }) => index), [0, 1]);
          ok(choices.every(({ message }) => message.content === GREETING));
          // This engine counts the output of the first choice only.
          assertSum(usage);
        });

        await test.step("chat as a stream: pieces in order, one end; usage only where it is asked for", async () => {
          for (const wanted of [false, true]) {
            const stream = await client.chat.completions.create({
              model: "tiny",
              temperature: 0,
              messages: [...HELLO],
              stream: true,
              ...(wanted ? { stream_options: { include_usage: true } } : {}),
            });
            const chunks = await Array.fromAsync(stream);
            strictEqual(new Set(chunks.map(({ id }) => id)).size, 1);
            ok(chunks.every(({ object, model }) => object === "chat.completion.chunk" && model === "tiny"));
            const choices = chunks.flatMap(({ choices }) => choices);
            strictEqual(choices[0]?.delta.role, "assistant");
            strictEqual(choices.map(({ delta }) => delta.content ?? "").join(""), GREETING);
            deepStrictEqual(choices.flatMap(({ finish_reason }) => finish_reason ?? []), ["stop"]);
            strictEqual(choices.at(-1)?.finish_reason, "stop");
            ok(choices.length >= GREETING_TOKENS, "it came in one piece");
            if (wanted) {
              const last = chunks.at(-1);
              deepStrictEqual(last?.choices, []);
              assertSum(last?.usage);
              strictEqual(last.usage.completion_tokens, GREETING_TOKENS);
              ok(chunks.slice(0, -1).every(({ usage }) => usage === null));
            } else ok(chunks.every(({ usage }) => usage === undefined));
            const outcome = await journey.outcomeOf(journey.lastRequestId());
            deepStrictEqual(
              [outcome.outcome, outcome.outputTokens, outcome.countedBy],
              ["completed", GREETING_TOKENS, "engine"],
            );
          }
        });

        await test.step("tools: the client's own loop of call, result and answer", async () => {
          const asked: unknown[] = [];
          const runner = client.chat.completions.runTools({
            model: "tiny",
            temperature: 0,
            messages: [{ role: "user", content: "How is the weather?" }],
            tools: [{
              type: "function",
              function: {
                ...WEATHER_TOOL.function,
                parse: JSON.parse,
                function: (input: unknown) => {
                  asked.push(input);
                  return "sunny";
                },
              },
            }],
          });
          strictEqual(await runner.finalContent(), GREETING);
          deepStrictEqual(asked, [TOOL_CALL.arguments]);
          deepStrictEqual(runner.messages.map(({ role }) => role), [
            "user",
            "assistant",
            "tool",
            "assistant",
          ]);
        });

        await test.step("tools as a stream: arguments in pieces that the client puts together", async () => {
          const stream = client.chat.completions.stream({
            model: "tiny",
            temperature: 0,
            messages: [{ role: "user", content: "How is the weather?" }],
            tools: [WEATHER_TOOL],
          });
          const pieces = (await Array.fromAsync(stream)).filter(({ choices }) =>
            choices[0]?.delta.tool_calls !== undefined
          );
          ok(pieces.length > 1, "it came in one piece");
          const [choice] = (await stream.finalChatCompletion()).choices;
          strictEqual(choice?.finish_reason, "tool_calls");
          const [call] = choice.message.tool_calls ?? [];
          ok(call?.type === "function" && call.id !== "");
          deepStrictEqual(
            [call.function.name, JSON.parse(call.function.arguments)],
            [TOOL_CALL.name, TOOL_CALL.arguments],
          );
        });

        await test.step("structured output: the engine writes nothing but what the schema allows", async () => {
          const { choices: [choice] } = await client.chat.completions.create({
            model: "tiny",
            temperature: 0,
            max_completion_tokens: 200,
            messages: [...HELLO],
            response_format: {
              type: "json_schema",
              json_schema: {
                name: "verdict",
                strict: true,
                schema: {
                  type: "object",
                  properties: { answer: { enum: ["yes", "no"] }, sure: { type: "boolean" } },
                  required: ["answer", "sure"],
                  additionalProperties: false,
                },
              },
            },
          });
          const verdict = JSON.parse(choice?.message.content ?? "");
          deepStrictEqual(Object.keys(verdict).sort(), ["answer", "sure"]);
          ok(["yes", "no"].includes(verdict.answer) && typeof verdict.sure === "boolean");
        });

        await test.step("responses: whole, with the usage in that API's words", async () => {
          const response = await client.responses.create({
            model: "tiny",
            temperature: 0,
            instructions: "Be nice.",
            input: "hi",
          });
          deepStrictEqual([response.object, response.status, response.model], [
            "response",
            "completed",
            "tiny",
          ]);
          strictEqual(response.output_text, GREETING);
          const { usage } = response;
          ok(usage && usage.input_tokens > 0);
          strictEqual(usage.output_tokens, GREETING_TOKENS);
          strictEqual(usage.total_tokens, usage.input_tokens + usage.output_tokens);
        });

        await test.step("responses as a stream: numbered events from created to completed", async () => {
          const stream = await client.responses.create({
            model: "tiny",
            temperature: 0,
            input: "hi",
            stream: true,
          });
          const events = await Array.fromAsync(stream);
          deepStrictEqual(
            events.map(({ sequence_number }) => sequence_number),
            events.map((_, index) => index),
          );
          const types = events.map(({ type }) => type);
          deepStrictEqual(types.filter((type, index) => types.indexOf(type) === index), [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
          ]);
          const text = events.flatMap((event) =>
            event.type === "response.output_text.delta" ? event.delta : []
          );
          strictEqual(text.join(""), GREETING);
          const last = events.at(-1);
          ok(last?.type === "response.completed");
          strictEqual(last.response.output_text ?? GREETING, GREETING);
          strictEqual(last.response.usage?.output_tokens, GREETING_TOKENS);
        });

        await test.step("responses with tools: a call, and an answer to its result", async () => {
          const tools = [{
            type: "function" as const,
            name: TOOL_CALL.name,
            parameters: WEATHER_PARAMETERS,
            strict: true,
          }];
          const question = { role: "user" as const, content: "How is the weather?" };
          const asking = client.responses.stream({ model: "tiny", temperature: 0, tools, input: [question] });
          const { output } = await asking.finalResponse();
          const [call] = output;
          ok(call?.type === "function_call" && output.length === 1);
          deepStrictEqual([call.name, JSON.parse(call.arguments)], [TOOL_CALL.name, TOOL_CALL.arguments]);
          const answered = await client.responses.create({
            model: "tiny",
            temperature: 0,
            tools,
            input: [question, {
              type: "function_call",
              call_id: call.call_id,
              name: call.name,
              arguments: call.arguments,
            }, {
              type: "function_call_output",
              call_id: call.call_id,
              output: "sunny",
            }],
          });
          strictEqual(answered.output_text, GREETING);
        });

        await test.step("completions: prompts are continued as they stand, whole and as a stream", async () => {
          const [gate, numbers] = SENTENCES;
          const prompts = ["The gate sends", "One two"];
          const whole = await client.completions.create({ model: "tiny", temperature: 0, prompt: prompts });
          deepStrictEqual(
            whole.choices.map((
              { index, text, finish_reason },
            ) => [index, `${prompts[index]}${text}`, finish_reason]),
            [[0, gate, "stop"], [1, numbers, "stop"]],
          );
          assertSum(whole.usage);
          const chunks = await Array.fromAsync(
            await client.completions.create({
              model: "tiny",
              temperature: 0,
              prompt: "One two",
              stream: true,
              stream_options: { include_usage: true },
            }),
          );
          strictEqual(`One two${chunks.map(({ choices }) => choices[0]?.text ?? "").join("")}`, numbers);
          const usage = chunks.at(-1)?.usage;
          assertSum(usage);
          // Two words in, the other eight and the mark that ends a turn out.
          deepStrictEqual([usage.prompt_tokens, usage.completion_tokens], [2, 9]);
        });

        await test.step("embeddings: of the engine and of the local model, from one server", async () => {
          const input = ["The gate sends", "The gate brings", "One two three"];
          const remote = await client.embeddings.create({ model: "tiny", input });
          const [a, b, c] = remote.data.map(({ embedding }) => embedding);
          ok(a && b && c);
          ok([a, b, c].every((vector) => vector.length === TINY_MODEL_DIMENSIONS));
          ok(dot(a, b) > dot(a, c), "texts that share words are not closer");
          ok(remote.usage.prompt_tokens > 0);
          strictEqual(remote.usage.total_tokens, remote.usage.prompt_tokens);
          const plain = await client.embeddings.create({ model: "tiny", input, encoding_format: "float" });
          deepStrictEqual(plain.data.map(({ embedding }) => embedding.map(Math.fround)), [a, b, c]);
          const local = await client.embeddings.create({ model: "use-lite", input });
          deepStrictEqual(local.data.map(({ embedding }) => embedding.length), [512, 512, 512]);
          const outcome = await journey.outcomeOf(journey.lastRequestId());
          deepStrictEqual([outcome.model, outcome.servedBy], ["use-lite", null]);
        });

        await test.step("refusals are the client's own error classes, with our codes", async () => {
          const ask = (more: Record<string, unknown>) => () =>
            client.chat.completions.create(
              {
                model: "tiny",
                messages: [...HELLO],
                ...more,
              } as OpenAI.ChatCompletionCreateParamsNonStreaming,
            );
          await rejectsWith(ask({ model: "gpt-none" }), OpenAI.NotFoundError, "model_not_found");
          await rejectsWith(ask({ model: "use-lite" }), OpenAI.BadRequestError, "capability_missing");
          await rejectsWith(ask({ temperature: 3 }), OpenAI.UnprocessableEntityError, "fields_invalid");
          await rejectsWith(ask({ grammar: "x" }), OpenAI.UnprocessableEntityError, "fields_invalid");
          const long = [{ role: "user", content: "x ".repeat(9000) }];
          await rejectsWith(ask({ messages: long }), OpenAI.BadRequestError, "context_length_exceeded");
          await rejectsWith(
            ask({ model: "tiny-short", messages: long }),
            OpenAI.BadRequestError,
            "context_length_exceeded",
          );
          await rejectsWith(
            ask({ messages: long, stream: true }),
            OpenAI.BadRequestError,
            "context_length_exceeded",
          );
          const stranger = clientOf({ ...journey, token: "nobody" });
          await rejectsWith(() => stranger.models.list(), OpenAI.AuthenticationError, "unauthenticated");
        });

        await test.step("a stream that the client aborts stops the engine, and the record says that the client left", async () => {
          const stream = await client.chat.completions.create({
            model: "tiny",
            messages: [...HELLO],
            stream: true,
            max_completion_tokens: 8000,
            ...{ ignore_eos: true },
          });
          const request = journey.lastRequestId();
          let pieces = 0;
          for await (const { choices } of stream) {
            if (choices[0]?.delta.content) pieces++;
            if (pieces === 5) break;
          }
          const outcome = await journey.outcomeOf(request);
          strictEqual(outcome.outcome, "client-left");
          strictEqual(outcome.countedBy, "estimate");
          ok(Number(outcome.outputTokens) >= 5, "what was sent was not counted");
          await engine.whenIdle();
        });
      });
    } finally {
      await engine.close();
    }
  },
);

Deno.test("OpenAI's client has texts judged, speaks, transcribes and draws through the gate (a scripted engine)", async (test) => {
  const upstream = await startScriptedUpstream();
  upstream.plays(byPath({
    "/v1/moderations": answerJson({
      id: "modr-1",
      model: "judge",
      results: [{ flagged: true, categories: { hate: true }, category_scores: { hate: 0.75 } }],
    }),
    "/v1/audio/transcriptions": answerJson({ text: "hello there" }),
    "/v1/audio/speech": answerBytes(SOUND, "audio/mpeg"),
    "/v1/images/generations": answerJson({ created: 1700000000, data: [{ b64_json: PICTURE.toBase64() }] }),
  }));
  try {
    await throughTheGate({
      upstreams: [{
        name: "studio",
        kind: "openai",
        url: `${upstream.url}/v1`,
        key: `canary-${crypto.randomUUID()}`,
      }],
      models: [{
        id: "studio",
        capabilities: ["moderation", "transcription", "speech", "image"],
        servedBy: [{ upstream: "studio" }],
      }],
    }, async (journey) => {
      const client = clientOf(journey);

      await test.step("moderations", async () => {
        const { results } = await client.moderations.create({ model: "studio", input: "a text" });
        strictEqual(results[0]?.flagged, true);
        strictEqual(results[0].categories.hate, true);
        strictEqual(results[0].category_scores.hate, 0.75);
      });

      await test.step("audio.transcriptions: a file of the client arrives there byte by byte", async () => {
        const file = await toFile(WAVE, "minutes.wav", { type: "audio/wav" });
        // In the order of OpenAI's own examples, and in that which lets the gate pass the file on while it comes.
        for (const fields of [{ file, model: "studio" }, { model: "studio", language: "en", file }]) {
          const { text } = await client.audio.transcriptions.create(fields);
          strictEqual(text, "hello there");
          const sent = upstream.requests.at(-1);
          const form = await new Response(sent?.body() ?? null, {
            headers: { "content-type": sent?.headers.get("content-type") ?? "" },
          }).formData();
          const arrived = form.get("file");
          ok(arrived instanceof File);
          deepStrictEqual(await arrived.bytes(), WAVE);
          deepStrictEqual([form.get("model"), form.get("language")], ["studio", fields.language ?? null]);
          ok(!arrived.name.includes("minutes"), "the caller's file name went to the engine");
        }
      });

      await test.step("audio.speech: the bytes of the sound", async () => {
        const response = await client.audio.speech.create({
          model: "studio",
          voice: "alloy",
          input: "Hello",
        });
        deepStrictEqual([response.headers.get("content-type"), await response.bytes()], [
          "audio/mpeg",
          SOUND,
        ]);
      });

      await test.step("images.generate: always as bytes", async () => {
        const { data } = await client.images.generate({ model: "studio", prompt: "a gate" });
        deepStrictEqual(data?.map(({ b64_json }) => b64_json), [PICTURE.toBase64()]);
      });

      await test.step("each of them left its outcome", async () => {
        await journey.outcomeOf(journey.lastRequestId());
        deepStrictEqual(
          journey.records().filter(({ type }) => type === "inference.finished")
            .map(({ outcome, servedBy }) => [outcome, servedBy]),
          Array.from({ length: 5 }, () => ["completed", "studio/studio"]),
        );
      });
    });
  } finally {
    await upstream.close();
  }
});

const SOUND = new Uint8Array(3000).map((_, index) => index % 251);
const PICTURE = Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
/** A RIFF file with a WAVE form and 200 samples. */
const WAVE = (() => {
  const samples = 200;
  const view = new DataView(new ArrayBuffer(44 + samples * 2));
  const text = (at: number, word: string) =>
    [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, view.byteLength - 8, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  [1, 1].forEach((value, index) => view.setUint16(20 + 2 * index, value, true));
  [8000, 16_000].forEach((value, index) => view.setUint32(24 + 4 * index, value, true));
  [2, 16].forEach((value, index) => view.setUint16(32 + 2 * index, value, true));
  text(36, "data");
  view.setUint32(40, samples * 2, true);
  return new Uint8Array(view.buffer);
})();

function byPath(scripts: Readonly<Record<string, Script>>): Script {
  return (reply, request) => (scripts[request.target] ?? answerJson({}, 404))(reply, request);
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, index) => sum + value * (b[index] ?? NaN), 0);
}
