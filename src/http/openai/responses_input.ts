// Responses input: the items that OpenAI's Responses API takes, checked, and read into the neutral messages.
import { z } from "@hono/zod-openapi";
import type { ChatMessage, ImagePart, TextPart, ToolCall } from "../../engines/chat.ts";
import { Fault } from "../../faults/fault.ts";
import { boundedList } from "../middleware/bounded_list.ts";
import { FUNCTION_NAME } from "./chat_messages.ts";
import { IMAGE_URL_CHARACTERS_MAX, imageUrlMistake } from "./media_fields.ts";
import { stated, TEXT_CHARACTERS_MAX } from "./sampling_fields.ts";

const ITEMS_MAX = 4096;
const PARTS_MAX = 1024;
/** Also what an id of a call may be at most, in what we answer: callers send it back. */
export const ID_CHARACTERS_MAX = 256;

const text = z.string().max(TEXT_CHARACTERS_MAX, `has more than ${TEXT_CHARACTERS_MAX} characters`);
const id = z.string().min(1, "is empty").max(
  ID_CHARACTERS_MAX,
  `has more than ${ID_CHARACTERS_MAX} characters`,
);
const status = z.enum(["in_progress", "completed", "incomplete"]).nullish();
/** What we and OpenAI's client add to an output item that is sent back as input; not used. */
const ofOutput = { id: id.nullish(), status };
const unused = z.unknown().optional();

/** Words for a value whose `type` is none of those that a union knows. */
export function unknownType(served: string, special: Readonly<Record<string, string>> = {}) {
  return ({ code, input }: { code?: string | undefined; input?: unknown }): string => {
    if (code === "invalid_type" || typeof input !== "object" || input === null) return "is not an object";
    const { type } = input as { type?: unknown };
    const known = typeof type === "string" && Object.hasOwn(special, type) ? special[type] : undefined;
    return known ?? `is none of: ${served}`;
  };
}

/** A text, or a list of some things. */
function textOrList<Part extends z.core.SomeType>(part: Part, what: string, max: number) {
  const list = boundedList(z.array(part).min(1, `has no ${what}`).max(max));
  return z.union([text, list], {
    // A list that is too long is not looked into, and so is none for the union.
    error: ({ input }) =>
      Array.isArray(input) ? `has more than ${max} ${what}` : `is neither a text nor a list of ${what}`,
  });
}

const contentOf = <Part extends z.core.SomeType>(part: Part) => textOrList(part, "parts", PARTS_MAX);

const NO_FILES = { input_file: "is a file; files are not served: send their text as input_text" };

/**
 * The schema of `input`.
 *
 * @param imageHosts where images may be fetched from, in lower case
 */
export function responsesInputSchema(imageHosts: ReadonlySet<string>) {
  const inputText = z.strictObject({ type: z.literal("input_text"), text });
  const inputImage = z.strictObject({
    type: z.literal("input_image"),
    image_url: z.string({ error: "is not the URL of an image" })
      .max(IMAGE_URL_CHARACTERS_MAX, "is too long")
      .superRefine((url, context) => {
        const message = imageUrlMistake(url, imageHosts);
        if (message !== undefined) context.addIssue({ code: "custom", message });
      }),
    detail: z.enum(["auto", "low", "high"]).nullish(),
    file_id: z.null({ error: "names a file; files are not served: send the image as a data: URL" })
      .optional(),
  });
  const textPart = z.discriminatedUnion("type", [inputText], { error: unknownType("input_text", NO_FILES) });
  const textOrImage = z.discriminatedUnion("type", [inputText, inputImage], {
    error: unknownType("input_text, input_image", NO_FILES),
  });
  const outputPart = z.discriminatedUnion("type", [
    z.strictObject({
      type: z.literal("output_text"),
      text,
      annotations: z.array(z.unknown()).max(PARTS_MAX).optional(),
      logprobs: z.array(z.unknown()).max(TEXT_CHARACTERS_MAX).optional(),
      parsed: unused,
    }),
    z.strictObject({ type: z.literal("refusal"), refusal: text, parsed: unused }),
  ], { error: unknownType("output_text, refusal") });

  const type = z.literal("message").optional();
  const message = z.discriminatedUnion("role", [
    z.strictObject({ ...ofOutput, type, role: z.literal("user"), content: contentOf(textOrImage) }),
    z.strictObject({
      ...ofOutput,
      type,
      role: z.enum(["system", "developer"]),
      content: contentOf(textPart),
    }),
    z.strictObject({
      ...ofOutput,
      type,
      role: z.literal("assistant"),
      content: contentOf(outputPart),
      phase: z.enum(["commentary", "final_answer"]).nullish(),
    }),
  ], { error: "is none of: user, assistant, system, developer" });
  const functionCall = z.strictObject({
    ...ofOutput,
    type: z.literal("function_call"),
    call_id: id,
    name: z.string().regex(FUNCTION_NAME, "is no name of 1 to 64 letters, digits, _ and -"),
    arguments: text,
    parsed_arguments: unused,
  });
  const functionCallOutput = z.strictObject({
    ...ofOutput,
    type: z.literal("function_call_output"),
    call_id: id,
    output: contentOf(textOrImage),
  });
  const reasoning = z.strictObject({
    ...ofOutput,
    type: z.literal("reasoning"),
    summary: boundedList(z.array(z.strictObject({ type: z.literal("summary_text"), text })).max(PARTS_MAX)),
    content: boundedList(z.array(z.strictObject({ type: z.literal("reasoning_text"), text })).max(PARTS_MAX))
      .nullish(),
    encrypted_content: text.nullish(),
  });
  const item = z.discriminatedUnion("type", [message, functionCall, functionCallOutput, reasoning], {
    error: unknownType("message, function_call, function_call_output, reasoning", {
      item_reference: "refers to a stored item; this server stores nothing: send the item itself",
    }),
  });
  return textOrList(item, "items", ITEMS_MAX);
}

/** What a caller sends as `input`, checked. */
export type ResponsesInput = z.infer<ReturnType<typeof responsesInputSchema>>;
type Item = Exclude<ResponsesInput, string>[number];

/** Messages, and for each the JSON Pointer of where it began in the body. */
export interface InputMessages {
  readonly messages: readonly ChatMessage[];
  readonly places: readonly string[];
}

/**
 * Reads instructions and input.
 *
 * @throws Fault `fields_invalid` where nothing is left to answer, or calls and their outputs do not fit together
 */
export function readInput(instructions: string | null | undefined, input: ResponsesInput): InputMessages {
  const messages: ChatMessage[] = [];
  const places: string[] = [];
  const add = (message: ChatMessage, place: string): void => {
    messages.push(message);
    places.push(place);
  };
  if (typeof instructions === "string") {
    add({ role: "system", parts: [textOf(instructions)] }, "/instructions");
  }
  if (typeof input === "string") {
    add({ role: "user", parts: [textOf(input)] }, "/input");
    return { messages, places };
  }
  const called = new Set<string>();
  let readable = false;
  for (const [index, item] of input.entries()) {
    const place = `/input/${index}`;
    if (item.type === "reasoning") continue;
    readable = true;
    if (item.type === "function_call") {
      if (called.has(item.call_id)) {
        throw mistake(`${place}/call_id`, "is the call_id of an earlier function_call too");
      }
      called.add(item.call_id);
    }
    if (item.type === "function_call_output" && !called.has(item.call_id)) {
      throw mistake(`${place}/call_id`, "is the call_id of no function_call before it");
    }
    const message = messageOf(item);
    const merged = merge(messages.at(-1), message);
    if (merged === undefined) add(message, place);
    else messages[messages.length - 1] = merged;
  }
  if (!readable) throw mistake("/input", "has nothing but reasoning");
  return { messages, places };
}

function messageOf(item: Exclude<Item, { type: "reasoning" }>): ChatMessage {
  if (item.type === "function_call") {
    const call: ToolCall = { id: item.call_id, name: item.name, arguments: item.arguments };
    return { role: "assistant", parts: [], toolCalls: [call] };
  }
  if (item.type === "function_call_output") {
    return { role: "tool", toolCallId: item.call_id, parts: partsOf(item.output) };
  }
  if (item.role === "user") return { role: "user", parts: partsOf(item.content) };
  if (item.role !== "assistant") return { role: "system", parts: partsOf(item.content) as TextPart[] };
  if (typeof item.content === "string") {
    return { role: "assistant", parts: [textOf(item.content)], toolCalls: [] };
  }
  const texts = item.content.filter((part) => part.type === "output_text").map((part) => textOf(part.text));
  const refusals = item.content.filter((part) => part.type === "refusal").map((part) => part.refusal);
  return {
    role: "assistant",
    parts: texts,
    ...(refusals.length === 0 ? {} : { refusal: refusals.join("") }),
    toolCalls: [],
  };
}

/**
 * One turn of the model is one neutral message, as engines demand that the outputs of calls follow the message with all calls;
 * here each call is an item of its own. Undefined where the two are no one turn.
 */
function merge(before: ChatMessage | undefined, next: ChatMessage): ChatMessage | undefined {
  if (before?.role !== "assistant" || next.role !== "assistant") return undefined;
  if (before.toolCalls.length === 0 && next.toolCalls.length === 0) return undefined;
  const refusal = `${before.refusal ?? ""}${next.refusal ?? ""}`;
  return {
    role: "assistant",
    parts: [...before.parts, ...next.parts],
    ...(refusal === "" ? {} : { refusal }),
    toolCalls: [...before.toolCalls, ...next.toolCalls],
  };
}

function partsOf(
  content: string | Exclude<Extract<Item, { role: "user" }>["content"], string>,
): (TextPart | ImagePart)[] {
  if (typeof content === "string") return [textOf(content)];
  return content.map((part) =>
    part.type === "input_text"
      ? textOf(part.text)
      : { type: "image", url: part.image_url, ...stated({ detail: part.detail }) }
  );
}

function textOf(content: string): TextPart {
  return { type: "text", text: content };
}

function mistake(path: string, message: string): Fault {
  return new Fault("fields_invalid", "Cannot read the input: its items do not fit together", {
    fields: [{ path, message }],
  });
}
