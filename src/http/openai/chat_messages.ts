// Chat messages: from OpenAI's wire form, strictly, to the neutral one. Messages keep their index.
import { z } from "@hono/zod-openapi";
import type { ChatMessage, ChatPart, TextPart, ToolCall } from "../../engines/chat.ts";
import { isBase64 } from "../image_source.ts";
import { boundedList } from "../middleware/bounded_list.ts";
import { AUDIO_CHARACTERS_MAX, IMAGE_URL_CHARACTERS_MAX, imageUrlMistake } from "./media_fields.ts";
import { stated, TEXT_CHARACTERS_MAX } from "./sampling_fields.ts";

const MESSAGES_MAX = 4096;
const PARTS_MAX = 1024;
const CALLS_MAX = 256;

/** What a function may be called. */
export const FUNCTION_NAME = /^[A-Za-z0-9_-]{1,64}$/;

const text = z.string().max(TEXT_CHARACTERS_MAX);
const name = z.string().min(1).max(64).nullish();
const callId = z.string().min(1).max(256);

const textPart = z.strictObject({ type: z.literal("text"), text });
const refusalPart = z.strictObject({ type: z.literal("refusal"), refusal: text });

const audioPart = z.strictObject({
  type: z.literal("input_audio"),
  input_audio: z.strictObject({
    data: z.string().max(AUDIO_CHARACTERS_MAX).refine(isBase64, "is no valid base64 (RFC 4648 §4, padded)"),
    format: z.enum(["wav", "mp3"]),
  }),
});

const toolCall = z.strictObject({
  id: callId,
  type: z.literal("function", { error: "is not function, the only type of tool here" }),
  function: z.strictObject({
    name: z.string().regex(FUNCTION_NAME, "is no name of 1 to 64 letters, digits, _ and -"),
    arguments: text,
  }),
});

/** A text, or parts of some types. */
function contentOf<Part extends z.core.SomeType>(part: Part) {
  return z.union([
    text,
    boundedList(z.array(part).min(1, "has no parts").max(PARTS_MAX, `has more than ${PARTS_MAX} parts`)),
  ], {
    error: ({ input }) =>
      typeof input === "string"
        ? `has more than ${TEXT_CHARACTERS_MAX} characters`
        : Array.isArray(input)
        ? `has no parts or more than ${PARTS_MAX}`
        : "is neither a text nor a list of parts",
  });
}

const textContent = contentOf(z.discriminatedUnion("type", [textPart], { error: otherPart("text") }));

const assistantContent = contentOf(
  z.discriminatedUnion("type", [textPart, refusalPart], { error: otherPart("text, refusal") }),
);

/** Says of a part what its type may be. */
function otherPart(known: string): (issue: { readonly input?: unknown }) => string {
  return ({ input }) =>
    typeof input !== "object" || input === null
      ? "is no part: an object with a type"
      : "type" in input && input.type === "file"
      ? "is file: files are not taken here; send their text or their pictures"
      : `is no type of part that this message may have: ${known}`;
}

/**
 * The schema of `messages`.
 *
 * @param imageHosts where images may be fetched from
 */
export function chatMessagesSchema(imageHosts: ReadonlySet<string>) {
  return boundedList(
    z.array(messageSchema(imageHosts)).min(1, "has no messages")
      .max(MESSAGES_MAX, `has more than ${MESSAGES_MAX} messages`).superRefine(checkMessages),
  );
}

function messageSchema(imageHosts: ReadonlySet<string>) {
  const imageUrl = z.string().max(IMAGE_URL_CHARACTERS_MAX).superRefine((url, context) => {
    const message = imageUrlMistake(url, imageHosts);
    if (message !== undefined) context.addIssue({ code: "custom", message });
  }).describe(
    "A data URL of a PNG, JPEG, WebP or GIF image, or an https address at a host that the server allows.",
  );
  const imagePart = z.strictObject({
    type: z.literal("image_url"),
    image_url: z.strictObject({ url: imageUrl, detail: z.enum(["auto", "low", "high"]).nullish() }),
  });
  const userContent = contentOf(
    z.discriminatedUnion("type", [textPart, imagePart, audioPart], {
      error: otherPart("text, image_url, input_audio"),
    }),
  );
  return z.discriminatedUnion("role", [
    z.strictObject({ role: z.enum(["system", "developer"]), content: textContent, name }),
    z.strictObject({ role: z.literal("user"), content: userContent, name }),
    z.strictObject({
      role: z.literal("assistant"),
      content: assistantContent.nullish(),
      refusal: text.nullish(),
      tool_calls: boundedList(z.array(toolCall).min(1).max(CALLS_MAX)).nullish(),
      name,
      reasoning_content: text.nullish().describe("Taken back as it was answered, and not used."),
      // What clients that send an earlier answer back have in it.
      audio: z.null().optional(),
      function_call: z.null().optional(),
    }),
    z.strictObject({ role: z.literal("tool"), content: textContent, tool_call_id: callId }),
  ], {
    error: ({ input }) =>
      typeof input === "object" && input !== null && "role" in input && input.role === "function"
        ? "is function, which is long out of use; send tool"
        : "is none of system, developer, user, assistant, tool",
  });
}

type Message = z.infer<ReturnType<typeof messageSchema>>;
type AssistantMessage = Extract<Message, { readonly role: "assistant" }>;

/** What no message shows by itself. */
function checkMessages(messages: readonly Message[], context: z.core.$RefinementCtx): void {
  const issuedIds = new Set<string>();
  for (const [index, message] of messages.entries()) {
    if (message.role === "assistant") {
      const mistake = assistantMistake(message);
      if (mistake !== undefined) {
        context.addIssue({ code: "custom", path: [index, "content"], message: mistake });
      }
      for (const { id } of message.tool_calls ?? []) issuedIds.add(id);
    } else if (message.role === "tool" && !issuedIds.has(message.tool_call_id)) {
      context.addIssue({
        code: "custom",
        path: [index, "tool_call_id"],
        message: "is the id of no tool call in an earlier assistant message",
      });
    }
  }
}

function assistantMistake({ content, refusal, tool_calls }: AssistantMessage): string | undefined {
  const isMissing = content === undefined || content === null;
  if (isMissing && tool_calls === undefined && typeof refusal !== "string") {
    return "is missing, and there are neither tool_calls nor a refusal";
  }
  if (!Array.isArray(content) || !content.some(({ type }) => type === "refusal")) return undefined;
  return content.length > 1 || typeof refusal === "string"
    ? "has a refusal beside other parts or another refusal"
    : undefined;
}

/** The neutral form of messages that have passed the schema. Names are kept where a model can tell users apart by them. */
export function neutralMessages(messages: readonly Message[]): ChatMessage[] {
  return messages.map((message) => {
    switch (message.role) {
      case "system":
      case "developer":
        return { role: "system", parts: textParts(message.content) };
      case "user":
        return { role: "user", parts: userParts(message.content), ...stated({ name: message.name }) };
      case "assistant":
        return assistantMessage(message);
      case "tool":
        return { role: "tool", toolCallId: message.tool_call_id, parts: textParts(message.content) };
    }
  });
}

function textParts(content: string | readonly TextPart[]): readonly TextPart[] {
  return typeof content === "string" ? [{ type: "text", text: content }] : content;
}

function userParts(content: Extract<Message, { readonly role: "user" }>["content"]): readonly ChatPart[] {
  if (typeof content === "string") return textParts(content);
  return content.map((part): ChatPart => {
    switch (part.type) {
      case "text":
        return part;
      case "image_url":
        return { type: "image", url: part.image_url.url, ...stated({ detail: part.image_url.detail }) };
      case "input_audio":
        return { type: "audio", ...part.input_audio };
    }
  });
}

function assistantMessage(message: AssistantMessage): ChatMessage {
  const content = typeof message.content === "string" ? textParts(message.content) : message.content ?? [];
  const refused = content.find((part) => part.type === "refusal");
  return {
    role: "assistant",
    parts: content.filter((part) => part.type === "text"),
    ...stated({ refusal: refused?.refusal ?? message.refusal }),
    toolCalls: (message.tool_calls ?? []).map((call): ToolCall => ({
      id: call.id,
      name: call.function.name,
      arguments: call.function.arguments,
    })),
  };
}
