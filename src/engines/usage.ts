// Usage: the tokens of one inference and who counted them.

/** Tokens of one inference. */
export interface Usage {
  readonly inputTokens: number;
  /** 0 where nothing is generated. */
  readonly outputTokens: number;
  /** Part of the input that the engine had cached, where it tells. */
  readonly cachedInputTokens?: number;
  /** Part of the output that was reasoning, where the engine tells. */
  readonly reasoningTokens?: number;
  /** `estimate`: the engine gave no figures and we counted (`count_tokens.ts`). */
  readonly countedBy: "engine" | "estimate";
}
