// Wire: the port of a protocol that upstreams speak. Pure: from a neutral request to bytes, from bytes to a neutral answer.
import type { StreamItem, StreamRequest, StreamTask, WholeAnswer, WholeRequest, WholeTask } from "../task.ts";

/** A request to an upstream, below its base address. */
export interface WireRequest {
  readonly method: "GET" | "POST";
  /** Begins with "/". Made of constant words and of names from the settings, percent-encoded; never of a caller's text. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;
  /** Media types that the answer may have, in lower case, without parameters; `audio/*` matches all of audio. */
  readonly accept: readonly string[];
}

/** An answer with a good status and an accepted media type, read whole. */
export interface WireAnswer {
  /** In lower case, without parameters. */
  readonly mediaType: string;
  readonly headers: Headers;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** How one task is asked and its whole answer read. */
export interface WholeCall<T extends WholeTask> {
  readonly request: WireRequest;
  /** @throws Fault `upstream_answer_invalid` */
  read(answer: WireAnswer): WholeAnswer<T>;
}

/** One event of an event stream (WHATWG HTML §9.2). */
export interface WireEvent {
  /** "message" where the stream names none. */
  readonly event: string;
  readonly data: string;
}

/** Reads the events of one stream. It has state: one for each stream. */
export interface EventReader<Item> {
  /**
   * The pieces in an event; empty where it holds none for us.
   *
   * @throws Fault `upstream_answer_invalid` for what is no valid event · `upstream_failed` for an error event
   */
  read(event: WireEvent): readonly Item[];
  /** Whether the stream's own end mark has come. What ends without it was broken off. */
  readonly ended: boolean;
  /** The body ended without the mark: what was held back till the end, where the answer is whole all the same; else undefined. */
  end?(): readonly Item[] | undefined;
}

/** How one task is asked and its answer read in pieces. */
export interface StreamCall<T extends StreamTask> {
  readonly request: WireRequest;
  /** `events`: an event stream, read by `openReader`. `bytes`: passed on as they come. */
  readonly framing: "events" | "bytes";
  openReader(): EventReader<StreamItem<T>>;
}

/** What a wire must know besides the request. */
export interface WireOptions {
  /** The model's name at the upstream, from the settings. */
  readonly model: string;
  /** Whether the upstream understands `stream_options.include_usage`. */
  readonly usageInStreams: boolean;
}

/** One protocol. */
export interface Wire {
  readonly kind: "openai" | "anthropic" | "openinference";
  /** What is asked to learn whether the upstream is well, below its base address. */
  readonly healthPath: string;
  /** The headers that carry the secret. */
  credentialHeaders(key: string): Readonly<Record<string, string>>;
  /** @throws Fault `capability_missing` for a task that the protocol lacks · `input_refused` for what it cannot express */
  whole<T extends WholeTask>(request: WholeRequest<T>, options: WireOptions): WholeCall<T>;
  /** As `whole`, for answers in pieces. */
  stream<T extends StreamTask>(request: StreamRequest<T>, options: WireOptions): StreamCall<T>;
}
