// Model table: a sealed table of the registry, of which each record is read for itself: one that does not open is the end of one model,
// and is told from a store that fails.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { decodeUtf8 } from "../encoding/utf8.ts";
import type { RecordStore } from "../store/record_store.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import { placeOf, type SealedTable, sealedTable } from "../vault/sealed_store.ts";

/** A record that was altered or moved, whose key is gone, or that says nothing of a known form. */
export type RecordBroken = "record_broken";

/** A record as it stood when it was read. */
export interface ModelRecord {
  /** undefined: it does not open. */
  readonly value: JsonValue | undefined;
  /** The bytes at rest, for a change that expects them. */
  readonly version: Uint8Array<ArrayBuffer>;
}

/** The table. Every method throws Fault `unavailable` when the store or the master key fails. */
export interface ModelTable extends Pick<SealedTable, "put" | "changeOf"> {
  /** undefined: there is none. */
  read(key: string): Promise<ModelRecord | undefined>;
  /** Keys that begin with a text and are longer, in their order; whether their records open does not matter. */
  keys(prefix: string): Promise<readonly string[]>;
}

const PAGE = 1000;
const DEPTH_MAX = 16;

/** Opens a table. */
export function modelTable(store: RecordStore, keyRing: KeyRing, table: string): ModelTable {
  const { put, changeOf } = sealedTable(store, keyRing, table);

  async function opened(key: string, version: Uint8Array<ArrayBuffer>): Promise<JsonValue | undefined> {
    const text = decodeUtf8(await keyRing.open(placeOf(table, key), version));
    const parsed = text.ok ? parseStrictJson(text.value, DEPTH_MAX) : text;
    return parsed.ok ? parsed.value : undefined;
  }

  return {
    put,
    changeOf,
    async read(key) {
      for (let isLastTry = false;; isLastTry = true) {
        const version = await store.get(table, key);
        if (version === undefined) return undefined;
        try {
          return { value: await opened(key, version), version };
        } catch {
          if (isLastTry) return { value: undefined, version };
          // Throws where it is the store or the master key that fails. Otherwise a rotation may have been at work: once more.
          await keyRing.keys();
        }
      }
    },
    async keys(prefix) {
      const keys: string[] = [];
      for (let after = prefix;;) {
        const page = await store.list(table, after === "" ? { limit: PAGE } : { after, limit: PAGE });
        for (const { key } of page) {
          if (!key.startsWith(prefix)) return keys;
          keys.push(after = key);
        }
        if (page.length < PAGE) return keys;
      }
    },
  };
}
