// Usage: the figures of OpenAI-compatible engines, in both of OpenAI's spellings.
import type { Usage } from "../../usage.ts";
import { objectOf, tokensOf } from "../answer_json.ts";

const UNCOUNTED: Usage = { inputTokens: 0, outputTokens: 0, countedBy: "estimate" };

/** The figures of a whole answer; zeros by `estimate` where the engine gave none. @throws Fault `upstream_answer_invalid` */
export function readUsage(value: unknown): Usage {
  return findUsage(value) ?? UNCOUNTED;
}

/**
 * The figures, where there are any. Nothing but zeros is none: some engines have the fields and never fill them.
 *
 * @throws Fault `upstream_answer_invalid`
 */
export function findUsage(value: unknown): Usage | undefined {
  if (value === null || value === undefined) return undefined;
  const usage = objectOf(value, "its usage");
  // Rerankers give the sum only, and it is all input.
  const input = tokensOf(usage.prompt_tokens ?? usage.input_tokens ?? usage.total_tokens, "its input tokens");
  const output = tokensOf(usage.completion_tokens ?? usage.output_tokens, "its output tokens") ?? 0;
  const cached = detailOf(usage.prompt_tokens_details ?? usage.input_tokens_details, "cached_tokens");
  const reasoning = detailOf(
    usage.completion_tokens_details ?? usage.output_tokens_details,
    "reasoning_tokens",
  ) ??
    tokensOf(usage.reasoning_tokens, "its reasoning tokens"); // SGLang
  if (input === undefined || input + output === 0) return undefined;
  return {
    inputTokens: input,
    outputTokens: output,
    ...(cached === undefined ? {} : { cachedInputTokens: cached }),
    ...(reasoning === undefined ? {} : { reasoningTokens: reasoning }),
    countedBy: "engine",
  };
}

function detailOf(value: unknown, name: string): number | undefined {
  if (value === null || value === undefined) return undefined;
  return tokensOf(objectOf(value, "a detail of its usage")[name], "a detail of its usage");
}
