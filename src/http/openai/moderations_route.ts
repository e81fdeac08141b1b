// Moderations route: texts judged by category.
import { z } from "@hono/zod-openapi";
import type { Moderations } from "../../engines/task.ts";
import { INFERENCE_FAULTS } from "../inference_door.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { GenerationParts } from "./generation_parts.ts";
import { openaiDialect } from "./openai_error.ts";
import { fieldPlacer } from "./place_fields.ts";
import { modelField, TEXT_CHARACTERS_MAX } from "./sampling_fields.ts";

const TEXTS_MAX = 64;

const text = z.string({ error: "is not a text" }).min(1, "is empty").max(
  TEXT_CHARACTERS_MAX,
  `has more than ${TEXT_CHARACTERS_MAX} characters`,
);

const part = z.strictObject({
  type: z.literal("text", { error: "is not text, the only type of part that is judged here" }),
  text,
});

const input = z.union([
  text,
  z.array(z.union([text, part], { error: "is neither a text nor a part of type text" }))
    .min(1, "has no texts").max(TEXTS_MAX, `has more than ${TEXTS_MAX} texts`)
    .refine(
      (list) => new Set(list.map((item) => typeof item)).size <= 1,
      "has both texts, which are judged one by one, and parts, which are judged together",
    ),
], { error: "is neither a text nor a list of texts" });

const moderationsRequest = z.strictObject({ model: modelField, input });

const moderation = z.strictObject({
  id: z.string(),
  model: z.string(),
  results: z.array(z.strictObject({
    flagged: z.boolean(),
    categories: z.record(z.string(), z.boolean()),
    category_scores: z.record(z.string(), z.number()),
  })),
});

/** `POST /v1/moderations`. */
export function moderationsRoute({ door, newId }: Pick<GenerationParts, "door" | "newId">): AnyRoute {
  return defineRoute({
    method: "POST",
    path: "/v1/moderations",
    summary: "Judge one text or several",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: openaiDialect,
    rated: true,
    body: moderationsRequest,
    answers: {
      200: { description: "One judgement a text, in order; one for all parts together.", schema: moderation },
    },
    faults: INFERENCE_FAULTS,
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "moderation");
      const texts = textsOf(body.input);
      // Where texts were no list, or became one, an index of ours means nothing.
      const isListed = Array.isArray(body.input) && body.input.length === texts.length;
      const { answer } = await door.whole<"moderation">(
        exchange,
        model.id,
        { task: "moderation", texts },
        isListed ? fieldPlacer({ texts: "input" }) : fieldPlacer({}, { texts: "input" }),
      );
      return { status: 200, body: describeModerations(newId("modr-"), model.id, answer) };
    },
  });
}

/** OpenAI judges a list of parts as one input. */
function textsOf(input: z.infer<typeof moderationsRequest>["input"]): string[] {
  if (typeof input === "string") return [input];
  const texts = input.map((item) => typeof item === "string" ? item : item.text);
  return typeof input[0] === "string" ? texts : [texts.join("\n")];
}

function describeModerations(
  id: string,
  model: string,
  { results }: Moderations,
): z.infer<typeof moderation> {
  return {
    id,
    model,
    results: results.map(({ flagged, categories, scores }) => ({
      flagged,
      categories: { ...categories },
      category_scores: { ...scores },
    })),
  };
}
