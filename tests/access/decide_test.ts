// Tests of decisions: the matrix of roles and actions, and models that a refusal does not betray.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { type Action, ACTIONS } from "../../src/access/action.ts";
import { decide, decideOnModel, ROLE_ACTIONS } from "../../src/access/decide.ts";
import { isRole, ROLES } from "../../src/access/role.ts";
import type { Principal } from "../../src/identity/principal.ts";

function principal(...roles: string[]): Principal {
  return {
    issuer: "https://ai.example.com",
    subject: "usr_1",
    roles,
    credential: { kind: "access_token", id: "tok_1", expiresAtSeconds: 1_750_000_900 },
  };
}

/** The matrix, written down a second time by hand: who changes one has to change both. */
const MATRIX: Readonly<Record<string, Readonly<Record<Action, boolean>>>> = {
  admin: { "model:read": true, "model:infer": true, "session:end": true, "upstream:read": true },
  operator: { "model:read": true, "model:infer": true, "session:end": true, "upstream:read": true },
  auditor: { "model:read": true, "model:infer": false, "session:end": true, "upstream:read": false },
  user: { "model:read": true, "model:infer": true, "session:end": true, "upstream:read": false },
};

const OPEN = { see: [...ROLES], use: [...ROLES] };

Deno.test("ASVS V8.1.1: every role and every action is in the matrix, and decided as it says", () => {
  deepStrictEqual(Object.keys(MATRIX).sort(), [...ROLES].sort());
  deepStrictEqual(Object.keys(ROLE_ACTIONS).sort(), [...ROLES].sort());
  for (const [role, row] of Object.entries(MATRIX)) {
    deepStrictEqual(Object.keys(row).sort(), [...ACTIONS].sort());
    for (const action of ACTIONS) {
      const expected = row[action] ? { ok: true, value: true } : { ok: false, reason: "role_lacks_action" };
      deepStrictEqual(decide(principal(role), action), expected, `${role} ${action}`);
      deepStrictEqual(decideOnModel(principal(role), action, OPEN), expected, `${role} ${action} on a model`);
    }
  }
});

const NO_ROLES = [
  "",
  "Admin",
  "ADMIN",
  "admin ",
  "root",
  "superuser",
  "*",
  "__proto__",
  "constructor",
  "toString",
  "admin,user",
];

Deno.test("ASVS V8.2.1: no role, or names that are no role, allow nothing", () => {
  for (const action of ACTIONS) {
    deepStrictEqual(decide(principal(), action), { ok: false, reason: "role_lacks_action" });
    for (const name of NO_ROLES) {
      strictEqual(isRole(name), false, name);
      deepStrictEqual(decide(principal(name), action), { ok: false, reason: "role_lacks_action" }, name);
      // Not even where a card names it.
      deepStrictEqual(
        decideOnModel(principal(name), action, { see: [name], use: [name] }),
        { ok: false, reason: "model_hidden" },
        name,
      );
    }
  }
});

Deno.test("roles add up: what one of them allows is allowed, beside names that are no role as well", () => {
  strictEqual(decide(principal("auditor", "user"), "model:infer").ok, true);
  strictEqual(decide(principal("root", "auditor"), "model:read").ok, true);
  strictEqual(decide(principal("root", "auditor"), "model:infer").ok, false);
});

Deno.test("roles do not lend each other what they lack: to run a model one role has both the action and its place on the card", () => {
  const auditorsOnly = { see: [...ROLES], use: ["auditor"] };
  deepStrictEqual(decideOnModel(principal("auditor", "user"), "model:infer", auditorsOnly), {
    ok: false,
    reason: "model_not_usable",
  });
});

Deno.test("what is no action is allowed to nobody", () => {
  for (const action of ["", "*", "model:delete", "MODEL:READ", "__proto__"]) {
    for (const role of ROLES) strictEqual(decide(principal(role), action as Action).ok, false);
  }
});

Deno.test("ASVS V8.2.2: a hidden model is hidden before anything else is said, for every action", () => {
  const adminsOnly = { see: ["admin"], use: ["admin", "user", "auditor"] };
  for (const action of ACTIONS) {
    for (const role of ["user", "operator", "auditor"]) {
      deepStrictEqual(decideOnModel(principal(role), action, adminsOnly), {
        ok: false,
        reason: "model_hidden",
      });
    }
    deepStrictEqual(decideOnModel(principal("admin"), action, adminsOnly), { ok: true, value: true });
  }
});

Deno.test("a model that is seen and not used can be read and not run", () => {
  const model = { see: [...ROLES], use: ["admin"] };
  deepStrictEqual(decideOnModel(principal("user"), "model:read", model), { ok: true, value: true });
  deepStrictEqual(decideOnModel(principal("user"), "model:infer", model), {
    ok: false,
    reason: "model_not_usable",
  });
  deepStrictEqual(decideOnModel(principal("admin"), "model:infer", model), { ok: true, value: true });
});

Deno.test("a card gives no action that the role lacks", () => {
  deepStrictEqual(
    decideOnModel(principal("auditor"), "model:infer", { see: ["auditor"], use: ["auditor"] }),
    { ok: false, reason: "role_lacks_action" },
  );
});

Deno.test("a card without any role opens a model to nobody", () => {
  for (const role of ROLES) {
    strictEqual(decideOnModel(principal(role), "model:read", { see: [], use: [] }).ok, false);
  }
});

Deno.test("property: more roles never allow less, and a model never allows what the roles alone do not", () => {
  const names = fc.array(fc.constantFrom(...ROLES, ...NO_ROLES), { maxLength: 4 });
  const access = fc.record({ see: names, use: names });
  fc.assert(fc.property(names, names, fc.constantFrom(...ACTIONS), access, (some, more, action, model) => {
    const allowed = (roles: string[]) => decide(principal(...roles), action).ok;
    const allowedOnModel = (roles: string[]) => decideOnModel(principal(...roles), action, model).ok;
    if (allowed(some)) strictEqual(allowed([...some, ...more]), true);
    if (allowedOnModel(some)) strictEqual(allowedOnModel([...more, ...some]) && allowed(some), true);
  }));
});
