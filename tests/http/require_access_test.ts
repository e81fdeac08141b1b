// Tests of require access: what a refused caller is told, and what not.
import { deepStrictEqual, ok as isTrue, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { decide, type Resource } from "../../src/access/decide.ts";
import type { Principal } from "../../src/access/principal.ts";
import { Fault, type FaultDetails, type FaultKind } from "../../src/faults/fault.ts";
import { FAULT_TABLE } from "../../src/faults/fault_table.ts";
import { objectNotFound, requireAccess } from "../../src/http/require_access.ts";
import type { Action } from "../../src/access/action.ts";
import { anyAction, anyPrincipal, anyResource } from "../access/any_access.ts";
import { grantsOf, principalOf } from "../access/principal_of.ts";

function refusalOf(principal: Principal, action: Action, resource?: Resource): Fault | undefined {
  try {
    requireAccess(principal, action, resource);
    return undefined;
  } catch (thrown) {
    isTrue(thrown instanceof Fault);
    return thrown;
  }
}

function told(
  fault: Fault | undefined,
): { kind: FaultKind; status: number; details: FaultDetails } | undefined {
  return fault && { kind: fault.kind, status: FAULT_TABLE[fault.kind].status, details: fault.details };
}

const { issuer } = principalOf([]);
const object = (subject: string, team: string): Resource => ({
  kind: "object",
  owner: { issuer, subject },
  team,
});

Deno.test("who may is let through, with and without an object", () => {
  strictEqual(refusalOf(principalOf(["user"]), "key:write"), undefined);
  strictEqual(refusalOf(principalOf(["user"]), "key:write", object("usr_1", "red")), undefined);
});

Deno.test("ASVS V8.2.1: a role that lacks the action is 403 with the action that is missing (RFC 6750 §3.1)", () => {
  deepStrictEqual(told(refusalOf(principalOf(["user"]), "user:write")), {
    kind: "forbidden",
    status: 403,
    details: { scopeNeeded: "user:write", scheme: "Bearer" },
  });
});

Deno.test("ASVS V10.3.2: a scope that lacks what the roles have is said to be that", () => {
  const narrowed = principalOf(["user"], { scope: grantsOf("key:read/own") });
  deepStrictEqual(told(refusalOf(narrowed, "key:write", object("usr_1", "red"))), {
    kind: "scope_insufficient",
    status: 403,
    details: { scopeNeeded: "key:write", scheme: "Bearer" },
  });
});

Deno.test("who sees an object and may not do this with it is told so", () => {
  const reader = principalOf([], { grants: grantsOf("user:read/team", "user:write/own") });
  deepStrictEqual(told(refusalOf(reader, "user:write", object("usr_2", "red"))), {
    kind: "forbidden",
    status: 403,
    details: {
      scopeNeeded: "user:write",
      scheme: "Bearer",
      detail: "You may see this object, and not do this with it.",
    },
  });
});

Deno.test("ASVS V8.2.2: an object that is hidden is answered in the words of one that does not exist", () => {
  const missing = told(objectNotFound("no such key"));
  strictEqual(missing?.status, 404);
  deepStrictEqual(told(refusalOf(principalOf(["user"]), "key:read", object("usr_2", "red"))), missing);
  deepStrictEqual(
    told(refusalOf(principalOf(["team-admin"]), "key:write", object("usr_2", "blue"))),
    missing,
  );
  // Not even a role that could never write tells that there is something to write.
  deepStrictEqual(told(refusalOf(principalOf([]), "key:write", object("usr_1", "red"))), missing);
});

Deno.test("property: it throws exactly where the decision is no, never 401, and names neither the object nor the caller", () => {
  fc.assert(fc.property(anyPrincipal, anyAction, anyResource, (principal, action, resource) => {
    const decision = decide(principal, action, resource);
    const fault = refusalOf(principal, action, resource);
    strictEqual(fault === undefined, decision.ok);
    if (fault === undefined || decision.ok) return;
    strictEqual(FAULT_TABLE[fault.kind].status, decision.reason === "hidden" ? 404 : 403);
    for (const text of [fault.message, JSON.stringify(fault.details)]) {
      for (const secret of [principal.subject, principal.credential.id, "usr_2"]) {
        strictEqual(text.includes(secret), false, text);
      }
    }
  }));
});
