// Last uses: when something was used, noted at once and written in the background, so that no request waits for it or fails with it.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { Fault } from "../faults/fault.ts";
import type { RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import type { SealedTable } from "../vault/sealed_store.ts";

/** When the things of one table were last used. Whoever opens it makes and deletes the records; here they change. */
export interface LastUses {
  /**
   * It is used now. Synchronous, and never throws.
   *
   * @param key of its record
   * @param expiresAtMs the lifetime of its record
   */
  note(key: string, expiresAtMs: number): void;
  /** Milliseconds since 1970; null for never. What another instance noted it knows to the minute, its own to the millisecond. */
  read(key: string): Promise<number | null>;
  /**
   * Writes what is not written yet, for about a second.
   *
   * @throws Fault `unavailable` when the store fails, or is too slow to take all; nothing is forgotten then
   */
  flush(): Promise<void>;
}

/** The record of something that was never used. */
export const NEVER_USED: JsonValue = { lastUsedAtMs: null };

/** Between two writes of one record. */
const WRITE_EVERY_MS = 60_000;
/** Records that are written at the same time. */
const BATCH = 100;
/** After so long a flush begins no further batch: who closes has more to do. */
const FLUSH_MS_MAX = 1000;

interface Use {
  atMs: number;
  writtenAtMs: number | null;
  /** By the monotonic clock. */
  nextWriteMs: number;
  expiresAtMs: number;
}

/** @param usesMax of so many things the last use is in memory */
export function openLastUses(options: {
  readonly store: RecordStore;
  readonly table: SealedTable;
  readonly clock: Clock;
  readonly usesMax: number;
}): LastUses {
  const { store, table, clock, usesMax } = options;
  const uses = new Map<string, Use>();
  const pending = new Set<string>();
  let writing: Promise<void> | undefined;
  let isFlushing = false;

  async function write(key: string, use: Use): Promise<void> {
    const { atMs, expiresAtMs } = use;
    if (atMs === use.writtenAtMs) return;
    const record = await table.read(key);
    if (record === undefined) {
      uses.delete(key);
      return;
    }
    const change = await table.changeOf(key, { lastUsedAtMs: atMs }, {
      expects: record.version,
      lifetime: { expiresAtMs },
    });
    // Where it is refused, the record was deleted meanwhile or another process noted a use: nothing is owed.
    await store.write([change]);
    use.writtenAtMs = atMs;
  }

  /** Ends when all of them have, be it badly: nothing goes on behind whoever closes the store. */
  async function writeBatch(keys: readonly string[]): Promise<void> {
    const outcomes = await Promise.allSettled(keys.map(async (key) => {
      const use = uses.get(key);
      if (use !== undefined) await write(key, use);
      pending.delete(key);
    }));
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  }

  async function writePending(): Promise<void> {
    try {
      // A flush takes over: it writes these as well.
      do await writeBatch(pending.keys().take(BATCH).toArray()); while (pending.size > 0 && !isFlushing);
    } catch {
      // What is pending stays so: it is tried again with the next one, and `flush` says whether the store fails.
    } finally {
      writing = undefined;
    }
  }

  /** The oldest goes, unless it is not written yet: then it is written, and there is room a little later. */
  function makeRoom(): boolean {
    for (const [key, use] of uses) {
      uses.delete(key);
      if (use.atMs === use.writtenAtMs) return true;
      uses.set(key, use);
      pending.add(key);
      writing ??= writePending();
      return false;
    }
    return true;
  }

  return {
    note(key, expiresAtMs) {
      const nowMs = clock.monotonic();
      let use = uses.get(key);
      if (use === undefined) {
        if (uses.size >= usesMax && !makeRoom()) return;
        use = { atMs: 0, writtenAtMs: null, nextWriteMs: nowMs, expiresAtMs };
        uses.set(key, use);
      }
      use.atMs = clock.now();
      if (nowMs < use.nextWriteMs) return;
      use.nextWriteMs = nowMs + WRITE_EVERY_MS;
      pending.add(key);
      writing ??= writePending();
    },
    async read(key) {
      const here = uses.get(key)?.atMs;
      // Another instance may have written a later one, but for the last minute.
      if (here !== undefined && clock.now() - here < WRITE_EVERY_MS) return here;
      const { lastUsedAtMs } = (await table.get(key) ?? {}) as Record<string, JsonValue>;
      const stored = typeof lastUsedAtMs === "number" ? lastUsedAtMs : null;
      return here === undefined ? stored : Math.max(here, stored ?? here);
    },
    async flush() {
      const untilMs = clock.monotonic() + FLUSH_MS_MAX;
      isFlushing = true;
      try {
        await writing;
        const left = [...uses].filter(([, use]) => use.atMs !== use.writtenAtMs).map(([key]) => key);
        while (left.length > 0) {
          if (clock.monotonic() >= untilMs) {
            throw new Fault(
              "unavailable",
              `Cannot write all last uses: ${left.length} are left after a second`,
            );
          }
          await writeBatch(left.splice(0, BATCH));
        }
      } finally {
        isFlushing = false;
      }
    },
  };
}
