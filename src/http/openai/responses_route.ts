// `POST /v1/responses`, as OpenAI's reference has it, without what would have to be stored.
import { z } from "@hono/zod-openapi";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { ChatRequest, ResponseFormat } from "../../engines/chat.ts";
import { Fault } from "../../faults/fault.ts";
import { eventStreamAnswer } from "../event_stream.ts";
import { extraFields, INFERENCE_FAULTS, type PlaceField } from "../inference_door.ts";
import { boundedList } from "../middleware/bounded_list.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { FUNCTION_NAME } from "./chat_messages.ts";
import type { GenerationParts } from "./generation_parts.ts";
import { openaiDialect } from "./openai_error.ts";
import { fieldPlacer } from "./place_fields.ts";
import { outputOf, type RequestEcho, RESPONSE_PREFIX, responseObject } from "./responses_answer.ts";
import { ResponsesEventWriter } from "./responses_event_writer.ts";
import { readInput, responsesInputSchema, unknownType } from "./responses_input.ts";
import {
  isStated,
  labelField,
  modelField,
  stated,
  TEXT_CHARACTERS_MAX,
  tokensMaxField,
  topKApart,
} from "./sampling_fields.ts";

const TOOLS_MAX = 1024;
const METADATA_MAX = 16;
const DESCRIPTION_CHARACTERS_MAX = 65_536;

const name = z.string().regex(FUNCTION_NAME, "is no name of 1 to 64 letters, digits, _ and -");
const description = z.string().max(DESCRIPTION_CHARACTERS_MAX).nullish();
const jsonSchema = z.record(z.string(), z.unknown(), { error: "is no JSON object" }).describe(
  "A JSON Schema.",
);

const tool = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("function"),
    name,
    description,
    parameters: jsonSchema.nullish(),
    strict: z.boolean().nullish(),
  }),
], { error: unknownType("function (tools that a server would have to run are not served here)") });

const toolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  z.discriminatedUnion("type", [z.strictObject({ type: z.literal("function"), name })], {
    error: unknownType("function"),
  }),
], { error: "is neither none, auto, required nor a function of tools" });

const textFormat = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    name,
    description,
    schema: jsonSchema,
    strict: z.boolean().nullish(),
  }),
], { error: unknownType("text, json_object, json_schema") });

/** A field that may only say nothing. */
const refused = (words: string) => z.null({ error: words }).optional();
const STORES_NOTHING = "this server stores nothing";

/** Loose at its top only: of the fields that nobody here knows, the model's settings say which may pass. */
function responsesBody(imageHosts: ReadonlySet<string>) {
  return z.looseObject({
    model: modelField,
    input: responsesInputSchema(imageHosts),
    instructions: z.string().max(TEXT_CHARACTERS_MAX).nullish(),
    max_output_tokens: tokensMaxField,
    temperature: z.number().min(0).max(2).nullish(),
    top_p: z.number().min(0).max(1).nullish(),
    top_logprobs: z.literal(0, { error: "is not 0: log probabilities are not served here" }).nullish(),
    tools: boundedList(z.array(tool).max(TOOLS_MAX, `has more than ${TOOLS_MAX} tools`)).nullish(),
    tool_choice: toolChoice.nullish(),
    parallel_tool_calls: z.boolean().nullish(),
    text: z.strictObject({
      format: textFormat.nullish(),
      verbosity: z.literal("medium", { error: "is not medium, the only one here" }).nullish(),
    }).nullish(),
    reasoning: z.strictObject({
      effort: z.enum(["none", "minimal", "low", "medium", "high"]).nullish(),
      summary: refused("asks for a summary; summaries of reasoning are not served here"),
    }).nullish(),
    stream: z.boolean().nullish(),
    stream_options: z.strictObject({ include_obfuscation: z.boolean().nullish() }).nullish(),
    store: z.literal(false, { error: `is not false: ${STORES_NOTHING}` }).nullish().describe(
      "Unlike OpenAI's, an absent one means false.",
    ),
    background: z.literal(false, { error: `is not false: ${STORES_NOTHING}` }).nullish(),
    previous_response_id: refused(`refers to a stored response; ${STORES_NOTHING}: send its items in input`),
    conversation: refused(`refers to a stored conversation; ${STORES_NOTHING}: send its items in input`),
    prompt: refused(`refers to a stored prompt; ${STORES_NOTHING}: send instructions and input`),
    // Agents ask for it by default; without server-side state there is nothing to include.
    include: z.array(z.literal("reasoning.encrypted_content", "asks for what is not served here")).max(1)
      .nullish(),
    truncation: z.literal("disabled", { error: "is not disabled, the only one here" }).nullish(),
    service_tier: z.enum(["auto", "default"], { error: "is neither auto nor default" }).nullish(),
    max_tool_calls: refused("bounds calls of tools that a server runs; none are served here"),
    metadata: z.record(z.string().max(64), z.string().max(512))
      .refine(
        (entries) => Object.keys(entries).length <= METADATA_MAX,
        `has more than ${METADATA_MAX} entries`,
      )
      .nullish().describe("Answered as it came, and not used."),
    user: labelField,
    safety_identifier: labelField,
    prompt_cache_key: labelField,
  }).superRefine(({ tools, tool_choice, stream, stream_options }, context) => {
    const names = new Set<string>();
    for (const [index, { name }] of (tools ?? []).entries()) {
      if (names.has(name)) {
        context.addIssue({
          code: "custom",
          path: ["tools", index, "name"],
          message: "is the name of an earlier tool as well",
        });
      }
      names.add(name);
    }
    if (tool_choice === "required" && names.size === 0) {
      context.addIssue({ code: "custom", path: ["tool_choice"], message: "is only allowed with tools" });
    } else if (isStated(tool_choice) && typeof tool_choice === "object" && !names.has(tool_choice.name)) {
      context.addIssue({
        code: "custom",
        path: ["tool_choice", "name"],
        message: "is the name of none of the tools",
      });
    }
    if (isStated(stream_options) && stream !== true) {
      context.addIssue({
        code: "custom",
        path: ["stream_options"],
        message: "is only allowed with stream: true",
      });
    }
  });
}

type ResponsesBody = z.infer<ReturnType<typeof responsesBody>>;

/** The answer, in so far as this server has something to say in it. */
const responseSchema = z.looseObject({
  id: z.string(),
  object: z.literal("response"),
  created_at: z.int().describe("Seconds since 1970."),
  completed_at: z.int().nullable(),
  status: z.enum(["completed", "incomplete"]),
  incomplete_details: z.strictObject({ reason: z.enum(["max_output_tokens", "content_filter"]) }).nullable(),
  error: z.null(),
  model: z.string(),
  output: z.array(z.looseObject({
    id: z.string(),
    type: z.enum(["reasoning", "message", "function_call"]),
    status: z.enum(["completed", "incomplete"]),
  })),
  usage: z.strictObject({
    input_tokens: z.int(),
    input_tokens_details: z.strictObject({ cached_tokens: z.int(), cache_write_tokens: z.int() }),
    output_tokens: z.int(),
    output_tokens_details: z.strictObject({ reasoning_tokens: z.int() }),
    total_tokens: z.int(),
  }),
  store: z.literal(false),
});

/** The route. */
export function responsesRoute(parts: GenerationParts): AnyRoute {
  const { door, newId, nowSeconds } = parts;
  const body = responsesBody(parts.imageHosts);
  const known: ReadonlySet<string> = new Set(Object.keys(body.shape));
  return defineRoute({
    method: "POST",
    path: "/v1/responses",
    summary: "Answer to items of a conversation, whole or as events; nothing is stored",
    policy: { kind: "action", action: "model:infer" },
    admits: true,
    dialect: openaiDialect,
    rated: true,
    body,
    bodyBytesMax: parts.mediaBodyBytesMax,
    answers: {
      200: {
        description: "The response; with `stream`, its pieces as server-sent events.",
        schema: responseSchema,
      },
    },
    faults: INFERENCE_FAULTS,
    async handle(exchange, body) {
      const model = door.find(exchange, body.model, "chat");
      const { request, placeField } = readRequest(body, extraFields(body, known, model));
      const response = {
        id: newId(RESPONSE_PREFIX),
        created_at: nowSeconds(),
        model: model.id,
        echo: echoOf(body),
      };
      if (body.stream === true) {
        const stream = await door.stream<"chat">(exchange, model.id, request, placeField);
        return eventStreamAnswer(stream, new ResponsesEventWriter(response, exchange.id, nowSeconds));
      }
      const { answer } = await door.whole<"chat">(exchange, model.id, request, placeField);
      const choice = answer.choices[0];
      if (choice === undefined) {
        throw new Fault("upstream_answer_invalid", "Cannot answer: the engine gave no choice");
      }
      const output = outputOf(choice, response.id);
      const end = { output, finish: choice.finish, usage: answer.usage, completedAt: nowSeconds() };
      return { status: 200, body: responseObject(response, end) };
    },
  });
}

/** The neutral request, and where its fields stand in the body. */
function readRequest(
  body: ResponsesBody,
  extra: Readonly<Record<string, JsonValue>>,
): { readonly request: ChatRequest; readonly placeField: PlaceField } {
  const { messages, places } = readInput(body.instructions, body.input);
  const tools = (body.tools ?? []).map(({ name, description, parameters, strict }) => ({
    name,
    ...stated({ description, parameters: parameters as JsonValue | undefined, strict }),
  }));
  const { tool_choice } = body;
  const request: ChatRequest = {
    task: "chat",
    messages,
    tools,
    stop: [],
    choices: 1,
    ...topKApart(extra),
    ...stated({
      outputTokensMax: body.max_output_tokens,
      temperature: body.temperature,
      topP: body.top_p,
      responseFormat: neutralFormat(body.text?.format),
      reasoningEffort: body.reasoning?.effort,
    }),
    // Engines of the chat form refuse a choice among no tools, which this API lets stand.
    ...(tools.length === 0 ? {} : stated({
      toolChoice: isStated(tool_choice) && typeof tool_choice === "object"
        ? { name: tool_choice.name }
        : tool_choice,
      parallelToolCalls: body.parallel_tool_calls,
    })),
  };
  const placeOther = fieldPlacer(
    {
      outputTokensMax: "max_output_tokens",
      responseFormat: "text/format",
      reasoningEffort: "reasoning/effort",
    },
    { images: "input", messages: "input" },
  );
  const placeField: PlaceField = (path) => {
    const [, list, index] = path.split("/");
    return (list === "messages" ? places[Number(index)] : undefined) ?? placeOther(path);
  };
  return { request, placeField };
}

type TextFormat = NonNullable<ResponsesBody["text"]>["format"];

function neutralFormat(format: TextFormat): ResponseFormat | undefined {
  if (format?.type !== "json_schema") return format ?? undefined;
  const { name, schema, description, strict } = format;
  return { type: "json_schema", name, schema: schema as JsonValue, ...stated({ description, strict }) };
}

/** What OpenAI's server says of the request, in every form of its response. */
function echoOf(body: ResponsesBody): RequestEcho {
  return {
    access_programs: null,
    background: false,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: null,
    metadata: body.metadata ?? {},
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: null,
    prompt_cache_key: body.prompt_cache_key ?? null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: null },
    safety_identifier: body.safety_identifier ?? null,
    service_tier: "default",
    store: false,
    // null where the caller leaves it to the engine: its default is not known here.
    temperature: body.temperature ?? null,
    text: { format: (body.text?.format ?? { type: "text" }) as JsonValue, verbosity: "medium" },
    tool_choice: body.tool_choice ?? "auto",
    tools: (body.tools ?? []).map(({ name, description, parameters, strict }) => ({
      type: "function",
      name,
      description: description ?? null,
      parameters: (parameters ?? null) as JsonValue,
      strict: strict ?? null,
    })),
    top_logprobs: 0,
    top_p: body.top_p ?? null,
    truncation: "disabled",
    ...stated({ user: body.user }),
  };
}
