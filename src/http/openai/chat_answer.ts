// Chat answer: a whole answer from the neutral form to OpenAI's `chat.completion`.
import { z } from "@hono/zod-openapi";
import type { ChatAnswer, ChatChoice } from "../../engines/chat.ts";
import { type AnswerHead, describeUsage, usageSchema } from "./generation_answer.ts";

/** The schema of the answer. */
export const chatCompletion = z.strictObject({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.int().describe("Seconds since 1970."),
  model: z.string(),
  choices: z.array(z.strictObject({
    index: z.int(),
    message: z.strictObject({
      role: z.literal("assistant"),
      content: z.string().nullable(),
      refusal: z.string().nullable(),
      reasoning_content: z.string().optional(),
      tool_calls: z.array(z.strictObject({
        id: z.string(),
        type: z.literal("function"),
        function: z.strictObject({ name: z.string(), arguments: z.string() }),
      })).optional(),
    }),
    logprobs: z.unknown().describe("null where none were asked for."),
    finish_reason: z.enum(["stop", "length", "tool_calls", "content_filter"]),
  })),
  usage: usageSchema,
});

type ChatCompletion = z.infer<typeof chatCompletion>;

/** The answer's body. */
export function describeChatAnswer(head: AnswerHead, { choices, usage }: ChatAnswer): ChatCompletion {
  return {
    id: head.id,
    object: "chat.completion",
    created: head.created,
    model: head.model,
    choices: choices.map(describeChoice),
    usage: describeUsage(usage),
  };
}

function describeChoice(choice: ChatChoice, index: number): ChatCompletion["choices"][number] {
  const { text, reasoning, refusal, toolCalls, logprobs, finish } = choice;
  const saysNothing = text === "" && (toolCalls.length > 0 || refusal !== undefined);
  return {
    index,
    message: {
      role: "assistant",
      content: saysNothing ? null : text,
      refusal: refusal ?? null,
      ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
      ...(toolCalls.length === 0 ? {} : {
        tool_calls: toolCalls.map(({ id, name, arguments: written }) => ({
          id,
          type: "function" as const,
          function: { name, arguments: written },
        })),
      }),
    },
    logprobs: logprobs ?? null,
    finish_reason: finish,
  };
}
