// Fault: the one error class that crosses from room to room, with a closed set of kinds.

/** Everything that can go wrong, as a closed set. `fault_table.ts` says how each kind looks from outside. */
export type FaultKind =
  | "target_invalid"
  | "request_invalid"
  | "query_unknown"
  | "fields_invalid"
  | "media_type_unsupported"
  | "body_too_large"
  | "body_timeout"
  | "method_not_allowed"
  | "method_not_implemented"
  | "not_found"
  | "model_not_found"
  | "unauthenticated"
  | "sign_in_refused"
  | "forbidden"
  | "scope_insufficient"
  | "conflict"
  | "client_refused"
  | "grant_refused"
  | "grant_type_unsupported"
  | "scope_refused"
  | "proof_refused"
  | "proof_nonce_needed"
  | "rate_limited"
  | "budget_exhausted"
  | "banned"
  | "overloaded"
  | "unavailable"
  | "deadline_exceeded"
  | "client_left"
  | "capability_missing"
  | "input_refused"
  | "context_length_exceeded"
  | "upstream_unreachable"
  | "upstream_failed"
  | "upstream_answer_invalid"
  | "upstream_timeout"
  | "stopping"
  | "internal";

/** One field of a request that breaks its rule. `path` is a JSON Pointer (RFC 6901), "" for the whole body. */
export interface FieldMistake {
  readonly path: string;
  readonly message: string;
}

/** What a Fault may carry besides its kind. */
export interface FaultDetails {
  /** Words for the caller. They must hold nothing secret and nothing about the inside; default: the table's words. */
  readonly detail?: string;
  /** For `fields_invalid`: each field that is wrong. */
  readonly fields?: readonly FieldMistake[];
  /** For 429 and 503: whole seconds after which a retry makes sense. */
  readonly retryAfterSeconds?: number;
  /** For 401: why the credential was refused, in the words of RFC 6750 §3.1 and RFC 9449 §7.1. Absent when none was sent. */
  readonly tokenError?: "invalid_token" | "invalid_dpop_proof" | "use_dpop_nonce";
  /**
   * For 401: a short digest of the credential, where that is nothing that this server, or an issuer that it trusts, ever gave
   * out. It counts towards a ban, once for the same digest.
   */
  readonly guess?: string;
  /** For `target_invalid`: whether it is the Host that is not served here. That counts towards no ban. */
  readonly isHostRefused?: boolean;
  /** For 401: the scheme that the credential came by. */
  readonly scheme?: "Bearer" | "DPoP";
  /** For 403: the action that is missing, in the words of RFC 6750 §3.1. */
  readonly scopeNeeded?: string;
  /** For `unavailable`: nothing was asked of whoever is out of reach, so nothing of it has happened, nor will. */
  readonly notSent?: true;
  /** For 405: the methods that work here. */
  readonly allow?: readonly string[];
  /** The error underneath; it goes to the log only. */
  readonly cause?: unknown;
}

/**
 * An expected failure.
 *
 * @param kind which of the closed set
 * @param reason private words for the log and the audit trail; never answered to a caller
 */
export class Fault extends Error {
  override readonly name = "Fault";
  readonly kind: FaultKind;
  readonly details: FaultDetails;

  constructor(kind: FaultKind, reason: string, details: FaultDetails = {}) {
    super(reason, details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = kind;
    this.details = details;
  }
}

/** Turns whatever was thrown into a Fault: a Fault stays itself, all else becomes `internal`. */
export function toFault(thrown: unknown): Fault {
  if (thrown instanceof Fault) return thrown;
  const reason = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : "something that is no Error";
  return new Fault("internal", reason, { cause: thrown });
}
