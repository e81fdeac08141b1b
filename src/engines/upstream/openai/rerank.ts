// Rerank: documents as POST /rerank in the form of Jina and Cohere, and their ranking.
import type { Ranking, RerankRequest } from "../../task.ts";
import {
  answerInvalid,
  goodObjectOf,
  listOf,
  objectOf,
  readAnswerJson,
  wholeNumberOf,
} from "../answer_json.ts";
import type { WholeCall, WireOptions } from "../wire.ts";
import { JSON_ONLY, jsonRequest } from "./json_request.ts";
import { readUsage } from "./usage.ts";

/** Documents to their order. */
export function rerankCall(request: RerankRequest, { model }: WireOptions): WholeCall<"rerank"> {
  const { query, documents, topN } = request;
  return {
    request: jsonRequest("/rerank", JSON_ONLY, {
      model,
      query,
      documents,
      top_n: topN,
      return_documents: false,
    }),
    read({ bytes }) {
      const answer = readAnswerJson(bytes);
      // SGLang and TEI answer the list alone.
      if (Array.isArray(answer)) return readRanking(answer, undefined, request);
      const { results, usage } = goodObjectOf(answer);
      return readRanking(results, usage, request);
    },
  };
}

function readRanking(value: unknown, usage: unknown, { documents, topN }: RerankRequest): Ranking {
  const list = listOf(value, "its list of results");
  const wanted = Math.min(topN ?? documents.length, documents.length);
  if (list.length < wanted || list.length > documents.length) {
    throw answerInvalid("it has too few or many results");
  }
  const seen = new Set<number>();
  const results = list.map((each) => {
    const result = objectOf(each, "a result");
    const index = wholeNumberOf(result.index, documents.length, "a result's index");
    if (seen.has(index)) throw answerInvalid("a document is there twice");
    seen.add(index);
    const score = result.relevance_score ?? result.score;
    if (typeof score !== "number" || !Number.isFinite(score)) {
      throw answerInvalid("a score is no finite number");
    }
    return { index, score };
  });
  results.sort((one, other) => other.score - one.score);
  return { results: results.slice(0, wanted), usage: readUsage(usage) };
}
