// Any access: arbitraries of roles, grants, principals and resources, few enough of each that they meet.
import fc from "fast-check";
import { type Action, ACTIONS } from "../../src/access/action.ts";
import type { Resource } from "../../src/access/decide.ts";
import type { Grant } from "../../src/access/grant.ts";
import { MODEL_ROLES } from "../../src/access/model_role.ts";
import type { Owner, Principal } from "../../src/access/principal.ts";
import { BUILT_IN_ROLES } from "../../src/access/role.ts";
import { grantsOf, grantsOfRoles, principalOf } from "./principal_of.ts";

export const ALL_ACTIONS = Object.keys(ACTIONS) as Action[];
export const anyAction = fc.constantFrom(...ALL_ACTIONS);

/** A grant as a text means it. */
export const anyGrant: fc.Arbitrary<Grant> = anyAction.chain((action) =>
  ACTIONS[action] === "model"
    ? fc.array(fc.constantFrom("a", "b", "*"), { minLength: 1, maxLength: 3 }).map((on) => on.join(""))
      .filter((on) => on.startsWith("a") || on.startsWith("b") || on.startsWith("*"))
      .map((on) => ({ action, on, cardRole: null }))
    : ACTIONS[action] === "object"
    ? fc.constantFrom("own", "team", "*").map((on) => ({ action, on, cardRole: null }))
    : fc.constant({ action, on: "*", cardRole: null })
);

export const anyRoleName = fc.constantFrom(...BUILT_IN_ROLES.keys());
const anyTeam = fc.constantFrom("red", "blue");

/** What some built-in roles and some custom ones give together. */
export const anyGrants: fc.Arbitrary<Grant[]> = fc.tuple(
  fc.array(anyRoleName, { maxLength: 2 }),
  fc.array(anyGrant, { maxLength: 6 }),
).map(([roles, custom]) => [...grantsOfRoles(...roles), ...custom]);

export const anyScope: fc.Arbitrary<Grant[]> = fc.oneof(
  fc.array(anyGrant, { maxLength: 8 }),
  fc.constant(grantsOf(...ALL_ACTIONS)),
);

export const anyPrincipal: fc.Arbitrary<Principal> = fc.record({
  grants: anyGrants,
  scope: fc.option(anyScope),
  team: anyTeam,
}).map((parts) => principalOf([], parts));

const { issuer, subject } = principalOf([]);
const anyOwner: fc.Arbitrary<Owner | null> = fc.constantFrom(
  null,
  { issuer, subject },
  { issuer, subject: "usr_2" },
  { issuer: "https://other.example.com", subject },
);
const anyCardRoles = fc.subarray([...MODEL_ROLES]);

export const anyResource: fc.Arbitrary<Resource> = fc.oneof(
  fc.record({
    kind: fc.constant("model" as const),
    id: fc.constantFrom("a", "b", "ab", "ba", "aab"),
    see: anyCardRoles,
    use: anyCardRoles,
    teams: fc.option(fc.subarray(["red", "blue"])),
  }),
  fc.record({ kind: fc.constant("object" as const), owner: anyOwner, team: fc.option(anyTeam) }),
);
