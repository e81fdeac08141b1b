// Audit event: the closed union of what the trail can hold. No token, password, key, prompt or vector is ever in one.
import type { JsonValue } from "../encoding/canonical_json.ts";

/** Who asked and from where, as far as it is known when the event happens. */
interface Requester {
  /** The request's id, as answered in `X-Request-Id`. */
  readonly request: string;
  /** Who: the pair of issuer and subject is the identity (RFC 7519 §4.1.2); null before anyone is known. */
  readonly issuer: string | null;
  readonly subject: string | null;
  /** The team that the subject belongs to at this moment. */
  readonly team: string | null;
  /** The id of the credential (a token's `jti`, a key's id), never the credential; null where none was accepted. */
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
  | {
    readonly type: "model.accepted";
    readonly model: string;
    readonly sha256: string;
    /** The id of the key that signed its manifest, and the manifest's serial; null for a model without one. */
    readonly signer: string | null;
    readonly serial: number | null;
  }
  | { readonly type: "model.refused"; readonly model: string; readonly reason: string }
  /** A step in the life of a key that is no `object.changed`: durable before it is taken. Never the key. */
  | {
    readonly type: "key.changed";
    readonly kind: "master" | "data" | "audit_signing" | "audit_sealing" | "payload";
    readonly key: string;
    readonly change: "made" | "rewrapped" | "destroyed";
  }
  /** Old entries are taken out of a segment, their hashes stay: durable before they go. */
  | {
    readonly type: "trail.thinned";
    readonly segment: number;
    /** Numbers of the segment's first and last entry. */
    readonly first: number;
    readonly last: number;
    readonly removed: number;
    readonly classes: readonly EventClass[];
  }
  /** An inference began before the server died, and nobody knows how it ended. Recorded at the next start. */
  | Requester & {
    readonly type: "inference.interrupted";
    readonly model: string;
    /** The number of its `inference.started`. */
    readonly intent: number;
  }
  | {
    readonly type: "user.created";
    readonly subject: string;
    readonly roles: readonly string[];
    readonly actor: string;
  }
  /** A change without a request: by a command on the data folder, while no server ran on it, or by the settings at a start. */
  | {
    readonly type: "command.changed";
    readonly command: string;
    readonly object: string;
    readonly before: JsonValue;
    readonly after: JsonValue;
  }
  | Requester & {
    readonly type: "session.started";
    readonly session: string;
    /** Older sessions of the same user that had to end for it. */
    readonly displaced: readonly string[];
    readonly expiresAtSeconds: number;
  }
  /** `account` is a keyed pseudonym of the name that was tried. */
  | Requester & { readonly type: "session.refused"; readonly account: string; readonly reason: string }
  | Requester & { readonly type: "session.ended"; readonly session: string | null }
  /** An old refresh token came again: somebody has a copy, and the session is over (RFC 9700 §4.14.2). */
  | Requester & { readonly type: "session.reuse_detected"; readonly session: string }
  /** A token for a session or for a client: durable before it leaves. Where a refusal of the same request follows, it did not. */
  | Requester & {
    readonly type: "token.issued";
    readonly grant: "client_credentials" | "refresh_token";
    readonly session: string | null;
    readonly expiresAtSeconds: number;
    /** Whether it is worth something only together with a proof (RFC 9449). */
    readonly bound: boolean;
  }
  /**
   * An intended change of something that is administered, durable before it is made. Nothing secret is in `before` and
   * `after`; null where there was or will be nothing. Where a refusal of the same request follows, it was not made.
   */
  | Requester & {
    readonly type: "object.changed";
    readonly action: string;
    /** Kind and id, such as `user/usr_…`. */
    readonly object: string;
    readonly before: JsonValue;
    readonly after: JsonValue;
  }
  /** An address is refused from now on: durable before it is. What an admin bans or lifts is an `object.changed`. */
  | {
    readonly type: "address.banned";
    readonly ban: string;
    /** Plain or as a keyed pseudonym, as the settings say. */
    readonly address: string;
    readonly trigger: "credentials" | "validation" | "probes";
    /** The request that was the last straw. */
    readonly request: string;
    /** Whole seconds since 1970; null: for good. */
    readonly untilSeconds: number | null;
  }
  /** Somebody reads the trail: durable before the first entry is given. */
  | Requester & {
    readonly type: "audit.read";
    readonly form: "page" | "jsonl" | "csv" | "payload";
    /** What was looked for. */
    readonly query: JsonValue;
  }
  /** A piece of what a model was asked or answered, sealed under the key of its subject. Only where the settings say so. */
  | Requester & {
    readonly type: "inference.payload";
    readonly model: string;
    readonly part: "input" | "output";
    /** From 0. */
    readonly piece: number;
    readonly pieces: number;
    /** Whether the rest was too long to be kept. */
    readonly cut: boolean;
    readonly key: string;
    /** Base64url. */
    readonly sealed: string;
  }
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

/** For how long an event is kept: those about who did what to the server longer than those about its use. */
export type EventClass = "security" | "activity";

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
