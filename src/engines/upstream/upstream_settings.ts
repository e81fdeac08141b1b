// Upstream settings: what this room has to know of the servers behind it and of who serves which model.

/** One upstream server. */
export interface UpstreamSettings {
  readonly name: string;
  readonly kind: "openai" | "openinference" | "anthropic";
  /** Base address without a slash at its end, such as `http://127.0.0.1:11434/v1`. */
  readonly url: string;
  /** Its secret; undefined where it asks for none. */
  readonly key: string | undefined;
  /** PEM certificates to trust besides those of the runtime. */
  readonly caCertificates: string | undefined;
  /** Requests that may be under way there at once. */
  readonly requestsAtOnceMax: number;
  /** Until a connection stands. */
  readonly connectTimeoutMs: number;
  /** From the call to the first byte of the answer's body. */
  readonly firstByteTimeoutMs: number;
  /** Between two pieces of an answer. */
  readonly betweenBytesTimeoutMs: number;
  /** The whole call, streams included. */
  readonly wholeTimeoutMs: number;
  /** Largest answer, bytes; for a stream the sum of all its pieces. */
  readonly answerBytesMax: number;
  /** Whether it understands `stream_options.include_usage`. */
  readonly usageInStreams: boolean;
  /** Instead of the protocol's own path for health; below the base address. */
  readonly healthPath: string | undefined;
  /** Seconds between two health checks. */
  readonly healthSeconds: number;
}

/** One place that serves a model. */
export interface ReplicaSettings {
  /** The upstream's name. */
  readonly upstream: string;
  /** The model's name there. */
  readonly model: string;
  /** Its share, against the other replicas'; at least 1. */
  readonly weight: number;
}

/** One model that upstreams serve. */
export interface UpstreamModelSettings {
  readonly id: string;
  readonly replicas: readonly ReplicaSettings[];
  readonly routing: "weighted" | "least-busy";
}
