// Moderation: texts as POST /moderations, and what is judged of them.
import type { ModerationRequest, Moderations } from "../../task.ts";
import { answerInvalid, type AnswerObject, listOf, objectOf, readAnswerObject } from "../answer_json.ts";
import type { WholeCall, WireOptions } from "../wire.ts";
import { JSON_ONLY, jsonRequest } from "./json_request.ts";
import { readUsage } from "./usage.ts";

/** Categories of one judgement; OpenAI's models have thirteen. */
const CATEGORIES_MAX = 256;

/** Texts to judgements. */
export function moderationCall(request: ModerationRequest, { model }: WireOptions): WholeCall<"moderation"> {
  return {
    request: jsonRequest("/moderations", JSON_ONLY, { model, input: request.texts }),
    read: ({ bytes }) => readModerations(readAnswerObject(bytes), request.texts.length),
  };
}

function readModerations(body: AnswerObject, count: number): Moderations {
  const list = listOf(body.results, "its list of results");
  if (list.length !== count) throw answerInvalid("it has too few or many results");
  const results = list.map((each) => {
    const { flagged, categories, category_scores } = objectOf(each, "a result");
    if (typeof flagged !== "boolean") throw answerInvalid("a result does not say whether it is flagged");
    return {
      flagged,
      categories: membersOf(categories, "a category", isBoolean),
      scores: membersOf(category_scores, "a category's score", isFiniteNumber),
    };
  });
  return { results, usage: readUsage(body.usage) };
}

const isBoolean = (value: unknown): value is boolean => typeof value === "boolean";
const isFiniteNumber = (value: unknown): value is number =>
  typeof value === "number" && Number.isFinite(value);

/** The members of an object by name; those that are null are left out, as categories are that a model does not judge. */
function membersOf<Value>(
  value: unknown,
  what: string,
  isValid: (member: unknown) => member is Value,
): Readonly<Record<string, Value>> {
  if (value === null || value === undefined) return {};
  const members: [string, Value][] = [];
  const entries = Object.entries(objectOf(value, what));
  if (entries.length > CATEGORIES_MAX) throw answerInvalid("a result has too many categories");
  for (const [name, member] of entries) {
    if (member === null) continue;
    if (!isValid(member)) throw answerInvalid(`${what} is of the wrong type`);
    members.push([name, member]);
  }
  // Unlike an assignment, this gives "__proto__" no power.
  return Object.fromEntries(members);
}
