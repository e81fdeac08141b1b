// Is fault: for `rejects`, whether a Fault of one kind was thrown.
import { ok, strictEqual } from "node:assert/strict";
import { Fault, type FaultKind } from "../../src/faults/fault.ts";

/** @param detail what the caller is told, where that matters */
export function isFault(kind: FaultKind, detail?: string): (thrown: unknown) => true {
  return (thrown) => {
    ok(thrown instanceof Fault, String(thrown));
    strictEqual(thrown.kind, kind);
    if (detail !== undefined) strictEqual(thrown.details.detail, detail);
    return true;
  };
}
