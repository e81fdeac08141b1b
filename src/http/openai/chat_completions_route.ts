// `POST /v1/chat/completions`, as OpenAI's reference has it.
import { z } from "@hono/zod-openapi";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { ChatRequest } from "../../engines/chat.ts";
import { eventStreamAnswer } from "../event_stream.ts";
import { extraFields, INFERENCE_FAULTS, type PlaceField } from "../inference_door.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { chatCompletion, describeChatAnswer } from "./chat_answer.ts";
import { chatEventWriter } from "./chat_event_writer.ts";
import { chatMessagesSchema, neutralMessages } from "./chat_messages.ts";
import { checkTools, neutralTools, toolFields } from "./chat_tools.ts";
import type { GenerationParts } from "./generation_parts.ts";
import { openaiDialect } from "./openai_error.ts";
import { fieldPlacer } from "./place_fields.ts";
import {
  checkStreamOptions,
  isStated,
  labelField,
  modelField,
  samplingFields,
  samplingOf,
  stated,
  tokensMaxField,
} from "./sampling_fields.ts";

const METADATA_MAX = 16;

/** Loose at its top only: of the fields that nobody here knows, the model's settings say which may pass. */
function chatBody(imageHosts: ReadonlySet<string>) {
  return z.looseObject({
    model: modelField,
    messages: chatMessagesSchema(imageHosts),
    ...samplingFields,
    ...toolFields,
    max_completion_tokens: tokensMaxField,
    logprobs: z.boolean().nullish(),
    top_logprobs: z.int().min(0).max(20).nullish(),
    reasoning_effort: z.enum(["none", "minimal", "low", "medium", "high"]).nullish(),
    modalities: z.array(z.literal("text", { error: "is not text" })).min(1).max(1).nullish(),
    store: z.literal(false, { error: "is not false: nothing is stored here" }).nullish(),
    service_tier: z.enum(["auto", "default"]).nullish(),
    safety_identifier: labelField,
    metadata: z.record(z.string().max(64), z.string().max(512))
      .refine(
        (entries) => Object.keys(entries).length <= METADATA_MAX,
        `has more than ${METADATA_MAX} entries`,
      )
      .nullish().describe("Accepted for compatibility and not used."),
  }).superRefine((body, context) => {
    checkStreamOptions(body, context);
    checkTools(body, context);
    if (isStated(body.max_tokens) && isStated(body.max_completion_tokens)) {
      context.addIssue({
        code: "custom",
        path: ["max_tokens"],
        message: "says the same as max_completion_tokens; send one of them",
      });
    }
    if (isStated(body.top_logprobs) && body.logprobs !== true) {
      context.addIssue({
        code: "custom",
        path: ["top_logprobs"],
        message: "is only allowed with logprobs: true",
      });
    }
  });
}

type ChatBody = z.infer<ReturnType<typeof chatBody>>;

/** The route. */
export function chatCompletionsRoute(parts: GenerationParts): AnyRoute {
  const { door, newId, nowSeconds } = parts;
  const body = chatBody(parts.imageHosts);
  const known: ReadonlySet<string> = new Set(Object.keys(body.shape));
  return defineRoute({
    method: "POST",
    path: "/v1/chat/completions",
    summary: "Continue a conversation, whole or as events",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: openaiDialect,
    rated: true,
    body,
    bodyBytesMax: parts.mediaBodyBytesMax,
    answers: {
      200: {
        description: "The answer; with `stream`, its pieces as server-sent events.",
        schema: chatCompletion,
      },
    },
    faults: INFERENCE_FAULTS,
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "chat");
      const request = chatRequest(body, extraFields(body, known, model));
      const head = { id: newId("chatcmpl-"), created: nowSeconds(), model: model.id };
      if (body.stream === true) {
        const stream = await door.stream<"chat">(exchange, model.id, request, placeFieldIn(body));
        const usage = body.stream_options?.include_usage === true;
        const form = { head, usage, requestId: exchange.id };
        return eventStreamAnswer(stream, chatEventWriter(form, request.choices));
      }
      const { answer } = await door.whole<"chat">(exchange, model.id, request, placeFieldIn(body));
      return { status: 200, body: describeChatAnswer(head, answer) };
    },
  });
}

function chatRequest(body: ChatBody, extra: Readonly<Record<string, JsonValue>>): ChatRequest {
  return {
    task: "chat",
    messages: neutralMessages(body.messages),
    ...neutralTools(body),
    ...samplingOf(body, {
      outputTokensMax: body.max_completion_tokens ?? body.max_tokens,
      logprobs: body.logprobs === true ? body.top_logprobs ?? 0 : undefined,
      extra,
    }),
    ...stated({ reasoningEffort: body.reasoning_effort }),
  };
}

function placeFieldIn(body: ChatBody): PlaceField {
  const outputTokensMax = isStated(body.max_tokens) ? "max_tokens" : "max_completion_tokens";
  return fieldPlacer({ outputTokensMax, choices: "n" }, { images: "messages" });
}
