// The fault table: what each kind of fault looks like from outside (status, problem type, public words).
import type { FaultKind } from "./fault.ts";

/** How one kind of fault is answered. */
export interface FaultRow {
  /** HTTP status (RFC 9110 §15). */
  readonly status: number;
  /** Last part of the problem's type URI (RFC 9457 §3.1.1); also the stable error code. */
  readonly code: string;
  /** RFC 9457 §3.1.4: the same for every occurrence. */
  readonly title: string;
  /** Public words when the fault brings none. */
  readonly detail: string;
  /** `error.type` in OpenAI's envelope. */
  readonly openaiType: string;
}

const row = (status: number, code: string, title: string, detail: string, openaiType: string): FaultRow => ({
  status,
  code,
  title,
  detail,
  openaiType,
});

const INVALID = "invalid_request_error";
const SERVER = "server_error";

/** One row for each kind. 499 never reaches a caller: it marks in log and audit that the caller had left. */
export const FAULT_TABLE: Readonly<Record<FaultKind, FaultRow>> = {
  target_invalid: row(
    400,
    "target-invalid",
    "Request target refused",
    "The Host header or the request target is not acceptable.",
    INVALID,
  ),
  request_invalid: row(
    400,
    "request-invalid",
    "Request not understood",
    "The request is malformed.",
    INVALID,
  ),
  query_unknown: row(
    400,
    "query-unknown",
    "Query parameter refused",
    "This route takes no such query parameter.",
    INVALID,
  ),
  fields_invalid: row(422, "fields-invalid", "Fields refused", "Some fields break their rules.", INVALID),
  media_type_unsupported: row(
    415,
    "media-type-unsupported",
    "Media type not supported",
    "Send application/json, uncompressed.",
    INVALID,
  ),
  body_too_large: row(
    413,
    "body-too-large",
    "Body too large",
    "The body is larger than this server accepts.",
    INVALID,
  ),
  body_timeout: row(408, "body-timeout", "Body too slow", "The body did not arrive in time.", INVALID),
  method_not_allowed: row(
    405,
    "method-not-allowed",
    "Method not allowed",
    "This method does not work here.",
    INVALID,
  ),
  method_not_implemented: row(
    501,
    "method-not-implemented",
    "Method not implemented",
    "This server does not implement this method.",
    INVALID,
  ),
  not_found: row(404, "not-found", "Not found", "There is nothing here.", INVALID),
  model_not_found: row(
    404,
    "model-not-found",
    "Model not found",
    "There is no such model, or it is not open to you.",
    INVALID,
  ),
  unauthenticated: row(
    401,
    "unauthenticated",
    "Authentication required",
    "Send a valid access token or API key as Authorization: Bearer.",
    "authentication_error",
  ),
  sign_in_refused: row(
    401,
    "sign-in-refused",
    "Sign-in refused",
    "The user name or the password is wrong.",
    "authentication_error",
  ),
  forbidden: row(403, "forbidden", "Forbidden", "Your role does not allow this action.", "permission_error"),
  scope_insufficient: row(
    403,
    "scope-insufficient",
    "Scope insufficient",
    "The token or key that was sent is not meant for this action.",
    "permission_error",
  ),
  conflict: row(409, "conflict", "Conflict", "That does not go together with what there is.", INVALID),
  client_refused: row(
    401,
    "client-refused",
    "Client refused",
    "The client could not be authenticated.",
    "authentication_error",
  ),
  grant_refused: row(
    400,
    "grant-refused",
    "Grant refused",
    "The grant is unknown, expired, used or ended.",
    INVALID,
  ),
  grant_type_unsupported: row(
    400,
    "grant-type-unsupported",
    "Grant type not supported",
    "Send client_credentials or refresh_token.",
    INVALID,
  ),
  scope_refused: row(
    400,
    "scope-refused",
    "Scope refused",
    "The scope is malformed, or more than the caller has.",
    INVALID,
  ),
  proof_refused: row(
    400,
    "proof-refused",
    "Proof of possession refused",
    "The DPoP proof is not valid for this request (RFC 9449 §4.3).",
    INVALID,
  ),
  proof_nonce_needed: row(
    400,
    "proof-nonce-needed",
    "Proof of possession needs a nonce",
    "Send a DPoP proof with the nonce of the DPoP-Nonce header (RFC 9449 §8).",
    INVALID,
  ),
  rate_limited: row(
    429,
    "rate-limited",
    "Too many requests",
    "The rate limit is used up.",
    "rate_limit_error",
  ),
  budget_exhausted: row(
    429,
    "budget-exhausted",
    "Budget used up",
    "A budget of this period is used up.",
    "insufficient_quota",
  ),
  banned: row(
    403,
    "banned",
    "Banned",
    "This address is banned.",
    "permission_error",
  ),
  overloaded: row(503, "overloaded", "Overloaded", "The server is busy. Try again shortly.", SERVER),
  unavailable: row(
    503,
    "unavailable",
    "Unavailable",
    "A part that this request needs is not available now.",
    SERVER,
  ),
  deadline_exceeded: row(
    504,
    "deadline-exceeded",
    "Deadline exceeded",
    "The request took longer than the server allows.",
    SERVER,
  ),
  client_left: row(499, "client-left", "Client left", "The client closed the connection.", INVALID),
  capability_missing: row(
    400,
    "capability-missing",
    "Model cannot do this",
    "This model does not do what the route asks of it. GET /v1/models tells what each model does.",
    INVALID,
  ),
  input_refused: row(
    400,
    "input-refused",
    "Input refused by the engine",
    "The engine behind this model refused the input.",
    INVALID,
  ),
  context_length_exceeded: row(
    400,
    "context-length-exceeded",
    "Input too long for the model",
    "The input and the answer asked for are longer than the model's context.",
    INVALID,
  ),
  upstream_unreachable: row(
    502,
    "upstream-unreachable",
    "Engine not reached",
    "The engine behind this model could not be reached, or dropped the connection.",
    SERVER,
  ),
  upstream_failed: row(
    502,
    "upstream-failed",
    "Engine failed",
    "The engine behind this model failed.",
    SERVER,
  ),
  upstream_answer_invalid: row(
    502,
    "upstream-answer-invalid",
    "Engine's answer refused",
    "The engine behind this model answered with something that is no valid answer.",
    SERVER,
  ),
  upstream_timeout: row(
    504,
    "upstream-timeout",
    "Engine too slow",
    "The engine behind this model did not answer in time.",
    SERVER,
  ),
  stopping: row(503, "stopping", "Server stops", "The server is stopping. Try again shortly.", SERVER),
  internal: row(
    500,
    "internal",
    "Internal error",
    "Something failed inside. The request id names the record of it.",
    SERVER,
  ),
};
