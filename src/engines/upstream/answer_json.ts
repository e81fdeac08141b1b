// Answer JSON: what an upstream sent, checked by hand. Nothing of it ever stands in a Fault but a code.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";

/** An object as JSON.parse made it: its members are there or not, and are of any type. */
export interface AnswerObject {
  readonly [name: string]: unknown;
}

/** No engine counts so many tokens in one answer. */
const TOKENS_MAX = 1_000_000_000;
/** What an error's code may look like to stand in our log. */
const CODE = /^[a-z0-9_.-]{1,64}$/i;

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

/** JSON of any kind. @throws Fault `upstream_answer_invalid` */
export function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The error quotes what it could not parse.
    throw answerInvalid("it is no JSON");
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

/** The code or the type of an error, where it is a plain word or number. Its message may quote prompts and secrets. */
export function errorCodeOf(body: AnswerObject): string | undefined {
  const error = isObject(body.error) ? body.error : body;
  for (const candidate of [error.code, error.type]) {
    if (typeof candidate !== "string" && typeof candidate !== "number") continue;
    const code = String(candidate);
    if (CODE.test(code)) return code;
  }
  return undefined;
}
