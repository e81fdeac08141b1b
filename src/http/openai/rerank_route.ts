// Rerank route: documents in the order of how well they answer a query, in the form of Jina and Cohere.
import { z } from "@hono/zod-openapi";
import type { Ranking } from "../../engines/task.ts";
import { Fault } from "../../faults/fault.ts";
import { INFERENCE_FAULTS } from "../inference_door.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { GenerationParts } from "./generation_parts.ts";
import { openaiDialect } from "./openai_error.ts";
import { fieldPlacer } from "./place_fields.ts";
import { modelField, stated, TEXT_CHARACTERS_MAX } from "./sampling_fields.ts";

const DOCUMENTS_MAX = 1000;

const text = z.string({ error: "is not a text" }).min(1, "is empty").max(
  TEXT_CHARACTERS_MAX,
  `has more than ${TEXT_CHARACTERS_MAX} characters`,
);

const rerankRequest = z.strictObject({
  model: modelField,
  query: text,
  documents: z.array(
    z.union([text, z.strictObject({ text })], { error: "is neither a text nor an object with a text" }),
  ).min(1, "has no documents").max(DOCUMENTS_MAX, `has more than ${DOCUMENTS_MAX} documents`),
  top_n: z.int().min(1).max(DOCUMENTS_MAX).nullish(),
  return_documents: z.boolean().nullish(),
});

const ranking = z.strictObject({
  id: z.string(),
  model: z.string(),
  results: z.array(z.strictObject({
    index: z.int().describe("In the request's list of documents."),
    relevance_score: z.number(),
    document: z.strictObject({ text: z.string() }).optional().describe("With return_documents."),
  })),
  usage: z.strictObject({ total_tokens: z.int() }),
});

const placeField = fieldPlacer({});

/** `POST /v1/rerank`. */
export function rerankRoute({ door, newId }: Pick<GenerationParts, "door" | "newId">): AnyRoute {
  return defineRoute({
    method: "POST",
    path: "/v1/rerank",
    summary: "Put documents in the order of how well they answer a query",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: openaiDialect,
    rated: true,
    body: rerankRequest,
    answers: { 200: { description: "The best first.", schema: ranking } },
    faults: INFERENCE_FAULTS,
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "rerank");
      const documents = body.documents.map((document) =>
        typeof document === "string" ? document : document.text
      );
      const { answer } = await door.whole<"rerank">(
        exchange,
        model.id,
        { task: "rerank", query: body.query, documents, ...stated({ topN: body.top_n }) },
        placeField,
      );
      return {
        status: 200,
        body: {
          id: newId("rerank-"),
          model: model.id,
          results: describeResults(answer, documents, body.return_documents === true),
          usage: { total_tokens: answer.usage.inputTokens + answer.usage.outputTokens },
        } satisfies z.infer<typeof ranking>,
      };
    },
  });
}

/** Documents come from the request: an engine's own words for them could be others. */
function describeResults(
  { results }: Ranking,
  documents: readonly string[],
  echoed: boolean,
): z.infer<typeof ranking>["results"] {
  return results.map(({ index, score }) => {
    const text = documents[index];
    if (text === undefined) {
      throw new Fault(
        "upstream_answer_invalid",
        "Cannot answer a ranking: it names a document that is not there",
      );
    }
    return { index, relevance_score: score, ...(echoed ? { document: { text } } : {}) };
  });
}
