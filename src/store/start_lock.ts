// Start lock: of instances that start at the same moment on one store, one makes what is made once.
import { constantTimeEqual } from "../encoding/constant_time_equal.ts";
import { newId } from "../encoding/ids.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import type { Clock } from "../time/clock.ts";
import type { RecordStore } from "./record_store.ts";

const TABLE = "start_lock";
const KEY = "start";
/** Whoever died with it keeps the next one waiting for so long. */
const HELD_MS_MAX = 60_000;
const POLL_MS = 50;

/**
 * Does something while no other instance does. Whom another has seen holding the lock for a minute loses it: it has to be done
 * sooner. That minute is of the waiting instance's own monotonic clock, so it does not matter whose clock is wrong.
 *
 * @throws Fault `unavailable` when the store fails
 */
export async function withStartLock<Value>(
  store: RecordStore,
  clock: Clock,
  act: () => Promise<Value>,
): Promise<Value> {
  const ours = encodeUtf8(newId("ins", clock.now()));
  await take(store, clock, ours);
  try {
    return await act();
  } finally {
    // Only where it is still ours. Where the store fails, what was done is done, and the next one waits for a minute.
    await store.write([{ table: TABLE, key: KEY, value: undefined, expects: ours }]).catch(() => false);
  }
}

async function take(store: RecordStore, clock: Clock, ours: Uint8Array<ArrayBuffer>): Promise<void> {
  let holder: Uint8Array<ArrayBuffer> | undefined;
  let sinceMs = clock.monotonic();
  while (!await store.create(TABLE, KEY, ours)) {
    const found = await store.get(TABLE, KEY);
    if (found === undefined) continue;
    if (holder === undefined || !constantTimeEqual(found, holder)) {
      holder = found;
      sinceMs = clock.monotonic();
    } else if (clock.monotonic() - sinceMs >= HELD_MS_MAX) {
      if (await store.write([{ table: TABLE, key: KEY, value: ours, expects: holder }])) return;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
