// LangChain's OpenAI classes against the gate, with a real engine behind it.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { throughTheGate } from "../support/gate_journey.ts";
import { openLlamaServer, testWithEngine } from "../support/llama_server.ts";
import { GREETING, TINY_MODEL_DIMENSIONS, TOOL_CALL } from "../support/tiny_language_model.ts";

const GREETING_TOKENS = GREETING.split(" ").length + 1;

/** The class's own type of it is lost where its messages are made generic. */
interface UsageFigures {
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly total_tokens: number;
}

testWithEngine("LangChain invokes, streams, calls tools and embeds through the gate", async (test) => {
  const engine = await openLlamaServer({ key: `canary-${crypto.randomUUID()}` });
  try {
    await throughTheGate({
      upstreams: [{ name: "llama", kind: "openai", url: `${engine.origin}/v1`, key: engine.key }],
      models: [{ id: "tiny", capabilities: ["chat", "embedding"], servedBy: [{ upstream: "llama" }] }],
    }, async (journey) => {
      const settings = {
        apiKey: journey.token,
        maxRetries: 0,
        configuration: { baseURL: `${journey.origin}/v1`, fetch: journey.fetch },
      };
      const chat = new ChatOpenAI({ ...settings, model: "tiny", temperature: 0 });

      await test.step("invoke: the text and the engine's usage", async () => {
        const answer = await chat.invoke([["system", "Be nice."], ["human", "hi"]]);
        strictEqual(answer.content, GREETING);
        const usage = answer.usage_metadata as UsageFigures | undefined;
        ok(usage && usage.input_tokens > 0);
        strictEqual(usage.output_tokens, GREETING_TOKENS);
        strictEqual(usage.total_tokens, usage.input_tokens + usage.output_tokens);
      });

      await test.step("stream: pieces that make up the same, with usage at the end", async () => {
        const chunks = await Array.fromAsync(await chat.stream("hi"));
        strictEqual(chunks.map(({ content }) => content).join(""), GREETING);
        const usages = chunks.flatMap(({ usage_metadata }) => usage_metadata ?? []);
        deepStrictEqual(usages.map(({ output_tokens }) => output_tokens), [GREETING_TOKENS]);
      });

      await test.step("bindTools: a call, and an answer to its result", async () => {
        const withTools = chat.bindTools([{
          type: "function",
          function: {
            name: TOOL_CALL.name,
            description: "The weather in a city",
            parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
          },
        }]);
        const question = { role: "user", content: "How is the weather?" };
        const asking = await withTools.invoke([question]);
        const [call] = asking.tool_calls ?? [];
        deepStrictEqual([call?.name, call?.args], [TOOL_CALL.name, TOOL_CALL.arguments]);
        const answer = await withTools.invoke([question, asking, {
          role: "tool",
          content: "sunny",
          tool_call_id: call?.id ?? "",
        }]);
        strictEqual(answer.content, GREETING);
      });

      await test.step("withStructuredOutput: an object that the engine had to write so", async () => {
        const structured = chat.withStructuredOutput({
          title: "verdict",
          type: "object",
          properties: { answer: { enum: ["yes", "no"] }, sure: { type: "boolean" } },
          required: ["answer", "sure"],
          additionalProperties: false,
        }, { name: "verdict", method: "jsonSchema" });
        const verdict = await structured.invoke("hi");
        deepStrictEqual(Object.keys(verdict).sort(), ["answer", "sure"]);
        ok(["yes", "no"].includes(verdict.answer));
      });

      await test.step("OpenAIEmbeddings: a vector for each text, over several requests", async () => {
        const embeddings = new OpenAIEmbeddings({ ...settings, model: "tiny", batchSize: 2 });
        const vectors = await embeddings.embedDocuments(["One", "two", "three"]);
        deepStrictEqual(vectors.map(({ length }) => length), [1, 2, 3].map(() => TINY_MODEL_DIMENSIONS));
      });

      await test.step("a refusal carries our status and code", async () => {
        await rejects(
          new ChatOpenAI({ ...settings, model: "none" }).invoke("hi"),
          (error: { status?: number; code?: string }) => {
            deepStrictEqual([error.status, error.code], [404, "model_not_found"]);
            return true;
          },
        );
      });
    });
  } finally {
    await engine.close();
  }
});
