// Roles: the built-in ones. A role is data: a name and what it gives; custom ones stand in the role book.
import { type Grant, parseGrant } from "./grant.ts";
import { isModelRole } from "./model_role.ts";

/** A role. */
export interface Role {
  readonly name: string;
  /** The team whose members can have it; null: those of every team. */
  readonly team: string | null;
  readonly description: string;
  readonly grants: readonly Grant[];
  readonly builtIn: boolean;
  /** Milliseconds since 1970; 0 for the built-in ones. */
  readonly createdAtMs: number;
}

/** What everybody may do with what is one's own. */
const OWN = [
  "user:read/own",
  "password:write/own",
  "session:read/own",
  "session:end/own",
  "key:read/own",
  "key:write/own",
  "usage:read/own",
];

/** Every built-in role by its name. */
export const BUILT_IN_ROLES: ReadonlyMap<string, Role> = new Map([
  builtIn("admin", "Everything, in every team.", [
    "model:read",
    "model:infer",
    "upstream:read",
    "session:read",
    "session:end",
    "password:write/own",
    "key:read",
    "key:write",
    "user:read",
    "user:write",
    "client:read",
    "client:write",
    "role:read",
    "role:write",
    "team:read",
    "team:write",
    "token:introspect",
    "signing_key:rotate",
    "usage:read",
    "ban:read",
    "ban:write",
    "audit:read",
    "payload:read",
    "payload:destroy",
    "vault:rotate",
    "model:write",
  ]),
  builtIn("operator", "Runs the server: uses models and sees what serves them.", [
    "model:read",
    "model:infer",
    "upstream:read",
    "model:write",
    "ban:read",
    "ban:write",
    ...OWN.filter((text) => text !== "usage:read/own"),
    "usage:read",
  ]),
  builtIn(
    "auditor",
    "Reads everything there is about people, programs and models and the audit trail, and runs nothing.",
    [
      "model:read",
      "session:read",
      "key:read",
      "user:read",
      "client:read",
      "role:read",
      "team:read",
      "usage:read",
      "ban:read",
      "audit:read",
      "password:write/own",
      "session:end/own",
    ],
  ),
  builtIn("user", "Uses models, and looks after what is its own.", ["model:read", "model:infer", ...OWN]),
  builtIn("team-admin", "Looks after the people, programs and roles of its own team.", [
    "user:read/team",
    "user:write/team",
    "client:read/team",
    "client:write/team",
    "key:read/team",
    "key:write/team",
    "session:read/team",
    "session:end/team",
    "role:read/team",
    "role:write/team",
    "team:read/team",
    "token:introspect/team",
    "usage:read/team",
    "password:write/own",
  ]),
].map((role) => [role.name, role]));

/** What every custom role gives besides its own grants. */
export const OWN_GRANTS: readonly Grant[] = OWN.map(grantIn);

function grantIn(text: string): Grant {
  const grant = parseGrant(text);
  if (!grant.ok) throw new TypeError(`Cannot build a role: ${text} is no grant`);
  return grant.value;
}

function builtIn(name: string, description: string, grants: readonly string[]): Role {
  return {
    name,
    team: null,
    description,
    builtIn: true,
    createdAtMs: 0,
    grants: grants.map((text) => ({ ...grantIn(text), cardRole: isModelRole(name) ? name : null })),
  };
}
