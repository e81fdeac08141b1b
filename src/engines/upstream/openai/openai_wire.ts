// OpenAI wire: what vLLM, Ollama, llama.cpp, SGLang, TEI, LocalAI, OpenAI itself and another Portcullis speak.
import { Fault } from "../../../faults/fault.ts";
import type { StreamRequest, StreamTask, WholeRequest, WholeTask } from "../../task.ts";
import type { StreamCall, WholeCall, Wire, WireOptions } from "../wire.ts";
import { chatCall, chatStream } from "./chat.ts";
import { completionCall, completionStream } from "./completion.ts";
import { embeddingCall } from "./embedding.ts";
import { imageCall } from "./image.ts";
import { moderationCall } from "./moderation.ts";
import { rerankCall } from "./rerank.ts";
import { speechStream } from "./speech.ts";
import { transcriptionCall } from "./transcription.ts";

/** The protocol of OpenAI-compatible servers; their base address ends with the version, as in `http://127.0.0.1:11434/v1`. */
export const openaiWire: Wire = {
  kind: "openai",
  healthPath: "/models",
  credentialHeaders: (key) => ({ Authorization: `Bearer ${key}` }),
  whole<T extends WholeTask>(request: WholeRequest<T>, options: WireOptions): WholeCall<T> {
    return wholeCall(request, options) as WholeCall<T>;
  },
  stream<T extends StreamTask>(request: StreamRequest<T>, options: WireOptions): StreamCall<T> {
    return streamCall(request, options) as StreamCall<StreamTask> as StreamCall<T>;
  },
};

function wholeCall(request: WholeRequest, options: WireOptions): WholeCall<WholeTask> {
  switch (request.task) {
    case "chat":
      return chatCall(request, options);
    case "completion":
      return completionCall(request, options);
    case "embedding":
      return embeddingCall(request, options);
    case "rerank":
      return rerankCall(request, options);
    case "moderation":
      return moderationCall(request, options);
    case "transcription":
      return transcriptionCall(request, options);
    case "image":
      return imageCall(request, options);
    case "tensor":
    case "tensor_metadata":
      throw new Fault("capability_missing", `Cannot run ${request.task}: OpenAI's protocol has no tensors`);
  }
}

function streamCall(request: StreamRequest, options: WireOptions): StreamCall<StreamTask> {
  switch (request.task) {
    case "chat":
      return chatStream(request, options);
    case "completion":
      return completionStream(request, options);
    case "speech":
      return speechStream(request, options);
  }
}
