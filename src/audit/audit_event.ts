// Audit event: the closed union of what the trail can hold. No token, password, key, prompt or vector is ever in one.

/** Who asked and from where, as far as it is known when the event happens. */
interface Requester {
  /** The request's id, as answered in `X-Request-Id`. */
  readonly request: string;
  /** The principal's id, or null before anyone is known. */
  readonly subject: string | null;
  /** The id (`jti`) of the credential, never the credential; null where none was accepted. */
  readonly credential: string | null;
  /** The client's address, plain or as a keyed pseudonym, as the settings say. */
  readonly address: string;
  /** The route's template, such as `POST /v1/embeddings`; never the path that was sent. */
  readonly route: string;
}

/** What can be recorded. */
export type AuditEvent =
  | {
    readonly type: "server.started";
    readonly version: string;
    readonly mode: string;
    readonly settingsSha256: string;
  }
  | { readonly type: "server.stopped"; readonly reason: string }
  | { readonly type: "model.accepted"; readonly model: string; readonly sha256: string }
  | { readonly type: "model.refused"; readonly model: string; readonly reason: string }
  | {
    readonly type: "user.created";
    readonly subject: string;
    readonly roles: readonly string[];
    readonly actor: string;
  }
  | Requester & { readonly type: "session.started"; readonly expiresAtSeconds: number }
  /** `account` is a keyed pseudonym of the name that was tried. */
  | Requester & { readonly type: "session.refused"; readonly account: string; readonly reason: string }
  | Requester & { readonly type: "session.ended" }
  /** An allowed request that runs no model. */
  | Requester & { readonly type: "request.allowed"; readonly action: string; readonly object: string | null }
  | Requester & {
    readonly type: "request.refused";
    readonly status: number;
    readonly code: string;
    readonly reason: string;
  }
  /** The intent: durable before the model runs. */
  | Requester & InferenceSubject & { readonly type: "inference.started" }
  /** Another model takes over: durable before it runs. */
  | Requester & {
    readonly type: "inference.rerouted";
    readonly model: string;
    readonly to: string;
    /** The code of the fault that the first model ended with. */
    readonly reason: string;
  }
  /** The outcome: exactly one for each `inference.started` of the same request. */
  | Requester & InferenceOutcome & { readonly type: "inference.finished" };

/** What an inference is about. */
export interface InferenceSubject {
  /** The id that was asked for, never an alias. */
  readonly model: string;
  readonly task: string;
  /** Digest of the weights; null for a model that an upstream serves. */
  readonly sha256: string | null;
  /** Texts, messages, prompts, documents or tensors. */
  readonly items: number;
}

/** What became of an inference. */
export interface InferenceOutcome {
  readonly model: string;
  /** "completed", or the code of the fault. */
  readonly outcome: string;
  readonly inputTokens: number;
  /** Of a stream that broke off: what had been sent. */
  readonly outputTokens: number;
  /** Who counted the tokens. */
  readonly countedBy: "engine" | "estimate";
  /** `UPSTREAM/MODEL` that answered or failed last; null for a model of this process, and where nothing was tried. */
  readonly servedBy: string | null;
  /** How often it was tried somewhere. */
  readonly attempts: number;
  readonly durationMs: number;
}
