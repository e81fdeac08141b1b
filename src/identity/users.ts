// Users: the accounts of this server, sealed at rest by their ids, and found by a pseudonym of their name.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { newId } from "../encoding/ids.ts";
import { Fault } from "../faults/fault.ts";
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import { isSameVersion, type SealedTable } from "../vault/sealed_store.ts";
import type { Kept } from "./kept.ts";
import { hashPassword } from "./password_hash.ts";
import type { Standing, Standings } from "./standings.ts";
import { DEFAULT_TEAM, type Teams } from "./teams.ts";

/** An account. */
export interface User {
  /** `usr_…`: the subject of its tokens; never given again. */
  readonly id: string;
  readonly username: string;
  readonly team: string;
  readonly roles: readonly string[];
  /** PHC string. */
  readonly passwordHash: string;
  readonly disabled: boolean;
  /** Milliseconds since 1970. */
  readonly createdAtMs: number;
}

/** The accounts. Names are compared exactly: no folding of case or form. */
export interface Users {
  /**
   * Makes an account.
   *
   * @throws Fault `fields_invalid` when the name breaks the grammar · `conflict` when it is taken, or there is no such team
   */
  create(account: {
    readonly username: string;
    readonly password: string;
    readonly roles: readonly string[];
    readonly team: string;
  }): Promise<User>;
  read(id: string): Promise<Kept<User> | undefined>;
  findByName(username: string): Promise<User | undefined>;
  /** In the order of their ids, which is by age. */
  list(page: { readonly after?: string; readonly limit: number }): Promise<readonly User[]>;
  /**
   * False: it was changed meanwhile. Id and name stay, whatever `next` says.
   *
   * @param by the user who does it, as read: where that one was changed meanwhile, it is false too
   * @throws Fault `conflict` when `next` is in a team that does not exist
   */
  replace(found: Kept<User>, next: User, by?: Kept<User>): Promise<boolean>;
  /** False: it was changed meanwhile. Sessions go on: whoever changes a password ends them. */
  setPassword(found: Kept<User>, password: string): Promise<boolean>;
  /** False: it was changed meanwhile, or `by` was. The name is free from now on. */
  remove(found: Kept<User>, by?: Kept<User>): Promise<boolean>;
  isEmpty(): Promise<boolean>;
}

/**
 * Letters and digits of any script, and . _ @ + -; nothing that cannot be seen and no combining marks. On top of that a
 * name is in Unicode's normal form C (`isUsername`), so that none looks like another for the way it was typed.
 */
export const USERNAME_PATTERN = /^(?:(?!\p{DI})[\p{L}\p{Nd}._@+\-]){1,128}$/u;

/** Whether an account may have a name. */
export function isUsername(text: string): boolean {
  return USERNAME_PATTERN.test(text) && text.normalize("NFC") === text;
}

const TABLE = "users";
const ID = /^usr_[0-9a-z]{26}$/;
/** Behind all ids, in the order of keys. */
const ID_LAST = "usr_~";

/** Opens the accounts over their sealed tables, and moves those that have the form of version 0.1. */
export async function openUsers(options: {
  readonly store: RecordStore;
  readonly sealed: (table: string) => SealedTable;
  readonly keyRing: KeyRing;
  readonly clock: Clock;
  readonly teams: Teams;
  readonly standings: Pick<Standings, "forget">;
}): Promise<Users> {
  const { store, sealed, keyRing, clock, teams, standings } = options;
  const table = sealed(TABLE);
  const names = sealed("user_names");
  const nameKey = (username: string): string => keyRing.pseudonym("account", username);
  await moveOldAccounts(store, table, names);

  async function read(id: string): Promise<Kept<User> | undefined> {
    const record = ID.test(id) ? await table.read(id) : undefined;
    return record === undefined ? undefined : { value: parseUser(record.value), version: record.version };
  }

  /** Whatever becomes of the write, what the gate has at hand is asked for anew. */
  async function writeAccount(id: string, changes: readonly RecordChange[]): Promise<boolean> {
    try {
      return await store.write(changes);
    } finally {
      standings.forget(id);
    }
  }

  async function stands({ value: { id }, version }: Kept<User>): Promise<boolean> {
    const record = await table.read(id);
    return record !== undefined && isSameVersion(record.version, version);
  }

  async function replace(found: Kept<User>, next: User, by?: Kept<User>): Promise<boolean> {
    const { id, username, team } = found.value;
    const change = await table.changeOf(id, userRecord({ ...next, id, username }), {
      expects: found.version,
    });
    for (;;) {
      const changes = next.team === team ? [change] : [change, await teams.hold(next.team)];
      if (await writeAccount(id, [...asRead(by), ...changes])) return true;
      if (!await stands(found) || (by !== undefined && !await stands(by))) return false;
      // Only the team was changed: somebody else got on, so this comes to an end.
    }
  }

  return {
    async create({ username, password, roles, team }) {
      if (!isUsername(username)) {
        throw new Fault("fields_invalid", "Cannot create a user: the name breaks the rule", {
          fields: [{
            path: "/username",
            message: "is not 1 to 128 letters, digits and . _ @ + - (in form NFC)",
          }],
        });
      }
      const nowMs = clock.now();
      const id = newId("usr", nowMs);
      const passwordHash = await hashPassword(password);
      const user: User = { id, username, team, roles, passwordHash, disabled: false, createdAtMs: nowMs };
      const changes = [
        await names.changeOf(nameKey(username), { id }, { expects: "nothing" }),
        await table.changeOf(id, userRecord(user), { expects: "nothing" }),
      ];
      while (!await store.write([...changes, await teams.hold(team)])) {
        if (await names.get(nameKey(username)) !== undefined) {
          throw new Fault("conflict", "Cannot create a user: the name is taken", {
            detail: "The user name is taken.",
          });
        }
        // Only the team was changed: somebody else got on, so this comes to an end.
      }
      return user;
    },
    read,
    async findByName(username) {
      const name = isUsername(username) ? await names.get(nameKey(username)) : undefined;
      if (name === undefined) return undefined;
      return (await read(parseName(name)))?.value;
    },
    list: async (page) => (await table.list(page)).map(({ value }) => parseUser(value)),
    replace,
    setPassword: async (found, password) =>
      await replace(found, { ...found.value, passwordHash: await hashPassword(password) }),
    remove: async (found, by) =>
      await writeAccount(found.value.id, [
        ...asRead(by),
        await table.changeOf(found.value.id, undefined, { expects: found.version }),
        await names.changeOf(nameKey(found.value.username), undefined),
      ]),
    isEmpty: () => table.isEmpty(),
  };
}

/** Part of a write that is made only while a user is as read: the same bytes again. First, so that any other change of it wins. */
function asRead(user: Kept<User> | undefined): readonly RecordChange[] {
  if (user === undefined) return [];
  const { value: { id }, version } = user;
  return [{ table: TABLE, key: id, value: version, expects: version }];
}

/** What the gate knows of a user. */
export function userStanding(user: User | undefined): Standing | undefined {
  return user && { kind: "user", team: user.team, roles: user.roles, active: !user.disabled };
}

/** In version 0.1 an account stood under the pseudonym of its name, and there were neither teams nor disabled users. */
async function moveOldAccounts(store: RecordStore, table: SealedTable, names: SealedTable): Promise<void> {
  let after: string | undefined;
  for (;;) {
    const page = after === undefined ? { limit: 1 } : { after, limit: 1 };
    const key = (await store.list(TABLE, page))[0]?.key;
    if (key === undefined) return;
    after = ID.test(key) ? ID_LAST : key;
    const old = ID.test(key) ? undefined : await table.read(key);
    if (old === undefined) continue;
    const user = parseUser({
      team: DEFAULT_TEAM,
      disabled: false,
      ...(old.value as Record<string, JsonValue>),
    });
    const moved = await store.write([
      await table.changeOf(key, undefined, { expects: old.version }),
      await table.changeOf(user.id, userRecord(user), { expects: "nothing" }),
      await names.changeOf(key, { id: user.id }, { expects: "nothing" }),
    ]);
    // Another instance may have moved it meanwhile.
    if (!moved && await table.get(key) !== undefined) {
      throw new Fault("unavailable", `Cannot move the account ${user.id}: there is another one of its name`);
    }
  }
}

function userRecord(user: User): JsonValue {
  const { id, username, team, roles, passwordHash, disabled, createdAtMs } = user;
  return { id, username, team, roles, passwordHash, disabled, createdAtMs };
}

/** A record that passed its seal was written by us; its form is checked all the same, for it may be of another version. */
function parseUser(value: JsonValue): User {
  const { id, username, team, roles, passwordHash, disabled, createdAtMs } = (value ?? {}) as Record<
    string,
    JsonValue
  >;
  if (
    typeof id !== "string" || typeof username !== "string" || typeof team !== "string" ||
    typeof passwordHash !== "string" || typeof disabled !== "boolean" || typeof createdAtMs !== "number" ||
    !Array.isArray(roles) || !roles.every((role) => typeof role === "string")
  ) throw new Fault("unavailable", "Cannot read a user: the record has no known form");
  return { id, username, team, roles, passwordHash, disabled, createdAtMs };
}

function parseName(value: JsonValue): string {
  const { id } = (value ?? {}) as Record<string, JsonValue>;
  if (typeof id !== "string") {
    throw new Fault("unavailable", "Cannot find a user: the record has no known form");
  }
  return id;
}
