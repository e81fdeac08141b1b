// The record store in Redis, for many instances: every write is one script, which also logs what it changed for the change feed.
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import type { RecordChange, RecordPlace, RecordStore, StoredRecord } from "./record_store.ts";
import type { Redis, RedisReply, RedisScript } from "./redis/redis.ts";
import { openRedisMark, type RedisMark, requireMark } from "./redis_mark.ts";

/** Hash of a table: key → expiry in 16 digits, then the value. The expiry is judged by the clock of whoever asks. */
const RECORDS = "records:";
/** Sorted set of a table's keys, all with score 0: then Redis orders them by their bytes, in UTF-8 the order of code points. */
const ORDER = "record-order:";
/** Sorted set of what will expire, over all tables: `TABLE:KEY` by moment. */
const EXPIRIES = "record-expiries";
/** List of the last changes, newest first: `MARK:TABLE:KEY`; a mark is of one write. */
export const CHANGES = "record-changes";
/** How many changes there ever were. */
export const CHANGE_COUNT = "record-change-count";

const EXPIRY_DIGITS = 16;
/** What lives for ever has no entry in EXPIRIES. */
const NEVER_MS = Number.MAX_SAFE_INTEGER;
/** What expired so long ago leaves Redis with the next writes: clocks differ, and a record may still live by another's. */
const SWEEP_AFTER_MS = 60_000;
const SWEPT_MAX = 100;
/** Records that one call looks at. */
const PAGE_MAX = 1000;
const CHANGES_KEPT_MAX = 10_000;

/**
 * KEYS: expiries, changes, their count, hash and order of each table, the hash of the store's mark. ARGV: now, prefix of hashes,
 * prefix of orders, what marks this write, index of the last change kept, two of the store's mark, how many records must stand, their
 * tables and keys, then five a change: table, key, what it expects, what is stored (nothing: it is deleted), and whether feeds are told.
 *
 * The sweep comes first: it gives a Redis that is full its memory back, and where a cluster stops it half-way (it touches tables
 * that KEYS does not name) it has done no harm. What has expired is swept only when Redis's clock says so too, or one instance
 * with a wrong clock would end the records of all.
 */
const WRITE: RedisScript = {
  lua: `
${requireMark(6)}
local now = tonumber(ARGV[1])
local time = redis.call("TIME")
local sweepUntil = math.min(now, time[1] * 1000) - ${SWEEP_AFTER_MS}
local expired = redis.call("ZRANGE", KEYS[1], "-inf", string.format("%.0f", sweepUntil), "BYSCORE", "LIMIT", 0, ${SWEPT_MAX})
for _, member in ipairs(expired) do
  local colon = string.find(member, ":", 1, true)
  local name, key = string.sub(member, 1, colon - 1), string.sub(member, colon + 1)
  redis.call("HDEL", ARGV[2] .. name, key)
  redis.call("ZREM", ARGV[3] .. name, key)
end
if #expired > 0 then redis.call("ZREM", KEYS[1], unpack(expired)) end

local first = 9 + 2 * tonumber(ARGV[8])
for i = 9, first - 1, 2 do
  local stored = redis.call("HGET", ARGV[2] .. ARGV[i], ARGV[i + 1])
  if not stored or tonumber(string.sub(stored, 1, ${EXPIRY_DIGITS})) <= now then return 0 end
end

for i = first, #ARGV, 5 do
  local expects = ARGV[i + 2]
  if expects ~= "anything" then
    local stored = redis.call("HGET", ARGV[2] .. ARGV[i], ARGV[i + 1])
    local lives = stored and tonumber(string.sub(stored, 1, ${EXPIRY_DIGITS})) > now
    local found
    if expects == "nothing" then found = not lives
    elseif expects == "something" then found = lives
    else found = lives and "=" .. string.sub(stored, ${EXPIRY_DIGITS + 1}) == expects
    end
    if not found then return 0 end
  end
end

for i = first, #ARGV, 5 do
  local records, order = ARGV[2] .. ARGV[i], ARGV[3] .. ARGV[i]
  local key, stored = ARGV[i + 1], ARGV[i + 3]
  local member = ARGV[i] .. ":" .. key
  local changed = true
  if stored == "" then
    changed = redis.call("HDEL", records, key) == 1
    redis.call("ZREM", order, key)
    redis.call("ZREM", KEYS[1], member)
  else
    redis.call("HSET", records, key, stored)
    redis.call("ZADD", order, 0, key)
    local expiry = string.sub(stored, 1, ${EXPIRY_DIGITS})
    if expiry == "${NEVER_MS}" then redis.call("ZREM", KEYS[1], member)
    else redis.call("ZADD", KEYS[1], expiry, member)
    end
  end
  if changed and ARGV[i + 4] == "1" then
    redis.call("LPUSH", KEYS[2], ARGV[4] .. ":" .. member)
    redis.call("INCR", KEYS[3])
  end
end
redis.call("LTRIM", KEYS[2], 0, ARGV[5])
return 1
`,
};

/** KEYS: hash of a table, the hash of the store's mark. ARGV: now, two of the store's mark, then three a record: key, value before, after. */
const REPLACE: RedisScript = {
  lua: `
${requireMark(2)}
local replaced = 0
for i = 4, #ARGV, 3 do
  local stored = redis.call("HGET", KEYS[1], ARGV[i])
  local expiry = stored and string.sub(stored, 1, ${EXPIRY_DIGITS})
  if stored and tonumber(expiry) > tonumber(ARGV[1]) and string.sub(stored, ${
    EXPIRY_DIGITS + 1
  }) == ARGV[i + 1] then
    redis.call("HSET", KEYS[1], ARGV[i], expiry .. ARGV[i + 2])
    replaced = replaced + 1
  end
end
return replaced
`,
};

/** KEYS: hash and order of a table. ARGV: where to start, how many. */
const LIST: RedisScript = {
  lua: `
local keys = redis.call("ZRANGE", KEYS[2], ARGV[1], "+", "BYLEX", "LIMIT", 0, ARGV[2])
if #keys == 0 then return {{}, {}} end
return {keys, redis.call("HMGET", KEYS[1], unpack(keys))}
`,
};

/** A change as the script judges it; of "something" anything that lives is found. */
interface ScriptChange extends Omit<RecordChange, "expects"> {
  readonly expects?: RecordChange["expects"] | "something";
}

/** The store, and how it is told from others. */
export interface RedisRecordStore extends RecordStore {
  /**
   * From now on the store is this one only while a record that stands in it, and lives for ever, still does: Redis may lose its data and
   * go on. Every write makes sure of it; reads fail once a write or a change feed has found it gone.
   */
  requireMark(record: StoredRecord & { readonly table: string }): void;
}

/**
 * The store over a Redis that whoever opened it also closes. Of a write that ends in a Fault nobody knows whether it was made,
 * whole, or not: the answer may have been lost.
 *
 * @param instance a name that no other store has or had, such as a new id: it marks the changes
 * @param options.changesKeptMax how many changes a feed may be behind without having to take everything for changed
 * @param options.quietTables tables that nobody keeps at hand: no feed is told of them
 * @param options.mark shared with the change feed
 */
export function openRedisRecordStore(
  redis: Redis,
  clock: Clock,
  instance: string,
  { changesKeptMax = CHANGES_KEPT_MAX, quietTables = [], mark = openRedisMark(() => {}) }: {
    readonly changesKeptMax?: number;
    readonly quietTables?: readonly string[];
    readonly mark?: RedisMark;
  } = {},
): RedisRecordStore {
  const recordsOf = (name: string): string => redis.key(RECORDS + name);
  const orderOf = (name: string): string => redis.key(ORDER + name);
  let writes = 0;

  async function write(
    changes: readonly ScriptChange[],
    standing: readonly RecordPlace[] = [],
  ): Promise<boolean> {
    const names = new Set([...changes, ...standing].map(({ table }) => nameOf(table)));
    const made = mark.judge(
      await redis.run(
        WRITE,
        [
          redis.key(EXPIRIES),
          redis.key(CHANGES),
          redis.key(CHANGE_COUNT),
          ...[...names].flatMap((name) => [recordsOf(name), orderOf(name)]),
          mark.hash() ?? recordsOf(""),
        ],
        [
          String(clock.now()),
          recordsOf(""),
          orderOf(""),
          `${nameOf(instance)}.${++writes}`,
          String(changesKeptMax),
          ...mark.words(),
          String(standing.length),
          ...standing.flatMap(({ table, key }) => [nameOf(table), key]),
          ...changes.flatMap((change) => [
            nameOf(change.table),
            change.key,
            expectationOf(change),
            storedOf(change),
            quietTables.includes(change.table) ? "0" : "1",
          ]),
        ],
      ),
    );
    return made === 1;
  }

  return {
    requireMark({ table, key, value }) {
      mark.require({ hash: recordsOf(nameOf(table)), field: key, stored: storedOf({ table, key, value }) });
    },
    async get(table, key) {
      mark.check();
      const records = recordsOf(nameOf(table));
      return liveValue(await redis.call(records, ["HGET", records, key]), clock.now());
    },
    put: async (table, key, value, lifetime) =>
      void await write([{ table, key, value, ...(lifetime && { lifetime }) }]),
    create: (table, key, value, lifetime) =>
      write([{ table, key, value, expects: "nothing", ...(lifetime && { lifetime }) }]),
    write,
    async replace(table, replacements) {
      const records = recordsOf(nameOf(table));
      const words = replacements.flatMap(({ key, before, after }) => [key, before, after]);
      const args = [String(clock.now()), ...mark.words(), ...words];
      return Number(mark.judge(await redis.run(REPLACE, [records, mark.hash() ?? records], args)));
    },
    delete: (table, key) => write([{ table, key, value: undefined, expects: "something" }]),
    async list(table, { after, limit }) {
      mark.check();
      const keys = [recordsOf(nameOf(table)), orderOf(nameOf(table))];
      const found: StoredRecord[] = [];
      let start = after === undefined ? "-" : `(${after}`;
      // As few as are asked for; where some of them have expired, as many as one call may look at.
      let count = Math.min(limit, PAGE_MAX);
      while (found.length < limit) {
        const page = readPage(await redis.run(LIST, keys, [start, String(count)]));
        for (const { key, stored } of page) {
          const value = liveValue(stored, clock.now());
          if (value !== undefined && found.length < limit) found.push({ key, value });
        }
        if (page.length < count) break;
        start = `(${page.at(-1)?.key}`;
        count = PAGE_MAX;
      }
      return found;
    },
    async tables() {
      mark.check();
      const prefix = recordsOf("");
      const match = `${prefix.replace(/[\\*?[\]]/g, "\\$&")}*`;
      const found = new Set<string>();
      let cursor = "0";
      do {
        const reply = await redis.call(prefix, ["SCAN", cursor, "MATCH", match, "COUNT", String(PAGE_MAX)]);
        const [next, keys] = Array.isArray(reply) ? reply as readonly RedisReply[] : [];
        if (!Array.isArray(keys)) throw notOurs();
        for (const key of keys) found.add(decodeURIComponent(textOf(key).slice(prefix.length)));
        cursor = textOf(next);
      } while (cursor !== "0");
      return [...found];
    },
    // What was deleted stays in Redis's own files until it rewrites them.
    scrub: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
}

/** The table and the key of an entry of CHANGES. */
export function parseChange(entry: RedisReply | undefined): { readonly table: string; readonly key: string } {
  const [, name, key] = /^[^:]*:([^:]*):(.+)$/s.exec(textOf(entry)) ?? [];
  if (name === undefined || key === undefined) throw notOurs();
  return { table: decodeURIComponent(name), key };
}

/** A table's name without colons, so that one ends it. */
function nameOf(table: string): string {
  return encodeURIComponent(table);
}

function expectationOf({ expects }: ScriptChange): string | Uint8Array<ArrayBuffer> {
  if (expects === undefined) return "anything";
  return typeof expects === "string" ? expects : joined("=", expects);
}

/** A copy: the caller's bytes may change before they are sent. */
function storedOf({ value, lifetime }: ScriptChange): string | Uint8Array<ArrayBuffer> {
  if (value === undefined) return "";
  const expiresAtMs = lifetime?.expiresAtMs ?? NEVER_MS;
  if (!Number.isSafeInteger(expiresAtMs)) {
    throw new Fault("unavailable", `Cannot write the record store: a record is to expire at ${expiresAtMs}`);
  }
  return joined(String(Math.max(0, expiresAtMs)).padStart(EXPIRY_DIGITS, "0"), value);
}

function joined(text: string, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(text.length + bytes.length);
  all.set(encodeUtf8(text));
  all.set(bytes, text.length);
  return all;
}

/** The value of what is stored; undefined where there is none or it has expired. */
function liveValue(stored: RedisReply | undefined, nowMs: number): Uint8Array<ArrayBuffer> | undefined {
  if (stored === null) return undefined;
  if (!(stored instanceof Uint8Array)) throw notOurs();
  const digits = textOf(stored.subarray(0, EXPIRY_DIGITS));
  if (!/^\d{16}$/.test(digits)) throw notOurs();
  return Number(digits) > nowMs ? new Uint8Array(stored.subarray(EXPIRY_DIGITS)) : undefined;
}

function readPage(reply: RedisReply): readonly { readonly key: string; readonly stored: RedisReply }[] {
  const [keys, values] = Array.isArray(reply) ? reply as readonly RedisReply[] : [];
  if (!Array.isArray(keys) || !Array.isArray(values)) throw notOurs();
  return keys.map((key, index) => ({ key: textOf(key), stored: values[index] }));
}

function textOf(bytes: RedisReply | undefined): string {
  const text = bytes instanceof Uint8Array ? decodeUtf8(bytes) : undefined;
  if (text?.ok !== true) throw notOurs();
  return text.value;
}

function notOurs(): Fault {
  return new Fault("unavailable", "Cannot read the record store: what Redis holds is not what was written");
}
