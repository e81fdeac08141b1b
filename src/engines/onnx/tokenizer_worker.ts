// Tokenizer worker: turns texts into token ids, away from the thread that answers requests.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { createUnigramTokenizer, parseUnigramVocabulary } from "./unigram_tokenizer.ts";
import { packRows, type TokenizerOrder, type TokensAnswer, type WorkerReport } from "./worker_messages.ts";

let tokenize: ReturnType<typeof createUnigramTokenizer> | undefined;

self.onmessage = ({ data }: MessageEvent<TokenizerOrder>) => {
  if (data.kind === "start") self.postMessage(start(data.vocabulary));
  else answer(data.texts);
};

function start(vocabulary: Uint8Array): WorkerReport {
  try {
    tokenize = createUnigramTokenizer(parseUnigramVocabulary(vocabulary));
    return { kind: "started" };
  } catch (error) {
    return { kind: "refused", reason: String(error) };
  }
}

function answer(texts: readonly string[]): void {
  if (tokenize === undefined) throw new Error("Cannot tokenize: not started");
  const tokens: TokensAnswer = { kind: "tokens", ...packRows(texts.map(tokenize)) };
  self.postMessage(tokens);
}
