// Sealed store: one table of JSON records, each sealed with its table and key bound to it.
import { canonicalJson, type JsonValue } from "../encoding/canonical_json.ts";
import { constantTimeEqual } from "../encoding/constant_time_equal.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import type { RecordChange, RecordLifetime, RecordStore } from "../store/record_store.ts";
import { revisionOf } from "./aead.ts";
import type { KeyRing } from "./key_ring.ts";

/** A record as it stood when it was read. */
export interface SealedRecord {
  readonly key: string;
  readonly value: JsonValue;
  /**
   * The bytes at rest. Each sealing has a nonce of its own: they name this version, and `changeOf` can expect them. Whether two are of
   * one version, `isSameVersion` tells: the same one may meanwhile rest under another data key.
   */
  readonly version: Uint8Array<ArrayBuffer>;
}

/** A table whose values rest sealed. Keys rest as they are: pass a pseudonym where the name itself is personal. */
export interface SealedTable {
  get(key: string): Promise<JsonValue | undefined>;
  /** The record with its version. */
  read(key: string): Promise<SealedRecord | undefined>;
  /** Records in the order of their keys, after a key, at most `limit`. */
  list(page: { readonly after?: string; readonly limit: number }): Promise<readonly SealedRecord[]>;
  /** Writes a record unless it exists; whether it was written. */
  create(key: string, value: JsonValue, lifetime?: RecordLifetime): Promise<boolean>;
  put(key: string, value: JsonValue, lifetime?: RecordLifetime): Promise<void>;
  /**
   * A change for `RecordStore.write`, so that records of several tables change together or not at all.
   *
   * @param value undefined deletes
   */
  changeOf(
    key: string,
    value: JsonValue | undefined,
    options?: { readonly expects?: RecordChange["expects"]; readonly lifetime?: RecordLifetime },
  ): Promise<RecordChange>;
  /** Whether the table has no record. */
  isEmpty(): Promise<boolean>;
}

/**
 * Where a sealed value rests, for the seal to be bound to it.
 *
 * @param field of a record that holds several sealed values: which of them
 */
export function placeOf(table: string, key: string, field?: string): string {
  // No key holds a NUL: a field is never a part of one.
  return field === undefined ? `${table}/${key}` : `${table}/${key}\0#${field}`;
}

/** Whether two versions of a record are one and the same, whatever keys they were sealed under. */
export function isSameVersion(one: Uint8Array<ArrayBuffer>, other: Uint8Array<ArrayBuffer>): boolean {
  return constantTimeEqual(one, other) || constantTimeEqual(revisionOf(one), revisionOf(other));
}

const PAGE = 1000;

/** Every record of a table, in the order of their keys. */
export async function* everyRecord(table: SealedTable): AsyncGenerator<SealedRecord> {
  let after: string | undefined;
  for (;;) {
    const page = await table.list(after === undefined ? { limit: PAGE } : { after, limit: PAGE });
    yield* page;
    after = page.at(-1)?.key;
    if (page.length < PAGE) return;
  }
}

const DEPTH_MAX = 16;

/** Puts a seal around one table of a store. Throws Fault `unavailable` where a record was altered or moved. */
export function sealedTable(
  store: RecordStore,
  keyRing: Pick<KeyRing, "seal" | "open">,
  table: string,
): SealedTable {
  const place = (key: string): string => placeOf(table, key);
  const sealed = (key: string, value: JsonValue): Promise<Uint8Array<ArrayBuffer>> =>
    keyRing.seal(place(key), encodeUtf8(canonicalJson(value)));
  async function opened(key: string, bytes: Uint8Array<ArrayBuffer>): Promise<JsonValue> {
    const text = decodeUtf8(await keyRing.open(place(key), bytes));
    const parsed = text.ok ? parseStrictJson(text.value, DEPTH_MAX) : text;
    if (!parsed.ok) throw new Fault("unavailable", `Cannot read a record of ${table}: ${parsed.reason}`);
    return parsed.value;
  }
  async function read(key: string): Promise<SealedRecord | undefined> {
    const version = await store.get(table, key);
    return version === undefined ? undefined : { key, value: await opened(key, version), version };
  }
  return {
    get: async (key) => (await read(key))?.value,
    read,
    async list(page) {
      const records = await store.list(table, page);
      return await Promise.all(
        records.map(async ({ key, value }) => ({ key, value: await opened(key, value), version: value })),
      );
    },
    create: async (key, value, lifetime) =>
      await store.create(table, key, await sealed(key, value), lifetime),
    put: async (key, value, lifetime) => await store.put(table, key, await sealed(key, value), lifetime),
    changeOf: async (key, value, { expects, lifetime } = {}) => ({
      table,
      key,
      value: value === undefined ? undefined : await sealed(key, value),
      ...(expects === undefined ? {} : { expects }),
      ...(lifetime === undefined ? {} : { lifetime }),
    }),
    isEmpty: async () => (await store.list(table, { limit: 1 })).length === 0,
  };
}
