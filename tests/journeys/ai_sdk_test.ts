// The AI SDK (npm:ai) with its provider for compatible servers, against the gate with a real engine behind it.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  cosineSimilarity,
  embed,
  embedMany,
  generateText,
  isStepCount,
  jsonSchema,
  Output,
  streamText,
  tool,
} from "ai";
import { throughTheGate } from "../support/gate_journey.ts";
import { openLlamaServer, testWithEngine } from "../support/llama_server.ts";
import {
  ENDLESS_BEGINNING,
  GREETING,
  TINY_MODEL_DIMENSIONS,
  TOOL_CALL,
} from "../support/tiny_language_model.ts";

const GREETING_TOKENS = GREETING.split(" ").length + 1;
const ONCE = { temperature: 0, maxRetries: 0 };

testWithEngine("the AI SDK generates, streams, calls tools and embeds through the gate", async (test) => {
  const engine = await openLlamaServer({ key: `canary-${crypto.randomUUID()}` });
  try {
    await throughTheGate({
      upstreams: [{ name: "llama", kind: "openai", url: `${engine.origin}/v1`, key: engine.key }],
      models: [{
        id: "tiny",
        capabilities: ["chat", "embedding"],
        servedBy: [{ upstream: "llama" }],
      }],
    }, async (journey) => {
      const provider = createOpenAICompatible({
        name: "portcullis",
        baseURL: `${journey.origin}/v1`,
        apiKey: journey.token,
        fetch: journey.fetch,
        includeUsage: true,
        supportsStructuredOutputs: true,
      });
      const model = provider("tiny");
      const asked: unknown[] = [];
      const tools = {
        [TOOL_CALL.name]: tool({
          description: "The weather in a city",
          inputSchema: jsonSchema<{ city: string }>({
            type: "object",
            properties: { city: { type: "string" } },
            required: ["city"],
            additionalProperties: false,
          }),
          execute: (input) => {
            asked.push(input);
            return "sunny";
          },
        }),
      };

      await test.step("generateText: the text and the engine's usage", async () => {
        const { text, finishReason, usage } = await generateText({ ...ONCE, model, prompt: "hi" });
        deepStrictEqual([text, finishReason], [GREETING, "stop"]);
        ok(usage.inputTokens);
        strictEqual(usage.outputTokens, GREETING_TOKENS);
        strictEqual(usage.totalTokens, usage.inputTokens + GREETING_TOKENS);
        const outcome = await journey.outcomeOf(journey.lastRequestId());
        deepStrictEqual([outcome.inputTokens, outcome.outputTokens], [usage.inputTokens, GREETING_TOKENS]);
      });

      await test.step("generateText with tools: its own loop of call, result and answer", async () => {
        const { text, steps } = await generateText({
          ...ONCE,
          model,
          tools,
          stopWhen: isStepCount(3),
          prompt: "How is the weather?",
        });
        strictEqual(text, GREETING);
        deepStrictEqual(steps.map(({ finishReason }) => finishReason), ["tool-calls", "stop"]);
        deepStrictEqual(asked.splice(0), [TOOL_CALL.arguments]);
      });

      await test.step("generateText with a schema: an object that the engine had to write so", async () => {
        const { output } = await generateText({
          ...ONCE,
          model,
          maxOutputTokens: 200,
          prompt: "hi",
          output: Output.object({
            schema: jsonSchema<{ answer: string; sure: boolean }>({
              type: "object",
              properties: { answer: { enum: ["yes", "no"] }, sure: { type: "boolean" } },
              required: ["answer", "sure"],
              additionalProperties: false,
            }),
          }),
        });
        deepStrictEqual(Object.keys(output).sort(), ["answer", "sure"]);
        ok(["yes", "no"].includes(output.answer));
      });

      await test.step("streamText: pieces, usage and one end", async () => {
        const result = streamText({ ...ONCE, model, prompt: "hi" });
        const pieces = await Array.fromAsync(result.textStream);
        strictEqual(pieces.join(""), GREETING);
        ok(pieces.length > 1, "it came in one piece");
        strictEqual(await result.finishReason, "stop");
        strictEqual((await result.usage).outputTokens, GREETING_TOKENS);
      });

      await test.step("streamText with tools: the call, its result and the answer, in one stream", async () => {
        const result = streamText({
          ...ONCE,
          model,
          tools,
          stopWhen: isStepCount(3),
          prompt: "How is the weather?",
        });
        const parts = (await Array.fromAsync(result.fullStream)).map(({ type }) => type);
        const order = [
          "tool-input-start",
          "tool-input-delta",
          "tool-call",
          "tool-result",
          "text-delta",
          "finish",
        ];
        deepStrictEqual(
          parts.filter((type, index) => order.includes(type) && parts.indexOf(type) === index),
          order,
        );
        strictEqual(await result.text, GREETING);
        deepStrictEqual(asked.splice(0), [TOOL_CALL.arguments]);
      });

      await test.step("streamText that is aborted frees the engine", async () => {
        const leaving = new AbortController();
        const { textStream } = streamText({
          ...ONCE,
          model,
          messages: [{ role: "user", content: "hi" }, { role: "assistant", content: ENDLESS_BEGINNING }],
          maxOutputTokens: 8000,
          abortSignal: leaving.signal,
        });
        let pieces = 0;
        for await (const _ of textStream) if (++pieces === 5) leaving.abort();
        strictEqual((await journey.outcomeOf(journey.lastRequestId())).outcome, "client-left");
        await engine.whenIdle();
      });

      await test.step("embed and embedMany: vectors that tell which texts share words", async () => {
        const { embedding, usage } = await embed({
          maxRetries: 0,
          model: provider.embeddingModel("tiny"),
          value: "hi",
        });
        strictEqual(embedding.length, TINY_MODEL_DIMENSIONS);
        ok(usage.tokens > 0);
        const values = ["The gate sends", "The gate brings", "One two three"];
        const { embeddings: [a = [], b = [], c = []] } = await embedMany({
          maxRetries: 0,
          model: provider.embeddingModel("tiny"),
          values,
        });
        ok(cosineSimilarity(a, b) > cosineSimilarity(a, c), "texts that share words are not closer");
      });

      await test.step("a refusal is its error class, with status and our words", async () => {
        await rejects(
          generateText({ ...ONCE, model: provider("none"), prompt: "hi" }),
          (error: unknown) => {
            ok(APICallError.isInstance(error), String(error));
            strictEqual(error.statusCode, 404);
            strictEqual(error.isRetryable, false);
            strictEqual(JSON.parse(error.responseBody ?? "").error.code, "model_not_found");
            return true;
          },
        );
      });
    });
  } finally {
    await engine.close();
  }
});
