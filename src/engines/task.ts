// Task: everything that a model can be asked, in the neutral form below the dialects, with what it answers.
import type { JsonValue } from "../encoding/canonical_json.ts";
import type { ChatAnswer, ChatEvent, ChatRequest, CompletionRequest } from "./chat.ts";
import type { TensorAnswer, TensorMetadata, TensorMetadataRequest, TensorRequest } from "./tensor.ts";
import type { Usage } from "./usage.ts";

/** Texts to be embedded, in order. */
export interface EmbeddingRequest {
  readonly task: "embedding";
  readonly texts: readonly string[];
  /** Length of the vectors that is asked for; absent: the model's own. */
  readonly dimensions?: number;
}

/** The vectors of texts. */
export interface Embeddings {
  /** Row-major, shape [texts, dimensions]. */
  readonly vectors: Float32Array;
  readonly dimensions: number;
  /** Tokens of each text, where the engine counts them so; shape [texts]. */
  readonly tokenCounts?: readonly number[];
  readonly usage: Usage;
}

/** Documents to be put in the order of how well they answer a query. */
export interface RerankRequest {
  readonly task: "rerank";
  readonly query: string;
  readonly documents: readonly string[];
  /** How many of the best to answer; absent: all. */
  readonly topN?: number;
}

/** The best first. */
export interface Ranking {
  readonly results: readonly { readonly index: number; readonly score: number }[];
  readonly usage: Usage;
}

/** Texts to be judged. */
export interface ModerationRequest {
  readonly task: "moderation";
  readonly texts: readonly string[];
}

/** One judgement a text, in order. */
export interface Moderations {
  readonly results: readonly {
    readonly flagged: boolean;
    readonly categories: Readonly<Record<string, boolean>>;
    readonly scores: Readonly<Record<string, number>>;
  }[];
  readonly usage: Usage;
}

/** Text to be spoken. */
export interface SpeechRequest {
  readonly task: "speech";
  readonly text: string;
  readonly voice: string;
  readonly format: "mp3" | "opus" | "aac" | "flac" | "wav" | "pcm";
  readonly speed?: number;
  readonly instructions?: string;
}

/** Sound to be written down. */
export interface TranscriptionRequest {
  readonly task: "transcription";
  /** The sound as it comes from the caller: to be read once. It errors with the Fault that ended it. */
  readonly file: {
    /** A plain name with a known suffix, made by us, such as `audio.wav`; never the caller's. */
    readonly name: string;
    readonly mediaType: string;
    readonly bytes: ReadableStream<Uint8Array>;
  };
  readonly language?: string;
  readonly prompt?: string;
  readonly temperature?: number;
  readonly format: "json" | "text" | "srt" | "vtt" | "verbose_json";
  readonly timestampGranularities: readonly ("word" | "segment")[];
}

/** What was said: JSON for `json` and `verbose_json`, else text. */
export interface Transcription {
  readonly content: { readonly json: JsonValue } | { readonly text: string };
  readonly usage: Usage;
}

/** A picture to be made. */
export interface ImageRequest {
  readonly task: "image";
  readonly prompt: string;
  readonly images: number;
  readonly size?: string;
  readonly quality?: string;
  readonly style?: string;
  readonly background?: string;
  readonly outputFormat?: "png" | "jpeg" | "webp";
  readonly extra: Readonly<Record<string, JsonValue>>;
}

/** Pictures, always as bytes: an address of the engine's own network is nothing for a caller. */
export interface Images {
  readonly createdSeconds: number;
  readonly images: readonly { readonly base64: string; readonly revisedPrompt?: string }[];
  readonly usage: Usage;
}

/** Tasks whose answer comes whole. */
export interface WholeTasks {
  readonly embedding: { readonly request: EmbeddingRequest; readonly answer: Embeddings };
  readonly chat: { readonly request: ChatRequest; readonly answer: ChatAnswer };
  readonly completion: { readonly request: CompletionRequest; readonly answer: ChatAnswer };
  readonly rerank: { readonly request: RerankRequest; readonly answer: Ranking };
  readonly moderation: { readonly request: ModerationRequest; readonly answer: Moderations };
  readonly transcription: { readonly request: TranscriptionRequest; readonly answer: Transcription };
  readonly image: { readonly request: ImageRequest; readonly answer: Images };
  readonly tensor: { readonly request: TensorRequest; readonly answer: TensorAnswer };
  readonly tensor_metadata: { readonly request: TensorMetadataRequest; readonly answer: TensorMetadata };
}

/** Tasks whose answer comes in pieces. */
export interface StreamTasks {
  readonly chat: { readonly request: ChatRequest; readonly item: ChatEvent };
  readonly completion: { readonly request: CompletionRequest; readonly item: ChatEvent };
  readonly speech: { readonly request: SpeechRequest; readonly item: Uint8Array };
}

/** A task whose answer comes whole. */
export type WholeTask = keyof WholeTasks;
/** A task whose answer comes in pieces. */
export type StreamTask = keyof StreamTasks;
/** Any request. */
export type TaskRequest = WholeTasks[WholeTask]["request"] | StreamTasks[StreamTask]["request"];
/** The request of a task whose answer comes whole. */
export type WholeRequest<T extends WholeTask = WholeTask> = WholeTasks[T]["request"];
/** The answer of a task whose answer comes whole. */
export type WholeAnswer<T extends WholeTask = WholeTask> = WholeTasks[T]["answer"];
/** The request of a task whose answer comes in pieces. */
export type StreamRequest<T extends StreamTask = StreamTask> = StreamTasks[T]["request"];
/** A piece of an answer that comes in pieces. */
export type StreamItem<T extends StreamTask = StreamTask> = StreamTasks[T]["item"];
