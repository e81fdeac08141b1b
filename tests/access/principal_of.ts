// Principals for the tests of access: who they are by their roles, what they may by what these give.
import { type Grant, parseGrant } from "../../src/access/grant.ts";
import type { Principal } from "../../src/access/principal.ts";
import { BUILT_IN_ROLES } from "../../src/access/role.ts";

/** The grants of texts that are grants. */
export function grantsOf(...texts: readonly string[]): Grant[] {
  return texts.map((text) => {
    const grant = parseGrant(text);
    if (!grant.ok) throw new TypeError(`${text} is no grant: ${grant.reason}`);
    return grant.value;
  });
}

/** What built-in roles give; other names give nothing. */
export function grantsOfRoles(...roles: readonly string[]): Grant[] {
  return roles.flatMap((role) => BUILT_IN_ROLES.get(role)?.grants ?? []);
}

/** A user of the team `red` with built-in roles. */
export function principalOf(roles: readonly string[], others: Partial<Principal> = {}): Principal {
  return {
    issuer: "https://ai.example.com",
    subject: "usr_1",
    kind: "user",
    team: "red",
    roles,
    grants: grantsOfRoles(...roles),
    scope: null,
    credential: {
      kind: "access_token",
      id: "tok_1",
      expiresAtSeconds: 1_750_000_900,
      session: null,
      boundTo: null,
    },
    ...others,
  };
}
