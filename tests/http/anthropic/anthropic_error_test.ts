// Anthropic's error envelope: types by status, fields by name.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { Fault, type FaultKind } from "../../../src/faults/fault.ts";
import { FAULT_TABLE } from "../../../src/faults/fault_table.ts";
import { anthropicDialect } from "../../../src/http/anthropic/anthropic_error.ts";

function bodyOf(fault: Fault) {
  return anthropicDialect.errorBody(fault, FAULT_TABLE[fault.kind], "req_1") as {
    readonly type: string;
    readonly error: { readonly type: string; readonly message: string };
    readonly request_id: string;
  };
}

const TYPES: Readonly<Record<string, readonly FaultKind[]>> = {
  invalid_request_error: [
    "request_invalid",
    "fields_invalid",
    "capability_missing",
    "context_length_exceeded",
    "method_not_allowed",
    "media_type_unsupported",
    "body_timeout",
  ],
  authentication_error: ["unauthenticated"],
  permission_error: ["forbidden"],
  not_found_error: ["not_found", "model_not_found"],
  request_too_large: ["body_too_large"],
  rate_limit_error: ["rate_limited"],
  api_error: ["internal", "upstream_unreachable", "upstream_failed", "upstream_answer_invalid"],
  overloaded_error: ["overloaded", "unavailable", "stopping"],
  timeout_error: ["deadline_exceeded", "upstream_timeout"],
};

for (const [type, kinds] of Object.entries(TYPES)) {
  Deno.test(`the error type of ${kinds.join(", ")} is ${type}`, () => {
    for (const kind of kinds) strictEqual(bodyOf(new Fault(kind, "private")).error.type, type);
  });
}

Deno.test("every kind of fault has a body with public words and the request's id", () => {
  for (const kind of Object.keys(FAULT_TABLE) as FaultKind[]) {
    deepStrictEqual({ ...bodyOf(new Fault(kind, "private")), error: null }, {
      type: "error",
      error: null,
      request_id: "req_1",
    });
    strictEqual(bodyOf(new Fault(kind, "private")).error.message, FAULT_TABLE[kind].detail);
  }
});

Deno.test("the message names the fields as Anthropic does", () => {
  const fields = [{ path: "/messages/0/content", message: "is empty" }, {
    path: "",
    message: "is no object",
  }];
  strictEqual(
    bodyOf(new Fault("fields_invalid", "private", { fields })).error.message,
    "messages.0.content: is empty; body: is no object",
  );
});

Deno.test("a fault's own public words come before the table's", () => {
  strictEqual(
    bodyOf(new Fault("forbidden", "private", { detail: "Not this model." })).error.message,
    "Not this model.",
  );
});
