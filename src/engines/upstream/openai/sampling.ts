// Sampling: the request fields that chat and completion have in common.
import type { Sampling } from "../../chat.ts";
import type { WireOptions } from "../wire.ts";
import type { RequestFields } from "./json_request.ts";

/** In OpenAI's names. `max_completion_tokens` is ours though never sent: engines besides OpenAI's newest do not know it. */
export function samplingFields(request: Sampling, stream: boolean, options: WireOptions): RequestFields {
  return {
    max_tokens: request.outputTokensMax,
    max_completion_tokens: undefined,
    temperature: request.temperature,
    top_p: request.topP,
    top_k: request.topK,
    stop: request.stop.length === 0 ? undefined : request.stop,
    n: request.choices > 1 ? request.choices : undefined,
    seed: request.seed,
    presence_penalty: request.presencePenalty,
    frequency_penalty: request.frequencyPenalty,
    logit_bias: request.logitBias,
    stream: stream ? true : undefined,
    stream_options: stream && options.usageInStreams ? { include_usage: true } : undefined,
  };
}
