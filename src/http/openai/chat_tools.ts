// Chat tools: the functions that a model may call and the form that its answer must have, from OpenAI's wire form to the neutral one.
import { z } from "@hono/zod-openapi";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { ChatRequest, ResponseFormat, Tool, ToolChoice } from "../../engines/chat.ts";
import { boundedList } from "../middleware/bounded_list.ts";
import { FUNCTION_NAME } from "./chat_messages.ts";
import { isStated, stated } from "./sampling_fields.ts";

const TOOLS_MAX = 1024;
const DESCRIPTION_CHARACTERS_MAX = 65_536;

const name = z.string().regex(FUNCTION_NAME, "is no name of 1 to 64 letters, digits, _ and -");
const description = z.string().max(DESCRIPTION_CHARACTERS_MAX).nullish();
const jsonSchema = z.record(z.string(), z.unknown(), { error: "is no JSON object" }).describe(
  "A JSON Schema.",
);
const type = z.literal("function", { error: "is not function, the only type of tool here" });

const tool = z.strictObject({
  type,
  function: z.strictObject({
    name,
    description,
    parameters: jsonSchema.nullish(),
    strict: z.boolean().nullish(),
  }),
});

/** As in OpenAI's reference. */
export const toolFields = {
  tools: boundedList(z.array(tool).max(TOOLS_MAX)).nullish(),
  tool_choice: z.union([
    z.enum(["none", "auto", "required"]),
    z.strictObject({ type, function: z.strictObject({ name }) }),
  ], { error: "is neither none, auto, required nor a function of tools" }).nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  response_format: z.discriminatedUnion("type", [
    z.strictObject({ type: z.literal("text") }),
    z.strictObject({ type: z.literal("json_object") }),
    z.strictObject({
      type: z.literal("json_schema"),
      json_schema: z.strictObject({ name, description, schema: jsonSchema, strict: z.boolean().nullish() }),
    }),
  ], { error: "is none of text, json_object, json_schema" }).nullish(),
};

const toolBody = z.object(toolFields);
type ToolBody = z.infer<typeof toolBody>;

/** Adds the mistakes that tools and the choice among them make together. */
export function checkTools({ tools, tool_choice }: ToolBody, context: z.core.$RefinementCtx): void {
  const names = new Set<string>();
  for (const [index, { function: { name } }] of (tools ?? []).entries()) {
    if (names.has(name)) {
      context.addIssue({
        code: "custom",
        path: ["tools", index, "function", "name"],
        message: "is the name of an earlier tool as well",
      });
    }
    names.add(name);
  }
  if (!isStated(tool_choice)) return;
  if (names.size === 0) {
    context.addIssue({ code: "custom", path: ["tool_choice"], message: "is only allowed with tools" });
  } else if (typeof tool_choice === "object" && !names.has(tool_choice.function.name)) {
    context.addIssue({
      code: "custom",
      path: ["tool_choice", "function", "name"],
      message: "is the name of none of the tools",
    });
  }
}

/** The neutral form of fields that have passed the schema and the check. */
export function neutralTools(
  body: ToolBody,
): Pick<ChatRequest, "tools" | "toolChoice" | "parallelToolCalls" | "responseFormat"> {
  return {
    tools: (body.tools ?? []).map(({ function: { name, description, parameters, strict } }): Tool => ({
      name,
      ...stated({ description, parameters: parameters as JsonValue | undefined, strict }),
    })),
    ...stated({
      toolChoice: neutralChoice(body.tool_choice),
      parallelToolCalls: body.parallel_tool_calls,
      responseFormat: neutralFormat(body.response_format),
    }),
  };
}

function neutralChoice(choice: ToolBody["tool_choice"]): ToolChoice | undefined {
  return isStated(choice) && typeof choice === "object"
    ? { name: choice.function.name }
    : choice ?? undefined;
}

function neutralFormat(format: ToolBody["response_format"]): ResponseFormat | undefined {
  if (format?.type !== "json_schema") return format ?? undefined;
  const { name, schema, description, strict } = format.json_schema;
  return { type: "json_schema", name, schema: schema as JsonValue, ...stated({ description, strict }) };
}
