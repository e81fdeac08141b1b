// Tests of decisions: the matrix of roles and actions, how far each reaches, and objects that a refusal does not betray.
import { deepStrictEqual, ok as isTrue, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { type Action, ACTIONS, isAction, readingOf } from "../../src/access/action.ts";
import { type AccessRefusal, coversAll, decide, type Resource } from "../../src/access/decide.ts";
import { isModelRole, MODEL_ROLES } from "../../src/access/model_role.ts";
import { BUILT_IN_ROLES } from "../../src/access/role.ts";
import { ALL_ACTIONS, anyAction, anyGrants, anyPrincipal, anyResource, anyScope } from "./any_access.ts";
import { grantsOf, grantsOfRoles, principalOf } from "./principal_of.ts";

const YES = { ok: true, value: true };
const refused = (reason: AccessRefusal) => ({ ok: false, reason });

function model(id: string, card: Partial<Resource & { kind: "model" }> = {}): Resource {
  return { kind: "model", id, see: MODEL_ROLES, use: MODEL_ROLES, teams: null, ...card };
}

function object(subject: string | null, team: string | null, issuer = "https://ai.example.com"): Resource {
  return { kind: "object", owner: subject === null ? null : { issuer, subject }, team };
}

/** The caller is usr_1 of the team `red`. */
const OBJECTS = {
  own: object("usr_1", "red"),
  team: object("usr_2", "red"),
  other: object("usr_3", "blue"),
  server: object(null, null),
} as const;

const ROLES = ["admin", "operator", "auditor", "user", "team-admin"] as const;
type Reach = "*" | "team" | "own" | "-";

/** The matrix, written down a second time by hand, in the order of ROLES: who changes one has to change both. */
const MATRIX: Readonly<Record<Action, readonly [Reach, Reach, Reach, Reach, Reach]>> = {
  "model:read": ["*", "*", "*", "*", "-"],
  "model:infer": ["*", "*", "-", "*", "-"],
  "upstream:read": ["*", "*", "-", "-", "-"],
  "session:read": ["*", "own", "*", "own", "team"],
  "session:end": ["*", "own", "own", "own", "team"],
  "password:write": ["own", "own", "own", "own", "own"],
  "key:read": ["*", "own", "*", "own", "team"],
  "key:write": ["*", "own", "-", "own", "team"],
  "user:read": ["*", "own", "*", "own", "team"],
  "user:write": ["*", "-", "-", "-", "team"],
  "client:read": ["*", "-", "*", "-", "team"],
  "client:write": ["*", "-", "-", "-", "team"],
  "role:read": ["*", "-", "*", "-", "team"],
  "role:write": ["*", "-", "-", "-", "team"],
  "team:read": ["*", "-", "*", "-", "team"],
  "team:write": ["*", "-", "-", "-", "-"],
  "token:introspect": ["*", "-", "-", "-", "team"],
  "signing_key:rotate": ["*", "-", "-", "-", "-"],
  "usage:read": ["*", "*", "*", "own", "team"],
  "ban:read": ["*", "*", "*", "-", "-"],
  "ban:write": ["*", "*", "-", "-", "-"],
  "audit:read": ["*", "-", "*", "-", "-"],
  "payload:read": ["*", "-", "-", "-", "-"],
  "payload:destroy": ["*", "-", "-", "-", "-"],
  "vault:rotate": ["*", "-", "-", "-", "-"],
  "model:write": ["*", "*", "-", "-", "-"],
};

/** What has to be readable for an action on an object to be told of, by hand as well. */
const READING: Readonly<Partial<Record<Action, Action>>> = {
  "session:end": "session:read",
  "password:write": "user:read",
  "key:write": "key:read",
  "user:write": "user:read",
  "client:write": "client:read",
  "role:write": "role:read",
  "team:write": "team:read",
  "model:infer": "model:read",
  "ban:write": "ban:read",
  "payload:destroy": "payload:read",
  "model:write": "model:read",
};

const REACHED: Readonly<Record<Reach, readonly (keyof typeof OBJECTS)[]>> = {
  "*": ["own", "team", "other", "server"],
  team: ["own", "team"],
  own: ["own"],
  "-": [],
};

Deno.test("ASVS V8.1.1: every role and every action is in the matrix, and decided as it says, on whosever object", () => {
  deepStrictEqual([...BUILT_IN_ROLES.keys()], ROLES);
  deepStrictEqual(Object.keys(MATRIX).sort(), [...ALL_ACTIONS].sort());
  ROLES.forEach((role, column) => {
    const reachOf = (action: Action) => MATRIX[action][column] ?? "-";
    for (const action of ALL_ACTIONS) {
      const reach = reachOf(action);
      const atAll = reach === "-" ? refused("role_lacks_action") : YES;
      deepStrictEqual(decide(principalOf([role]), action), atAll, `${role} ${action}`);
      if (ACTIONS[action] === "model") {
        const isHidden = reachOf("model:read") === "-" && reachOf("model:infer") === "-";
        const expected = isHidden ? refused("hidden") : atAll;
        deepStrictEqual(decide(principalOf([role]), action, model("m")), expected, `${role} ${action}`);
      }
      if (ACTIONS[action] !== "object") continue;
      for (const where of ["own", "team", "other", "server"] as const) {
        const expected = !REACHED[reachOf(READING[action] ?? action)].includes(where)
          ? refused("hidden")
          : reach === "-"
          ? refused("role_lacks_action")
          : REACHED[reach].includes(where)
          ? YES
          : refused("not_on_this");
        const decision = decide(principalOf([role]), action, OBJECTS[where]);
        deepStrictEqual(decision, expected, `${role} ${action} ${where}`);
      }
    }
  });
});

Deno.test("the action that has to be allowed for an object to be seen is the one written down, or the action itself", () => {
  for (const action of ALL_ACTIONS) strictEqual(readingOf(action), READING[action] ?? action);
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
  for (const roles of [[], ...NO_ROLES.map((name) => [name])]) {
    for (const name of roles) strictEqual(isModelRole(name) || BUILT_IN_ROLES.has(name), false, name);
    for (const action of ALL_ACTIONS) {
      deepStrictEqual(decide(principalOf(roles), action), refused("role_lacks_action"));
      for (const resource of Object.values(OBJECTS)) {
        deepStrictEqual(decide(principalOf(roles), action, resource), refused("hidden"));
      }
      // Not even where a card names it.
      const named = model("m", { see: roles, use: roles });
      deepStrictEqual(decide(principalOf(roles), action, named), refused("hidden"), String(roles));
    }
  }
});

Deno.test("what is no action is allowed to nobody, whatever it is done to", () => {
  for (const action of ["", "*", "model:delete", "MODEL:READ", "user:", "__proto__", "constructor"]) {
    strictEqual(isAction(action), false);
    for (const resource of [undefined, model("m"), ...Object.values(OBJECTS)]) {
      strictEqual(decide(principalOf(ROLES), action as Action, resource).ok, false, action);
    }
  }
});

Deno.test("an action is allowed on nothing but its own kind of resource", () => {
  const all = principalOf([], { grants: grantsOf(...ALL_ACTIONS) });
  for (const action of ALL_ACTIONS) {
    strictEqual(decide(all, action, model("m")).ok, ACTIONS[action] === "model", action);
    strictEqual(decide(all, action, OBJECTS.own).ok, ACTIONS[action] === "object", action);
  }
});

Deno.test("roles add up: what one of them allows is allowed, beside names that are no role as well", () => {
  strictEqual(decide(principalOf(["auditor", "user"]), "model:infer").ok, true);
  strictEqual(decide(principalOf(["root", "auditor"]), "model:read").ok, true);
  strictEqual(decide(principalOf(["root", "auditor"]), "model:infer").ok, false);
});

Deno.test("roles do not lend each other what they lack: to run a model one role has both the action and its place on the card", () => {
  const auditorsOnly = model("m", { use: ["auditor"] });
  deepStrictEqual(
    decide(principalOf(["auditor", "user"]), "model:infer", auditorsOnly),
    refused("not_on_this"),
  );
  // A place among those who see it and one among those who use it, of two roles, make no whole.
  const split = model("m", { see: ["operator"], use: ["user"] });
  deepStrictEqual(decide(principalOf(["operator", "user"]), "model:infer", split), refused("not_on_this"));
});

Deno.test("ASVS V8.2.2: a hidden model is hidden before anything else is said, for every action", () => {
  const adminsOnly = model("m", { see: ["admin"] });
  for (const action of ["model:read", "model:infer"] as const) {
    for (const role of ["user", "operator", "auditor", "team-admin"]) {
      deepStrictEqual(decide(principalOf([role]), action, adminsOnly), refused("hidden"));
    }
    deepStrictEqual(decide(principalOf(["admin"]), action, adminsOnly), YES);
  }
});

Deno.test("a model that is seen and not used can be read and not run", () => {
  const adminsUse = model("m", { use: ["admin"] });
  deepStrictEqual(decide(principalOf(["user"]), "model:read", adminsUse), YES);
  deepStrictEqual(decide(principalOf(["user"]), "model:infer", adminsUse), refused("not_on_this"));
  deepStrictEqual(decide(principalOf(["admin"]), "model:infer", adminsUse), YES);
});

Deno.test("a card gives no action that the role lacks", () => {
  const auditors = model("m", { see: ["auditor"], use: ["auditor"] });
  deepStrictEqual(decide(principalOf(["auditor"]), "model:infer", auditors), refused("role_lacks_action"));
});

Deno.test("a card without any role opens a model to no built-in role, and one that only uses to nobody who does not see", () => {
  for (const role of ROLES) {
    for (const action of ["model:read", "model:infer"] as const) {
      deepStrictEqual(
        decide(principalOf([role]), action, model("m", { see: [], use: [] })),
        refused("hidden"),
      );
      deepStrictEqual(decide(principalOf([role]), action, model("m", { see: [] })), refused("hidden"));
    }
  }
});

Deno.test("a custom role opens the models of its pattern, past their cards, and no others", () => {
  const custom = principalOf(["labs"], { grants: grantsOf("model:read/lab-*", "model:infer/lab-*-small") });
  const closed = { see: ["admin"], use: ["admin"] };
  deepStrictEqual(decide(custom, "model:infer", model("lab-1-small", closed)), YES);
  deepStrictEqual(decide(custom, "model:read", model("lab-1-small", closed)), YES);
  deepStrictEqual(decide(custom, "model:read", model("lab-1-large", closed)), YES);
  deepStrictEqual(decide(custom, "model:infer", model("lab-1-large", closed)), refused("not_on_this"));
  for (const id of ["lab", "xlab-1-small", "LAB-1-small", "other"]) {
    deepStrictEqual(decide(custom, "model:read", model(id)), refused("hidden"), id);
    deepStrictEqual(decide(custom, "model:infer", model(id)), refused("hidden"), id);
  }
  // Whoever may run a model knows that it is there.
  const runs = principalOf(["labs"], { grants: grantsOf("model:infer/lab-*") });
  deepStrictEqual(decide(runs, "model:infer", model("lab-1", closed)), YES);
  deepStrictEqual(decide(runs, "model:read", model("lab-1", closed)), refused("role_lacks_action"));
});

Deno.test("a built-in role's grant on models holds within its pattern and its card, both", () => {
  const [grant] = grantsOf("model:infer/a*");
  isTrue(grant);
  const caller = principalOf(["user"], { grants: [{ ...grant, cardRole: "user" }] });
  deepStrictEqual(decide(caller, "model:infer", model("ab")), YES);
  deepStrictEqual(decide(caller, "model:infer", model("b")), refused("hidden"));
  deepStrictEqual(decide(caller, "model:infer", model("ab", { see: ["admin"] })), refused("hidden"));
});

Deno.test("ASVS V8.4.1: a model for other teams is hidden from everybody else, an admin and custom roles included", () => {
  const blues = model("m", { teams: ["blue", "green"] });
  const callers = [principalOf(ROLES), principalOf([], { grants: grantsOf("model:read", "model:infer") })];
  for (const caller of callers) {
    for (const action of ["model:read", "model:infer"] as const) {
      deepStrictEqual(decide(caller, action, blues), refused("hidden"));
      deepStrictEqual(decide(caller, action, model("m", { teams: [] })), refused("hidden"));
      deepStrictEqual(decide({ ...caller, team: "blue" }, action, blues), YES);
      deepStrictEqual(decide({ ...caller, team: "green" }, action, blues), YES);
    }
  }
});

Deno.test("ASVS V8.4.1: objects of other teams and of the server are hidden but for grants on everything", () => {
  for (const on of ["own", "team"]) {
    const caller = principalOf([], { grants: grantsOf(`user:read/${on}`, "user:write") });
    // Another team's object stays hidden even where the caller could write it.
    deepStrictEqual(decide(caller, "user:write", OBJECTS.other), refused("hidden"), on);
    deepStrictEqual(decide(caller, "user:write", OBJECTS.server), refused("hidden"), on);
  }
  const everywhere = principalOf([], { grants: grantsOf("user:read", "user:write/team") });
  deepStrictEqual(decide(everywhere, "user:read", OBJECTS.other), YES);
  deepStrictEqual(decide(everywhere, "user:read", OBJECTS.server), YES);
  deepStrictEqual(decide(everywhere, "user:write", OBJECTS.other), refused("not_on_this"));
  deepStrictEqual(decide(everywhere, "user:write", OBJECTS.server), refused("not_on_this"));
  deepStrictEqual(decide(everywhere, "user:write", OBJECTS.team), YES);
});

Deno.test("one's own is what one owns, in whatever team; a team has no hold on what its people own elsewhere", () => {
  const owns = principalOf([], { grants: grantsOf("key:read/own") });
  deepStrictEqual(decide(owns, "key:read", object("usr_1", "blue")), YES);
  deepStrictEqual(decide(owns, "key:read", object("usr_1", null)), YES);
  deepStrictEqual(decide(owns, "key:read", object(null, "red")), refused("hidden"));
  deepStrictEqual(decide(owns, "key:read", OBJECTS.team), refused("hidden"));
  const looksAfterTeam = principalOf([], { grants: grantsOf("key:read/team") });
  deepStrictEqual(decide(looksAfterTeam, "key:read", object("usr_1", "blue")), refused("hidden"));
  deepStrictEqual(decide(looksAfterTeam, "key:read", object(null, "red")), YES);
});

Deno.test("ASVS V6.8.1: the same subject of another issuer is somebody else, and never an owner", () => {
  const stranger = principalOf(["user"], { issuer: "https://idp.example.com", kind: "external" });
  for (const action of ALL_ACTIONS.filter((action) => ACTIONS[action] === "object")) {
    deepStrictEqual(decide(stranger, action, OBJECTS.own), refused("hidden"), action);
  }
  const theirs = object("usr_1", "red", "https://idp.example.com");
  deepStrictEqual(decide(stranger, "key:read", theirs), YES);
  deepStrictEqual(decide(principalOf(["user"]), "key:read", theirs), refused("hidden"));
});

Deno.test("what may not be read is hidden, and what may be read and not changed is not", () => {
  const reader = principalOf([], { grants: grantsOf("user:read/team", "user:write/own") });
  deepStrictEqual(decide(reader, "user:write", OBJECTS.team), refused("not_on_this"));
  deepStrictEqual(decide(reader, "user:write", OBJECTS.other), refused("hidden"));
  // To write without reading would tell that it is there.
  const writer = principalOf([], { grants: grantsOf("user:read/own", "user:write/team") });
  deepStrictEqual(decide(writer, "user:write", OBJECTS.team), refused("hidden"));
  deepStrictEqual(decide(writer, "user:write", OBJECTS.own), YES);
});

Deno.test("ASVS V7.2.2: a credential's scope narrows to its words, and an empty one to nothing", () => {
  const narrowed = principalOf(["admin"], {
    scope: grantsOf("user:read", "user:write/team", "model:infer/a*"),
  });
  deepStrictEqual(decide(narrowed, "user:write"), YES);
  deepStrictEqual(decide(narrowed, "user:write", OBJECTS.team), YES);
  deepStrictEqual(decide(narrowed, "user:write", OBJECTS.other), refused("not_on_this"));
  deepStrictEqual(decide(narrowed, "role:write"), refused("scope_lacks_action"));
  deepStrictEqual(decide(narrowed, "role:write", OBJECTS.own), refused("hidden"));
  deepStrictEqual(decide(narrowed, "model:infer", model("ab")), YES);
  deepStrictEqual(decide(narrowed, "model:infer", model("b")), refused("hidden"));
  deepStrictEqual(decide(narrowed, "model:read", model("ab")), refused("scope_lacks_action"));
  for (const action of ALL_ACTIONS) {
    deepStrictEqual(decide(principalOf(["admin"], { scope: [] }), action), refused("scope_lacks_action"));
    strictEqual(decide(principalOf(["admin"], { scope: [] }), action, OBJECTS.own).ok, false);
  }
});

Deno.test("a scope on models leaves its owner's role within the cards, and gives nothing that the roles lack", () => {
  const narrowed = principalOf(["user"], { scope: grantsOf("model:infer", "user:write") });
  deepStrictEqual(
    decide(narrowed, "model:infer", model("m", { see: ["admin"], use: ["admin"] })),
    refused("hidden"),
  );
  deepStrictEqual(decide(narrowed, "user:write"), refused("role_lacks_action"));
});

Deno.test("property: more grants never allow less, and a resource never allows what is not allowed at all", () => {
  fc.assert(
    fc.property(anyPrincipal, anyGrants, anyAction, anyResource, (principal, more, action, resource) => {
      const richer = { ...principal, grants: [...more, ...principal.grants] };
      if (decide(principal, action).ok) strictEqual(decide(richer, action).ok, true);
      if (decide(principal, action, resource).ok) {
        strictEqual(decide(richer, action, resource).ok && decide(principal, action).ok, true);
      }
    }),
    { numRuns: 1000 },
  );
});

Deno.test("property: a scope never gives: what is allowed within one is allowed without, and within a wider one", () => {
  fc.assert(
    fc.property(
      anyPrincipal,
      anyScope,
      anyScope,
      anyAction,
      anyResource,
      (all, scope, more, action, resource) => {
        const within = { ...all, scope };
        for (const wider of [{ ...all, scope: null }, { ...all, scope: [...scope, ...more] }]) {
          if (decide(within, action).ok) strictEqual(decide(wider, action).ok, true);
          if (decide(within, action, resource).ok) strictEqual(decide(wider, action, resource).ok, true);
        }
      },
    ),
    { numRuns: 1000 },
  );
});

Deno.test("property: an object is hidden exactly where reading it is not allowed, and so is a model that may not be run either", () => {
  fc.assert(
    fc.property(anyPrincipal, anyAction, anyResource, (principal, action, resource) => {
      const decision = decide(principal, action, resource);
      const isHidden = !decision.ok && decision.reason === "hidden";
      const isSeen = resource.kind === "model"
        ? decide(principal, "model:read", resource).ok || decide(principal, "model:infer", resource).ok
        : decide(principal, readingOf(action), resource).ok;
      strictEqual(isHidden, !isSeen);
    }),
    { numRuns: 1000 },
  );
});

Deno.test("a scope is covered where the caller has each of its words, whichever cards the roles hold to", () => {
  const user = principalOf(["user"]);
  strictEqual(coversAll(user, grantsOf("model:infer/use-*", "key:read/own")), true);
  strictEqual(coversAll(user, []), true);
  for (const text of ["user:write/own", "key:read/team", "key:read", "signing_key:rotate"]) {
    strictEqual(coversAll(user, grantsOf("model:read", text)), false, text);
  }
  // A token that is narrowed itself makes none that is less narrow.
  const narrowed = principalOf(["user"], { scope: grantsOf("model:infer/use-*", "key:write/own") });
  strictEqual(coversAll(narrowed, grantsOf("model:infer/use-a*")), true);
  for (const text of ["model:infer", "model:infer/us*", "model:read/use-*", "key:read/own"]) {
    strictEqual(coversAll(narrowed, grantsOf(text)), false, text);
  }
});

Deno.test("property: a credential with a scope that its maker has is allowed nothing that its maker is not", () => {
  let covered = 0;
  fc.assert(
    fc.property(anyPrincipal, anyScope, anyAction, anyResource, (maker, scope, action, resource) => {
      if (!coversAll(maker, scope)) return;
      covered++;
      const made = { ...maker, scope };
      if (decide(made, action).ok) strictEqual(decide(maker, action).ok, true);
      if (decide(made, action, resource).ok) strictEqual(decide(maker, action, resource).ok, true);
    }),
    { numRuns: 2000 },
  );
  isTrue(covered > 50, `only ${covered} were covered`);
});

Deno.test("property: everybody has all that they have", () => {
  fc.assert(fc.property(anyGrants, (grants) => {
    strictEqual(coversAll(principalOf([], { grants }), grants), true);
  }));
  strictEqual(coversAll(principalOf(["admin"]), grantsOfRoles(...ROLES)), true);
});
