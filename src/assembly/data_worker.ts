// Data worker: has the files of the embedded store open, so that a disk that hangs holds up this thread and not the server's.
/// <reference no-default-lib="true" />
/// <reference lib="deno.worker" />
import { openSqliteLimitStore } from "../limits/sqlite_limit_store.ts";
import { openSqliteRecordStore } from "../store/sqlite_record_store.ts";
import {
  type ThreadCall,
  type ThreadMarks,
  threadServer,
  type ThreadTargets,
} from "../store/thread_calls.ts";

/** The files: the worker's first message. */
export interface DataFiles {
  readonly records: string;
  readonly limits: string;
}

let files: DataFiles | undefined;

const serve = threadServer(
  (clock) => {
    if (files === undefined) throw new Error("Cannot open the store's files: nobody named them");
    const records = openSqliteRecordStore(files.records, clock);
    try {
      const limits = openSqliteLimitStore(files.limits, clock);
      return { records: { ...records }, limits: { ...limits } } as ThreadTargets;
    } catch (thrown) {
      // The next call opens both.
      records.close().catch(() => {});
      throw thrown;
    }
  },
  (reply) => self.postMessage(reply),
);

self.onmessage = ({ data }: MessageEvent<DataFiles | ThreadMarks | ThreadCall>) => {
  if ("records" in data) files = data;
  else serve(data);
};
