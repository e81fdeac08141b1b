// `POST /v1/completions`: OpenAI's legacy form, which continues prompts as they stand.
import { z } from "@hono/zod-openapi";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { CompletionRequest } from "../../engines/chat.ts";
import { eventStreamAnswer } from "../event_stream.ts";
import { extraFields, INFERENCE_FAULTS, type PlaceField } from "../inference_door.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { describeCompletion, textCompletion } from "./completion_answer.ts";
import { completionEventWriter } from "./completion_event_writer.ts";
import type { GenerationParts } from "./generation_parts.ts";
import { openaiDialect } from "./openai_error.ts";
import { fieldPlacer } from "./place_fields.ts";
import {
  checkStreamOptions,
  modelField,
  samplingFields,
  samplingOf,
  stated,
  TEXT_CHARACTERS_MAX,
} from "./sampling_fields.ts";

const PROMPTS_MAX = 64;

const text = z.string({
  error: ({ input }) =>
    typeof input === "number" || Array.isArray(input)
      ? "is a token or a list of tokens; send text, for another model's tokens mean nothing to this one"
      : "is not a text",
}).min(1, "is empty").max(TEXT_CHARACTERS_MAX, `has more than ${TEXT_CHARACTERS_MAX} characters`);

const prompts = z.array(text).min(1, "has no prompts").max(
  PROMPTS_MAX,
  `has more than ${PROMPTS_MAX} prompts`,
);

const completionBody = z.looseObject({
  model: modelField,
  prompt: z.union([text, prompts], {
    error: ({ input }) =>
      typeof input === "string"
        ? `is empty or has more than ${TEXT_CHARACTERS_MAX} characters`
        : Array.isArray(input)
        ? `has no prompts or more than ${PROMPTS_MAX}`
        : "is neither a text nor a list of texts",
  }),
  ...samplingFields,
  suffix: z.string().max(TEXT_CHARACTERS_MAX).nullish(),
  echo: z.boolean().nullish(),
  best_of: z.literal(1, { error: "is not 1: every answer that is drawn is sent" }).nullish(),
  logprobs: z.int().min(0).max(5).nullish(),
}).superRefine(checkStreamOptions);

const KNOWN: ReadonlySet<string> = new Set(Object.keys(completionBody.shape));

type CompletionBody = z.infer<typeof completionBody>;

/** The route. */
export function completionsRoute(parts: GenerationParts): AnyRoute {
  const { door, newId, nowSeconds } = parts;
  return defineRoute({
    method: "POST",
    path: "/v1/completions",
    summary: "Continue one prompt or several, whole or as events",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: openaiDialect,
    rated: true,
    body: completionBody,
    answers: {
      200: {
        description: "The answer; with `stream`, its pieces as server-sent events.",
        schema: textCompletion,
      },
    },
    faults: INFERENCE_FAULTS,
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "completion");
      const request = completionRequest(body, extraFields(body, KNOWN, model));
      const head = { id: newId("cmpl-"), created: nowSeconds(), model: model.id };
      if (body.stream === true) {
        const stream = await door.stream<"completion">(exchange, model.id, request, placeFieldIn(body));
        const usage = body.stream_options?.include_usage === true;
        return eventStreamAnswer(stream, completionEventWriter({ head, usage, requestId: exchange.id }));
      }
      const { answer } = await door.whole<"completion">(exchange, model.id, request, placeFieldIn(body));
      return { status: 200, body: describeCompletion(head, answer) };
    },
  });
}

function completionRequest(
  body: CompletionBody,
  extra: Readonly<Record<string, JsonValue>>,
): CompletionRequest {
  return {
    task: "completion",
    prompts: typeof body.prompt === "string" ? [body.prompt] : body.prompt,
    ...samplingOf(body, { outputTokensMax: body.max_tokens, logprobs: body.logprobs, extra }),
    ...stated({ suffix: body.suffix, echo: body.echo }),
  };
}

function placeFieldIn({ prompt }: CompletionBody): PlaceField {
  const renamed = { outputTokensMax: "max_tokens", choices: "n" };
  return Array.isArray(prompt)
    ? fieldPlacer({ ...renamed, prompts: "prompt" })
    : fieldPlacer(renamed, { prompts: "prompt" });
}
