// Tests of built-in roles: what they are as data. What they allow is in the matrix of decide_test.ts.
import { deepStrictEqual, ok as isTrue, strictEqual } from "node:assert/strict";
import { ACTIONS } from "../../src/access/action.ts";
import { formatGrant } from "../../src/access/grant.ts";
import { isModelRole, MODEL_ROLES } from "../../src/access/model_role.ts";
import { BUILT_IN_ROLES } from "../../src/access/role.ts";
import { ALL_ACTIONS } from "./any_access.ts";

Deno.test("built-in roles go by their names, are for every team, and say what they are", () => {
  for (const [name, role] of BUILT_IN_ROLES) {
    strictEqual(role.name, name);
    strictEqual(role.team, null);
    strictEqual(role.builtIn, true);
    isTrue(role.description.endsWith("."), name);
    // The grammar of names in settings and routes.
    isTrue(/^[a-z][a-z0-9-]{0,63}$/.test(name), name);
  }
});

Deno.test("no built-in role gives anything twice", () => {
  for (const { name, grants } of BUILT_IN_ROLES.values()) {
    const actions = grants.map(({ action }) => action);
    deepStrictEqual(actions.filter((action, at) => actions.indexOf(action) !== at), [], name);
  }
});

Deno.test("the roles that cards name are built in, and hold on models to their own name on the card", () => {
  for (const name of MODEL_ROLES) isTrue(BUILT_IN_ROLES.has(name), name);
  for (const [name, { grants }] of BUILT_IN_ROLES) {
    for (const grant of grants.filter(({ action }) => ACTIONS[action] === "model")) {
      deepStrictEqual([grant.cardRole, grant.on], [name, "*"]);
    }
  }
});

Deno.test("whether a text names a role of cards is told by letter", () => {
  for (const name of MODEL_ROLES) strictEqual(isModelRole(name), true);
  for (
    const name of ["", "Admin", "user ", "team-admin", "toString", "__proto__", null, undefined, 0, ["user"]]
  ) {
    strictEqual(isModelRole(name), false, String(name));
  }
});

Deno.test("an admin has every action, and a password of its own only", () => {
  const grants = BUILT_IN_ROLES.get("admin")?.grants.map(formatGrant) ?? [];
  deepStrictEqual(
    grants.toSorted(),
    ALL_ACTIONS.map((action) => action === "password:write" ? "password:write/own" : action).toSorted(),
  );
});

Deno.test("every built-in role changes a password of its own only, and no role but the admin reaches beyond its team to change, but for bans and models", () => {
  for (const [name, { grants }] of BUILT_IN_ROLES) {
    for (const { action, on } of grants) {
      if (action === "password:write") strictEqual(on, "own", name);
      const isChange = ACTIONS[action] !== "model" && !action.endsWith(":read");
      if (name === "operator" && (action === "ban:write" || action === "model:write")) continue;
      if (isChange && name !== "admin") isTrue(on === "own" || on === "team", `${name} ${action}`);
    }
  }
});
