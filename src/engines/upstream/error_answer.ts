// Error answer: what an upstream's error status means, in our own words. Nothing of its body ever leaves this file.
import { decodeUtf8 } from "../../encoding/utf8.ts";
import type { Clock } from "../../time/clock.ts";
import { UpstreamFault } from "./upstream_fault.ts";

/** So much of an error's body is read. */
export const ERROR_BODY_BYTES_MAX = 64 * 1024;

const RETRY_AFTER_SECONDS_MAX = 60;
const RETRY_AFTER_SECONDS_DEFAULT = 1;

/** Statuses that may speak of the input. Some engines say 500 to inputs that are too long: a caller's doing, no failure. */
const ABOUT_THE_INPUT: readonly number[] = [400, 413, 422, 500];

/** Codes and types of an input that is too long. */
const CONTEXT_CODES: readonly string[] = [
  "context_length_exceeded", // OpenAI, and those that copy it
  "exceed_context_size_error", // llama.cpp
];

/** Words that messages about an input that is too long have in common, in lower case. */
const CONTEXT_WORDS: readonly string[] = [
  "context length", // OpenAI, vLLM, SGLang, Ollama
  "context window",
  "context size", // llama.cpp
  "context limit", // Anthropic: "input length and `max_tokens` exceed context limit"
  "maximum model length", // vLLM
  "max_model_len",
  "prompt is too long", // Anthropic
  "input is too large to process", // llama.cpp, embeddings
  "must have less than", // TEI: "`inputs` must have less than 512 tokens"
];
/** Where the words stand in a message if they stand anywhere. */
const MESSAGE_CHARACTERS_MAX = 4096;

/** Whether the body of an answer with this status can change what it means. */
export function errorBodyMatters(status: number): boolean {
  return ABOUT_THE_INPUT.includes(status);
}

/**
 * The Fault for an answer with an error status.
 *
 * @param upstream its name in the settings
 * @param body the beginning of the body where `errorBodyMatters`, else nothing
 */
export function faultOfErrorAnswer(
  upstream: string,
  answer: { readonly status: number; readonly headers: Headers; readonly body: Uint8Array },
  clock: Clock,
): UpstreamFault {
  const { status } = answer;
  const reason = `Cannot run on ${upstream}: it answered with status ${status}`;
  if (errorBodyMatters(status) && isAboutContext(answer.body)) {
    return new UpstreamFault("context_length_exceeded", reason, "refusal");
  }
  switch (status) {
    case 400:
    case 413:
    case 422:
      return new UpstreamFault("input_refused", reason, "refusal");
    case 408:
      return new UpstreamFault("upstream_timeout", reason, "before_answer");
    case 429:
    case 503:
    case 529: // Anthropic: overloaded
      return new UpstreamFault("overloaded", reason, undefined, {
        retryAfterSeconds: retryAfterSeconds(answer.headers.get("retry-after"), clock),
      });
    // A gateway that stands before the engine could not reach it.
    case 502:
    case 504:
      return new UpstreamFault("upstream_failed", reason, "on_the_way");
    default:
      return new UpstreamFault("upstream_failed", reason, status < 500 ? "refusal" : undefined);
  }
}

/** Retry-After (RFC 9110 §10.2.3), seconds or a date, from 1 to 60. */
function retryAfterSeconds(value: string | null, clock: Clock): number {
  const text = value?.trim() ?? "";
  const seconds = /^\d{1,9}$/.test(text)
    ? Number(text)
    : text.endsWith("GMT")
    ? Math.ceil((Date.parse(text) - clock.now()) / 1000)
    : NaN;
  if (Number.isNaN(seconds)) return RETRY_AFTER_SECONDS_DEFAULT;
  return Math.min(RETRY_AFTER_SECONDS_MAX, Math.max(1, seconds));
}

function isAboutContext(body: Uint8Array): boolean {
  const text = decodeUtf8(body);
  if (!text.ok) return false;
  let value: unknown;
  try {
    value = JSON.parse(text.value);
  } catch {
    return false;
  }
  // { error: { message, code, type } } · { error: "…" } · { message, code, type } · { detail: "…" }
  const outer = membersOf(value);
  const inner = membersOf(outer["error"]);
  const codes = [inner["code"], inner["type"], outer["code"], outer["type"]];
  if (codes.some((code) => typeof code === "string" && CONTEXT_CODES.includes(code))) return true;
  const messages = [inner["message"], outer["error"], outer["message"], outer["detail"]];
  return messages.some((message) => {
    if (typeof message !== "string") return false;
    const words = message.slice(0, MESSAGE_CHARACTERS_MAX).toLowerCase();
    return CONTEXT_WORDS.some((known) => words.includes(known));
  });
}

function membersOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
}
