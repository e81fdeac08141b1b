// The record store in memory: for tests, and the model of what the others must do.
import { constantTimeEqual } from "../encoding/constant_time_equal.ts";
import type { Clock } from "../time/clock.ts";
import { findsWhatItExpects, type RecordChange, type RecordPlace, type RecordStore } from "./record_store.ts";

interface MemoryRecord {
  readonly value: Uint8Array<ArrayBuffer>;
  readonly expiresAtMs: number;
}

/** Opens an empty store. */
export function openMemoryRecordStore(clock: Clock): RecordStore {
  const tables = new Map<string, Map<string, MemoryRecord>>();

  function live(table: string): Map<string, MemoryRecord> {
    let records = tables.get(table);
    if (records === undefined) tables.set(table, records = new Map());
    for (const [key, record] of records) if (record.expiresAtMs <= clock.now()) records.delete(key);
    return records;
  }

  function write(changes: readonly RecordChange[], standing: readonly RecordPlace[] = []): boolean {
    const made = standing.every(({ table, key }) => live(table).has(key)) &&
      changes.every((change) => findsWhatItExpects(change, live(change.table).get(change.key)?.value));
    if (!made) return false;
    for (const { table, key, value, lifetime } of changes) {
      if (value === undefined) live(table).delete(key);
      else live(table).set(key, { value: value.slice(), expiresAtMs: lifetime?.expiresAtMs ?? Infinity });
    }
    return true;
  }

  return {
    get: (table, key) => Promise.resolve(live(table).get(key)?.value.slice()),
    put: (table, key, value, lifetime) =>
      Promise.resolve(void write([{ table, key, value, ...(lifetime && { lifetime }) }])),
    create: (table, key, value, lifetime) =>
      Promise.resolve(write([{ table, key, value, expects: "nothing", ...(lifetime && { lifetime }) }])),
    write: (changes, standing) => Promise.resolve(write(changes, standing)),
    replace(table, replacements) {
      let replaced = 0;
      for (const { key, before, after } of replacements) {
        const record = live(table).get(key);
        if (record === undefined || !constantTimeEqual(record.value, before)) continue;
        live(table).set(key, { ...record, value: after.slice() });
        replaced++;
      }
      return Promise.resolve(replaced);
    },
    delete: (table, key) => Promise.resolve(live(table).delete(key)),
    list: (table, { after, limit }) =>
      Promise.resolve(
        [...live(table)]
          .filter(([key]) => after === undefined || byCodePoint(key, after) > 0)
          .sort(([left], [right]) => byCodePoint(left, right))
          .slice(0, limit)
          .map(([key, { value }]) => ({ key, value: value.slice() })),
      ),
    tables: () => Promise.resolve([...tables.keys()].filter((table) => live(table).size > 0)),
    scrub: () => Promise.resolve(),
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
