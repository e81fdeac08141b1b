// Messages input: the neutral request that a checked body in Anthropic's form means.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type {
  ChatMessage,
  ChatRequest,
  ImagePart,
  ResponseFormat,
  TextPart,
  Tool,
  ToolCall,
  ToolChoice,
} from "../../engines/chat.ts";
import type { PlaceField } from "../inference_door.ts";
import { type ConversationBody, isThoughtOnly, type Message, type MessagesBody } from "./messages_body.ts";

/** Budgets of thinking below these are little and medium effort. */
const EFFORT_BUDGETS = { low: 4096, medium: 16_384 };

type UserContent = Extract<Message, { readonly role: "user" }>["content"];
type AssistantContent = Extract<Message, { readonly role: "assistant" }>["content"];
type UserBlock = Exclude<UserContent, string>[number];
type ToolResultBlock = Extract<UserBlock, { readonly type: "tool_result" }>;

/** The neutral request of a checked body. */
export function chatRequest(body: MessagesBody, extra: Readonly<Record<string, JsonValue>>): ChatRequest {
  const tools = neutralTools(body);
  const choice = tools.length === 0 ? undefined : body.tool_choice;
  const effort = reasoningEffortOf(body);
  const format = body.output_config?.format ?? body.output_format;
  return {
    task: "chat",
    messages: neutralMessages(body),
    tools,
    outputTokensMax: body.max_tokens,
    stop: body.stop_sequences ?? [],
    choices: 1,
    extra,
    ...(body.temperature === undefined ? {} : { temperature: body.temperature }),
    ...(body.top_p === undefined ? {} : { topP: body.top_p }),
    ...(body.top_k === undefined ? {} : { topK: body.top_k }),
    ...(choice === undefined ? {} : { toolChoice: neutralToolChoice(choice) }),
    ...(choice !== undefined && choice.type !== "none" && choice.disable_parallel_tool_use === true
      ? { parallelToolCalls: false }
      : {}),
    ...(format ? { responseFormat: neutralFormat(format.schema) } : {}),
    ...(effort === undefined ? {} : { reasoningEffort: effort }),
  };
}

/** Whether the caller wants to read what the model thinks. */
export function showsThinking({ thinking }: Pick<MessagesBody, "thinking">): boolean {
  return thinking !== undefined && thinking.type !== "disabled" && thinking.display !== "omitted";
}

const PLACES: Readonly<Record<string, string>> = {
  outputTokensMax: "/max_tokens",
  stop: "/stop_sequences",
  topP: "/top_p",
  topK: "/top_k",
  toolChoice: "/tool_choice",
  parallelToolCalls: "/tool_choice/disable_parallel_tool_use",
  responseFormat: "/output_config/format",
  reasoningEffort: "/thinking",
  images: "/messages",
  messages: "/messages",
  choices: "",
};

/** From a path of the neutral request to the path in the body. */
export const placeMessagesField: PlaceField = (path) => PLACES[path.split("/", 2)[1] ?? ""] ?? path;

/** The messages of a checked body, what `system` says first. Thinking is left out. */
export function neutralMessages(
  { system, messages }: Pick<ConversationBody, "system" | "messages">,
): ChatMessage[] {
  const neutral: ChatMessage[] = [];
  if (system !== undefined && system.length > 0) {
    neutral.push({ role: "system", parts: neutralTexts(system) });
  }
  for (const message of messages) {
    switch (message.role) {
      case "system":
        neutral.push({ role: "system", parts: neutralTexts(message.content) });
        break;
      case "user":
        pushUser(neutral, message.content);
        break;
      case "assistant":
        pushAssistant(neutral, message.content);
        break;
    }
  }
  return neutral;
}

function pushUser(neutral: ChatMessage[], content: UserContent): void {
  if (typeof content === "string") {
    neutral.push({ role: "user", parts: [{ type: "text", text: content }] });
    return;
  }
  const parts: (TextPart | ImagePart)[] = [];
  for (const block of content) {
    if (block.type === "tool_result") neutral.push(neutralToolResult(block));
    else parts.push(neutralPart(block));
  }
  if (parts.length > 0) neutral.push({ role: "user", parts });
}

function pushAssistant(neutral: ChatMessage[], content: AssistantContent): void {
  if (isThoughtOnly(content)) return;
  const parts: TextPart[] = [];
  const toolCalls: ToolCall[] = [];
  if (typeof content === "string") parts.push({ type: "text", text: content });
  else {
    for (const block of content) {
      if (block.type === "text") parts.push({ type: "text", text: block.text });
      else if (block.type === "tool_use") {
        toolCalls.push({ id: block.id, name: block.name, arguments: JSON.stringify(block.input) });
      }
    }
  }
  neutral.push({ role: "assistant", parts, toolCalls });
}

function neutralToolResult({ tool_use_id, content, is_error }: ToolResultBlock): ChatMessage {
  const parts = content === undefined || content === ""
    ? []
    : typeof content === "string"
    ? [{ type: "text" as const, text: content }]
    : content.map(neutralPart);
  return { role: "tool", toolCallId: tool_use_id, parts, ...(is_error === true ? { failed: true } : {}) };
}

function neutralPart(block: Exclude<UserBlock, ToolResultBlock>): TextPart | ImagePart {
  if (block.type === "text") return { type: "text", text: block.text };
  const { source } = block;
  return {
    type: "image",
    url: source.type === "url" ? source.url : `data:${source.media_type};base64,${source.data}`,
  };
}

function neutralTexts(content: string | readonly { readonly text: string }[]): TextPart[] {
  return typeof content === "string"
    ? [{ type: "text", text: content }]
    : content.map(({ text }) => ({ type: "text", text }));
}

/** The tools of a checked body. */
export function neutralTools({ tools }: Pick<ConversationBody, "tools">): Tool[] {
  return (tools ?? []).map(({ name, description, input_schema, strict }) => ({
    name,
    parameters: input_schema as JsonValue,
    ...(description === undefined ? {} : { description }),
    ...(strict === undefined ? {} : { strict }),
  }));
}

function neutralToolChoice(choice: NonNullable<ConversationBody["tool_choice"]>): ToolChoice {
  switch (choice.type) {
    case "auto":
    case "none":
      return choice.type;
    case "any":
      return "required";
    case "tool":
      return { name: choice.name };
  }
}

/** Anthropic's formats have no name; OpenAI's must. */
function neutralFormat(schema: Readonly<Record<string, unknown>>): ResponseFormat {
  return { type: "json_schema", name: "answer", schema: schema as JsonValue, strict: true };
}

function reasoningEffortOf({ thinking, output_config }: ConversationBody): ChatRequest["reasoningEffort"] {
  if (thinking?.type === "disabled") return "none";
  if (thinking?.type === "enabled") {
    const budget = thinking.budget_tokens;
    return budget < EFFORT_BUDGETS.low ? "low" : budget < EFFORT_BUDGETS.medium ? "medium" : "high";
  }
  const effort = output_config?.effort ?? undefined;
  if (effort === undefined) return thinking?.type === "adaptive" ? "medium" : undefined;
  return effort === "low" || effort === "medium" ? effort : "high";
}
