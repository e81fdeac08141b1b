// Answer: from what a handler returns, or from a Fault, to the Response on the wire.
import { encodeUtf8 } from "../encoding/utf8.ts";
import type { Fault } from "../faults/fault.ts";
import { FAULT_TABLE } from "../faults/fault_table.ts";
import type { Answer, BodyStream, Dialect } from "./route.ts";

const JSON_TYPE = "application/json";

/** The Response. Headers of the answer go over the standard ones. */
export function buildAnswer(
  answer: Answer,
  standardHeaders: Record<string, string>,
  isHead = false,
): Response {
  const headers = answer.headers === undefined ? standardHeaders : { ...standardHeaders, ...answer.headers };
  if (answer.stream !== undefined) {
    return new Response(readable(answer.stream), { status: answer.status, headers });
  }
  if (answer.bytes !== undefined) {
    if (isHead) headers["Content-Length"] = String(answer.bytes.length);
    return new Response(answer.bytes, { status: answer.status, headers });
  }
  if (answer.body === undefined) return new Response(null, { status: answer.status, headers });
  headers["Content-Type"] ??= JSON_TYPE;
  const text = JSON.stringify(answer.body);
  // RFC 9110 §8.6: what HEAD says of the length is what GET would send. The router takes the body off.
  if (isHead) headers["Content-Length"] = String(encodeUtf8(text).length);
  return new Response(text, { status: answer.status, headers });
}

/** Nothing is read before the client takes it: a client that is slow makes the engine wait (back-pressure). */
function readable(stream: BodyStream): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const pieces = await stream.next();
        if (pieces === undefined) controller.close();
        else for (const piece of pieces) controller.enqueue(piece);
      } catch (thrown) {
        controller.error(thrown);
      }
    },
    cancel: () => stream.cancel(),
  }, { highWaterMark: 0 });
}

/** A Fault in the words of a dialect, with the headers that its status demands. */
export function faultAnswer(fault: Fault, dialect: Dialect, requestId: string): Answer {
  const row = FAULT_TABLE[fault.kind];
  const { retryAfterSeconds, allow, bearerError } = fault.details;
  const headers: Record<string, string> = { "Content-Type": dialect.errorType };
  // RFC 9110 §11.6.1: a 401 names a scheme; RFC 6750 §3 gives its form.
  if (row.status === 401) {
    headers["WWW-Authenticate"] = `Bearer realm="portcullis"${
      bearerError === undefined ? "" : `, error="${bearerError}"`
    }`;
  }
  if (retryAfterSeconds !== undefined) headers["Retry-After"] = String(Math.ceil(retryAfterSeconds));
  // RFC 9110 §15.5.9, §15.5.14: what is left of a body that was given up on must not be read as a next request.
  if (fault.kind === "body_timeout" || fault.kind === "body_too_large") headers["Connection"] = "close";
  if (allow !== undefined) headers["Allow"] = allow.join(", ");
  return { status: row.status, headers, body: dialect.errorBody(fault, row, requestId) };
}
