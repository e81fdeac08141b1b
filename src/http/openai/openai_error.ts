// OpenAI's error envelope, which its clients parse: {"error": {message, type, param, code}}.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import type { Fault } from "../../faults/fault.ts";
import type { FaultRow } from "../../faults/fault_table.ts";
import type { Dialect } from "../route.ts";

/** The dialect of `/v1` inference routes. */
export const openaiDialect: Dialect = {
  name: "openai",
  errorType: "application/json",
  errorBody(fault: Fault, row: FaultRow): JsonValue {
    const fields = fault.details.fields ?? [];
    // The official client shows `message` only: it has to name the fields.
    const words = fields.map(({ path, message }) => `${nameOf(path)}: ${message}`).join("; ");
    return {
      error: {
        message: words === "" ? fault.details.detail ?? row.detail : words,
        type: row.openaiType,
        param: fields[0] === undefined ? null : nameOf(fields[0].path),
        // OpenAI writes its codes with underscores: "model_not_found".
        code: row.code.replaceAll("-", "_"),
      },
    };
  },
};

/** JSON Pointer to OpenAI's notation: `/input/3` → `input[3]`. */
function nameOf(pointer: string): string {
  if (pointer === "") return "body";
  return pointer.slice(1).split("/").reduce(
    (name, part) => /^\d+$/.test(part) ? `${name}[${part}]` : name === "" ? part : `${name}.${part}`,
    "",
  );
}
