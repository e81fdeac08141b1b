// Key ring: the data keys, each wrapped under the master key in the store, and what is done with them.
import { createHmac } from "node:crypto";
import { encodeBase64url } from "../encoding/base64url.ts";
import { newId } from "../encoding/ids.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import { importSealingKey, open, seal, type SealingKey, sealingKeyIdOf } from "./aead.ts";

/** What a keyed hash is for: no hash of one purpose is one of another. */
export type HashPurpose =
  | "account"
  | "address"
  | "api_key"
  | "client_secret"
  | "dpop_nonce"
  | "refresh_token";

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
}

/** A record by which one store is told from every other. Nobody ever changes it. */
export interface StoreMark {
  readonly table: string;
  readonly key: string;
  readonly value: Uint8Array<ArrayBuffer>;
}

const TABLE = "data_keys";
const MARK_TABLE = "installation";
const MARK_KEY = "id";
const MARK_BYTES = 16;
const MASTER_KEY_ID = "master";
const KEY_BYTES = 32;
/** Record keys are `KIND.ID`: the newest of a kind sorts last. */
type KeyKind = "seal" | "pseudonym";

/**
 * Opens the ring, making its first keys in an empty store. Of instances that do so at the same moment one makes them, and the others
 * have the same.
 *
 * @throws Fault `unavailable` when the master key does not open the stored keys: it is not the one they were made under · when
 * the store has lost keys
 */
export async function openKeyRing(
  store: RecordStore,
  masterKey: Uint8Array<ArrayBuffer>,
  clock: Clock,
): Promise<KeyRing> {
  const master = await importSealingKey(MASTER_KEY_ID, masterKey);
  const { mark, stored, active, pseudonymKey } = await openKeys(store, master, clock);
  // A key of its own. No pseudonym can be this key: what those are made of holds a NUL.
  const hashKey = createHmac("sha256", pseudonymKey.raw).update("keyed_hash").digest();

  const sealingKeys = new Map<string, SealingKey>();
  async function addSealingKeys(keys: readonly DataKey[]): Promise<void> {
    for (const { kind, id, raw } of keys) {
      if (kind === "seal" && !sealingKeys.has(id)) sealingKeys.set(id, await importSealingKey(id, raw));
    }
  }
  await addSealingKeys(stored);
  const activeKey = await importSealingKey(active.id, active.raw);

  async function sealingKey(id: string): Promise<SealingKey> {
    // A key is in the store before anything that it sealed.
    if (!sealingKeys.has(id)) await addSealingKeys(await readKeys(store, master));
    const key = sealingKeys.get(id);
    if (key === undefined) {
      throw new Fault("unavailable", `Cannot open a sealed value: there is no data key ${id}`);
    }
    return key;
  }

  return {
    mark: { table: MARK_TABLE, key: MARK_KEY, value: mark },
    seal: (place, plain) => seal(activeKey, place, plain),
    async open(place, sealed) {
      const id = sealingKeyIdOf(sealed);
      return await open(sealingKeys.get(id) ?? await sealingKey(id), place, sealed);
    },
    pseudonym(purpose, text) {
      const digest = createHmac("sha256", pseudonymKey.raw).update(`${purpose}\0`).update(encodeUtf8(text))
        .digest();
      return encodeBase64url(digest.subarray(0, 16));
    },
    // In one piece: this is asked at every request with an API key.
    keyedHash: (purpose, text) =>
      new Uint8Array(createHmac("sha256", hashKey).update(`${purpose}\0${text}`).digest()),
  };
}

interface DataKey {
  readonly kind: KeyKind;
  readonly id: string;
  readonly raw: Uint8Array<ArrayBuffer>;
}

/** What rests in the store. */
interface StoredKeys {
  readonly mark: Uint8Array<ArrayBuffer>;
  readonly stored: readonly DataKey[];
  /** The newest of each kind. */
  readonly active: DataKey;
  readonly pseudonymKey: DataKey;
}

async function openKeys(store: RecordStore, master: SealingKey, clock: Clock): Promise<StoredKeys> {
  for (;;) {
    // The mark before the keys: where it stands, they stood with it.
    const mark = await store.get(MARK_TABLE, MARK_KEY);
    const stored = await readKeys(store, master);
    const active = stored.findLast(({ kind }) => kind === "seal");
    const pseudonymKey = stored.findLast(({ kind }) => kind === "pseudonym");
    if (mark !== undefined) {
      if (active !== undefined && pseudonymKey !== undefined) return { mark, stored, active, pseudonymKey };
      throw new Fault("unavailable", "Cannot open the data keys: the store has lost them; restore it");
    }
    // A store from before there were marks has its keys already.
    await store.write([
      {
        table: MARK_TABLE,
        key: MARK_KEY,
        value: crypto.getRandomValues(new Uint8Array(MARK_BYTES)),
        expects: "nothing",
      },
      ...active === undefined ? [await newKey(master, "seal", clock)] : [],
      ...pseudonymKey === undefined ? [await newKey(master, "pseudonym", clock)] : [],
    ]);
    // Read anew, whoever has made them.
  }
}

async function readKeys(store: RecordStore, master: SealingKey): Promise<DataKey[]> {
  const keys: DataKey[] = [];
  for (const { key, value } of await store.list(TABLE, { limit: 10_000 })) {
    const [kind, id] = key.split(".");
    if ((kind !== "seal" && kind !== "pseudonym") || id === undefined) {
      throw new Fault("unavailable", `Cannot read data key ${key}: its kind is unknown`);
    }
    const raw = await open(master, placeOf(key), value).catch((cause) => {
      throw new Fault(
        "unavailable",
        `Cannot open data key ${id}: the master key is not the one it was wrapped under, or it was altered`,
        { cause },
      );
    });
    keys.push({ kind, id, raw });
  }
  return keys;
}

async function newKey(master: SealingKey, kind: KeyKind, clock: Clock): Promise<RecordChange> {
  const key = `${kind}.${newId("key", clock.now())}`;
  const raw = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  return { table: TABLE, key, value: await seal(master, placeOf(key), raw) };
}

function placeOf(key: string): string {
  return `${TABLE}/${key}`;
}
