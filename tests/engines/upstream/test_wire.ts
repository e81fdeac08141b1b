// Test wire: a protocol small enough to see through, for tests of what lies below the real ones.
//
// A chat is `POST /run` with `{model, text}` and is answered by `{text}`; in pieces it is `POST /stream` and events of `{text}`
// up to `[DONE]`. Speech is `POST /speak` and bytes; a transcription is `POST /listen` with the sound as its body.
import type { ChatAnswer, ChatEvent, ChatRequest } from "../../../src/engines/chat.ts";
import type {
  SpeechRequest,
  StreamRequest,
  StreamTask,
  TranscriptionRequest,
  WholeRequest,
  WholeTask,
} from "../../../src/engines/task.ts";
import type {
  EventReader,
  StreamCall,
  WholeCall,
  Wire,
  WireAnswer,
  WireOptions,
  WireRequest,
} from "../../../src/engines/upstream/wire.ts";
import { Fault } from "../../../src/faults/fault.ts";

/** A chat that says one thing. */
export function chatOf(text: string): ChatRequest {
  return {
    task: "chat",
    messages: [{ role: "user", parts: [{ type: "text", text }] }],
    tools: [],
    stop: [],
    choices: 1,
    extra: {},
  };
}

/** Something to be spoken. */
export const SPEECH: SpeechRequest = { task: "speech", text: "hello", voice: "anna", format: "mp3" };

/** Sound to be written down. */
export function transcriptionOf(bytes: ReadableStream<Uint8Array>): TranscriptionRequest {
  return {
    task: "transcription",
    file: { name: "audio.wav", mediaType: "audio/wav", bytes },
    format: "json",
    timestampGranularities: [],
  };
}

const JSON_HEADERS = { "content-type": "application/json" };

function bodyOf(request: ChatRequest | SpeechRequest, { model }: WireOptions): string {
  const text = request.task === "speech"
    ? request.text
    : request.messages.map(({ parts }) => parts.map((part) => part.type === "text" ? part.text : "").join(""))
      .join("\n");
  return JSON.stringify({ model, text });
}

/** Malformed JSON throws what JSON.parse throws, as a careless wire might. */
function readChat({ bytes }: WireAnswer): ChatAnswer {
  const { text } = JSON.parse(new TextDecoder().decode(bytes));
  if (typeof text !== "string") {
    throw new Fault("upstream_answer_invalid", "Cannot read the answer: it has no text");
  }
  return {
    choices: [{ text, reasoning: "", toolCalls: [], finish: "stop" }],
    usage: { inputTokens: 1, outputTokens: 1, countedBy: "engine" },
  };
}

function openReader(): EventReader<ChatEvent> {
  let ended = false;
  return {
    get ended() {
      return ended;
    },
    read({ event, data }) {
      if (event === "error") throw new Fault("upstream_failed", "Cannot go on: an error event came");
      if (data === "[DONE]") {
        ended = true;
        return [];
      }
      const { text } = JSON.parse(data);
      if (typeof text !== "string") {
        throw new Fault("upstream_answer_invalid", "Cannot read an event: it has no text");
      }
      return [{ type: "text", choice: 0, text }];
    },
  };
}

/**
 * Makes one.
 *
 * @param lacks tasks that it cannot do
 * @param path instead of its own, to see what hinders it from leading elsewhere
 */
export function createTestWire(options: { lacks?: readonly string[]; path?: string } = {}): Wire {
  const { lacks = [], path } = options;
  const requireTask = (task: string): void => {
    if (lacks.includes(task)) {
      throw new Fault("capability_missing", `Cannot do ${task}: the protocol lacks it`);
    }
  };
  return {
    kind: "openai",
    healthPath: "/health",
    credentialHeaders: (key) => ({ authorization: `Bearer ${key}` }),
    whole<T extends WholeTask>(asked: WholeRequest<T>, wireOptions: WireOptions) {
      const request = asked as ChatRequest | TranscriptionRequest;
      requireTask(request.task);
      const wireRequest: WireRequest = request.task === "transcription"
        ? {
          method: "POST",
          path: "/listen",
          headers: { "content-type": request.file.mediaType },
          body: request.file.bytes,
          accept: ["application/json"],
        }
        : {
          method: "POST",
          path: path ?? "/run",
          headers: JSON_HEADERS,
          body: bodyOf(request, wireOptions),
          accept: ["application/json"],
        };
      return { request: wireRequest, read: readChat } as unknown as WholeCall<T>;
    },
    stream<T extends StreamTask>(asked: StreamRequest<T>, wireOptions: WireOptions) {
      const request = asked as ChatRequest | SpeechRequest;
      requireTask(request.task);
      const speech = request.task === "speech";
      const wireRequest: WireRequest = {
        method: "POST",
        path: speech ? "/speak" : "/stream",
        headers: JSON_HEADERS,
        body: bodyOf(request, wireOptions),
        accept: [speech ? "audio/*" : "text/event-stream"],
      };
      return {
        request: wireRequest,
        framing: speech ? "bytes" : "events",
        openReader,
      } as unknown as StreamCall<T>;
    },
  };
}
