// Access rules: what each role may do on each route, written by hand. Nothing here knows of the code that decides.
import { type GoodCall, goodCalls } from "./good_calls.ts";
import type { Caller, ObjectKind, Relation } from "./matrix_world.ts";

/** By route. */
export const GOOD_CALLS: Readonly<Record<string, GoodCall>> = goodCalls("open", "generalist");

/** What each role gives. `keeper` is a custom role that may see more than it may change. */
export const GRANTS: Readonly<Record<string, string>> = {
  "admin":
    "model:read model:infer session:read session:end password:write/own key:read key:write user:read user:write " +
    "client:read client:write role:read role:write team:read team:write token:introspect signing_key:rotate " +
    "usage:read ban:read ban:write model:write payload:read payload:destroy audit:read vault:rotate",
  "operator":
    "model:read model:infer session:read/own session:end/own password:write/own key:read/own key:write/own user:read/own " +
    "usage:read ban:read ban:write model:write",
  "auditor":
    "model:read session:read session:end/own password:write/own key:read user:read client:read role:read team:read " +
    "usage:read ban:read audit:read",
  "user":
    "model:read model:infer session:read/own session:end/own password:write/own key:read/own key:write/own user:read/own " +
    "usage:read/own",
  "team-admin":
    "session:read/team session:end/team password:write/own key:read/team key:write/team user:read/team " +
    "user:write/team client:read/team client:write/team role:read/team role:write/team team:read/team token:introspect/team " +
    "usage:read/team",
  "keeper":
    "model:read/o* model:infer/open session:read/team session:end/own password:write/own key:read/team key:write/own " +
    "user:read/team user:write/own client:read/own client:write/own role:read/team role:write/own team:read/team team:write/own " +
    "token:introspect/own usage:read/own",
  "none": "",
};
export const ROLES = Object.keys(GRANTS);

/** Models, by what their cards say and what the keeper's patterns match. */
export const SEES: Readonly<Record<string, readonly string[]>> = {
  "admin": ["open", "guarded", "hidden", "generalist"],
  "operator": ["open", "guarded", "generalist"],
  "auditor": ["open", "guarded", "generalist"],
  "user": ["open", "guarded", "generalist"],
  "keeper": ["open"],
};
export const USES: Readonly<Record<string, readonly string[]>> = {
  "admin": ["open", "guarded", "hidden", "generalist"],
  "operator": ["open", "generalist"],
  "user": ["open", "generalist"],
  "keeper": ["open"],
};
export const CARDS = ["open", "guarded", "hidden"];

/** One route. */
export interface Rule {
  readonly action: string;
  /** Where it is about one model: which ones are tried. */
  readonly models?: readonly string[];
  /** Where it is about one object. */
  readonly kind?: ObjectKind;
  readonly relations?: readonly Relation[];
  /** What it answers to a kind of caller whose grants have the action, whatever it is asked to do it to. */
  readonly first?: (caller: Caller) => number | undefined;
  /** What it answers to whom the grants let through, where that is not what a good call answers. */
  readonly beyond?: (caller: Caller, relation: Relation | undefined) => number | undefined;
  /** Instead of the good call's. */
  readonly json?: (caller: Caller, object: string) => unknown;
  /** What the path names, where it is nothing that belongs to anybody. */
  readonly named?: string;
  /** Where the object is named in the body alone. */
  readonly inBody?: true;
}

const isNobodyHere = ({ credential }: Caller): boolean => credential === "external token";
export const userOnes: readonly Relation[] = ["own", "team", "other"];
export const teamOnes: readonly Relation[] = ["team", "other"];
export const roleOnes: readonly Relation[] = ["team", "other", "server", "built in"];
/** Nobody changes themselves, and nobody whoever can do more. */
const notSelf = (caller: Caller, relation: Relation | undefined): number | undefined =>
  relation === "own" && !isNobodyHere(caller) ? 409 : notStronger(caller, relation);
const notStronger = ({ role }: Caller, relation: Relation | undefined): number | undefined =>
  relation === "strong" && role !== "admin" ? 403 : undefined;
const notByKey = ({ credential }: Caller): number | undefined => credential === "API key" ? 403 : undefined;
const notBuiltIn = (_: Caller, relation: Relation | undefined): number | undefined =>
  relation === "built in" ? 409 : undefined;
const infers: Rule = { action: "model:infer", models: ["generalist"] };
export const accountOnes: readonly Relation[] = ["own", "team", "strong", "other"];
let names = 0;

export const RULES: Readonly<Record<string, Rule>> = {
  "GET /v1/models": { action: "model:read" },
  "GET /v1/models/{id}": { action: "model:read", models: CARDS },
  "POST /v1/embeddings": {
    action: "model:infer",
    models: CARDS,
    json: (_, model) => ({ model, input: "some words" }),
  },
  "POST /v1/chat/completions": infers,
  "POST /v1/completions": infers,
  "POST /v1/responses": infers,
  "POST /v1/moderations": infers,
  "POST /v1/rerank": infers,
  "POST /v1/audio/speech": infers,
  "POST /v1/audio/transcriptions": infers,
  "POST /v1/images/generations": infers,
  "POST /v1/messages": infers,
  "POST /v1/messages/count_tokens": infers,
  "GET /v2": { action: "model:read" },
  "GET /v2/models/{id}": { action: "model:read", models: CARDS },
  "GET /v2/models/{id}/ready": { action: "model:read", models: CARDS },
  "POST /v2/models/{id}/infer": { action: "model:infer", models: CARDS },

  "POST /v1/auth/logout": {
    action: "session:end",
    beyond: ({ credential }) => credential === "API key" ? 400 : undefined,
  },
  "GET /v1/auth/sessions": { action: "session:read" },
  "DELETE /v1/auth/sessions": { action: "session:end" },
  "DELETE /v1/auth/sessions/{id}": {
    action: "session:end",
    kind: "session",
    relations: accountOnes,
    beyond: notStronger,
  },
  "POST /v1/auth/password": {
    action: "password:write",
    // The new one is too short: that is said to whom it is allowed, and costs no hash.
    json: () => ({ current_password: "x", new_password: "y" }),
    beyond: ({ credential }) => /client|external/.test(credential) ? 403 : 422,
  },

  "GET /v1/keys": { action: "key:read" },
  "POST /v1/keys": {
    action: "key:write",
    kind: "user",
    relations: userOnes,
    inBody: true,
    first: notByKey,
    json: (caller, owner) => ({
      name: "a key",
      scopes: ["key:read/own"],
      ...(owner === caller.subject && !isNobodyHere(caller) ? {} : { owner }),
    }),
  },
  "GET /v1/keys/{id}": { action: "key:read", kind: "key", relations: userOnes },
  "DELETE /v1/keys/{id}": {
    action: "key:write",
    kind: "key",
    relations: accountOnes,
    beyond: notStronger,
  },
  "POST /v1/keys/{id}/rotate": { action: "key:write", kind: "key", relations: userOnes, first: notByKey },

  "GET /v1/users": { action: "user:read" },
  "POST /v1/users": {
    action: "user:write",
    relations: teamOnes,
    json: (_, team) => ({
      username: `new-${names++}`,
      password: "a tram of seventeen lanterns",
      roles: [],
      team,
    }),
  },
  "GET /v1/users/{id}": { action: "user:read", kind: "user", relations: userOnes },
  "PATCH /v1/users/{id}": {
    action: "user:write",
    kind: "user",
    relations: accountOnes,
    json: () => ({ disabled: false }),
    beyond: notSelf,
  },
  "DELETE /v1/users/{id}": { action: "user:write", kind: "user", relations: accountOnes, beyond: notSelf },
  "GET /v1/users/{id}/sessions": { action: "session:read", kind: "user", relations: userOnes },
  "DELETE /v1/users/{id}/sessions": {
    action: "session:end",
    kind: "user",
    relations: accountOnes,
    beyond: notStronger,
  },
  "POST /v1/users/{id}/unlock": {
    action: "user:write",
    kind: "user",
    relations: accountOnes,
    beyond: notSelf,
  },

  "GET /v1/teams": { action: "team:read" },
  "POST /v1/teams": {
    action: "team:write",
    relations: ["server"],
    json: () => ({ id: `team-${names++}` }),
  },
  "GET /v1/teams/{id}": { action: "team:read", kind: "team", relations: teamOnes },
  "PATCH /v1/teams/{id}": { action: "team:write", kind: "team", relations: teamOnes },
  "DELETE /v1/teams/{id}": {
    action: "team:write",
    kind: "team",
    relations: teamOnes,
    // The default team stays.
    beyond: (_, relation) => relation === "team" ? 409 : undefined,
  },

  "GET /v1/roles": { action: "role:read" },
  "GET /v1/roles/{team}/{name}": { action: "role:read", kind: "role", relations: roleOnes },
  "PUT /v1/roles/{team}/{name}": {
    action: "role:write",
    kind: "role",
    relations: roleOnes,
    beyond: notBuiltIn,
  },
  "DELETE /v1/roles/{team}/{name}": {
    action: "role:write",
    kind: "role",
    relations: roleOnes,
    beyond: notBuiltIn,
  },

  "GET /v1/clients": { action: "client:read" },
  "POST /v1/clients": {
    action: "client:write",
    relations: teamOnes,
    json: (_, team) => ({ name: "new", roles: [], authentication: "secret", team }),
  },
  "GET /v1/clients/{id}": { action: "client:read", kind: "client", relations: accountOnes },
  "PATCH /v1/clients/{id}": {
    action: "client:write",
    kind: "client",
    relations: accountOnes,
    json: () => ({ disabled: false }),
    beyond: notSelf,
  },
  "DELETE /v1/clients/{id}": {
    action: "client:write",
    kind: "client",
    relations: accountOnes,
    beyond: notSelf,
  },
  "POST /v1/clients/{id}/rotate": {
    action: "client:write",
    kind: "client",
    relations: accountOnes,
    beyond: notStronger,
  },

  "GET /v1/signing-keys": { action: "signing_key:rotate" },
  "POST /v1/signing-keys/rotate": { action: "signing_key:rotate" },

  "GET /v1/usage": { action: "usage:read" },
  "GET /v1/usage/totals": { action: "usage:read" },

  "GET /v1/bans": { action: "ban:read" },
  "POST /v1/bans": {
    action: "ban:write",
    json: () => ({ address: `2001:db8:1:${(names++).toString(16)}::1`, seconds: 60 }),
  },
  "DELETE /v1/bans/{id}": { action: "ban:write", kind: "ban", relations: ["server"] },
  "GET /admin/v1/audit": { action: "audit:read" },
  "GET /admin/v1/audit/export": { action: "audit:read" },
  "GET /admin/v1/audit/checkpoint": { action: "audit:read" },
  "GET /admin/v1/audit/keys": { action: "audit:read" },
  "GET /admin/v1/models": { action: "model:write" },
  "POST /admin/v1/models/{id}/disable": { action: "model:write", named: "tensors" },
  "POST /admin/v1/models/{id}/enable": { action: "model:write", named: "tensors" },
  "GET /admin/v1/requests/{id}/payload": { action: "payload:read" },
  "DELETE /admin/v1/subjects/{id}/payload-key": { action: "payload:destroy" },
  "GET /admin/v1/vault": { action: "vault:rotate" },
  "POST /admin/v1/vault/rotate": { action: "vault:rotate" },
};

/** How far a role reaches with an action: 0 nowhere, 1 what is its own, 2 its team, 3 everything. */
export function reachOf(role: string, action: string): number {
  const grants = (GRANTS[role] ?? "").split(" ").map((grant) => grant.split("/"));
  const reaches = grants.filter(([name]) => name === action).map(([, on]) =>
    on === "own" ? 1 : on === "team" ? 2 : 3
  );
  return Math.max(0, ...reaches);
}

/** How far away an object is; by the grant that reads it (`reads`) or by the one that changes it. */
export function distanceOf(caller: Caller, relation: Relation, reads: boolean): number {
  if (relation === "own") return isNobodyHere(caller) ? 2 : 1;
  if (relation === "team" || relation === "strong") return 2;
  // What is for every team can be read in each of them.
  return reads && relation !== "other" ? 2 : 3;
}

export function expected(
  name: string,
  { action, models, first, beyond }: Rule,
  caller: Caller,
  relation: Relation | undefined,
  model: string,
): number {
  const { role } = caller;
  const good = GOOD_CALLS[name]?.status ?? 200;
  const reach = reachOf(role, action);
  if (reach === 0) return 403;
  const refused = first?.(caller);
  if (refused !== undefined) return refused;
  if (models !== undefined) {
    if (!SEES[role]?.includes(model)) return 404;
    return action === "model:read" || USES[role]?.includes(model) ? good : 403;
  }
  if (relation !== undefined) {
    const reads = /:read$/.test(action);
    const distance = distanceOf(caller, relation, reads);
    const seen = reachOf(role, `${action.split(":")[0]}:read`);
    if (seen < distance) return 404;
    if (reach < distance) return 403;
  }
  return beyond?.(caller, relation) ?? good;
}
