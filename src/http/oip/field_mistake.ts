// Field mistake: the Fault of a body that is wrong in one place.
import { Fault, type FieldMistake } from "../../faults/fault.ts";

/** The Fault of a body that is wrong in one place. */
export function fieldMistake(mistake: FieldMistake): Fault {
  return new Fault("fields_invalid", "Cannot run an inference: a tensor breaks its rules", {
    fields: [mistake],
  });
}
