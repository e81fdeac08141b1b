// Messages body: what Anthropic's Messages form may hold, checked strictly, within each field and between them.
import { z } from "@hono/zod-openapi";
import {
  IMAGE_CHARACTERS_MAX,
  imageAddressMistake,
  imageDataMistake,
  type ImageType,
} from "../image_source.ts";
import { boundedList, MISTAKES_MAX } from "../middleware/bounded_list.ts";

const TEXT_CHARACTERS_MAX = 10_485_760;
const MESSAGES_MAX = 10_000;
const BLOCKS_MAX = 1000;
const ID_CHARACTERS_MAX = 256;
const SCHEMA_CHARACTERS_MAX = 1_048_576;
const SIGNATURE_CHARACTERS_MAX = 1_048_576;
const TOOLS_MAX = 1000;
const STOP_MAX = 64;
const TOKENS_MAX = 100_000_000;
/** Anthropic's own. */
const BUDGET_TOKENS_MIN = 1024;

// Engines cache by themselves.
const cacheControl = z.strictObject({
  type: z.literal("ephemeral"),
  ttl: z.enum(["5m", "1h"]).optional(),
}).nullish().describe("Accepted for compatibility and not used.");

const someText = z.string({ error: "is not a text" }).min(1, "is empty")
  .max(TEXT_CHARACTERS_MAX, `has more than ${TEXT_CHARACTERS_MAX} characters`);
const id = z.string().min(1).max(ID_CHARACTERS_MAX);

/** A value that JSON can hold: it comes from JSON, whose depth is bounded. */
const jsonObject = z.record(z.string(), z.unknown(), { error: "is no JSON object" }).refine(
  (value) => JSON.stringify(value).length <= SCHEMA_CHARACTERS_MAX,
  `has more than ${SCHEMA_CHARACTERS_MAX} characters`,
);

const textBlock = z.strictObject({
  type: z.literal("text"),
  text: someText,
  cache_control: cacheControl,
  citations: z.array(z.unknown()).max(0, "cannot be taken: this server has no citations").nullish(),
});

const toolUseBlock = z.strictObject({
  type: z.literal("tool_use"),
  id,
  name: z.string().min(1).max(ID_CHARACTERS_MAX),
  input: jsonObject,
  cache_control: cacheControl,
  caller: z.strictObject({ type: z.literal("direct", { error: "is not direct" }) }).nullish(),
  toolset_name: z.null().optional(),
});

// What a model thought is its own engine's: no other could read it, and ours does not sign it. It is taken and dropped.
const thinkingBlock = z.strictObject({
  type: z.literal("thinking"),
  thinking: z.string().max(TEXT_CHARACTERS_MAX),
  signature: z.string().max(SIGNATURE_CHARACTERS_MAX),
});
const redactedThinkingBlock = z.strictObject({
  type: z.literal("redacted_thinking"),
  data: z.string().max(SIGNATURE_CHARACTERS_MAX),
});

const blockMistake = (kinds: string) => ({ error: `is no kind of block that is taken here: ${kinds}` });

/** A text, or a list of blocks. */
function content<Block extends z.ZodType>(block: Block, text = someText, blocksMin = 1) {
  const blocks = boundedList(
    z.array(block).min(blocksMin, "has no blocks").max(BLOCKS_MAX, `has more than ${BLOCKS_MAX} blocks`),
  );
  return z.union([text, blocks], { error: "is neither a text nor a list of blocks" });
}

function imageBlock(imageHosts: ReadonlySet<string>) {
  const base64 = z.strictObject({
    type: z.literal("base64"),
    media_type: z.enum(["image/png", "image/jpeg", "image/webp", "image/gif"]),
    data: z.string().max(IMAGE_CHARACTERS_MAX, `has more than ${IMAGE_CHARACTERS_MAX} characters`),
  }).superRefine(({ media_type, data }, context) => {
    const message = imageDataMistake(media_type.slice("image/".length) as ImageType, data);
    if (message !== undefined) context.addIssue({ code: "custom", path: ["data"], message });
  });
  const url = z.strictObject({ type: z.literal("url"), url: z.string() }).superRefine((source, context) => {
    const message = imageAddressMistake(source.url, imageHosts);
    if (message !== undefined) context.addIssue({ code: "custom", path: ["url"], message });
  });
  return z.strictObject({
    type: z.literal("image"),
    source: z.discriminatedUnion("type", [base64, url], {
      error: "is no source of images that is taken here: base64 or url",
    }),
    cache_control: cacheControl,
  });
}

function messages(imageHosts: ReadonlySet<string>) {
  const image = imageBlock(imageHosts);
  const toolResultBlock = z.strictObject({
    type: z.literal("tool_result"),
    tool_use_id: id,
    // A tool may have nothing to say.
    content: content(
      z.discriminatedUnion("type", [textBlock, image], blockMistake("text or image")),
      z.string().max(TEXT_CHARACTERS_MAX),
      0,
    ).optional(),
    is_error: z.boolean().optional(),
    cache_control: cacheControl,
    toolset_name: z.null().optional(),
  });
  const user = z.strictObject({
    role: z.literal("user"),
    content: content(z.discriminatedUnion(
      "type",
      [textBlock, image, toolResultBlock],
      blockMistake("text, image or tool_result"),
    )),
  });
  const assistant = z.strictObject({
    role: z.literal("assistant"),
    content: content(z.discriminatedUnion(
      "type",
      [textBlock, toolUseBlock, thinkingBlock, redactedThinkingBlock],
      blockMistake("text, tool_use, thinking or redacted_thinking"),
    )),
  });
  const system = z.strictObject({ role: z.literal("system"), content: content(textBlock) });
  const message = z.discriminatedUnion("role", [user, assistant, system], {
    error: "is not user, assistant or system",
  });
  return boundedList(
    z.array(message).min(1, "has no messages").max(MESSAGES_MAX, `has more than ${MESSAGES_MAX} messages`),
  );
}

const tool = z.strictObject({
  type: z.literal("custom", {
    error: "is not custom: this server runs no tools and knows none of Anthropic's own",
  })
    .nullish(),
  name: z.string().regex(/^[a-zA-Z0-9_-]{1,128}$/, "is not 1 to 128 letters, digits, underscores and dashes"),
  description: z.string().max(SCHEMA_CHARACTERS_MAX).optional(),
  input_schema: jsonObject.refine((schema) => schema.type === "object", "is no JSON Schema of type object"),
  strict: z.boolean().optional(),
  eager_input_streaming: z.boolean().nullish().describe(
    "Accepted for compatibility: arguments come as they are made.",
  ),
  cache_control: cacheControl,
});

const disableParallel = { disable_parallel_tool_use: z.boolean().optional() };
const toolChoice = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("auto"), ...disableParallel }),
  z.strictObject({ type: z.literal("any"), ...disableParallel }),
  z.strictObject({ type: z.literal("tool"), name: z.string().min(1).max(128), ...disableParallel }),
  z.strictObject({ type: z.literal("none") }),
], { error: "is not auto, any, tool or none" });

const display = { display: z.enum(["summarized", "omitted"]).nullish() };
const thinking = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("disabled") }),
  z.strictObject({
    type: z.literal("enabled"),
    budget_tokens: z.int().min(BUDGET_TOKENS_MIN, `is less than ${BUDGET_TOKENS_MIN}`).max(TOKENS_MAX),
    ...display,
  }),
  z.strictObject({ type: z.literal("adaptive"), ...display }),
], { error: "is not disabled, enabled or adaptive" });

const outputFormat = z.strictObject({
  type: z.literal("json_schema", { error: "is not json_schema" }),
  schema: jsonObject,
});

/** What both routes take. */
function conversationFields(imageHosts: ReadonlySet<string>) {
  return {
    model: z.string().min(1).max(256),
    messages: messages(imageHosts),
    system: content(textBlock, z.string().max(TEXT_CHARACTERS_MAX), 0).optional(),
    tools: boundedList(z.array(tool).max(TOOLS_MAX, `has more than ${TOOLS_MAX} tools`)).optional(),
    tool_choice: toolChoice.optional(),
    thinking: thinking.optional(),
    output_config: z.strictObject({
      effort: z.enum(["low", "medium", "high", "xhigh", "max"]).nullish(),
      format: outputFormat.nullish(),
    }).optional(),
    output_format: outputFormat.nullish().describe("The older name of output_config.format."),
    cache_control: cacheControl,
  };
}

/** The body of `POST /v1/messages`. Loose at its top only: of unknown fields, the model's settings say which may pass. */
export function messagesBody(imageHosts: ReadonlySet<string>) {
  return z.looseObject({
    ...conversationFields(imageHosts),
    max_tokens: z.int().min(1).max(TOKENS_MAX),
    stop_sequences: z.array(z.string().min(1, "is empty").max(256))
      .max(STOP_MAX, `has more than ${STOP_MAX} texts`).optional(),
    temperature: z.number().min(0).max(1).optional(),
    top_p: z.number().min(0).max(1).optional(),
    top_k: z.int().min(0).max(1_000_000).optional(),
    stream: z.boolean().optional(),
    metadata: z.strictObject({ user_id: z.string().max(512).nullish() }).optional().describe(
      "Accepted for compatibility and not used: who asks is known from the token.",
    ),
    service_tier: z.enum(["auto", "standard_only"]).optional(),
  }).superRefine((body, context) => {
    const add = mistakesInto(context);
    checkConversation(body, add);
    if (body.thinking?.type === "enabled" && body.thinking.budget_tokens >= body.max_tokens) {
      add(["thinking", "budget_tokens"], "is not less than max_tokens");
    }
  });
}

/** The body of `POST /v1/messages/count_tokens`. */
export function countTokensBody(imageHosts: ReadonlySet<string>) {
  return z.looseObject(conversationFields(imageHosts)).superRefine((body, context) =>
    checkConversation(body, mistakesInto(context))
  );
}

/** A checked body of `POST /v1/messages`. */
export type MessagesBody = z.infer<ReturnType<typeof messagesBody>>;
/** What both bodies hold. */
export type ConversationBody = z.infer<z.ZodObject<ReturnType<typeof conversationFields>>>;
/** One message of a checked body. */
export type Message = ConversationBody["messages"][number];
type AddMistake = (path: (string | number)[], message: string) => void;

function mistakesInto(context: z.core.$RefinementCtx): AddMistake {
  let left = MISTAKES_MAX;
  return (path, message) => {
    if (left-- > 0) context.addIssue({ code: "custom", path, message });
  };
}

/** What holds between fields. */
function checkConversation(body: ConversationBody, add: AddMistake): void {
  checkToolResults(body.messages, add);
  if (body.messages.every(({ content }) => isThoughtOnly(content))) {
    add(["messages"], "holds nothing but thinking");
  }
  const names = new Set<string>();
  for (const [index, { name }] of (body.tools ?? []).entries()) {
    if (names.has(name)) add(["tools", index, "name"], "is the name of another tool as well");
    names.add(name);
  }
  const choice = body.tool_choice;
  if (choice?.type === "any" && names.size === 0) add(["tool_choice"], "asks for a tool and there is none");
  if (choice?.type === "tool" && !names.has(choice.name)) {
    add(["tool_choice", "name"], "is the name of no tool");
  }
  if (body.output_format && body.output_config?.format) {
    add(["output_format"], "says the same as output_config.format; send one of them");
  }
}

/** Every result answers a call that came before it, once, and stands before all else in its message. */
function checkToolResults(messages: readonly Message[], add: AddMistake): void {
  const open = new Set<string>();
  const called = new Set<string>();
  for (const [at, { content }] of messages.entries()) {
    if (typeof content === "string") continue;
    let others = false;
    for (const [index, block] of content.entries()) {
      if (block.type === "tool_use") {
        if (called.has(block.id)) {
          add(["messages", at, "content", index, "id"], "is the id of another tool_use as well");
        }
        called.add(block.id);
        open.add(block.id);
      } else if (block.type === "tool_result") {
        const place = ["messages", at, "content", index, "tool_use_id"];
        if (others) add(place.slice(0, 4), "stands behind other blocks; results come first");
        if (!called.has(block.tool_use_id)) add(place, "is the id of no earlier tool_use");
        else if (!open.delete(block.tool_use_id)) add(place, "has a result already");
      } else others = true;
    }
  }
}

/** Whether a message holds what a model thought, and nothing else. */
export function isThoughtOnly(content: Message["content"]): boolean {
  return typeof content !== "string" &&
    content.every(({ type }) => type === "thinking" || type === "redacted_thinking");
}
