// Answer JSON: what an upstream sent, checked by hand. Nothing of it ever stands in a Fault but a code.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { endOfString } from "../../encoding/strict_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";

/** An object as JSON.parse made it: its members are there or not, and are of any type. */
export interface AnswerObject {
  readonly [name: string]: unknown;
}

/** No engine counts so many tokens in one answer. */
const TOKENS_MAX = 1_000_000_000;
/**
 * Objects and arrays of one answer, and members of all its objects. Each costs some hundred nanoseconds and bytes: a few megabytes of
 * them would hold a core for seconds.
 */
const CONTAINERS_MAX = 100_000;
const MEMBERS_MAX = 200_000;
const QUOTE = 0x22,
  COLON = 0x3a,
  OPEN_BRACKET = 0x5b,
  OPEN_BRACE = 0x7b;
/** Calls of tools in one answer. */
export const TOOL_CALLS_MAX = 128;
/**
 * Codes and types of errors that may stand in our log. A closed list: what an upstream makes up may be a key or a prompt, however
 * plain it looks.
 */
const ERROR_CODES: ReadonlySet<string> = new Set([
  // OpenAI, and those that copy it
  "api_error",
  "content_filter",
  "content_policy_violation",
  "context_length_exceeded",
  "engine_overloaded",
  "insufficient_quota",
  "internal_error",
  "internal_server_error",
  "invalid_api_key",
  "invalid_prompt",
  "invalid_request_error",
  "model_not_found",
  "rate_limit_exceeded",
  "requests",
  "server_error",
  "service_unavailable",
  "tokens",
  "unsupported_parameter",
  "unsupported_value",
  // Anthropic
  "authentication_error",
  "billing_error",
  "not_found_error",
  "overloaded_error",
  "permission_error",
  "rate_limit_error",
  "request_too_large",
  "timeout_error",
  // llama.cpp
  "exceed_context_size_error",
  "not_supported_error",
  "unavailable_error",
  // vLLM, SGLang
  "BadRequestError",
  "InternalServerError",
  "NotFoundError",
  "ServiceUnavailableError",
  "abort_error",
  // Statuses, which the last three give as codes
  ...["400", "401", "403", "404", "408", "413", "422", "429", "500", "501", "502", "503", "504", "529"],
]);

/** The Fault of an answer that is no valid one; `what` is in our own words. */
export function answerInvalid(what: string): Fault {
  return new Fault("upstream_answer_invalid", `Cannot read the upstream's answer: ${what}`);
}

/** Whether a value is a JSON object. */
export function isObject(value: unknown): value is AnswerObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws Fault `upstream_answer_invalid` where the value is no object */
export function objectOf(value: unknown, what: string): AnswerObject {
  if (!isObject(value)) throw answerInvalid(`${what} is no object`);
  return value;
}

/** @throws Fault `upstream_answer_invalid` where the value is no list */
export function listOf(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw answerInvalid(`${what} is no list`);
  return value;
}

/** Text, or undefined where the value is null or absent. @throws Fault `upstream_answer_invalid` for anything else */
export function textOf(value: unknown, what: string): string | undefined {
  if (typeof value === "string") return value;
  if (value === null || value === undefined) return undefined;
  throw answerInvalid(`${what} is no text`);
}

/** A count of tokens, or undefined where null or absent. @throws Fault `upstream_answer_invalid` for anything else */
export function tokensOf(value: unknown, what: string): number | undefined {
  if (value === null || value === undefined) return undefined;
  return wholeNumberOf(value, TOKENS_MAX + 1, what);
}

/** A whole number from 0 up to and without `end`. @throws Fault `upstream_answer_invalid` */
export function wholeNumberOf(value: unknown, end: number, what: string): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 0 && value < end) return value;
  throw answerInvalid(`${what} is out of range`);
}

/**
 * A value to be passed on. JSON.parse reads nesting of any depth, but JSON.stringify overflows the stack on it.
 *
 * @throws Fault `upstream_answer_invalid` where arrays and objects stand more than `depthMax` deep in each other
 */
export function shallowJson(value: unknown, depthMax: number, what: string): JsonValue {
  if (isDeeper(value, depthMax)) throw answerInvalid(`${what} is nested too deep`);
  return value as JsonValue;
}

function isDeeper(value: unknown, depthMax: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (depthMax === 0) return true;
  for (const member of Array.isArray(value) ? value : Object.values(value)) {
    if (isDeeper(member, depthMax - 1)) return true;
  }
  return false;
}

/** JSON of any kind, of bounded cost. @throws Fault `upstream_answer_invalid` */
export function parseAnswer(text: string): unknown {
  requireModest(text);
  try {
    return JSON.parse(text);
  } catch {
    // The error quotes what it could not parse.
    throw answerInvalid("it is no JSON");
  }
}

/** Counts before anything is made of them. The text may be no JSON at all: what it is then, the parser says. */
function requireModest(text: string): void {
  // The end of a shorter one comes before any bound.
  if (text.length <= CONTAINERS_MAX) return;
  let containers = 0;
  let members = 0;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      if (++containers > CONTAINERS_MAX) throw answerInvalid("it has too many objects and arrays");
    } else if (code === COLON) {
      if (++members > MEMBERS_MAX) throw answerInvalid("it has too many members");
    } else if (code === QUOTE) {
      index = endOfString(text, index);
      if (index === -1) return;
    }
  }
}

/** UTF-8. @throws Fault `upstream_answer_invalid` */
export function decodeAnswer(bytes: Uint8Array): string {
  const text = decodeUtf8(bytes);
  if (!text.ok) throw answerInvalid("it is no UTF-8");
  return text.value;
}

/** JSON of any kind, from UTF-8. @throws Fault `upstream_answer_invalid` */
export function readAnswerJson(bytes: Uint8Array): unknown {
  return parseAnswer(decodeAnswer(bytes));
}

/** A whole answer that is a JSON object and no error. @throws Fault `upstream_answer_invalid` */
export function readAnswerObject(bytes: Uint8Array): AnswerObject {
  return goodObjectOf(readAnswerJson(bytes));
}

/** An object that is no error. @throws Fault `upstream_answer_invalid` */
export function goodObjectOf(value: unknown): AnswerObject {
  const body = objectOf(value, "it");
  if (!isErrorBody(body)) return body;
  throw answerInvalid(`an error under a good status, code ${errorCodeOf(body) ?? "unknown"}`);
}

/** Whether an object tells of an error: OpenAI's envelope, or vLLM's older `{"object": "error"}`. */
export function isErrorBody(body: AnswerObject): boolean {
  return (body.error !== undefined && body.error !== null) || body.object === "error";
}

/** The code or the type of an error, where it is one that we know. Its message may quote prompts and secrets. */
export function errorCodeOf(body: AnswerObject): string | undefined {
  const error = isObject(body.error) ? body.error : body;
  for (const candidate of [error.code, error.type]) {
    if (typeof candidate !== "string" && typeof candidate !== "number") continue;
    const code = String(candidate);
    if (ERROR_CODES.has(code)) return code;
  }
  return undefined;
}
