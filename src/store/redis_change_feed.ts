// The change feed of a Redis: asks every few moments for the changes that the record stores logged, and tells the followers.
import { Fault, toFault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import type { ChangeFeed, Follower } from "./change_feed.ts";
import type { Redis, RedisReply, RedisScript } from "./redis/redis.ts";
import { openRedisMark, type RedisMark, requireMark } from "./redis_mark.ts";
import { CHANGE_COUNT, CHANGES, parseChange } from "./redis_record_store.ts";

/** How far the feed has read. */
interface Place {
  /** Of the changes that there ever were. */
  readonly count: number;
  /**
   * The last one, whole. Where another stands in its place, Redis lost data or an older copy of it took over, even if it has
   * written on since.
   */
  readonly last: Uint8Array<ArrayBuffer>;
}

const NOWHERE: Place = { count: -1, last: Uint8Array.of(0) };

/**
 * KEYS: count of changes, changes, a key that is never there, the hash of the store's mark. ARGV: a Place, two of the mark. Answers
 * nothing where nothing is new; else the new count, the last change, and the changes since then, newest first, or nothing where
 * nobody knows them any more.
 *
 * It begins with a write that changes nothing: a master that was cut off and takes no writes is not to be believed, for what is
 * changed now is changed elsewhere.
 */
const POLL: RedisScript = {
  lua: `
redis.call("DEL", KEYS[3])
${requireMark(3)}
local count = tonumber(redis.call("GET", KEYS[1]) or "0")
local behind = count - tonumber(ARGV[1])
if (redis.call("LINDEX", KEYS[2], behind) or "") == ARGV[2] then
  if behind == 0 then return false end
  local changes = redis.call("LRANGE", KEYS[2], 0, behind - 1)
  if #changes == behind then return {count, changes[1], changes} end
end
return {count, redis.call("LINDEX", KEYS[2], 0) or "", false}
`,
};

const FAULT_TOLD_EVERY_MS = 60_000;

/** More keys of one table that a follower has not yet been told than this are told as: all of them. */
const UNTOLD_MAX = 1000;

interface Following {
  readonly table: string;
  readonly follower: Follower;
  /** What it must still be told. */
  readonly untold: Set<string | undefined>;
}

/** What the feed needs. */
export interface RedisChangeFeedOptions {
  readonly redis: Redis;
  readonly clock: Clock;
  /** Between two polls; 150 by default. */
  readonly everyMs?: number;
  /** Since when the followers must know everything for the feed to count as current. */
  readonly staleMsMax: number;
  /** Shared with the record store: where another store has taken its place, the feed is never current again. */
  readonly mark?: RedisMark;
  /** Told of the first failure of a row of them, and again after each minute of it: of Redis, or of a follower that could not take what Redis said. */
  readonly onFault: (fault: Fault, of: "redis" | "follower") => void;
}

/**
 * Opens the feed; it starts with what changes from now on. Own changes are told as well: of a write that ended in a fault nobody
 * else knows whether it was made. A follower that throws is told again at the next poll, and until then the feed is not current.
 *
 * @throws Fault `unavailable` when Redis cannot be asked
 */
export async function openRedisChangeFeed(
  { redis, clock, everyMs = 150, staleMsMax, mark = openRedisMark(() => {}), onFault }:
    RedisChangeFeedOptions,
): Promise<ChangeFeed> {
  const followings: Following[] = [];
  let place = NOWHERE;
  let currentAsOfMs = -Infinity;
  /** Of the row of failures that goes on; never, where none does. */
  let faultToldMs = -Infinity;
  let isClosed = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** Settles with the last poll that was asked for. */
  let settled: Promise<void> = Promise.resolve();
  /** The poll that is asked for and not yet sent. */
  let waiting: Promise<void> | undefined;

  function catchUp(): Promise<void> {
    if (waiting === undefined) {
      waiting = settled.then(() => {
        waiting = undefined;
        return poll();
      });
      settled = waiting.catch(() => undefined);
    }
    return waiting;
  }

  async function poll(): Promise<void> {
    if (isClosed) throw new Fault("unavailable", "Cannot ask the change feed: closed");
    let of: "redis" | "follower" = "redis";
    try {
      const sentAtMs = clock.monotonic();
      await readChanges();
      of = "follower";
      await tellFollowers();
      currentAsOfMs = sentAtMs;
      faultToldMs = -Infinity;
    } catch (thrown) {
      const fault = toFault(thrown);
      if (clock.monotonic() - faultToldMs >= FAULT_TOLD_EVERY_MS) {
        faultToldMs = clock.monotonic();
        onFault(fault, of);
      }
      throw fault;
    }
  }

  async function readChanges(): Promise<void> {
    mark.check();
    const reply = mark.judge(
      await redis.run(
        POLL,
        [redis.key(CHANGE_COUNT), redis.key(CHANGES), redis.key("probe"), mark.hash() ?? redis.key(CHANGES)],
        [String(place.count), place.last, ...mark.words()],
      ),
    );
    if (reply === null) return;
    const news = parseNews(reply);
    for (const { table, untold } of followings) {
      if (news.changes === undefined) untold.add(undefined);
      else for (const change of news.changes) if (change.table === table) untold.add(change.key);
    }
    place = news.place;
  }

  async function tellFollowers(): Promise<void> {
    const told = await Promise.allSettled(followings.map(tell));
    for (const each of told) if (each.status === "rejected") throw each.reason;
  }

  async function tick(): Promise<void> {
    // A failure was reported where it happened.
    await catchUp().catch(() => undefined);
    schedule();
  }

  function schedule(): void {
    if (!isClosed) timer = setTimeout(tick, everyMs);
  }

  await catchUp();
  schedule();

  return {
    follow: (table, follower) => void followings.push({ table, follower, untold: new Set() }),
    isCurrent: () => !mark.isLost() && clock.monotonic() - currentAsOfMs <= staleMsMax,
    catchUp,
    async close() {
      isClosed = true;
      clearTimeout(timer);
      await settled;
    },
  };
}

async function tell({ follower, untold }: Following): Promise<void> {
  if (untold.has(undefined) || untold.size > UNTOLD_MAX) {
    untold.clear();
    untold.add(undefined);
  }
  for (const key of untold) {
    await follower(key);
    untold.delete(key);
  }
}

/** What a poll answers where there is something new; `changes` undefined: nobody knows which. */
function parseNews(
  reply: RedisReply,
): { readonly place: Place; readonly changes: readonly ReturnType<typeof parseChange>[] | undefined } {
  const [count, last, changes] = Array.isArray(reply) ? reply as readonly RedisReply[] : [];
  if (typeof count !== "number" || !(last instanceof Uint8Array)) {
    throw new Fault("unavailable", "Cannot ask the change feed: Redis answers something else");
  }
  return {
    place: { count, last: new Uint8Array(last) },
    changes: Array.isArray(changes) ? changes.map(parseChange) : undefined,
  };
}
