// Tests of payload policies: by default nothing is kept, and of several policies all that one of them says.
import { deepStrictEqual } from "node:assert/strict";
import { keptParts, type PayloadPolicy } from "../../../src/audit/payload/payload_policy.ts";

const BOTH = ["input", "output"] as const;

Deno.test("without a policy nothing is kept", () => {
  deepStrictEqual(keptParts([], "m", ["admin"]), []);
});

Deno.test("a policy fits where a pattern of models and one of the caller's roles fit, and what is absent fits everything", () => {
  const cases: readonly (readonly [PayloadPolicy, string, readonly string[], readonly string[]])[] = [
    [{ parts: BOTH }, "any", [], BOTH],
    [{ parts: ["output"] }, "any", ["user"], ["output"]],
    [{ models: ["gpt-*"], parts: BOTH }, "gpt-4", ["user"], BOTH],
    [{ models: ["gpt-*"], parts: BOTH }, "my-gpt-4", ["user"], []],
    [{ models: ["a", "b"], parts: BOTH }, "b", ["user"], BOTH],
    [{ models: ["a"], parts: BOTH }, "A", ["user"], []],
    [{ roles: ["user"], parts: BOTH }, "m", ["operator", "user"], BOTH],
    [{ roles: ["user"], parts: BOTH }, "m", ["operator"], []],
    [{ roles: ["user"], parts: BOTH }, "m", [], []],
    [{ roles: ["support-*"], parts: BOTH }, "m", ["support-eu"], BOTH],
    [{ models: ["m"], roles: ["user"], parts: BOTH }, "m", ["operator"], []],
    [{ models: ["m"], roles: ["user"], parts: BOTH }, "n", ["user"], []],
  ];
  for (const [policy, model, roles, parts] of cases) {
    deepStrictEqual(keptParts([policy], model, roles), parts, JSON.stringify([policy, model, roles]));
  }
});

Deno.test("of several policies that fit, all parts are kept, each once", () => {
  const policies: PayloadPolicy[] = [
    { models: ["m"], parts: ["output"] },
    { roles: ["user"], parts: ["input"] },
    { roles: ["user"], parts: ["input"] },
  ];
  deepStrictEqual([...keptParts(policies, "m", ["user"])].sort(), BOTH);
  deepStrictEqual(keptParts(policies, "m", ["operator"]), ["output"]);
  deepStrictEqual(keptParts(policies, "n", ["operator"]), []);
});
