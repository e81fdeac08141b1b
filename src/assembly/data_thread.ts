// Data thread: the embedded store of records and that of limits, each call of theirs in one worker.
import { limitsFile, storeFile } from "../config/environment.ts";
import type { SumStore } from "../limits/embedded_limit_store.ts";
import type { RecordStore } from "../store/record_store.ts";
import { openThreadCaller } from "../store/thread_calls.ts";
import type { Clock } from "../time/clock.ts";
import { makePrivateFile } from "../vault/private_file.ts";
import type { DataFiles } from "./data_worker.ts";

/** Both stores of a data folder. */
export interface DataThread {
  readonly records: RecordStore;
  readonly limits: SumStore;
  /** Closes both, and the worker. */
  close(): Promise<void>;
}

/**
 * Starts the thread; the files are opened, and made where they are missing, with the first call.
 *
 * @param timeoutMs of a call: a disk that hangs longer is answered for with Fault `unavailable`
 */
export function openDataThread(dataDir: string, timeoutMs: number, clock: Clock): DataThread {
  const files: DataFiles = { records: storeFile(dataDir), limits: limitsFile(dataDir) };
  for (const file of Object.values(files)) makePrivateFile(file);
  const caller = openThreadCaller({
    name: "the store in the data folder",
    timeoutMs,
    clock,
    start() {
      // SQLite makes files beside its own, and reads the folder they lie in.
      const worker = new Worker(new URL("./data_worker.ts", import.meta.url), {
        type: "module",
        name: "data",
        deno: { permissions: { read: [dataDir], write: [dataDir] } },
      });
      worker.postMessage(files);
      return worker;
    },
  });
  const methodsOf = (target: string, names: readonly string[]) => ({
    ...Object.fromEntries(
      names.map((name) => [name, (...parameters: unknown[]) => caller.call(target, name, parameters)]),
    ),
    // One of them does not take the file away from the other.
    close: () => Promise.resolve(),
  });
  return {
    records: methodsOf("records", RECORD_METHODS) as unknown as RecordStore,
    limits: methodsOf("limits", LIMIT_METHODS) as unknown as SumStore,
    async close() {
      // Best effort: what is not closed is as after a kill, and loses nothing.
      await Promise.allSettled([caller.call("records", "close", []), caller.call("limits", "close", [])]);
      await caller.close();
    },
  };
}

const RECORD_METHODS: readonly (keyof RecordStore)[] = [
  "get",
  "put",
  "create",
  "write",
  "replace",
  "delete",
  "list",
  "tables",
  "scrub",
];
const LIMIT_METHODS: readonly (keyof SumStore)[] = ["take", "settle", "sums"];
