// Tests of finding a model: what a caller may not see does not exist, and a refusal does not tell otherwise.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { FAULT_TABLE } from "../../src/faults/fault_table.ts";
import { findModel, listModels } from "../../src/inference/find_model.ts";
import type { Action } from "../../src/access/action.ts";
import { catalog, principal } from "./parts_under_test.ts";

function faultOf(roles: readonly string[], action: Action, id: string): Fault {
  try {
    findModel(catalog, principal(...roles), action, id);
  } catch (thrown) {
    ok(thrown instanceof Fault);
    return thrown;
  }
  throw new Error(`${id} was found`);
}

/** Everything of a fault that a caller gets to see. */
function publicFormOf({ kind, details }: Fault) {
  const { cause: _, ...shown } = details;
  return { ...FAULT_TABLE[kind], ...shown };
}

Deno.test("a model is found by its exact id, by whoever may do with it what is asked", () => {
  strictEqual(findModel(catalog, principal("user"), "model:infer", "open").id, "open");
  strictEqual(findModel(catalog, principal("user"), "model:read", "guarded").id, "guarded");
  strictEqual(findModel(catalog, principal("admin"), "model:infer", "hidden").id, "hidden");
});

Deno.test("ASVS V8.2.2: a hidden model answers exactly like an unknown one, accepted or not, for every action", () => {
  for (const action of ["model:read", "model:infer"] as const) {
    const unknown = publicFormOf(faultOf(["user"], action, "no-such-model"));
    strictEqual(unknown.status, 404);
    for (
      const [roles, id] of [
        [["user"], "hidden"],
        [["auditor"], "hidden"],
        [[], "hidden"],
        [[], "open"],
        [["user"], "broken-hidden"],
        [["root"], "open"],
      ] as const
    ) deepStrictEqual(publicFormOf(faultOf(roles, action, id)), unknown, `${roles} ${id}`);
  }
});

Deno.test("the private reason tells hidden from unknown, and repeats no id that was sent", () => {
  ok(faultOf(["user"], "model:infer", "hidden").message.includes("hidden from the caller"));
  ok(!faultOf(["user"], "model:infer", "../../etc/passwd").message.includes("passwd"));
});

Deno.test("a model that is seen but not open to the caller is forbidden, before it is said that its files were refused", () => {
  strictEqual(faultOf(["user"], "model:infer", "guarded").kind, "forbidden");
  strictEqual(faultOf(["auditor"], "model:infer", "open").kind, "forbidden");
  strictEqual(faultOf(["auditor"], "model:infer", "broken").kind, "forbidden");
});

Deno.test("OWASP LLM03: a model whose files were refused is unavailable to those who may use it", () => {
  for (const action of ["model:read", "model:infer"] as const) {
    strictEqual(faultOf(["user"], action, "broken").kind, "unavailable");
    strictEqual(faultOf(["admin"], action, "broken-hidden").kind, "unavailable");
  }
});

Deno.test("ASVS V8.2.2: the list holds what the caller may see and can be run, and nothing else", () => {
  const idsFor = (...roles: string[]) => listModels(catalog, principal(...roles)).map(({ id }) => id);
  deepStrictEqual(idsFor("admin"), ["open", "guarded", "hidden", "engineless"]);
  deepStrictEqual(idsFor("user"), ["open", "guarded", "engineless"]);
  deepStrictEqual(idsFor("auditor"), ["open", "guarded"]);
  deepStrictEqual(idsFor("root"), []);
  deepStrictEqual(idsFor(), []);
});
