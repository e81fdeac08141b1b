// Settlement: what one inference used up. The engine's figures where it gave them for all that was sent, else our own count.
import type { ChatAnswer, ChatEvent, ChatRequest, CompletionRequest } from "../engines/chat.ts";
import type { TaskRequest } from "../engines/task.ts";
import type { Usage } from "../engines/usage.ts";
import { countChatTokens, countJson, countTokens } from "./count_tokens.ts";

/** How an inference ended: well, given up by its caller while an engine worked on it, or any other way. */
export type Ending = "completed" | "given_up" | "failed";

/** Counts one inference. */
export interface Settlement {
  /** A whole answer has come. Returns it with figures: the engine's or ours. */
  answered<Answer>(answer: Answer): Answer;
  /** Pieces have come and are sent on. */
  sent(items: readonly unknown[]): void;
  /** The pieces that a stream owes before it ends well: figures, where the engine gave none. */
  owed<Item>(): readonly Item[];
  /** What is to be recorded. */
  usage(ending: Ending): Usage;
}

const NOTHING: Usage = { inputTokens: 0, outputTokens: 0, countedBy: "engine" };

/**
 * Makes the settlement of a request.
 *
 * @param request gives it as it runs; where a model stands in, as that one runs it
 * @param notBelieved hears of figures that cannot be true, and of ours that count instead
 */
export function settlementOf(
  request: () => TaskRequest,
  notBelieved: (figures: Usage, ours: Usage) => void,
): Settlement {
  let engineUsage: Usage | undefined;
  /** Nothing was sent after the figures: they are of all that there was. */
  let figuresCameLast = false;
  let sentTokens = 0;
  let anySent = false;

  const estimate = (outputTokens: number): Usage => ({
    inputTokens: inputTokensOf(request()),
    outputTokens,
    countedBy: "estimate",
  });

  function counting(figures: Usage, ourOutputTokens: () => number): Usage {
    if (figures.countedBy !== "engine" || isForOneOfSeveral(request(), figures, ourOutputTokens)) {
      return estimate(ourOutputTokens());
    }
    if (isPlausible(request(), figures, ourOutputTokens)) return figures;
    const ours = estimate(ourOutputTokens());
    notBelieved(figures, ours);
    return ours;
  }

  return {
    answered(answer) {
      const { usage } = answer as { readonly usage?: Usage };
      if (usage === undefined) return answer;
      engineUsage = counting(usage, () => outputTokensOf(request(), answer));
      return usage === engineUsage ? answer : { ...answer, usage: engineUsage };
    },
    sent(items) {
      anySent = true;
      if (request().task === "speech") return;
      for (const item of items as readonly ChatEvent[]) {
        figuresCameLast = item.type === "usage";
        if (item.type === "usage") {
          if (item.usage.countedBy === "engine") engineUsage = counting(item.usage, () => sentTokens);
        } else if (item.type === "tool_call") {
          sentTokens += countTokens(item.arguments) + (item.name === undefined ? 0 : countTokens(item.name));
        } else if (item.type !== "finish") {
          sentTokens += countTokens(item.text);
        }
      }
    },
    owed<Item>() {
      if (engineUsage !== undefined || request().task === "speech") return [];
      engineUsage = estimate(sentTokens);
      return [{ type: "usage", usage: engineUsage } as Item];
    },
    usage(ending) {
      const isWhole = ending === "completed" || (ending === "given_up" && figuresCameLast);
      if (isWhole && engineUsage !== undefined) return engineUsage;
      // Of what broke off, only what was sent counts: figures for the whole would bill what nobody got.
      return anySent || ending === "given_up" ? estimate(sentTokens) : NOTHING;
    },
  };
}

/** Far enough below our own count that it is no matter of how one counts. */
const ONE_OF_SEVERAL = 0.75;

/** Some engines count the first of several answers only (llama.cpp); what was sent is what counts. */
function isForOneOfSeveral(request: TaskRequest, { outputTokens }: Usage, ours: () => number): boolean {
  return answersOf(request) > 1 && outputTokens < ONE_OF_SEVERAL * ours();
}

/** Of a bound that the engine was told: some count a token or two more than they were let. */
const BOUND_MARGIN = 1.1;
const BOUND_TOKENS_MORE = 16;
/** Beyond so many times our own count no vocabulary explains it; beyond so much more no prompt or thought that we do not see. */
const TIMES_OURS = 20;
const INPUT_TOKENS_UNSEEN = 100_000;
const OUTPUT_TOKENS_UNSEEN = 200_000;

/** Whether an engine's figures can be true: one that is broken or hostile may claim anything, and its callers would pay. */
function isPlausible(
  request: TaskRequest,
  { inputTokens, outputTokens }: Usage,
  ourOutputTokens: () => number,
): boolean {
  // To count a long input costs; small figures need none.
  const isNear = (figure: number, unseen: number, ours: () => number): boolean =>
    figure <= unseen || figure <= Math.max(TIMES_OURS * ours(), ours() + unseen);
  if (!isNear(inputTokens, INPUT_TOKENS_UNSEEN, () => inputTokensOf(request))) return false;
  const answers = Math.max(1, answersOf(request));
  return isGenerated(request) && request.outputTokensMax !== undefined
    ? outputTokens <= answers * request.outputTokensMax * BOUND_MARGIN + BOUND_TOKENS_MORE
    : isNear(outputTokens, answers * OUTPUT_TOKENS_UNSEEN, ourOutputTokens);
}

/** How many answers are generated; 0 where none is. */
export function answersOf(request: TaskRequest): number {
  if (!isGenerated(request)) return 0;
  return request.choices * (request.task === "completion" ? request.prompts.length : 1);
}

/** Our own count of what a request says. */
export function inputTokensOf(request: TaskRequest): number {
  const sum = (texts: readonly string[]): number =>
    texts.reduce((total, text) => total + countTokens(text), 0);
  switch (request.task) {
    case "chat":
      return countChatTokens(request.messages, request.tools) + countFormat(request) + countExtra(request);
    case "completion":
      // What follows is put to each prompt.
      return sum(request.prompts) + request.prompts.length * countTokens(request.suffix ?? "") +
        countExtra(request);
    case "embedding":
    case "moderation":
      return sum(request.texts);
    case "rerank":
      // The query is read with each document.
      return sum(request.documents) + request.documents.length * countTokens(request.query);
    case "speech":
      return countTokens(request.text) + countTokens(request.instructions ?? "");
    case "image":
      return countTokens(request.prompt) + countExtra(request);
    case "transcription":
      return countTokens(request.prompt ?? "");
    case "tensor":
    case "tensor_metadata":
      return 0;
  }
}

/** A schema may become part of the prompt. */
function countFormat({ responseFormat }: ChatRequest): number {
  return responseFormat?.type === "json_schema" ? countJson({ ...responseFormat }) : 0;
}

/** So may any field that we do not know. */
function countExtra({ extra }: Pick<ChatRequest, "extra">): number {
  return Object.keys(extra).length === 0 ? 0 : countJson(extra);
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
