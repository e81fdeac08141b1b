// Sealed store: one table of JSON records, each sealed with its table and key bound to it.
import { canonicalJson, type JsonValue } from "../encoding/canonical_json.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import type { RecordLifetime, RecordStore } from "../store/record_store.ts";
import type { KeyRing } from "./key_ring.ts";

/** A table whose values rest sealed. Keys rest as they are: pass a pseudonym where the name itself is personal. */
export interface SealedTable {
  get(key: string): Promise<JsonValue | undefined>;
  /** Writes a record unless it exists; whether it was written. */
  create(key: string, value: JsonValue, lifetime?: RecordLifetime): Promise<boolean>;
  put(key: string, value: JsonValue, lifetime?: RecordLifetime): Promise<void>;
  /** Whether the table has no record. */
  isEmpty(): Promise<boolean>;
}

const DEPTH_MAX = 16;

/** Puts a seal around one table of a store. Throws Fault `unavailable` where a record was altered or moved. */
export function sealedTable(store: RecordStore, keyRing: KeyRing, table: string): SealedTable {
  const place = (key: string): string => `${table}/${key}`;
  const sealed = (key: string, value: JsonValue): Promise<Uint8Array<ArrayBuffer>> =>
    keyRing.seal(place(key), encodeUtf8(canonicalJson(value)));
  return {
    async get(key) {
      const value = await store.get(table, key);
      if (value === undefined) return undefined;
      const text = decodeUtf8(await keyRing.open(place(key), value));
      const parsed = text.ok ? parseStrictJson(text.value, DEPTH_MAX) : text;
      if (!parsed.ok) throw new Fault("unavailable", `Cannot read a record of ${table}: ${parsed.reason}`);
      return parsed.value;
    },
    create: async (key, value, lifetime) =>
      await store.create(table, key, await sealed(key, value), lifetime),
    put: async (key, value, lifetime) => await store.put(table, key, await sealed(key, value), lifetime),
    isEmpty: async () => (await store.list(table, { limit: 1 })).length === 0,
  };
}
