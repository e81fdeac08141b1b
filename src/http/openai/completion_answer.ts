// Completion answer: a whole answer from the neutral form to OpenAI's legacy `text_completion`.
import { z } from "@hono/zod-openapi";
import type { ChatAnswer, FinishReason } from "../../engines/chat.ts";
import { type AnswerHead, describeUsage, usageSchema } from "./generation_answer.ts";

const finishReason = z.enum(["stop", "length", "content_filter"]);

/** The schema of the answer. */
export const textCompletion = z.strictObject({
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.int().describe("Seconds since 1970."),
  model: z.string(),
  choices: z.array(z.strictObject({
    index: z.int().describe("Answers stand prompt by prompt, `n` for each."),
    text: z.string(),
    logprobs: z.unknown().describe("null where none were asked for."),
    finish_reason: finishReason,
  })),
  usage: usageSchema,
});

/** The answer's body. */
export function describeCompletion(
  head: AnswerHead,
  { choices, usage }: ChatAnswer,
): z.infer<typeof textCompletion> {
  return {
    id: head.id,
    object: "text_completion",
    created: head.created,
    model: head.model,
    choices: choices.map(({ text, logprobs, finish }, index) => ({
      index,
      text,
      logprobs: logprobs ?? null,
      finish_reason: finishOf(finish),
    })),
    usage: describeUsage(usage),
  };
}

/** The legacy form knows no tools: what ended for one has come to its end. */
export function finishOf(finish: FinishReason): z.infer<typeof finishReason> {
  return finish === "tool_calls" ? "stop" : finish;
}
