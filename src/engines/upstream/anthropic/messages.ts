// Messages: a chat as the body of Anthropic's `POST /v1/messages`, and the message that answers it whole.
import type { JsonValue } from "../../../encoding/canonical_json.ts";
import { parseStrictJson } from "../../../encoding/strict_json.ts";
import { Fault, type FieldMistake } from "../../../faults/fault.ts";
import type {
  ChatAnswer,
  ChatMessage,
  ChatPart,
  ChatRequest,
  FinishReason,
  Tool,
  ToolCall,
} from "../../chat.ts";
import type { Usage } from "../../usage.ts";
import {
  answerInvalid,
  type AnswerObject,
  isObject,
  listOf,
  objectOf,
  readAnswerObject,
  shallowJson,
  textOf,
  tokensOf,
  TOOL_CALLS_MAX,
} from "../answer_json.ts";

/** The API demands a number; this one holds where nobody named one. */
const OUTPUT_TOKENS_DEFAULT = 4096;
/** Of tool calls, both ways: deeper ones would exhaust the stack when they are written. */
const INPUT_DEPTH_MAX = 64;
const WORD_CHARACTERS_MAX = 512;
const IMAGE_TYPES: readonly string[] = ["image/jpeg", "image/png", "image/gif", "image/webp"];
const INEXPRESSIBLE = "is nothing that the engine behind this model can be told";

type JsonObject = Record<string, JsonValue>;

/**
 * The body for a chat. Names of participants and the detail of images have no place there and are left out.
 *
 * @throws Fault `fields_invalid` with paths of the neutral request · `input_refused` for parts of messages
 */
export function writeMessages(request: ChatRequest, model: string, stream: boolean): JsonObject {
  requireExpressible(request);
  const { stop, temperature, topP, topK, tools } = request;
  const system = request.messages.filter((message) => message.role === "system")
    .flatMap((message) => message.parts.map((part) => part.text)).filter((text) => text !== "").join("\n\n");
  const toolChoice = writeToolChoice(request);
  const outputConfig = writeOutputConfig(request);
  return {
    // First, so that they override nothing.
    ...request.extra,
    model,
    max_tokens: request.outputTokensMax ?? OUTPUT_TOKENS_DEFAULT,
    stream,
    ...(system === "" ? {} : { system }),
    messages: writeTurns(request.messages),
    ...(tools.length === 0 ? {} : { tools: tools.map(writeTool) }),
    ...(toolChoice === undefined ? {} : { tool_choice: toolChoice }),
    ...(stop.length === 0 ? {} : { stop_sequences: stop }),
    ...(temperature === undefined ? {} : { temperature }),
    ...(topP === undefined ? {} : { top_p: topP }),
    ...(topK === undefined ? {} : { top_k: topK }),
    ...(outputConfig === undefined ? {} : { output_config: outputConfig }),
  };
}

/** What changes answers and has no word there is refused, never dropped. */
function requireExpressible(request: ChatRequest): void {
  const { tools, logitBias = {}, presencePenalty = 0, frequencyPenalty = 0, temperature = 0 } = request;
  const rules: readonly (readonly [boolean, string, string])[] = [
    [request.choices > 1, "/choices", "is above 1, the most that the engine behind this model draws"],
    [request.logprobs !== undefined, "/logprobs", INEXPRESSIBLE],
    [Object.keys(logitBias).length > 0, "/logitBias", INEXPRESSIBLE],
    [request.seed !== undefined, "/seed", INEXPRESSIBLE],
    [presencePenalty !== 0, "/presencePenalty", INEXPRESSIBLE],
    [frequencyPenalty !== 0, "/frequencyPenalty", INEXPRESSIBLE],
    [temperature > 1, "/temperature", "is above 1, the most that the engine behind this model takes"],
    [request.responseFormat?.type === "json_object", "/responseFormat", "needs a JSON Schema for this model"],
    [request.reasoningEffort === "minimal", "/reasoningEffort", INEXPRESSIBLE],
    ...tools.map(({ parameters = {} }, index) =>
      [!isObject(parameters), `/tools/${index}/parameters`, "is no object"] as const
    ),
  ];
  const fields = rules.flatMap(([broken, path, message]): FieldMistake[] =>
    broken ? [{ path, message }] : []
  );
  if (fields.length > 0) {
    throw new Fault("fields_invalid", "Cannot express a chat for an Anthropic server", { fields });
  }
}

/** User and assistant by turns: what follows in the same role goes into the same message. */
function writeTurns(messages: readonly ChatMessage[]): JsonObject[] {
  const turns: { readonly role: string; readonly content: JsonObject[] }[] = [];
  for (const message of messages) {
    if (message.role === "system") continue;
    const role = message.role === "assistant" ? "assistant" : "user";
    const blocks = writeBlocks(message);
    // A message without content is refused there.
    if (blocks.length === 0) continue;
    const last = turns.at(-1);
    if (last?.role === role) last.content.push(...blocks);
    else turns.push({ role, content: blocks });
  }
  if (turns.length === 0) {
    throw new Fault("fields_invalid", "Cannot express a chat for an Anthropic server: nobody says anything", {
      fields: [{ path: "/messages", message: "has no message of the user with content" }],
    });
  }
  return turns;
}

function writeBlocks(message: Exclude<ChatMessage, { readonly role: "system" }>): JsonObject[] {
  const blocks = message.parts.flatMap(writePart);
  switch (message.role) {
    case "user":
      return blocks;
    case "assistant":
      return [
        ...blocks,
        ...writePart({ type: "text", text: message.refusal ?? "" }),
        ...message.toolCalls.map(writeToolCall),
      ];
    case "tool":
      return [{
        type: "tool_result",
        tool_use_id: message.toolCallId,
        ...(blocks.length === 0 ? {} : { content: blocks }),
        ...(message.failed === true ? { is_error: true } : {}),
      }];
  }
}

function writePart(part: ChatPart): JsonObject[] {
  switch (part.type) {
    case "text":
      // Empty text blocks are refused there.
      return part.text === "" ? [] : [{ type: "text", text: part.text }];
    case "image":
      return [{ type: "image", source: writeImageSource(part.url) }];
    case "audio":
      throw inexpressible("audio", "The engine behind this model takes no audio.");
  }
}

function writeImageSource(url: string): JsonObject {
  if (/^https:/i.test(url)) return { type: "url", url };
  const comma = url.indexOf(",");
  // Only the head of it: the data may have millions of characters.
  const [, mediaType = ""] = /^data:([a-z/]+);base64$/.exec(url.slice(0, Math.max(comma, 0)).toLowerCase()) ??
    [];
  if (!IMAGE_TYPES.includes(mediaType)) {
    throw inexpressible(
      "an image's form",
      "The engine behind this model takes images as JPEG, PNG, GIF and WebP.",
    );
  }
  return { type: "base64", media_type: mediaType, data: url.slice(comma + 1) };
}

function writeToolCall({ id, name, arguments: text }: ToolCall): JsonObject {
  const input = text.trim() === "" ? {} : parseArguments(text);
  return { type: "tool_use", id, name, input };
}

function parseArguments(text: string): JsonValue {
  const parsed = parseStrictJson(text, INPUT_DEPTH_MAX);
  if (parsed.ok && isObject(parsed.value)) return parsed.value;
  throw inexpressible(
    "the arguments of a tool call",
    "The engine behind this model takes a tool call only if its arguments are a JSON object.",
  );
}

function writeTool({ name, description, parameters, strict }: Tool): JsonObject {
  return {
    name,
    ...(description === undefined ? {} : { description }),
    input_schema: parameters ?? { type: "object" },
    ...(strict === undefined ? {} : { strict }),
  };
}

function writeToolChoice({ tools, toolChoice, parallelToolCalls }: ChatRequest): JsonObject | undefined {
  // A choice among no tools is refused there; one that demands a call is to be.
  if (tools.length === 0 && (toolChoice === undefined || toolChoice === "auto" || toolChoice === "none")) {
    return undefined;
  }
  if (toolChoice === "none") return { type: "none" };
  const oneCallOnly = parallelToolCalls === false ? { disable_parallel_tool_use: true } : {};
  if (typeof toolChoice === "object") return { type: "tool", name: toolChoice.name, ...oneCallOnly };
  if (toolChoice === "required") return { type: "any", ...oneCallOnly };
  return toolChoice === "auto" || parallelToolCalls === false ? { type: "auto", ...oneCallOnly } : undefined;
}

/** Effort, and the schema that binds the answer ("structured outputs"); their names for schemas have no place there. */
function writeOutputConfig({ responseFormat, reasoningEffort }: ChatRequest): JsonObject | undefined {
  const config: JsonObject = {};
  if (reasoningEffort !== undefined && reasoningEffort !== "none") config.effort = reasoningEffort;
  if (responseFormat?.type === "json_schema") {
    const { schema, description } = responseFormat;
    const described = description !== undefined && isObject(schema) ? { description, ...schema } : schema;
    config.format = { type: "json_schema", schema: described };
  }
  return Object.keys(config).length === 0 ? undefined : config;
}

function inexpressible(what: string, detail: string): Fault {
  return new Fault("input_refused", `Cannot express ${what} for an Anthropic server`, { detail });
}

/**
 * The answer in a whole message.
 *
 * @throws Fault `upstream_answer_invalid`
 */
export function readMessage(bytes: Uint8Array): ChatAnswer {
  const message = readAnswerObject(bytes);
  let text = "";
  let reasoning = "";
  const toolCalls: ToolCall[] = [];
  for (const each of listOf(message.content, "its content")) {
    const block = objectOf(each, "a content block");
    if (block.type === "text") text += textOf(block.text, "a text") ?? "";
    else if (block.type === "thinking") reasoning += textOf(block.thinking, "a thought") ?? "";
    else if (block.type === "tool_use") {
      if (toolCalls.length === TOOL_CALLS_MAX) throw answerInvalid("it has too many tool calls");
      toolCalls.push({ id: wordOf(block.id), name: wordOf(block.name), arguments: argumentsOf(block.input) });
    }
  }
  const stop = stopOf(message);
  if (stop === undefined) throw answerInvalid("it has no stop reason");
  return {
    choices: [{
      text,
      reasoning,
      toolCalls,
      finish: stop.reason,
      ...(stop.stopSequence === undefined ? {} : { stopSequence: stop.stopSequence }),
    }],
    usage: usageOf(message.usage) ?? { inputTokens: 0, outputTokens: 0, countedBy: "estimate" },
  };
}

/** Why an answer ended, and the stop sequence that ended it. */
export interface MessageStop {
  readonly reason: FinishReason;
  readonly stopSequence?: string;
}

const FINISH_REASONS: ReadonlyMap<string, FinishReason> = new Map([
  ["end_turn", "stop"],
  ["stop_sequence", "stop"],
  ["max_tokens", "length"],
  ["model_context_window_exceeded", "length"],
  // Tools of theirs took long: the answer is cut, and would go on if it were sent back.
  ["pause_turn", "length"],
  ["tool_use", "tool_calls"],
  ["refusal", "content_filter"],
]);

/**
 * What a message, or the `delta` of a `message_delta`, says of its end; undefined while it says nothing.
 *
 * @throws Fault `upstream_answer_invalid`
 */
export function stopOf(
  { stop_reason: reason, stop_sequence: sequence }: AnswerObject,
): MessageStop | undefined {
  const word = textOf(reason, "its stop reason");
  if (word === undefined) return undefined;
  // The API's versions may gain reasons; all of them are an end.
  const finish = FINISH_REASONS.get(word) ?? "stop";
  // Some servers name the sequence and call it the end of a turn all the same.
  return typeof sequence === "string" ? { reason: finish, stopSequence: sequence } : { reason: finish };
}

/**
 * The tokens that a message's `usage` tells; undefined where it lacks what is needed.
 *
 * @throws Fault `upstream_answer_invalid`
 */
export function usageOf(value: unknown): Usage | undefined {
  if (value === undefined || value === null) return undefined;
  const counts = objectOf(value, "its usage");
  const details = counts.output_tokens_details;
  const input = tokensOf(counts.input_tokens, "its input tokens");
  const output = tokensOf(counts.output_tokens, "its output tokens");
  const created = tokensOf(counts.cache_creation_input_tokens, "its tokens put into the cache");
  const cached = tokensOf(counts.cache_read_input_tokens, "its tokens from the cache");
  const reasoning = isObject(details) ? tokensOf(details.thinking_tokens, "its thinking tokens") : undefined;
  if (input === undefined || output === undefined) return undefined;
  return {
    // "Total input tokens" are the sum of the three.
    inputTokens: input + (created ?? 0) + (cached ?? 0),
    outputTokens: output,
    ...(cached === undefined ? {} : { cachedInputTokens: cached }),
    ...(reasoning === undefined ? {} : { reasoningTokens: reasoning }),
    countedBy: "engine",
  };
}

/**
 * The arguments of a tool call as JSON text.
 *
 * @throws Fault `upstream_answer_invalid`
 */
export function argumentsOf(input: unknown): string {
  return JSON.stringify(shallowJson(objectOf(input, "a tool's input"), INPUT_DEPTH_MAX, "a tool's input"));
}

/** An id or a name. @throws Fault `upstream_answer_invalid` */
export function wordOf(value: unknown): string {
  if (typeof value === "string" && value !== "" && value.length <= WORD_CHARACTERS_MAX) return value;
  throw answerInvalid("an id or a name is none");
}
