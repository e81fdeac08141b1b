// Key ring: the data keys, each wrapped under the master key in the store, and what is done with them.
import { createHmac } from "node:crypto";
import { encodeBase64url } from "../encoding/base64url.ts";
import { newId, timeOfId } from "../encoding/ids.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import { type ChangeFeed, NO_OTHERS } from "../store/change_feed.ts";
import type { RecordPlace, RecordStore, StoredRecord } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import {
  importSealingKey,
  open,
  reseal,
  seal,
  type SealingKey,
  sealingKeyIdIn,
  sealingKeyIdOf,
} from "./aead.ts";
import type { MasterKey } from "./master_key.ts";

/** What a keyed hash is for: no hash of one purpose is one of another. */
export type HashPurpose =
  | "account"
  | "address"
  | "api_key"
  | "audit_index"
  | "client_secret"
  | "dpop_nonce"
  | "refresh_token"
  | "subject";
/** A data key as it may be shown. */
export interface DataKeyState {
  /** `key_…` */
  readonly id: string;
  /** `seal`: seals values. `pseudonym`: hashes what has to be found or known again; there is one, and it stays. */
  readonly kind: KeyKind;
  /** `retired`: seals nothing any more, and opens what it sealed until it is destroyed. */
  readonly state: "active" | "retired";
  /** Milliseconds since 1970. */
  readonly createdAtMs: number;
  /** Whether it is wrapped under the newest master key. */
  readonly isUnderNewestMasterKey: boolean;
}

/** Seals, opens, hashes and pseudonymises with keys that only the master key opens. */
export interface KeyRing {
  /** Seals under the active data key. */
  seal(place: string, plain: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Opens under the data key that the value names, which another instance may have made meanwhile. Throws Fault `unavailable`
   * when it does not open.
   */
  open(place: string, sealed: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * The same value under the active key; undefined where it is under that already, or where no data key sealed it. Throws Fault
   * `unavailable` when it does not open.
   */
  reseal(place: string, sealed: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /**
   * A value that this ring has sealed, under the key that the store has as the active one now: what to write where the key that it was
   * sealed under takes nothing new any more. Throws Fault `unavailable` when it does not open, or store or master key cannot be used.
   */
  sealAgain(place: string, sealed: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Whether the data key is there that sealed a value, which another instance may have made meanwhile; also true of what no data key
   * sealed. Throws Fault `unavailable` when store or master key cannot be used.
   */
  holdsKeyOf(value: Uint8Array<ArrayBuffer>): Promise<boolean>;
  /**
   * A keyed pseudonym (HMAC-SHA-256, 22 characters for 128 bits): the same for the same text and purpose, and no way
   * back without the key. For look-up keys and for audit records.
   */
  pseudonym(purpose: HashPurpose, text: string): string;
  /**
   * HMAC-SHA-256, all 32 bytes: what is kept of a secret that somebody else holds, so that it can be known again and not be
   * found out. No pseudonym is a part of one.
   */
  keyedHash(purpose: HashPurpose, text: string): Uint8Array<ArrayBuffer>;
  /** The record that was written with the ring's first keys: where it does not stand, the store is not the one that has them. */
  readonly mark: StoreMark;
  /** The id of the key that seals. */
  activeKey(): string;
  /** The keys as the store has them, the newest first. */
  keys(): Promise<readonly DataKeyState[]>;
  /**
   * Makes a new key that seals from now on, here and, as soon as they hear of it, on all instances. Returns its id.
   *
   * @param beforeUse told the id before the key is kept; where it throws, there is no new key
   * @throws Fault `unavailable` when the master key or the store cannot be used
   */
  rotate(beforeUse: (id: string) => Promise<void>): Promise<string>;
  /**
   * Wraps every data key that is not under the newest master key under that one.
   *
   * @param before told the id of each key before it is wrapped anew
   * @returns how many there were; as they were wrapped before, the store's files may still hold them until it is scrubbed
   * @throws Fault `unavailable` when the master key or the store cannot be used; those that are done stay done
   */
  rewrap(before: (id: string) => Promise<void>): Promise<number>;
  /**
   * From now on the store takes nothing new that this key sealed, on no instance and in no command beside; what is there still opens.
   * Throws Fault `internal` for one that is in use · `unavailable` when the store cannot be used: then it may be retired again.
   */
  retire(id: string): Promise<void>;
  /**
   * Destroys a key: nothing that it sealed opens any more; as soon as the store is scrubbed, from no copy of its own files either.
   * Throws Fault `internal` for one that is in use · `unavailable` when the store cannot be used: then it may be destroyed again.
   */
  destroy(id: string): Promise<void>;
}

/** A record by which one store is told from every other. Nobody ever changes it. */
export interface StoreMark {
  readonly table: string;
  readonly key: string;
  readonly value: Uint8Array<ArrayBuffer>;
}

/** The table of the data keys: its values are wrapped, not sealed. */
export const DATA_KEY_TABLE = "data_keys";
const MARK_TABLE = "installation";
const MARK_KEY = "id";
const MARK_BYTES = 16;
const KEY_BYTES = 32;
const DATA_KEY_ID = /^key_[0-9a-hjkmnp-tv-z]{26}$/;
type KeyKind = "seal" | "pseudonym";
/**
 * Record keys are `KIND.ID`: the newest of a kind sorts last. A key that seals is moved from `seal` to `retired` before it is destroyed:
 * every write names the place of the keys of its values (`dataKeyPlaceOf`), and that one is empty then.
 */
type RecordKind = KeyKind | "retired";

/** Where the data key rests that sealed a value, as long as more may be sealed under it; undefined for what no data key sealed. */
export function dataKeyPlaceOf(bytes: Uint8Array<ArrayBuffer>): RecordPlace | undefined {
  const id = sealingKeyIdIn(bytes);
  return id !== undefined && DATA_KEY_ID.test(id)
    ? { table: DATA_KEY_TABLE, key: recordKeyOf("seal", id) }
    : undefined;
}

/**
 * Opens the ring, making its first keys in an empty store. Of instances that do so at the same moment one makes them, and the others
 * have the same.
 *
 * @param feed tells of keys that others make and destroy
 * @throws Fault `unavailable` when the master key does not open the stored keys: it is not the one they were made under · when
 * the store has lost keys
 */
export async function openKeyRing(
  store: RecordStore,
  master: MasterKey,
  clock: Clock,
  feed: Pick<ChangeFeed, "follow"> = NO_OTHERS,
): Promise<KeyRing> {
  const { mark, pseudonymKey, records } = await openKeys(store, master, clock);
  // A key of its own. No pseudonym can be this key: what those are made of holds a NUL.
  const hashKey = createHmac("sha256", pseudonymKey).update("keyed_hash").digest();

  /** By their ids. */
  let sealingKeys: ReadonlyMap<string, SealingKey> = new Map();
  let newest: SealingKey | undefined;
  let lastReading: Promise<void> = Promise.resolve();

  async function keep(records: readonly StoredRecord[]): Promise<void> {
    const kept = new Map<string, SealingKey>();
    let last: SealingKey | undefined;
    for (const record of records) {
      const { kind, id } = parseRecordKey(record.key);
      if (kind === "pseudonym") continue;
      const key = sealingKeys.get(id) ?? await importSealingKey(id, await unwrap(master, record));
      kept.set(id, key);
      if (kind === "seal") last = key;
    }
    sealingKeys = kept;
    newest = last;
  }
  /** One at a time: what is at hand never goes back to what was read before. */
  function reload(): Promise<void> {
    const reading = lastReading.then(async () => await keep(await listKeys(store)));
    lastReading = reading.catch(() => {});
    return reading;
  }
  await keep(records);
  feed.follow(DATA_KEY_TABLE, reload);

  function activeKey(): SealingKey {
    if (newest === undefined) throw lostKeys();
    return newest;
  }
  async function sealingKey(id: string): Promise<SealingKey> {
    // A key is in the store before anything that it sealed.
    if (!sealingKeys.has(id)) await reload();
    const key = sealingKeys.get(id);
    if (key === undefined) {
      throw new Fault("unavailable", `Cannot open a sealed value: there is no data key ${id}`);
    }
    return key;
  }

  return {
    mark: { table: MARK_TABLE, key: MARK_KEY, value: mark },
    seal: async (place, plain) => await seal(activeKey(), place, plain),
    async open(place, sealed) {
      const id = sealingKeyIdOf(sealed);
      return await open(sealingKeys.get(id) ?? await sealingKey(id), place, sealed);
    },
    async reseal(place, sealed) {
      const id = sealingKeyIdIn(sealed);
      const to = activeKey();
      const from = id === undefined || id === to.id ? undefined : sealingKeys.get(id);
      return from && await reseal(from, to, place, sealed);
    },
    async sealAgain(place, sealed) {
      // Also where it is destroyed by now, and the next reading drops it.
      const from = await sealingKey(sealingKeyIdOf(sealed));
      await reload();
      const to = activeKey();
      return from.id === to.id ? sealed : await reseal(from, to, place, sealed);
    },
    async holdsKeyOf(value) {
      const id = sealingKeyIdIn(value);
      if (id === undefined || !DATA_KEY_ID.test(id) || sealingKeys.has(id)) return true;
      await reload();
      return sealingKeys.has(id);
    },
    pseudonym(purpose, text) {
      const digest = createHmac("sha256", pseudonymKey).update(`${purpose}\0`).update(encodeUtf8(text))
        .digest();
      return encodeBase64url(digest.subarray(0, 16));
    },
    // In one piece: this is asked at every request with an API key.
    keyedHash: (purpose, text) =>
      new Uint8Array(createHmac("sha256", hashKey).update(`${purpose}\0${text}`).digest()),
    activeKey: () => activeKey().id,
    async keys() {
      // Whoever asks goes on to use them.
      await reload();
      const records = await listKeys(store);
      const active = records.findLast(({ key }) => parseRecordKey(key).kind === "seal")?.key;
      const states = records.map(async ({ key, value }): Promise<DataKeyState> => {
        const { kind, id } = parseRecordKey(key);
        return {
          id,
          kind: kind === "pseudonym" ? kind : "seal",
          state: kind === "pseudonym" || key === active ? "active" : "retired",
          createdAtMs: timeOfId(id),
          isUnderNewestMasterKey: await master.isCurrent(value),
        };
      });
      return (await Promise.all(states)).sort((one, other) => one.id < other.id ? 1 : -1);
    },
    async rotate(beforeUse) {
      await reload();
      // Also where the clock went back, or is behind the one of the instance that made the last key: the newest sorts last.
      const id = newId("key", Math.max(clock.now(), timeOfId(activeKey().id) + 1));
      const record = await wrapNew(master, recordKeyOf("seal", id));
      await beforeUse(id);
      await store.write([{ table: DATA_KEY_TABLE, ...record, expects: "nothing" }]);
      await reload();
      return id;
    },
    async rewrap(before) {
      let rewrapped = 0;
      for (let mustLookAgain = true; mustLookAgain;) {
        mustLookAgain = false;
        for (const { key, value } of await listKeys(store)) {
          if (await master.isCurrent(value)) continue;
          await before(parseRecordKey(key).id);
          const raw = await unwrap(master, { key, value });
          const after = await master.wrap(placeOf(key), raw);
          // Where another instance was quicker, it is done, or the key was retired.
          if (await store.replace(DATA_KEY_TABLE, [{ key, before: value, after }]) === 0) {
            mustLookAgain = true;
          }
          rewrapped++;
        }
      }
      return rewrapped;
    },
    async retire(id) {
      await reload();
      if (activeKey().id === id) {
        throw new Fault("internal", `Cannot retire the data key ${id}: it is in use`);
      }
      const [from, to] = [recordKeyOf("seal", id), recordKeyOf("retired", id)];
      for (let isMoved = false; !isMoved;) {
        const value = await store.get(DATA_KEY_TABLE, from);
        if (value === undefined) break;
        isMoved = await store.write([
          { table: DATA_KEY_TABLE, key: from, value: undefined, expects: value },
          { table: DATA_KEY_TABLE, key: to, value },
        ]);
      }
      await reload();
    },
    async destroy(id) {
      await reload();
      if (activeKey().id === id) {
        throw new Fault("internal", `Cannot destroy the data key ${id}: it is in use`);
      }
      await store.write((["retired", "seal"] as const).map((kind) => (
        { table: DATA_KEY_TABLE, key: recordKeyOf(kind, id), value: undefined }
      )));
      await reload();
    },
  };
}

/** What rests in the store. */
interface OpenedKeys {
  readonly mark: Uint8Array<ArrayBuffer>;
  readonly records: readonly StoredRecord[];
  /** The newest. */
  readonly pseudonymKey: Uint8Array<ArrayBuffer>;
}

async function openKeys(store: RecordStore, master: MasterKey, clock: Clock): Promise<OpenedKeys> {
  for (;;) {
    // The mark before the keys: where it stands, they stood with it.
    const mark = await store.get(MARK_TABLE, MARK_KEY);
    const records = await listKeys(store);
    const newestOf = (kind: KeyKind): StoredRecord | undefined =>
      records.findLast(({ key }) => parseRecordKey(key).kind === kind);
    const [sealKey, pseudonymKey] = [newestOf("seal"), newestOf("pseudonym")];
    if (mark !== undefined) {
      if (sealKey === undefined || pseudonymKey === undefined) throw lostKeys();
      return { mark, records, pseudonymKey: await unwrap(master, pseudonymKey) };
    }
    const newKey = async (kind: KeyKind) => ({
      table: DATA_KEY_TABLE,
      ...await wrapNew(master, recordKeyOf(kind, newId("key", clock.now()))),
    });
    // A store from before there were marks has its keys already.
    await store.write([
      {
        table: MARK_TABLE,
        key: MARK_KEY,
        value: crypto.getRandomValues(new Uint8Array(MARK_BYTES)),
        expects: "nothing",
      },
      ...sealKey === undefined ? [await newKey("seal")] : [],
      ...pseudonymKey === undefined ? [await newKey("pseudonym")] : [],
    ]);
    // Read anew, whoever has made them.
  }
}

async function listKeys(store: RecordStore): Promise<readonly StoredRecord[]> {
  return await store.list(DATA_KEY_TABLE, { limit: 10_000 });
}

async function wrapNew(master: MasterKey, key: string): Promise<StoredRecord> {
  const raw = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  return { key, value: await master.wrap(placeOf(key), raw) };
}

async function unwrap(master: MasterKey, { key, value }: StoredRecord): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await master.unwrap(placeOf(key), value);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : "unknown";
    throw new Fault(
      "unavailable",
      `Cannot open data key ${
        parseRecordKey(key).id
      }: the master key is not the one it was wrapped under, or it was altered (${why})`,
      { cause },
    );
  }
}

function recordKeyOf(kind: RecordKind, id: string): string {
  return `${kind}.${id}`;
}

function parseRecordKey(key: string): { readonly kind: RecordKind; readonly id: string } {
  const [kind, id] = key.split(".");
  if ((kind !== "seal" && kind !== "pseudonym" && kind !== "retired") || id === undefined) {
    throw new Fault("unavailable", `Cannot read data key ${key}: its kind is unknown`);
  }
  return { kind, id };
}

/** What the wrapping is bound to: a retired key is moved as it is. */
function placeOf(key: string): string {
  const { kind, id } = parseRecordKey(key);
  return `${DATA_KEY_TABLE}/${kind === "retired" ? recordKeyOf("seal", id) : key}`;
}

function lostKeys(): Fault {
  return new Fault("unavailable", "Cannot open the data keys: the store has lost them; restore it");
}
