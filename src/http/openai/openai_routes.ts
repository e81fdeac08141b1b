// OpenAI-compatible routes: all of them in one list.
import type { AnyRoute } from "../route.ts";
import { chatCompletionsRoute } from "./chat_completions_route.ts";
import { completionsRoute } from "./completions_route.ts";
import { embeddingsRoute } from "./embeddings_route.ts";
import type { GenerationParts } from "./generation_parts.ts";
import { imagesRoute } from "./images_route.ts";
import { type ModelsParts, modelsRoutes } from "./models_routes.ts";
import { moderationsRoute } from "./moderations_route.ts";
import { rerankRoute } from "./rerank_route.ts";
import { responsesRoute } from "./responses_route.ts";
import { speechRoute } from "./speech_route.ts";
import { type TranscriptionParts, transcriptionsRoute } from "./transcriptions_route.ts";

/** What the routes need. */
export interface OpenaiParts extends ModelsParts, GenerationParts, TranscriptionParts {}

/** The routes under `/v1` that OpenAI's clients speak to, and rerank, which has the same clients. */
export function openaiRoutes(parts: OpenaiParts): AnyRoute[] {
  return [
    ...modelsRoutes(parts), // GET /v1/models · GET /v1/models/{id}
    chatCompletionsRoute(parts),
    completionsRoute(parts),
    responsesRoute(parts),
    embeddingsRoute(parts),
    rerankRoute(parts),
    moderationsRoute(parts),
    speechRoute(parts),
    transcriptionsRoute(parts),
    imagesRoute(parts),
  ];
}
