// Bound a request: what the model's settings and the caller's roles allow of one request, in terms of the neutral form.
import type { RequestCaps } from "../access/request_caps.ts";
import type { ChatMessage, ChatRequest, CompletionRequest } from "../engines/chat.ts";
import type { TaskRequest } from "../engines/task.ts";
import { Fault, type FieldMistake } from "../faults/fault.ts";
import type { ServedModel } from "../registry/served_model.ts";
import { countChatTokens, countTokens } from "./count_tokens.ts";

/** Our own count is an estimate: nearer to the limit than this the engine decides. */
const CONTEXT_MARGIN = 1.25;

/**
 * The request as it may run: refused where it asks for too much, and with the cap on its output where it names none.
 *
 * @throws Fault `fields_invalid` with paths of the neutral request · `context_length_exceeded`
 */
export function boundRequest<Request extends TaskRequest>(
  request: Request,
  model: ServedModel,
  caps: RequestCaps,
): Request {
  const bounded = boundAny(request, model, caps);
  return bounded as Request;
}

function boundAny(request: TaskRequest, model: ServedModel, caps: RequestCaps): TaskRequest {
  switch (request.task) {
    case "chat":
      atMost("/tools", request.tools.length, caps.toolsMax, "tools");
      atMost("/images", imagesOf(request.messages), caps.imagesMax, "images");
      return boundSampling(request, model, caps);
    case "completion":
      checkTexts(model, request.prompts, "/prompts");
      return boundSampling(request, model, caps);
    case "embedding":
    case "moderation":
      checkTexts(model, request.texts, "/texts");
      return request;
    case "rerank":
      checkTexts(model, request.documents, "/documents");
      checkText(model, request.query, "/query");
      return request;
    case "image":
      atMost("/images", request.images, caps.imagesMax, "images");
      checkText(model, request.prompt, "/prompt");
      return request;
    case "speech":
      checkText(model, request.text, "/text");
      return request;
    case "transcription":
    case "tensor":
    case "tensor_metadata":
      return request;
  }
}

/** How many things a request is about: texts, messages, prompts, documents, tensors. */
export function itemsOf(request: TaskRequest): number {
  switch (request.task) {
    case "chat":
      return request.messages.length;
    case "completion":
      return request.prompts.length;
    case "embedding":
    case "moderation":
      return request.texts.length;
    case "rerank":
      return request.documents.length;
    case "tensor":
      return request.inputs.length;
    case "image":
    case "speech":
    case "transcription":
    case "tensor_metadata":
      return 1;
  }
}

function boundSampling<Request extends ChatRequest | CompletionRequest>(
  request: Request,
  model: ServedModel,
  caps: RequestCaps,
): Request {
  const answers = request.choices * (request.task === "completion" ? request.prompts.length : 1);
  atMost("/choices", answers, caps.choicesMax, "answers");
  atMost("/stop", request.stop.length, caps.stopSequencesMax, "stop sequences");
  const outputMax = smallest(caps.outputTokensMax, model.limits.outputTokensMax);
  if (outputMax !== null && request.outputTokensMax !== undefined && request.outputTokensMax > outputMax) {
    throw invalid(
      "/outputTokensMax",
      `is ${request.outputTokensMax}; at most ${outputMax} tokens are allowed`,
    );
  }
  checkContext(request, model);
  return outputMax === null || request.outputTokensMax !== undefined
    ? request
    : { ...request, outputTokensMax: outputMax };
}

function checkContext(request: ChatRequest | CompletionRequest, model: ServedModel): void {
  const { contextTokensMax } = model.limits;
  if (contextTokensMax === null) return;
  const max = contextTokensMax * CONTEXT_MARGIN;
  const outputTokens = request.outputTokensMax ?? 0;
  const inputTokens = request.task === "chat"
    ? countChatTokens(request.messages, request.tools)
    : Math.max(...request.prompts.map(countTokens));
  if (inputTokens + outputTokens <= max) return;
  throw new Fault(
    "context_length_exceeded",
    `Cannot run ${model.id}: about ${inputTokens} + ${outputTokens} tokens`,
    {
      detail: `About ${inputTokens} tokens of input and ${outputTokens} of output are more than the ` +
        `${contextTokensMax} tokens of the model's context.`,
    },
  );
}

function checkTexts(model: ServedModel, texts: readonly string[], path: string): void {
  const { textsPerRequestMax } = model.limits;
  if (texts.length > textsPerRequestMax) {
    throw invalid(path, `has ${texts.length} texts; at most ${textsPerRequestMax} are allowed`);
  }
  texts.forEach((text, index) => checkText(model, text, `${path}/${index}`));
}

function checkText(model: ServedModel, text: string, path: string): void {
  const { charactersPerTextMax } = model.limits;
  if (text.length <= charactersPerTextMax) return;
  throw invalid(path, `has ${text.length} characters; at most ${charactersPerTextMax} are allowed`);
}

function imagesOf(messages: readonly ChatMessage[]): number {
  let images = 0;
  for (const { parts } of messages) {
    for (const part of parts) if (part.type === "image") images++;
  }
  return images;
}

function atMost(path: string, count: number, max: number, of: string): void {
  if (count > max) throw invalid(path, `asks for ${count} ${of}; at most ${max} are allowed`);
}

function smallest(left: number | null, right: number | null): number | null {
  return left === null ? right : right === null ? left : Math.min(left, right);
}

function invalid(path: string, message: string): Fault {
  const fields: readonly FieldMistake[] = [{ path, message }];
  return new Fault("fields_invalid", "Cannot run an inference: it asks for more than is allowed", { fields });
}
