// Replay store in the record store: what was used stays used over a restart, and for all instances that share the store.
import type { RecordStore } from "../store/record_store.ts";
import type { ReplayStore } from "./replay_store.ts";

const TABLE = "used_assertions";
/** By so much the clocks of instances may differ: what has expired by one of them may not have by another. */
const CLOCK_SKEW_MS = 5000;
/** That there is a record says everything. */
const USED = Uint8Array.of(1);

/** Opens a replay store that lasts. Each first use is durable before it is answered. */
export function openStoredReplayStore(store: RecordStore): ReplayStore {
  return {
    firstUse: (id, expiresAtMs) =>
      store.create(TABLE, id, USED, { expiresAtMs: Math.ceil(expiresAtMs) + CLOCK_SKEW_MS }),
  };
}
