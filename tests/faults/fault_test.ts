// Tests of Fault: private words stay in the message, public ones in the details, and whatever is thrown becomes one.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { Fault, toFault } from "../../src/faults/fault.ts";

Deno.test("a fault is an Error with its kind, its reason as message and its cause", () => {
  const cause = new TypeError("underneath");
  const fault = new Fault("overloaded", "Cannot queue: full", { retryAfterSeconds: 2, cause });
  ok(fault instanceof Error);
  strictEqual(fault.name, "Fault");
  strictEqual(fault.kind, "overloaded");
  strictEqual(fault.message, "Cannot queue: full");
  strictEqual(fault.details.retryAfterSeconds, 2);
  strictEqual(fault.cause, cause);
});

Deno.test("a fault without a cause has none, and no details", () => {
  const fault = new Fault("internal", "x");
  strictEqual("cause" in fault, false);
  deepStrictEqual(fault.details, {});
});

Deno.test("a thrown fault stays the same fault", () => {
  const fault = new Fault("forbidden", "x");
  strictEqual(toFault(fault), fault);
});

Deno.test("whatever else is thrown becomes an internal fault that keeps it as cause", () => {
  for (
    const [thrown, reason] of [
      [new RangeError("too far"), "RangeError: too far"],
      ["a text", "something that is no Error"],
      [undefined, "something that is no Error"],
      [{ kind: "forbidden", message: "pretends" }, "something that is no Error"],
    ] as const
  ) {
    const fault = toFault(thrown);
    strictEqual(fault.kind, "internal");
    strictEqual(fault.message, reason);
    strictEqual(fault.details.cause, thrown);
    strictEqual(fault.details.detail, undefined);
  }
});
