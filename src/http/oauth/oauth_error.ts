// OAuth's error body, which its clients parse: {"error", "error_description"} (RFC 6749 §5.2).
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { Fault, FaultKind } from "../../faults/fault.ts";
import type { FaultRow } from "../../faults/fault_table.ts";
import type { Dialect } from "../route.ts";

/** Kinds that have a word of their own (RFC 6749 §5.2, RFC 9449 §5 and §8). */
const ERRORS: Partial<Readonly<Record<FaultKind, string>>> = {
  client_refused: "invalid_client",
  grant_refused: "invalid_grant",
  grant_type_unsupported: "unsupported_grant_type",
  scope_refused: "invalid_scope",
  proof_refused: "invalid_dpop_proof",
  proof_nonce_needed: "use_dpop_nonce",
};

/** The dialect of `/oauth2`. */
export const oauthDialect: Dialect = {
  name: "oauth",
  errorType: "application/json",
  errorBody(fault: Fault, row: FaultRow): JsonValue {
    return {
      error: ERRORS[fault.kind] ?? errorOfStatus(row.status),
      error_description: describable(fault.details.detail ?? row.detail),
    };
  },
};

function errorOfStatus(status: number): string {
  if (status === 401) return "invalid_client";
  if (status === 403) return "unauthorized_client";
  // Registered for another endpoint (RFC 6749 §4.1.2.1); the token endpoint has no better word for it.
  if (status === 429 || status === 503) return "temporarily_unavailable";
  return status < 500 ? "invalid_request" : "server_error";
}

/** RFC 6749 §5.2: of ASCII, neither quotes nor backslashes nor control characters. */
function describable(words: string): string {
  return words.replaceAll('"', "'").replace(/[^\x20-\x21\x23-\x5b\x5d-\x7e]/g, "?");
}
