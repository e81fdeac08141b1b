// Start lock: of instances that start at the same moment on one store, one makes what is made once.
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import { newId } from "../encoding/ids.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import type { RecordStore } from "./record_store.ts";

const TABLE = "start_lock";
const KEY = "start";
/** Whoever died with it keeps the others waiting for so long. */
const HELD_MS_MAX = 60_000;
const POLL_MS = 50;

/**
 * Does something while no other instance does. After a minute the lock is free whether or not it is done: it has to be done sooner.
 *
 * @throws Fault `unavailable` when the store fails, or when another instance holds the lock for a minute
 */
export async function withStartLock<Value>(
  store: RecordStore,
  clock: Clock,
  act: () => Promise<Value>,
): Promise<Value> {
  const ours = encodeUtf8(newId("ins", clock.now()));
  const untilMs = clock.monotonic() + HELD_MS_MAX;
  while (!await store.create(TABLE, KEY, ours, { expiresAtMs: clock.now() + HELD_MS_MAX })) {
    if (clock.monotonic() >= untilMs) {
      throw new Fault("unavailable", "Cannot start: another instance has been starting for a minute");
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  try {
    return await act();
  } finally {
    // Only where it is still ours. Where the store fails, what was done is done, and the lock becomes free by itself.
    await store.write([{ table: TABLE, key: KEY, value: undefined, expects: ours }]).catch(() => false);
  }
}
