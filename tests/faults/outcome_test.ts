// Tests of Outcome: a yes carries its value, a no its reason.
import { deepStrictEqual } from "node:assert/strict";
import { no, ok } from "../../src/faults/outcome.ts";

Deno.test("ok carries the value and no carries the reason", () => {
  deepStrictEqual(ok(0), { ok: true, value: 0 });
  deepStrictEqual(no("expired"), { ok: false, reason: "expired" });
});
