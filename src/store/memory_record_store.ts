// The record store in memory: for tests, and the model of what the others must do.
import type { Clock } from "../time/clock.ts";
import type { RecordLifetime, RecordStore } from "./record_store.ts";

/** Opens an empty store. */
export function openMemoryRecordStore(clock: Clock): RecordStore {
  const tables = new Map<string, Map<string, { value: Uint8Array<ArrayBuffer>; expiresAtMs: number }>>();

  function live(table: string): Map<string, { value: Uint8Array<ArrayBuffer>; expiresAtMs: number }> {
    let records = tables.get(table);
    if (records === undefined) tables.set(table, records = new Map());
    for (const [key, record] of records) if (record.expiresAtMs <= clock.now()) records.delete(key);
    return records;
  }

  const put = (
    table: string,
    key: string,
    value: Uint8Array<ArrayBuffer>,
    lifetime?: RecordLifetime,
  ): void => {
    live(table).set(key, { value: value.slice(), expiresAtMs: lifetime?.expiresAtMs ?? Infinity });
  };

  return {
    get: (table, key) => Promise.resolve(live(table).get(key)?.value.slice()),
    put: (table, key, value, lifetime) => Promise.resolve(put(table, key, value, lifetime)),
    create(table, key, value, lifetime) {
      if (live(table).has(key)) return Promise.resolve(false);
      put(table, key, value, lifetime);
      return Promise.resolve(true);
    },
    delete: (table, key) => Promise.resolve(live(table).delete(key)),
    list(table, { after, limit }) {
      const keys = [...live(table).keys()].filter((key) => after === undefined || byCodePoint(key, after) > 0)
        .sort(byCodePoint);
      return Promise.resolve(
        keys.slice(0, limit).map((key) => ({
          key,
          value: live(table).get(key)?.value.slice() ?? new Uint8Array(),
        })),
      );
    },
    close: () => Promise.resolve(),
  };
}

/** SQLite compares UTF-8 bytes, which is the order of code points; `<` compares UTF-16 units, which is not. */
function byCodePoint(left: string, right: string): number {
  const [one, two] = [Array.from(left), Array.from(right)];
  for (let index = 0; index < Math.min(one.length, two.length); index++) {
    const difference = (one[index]?.codePointAt(0) ?? 0) - (two[index]?.codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
  return one.length - two.length;
}
