// Resealed store: the record store as rooms see it, while a rotation puts their values under another data key behind their backs.
import { constantTimeEqual } from "../encoding/constant_time_equal.ts";
import { Fault } from "../faults/fault.ts";
import type { RecordChange, RecordPlace, RecordStore } from "../store/record_store.ts";
import { dataKeyPlaceOf, type KeyRing } from "./key_ring.ts";
import { isSameVersion, placeOf } from "./sealed_store.ts";

/**
 * The same store, with two differences. A write that expects a version finds it also where it was resealed since it was read, however long
 * ago. And nothing is written that a retired or destroyed key sealed: its values are sealed again under the active key, and where they do
 * not open any more, the write is a Fault `unavailable`, and nothing of it is made.
 *
 * @param keyRing has sealed what is written
 */
export function openResealedStore(store: RecordStore, keyRing: Pick<KeyRing, "sealAgain">): RecordStore {
  async function write(
    changes: readonly RecordChange[],
    standing: readonly RecordPlace[] = [],
  ): Promise<boolean> {
    for (let wanted = changes;;) {
      const keys = keysOf(wanted);
      if (await store.write(wanted, [...standing, ...keys])) return true;
      const next = await asResealed(wanted) ?? await underStandingKeys(wanted, keys);
      if (next === undefined) return false;
      // Another look: this comes to an end, for each round needs another rotation in between.
      wanted = next;
    }
  }

  /** The changes with what they expect as it rests now; undefined where nothing of it was resealed. */
  async function asResealed(changes: readonly RecordChange[]): Promise<readonly RecordChange[] | undefined> {
    let isResealed = false;
    const found = await Promise.all(changes.map(async (change): Promise<RecordChange> => {
      const { table, key, value, expects } = change;
      if (expects === undefined || expects === "nothing") return change;
      const rests = await store.get(table, key);
      if (rests === undefined || constantTimeEqual(rests, expects) || !isSameVersion(rests, expects)) {
        return change;
      }
      isResealed = true;
      // What is to stay as it was read stays as it rests.
      return { ...change, expects: rests, value: isEqual(value, expects) ? rests : value };
    }));
    return isResealed ? found : undefined;
  }

  /** The changes with values that may be written; undefined where all of them may. */
  async function underStandingKeys(
    changes: readonly RecordChange[],
    keys: readonly RecordPlace[],
  ): Promise<readonly RecordChange[] | undefined> {
    const gone = new Set<string>();
    for (const { table, key } of keys) if (await store.get(table, key) === undefined) gone.add(key);
    if (gone.size === 0) return undefined;
    return await Promise.all(changes.map(async (change): Promise<RecordChange> => {
      const { table, key, value } = change;
      const place = newKeyOf(change);
      return value === undefined || place === undefined || !gone.has(place.key)
        ? change
        : { ...change, value: await sealAgain(placeOf(table, key), value) };
    }));
  }

  async function sealAgain(place: string, value: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const again = await keyRing.sealAgain(place, value);
    if (again !== value) return again;
    throw new Fault("unavailable", "Cannot write a sealed value: its key was destroyed meanwhile");
  }

  return {
    ...store,
    put: async (table, key, value, lifetime) =>
      void await write([{ table, key, value, ...(lifetime && { lifetime }) }]),
    create: (table, key, value, lifetime) =>
      write([{ table, key, value, expects: "nothing", ...(lifetime && { lifetime }) }]),
    write,
  };
}

/** The keys under which something new is to rest, each once. */
function keysOf(changes: readonly RecordChange[]): readonly RecordPlace[] {
  const keys = new Map<string, RecordPlace>();
  for (const change of changes) {
    const place = newKeyOf(change);
    if (place !== undefined) keys.set(place.key, place);
  }
  return [...keys.values()];
}

/** The key of a value that is not there already. */
function newKeyOf({ value, expects }: RecordChange): RecordPlace | undefined {
  return value === undefined || isEqual(value, expects) ? undefined : dataKeyPlaceOf(value);
}

function isEqual(value: Uint8Array | undefined, expects: RecordChange["expects"]): boolean {
  return value !== undefined && expects !== undefined && expects !== "nothing" &&
    constantTimeEqual(value, expects);
}
