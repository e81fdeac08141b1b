// Watched store: a record store that remembers what was ever written, and lets a test step in before a write.
import { Fault } from "../../src/faults/fault.ts";
import type { RecordChange, RecordPlace, RecordStore } from "../../src/store/record_store.ts";

/** A store under watch. */
export interface WatchedStore extends RecordStore {
  /** Tables, keys and values of everything that was ever written, bytes as Latin-1. */
  everWritten(): string;
  /** Runs before the next write reaches the store, once; may throw instead of it. */
  beforeNextWrite(run: () => Promise<void>): void;
  /** From now on so many writes work, and then none does: the store, or the process, has died. */
  dieAfter(writes: number): void;
}

/** Puts a store under watch. */
export function watchStore(store: RecordStore): WatchedStore {
  const written: string[] = [];
  const steps: (() => Promise<void>)[] = [];
  let writesLeft = Infinity;

  async function write(
    changes: readonly RecordChange[],
    standing?: readonly RecordPlace[],
  ): Promise<boolean> {
    await steps.shift()?.();
    if (writesLeft-- <= 0) throw new Fault("unavailable", "Cannot write the record store: it died");
    for (const { table, key, value } of changes) {
      written.push(`${table} ${key} ${new TextDecoder("latin1").decode(value)}`);
    }
    return await store.write(changes, standing);
  }

  return {
    ...store,
    put: async (table, key, value, lifetime) =>
      void await write([{ table, key, value, ...(lifetime && { lifetime }) }]),
    create: async (table, key, value, lifetime) =>
      await write([{ table, key, value, expects: "nothing", ...(lifetime && { lifetime }) }]),
    write,
    delete: async (table, key) => {
      await write([]);
      return await store.delete(table, key);
    },
    everWritten: () => written.join("\n"),
    beforeNextWrite: (run) => void steps.push(run),
    dieAfter: (writes) => void (writesLeft = writes),
  };
}
