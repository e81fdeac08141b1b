// Role book: every role there is, built-in and custom. Known in memory, for it is asked at every request; kept in the store.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { Fault } from "../faults/fault.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import { everyRecord, isSameVersion, type SealedRecord, type SealedTable } from "../vault/sealed_store.ts";
import { formatGrant, type Grant, parseGrant } from "./grant.ts";
import { BUILT_IN_ROLES, OWN_GRANTS, type Role } from "./role.ts";

/** The roles. Changes hold from the next request on. */
export interface RoleBook {
  /**
   * What roles give to somebody of a team, by their names; a name that is no role of that team gives nothing. Every custom role
   * also gives `OWN_GRANTS`.
   */
  grantsOf(team: string, names: readonly string[]): readonly Grant[];
  /** The role that a name means in a team (null: for the whole server). */
  find(team: string | null, name: string): Role | undefined;
  /** Built-in ones first. */
  list(): readonly Role[];
  /**
   * Makes a custom role, or replaces one.
   *
   * @param found what `find` gave; undefined: the role is new
   * @param also what is written together with it, or not at all
   * @throws Fault `conflict` when the name is built in, or means a role elsewhere that this one would hide or be hidden by,
   * when the team has too many roles, or when another change came between, of it or of what `also` expects
   */
  put(role: Role, found: Role | undefined, also?: readonly RecordChange[]): Promise<void>;
  /**
   * Deletes a custom role.
   *
   * @param found what `find` gave
   * @throws Fault `conflict` when it is built in, or when another change came between
   */
  remove(found: Role): Promise<void>;
}

interface KeptRole {
  readonly role: Role;
  readonly version: Uint8Array<ArrayBuffer>;
}

/** Custom roles of one team, so that no team fills the memory of all. */
const ROLES_PER_TEAM_MAX = 1000;

const TABLE = "roles";
/** By each name something new whenever a team makes a role of it: plain, and nothing is read from it. */
const NAMES_TABLE = "role_names";
const MARK_BYTES = 16;

/**
 * Opens the book over its sealed table.
 *
 * @param table `roles`
 * @param feed tells of roles that others change
 */
export async function openRoleBook(
  store: RecordStore,
  table: SealedTable,
  feed: Pick<ChangeFeed, "follow">,
): Promise<RoleBook> {
  let custom: ReadonlyMap<string, KeptRole> = new Map();
  // What was read before a change must not be kept after it.
  let changes = 0;
  // By the very list of names that an account has at hand: it is the same one at each of its requests.
  let resolved = new WeakMap<
    readonly string[],
    { readonly team: string; readonly grants: readonly Grant[] }
  >();
  // Names that are being written. One change of a name at a time: what it means elsewhere stays so until it is made.
  const underWay = new Set<string>();

  const customRoles = (): Role[] => [...custom.values()].map(({ role }) => role);
  function find(team: string | null, name: string): Role | undefined {
    return BUILT_IN_ROLES.get(name) ?? custom.get(keyOf(null, name))?.role ??
      (team === null ? undefined : custom.get(keyOf(team, name))?.role);
  }
  function keepAll(roles: ReadonlyMap<string, KeptRole>): void {
    changes++;
    custom = roles;
    resolved = new WeakMap();
  }
  function keep(key: string, kept: KeptRole | undefined): void {
    const roles = new Map(custom);
    if (kept === undefined) roles.delete(key);
    else roles.set(key, kept);
    keepAll(roles);
  }
  /** The same object while the record is the same: whoever found the role before may go on to change it. */
  function keptOf({ key, value, version }: SealedRecord): KeptRole {
    const known = custom.get(key);
    return known !== undefined && isSameVersion(known.version, version)
      ? known
      : { role: parseRole(value), version };
  }
  async function reload(key: string): Promise<void> {
    for (;;) {
      const before = changes;
      const record = await table.read(key);
      if (before === changes) return keep(key, record && keptOf(record));
    }
  }
  async function reloadAll(): Promise<void> {
    for (;;) {
      const before = changes;
      const roles = new Map<string, KeptRole>();
      for await (const record of everyRecord(table)) roles.set(record.key, keptOf(record));
      if (before === changes) return keepAll(roles);
    }
  }
  feed.follow(TABLE, (key) => key === undefined ? reloadAll() : reload(key));
  await reloadAll();

  /**
   * What is written with a new role, or neither is, so that its name means one thing also where another instance makes a role of it
   * at the same moment. That of a team finds that there is none for the whole server, and leaves a mark; by that mark one for the
   * whole server, which cannot look at each team, finds that none came since it looked at all roles.
   */
  async function guardsOf(team: string | null, name: string): Promise<readonly RecordChange[]> {
    const mark = { table: NAMES_TABLE, key: name, value: crypto.getRandomValues(new Uint8Array(MARK_BYTES)) };
    if (team !== null) {
      return [mark, { table: TABLE, key: keyOf(null, name), value: undefined, expects: "nothing" }];
    }
    const expects = await store.get(NAMES_TABLE, name) ?? "nothing";
    await reloadAll();
    return [{ ...mark, expects }];
  }
  async function write(
    { team, name }: Role,
    found: Role | undefined,
    next: Role | undefined,
    also: readonly RecordChange[] = [],
  ): Promise<void> {
    const key = keyOf(team, name);
    const kept = custom.get(key);
    if (kept?.role !== found || underWay.has(name)) throw changedMeanwhile(name);
    underWay.add(name);
    try {
      const change = await table.changeOf(key, next && roleRecord(next), {
        expects: kept?.version ?? "nothing",
      });
      const before = changes;
      if (!await store.write([change, ...also])) {
        // Another instance was here, or what was to be written with it was changed.
        await reload(key);
        throw changedMeanwhile(name);
      }
      // Where something was changed meanwhile, it may have been this role, by another instance and later.
      if (before === changes) keep(key, next && change.value && { role: next, version: change.value });
      else await reload(key);
    } finally {
      underWay.delete(name);
    }
  }

  return {
    grantsOf(team, names) {
      const known = resolved.get(names);
      if (known?.team === team) return known.grants;
      const grants = names.flatMap((name) => {
        const role = find(team, name);
        // Whoever has a role can look after what is their own: sign out, change the password, end a session.
        return role === undefined ? [] : role.builtIn ? role.grants : [...role.grants, ...OWN_GRANTS];
      });
      resolved.set(names, { team, grants });
      return grants;
    },
    find,
    list: () => [...BUILT_IN_ROLES.values(), ...customRoles()],
    async put(role, found, also = []) {
      const { name, team } = role;
      const guards = found === undefined ? await guardsOf(team, name) : [];
      const roles = customRoles();
      const isTaken = BUILT_IN_ROLES.has(name) ||
        roles.some((other) =>
          other.name === name && other.team !== team && (team === null || other.team === null)
        );
      if (isTaken) {
        throw conflict(name, "the name means another role", "The name means another role already.");
      }
      if (found === undefined && roles.filter((other) => other.team === team).length >= ROLES_PER_TEAM_MAX) {
        throw conflict(name, "there are too many", "There are as many roles as there can be.");
      }
      if (role.grants.some(({ cardRole }) => cardRole !== null)) {
        throw new Fault(
          "internal",
          `Cannot write the role ${name}: a built-in role's grant is none of its own`,
        );
      }
      await write(role, found, { ...role, builtIn: false }, [...guards, ...also]);
    },
    remove: (found) => write(found, found, undefined),
  };
}

/** A text for each pair, whatever the names hold. */
function keyOf(team: string | null, name: string): string {
  return JSON.stringify([team, name]);
}

function changedMeanwhile(name: string): Fault {
  return conflict(name, "it was changed meanwhile", "The role was changed meanwhile. Read it again.");
}

function conflict(name: string, state: string, detail: string): Fault {
  return new Fault("conflict", `Cannot write the role ${name}: ${state}`, { detail });
}

function roleRecord({ name, team, description, grants, createdAtMs }: Role): JsonValue {
  return { name, team, description, grants: grants.map(formatGrant), createdAtMs };
}

/** A record that passed its seal was written by us; its form is checked all the same, for it may be of another version. */
function parseRole(value: JsonValue): Role {
  const { name, team, description, grants, createdAtMs } = (value ?? {}) as Record<string, JsonValue>;
  if (
    typeof name !== "string" || (team !== null && typeof team !== "string") || !Array.isArray(grants) ||
    typeof description !== "string" || typeof createdAtMs !== "number"
  ) throw new Fault("unavailable", "Cannot read a role: the record has no known form");
  const parsed = grants.map((text) => parseGrant(typeof text === "string" ? text : ""));
  // A grant of another version of the server gives nothing here.
  const known = parsed.flatMap((grant) => grant.ok ? [grant.value] : []);
  return { name, team, description, grants: known, createdAtMs, builtIn: false };
}
