// Tests of request caps: whose caps a caller has, and that more roles never lower one.
import { deepStrictEqual, ok as isTrue, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { capsOf, DEFAULT_CAPS, type RequestCaps, type RoleCaps } from "../../src/access/request_caps.ts";
import { anyRoleName } from "./any_access.ts";
import { grantsOf, grantsOfRoles, principalOf } from "./principal_of.ts";

const NOTHING: RequestCaps = {
  outputTokensMax: 0,
  choicesMax: 0,
  stopSequencesMax: 0,
  imagesMax: 0,
  toolsMax: 0,
};

function caps(outputTokensMax: number | null, others: number): RequestCaps {
  return {
    outputTokensMax,
    choicesMax: others,
    stopSequencesMax: others,
    imagesMax: others,
    toolsMax: others,
  };
}

const ROLE_CAPS: RoleCaps = {
  admin: caps(null, 9),
  operator: caps(100, 1),
  auditor: { ...caps(10, 2), toolsMax: 8 },
  user: caps(50, 4),
};

Deno.test("ASVS V8.2.1: a caller without a role has none of anything, and neither has one whose names are no roles", () => {
  const none = [[], ["root"], ["Admin"], ["admin "], ["__proto__"], ["toString"], ["team-admin"]];
  for (const roles of none) deepStrictEqual(capsOf(principalOf(roles), ROLE_CAPS), NOTHING, String(roles));
});

Deno.test("each role that runs models has its own caps", () => {
  for (const role of ["admin", "operator", "user"] as const) {
    deepStrictEqual(capsOf(principalOf([role]), ROLE_CAPS), ROLE_CAPS[role]);
    deepStrictEqual(capsOf(principalOf([role, "team-admin", "root"]), ROLE_CAPS), ROLE_CAPS[role]);
  }
});

Deno.test("of several roles each cap is the most generous one's, and as many as the model gives is the most", () => {
  deepStrictEqual(capsOf(principalOf(["operator", "user"]), ROLE_CAPS), caps(100, 4));
  deepStrictEqual(capsOf(principalOf(["user", "admin"]), ROLE_CAPS), caps(null, 9));
});

Deno.test("a custom role that runs models has the caps of a user; its name alone has none", () => {
  const runs = grantsOf("model:infer/lab-*");
  deepStrictEqual(capsOf(principalOf(["labs"], { grants: runs }), ROLE_CAPS), ROLE_CAPS.user);
  deepStrictEqual(capsOf(principalOf(["labs"]), ROLE_CAPS), NOTHING);
  deepStrictEqual(
    capsOf(principalOf(["labs"], { grants: grantsOf("model:read", "key:read") }), ROLE_CAPS),
    NOTHING,
  );
  const auditor = [...grantsOfRoles("auditor"), ...runs];
  deepStrictEqual(capsOf(principalOf(["auditor", "labs"], { grants: auditor }), ROLE_CAPS), ROLE_CAPS.user);
  // A name that gives nothing lends an operator no more than it has.
  deepStrictEqual(capsOf(principalOf(["operator", "gone"]), ROLE_CAPS), ROLE_CAPS.operator);
});

Deno.test("API4: a role that runs no model lifts no cap of one that does", () => {
  const generous = { ...ROLE_CAPS, auditor: DEFAULT_CAPS };
  deepStrictEqual(capsOf(principalOf(["auditor"]), generous), NOTHING);
  deepStrictEqual(capsOf(principalOf(["user", "auditor"]), generous), ROLE_CAPS.user);
});

Deno.test("property: more roles never lower a cap, and no cap is above all of theirs", () => {
  const cap = fc.nat({ max: 5 });
  const anyCaps: fc.Arbitrary<RequestCaps> = fc.record({
    outputTokensMax: fc.option(cap),
    choicesMax: cap,
    stopSequencesMax: cap,
    imagesMax: cap,
    toolsMax: cap,
  });
  const anyRoleCaps = fc.record({ admin: anyCaps, operator: anyCaps, auditor: anyCaps, user: anyCaps });
  const roles = fc.array(fc.oneof(anyRoleName, fc.constant("labs")), { maxLength: 3 });
  fc.assert(fc.property(roles, roles, anyRoleCaps, (some, more, roleCaps) => {
    const of = (names: string[]) =>
      capsOf(
        principalOf(names, {
          grants: [...grantsOfRoles(...names), ...(names.includes("labs") ? grantsOf("model:infer") : [])],
        }),
        roleCaps,
      );
    const [few, many] = [of(some), of([...some, ...more])];
    for (const name of Object.keys(few) as (keyof RequestCaps)[]) {
      const [less, most] = [few[name] ?? Infinity, many[name] ?? Infinity];
      isTrue(less <= most, name);
      isTrue(most <= Math.max(0, ...Object.values(roleCaps).map((each) => each[name] ?? Infinity)), name);
    }
  }));
});

Deno.test("where the settings say nothing every cap lets something through", () => {
  for (const [name, value] of Object.entries(DEFAULT_CAPS)) isTrue(value === null || value > 0, name);
  strictEqual(DEFAULT_CAPS.outputTokensMax, null);
});
