// Principal with roles: a caller of the default team as the entrance would make it, without the entrance.
import type { Principal } from "../../src/access/principal.ts";
import { BUILT_IN_ROLES } from "../../src/access/role.ts";

/** @param roles names of built-in roles; what is none gives nothing */
export function principalWith(roles: readonly string[], more: Partial<Principal> = {}): Principal {
  return {
    issuer: "https://ai.example.com",
    subject: "usr_1",
    kind: "user",
    team: "default",
    roles,
    grants: roles.flatMap((role) => BUILT_IN_ROLES.get(role)?.grants ?? []),
    scope: null,
    credential: {
      kind: "access_token",
      id: "tok_1",
      expiresAtSeconds: 1_750_000_900,
      session: null,
      boundTo: null,
    },
    ...more,
  };
}
