// Messages answer: a neutral answer in Anthropic's form.
import { z } from "@hono/zod-openapi";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { parseStrictJson } from "../../encoding/strict_json.ts";
import type { ChatAnswer, ChatChoice, FinishReason } from "../../engines/chat.ts";
import type { Usage } from "../../engines/usage.ts";

/** What every answer to one request says of itself. */
export interface MessageHead {
  readonly id: string;
  /** The model's id. */
  readonly model: string;
}

const usage = z.strictObject({
  input_tokens: z.int().describe("Without those that were cached."),
  output_tokens: z.int(),
  cache_read_input_tokens: z.int(),
  cache_creation_input_tokens: z.int(),
});

/** The answer's form. */
export const message = z.strictObject({
  id: z.string(),
  type: z.literal("message"),
  role: z.literal("assistant"),
  model: z.string(),
  content: z.array(z.discriminatedUnion("type", [
    z.strictObject({ type: z.literal("thinking"), thinking: z.string(), signature: z.string() }),
    z.strictObject({ type: z.literal("text"), text: z.string() }),
    z.strictObject({
      type: z.literal("tool_use"),
      id: z.string(),
      name: z.string(),
      input: z.record(z.string(), z.unknown()),
    }),
  ])),
  stop_reason: z.enum(["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]),
  stop_sequence: z.string().nullable(),
  usage,
});

/** Why a message ended, in Anthropic's words. */
export type StopReason = z.infer<typeof message>["stop_reason"];
type Block = z.infer<typeof message>["content"][number];

/** As deep as a body may be that brings the arguments back. */
const INPUT_DEPTH_MAX = 32;

/** The one answer. */
export function describeMessage(
  { id, model }: MessageHead,
  { choices, usage }: ChatAnswer,
  showThinking: boolean,
): z.infer<typeof message> {
  const choice = choices[0] ?? NOTHING;
  const content: Block[] = [];
  if (showThinking && choice.reasoning !== "") {
    content.push({ type: "thinking", thinking: choice.reasoning, signature: "" });
  }
  if (choice.text !== "") content.push({ type: "text", text: choice.text });
  const refusal = choice.refusal ?? "";
  if (refusal !== "") content.push({ type: "text", text: refusal });
  for (const call of choice.toolCalls) {
    content.push({ type: "tool_use", id: call.id, name: call.name, input: inputOf(call.arguments) });
  }
  return {
    id,
    type: "message",
    role: "assistant",
    model,
    content,
    stop_reason: stopReasonOf(choice, choice.toolCalls.length > 0, refusal !== ""),
    stop_sequence: choice.stopSequence ?? null,
    usage: describeUsage(usage),
  };
}

const NOTHING: ChatChoice = { text: "", reasoning: "", toolCalls: [], finish: "stop" };

/** Arguments as an object: models write them, so that they may be anything. */
function inputOf(text: string): Record<string, JsonValue> {
  const parsed = parseStrictJson(text, INPUT_DEPTH_MAX);
  return parsed.ok && parsed.value !== null && typeof parsed.value === "object" &&
      !Array.isArray(parsed.value)
    ? parsed.value as Record<string, JsonValue>
    : {};
}

/** Anthropic's clients run tools when the reason says so; engines that were told which tool to call say "stop". */
export function stopReasonOf(
  { finish, stopSequence }: { readonly finish: FinishReason; readonly stopSequence?: string },
  hasCalls: boolean,
  refused: boolean,
): StopReason {
  switch (finish) {
    case "length":
      return "max_tokens";
    case "content_filter":
      return "refusal";
    case "tool_calls":
      return "tool_use";
    case "stop":
      if (refused) return "refusal";
      if (hasCalls) return "tool_use";
      return stopSequence === undefined ? "end_turn" : "stop_sequence";
  }
}

/** Anthropic counts what was cached apart from the rest of the input. */
export function describeUsage(
  { inputTokens, outputTokens, cachedInputTokens = 0 }: Usage,
): z.infer<typeof usage> {
  return {
    input_tokens: Math.max(0, inputTokens - cachedInputTokens),
    output_tokens: outputTokens,
    cache_read_input_tokens: cachedInputTokens,
    cache_creation_input_tokens: 0,
  };
}
