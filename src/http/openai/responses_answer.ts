// Responses answer: the Response object of OpenAI's Responses API, and the output items in it.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { ChatChoice, FinishReason } from "../../engines/chat.ts";
import type { Usage } from "../../engines/usage.ts";
import { ID_CHARACTERS_MAX } from "./responses_input.ts";

/** `incomplete` where the engine stopped before it was done. */
export type ItemStatus = "in_progress" | "completed" | "incomplete";

/** One part of a message or of a reasoning. */
export type OutputPart =
  | { readonly type: "output_text"; readonly text: string; readonly annotations: []; readonly logprobs: [] }
  | { readonly type: "refusal"; readonly refusal: string }
  | { readonly type: "reasoning_text"; readonly text: string };

/** One item of `output`. */
export type OutputItem =
  | {
    readonly id: string;
    readonly type: "reasoning";
    readonly summary: [];
    readonly content: readonly OutputPart[];
    readonly status: ItemStatus;
  }
  | {
    readonly id: string;
    readonly type: "message";
    readonly role: "assistant";
    readonly content: readonly OutputPart[];
    readonly status: ItemStatus;
  }
  | {
    readonly id: string;
    readonly type: "function_call";
    readonly call_id: string;
    readonly name: string;
    readonly arguments: string;
    readonly status: ItemStatus;
  };

/** What of a request stands in its response, in OpenAI's words. */
export type RequestEcho = Readonly<Record<string, JsonValue>>;

/** A response that has just begun. */
export interface OpenResponse {
  readonly id: string;
  readonly created_at: number;
  readonly model: string;
  readonly echo: RequestEcho;
}

/** How a response ended. */
export interface ResponseEnd {
  readonly output: readonly OutputItem[];
  readonly finish: FinishReason;
  /** Undefined where nobody counted. */
  readonly usage: Usage | undefined;
  /** Whole seconds since 1970. */
  readonly completedAt: number;
}

/** The Response object; without an end it is still in progress. */
export function responseObject({ id, created_at, model, echo }: OpenResponse, end?: ResponseEnd) {
  const reason = end === undefined ? undefined : INCOMPLETE[end.finish];
  const status = end === undefined ? "in_progress" : reason === undefined ? "completed" : "incomplete";
  return {
    id,
    object: "response",
    created_at,
    status,
    completed_at: end !== undefined && reason === undefined ? end.completedAt : null,
    error: null,
    incomplete_details: reason === undefined ? null : { reason },
    model,
    output: end?.output ?? [],
    usage: end?.usage === undefined ? null : usageObject(end.usage),
    ...echo,
  };
}

/** Why a response is incomplete; undefined for an end in good order. */
export const INCOMPLETE: Readonly<Record<FinishReason, "max_output_tokens" | "content_filter" | undefined>> =
  {
    stop: undefined,
    tool_calls: undefined,
    length: "max_output_tokens",
    content_filter: "content_filter",
  };

function usageObject(usage: Usage) {
  return {
    input_tokens: usage.inputTokens,
    input_tokens_details: { cached_tokens: usage.cachedInputTokens ?? 0, cache_write_tokens: 0 },
    output_tokens: usage.outputTokens,
    output_tokens_details: { reasoning_tokens: usage.reasoningTokens ?? 0 },
    total_tokens: usage.inputTokens + usage.outputTokens,
  };
}

/** The items of a whole answer: what was thought, what was said, what is to be called. */
export function outputOf(choice: ChatChoice, responseId: string): OutputItem[] {
  const items: OutputItem[] = [];
  const said = [
    ...(choice.text === "" ? [] : [outputPart("output_text", choice.text)]),
    ...(choice.refusal === undefined || choice.refusal === "" ? [] : [outputPart("refusal", choice.refusal)]),
  ];
  // Where an engine stopped too early, it is in the last item that something is missing.
  const last = (choice.reasoning === "" ? 0 : 1) + (said.length === 0 ? 0 : 1) + choice.toolCalls.length - 1;
  const statusOf = (index: number): ItemStatus => endStatus(choice.finish, index === last);
  if (choice.reasoning !== "") {
    const thought = [outputPart("reasoning_text", choice.reasoning)];
    items.push(spokenItem("reasoning", itemId("reasoning", responseId, 0), thought, statusOf(0)));
  }
  if (said.length > 0) {
    const index = items.length;
    items.push(spokenItem("message", itemId("message", responseId, index), said, statusOf(index)));
  }
  const taken = new Set<string>();
  for (const call of choice.toolCalls) {
    const index = items.length;
    const id = itemId("function_call", responseId, index);
    items.push(callItem(id, callId(call.id, id, taken), call.name, call.arguments, statusOf(index)));
  }
  return items;
}

/** The status of an item that is over. */
export function endStatus(finish: FinishReason, isLast: boolean): ItemStatus {
  return isLast && INCOMPLETE[finish] !== undefined ? "incomplete" : "completed";
}

const ID_PREFIXES = { reasoning: "rs", message: "msg", function_call: "fc" } as const;

/** The id of the item at an index of `output`; as hard to guess as the response's. */
export function itemId(type: OutputItem["type"], responseId: string, index: number): string {
  return `${ID_PREFIXES[type]}_${responseId.slice(RESPONSE_PREFIX.length)}_${index}`;
}

/** What ids of responses begin with. */
export const RESPONSE_PREFIX = "resp_";

/**
 * The engine's id of a call where it is one to tell calls apart by and can be sent back, else one of ours.
 *
 * @param taken ids of earlier calls of the response; gains this one
 */
export function callId(given: string | undefined, ownItemId: string, taken: Set<string>): string {
  const usable = given !== undefined && given !== "" && given.length <= ID_CHARACTERS_MAX &&
    !taken.has(given);
  const id = usable ? given : `call_${ownItemId}`;
  taken.add(id);
  return id;
}

/** A part with its text. */
export function outputPart(type: OutputPart["type"], text: string): OutputPart {
  if (type === "refusal") return { type, refusal: text };
  if (type === "reasoning_text") return { type, text };
  return { type, text, annotations: [], logprobs: [] };
}

/** A message, or what was thought before it. */
export function spokenItem(
  type: "message" | "reasoning",
  id: string,
  content: readonly OutputPart[],
  status: ItemStatus,
): OutputItem {
  return type === "message"
    ? { id, type, role: "assistant", content, status }
    : { id, type, summary: [], content, status };
}

/** A call of a function. */
export function callItem(
  id: string,
  call_id: string,
  name: string,
  args: string,
  status: ItemStatus,
): OutputItem {
  return { id, type: "function_call", call_id, name, arguments: args, status };
}
