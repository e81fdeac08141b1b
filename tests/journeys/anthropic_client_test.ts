// Anthropic's official client against the gate: answered by a real engine that speaks OpenAI's protocol, and by the same engine
// through the Messages API that it serves itself.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { throughTheGate } from "../support/gate_journey.ts";
import { openLlamaServer, testWithEngine } from "../support/llama_server.ts";
import { ENDLESS_BEGINNING, GREETING, TOOL_CALL } from "../support/tiny_language_model.ts";

const GREETING_TOKENS = GREETING.split(" ").length + 1;
/** The client's types have no temperature any more; engines have one. */
const SURE = { max_tokens: 100, temperature: 0 };
const HELLO = { ...SURE, messages: [{ role: "user" as const, content: "hi" }] };
const QUESTION = { role: "user" as const, content: "How is the weather?" };
const WEATHER_TOOL: Anthropic.Tool = {
  name: TOOL_CALL.name,
  description: "The weather in a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

testWithEngine(
  "Anthropic's client chats and calls tools through the gate, whichever protocol the engine behind speaks",
  async (test) => {
    const engine = await openLlamaServer({ key: `canary-${crypto.randomUUID()}` });
    try {
      await throughTheGate({
        upstreams: [
          { name: "llama", kind: "openai", url: `${engine.origin}/v1`, key: engine.key },
          { name: "llama-messages", kind: "anthropic", url: engine.origin, key: engine.key },
        ],
        models: [
          { id: "embeds", capabilities: ["embedding"], servedBy: [{ upstream: "llama", model: "tiny" }] },
          { id: "by-openai", capabilities: ["chat"], servedBy: [{ upstream: "llama", model: "tiny" }] },
          {
            id: "by-anthropic",
            capabilities: ["chat"],
            servedBy: [{ upstream: "llama-messages", model: "tiny" }],
          },
        ],
      }, async (journey) => {
        const { origin, token, fetch } = journey;
        const client = new Anthropic({
          baseURL: origin,
          authToken: token,
          apiKey: null,
          maxRetries: 0,
          fetch,
        });

        for (
          const [model, servedBy] of [["by-openai", "llama/tiny"], [
            "by-anthropic",
            "llama-messages/tiny",
          ]] as const
        ) {
          await test.step(`${model}: a whole message, the engine's usage, and the same figures on record`, async () => {
            const message = await client.messages.create({ model, ...HELLO, system: "Be nice." });
            deepStrictEqual([message.type, message.role, message.model], ["message", "assistant", model]);
            deepStrictEqual(message.content.map((block) => block.type === "text" ? block.text : block.type), [
              GREETING,
            ]);
            deepStrictEqual([message.stop_reason, message.stop_sequence], ["end_turn", null]);
            const { input_tokens, cache_read_input_tokens, output_tokens } = message.usage;
            ok(input_tokens > 0);
            strictEqual(output_tokens, GREETING_TOKENS);
            const outcome = await journey.outcomeOf(journey.lastRequestId());
            deepStrictEqual(
              [
                outcome.outcome,
                outcome.inputTokens,
                outcome.outputTokens,
                outcome.countedBy,
                outcome.servedBy,
              ],
              [
                "completed",
                input_tokens + (cache_read_input_tokens ?? 0),
                GREETING_TOKENS,
                "engine",
                servedBy,
              ],
            );
          });

          await test.step(`${model}: max_tokens cuts, and a stop sequence stops`, async () => {
            const cut = await client.messages.create({ model, ...HELLO, max_tokens: 3 });
            deepStrictEqual([textOf(cut), cut.stop_reason], ["Hello from a", "max_tokens"]);
            const stopped = await client.messages.create({ model, ...HELLO, stop_sequences: [" model"] });
            strictEqual(textOf(stopped), "Hello from a tiny");
          });

          await test.step(`${model}: a stream, event by event`, async () => {
            const events = await Array.fromAsync(
              await client.messages.create({ model, ...HELLO, stream: true }),
            );
            const types = events.map(({ type }) => type);
            deepStrictEqual(types.filter((type, index) => type !== types[index - 1]), [
              "message_start",
              "content_block_start",
              "content_block_delta",
              "content_block_stop",
              "message_delta",
              "message_stop",
            ]);
            const text = events.flatMap((event) =>
              event.type === "content_block_delta" && event.delta.type === "text_delta"
                ? event.delta.text
                : []
            );
            strictEqual(text.join(""), GREETING);
            ok(text.length > 1, "it came in one piece");
            const delta = events.find((event) => event.type === "message_delta");
            deepStrictEqual([delta?.delta.stop_reason, delta?.usage.output_tokens], [
              "end_turn",
              GREETING_TOKENS,
            ]);
            const outcome = await journey.outcomeOf(journey.lastRequestId());
            deepStrictEqual([outcome.outcome, outcome.outputTokens, outcome.countedBy], [
              "completed",
              GREETING_TOKENS,
              "engine",
            ]);
          });

          await test.step(`${model}: a tool call in a stream that the client puts together, and an answer to its result`, async () => {
            const stream = client.messages.stream({
              model,
              ...SURE,
              tools: [WEATHER_TOOL],
              messages: [QUESTION],
            });
            const pieces: string[] = [];
            stream.on("inputJson", (piece) => pieces.push(piece));
            const message = await stream.finalMessage();
            ok(pieces.length > 1, "it came in one piece");
            strictEqual(message.stop_reason, "tool_use");
            const [call] = message.content;
            ok(call?.type === "tool_use" && message.content.length === 1);
            deepStrictEqual([call.name, call.input], [TOOL_CALL.name, TOOL_CALL.arguments]);

            const answer = await client.messages.create({
              model,
              ...SURE,
              tools: [WEATHER_TOOL],
              messages: [QUESTION, { role: "assistant", content: message.content }, {
                role: "user",
                content: [{ type: "tool_result", tool_use_id: call.id, content: "sunny" }],
              }],
            });
            strictEqual(textOf(answer), GREETING);
          });

          await test.step(`${model}: the tokens of a conversation, counted without a run`, async () => {
            const before = await client.messages.countTokens({ model, messages: HELLO.messages });
            const longer = await client.messages.countTokens({
              model,
              messages: [...HELLO.messages, QUESTION],
            });
            ok(before.input_tokens > 0 && longer.input_tokens > before.input_tokens);
            strictEqual(journey.records().at(-1)?.type, "request.allowed");
          });

          await test.step(`${model}: refusals are the client's own error classes, with types of its protocol`, async () => {
            const ask = (more: Record<string, unknown>) => () =>
              client.messages.create(
                { model, ...HELLO, ...more } as Anthropic.MessageCreateParamsNonStreaming,
              );
            await rejectsWith(ask({ model: "claude-none" }), Anthropic.NotFoundError, "not_found_error");
            await rejectsWith(ask({ model: "embeds" }), Anthropic.BadRequestError, "invalid_request_error");
            await rejectsWith(
              ask({ temperature: 7 }),
              Anthropic.UnprocessableEntityError,
              "invalid_request_error",
            );
            await rejectsWith(
              ask({ messages: [{ role: "user", content: "x ".repeat(9000) }] }),
              Anthropic.BadRequestError,
              "invalid_request_error",
            );
            strictEqual(
              (await journey.outcomeOf(journey.lastRequestId())).outcome,
              "context-length-exceeded",
            );
            const stranger = new Anthropic({
              baseURL: origin,
              authToken: "nobody",
              apiKey: null,
              maxRetries: 0,
              fetch,
            });
            await rejectsWith(
              () => stranger.messages.create({ model, ...HELLO }),
              Anthropic.AuthenticationError,
              "authentication_error",
            );
          });
        }

        await test.step("an aborted stream frees the engine behind the Messages API too", async () => {
          const stream = await client.messages.create({
            model: "by-anthropic",
            max_tokens: 8000,
            stream: true,
            messages: [...HELLO.messages, { role: "assistant", content: ENDLESS_BEGINNING }],
          });
          const request = journey.lastRequestId();
          let pieces = 0;
          for await (const { type } of stream) {
            if (type === "content_block_delta" && ++pieces === 5) break;
          }
          strictEqual((await journey.outcomeOf(request)).outcome, "client-left");
          await engine.whenIdle();
        });
      });
    } finally {
      await engine.close();
    }
  },
);

function textOf({ content }: Anthropic.Message): string {
  return content.map((block) => block.type === "text" ? block.text : "").join("");
}

/** @throws AssertionError unless `act` fails with the client's class for the status and with a type of the protocol */
async function rejectsWith(
  act: () => Promise<unknown>,
  errorClass: new (...parameters: never[]) => Error,
  type: string,
): Promise<void> {
  await rejects(act, (error: unknown) => {
    ok(error instanceof Anthropic.APIError && error instanceof errorClass, String(error));
    strictEqual(error.type, type);
    return true;
  });
}
