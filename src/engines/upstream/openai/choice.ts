// Choice: what whole and streamed answers have in common: contents, tool calls, why an answer ended.
import type { JsonValue } from "../../../encoding/canonical_json.ts";
import type { FinishReason } from "../../chat.ts";
import {
  answerInvalid,
  type AnswerObject,
  isObject,
  listOf,
  objectOf,
  shallowJson,
  textOf,
  wholeNumberOf,
} from "../answer_json.ts";

/** OpenAI's lists of log probabilities nest six deep. */
const LOGPROBS_DEPTH_MAX = 10;
/** Arguments that an engine sends as an object instead of as text. */
const ARGUMENTS_DEPTH_MAX = 64;
/** Parts of one content, and of one thought. */
const PARTS_MAX = 1_000;

/** Words of engines for why an answer ended; others mean that the model was done. */
const FINISH_REASONS: ReadonlyMap<string, FinishReason> = new Map([
  ["length", "length"],
  ["max_tokens", "length"],
  ["model_length", "length"],
  ["tool_calls", "tool_calls"],
  ["tool_use", "tool_calls"],
  ["function_call", "tool_calls"],
  ["content_filter", "content_filter"],
]);

/** How many choices an answer may have, and must. */
export interface ChoiceCount {
  /** As many as were asked for. */
  readonly max: number;
  /** Engines that do not know `n` answer one; of several prompts none may be missing. */
  readonly min: number;
}

/**
 * The choices of a whole answer in order.
 *
 * @throws Fault `upstream_answer_invalid` where one is missing, twice there or was never asked for
 */
export function orderedChoices(body: AnswerObject, count: ChoiceCount): readonly AnswerObject[] {
  const list = listOf(body.choices, "its list of choices");
  if (list.length < count.min || list.length > count.max) {
    throw answerInvalid("it has too few or many choices");
  }
  const ordered: AnswerObject[] = [];
  list.forEach((value, position) => {
    const choice = objectOf(value, "a choice");
    const index = wholeNumberOf(choice.index ?? position, list.length, "a choice's index");
    if (ordered[index] !== undefined) throw answerInvalid("a choice is there twice");
    ordered[index] = choice;
  });
  return ordered;
}

/** Why a choice ended; undefined where it says nothing. An answer that calls tools ended for them, whatever the engine says. */
export function finishOf(value: unknown, callsTools: boolean): FinishReason | undefined {
  const word = textOf(value, "a finish reason");
  // Some engines write "" into each piece before the last.
  if (word === undefined || word === "") return undefined;
  const reason = FINISH_REASONS.get(word) ?? "stop";
  return reason === "stop" && callsTools ? "tool_calls" : reason;
}

/** The stop sequence that ended a choice: vLLM and SGLang tell, besides token ids and words of their own. */
export function stopSequenceOf(choice: AnswerObject, stop: readonly string[]): string | undefined {
  const told = choice.stop_reason ?? choice.matched_stop;
  return typeof told === "string" && stop.includes(told) ? told : undefined;
}

/** What a model wrote for others and what it thought. */
export interface Written {
  readonly text: string;
  readonly reasoning: string;
}

/** Reads `content` and the reasoning beside it, of a message or a delta. @throws Fault `upstream_answer_invalid` */
export function writtenIn(message: AnswerObject): Written {
  const { content } = message;
  const reasoning = textOf(message.reasoning_content, "its reasoning") ||
    textOf(message.reasoning, "its reasoning") || "";
  if (!Array.isArray(content)) return { text: textOf(content, "its content") ?? "", reasoning };
  if (content.length > PARTS_MAX) throw answerInvalid("its content has too many parts");
  const parts = { text: "", reasoning };
  for (const part of content) {
    if (typeof part === "string") parts.text += part;
    else {
      const { type, text, thinking } = objectOf(part, "a part of its content");
      if (type === "text") parts.text += textOf(text, "a text part") ?? "";
      else if (type === "thinking") parts.reasoning += thoughtIn(thinking);
    }
  }
  return parts;
}

/** Mistral's thinking parts hold text or text parts. */
function thoughtIn(thinking: unknown): string {
  if (!Array.isArray(thinking)) return textOf(thinking, "its reasoning") ?? "";
  if (thinking.length > PARTS_MAX) throw answerInvalid("its reasoning has too many parts");
  return thinking.map((part) => textOf(objectOf(part, "a part of its reasoning").text, "its reasoning") ?? "")
    .join("");
}

/** A call's arguments as text; undefined where there are none. @throws Fault `upstream_answer_invalid` */
export function argumentsOf(value: unknown): string | undefined {
  if (!isObject(value)) return textOf(value, "a tool call's arguments");
  return JSON.stringify(shallowJson(value, ARGUMENTS_DEPTH_MAX, "a tool call's arguments"));
}

/** For calls whose engine gave them no id: results must name what they answer. */
export function newToolCallId(): string {
  return `call_${crypto.getRandomValues(new Uint8Array(12)).toHex()}`;
}

/** Log probabilities as they came. @throws Fault `upstream_answer_invalid` */
export function logprobsOf(value: unknown): JsonValue | undefined {
  if (value === null || value === undefined) return undefined;
  return shallowJson(objectOf(value, "its log probabilities"), LOGPROBS_DEPTH_MAX, "its log probabilities");
}
