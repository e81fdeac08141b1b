// The Open Inference Protocol's error envelope: {"error": "<message>"}.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { Fault } from "../../faults/fault.ts";
import type { FaultRow } from "../../faults/fault_table.ts";
import type { Dialect } from "../route.ts";

/** The dialect of `/v2` routes. */
export const oipDialect: Dialect = {
  name: "oip",
  errorType: "application/json",
  errorBody(fault: Fault, row: FaultRow): JsonValue {
    const words = (fault.details.fields ?? []).map(({ path, message }) =>
      `${path === "" ? "body" : path}: ${message}`
    ).join("; ");
    return { error: words === "" ? fault.details.detail ?? row.detail : words };
  },
};
