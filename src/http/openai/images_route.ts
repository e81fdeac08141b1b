// Images route: a picture from a description.
import { z } from "@hono/zod-openapi";
import type { Images } from "../../engines/task.ts";
import type { Usage } from "../../engines/usage.ts";
import { extraFields, INFERENCE_FAULTS } from "../inference_door.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { GenerationParts } from "./generation_parts.ts";
import { openaiDialect } from "./openai_error.ts";
import { fieldPlacer } from "./place_fields.ts";
import { labelField, modelField, stated } from "./sampling_fields.ts";

/** What engines call their qualities and styles is their own. */
const word = z.string().regex(/^[a-z0-9_-]{1,32}$/, "is no word of 1 to 32 small letters, digits, _ and -")
  .nullish();

/** Loose at its top only: of the fields that nobody here knows, the model's settings say which may pass. */
const imagesRequest = z.looseObject({
  model: modelField,
  prompt: z.string().min(1, "is empty").max(32_000),
  n: z.int().min(1).max(10).nullish(),
  size: z.string().regex(/^(?:\d{2,4}x\d{2,4}|auto)$/, "is neither WIDTHxHEIGHT nor auto").nullish(),
  quality: word,
  style: word,
  background: word,
  output_format: z.enum(["png", "jpeg", "webp"]).nullish(),
  response_format: z.literal("b64_json", {
    error: "is not b64_json: images are answered as they are, not as addresses",
  }).nullish(),
  stream: z.literal(false, { error: "is not false: images come whole here" }).nullish(),
  moderation: z.enum(["auto", "low"]).nullish().describe("Accepted for compatibility and not used."),
  user: labelField,
});

const KNOWN: ReadonlySet<string> = new Set(Object.keys(imagesRequest.shape));

const imageList = z.strictObject({
  created: z.int().describe("Seconds since 1970."),
  data: z.array(z.strictObject({ b64_json: z.string(), revised_prompt: z.string().optional() })),
  usage: z.strictObject({ input_tokens: z.int(), output_tokens: z.int(), total_tokens: z.int() }).optional()
    .describe("Where the engine counts tokens."),
});

const placeField = fieldPlacer({ images: "n" });

/** `POST /v1/images/generations`. */
export function imagesRoute({ door }: Pick<GenerationParts, "door">): AnyRoute {
  return defineRoute({
    method: "POST",
    path: "/v1/images/generations",
    summary: "Make one picture or several from a description",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: openaiDialect,
    rated: true,
    body: imagesRequest,
    answers: { 200: { description: "The pictures, in base64.", schema: imageList } },
    faults: INFERENCE_FAULTS,
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "image");
      const extra = extraFields(body, KNOWN, model);
      const { prompt, size, quality, style, background, output_format: outputFormat } = body;
      const { answer } = await door.whole<"image">(exchange, model.id, {
        task: "image",
        prompt,
        images: body.n ?? 1,
        ...stated({ size, quality, style, background, outputFormat }),
        extra,
      }, placeField);
      return { status: 200, body: describeImages(answer) };
    },
  });
}

function describeImages({ createdSeconds, images, usage }: Images): z.infer<typeof imageList> {
  return {
    created: createdSeconds,
    data: images.map(({ base64, revisedPrompt }) => ({
      b64_json: base64,
      ...(revisedPrompt === undefined ? {} : { revised_prompt: revisedPrompt }),
    })),
    ...describeUsage(usage),
  };
}

/** Our own count says nothing of what a picture costs. */
function describeUsage(
  { inputTokens, outputTokens, countedBy }: Usage,
): Pick<z.infer<typeof imageList>, "usage"> {
  if (countedBy !== "engine") return {};
  return {
    usage: {
      input_tokens: inputTokens,
      output_tokens: outputTokens,
      total_tokens: inputTokens + outputTokens,
    },
  };
}
