// Problem: errors as RFC 9457 has them, for all routes outside the inference dialects.
import type { JsonValue } from "../encoding/canonical_json.ts";
import type { Fault } from "../faults/fault.ts";
import type { FaultRow } from "../faults/fault_table.ts";
import type { Dialect } from "./route.ts";

/** `application/problem+json`. */
export const problemDialect: Dialect = {
  name: "problem",
  errorType: "application/problem+json",
  errorBody(fault: Fault, row: FaultRow, requestId: string): JsonValue {
    const problem = {
      type: `urn:portcullis:problem:${row.code}`,
      title: row.title,
      status: row.status,
      detail: fault.details.detail ?? row.detail,
      instance: `urn:portcullis:request:${requestId}`,
    };
    // An extension member (§3.2), in the form of the RFC's own example: JSON Pointers of the fields.
    const { fields } = fault.details;
    return fields === undefined
      ? problem
      : { ...problem, errors: fields.map(({ path, message }) => ({ pointer: path, detail: message })) };
  },
};
