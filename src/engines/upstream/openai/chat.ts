// Chat: a conversation as POST /chat/completions, and its whole answer.
import type {
  ChatAnswer,
  ChatChoice,
  ChatMessage,
  ChatPart,
  ChatRequest,
  ResponseFormat,
  Tool,
  ToolCall,
  ToolChoice,
} from "../../chat.ts";
import {
  answerInvalid,
  type AnswerObject,
  listOf,
  objectOf,
  readAnswerObject,
  textOf,
  TOOL_CALLS_MAX,
} from "../answer_json.ts";
import type { StreamCall, WholeCall, WireOptions, WireRequest } from "../wire.ts";
import {
  argumentsOf,
  type ChoiceCount,
  finishOf,
  logprobsOf,
  newToolCallId,
  orderedChoices,
  stopSequenceOf,
  writtenIn,
} from "./choice.ts";
import { ChatEventReader } from "./chat_events.ts";
import { EVENTS_ONLY, JSON_ONLY, jsonRequest } from "./json_request.ts";
import { samplingFields } from "./sampling.ts";
import { readUsage } from "./usage.ts";

/** A chat that is answered whole. */
export function chatCall(request: ChatRequest, options: WireOptions): WholeCall<"chat"> {
  return {
    request: chatRequest(request, false, options),
    read: ({ bytes }) => readChatAnswer(readAnswerObject(bytes), request),
  };
}

/** A chat that is answered in pieces. */
export function chatStream(request: ChatRequest, options: WireOptions): StreamCall<"chat"> {
  return {
    request: chatRequest(request, true, options),
    framing: "events",
    openReader: () => new ChatEventReader("chat", countOf(request), request, options),
  };
}

function countOf(request: ChatRequest): ChoiceCount {
  return { max: request.choices, min: 1 };
}

function chatRequest(request: ChatRequest, stream: boolean, options: WireOptions): WireRequest {
  const hasTools = request.tools.length > 0;
  return jsonRequest("/chat/completions", stream ? EVENTS_ONLY : JSON_ONLY, {
    model: options.model,
    messages: request.messages.map(writeMessage),
    // OpenAI refuses a choice among no tools.
    tools: hasTools ? request.tools.map(writeTool) : undefined,
    tool_choice: hasTools ? writeToolChoice(request.toolChoice) : undefined,
    parallel_tool_calls: hasTools ? request.parallelToolCalls : undefined,
    response_format: writeResponseFormat(request.responseFormat),
    reasoning_effort: request.reasoningEffort,
    logprobs: request.logprobs === undefined ? undefined : true,
    top_logprobs: request.logprobs || undefined,
    functions: undefined,
    function_call: undefined,
    ...samplingFields(request, stream, options),
  }, request.extra);
}

function writeMessage(message: ChatMessage): unknown {
  switch (message.role) {
    case "system":
      return { role: "system", content: writeParts(message.parts) };
    case "user":
      return { role: "user", content: writeParts(message.parts), name: message.name };
    case "assistant": {
      const { parts, refusal, toolCalls } = message;
      if (toolCalls.length === 0) return { role: "assistant", content: writeParts(parts), refusal };
      const tool_calls = toolCalls.map(({ id, name, arguments: text }) => ({
        id,
        type: "function",
        function: { name, arguments: text },
      }));
      return {
        role: "assistant",
        content: parts.length === 0 ? null : writeParts(parts),
        refusal,
        tool_calls,
      };
    }
    case "tool":
      // That it failed has no form here: the text says it.
      return { role: "tool", tool_call_id: message.toolCallId, content: writeParts(message.parts) };
  }
}

/** A single text stands for itself: the chat templates of many models take no lists. */
function writeParts(parts: readonly ChatPart[]): unknown {
  const [first] = parts;
  if (first === undefined) return "";
  if (parts.length === 1 && first.type === "text") return first.text;
  return parts.map(writePart);
}

function writePart(part: ChatPart): unknown {
  switch (part.type) {
    case "text":
      return { type: "text", text: part.text };
    case "image":
      return { type: "image_url", image_url: { url: part.url, detail: part.detail } };
    case "audio":
      return { type: "input_audio", input_audio: { data: part.data, format: part.format } };
  }
}

function writeTool({ name, description, parameters, strict }: Tool): unknown {
  return {
    type: "function",
    // llama.cpp demands parameters; none means an empty object to all others.
    function: { name, description, parameters: parameters ?? { type: "object", properties: {} }, strict },
  };
}

function writeToolChoice(choice: ToolChoice | undefined): unknown {
  return typeof choice === "object" ? { type: "function", function: { name: choice.name } } : choice;
}

function writeResponseFormat(format: ResponseFormat | undefined): unknown {
  if (format?.type !== "json_schema") return format;
  const { name, description, schema, strict } = format;
  return { type: "json_schema", json_schema: { name, description, schema, strict } };
}

function readChatAnswer(body: AnswerObject, request: ChatRequest): ChatAnswer {
  return {
    choices: orderedChoices(body, countOf(request)).map((choice) => readChoice(choice, request)),
    usage: readUsage(body.usage),
  };
}

function readChoice(choice: AnswerObject, request: ChatRequest): ChatChoice {
  const message = objectOf(choice.message, "a choice's message");
  const { text, reasoning } = writtenIn(message);
  const refusal = textOf(message.refusal, "a refusal");
  const toolCalls = readToolCalls(message.tool_calls);
  const finish = finishOf(choice.finish_reason, toolCalls.length > 0) ??
    (toolCalls.length > 0 ? "tool_calls" : "stop");
  const stopSequence = stopSequenceOf(choice, request.stop);
  const logprobs = request.logprobs === undefined ? undefined : logprobsOf(choice.logprobs);
  return {
    text,
    reasoning,
    ...(refusal === undefined ? {} : { refusal }),
    toolCalls,
    finish,
    ...(stopSequence === undefined ? {} : { stopSequence }),
    ...(logprobs === undefined ? {} : { logprobs }),
  };
}

function readToolCalls(value: unknown): readonly ToolCall[] {
  if (value === null || value === undefined) return [];
  const list = listOf(value, "its list of tool calls");
  if (list.length > TOOL_CALLS_MAX) throw answerInvalid("it has too many tool calls");
  return list.map((each) => {
    const call = objectOf(each, "a tool call");
    const called = objectOf(call.function, "a tool call's function");
    const name = textOf(called.name, "a tool call's name");
    if (name === undefined || name === "") throw answerInvalid("a tool call has no name");
    return {
      id: textOf(call.id, "a tool call's id") || newToolCallId(),
      name,
      arguments: argumentsOf(called.arguments) ?? "{}",
    };
  });
}
