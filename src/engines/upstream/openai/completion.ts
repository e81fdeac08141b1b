// Completion: prompts as POST /completions, and their whole answer.
import type { ChatAnswer, CompletionRequest } from "../../chat.ts";
import { answerInvalid, type AnswerObject, readAnswerObject, textOf } from "../answer_json.ts";
import type { StreamCall, WholeCall, WireOptions, WireRequest } from "../wire.ts";
import { ChatEventReader } from "./chat_events.ts";
import { type ChoiceCount, finishOf, logprobsOf, orderedChoices, stopSequenceOf } from "./choice.ts";
import { EVENTS_ONLY, JSON_ONLY, jsonRequest } from "./json_request.ts";
import { samplingFields } from "./sampling.ts";
import { readUsage } from "./usage.ts";

/** A completion that is answered whole. */
export function completionCall(request: CompletionRequest, options: WireOptions): WholeCall<"completion"> {
  return {
    request: completionRequest(request, false, options),
    read: ({ bytes }) => readCompletionAnswer(readAnswerObject(bytes), request),
  };
}

/** A completion that is answered in pieces. */
export function completionStream(request: CompletionRequest, options: WireOptions): StreamCall<"completion"> {
  return {
    request: completionRequest(request, true, options),
    framing: "events",
    openReader: () => new ChatEventReader("completion", countOf(request), request, options),
  };
}

/** Which prompt a choice belongs to is told by its index alone: of several prompts' choices none may be missing. */
function countOf({ prompts, choices }: CompletionRequest): ChoiceCount {
  const max = prompts.length * choices;
  return { max, min: prompts.length === 1 ? 1 : max };
}

function completionRequest(request: CompletionRequest, stream: boolean, options: WireOptions): WireRequest {
  return jsonRequest("/completions", stream ? EVENTS_ONLY : JSON_ONLY, {
    model: options.model,
    // Ollama takes one text and no list.
    prompt: request.prompts.length === 1 ? request.prompts[0] : request.prompts,
    suffix: request.suffix,
    echo: request.echo,
    logprobs: request.logprobs,
    ...samplingFields(request, stream, options),
  }, request.extra);
}

function readCompletionAnswer(body: AnswerObject, request: CompletionRequest): ChatAnswer {
  const choices = orderedChoices(body, countOf(request)).map((choice) => {
    const text = textOf(choice.text, "a choice's text");
    if (text === undefined) throw answerInvalid("a choice has no text");
    const stopSequence = stopSequenceOf(choice, request.stop);
    const logprobs = request.logprobs === undefined ? undefined : logprobsOf(choice.logprobs);
    return {
      text,
      reasoning: "",
      toolCalls: [],
      finish: finishOf(choice.finish_reason, false) ?? "stop",
      ...(stopSequence === undefined ? {} : { stopSequence }),
      ...(logprobs === undefined ? {} : { logprobs }),
    };
  });
  return { choices, usage: readUsage(body.usage) };
}
