// The change feed of a store that one instance has to itself: tells of the writes of its own whose answers were lost.
import { Fault, toFault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import type { ChangeFeed, Follower } from "./change_feed.ts";
import type { RecordPlace } from "./record_store.ts";

/** Nobody else writes: there is only what is not known of the instance's own writes. */
export interface OwnChangeFeed extends ChangeFeed {
  /**
   * Nobody knows whether these records were changed. The feed is not current until the followers of their tables were told, and
   * have read them anew where they keep them: the store does one thing after the other, so they see what became of the write.
   */
  doubt(places: readonly RecordPlace[]): void;
}

/** A store that hangs refuses at once: to ask it often costs nothing. */
const RETRY_MS = 100;
const FAULT_TOLD_EVERY_MS = 60_000;

interface Following {
  readonly table: string;
  readonly follower: Follower;
  /** What it must still be told. */
  readonly untold: Set<string>;
}

/**
 * Opens the feed. A follower that throws is told again in a moment.
 *
 * @param onFault told of the first failure of a row of them, and again after each minute of it
 */
export function openOwnChangeFeed(clock: Clock, onFault: (fault: Fault) => void): OwnChangeFeed {
  const followings: Following[] = [];
  let isCurrent = true;
  let telling: Promise<void> | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isClosed = false;
  /** Of the row of failures that goes on; never, where none does. */
  let faultToldMs = -Infinity;

  function catchUp(): Promise<void> {
    telling ??= tellAll().finally(() => telling = undefined);
    return telling;
  }

  async function tellAll(): Promise<void> {
    try {
      // What came into doubt while they were told is told as well.
      while (followings.some(({ untold }) => untold.size > 0)) {
        if (isClosed) throw new Fault("unavailable", "Cannot tell of changes: closed");
        const told = await Promise.allSettled(followings.map(tell));
        for (const each of told) if (each.status === "rejected") throw each.reason;
      }
    } catch (thrown) {
      const fault = toFault(thrown);
      if (!isClosed && clock.monotonic() - faultToldMs >= FAULT_TOLD_EVERY_MS) {
        faultToldMs = clock.monotonic();
        onFault(fault);
      }
      throw fault;
    }
    isCurrent = true;
    faultToldMs = -Infinity;
  }

  function tellIn(ms: number): void {
    timer ??= setTimeout(() => {
      timer = undefined;
      // It was told where it happened.
      catchUp().catch(() => {
        if (!isClosed) tellIn(RETRY_MS);
      });
    }, ms);
  }

  return {
    follow: (table, follower) => void followings.push({ table, follower, untold: new Set() }),
    doubt(places) {
      for (const { table, key } of places) {
        for (const following of followings) {
          if (following.table !== table) continue;
          following.untold.add(key);
          isCurrent = false;
        }
      }
      if (!isCurrent && !isClosed) tellIn(0);
    },
    isCurrent: () => isCurrent,
    catchUp,
    async close() {
      isClosed = true;
      clearTimeout(timer);
      await telling?.catch(() => {});
    },
  };
}

async function tell({ follower, untold }: Following): Promise<void> {
  for (const key of [...untold]) {
    // Before: where it comes into doubt again meanwhile, it is told again.
    untold.delete(key);
    try {
      await follower(key);
    } catch (thrown) {
      untold.add(key);
      throw thrown;
    }
  }
}
