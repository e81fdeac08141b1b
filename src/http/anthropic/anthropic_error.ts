// Anthropic's error envelope, which its clients parse: {"type": "error", "error": {type, message}, "request_id"}.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { Fault } from "../../faults/fault.ts";
import type { FaultRow } from "../../faults/fault_table.ts";
import type { Dialect } from "../route.ts";

/** The dialect of `/v1/messages`. */
export const anthropicDialect: Dialect = {
  name: "anthropic",
  errorType: "application/json",
  tokenHeader: "x-api-key",
  errorBody(fault: Fault, row: FaultRow, requestId: string): JsonValue {
    // The official client shows `message`: it has to name the fields.
    const words = (fault.details.fields ?? []).map(({ path, message }) => `${nameOf(path)}: ${message}`).join(
      "; ",
    );
    return {
      type: "error",
      error: {
        type: errorTypeOf(row.status),
        message: words === "" ? fault.details.detail ?? row.detail : words,
      },
      request_id: requestId,
    };
  },
};

/** `error.type` by status, as Anthropic documents them. */
function errorTypeOf(status: number): string {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      // "This error type may also be used for other 4XX status codes."
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

/** JSON Pointer to Anthropic's notation: `/messages/0/content` → `messages.0.content`. */
function nameOf(pointer: string): string {
  return pointer === "" ? "body" : pointer.slice(1).replaceAll("/", ".");
}
