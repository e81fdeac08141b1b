// API keys: long-lived credentials of users and clients. Shown once, kept as a keyed hash, narrowed by scope, address and key.
import { newId } from "../encoding/ids.ts";
import { Fault } from "../faults/fault.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import type { SealedTable } from "../vault/sealed_store.ts";
import {
  type ApiKeyOrder,
  type ApiKeyRecord,
  apiKeyRecord,
  checkApiKeyOrder,
  parseApiKeyRecord,
  type VerifiedKey,
  verifiedKeyOf,
} from "./api_key_record.ts";
import { keepNewest } from "./bounded_map.ts";
import type { Kept } from "./kept.ts";
import { keepSecret, makeSecret, matchesSecret, replaceSecret, SECRET_PATTERN } from "./kept_secret.ts";
import { NEVER_USED, openLastUses } from "./last_uses.ts";

/** What every key starts with. A key's text is `pck_…_SECRET`: its id, and 256 random bits. */
export const API_KEY_PREFIX = "pck_";

/** A key as it may be shown: nothing of its secret. */
export interface ApiKey extends ApiKeyOrder {
  /** `pck_…` */
  readonly id: string;
  readonly createdAtMs: number;
  /** To the minute, should the process die. */
  readonly lastUsedAtMs: number | null;
  readonly rotatedAtMs: number | null;
  /** Until when the secret before the last rotation works. */
  readonly previousUntilMs: number | null;
}

/** Why a text is no key that works; told apart in the audit trail, never to the caller. */
export type ApiKeyRefusal = "key_malformed" | "key_unknown" | "key_wrong" | "key_expired";

/** The keys. A change holds when its promise resolves, for the next request already. */
export interface ApiKeys {
  /** The text is shown here and never again. Throws Fault `fields_invalid` where the order breaks a rule. */
  create(order: ApiKeyOrder): Promise<{ readonly key: ApiKey; readonly text: string }>;
  /** Synchronous where the record is at hand. Notes the use. Throws Fault `unavailable` when the store fails. */
  verify(text: string): Outcome<VerifiedKey, ApiKeyRefusal> | Promise<Outcome<VerifiedKey, ApiKeyRefusal>>;
  /** Also one that has expired, for 30 days. */
  read(id: string): Promise<Kept<ApiKey> | undefined>;
  /** By id, which is by age; a page that is not full is the last. */
  list(
    page: { readonly after?: string; readonly limit: number; readonly ownerId?: string },
  ): Promise<readonly ApiKey[]>;
  /**
   * A new secret under the same id; the one before works for the grace, and none before that.
   *
   * @param graceSeconds 0: the old one ends at once
   * @param by who is told the new one
   * @returns undefined when the key was changed meanwhile
   */
  rotate(
    found: Kept<ApiKey>,
    graceSeconds: number,
    by: "owner" | "other",
  ): Promise<{ readonly key: ApiKey; readonly text: string } | undefined>;
  /** Whether it was removed; it was not when it was changed meanwhile. */
  remove(found: Kept<ApiKey>): Promise<boolean>;
  /** Removes all of an owner, whatever else happens to them; how many. */
  removeAllOf(ownerId: string): Promise<number>;
  /** The same of those of an owner that others have seen. */
  removeSeenByOthers(ownerId: string): Promise<number>;
  /** Writes last uses that are not written yet; before the store closes. Throws Fault `unavailable` when it fails. */
  flush(): Promise<void>;
}

/** The id that a key's text claims. */
export function apiKeyIdIn(text: string): string {
  return text.slice(0, ID_CHARACTERS);
}

const TABLE = "api_keys";
const ID_CHARACTERS = 30;
const KEY_ID = /^pck_[0-9a-hjkmnp-tv-z]{26}$/;
const KEY_TEXT = new RegExp(`^pck_[0-9a-hjkmnp-tv-z]{26}_${SECRET_PATTERN}$`);
/** An expired key still shows that it has expired, to its owner and in the audit trail. */
const KEPT_AFTER_EXPIRY_MS = 30 * 24 * 3600 * 1000;
/** Each takes a few kilobytes at most. */
const KNOWN_MAX = 20_000;
/** Ids that do not exist, so that asking for one again and again costs no read. */
const UNKNOWN_MAX = 10_000;
const UNKNOWN_MS = 10_000;
const PAGE = 100;
interface KnownKey {
  readonly record: ApiKeyRecord;
  /** What the gate is told of it, made once. */
  readonly verified: Outcome<VerifiedKey, never>;
  readonly useKey: string;
}

/**
 * Opens the keys.
 *
 * @param options.feed tells of keys that others change
 * @param options.knownMax of so many keys the record is kept at hand
 */
export function openApiKeys(options: {
  readonly store: RecordStore;
  readonly sealed: (table: string) => SealedTable;
  readonly keyRing: KeyRing;
  readonly clock: Clock;
  readonly feed: Pick<ChangeFeed, "follow">;
  readonly knownMax?: number;
}): ApiKeys {
  const { store, keyRing, clock, knownMax = KNOWN_MAX } = options;
  const table = options.sealed(TABLE);
  /** `OWNER.KEY`: which keys an owner has, and when each was last used. Apart, so that a use is no change of the key. */
  const useTable = options.sealed("api_key_uses");
  const uses = openLastUses({ store, table: useTable, clock, usesMax: knownMax });
  const known = new Map<string, KnownKey>();
  const unknownUntilMs = new Map<string, number>();
  // What was read before a change must not be kept after it.
  let changes = 0;

  function forget(id: string): void {
    changes++;
    known.delete(id);
    unknownUntilMs.delete(id);
  }
  options.feed.follow(TABLE, (id) => {
    if (id !== undefined) return forget(id);
    changes++;
    known.clear();
    unknownUntilMs.clear();
  });
  /** Also after an error, which does not tell whether the change was made. */
  async function write(made: readonly RecordChange[], ids: readonly string[]): Promise<boolean> {
    try {
      return await store.write(made);
    } finally {
      ids.forEach(forget);
    }
  }
  async function changeOf(
    record: ApiKeyRecord,
    expects: "nothing" | Uint8Array<ArrayBuffer>,
  ): Promise<RecordChange> {
    return await table.changeOf(record.id, apiKeyRecord(record), { expects, lifetime: lifetimeOf(record) });
  }
  /** Member by member: a secret's hash is none of them. */
  async function shown(record: ApiKeyRecord): Promise<ApiKey> {
    const { id, name, ownerId, scopes, addresses, boundTo, createdAtMs, expiresAtMs, seenByOthers } = record;
    const { rotatedAtMs, previousUntilMs } = record.secret;
    const lastUsedAtMs = await uses.read(useKeyOf(record));
    const times = { createdAtMs, expiresAtMs, lastUsedAtMs, rotatedAtMs, previousUntilMs };
    return { id, name, ownerId, scopes, addresses, boundTo, seenByOthers, ...times };
  }
  function makeText(id: string): { readonly text: string; readonly hash: Uint8Array<ArrayBuffer> } {
    const text = `${id}_${makeSecret()}`;
    return { text, hash: keyRing.keyedHash("api_key", text) };
  }

  function judge({ record, verified, useKey }: KnownKey, text: string): Outcome<VerifiedKey, ApiKeyRefusal> {
    const nowMs = clock.now();
    // The hash covers the id too: a secret works for the key that it was made for.
    if (!matchesSecret(record.secret, keyRing.keyedHash("api_key", text), nowMs)) return no("key_wrong");
    if (nowMs >= record.expiresAtMs) return no("key_expired");
    uses.note(useKey, lifetimeOf(record).expiresAtMs);
    return verified;
  }
  async function load(id: string): Promise<KnownKey | undefined> {
    const before = changes;
    const found = await table.read(id);
    const key = found && knownKeyOf(parseApiKeyRecord(id, found.value));
    if (before === changes) {
      if (key === undefined) keepNewest(unknownUntilMs, id, clock.monotonic() + UNKNOWN_MS, UNKNOWN_MAX);
      else keepNewest(known, id, key, knownMax);
    }
    return key;
  }
  async function readRecord(id: string): Promise<Kept<ApiKeyRecord> | undefined> {
    const found = KEY_ID.test(id) ? await table.read(id) : undefined;
    return found && { value: parseApiKeyRecord(id, found.value), version: found.version };
  }
  /** Ids of an owner's keys, at most so many. */
  async function idsOf(ownerId: string, after: string, limit: number): Promise<readonly string[]> {
    const prefix = `${ownerId}.`;
    const page = await useTable.list({ after: `${prefix}${after}`, limit });
    return page.filter(({ key }) => key.startsWith(prefix)).map(({ key }) => key.slice(prefix.length));
  }
  async function listOf(ownerId: string, after: string, limit: number): Promise<readonly ApiKeyRecord[]> {
    const ids = await idsOf(ownerId, after, limit);
    const records = (await Promise.all(ids.map(readRecord))).flatMap((found) => found ? [found.value] : []);
    // One was removed since: the page is filled up, for one that is not full would be the last.
    return records.length < ids.length && ids.length === limit
      ? [...records, ...await listOf(ownerId, ids.at(-1) ?? after, limit - records.length)]
      : records;
  }
  /** Whatever stands there: a rotation that came between does not save a key. */
  async function removeWhole(ownerId: string, ids: readonly string[]): Promise<void> {
    const deletions = ids.flatMap((id) => [
      table.changeOf(id, undefined),
      useTable.changeOf(useKeyOf({ ownerId, id }), undefined),
    ]);
    await write(await Promise.all(deletions), ids);
  }

  return {
    async create(order) {
      checkApiKeyOrder(order);
      const createdAtMs = clock.now();
      const id = newId("pck", createdAtMs);
      const { text, hash } = makeText(id);
      const record: ApiKeyRecord = { ...order, id, createdAtMs, secret: keepSecret(hash) };
      const use = await useTable.changeOf(useKeyOf(record), NEVER_USED, { lifetime: lifetimeOf(record) });
      const key = await shown(record);
      if (!await write([await changeOf(record, "nothing"), use], [id])) {
        throw new Fault("internal", "Cannot create an API key: its id is taken");
      }
      return { key, text };
    },
    verify(text) {
      if (!KEY_TEXT.test(text)) return no("key_malformed");
      const id = apiKeyIdIn(text);
      const key = known.get(id);
      if (key !== undefined) return judge(key, text);
      if ((unknownUntilMs.get(id) ?? -1) > clock.monotonic()) return no("key_unknown");
      return load(id).then((loaded) => loaded === undefined ? no("key_unknown") : judge(loaded, text));
    },
    async read(id) {
      const found = await readRecord(id);
      return found && { value: await shown(found.value), version: found.version };
    },
    async list({ after, limit, ownerId }) {
      const records = ownerId === undefined
        ? (await table.list(after === undefined ? { limit } : { after, limit }))
          .map(({ key, value }) => parseApiKeyRecord(key, value))
        : await listOf(ownerId, after ?? "", limit);
      return await Promise.all(records.map(shown));
    },
    async rotate(found, graceSeconds, by) {
      const { id } = found.value;
      const standing = await readRecord(id);
      if (standing === undefined) return undefined;
      const { text, hash } = makeText(id);
      const secret = replaceSecret(standing.value.secret, hash, clock.now(), graceSeconds);
      // Where the secret before goes on, so do those who know it.
      const seenByOthers = by === "other" || (graceSeconds > 0 && standing.value.seenByOthers);
      const record = { ...standing.value, secret, seenByOthers };
      // Before the write: behind it nothing may fail, or nobody would ever see the new secret.
      const key = await shown(record);
      return await write([await changeOf(record, found.version)], [id]) ? { key, text } : undefined;
    },
    async remove({ value, version }) {
      return await write([
        await table.changeOf(value.id, undefined, { expects: version }),
        await useTable.changeOf(useKeyOf(value), undefined),
      ], [value.id]);
    },
    async removeAllOf(ownerId) {
      for (let removed = 0;;) {
        const ids = await idsOf(ownerId, "", PAGE);
        if (ids.length === 0) return removed;
        await removeWhole(ownerId, ids);
        removed += ids.length;
      }
    },
    async removeSeenByOthers(ownerId) {
      for (let removed = 0, after = "";;) {
        const page = await listOf(ownerId, after, PAGE);
        const ids = page.filter(({ seenByOthers }) => seenByOthers).map(({ id }) => id);
        if (ids.length > 0) await removeWhole(ownerId, ids);
        removed += ids.length;
        if (page.length < PAGE) return removed;
        after = page.at(-1)?.id ?? after;
      }
    },
    flush: () => uses.flush(),
  };
}

function knownKeyOf(record: ApiKeyRecord): KnownKey {
  return { record, verified: ok(verifiedKeyOf(record)), useKey: useKeyOf(record) };
}

function useKeyOf({ ownerId, id }: Pick<ApiKeyRecord, "ownerId" | "id">): string {
  return `${ownerId}.${id}`;
}

function lifetimeOf({ expiresAtMs }: ApiKeyOrder): { readonly expiresAtMs: number } {
  return { expiresAtMs: expiresAtMs + KEPT_AFTER_EXPIRY_MS };
}
