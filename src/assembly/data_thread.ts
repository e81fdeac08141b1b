// Data thread: the embedded store of records and that of limits, each call of theirs in one worker.
import { limitsFile, storeFile } from "../config/environment.ts";
import type { Fault } from "../faults/fault.ts";
import type { SumStore } from "../limits/embedded_limit_store.ts";
import { type SumPages, sumsByPages } from "../limits/sum_pages.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import { openOwnChangeFeed } from "../store/own_change_feed.ts";
import type { RecordPlace, RecordStore } from "../store/record_store.ts";
import { type CalledMethod, openThreadCaller } from "../store/thread_calls.ts";
import type { Clock } from "../time/clock.ts";
import { makePrivateFile } from "../vault/private_file.ts";
import type { DataFiles } from "./data_worker.ts";

/** Both stores of a data folder. */
export interface DataThread {
  readonly records: RecordStore;
  /** Tells of writes whose answers were lost. */
  readonly feed: ChangeFeed;
  readonly limits: SumStore;
  /** Closes both, and the worker. */
  close(): Promise<void>;
}

/**
 * Starts the thread; the files are opened, and made where they are missing, with the first call.
 *
 * @param timeoutMs of a call: a disk that hangs longer is answered for with Fault `unavailable`
 * @param onFault told of the first failure, and of one a minute, to tell followers of a write whose answer was lost
 */
export function openDataThread(
  dataDir: string,
  timeoutMs: number,
  clock: Clock,
  onFault: (fault: Fault) => void,
): DataThread {
  const files: DataFiles = { records: storeFile(dataDir), limits: limitsFile(dataDir) };
  for (const file of Object.values(files)) makePrivateFile(file);
  const feed = openOwnChangeFeed(clock, onFault);
  const caller = openThreadCaller({
    name: "the store in the data folder",
    timeoutMs,
    clock,
    start() {
      const worker = new Worker(new URL("./data_worker.ts", import.meta.url), {
        type: "module",
        name: "data",
        // What SQLite makes beside them it does not ask for.
        deno: { permissions: { read: Object.values(files), write: Object.values(files) } },
      });
      worker.postMessage(files);
      return worker;
    },
    onUnanswered: (called) => feed.doubt(changedBy(called)),
  });
  const methodsOf = (target: string, names: readonly string[]) => ({
    ...Object.fromEntries(
      names.map((name) => [name, (...parameters: unknown[]) => caller.call(target, name, parameters)]),
    ),
    // One of them does not take the file away from the other.
    close: () => Promise.resolve(),
  });
  const sums = methodsOf("limits", LIMIT_METHODS) as unknown as SumPages;
  return {
    records: methodsOf("records", RECORD_METHODS) as unknown as RecordStore,
    feed,
    limits: {
      ...sums as SumPages & Omit<SumStore, "sums">,
      // Each page is a call: what others call meanwhile is not behind a whole book.
      sums: (book, keys) => sumsByPages(sums, () => {}, book, keys),
    },
    async close() {
      await feed.close();
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
const LIMIT_METHODS: readonly (keyof SumStore | keyof SumPages)[] = ["take", "settle", "sumsFrom", "sumsOf"];

/** The records that a call may change. What `replace` puts in the place of other bytes means the same. */
function changedBy({ target, method, parameters }: CalledMethod): readonly RecordPlace[] {
  if (target !== "records") return [];
  if (method === "write") return parameters[0] as Parameters<RecordStore["write"]>[0];
  if (!["put", "create", "delete"].includes(method)) return [];
  const [table, key] = parameters as Parameters<RecordStore["delete"]>;
  return [{ table, key }];
}
