// Tests of OAuth's errors: a word for every kind of fault, and descriptions of the characters that are allowed.
import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import { FAULT_TABLE } from "../../../src/faults/fault_table.ts";
import { oauthDialect } from "../../../src/http/oauth/oauth_error.ts";
import { anyText } from "../../support/any_text.ts";

const errorOf = (kind: FaultKind, detail?: string): Record<string, string> =>
  oauthDialect.errorBody(
    new Fault(kind, "private words", detail === undefined ? {} : { detail }),
    FAULT_TABLE[kind],
    "req_1",
  ) as Record<string, string>;

const WORDS: Partial<Record<FaultKind, string>> = {
  client_refused: "invalid_client",
  unauthenticated: "invalid_client",
  sign_in_refused: "invalid_client",
  grant_refused: "invalid_grant",
  grant_type_unsupported: "unsupported_grant_type",
  scope_refused: "invalid_scope",
  proof_refused: "invalid_dpop_proof",
  proof_nonce_needed: "use_dpop_nonce",
  forbidden: "unauthorized_client",
  scope_insufficient: "unauthorized_client",
  request_invalid: "invalid_request",
  fields_invalid: "invalid_request",
  media_type_unsupported: "invalid_request",
  body_too_large: "invalid_request",
  rate_limited: "temporarily_unavailable",
  overloaded: "temporarily_unavailable",
  unavailable: "temporarily_unavailable",
  stopping: "temporarily_unavailable",
  deadline_exceeded: "server_error",
  internal: "server_error",
};
for (const [kind, word] of Object.entries(WORDS)) {
  Deno.test(`a Fault ${kind} is ${word} in the words of OAuth (RFC 6749 §5.2)`, () => {
    strictEqual(errorOf(kind as FaultKind).error, word);
  });
}

Deno.test("an error body is error and error_description, with no private word, for every kind of fault", () => {
  for (const kind of Object.keys(FAULT_TABLE) as FaultKind[]) {
    const body = errorOf(kind);
    deepStrictEqual(Object.keys(body), ["error", "error_description"]);
    match(body.error ?? "", /^[a-z_]+$/);
    strictEqual(JSON.stringify(body).includes("private"), false);
  }
});

Deno.test("error_description has only the characters that RFC 6749 §5.2 allows, whatever the words are", () => {
  fc.assert(fc.property(anyText, (words) => {
    match(errorOf("request_invalid", words).error_description ?? "", /^[\x20-\x21\x23-\x5b\x5d-\x7e]*$/);
  }));
  strictEqual(errorOf("request_invalid", 'a "b" \\ \n\u00e9').error_description, "a 'b' ? ??");
});
