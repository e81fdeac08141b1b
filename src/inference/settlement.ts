// Settlement: what one inference used up. The engine's figures where it gave them for all that was sent, else our own count.
import type { ChatAnswer, ChatEvent, ChatRequest, CompletionRequest } from "../engines/chat.ts";
import type { TaskRequest } from "../engines/task.ts";
import type { Usage } from "../engines/usage.ts";
import { countChatTokens, countTokens } from "./count_tokens.ts";

/** Counts one inference. */
export interface Settlement {
  /** A whole answer has come. Returns it with figures: the engine's or ours. */
  answered<Answer>(answer: Answer): Answer;
  /** Pieces have come and are sent on. */
  sent(items: readonly unknown[]): void;
  /** The pieces that a stream owes before it ends well: figures, where the engine gave none. */
  owed<Item>(): readonly Item[];
  /** What is to be recorded. */
  usage(completed: boolean): Usage;
}

const NOTHING: Usage = { inputTokens: 0, outputTokens: 0, countedBy: "engine" };

/** Makes the settlement of a request. */
export function settlementOf(request: TaskRequest): Settlement {
  let engineUsage: Usage | undefined;
  let sentTokens = 0;
  let anySent = false;

  const estimate = (outputTokens: number): Usage => ({
    inputTokens: inputTokensOf(request),
    outputTokens,
    countedBy: "estimate",
  });

  return {
    answered(answer) {
      const { usage } = answer as { readonly usage?: Usage };
      if (usage === undefined) return answer;
      const ours = (): Usage => estimate(outputTokensOf(request, answer));
      engineUsage = usage.countedBy === "engine" && !isForOneOfSeveral(request, usage, ours) ? usage : ours();
      return usage === engineUsage ? answer : { ...answer, usage: engineUsage };
    },
    sent(items) {
      anySent = true;
      if (request.task === "speech") return;
      for (const item of items as readonly ChatEvent[]) {
        if (item.type === "usage") {
          const ours = (): Usage => estimate(sentTokens);
          if (item.usage.countedBy !== "engine") continue;
          engineUsage = isForOneOfSeveral(request, item.usage, ours) ? ours() : item.usage;
        } else if (item.type === "tool_call") {
          sentTokens += countTokens(item.arguments) + (item.name === undefined ? 0 : countTokens(item.name));
        } else if (item.type !== "finish") {
          sentTokens += countTokens(item.text);
        }
      }
    },
    owed<Item>() {
      if (engineUsage !== undefined || request.task === "speech") return [];
      engineUsage = estimate(sentTokens);
      return [{ type: "usage", usage: engineUsage } as Item];
    },
    usage(completed) {
      if (completed && engineUsage !== undefined) return engineUsage;
      // Of what broke off, only what was sent counts: figures for the whole would bill what nobody got.
      return anySent ? estimate(sentTokens) : engineUsage ?? NOTHING;
    },
  };
}

/** Far enough below our own count that it is no matter of how one counts. */
const ONE_OF_SEVERAL = 0.75;

/** Some engines count the first of several answers only (llama.cpp); what was sent is what counts. */
function isForOneOfSeveral(request: TaskRequest, { outputTokens }: Usage, ours: () => Usage): boolean {
  if (!isGenerated(request)) return false;
  const answers = request.choices * (request.task === "completion" ? request.prompts.length : 1);
  return answers > 1 && outputTokens < ONE_OF_SEVERAL * ours().outputTokens;
}

/** Our own count of what a request says. */
export function inputTokensOf(request: TaskRequest): number {
  const sum = (texts: readonly string[]): number =>
    texts.reduce((total, text) => total + countTokens(text), 0);
  switch (request.task) {
    case "chat":
      return countChatTokens(request.messages, request.tools);
    case "completion":
      return sum(request.prompts);
    case "embedding":
    case "moderation":
      return sum(request.texts);
    case "rerank":
      return sum([request.query, ...request.documents]);
    case "speech":
      return countTokens(request.text);
    case "image":
      return countTokens(request.prompt);
    case "transcription":
    case "tensor":
    case "tensor_metadata":
      return 0;
  }
}

function outputTokensOf(request: TaskRequest, answer: unknown): number {
  if (!isGenerated(request)) return 0;
  return (answer as ChatAnswer).choices.reduce(
    (total, { text, reasoning, toolCalls }) =>
      total + countTokens(text) + countTokens(reasoning) +
      toolCalls.reduce((sum, call) => sum + countTokens(call.name) + countTokens(call.arguments), 0),
    0,
  );
}

function isGenerated(request: TaskRequest): request is ChatRequest | CompletionRequest {
  return request.task === "chat" || request.task === "completion";
}
