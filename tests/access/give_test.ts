// Tests of giving: nobody hands out, by a role, what they do not have themselves.
import { deepStrictEqual, ok as isTrue, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { coversAll, decide, type Resource } from "../../src/access/decide.ts";
import { canGive } from "../../src/access/give.ts";
import { BUILT_IN_ROLES } from "../../src/access/role.ts";
import { ALL_ACTIONS, anyAction, anyGrants, anyPrincipal, anyResource } from "./any_access.ts";
import { grantsOf, grantsOfRoles, principalOf } from "./principal_of.ts";

const admin = principalOf(["admin"]);
const teamAdmin = principalOf(["team-admin", "user"]);

const ADMINS_ONLY: Resource = { kind: "model", id: "m", see: ["admin"], use: ["admin"], teams: null };

Deno.test("an admin can give every role there is, and write every custom one, for every team", () => {
  for (const toTeam of ["red", "blue", null]) {
    strictEqual(canGive(admin, grantsOfRoles(...BUILT_IN_ROLES.keys()), toTeam), true);
    // A password is changed by whoever has it; so much the admin has for itself alone.
    const all = ALL_ACTIONS.filter((action) => action !== "password:write");
    strictEqual(canGive(admin, grantsOf(...all, "password:write/own", "model:infer/lab-*"), toTeam), true);
    strictEqual(canGive(admin, grantsOf("password:write"), toTeam), false);
  }
});

Deno.test("who looks after a team gives the roles that it has itself, and no others", () => {
  const givable = (role: string) => canGive(teamAdmin, grantsOfRoles(role), "red");
  deepStrictEqual([...BUILT_IN_ROLES.keys()].filter(givable), ["user", "team-admin"]);
  // Without the role of a user there is nothing about models to give.
  strictEqual(canGive(principalOf(["team-admin"]), grantsOfRoles("user"), "red"), false);
  strictEqual(canGive(teamAdmin, grantsOf("user:write/team", "key:read/own", "role:read/team"), "red"), true);
  for (
    const text of ["user:write", "team:write/team", "upstream:read", "signing_key:rotate", "client:read"]
  ) {
    strictEqual(canGive(teamAdmin, grantsOf("user:write/team", text), "red"), false, text);
  }
});

Deno.test("ASVS V8.2.3: nobody but an admin writes a role past the cards of models that are open to them by a card alone", () => {
  for (const text of ["model:infer", "model:read", "model:infer/m", "model:infer/use-*"]) {
    for (const roles of [["team-admin", "user"], ["team-admin", "operator", "auditor", "user"]]) {
      strictEqual(canGive(principalOf(roles), grantsOf(text), "red"), false, `${roles} ${text}`);
    }
    strictEqual(canGive(admin, grantsOf(text), "red"), true);
  }
  // This is what it would have opened.
  strictEqual(decide(teamAdmin, "model:infer", ADMINS_ONLY).ok, false);
  const escalated = { ...teamAdmin, grants: [...teamAdmin.grants, ...grantsOf("model:infer")] };
  strictEqual(decide(escalated, "model:infer", ADMINS_ONLY).ok, true);
  // A scope cannot: it only narrows, so that whoever has the action may make one with a pattern.
  strictEqual(coversAll(teamAdmin, grantsOf("model:infer/use-*")), true);
  const narrowed = { ...teamAdmin, scope: grantsOf("model:infer") };
  strictEqual(decide(narrowed, "model:infer", ADMINS_ONLY).ok, false);
});

Deno.test("one built-in role does not stand for another one on models: their cards differ", () => {
  for (const [has, gives] of [["operator", "user"], ["user", "operator"], ["auditor", "user"]] as const) {
    const models = grantsOfRoles(gives).filter(({ action }) => action.startsWith("model:"));
    strictEqual(canGive(principalOf([has]), models, "red"), false, `${has} ${gives}`);
    strictEqual(canGive(principalOf([gives]), models, "red"), true);
    strictEqual(canGive(admin, models, "red"), true);
  }
});

Deno.test("what a custom role opens past the cards can be given on, as far as its pattern goes", () => {
  const grants = [...teamAdmin.grants, ...grantsOf("model:infer/lab-*")];
  const labAdmin = principalOf(["team-admin", "user", "labs"], { grants });
  strictEqual(canGive(labAdmin, grantsOf("model:infer/lab-1", "model:infer/lab-*-small"), "red"), true);
  for (const text of ["model:infer", "model:infer/lab*", "model:infer/*lab-1", "model:read/lab-1"]) {
    strictEqual(canGive(labAdmin, grantsOf(text), "red"), false, text);
  }
  // Past the cards is more than within them.
  const past = principalOf(["team-admin", "all"], {
    grants: [...grantsOfRoles("team-admin"), ...grantsOf("model:read", "model:infer")],
  });
  strictEqual(canGive(past, grantsOfRoles("user"), "red"), true);
});

Deno.test("ASVS V8.4.1: a team's own is given in that team only; elsewhere the word means another team", () => {
  const acrossTeams = principalOf([], { grants: grantsOf("role:write", "user:write/team") });
  strictEqual(canGive(acrossTeams, grantsOf("user:write/team"), "red"), true);
  strictEqual(canGive(acrossTeams, grantsOf("user:write/team"), "blue"), false);
  strictEqual(canGive(acrossTeams, grantsOf("user:write/team"), null), false);
  strictEqual(canGive(acrossTeams, grantsOf("role:write/team"), "blue"), true);
});

Deno.test("a credential's scope bounds what its bearer gives", () => {
  const narrowed = { ...admin, scope: grantsOf("user:write/team", "role:write", "model:infer/lab-*") };
  strictEqual(canGive(narrowed, grantsOf("user:write/team", "model:infer/lab-1"), "red"), true);
  strictEqual(canGive(narrowed, grantsOf("user:write/team"), "blue"), false);
  for (const text of ["user:write", "model:infer", "user:read/own"]) {
    strictEqual(canGive(narrowed, grantsOf(text), "red"), false, text);
  }
  strictEqual(canGive({ ...admin, scope: [] }, grantsOf("user:read/own"), "red"), false);
});

Deno.test("nothing can be given by everybody, and everybody can give in their team all that they have", () => {
  strictEqual(canGive(principalOf([]), [], "red"), true);
  strictEqual(canGive(principalOf([]), grantsOf("user:read/own"), "red"), false);
  fc.assert(fc.property(anyGrants, (grants) => {
    strictEqual(canGive(principalOf([], { grants }), grants, "red"), true);
  }));
});

/**
 * Whether a giver is held to what this is about. An admin writes the roles past the cards, so that cards without the admin do
 * not bind it; and what is for the models of one team only, teams keep to themselves.
 */
function isJudged(giver: ReturnType<typeof principalOf>, resource: Resource): boolean {
  if (resource.kind === "object") return true;
  return (resource.teams?.includes(giver.team) ?? true) &&
    !giver.grants.some(({ cardRole }) => cardRole === "admin");
}

Deno.test("property: who is given what a giver can give is allowed nothing that the giver is not", () => {
  let given = 0;
  const toAnyTeam = fc.constantFrom("red", "blue", null);
  fc.assert(
    fc.property(
      anyPrincipal,
      anyGrants,
      toAnyTeam,
      fc.constantFrom("red", "blue"),
      anyAction,
      anyResource,
      (giver, grants, toTeam, someTeam, action, resource) => {
        if (grants.length === 0 || !canGive(giver, grants, toTeam)) return;
        given++;
        // The same one but for the team, so that "own" means the same.
        const taker = { ...giver, team: toTeam ?? someTeam, grants, scope: null };
        if (decide(taker, action).ok) strictEqual(decide(giver, action).ok, true);
        if (!isJudged(giver, resource) || !decide(taker, action, resource).ok) return;
        if (resource.kind === "model" || resource.owner?.subject !== giver.subject) {
          strictEqual(decide(giver, action, resource).ok, true);
        } else if (resource.team === taker.team) {
          // What is one's own lies in one's own team.
          strictEqual(decide(giver, action, { ...resource, team: giver.team }).ok, true);
        }
      },
    ),
    { numRuns: 10_000 },
  );
  isTrue(given > 200, `only ${given} could be given`);
});

Deno.test("ASVS V8.4.1: who may write accounts of every team gives models in the own team only, for what runs there is not theirs", () => {
  const grants = [...grantsOf("user:write", "key:write"), ...grantsOfRoles("user")];
  const helpdesk = principalOf(["helpdesk", "user"], { grants });
  strictEqual(canGive(helpdesk, grantsOfRoles("user"), "red"), true);
  strictEqual(canGive(helpdesk, grantsOfRoles("user"), "blue"), false);
  strictEqual(canGive(helpdesk, grantsOfRoles("user"), null), false);
  strictEqual(canGive(admin, grantsOfRoles("user"), "blue"), true);
  // An admin's narrowed key goes on working: its scope is no grant of its own.
  const narrowed = { ...admin, scope: grantsOf("user:write", "user:read", "model:infer", "model:read") };
  strictEqual(canGive(narrowed, grantsOf("model:infer", "user:read"), "blue"), true);
});
