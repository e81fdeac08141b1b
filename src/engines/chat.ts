// Chat: the neutral form of a conversation, of its answer and of its stream. Every dialect is read into it and written from it.
import type { JsonValue } from "../encoding/canonical_json.ts";
import type { Usage } from "./usage.ts";

/** Text of a message. */
export interface TextPart {
  readonly type: "text";
  readonly text: string;
}

/** A picture that a message shows. */
export interface ImagePart {
  readonly type: "image";
  /** A `data:image/…;base64,` URL, or an https URL whose host the settings allow. */
  readonly url: string;
  readonly detail?: "auto" | "low" | "high";
}

/** Sound that a message carries. */
export interface AudioPart {
  readonly type: "audio";
  /** Base64 (RFC 4648 §4), padded. */
  readonly data: string;
  readonly format: "wav" | "mp3";
}

/** One part of a message. */
export type ChatPart = TextPart | ImagePart | AudioPart;

/** A function that the model wants called. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON text as the model wrote it; it may be no valid JSON. */
  readonly arguments: string;
}

/** One message. `system` is also what OpenAI calls `developer`. */
export type ChatMessage =
  | { readonly role: "system"; readonly parts: readonly TextPart[] }
  | { readonly role: "user"; readonly parts: readonly ChatPart[]; readonly name?: string }
  | {
    readonly role: "assistant";
    readonly parts: readonly TextPart[];
    readonly refusal?: string;
    readonly toolCalls: readonly ToolCall[];
  }
  | {
    readonly role: "tool";
    readonly toolCallId: string;
    readonly parts: readonly (TextPart | ImagePart)[];
    /** The tool failed (Anthropic's `is_error`). */
    readonly failed?: boolean;
  };

/** A function that the model may call. */
export interface Tool {
  readonly name: string;
  readonly description?: string;
  /** JSON Schema of the arguments, an object. */
  readonly parameters?: JsonValue;
  readonly strict?: boolean;
}

/** Whether and which tool is to be called. */
export type ToolChoice = "auto" | "none" | "required" | { readonly name: string };

/** The form that the answer must have. */
export type ResponseFormat =
  | { readonly type: "text" }
  | { readonly type: "json_object" }
  | {
    readonly type: "json_schema";
    readonly name: string;
    readonly description?: string;
    readonly schema: JsonValue;
    readonly strict?: boolean;
  };

/** How tokens are drawn; the same for chat and completion. */
export interface Sampling {
  readonly outputTokensMax?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly stop: readonly string[];
  /** Answers to draw for each prompt, at least 1 (OpenAI's `n`). */
  readonly choices: number;
  readonly seed?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  /** Token id to bias from -100 to 100. */
  readonly logitBias?: Readonly<Record<string, number>>;
  /** Log probabilities of the tokens, and of so many alternatives; absent: none. */
  readonly logprobs?: number;
  /** Engine-specific fields that the model's settings let through, as the caller wrote them. */
  readonly extra: Readonly<Record<string, JsonValue>>;
}

/** A conversation to be continued. */
export interface ChatRequest extends Sampling {
  readonly task: "chat";
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly Tool[];
  readonly toolChoice?: ToolChoice;
  readonly parallelToolCalls?: boolean;
  readonly responseFormat?: ResponseFormat;
  readonly reasoningEffort?: "none" | "minimal" | "low" | "medium" | "high";
}

/** Prompts to be continued as they stand (OpenAI's legacy completions). */
export interface CompletionRequest extends Sampling {
  readonly task: "completion";
  readonly prompts: readonly string[];
  readonly suffix?: string;
  readonly echo?: boolean;
}

/** Why an answer ended. */
export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter";

/** One answer. For a completion, choice `i` belongs to prompt `floor(i / choices)`. */
export interface ChatChoice {
  readonly text: string;
  /** What the model wrote while it thought, "" where it told nothing. */
  readonly reasoning: string;
  readonly refusal?: string;
  readonly toolCalls: readonly ToolCall[];
  readonly finish: FinishReason;
  /** The stop sequence that ended it, where the engine tells. */
  readonly stopSequence?: string;
  /** In OpenAI's form for the task. */
  readonly logprobs?: JsonValue;
}

/** The whole answer to a chat or a completion; choices in order. */
export interface ChatAnswer {
  readonly choices: readonly ChatChoice[];
  readonly usage: Usage;
}

/** A piece of a streamed answer. */
export type ChatEvent =
  | { readonly type: "text"; readonly choice: number; readonly text: string; readonly logprobs?: JsonValue }
  | { readonly type: "reasoning"; readonly choice: number; readonly text: string }
  | { readonly type: "refusal"; readonly choice: number; readonly text: string }
  /** The first event of a call has `id` and `name`; `arguments` of all events are to be joined. `index` counts calls of a choice. */
  | {
    readonly type: "tool_call";
    readonly choice: number;
    readonly index: number;
    readonly id?: string;
    readonly name?: string;
    readonly arguments: string;
  }
  | {
    readonly type: "finish";
    readonly choice: number;
    readonly reason: FinishReason;
    readonly stopSequence?: string;
  }
  /** What the engine counted; at most once, after all others. */
  | { readonly type: "usage"; readonly usage: Usage };
