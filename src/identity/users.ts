// Users: the accounts of this server, sealed at rest and found by a pseudonym of their name.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { newId } from "../encoding/ids.ts";
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import type { SealedTable } from "../vault/sealed_store.ts";
import { hashPassword } from "./password_hash.ts";

/** An account. */
export interface User {
  /** `usr_…`: the subject of its tokens; never given again. */
  readonly id: string;
  readonly username: string;
  readonly roles: readonly string[];
  /** PHC string. */
  readonly passwordHash: string;
  /** Milliseconds since 1970. */
  readonly createdAtMs: number;
}

/** The accounts. Names are compared exactly: no folding of case or form. */
export interface Users {
  find(username: string): Promise<User | undefined>;
  /** Makes an account. Throws Fault `request_invalid` when the name is taken. */
  create(account: { username: string; password: string; roles: readonly string[] }): Promise<User>;
  isEmpty(): Promise<boolean>;
}

/** Opens the accounts over their sealed table. */
export function openUsers(table: SealedTable, keyRing: KeyRing, clock: Clock): Users {
  const keyOf = (username: string): string => keyRing.pseudonym("account", username);
  return {
    async find(username) {
      const value = await table.get(keyOf(username));
      return value === undefined ? undefined : parseUser(value);
    },
    async create({ username, password, roles }) {
      const nowMs = clock.now();
      const user: User = {
        id: newId("usr", nowMs),
        username,
        roles,
        passwordHash: await hashPassword(password),
        createdAtMs: nowMs,
      };
      if (!await table.create(keyOf(username), { ...user })) {
        throw new Fault("request_invalid", "Cannot create a user: the name is taken", {
          detail: "The user name is taken.",
        });
      }
      return user;
    },
    isEmpty: () => table.isEmpty(),
  };
}

/** A record that passed its seal was written by us; its form is checked all the same, for it may be of another version. */
function parseUser(value: JsonValue): User {
  const { id, username, roles, passwordHash, createdAtMs } = (value ?? {}) as Record<string, JsonValue>;
  if (
    typeof id !== "string" || typeof username !== "string" || typeof passwordHash !== "string" ||
    typeof createdAtMs !== "number" ||
    !Array.isArray(roles) || !roles.every((role) => typeof role === "string")
  ) throw new Fault("unavailable", "Cannot read a user: the record has no known form");
  return { id, username, roles, passwordHash, createdAtMs };
}
