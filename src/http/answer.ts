// Answer: from what a handler returns, or from a Fault, to what goes out on the wire.
import { encodeUtf8 } from "../encoding/utf8.ts";
import type { Fault } from "../faults/fault.ts";
import { FAULT_TABLE } from "../faults/fault_table.ts";
import type { Challenge } from "./challenge.ts";
import type { Answer, BodyStream, Dialect } from "./route.ts";

const JSON_TYPE = "application/json";

/** What goes out. To make a Response of it and read that again would cost as much as all the rest of the transport. */
export interface WireAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: null | string | Uint8Array<ArrayBuffer> | BodyStream;
}

/** The answer for the wire. Headers of the answer go over the standard ones. */
export function buildAnswer(
  answer: Answer,
  standardHeaders: Record<string, string>,
  isHead = false,
): WireAnswer {
  const { status, stream, bytes } = answer;
  const headers = answer.headers === undefined ? standardHeaders : { ...standardHeaders, ...answer.headers };
  if (answer.body !== undefined) headers["Content-Type"] ??= JSON_TYPE;
  const body = stream ?? bytes ?? (answer.body === undefined ? null : JSON.stringify(answer.body));
  // RFC 9110 §8.6: what HEAD says of the length is what GET would send. The router takes the body off.
  if (isHead && typeof body === "string") headers["Content-Length"] = String(encodeUtf8(body).length);
  return { status, headers, body };
}

/** A Fault in the words of a dialect, with the headers that its status demands. */
export function faultAnswer(fault: Fault, dialect: Dialect, requestId: string, challenge: Challenge): Answer {
  const row = FAULT_TABLE[fault.kind];
  const { retryAfterSeconds, allow } = fault.details;
  const headers: Record<string, string> = { "Content-Type": dialect.errorType };
  // RFC 9110 §11.6.1: a 401 names a scheme.
  const authenticate = challenge(fault, row.status);
  if (authenticate !== undefined) headers["WWW-Authenticate"] = authenticate;
  if (retryAfterSeconds !== undefined) headers["Retry-After"] = String(Math.ceil(retryAfterSeconds));
  // RFC 9110 §15.5.9, §15.5.14: what is left of a body that was given up on must not be read as a next request.
  if (fault.kind === "body_timeout" || fault.kind === "body_too_large") headers["Connection"] = "close";
  if (allow !== undefined) headers["Allow"] = allow.join(", ");
  return { status: row.status, headers, body: dialect.errorBody(fault, row, requestId) };
}
