// Clients: programs with an account of their own (OAuth 2.0), which prove themselves with a secret or with a private key.
import { canonicalJson } from "../encoding/canonical_json.ts";
import { newId } from "../encoding/ids.ts";
import { Fault } from "../faults/fault.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import { isSameVersion, type SealedTable } from "../vault/sealed_store.ts";
import {
  checkClientKeys,
  type ClientAccount,
  type ClientRecord,
  clientRecord,
  parseClientRecord,
  type PublicJwkObject,
} from "./client_record.ts";
import type { Kept } from "./kept.ts";
import { keepSecret, makeSecret, matchesSecret, replaceSecret, SECRET_PATTERN } from "./kept_secret.ts";
import type { Standing, Standings } from "./standings.ts";
import type { UntrustedObject } from "./strict_jws.ts";
import type { Teams } from "./teams.ts";

/** An account as it may be shown: nothing of its secret. */
export interface Client extends ClientAccount {
  readonly secretRotatedAtMs: number | null;
  /** Until when the secret before the last rotation works. Milliseconds since 1970. */
  readonly previousUntilMs: number | null;
}

/** Why a secret proved nothing; told apart in the audit trail, never to the caller. */
export type ClientSecretRefusal =
  | "client_unknown"
  | "secret_wrong"
  | "client_disabled"
  | "authentication_other";

/** The accounts. A change holds when its promise resolves, for the next request already. */
export interface Clients {
  /**
   * Makes an account. The secret is shown here and never again; null where the client has keys.
   *
   * @throws Fault `fields_invalid` where keys are missing, too many, not wanted or not public keys for a signature ·
   * `conflict` when there is no such team
   */
  create(order: {
    readonly name: string;
    readonly team: string;
    readonly roles: readonly string[];
    readonly authentication: Client["authentication"];
    /** 1 to 8 public JWKs with `alg`, for `private_key_jwt`; none for `secret`. */
    readonly keys: readonly UntrustedObject[];
  }): Promise<{ readonly client: Client; readonly secret: string | null }>;
  read(id: string): Promise<Kept<Client> | undefined>;
  /** In the order of their ids, which is by age. */
  list(page: { readonly after?: string; readonly limit: number }): Promise<readonly Client[]>;
  /**
   * False: it was changed meanwhile. Name, team, roles, keys and whether it is disabled change; all else stays, whatever
   * `next` says. Where it is disabled, or loses a key, the access tokens that it has are over for good.
   *
   * @throws Fault as `create` does
   */
  replace(
    found: Kept<Client>,
    next: Omit<Client, "keys"> & { readonly keys: readonly UntrustedObject[] },
  ): Promise<boolean>;
  /**
   * A new secret; the one before works for the grace, and none before that.
   *
   * @param graceSeconds 0: the old one ends at once, with the access tokens that it got
   * @returns undefined when the client was changed meanwhile
   * @throws Fault `conflict` for a client with keys
   */
  rotateSecret(
    found: Kept<Client>,
    graceSeconds: number,
  ): Promise<{ readonly client: Client; readonly secret: string } | undefined>;
  /** False: it was changed meanwhile. */
  remove(found: Kept<Client>): Promise<boolean>;
  /** Whose secret it is. Throws Fault `unavailable` when the store fails. */
  verifySecret(id: string, secret: string): Promise<Outcome<Client, ClientSecretRefusal>>;
}

/** So far ahead may the clock of the instance be that issued a token which another one ends. */
const CLOCK_SKEW_SECONDS = 2;
const CLIENT_ID = /^cli_[0-9a-hjkmnp-tv-z]{26}$/;
const SECRET_PREFIX = "pcs_";
const SECRET_TEXT = new RegExp(`^${SECRET_PREFIX}${SECRET_PATTERN}$`);

/** Opens the accounts. */
export function openClients(options: {
  readonly store: RecordStore;
  readonly sealed: (table: string) => SealedTable;
  readonly keyRing: KeyRing;
  readonly clock: Clock;
  readonly teams: Teams;
  readonly standings: Pick<Standings, "forget">;
}): Clients {
  const { store, keyRing, clock, teams, standings } = options;
  const table = options.sealed("clients");

  // The hash covers the id too: a secret works for the client that it was made for.
  const hashOf = (id: string, secret: string): Uint8Array<ArrayBuffer> =>
    keyRing.keyedHash("client_secret", `${id}.${secret}`);

  async function readRecord(id: string): Promise<Kept<ClientRecord> | undefined> {
    const found = CLIENT_ID.test(id) ? await table.read(id) : undefined;
    return found && { value: parseClientRecord(id, found.value), version: found.version };
  }

  const endTokens = (): Pick<ClientRecord, "tokensNotBeforeSeconds"> => ({
    tokensNotBeforeSeconds: Math.floor(clock.now() / 1000) + CLOCK_SKEW_SECONDS,
  });

  /** Whatever becomes of the write, what the gate has at hand is asked for anew. */
  async function write(id: string, changes: readonly RecordChange[]): Promise<boolean> {
    try {
      return await store.write(changes);
    } finally {
      standings.forget(id);
    }
  }

  return {
    async create({ name, team, roles, authentication, keys }) {
      const publicKeys = await checkClientKeys(authentication, keys);
      const createdAtMs = clock.now();
      const id = newId("cli", createdAtMs);
      const secret = authentication === "secret" ? `${SECRET_PREFIX}${makeSecret()}` : null;
      const record: ClientRecord = {
        id,
        name,
        team,
        roles,
        authentication,
        keys: publicKeys,
        disabled: false,
        createdAtMs,
        tokensNotBeforeSeconds: null,
        secret: secret === null ? null : keepSecret(hashOf(id, secret)),
      };
      const change = await table.changeOf(id, clientRecord(record), { expects: "nothing" });
      // The id is new: only the team can be changed, by somebody else who got on, so this comes to an end.
      while (!await write(id, [change, await teams.hold(team)]));
      return { client: shown(record), secret };
    },
    async read(id) {
      const found = await readRecord(id);
      return found && { value: shown(found.value), version: found.version };
    },
    list: async (page) =>
      (await table.list(page)).map(({ key, value }) => shown(parseClientRecord(key, value))),
    async replace(found, next) {
      const { id, authentication, team } = found.value;
      const keys = await checkClientKeys(authentication, next.keys);
      for (;;) {
        const standing = await readRecord(id);
        if (standing === undefined || !isSameVersion(standing.version, found.version)) return false;
        const { name, roles, disabled } = next;
        // When it is enabled too: a token that was being issued while it was disabled is as old as that.
        const endsTokens = disabled || standing.value.disabled || !hasAll(keys, standing.value.keys);
        const record = {
          ...standing.value,
          name,
          team: next.team,
          roles,
          keys,
          disabled,
          ...(endsTokens ? endTokens() : {}),
        };
        const change = await table.changeOf(id, clientRecord(record), { expects: found.version });
        if (await write(id, next.team === team ? [change] : [change, await teams.hold(next.team)])) {
          return true;
        }
        // It was changed, or only the team was, by somebody else who got on: the next round tells.
      }
    },
    async rotateSecret(found, graceSeconds) {
      const { id } = found.value;
      const standing = await readRecord(id);
      if (standing === undefined) return undefined;
      if (standing.value.secret === null) {
        throw new Fault("conflict", `Cannot rotate the secret of ${id}: it has keys and no secret`, {
          detail: "This client has keys and no secret.",
        });
      }
      const secret = `${SECRET_PREFIX}${makeSecret()}`;
      const kept = replaceSecret(standing.value.secret, hashOf(id, secret), clock.now(), graceSeconds);
      const record = { ...standing.value, secret: kept, ...(graceSeconds > 0 ? {} : endTokens()) };
      const change = await table.changeOf(id, clientRecord(record), { expects: found.version });
      return await write(id, [change]) ? { client: shown(record), secret } : undefined;
    },
    remove: async ({ value: { id }, version }) =>
      await write(id, [await table.changeOf(id, undefined, { expects: version })]),
    async verifySecret(id, secret) {
      const found = (await readRecord(id))?.value;
      if (found === undefined) return no("client_unknown");
      if (found.secret === null) return no("authentication_other");
      const isRight = SECRET_TEXT.test(secret) &&
        matchesSecret(found.secret, hashOf(id, secret), clock.now());
      if (!isRight) return no("secret_wrong");
      return found.disabled ? no("client_disabled") : ok(shown(found));
    },
  };
}

/** What the gate knows of a client. */
export function clientStanding({ team, roles, disabled, tokensNotBeforeSeconds }: Client): Standing {
  return { kind: "client", team, roles, active: !disabled, tokensNotBeforeSeconds };
}

function hasAll(keys: readonly PublicJwkObject[], wanted: readonly PublicJwkObject[]): boolean {
  const texts = new Set(keys.map(canonicalJson));
  return wanted.every((key) => texts.has(canonicalJson(key)));
}

/** Member by member: a secret's hash is none of them. */
function shown(record: ClientRecord): Client {
  const { id, name, team, roles, authentication, keys, disabled, createdAtMs, secret } = record;
  const { tokensNotBeforeSeconds } = record;
  const account = { id, name, team, roles, authentication, keys, disabled, createdAtMs };
  const { rotatedAtMs = null, previousUntilMs = null } = secret ?? {};
  return { ...account, tokensNotBeforeSeconds, secretRotatedAtMs: rotatedAtMs, previousUntilMs };
}
