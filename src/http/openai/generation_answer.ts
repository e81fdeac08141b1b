// Generation answer: what the answers of chat and legacy completions share, whole or as events.
import { z } from "@hono/zod-openapi";
import type { Usage } from "../../engines/usage.ts";
import type { Fault } from "../../faults/fault.ts";
import { FAULT_TABLE } from "../../faults/fault_table.ts";
import { eventText } from "../event_stream.ts";
import { openaiDialect } from "./openai_error.ts";

/** What names an answer. */
export interface AnswerHead {
  readonly id: string;
  /** Whole seconds since 1970. */
  readonly created: number;
  /** The model's id, whatever the caller called it. */
  readonly model: string;
}

/** How the events of one answer are written. */
export interface EventForm {
  readonly head: AnswerHead;
  /** Whether the caller wants the usage. */
  readonly usage: boolean;
  readonly requestId: string;
}

/** The schema of `usage`. */
export const usageSchema = z.strictObject({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.strictObject({ cached_tokens: z.int() }).optional(),
  completion_tokens_details: z.strictObject({ reasoning_tokens: z.int() }).optional(),
});

/** Usage in OpenAI's words; details where the engine told them. */
export function describeUsage(usage: Usage): z.infer<typeof usageSchema> {
  const { inputTokens, outputTokens, cachedInputTokens, reasoningTokens } = usage;
  return {
    prompt_tokens: inputTokens,
    completion_tokens: outputTokens,
    total_tokens: inputTokens + outputTokens,
    ...(cachedInputTokens === undefined
      ? {}
      : { prompt_tokens_details: { cached_tokens: cachedInputTokens } }),
    ...(reasoningTokens === undefined
      ? {}
      : { completion_tokens_details: { reasoning_tokens: reasoningTokens } }),
  };
}

/** What stands before and behind the choices of every event of one answer: as text, for it is the same each time. */
export function frameOfEvents(
  object: string,
  { head, usage }: EventForm,
): readonly [before: string, behind: string] {
  const { id, created, model } = head;
  return [
    `data: ${JSON.stringify({ id, object, created, model }).slice(0, -1)},"choices":[`,
    // Where usage is asked for, every event has the member (OpenAI's `stream_options.include_usage`).
    usage ? `],"usage":null}\n\n` : "]}\n\n",
  ];
}

/** The event that tells the usage. */
export function usageEvent(before: string, usage: Usage): string {
  return `${before}],"usage":${JSON.stringify(describeUsage(usage))}}\n\n`;
}

/** The event that ends a broken stream. No `[DONE]` follows: clients must not take what came for a whole answer. */
export function faultEvent(fault: Fault, requestId: string): string {
  return eventText(openaiDialect.errorBody(fault, FAULT_TABLE[fault.kind], requestId));
}

/** The end mark of a stream that ended well. */
export const DONE = "data: [DONE]\n\n";
