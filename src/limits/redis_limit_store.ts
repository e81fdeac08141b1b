// The limit store in Redis, for instances that share it: one script call a decision, one a settling.
import type { Redis, RedisReply, RedisScript } from "../store/redis/redis.ts";
import { Fault } from "../faults/fault.ts";
import { decideCells, holdKeptMs, holdRefused, SETTLED_KEPT_MS } from "./decide_cells.ts";
import type { LimitCell, LimitStore } from "./limit_store.ts";

// Keys: `rate:…` a text "level at_ms" that lives until it is drained · `book:…` a hash of sums that lives until its period ends ·
// `place:…` a sorted set of holds by when their place is free again · `hold:…` when it was taken, or "settled".
// Lua's numbers are doubles: exact, for all are whole and below 2^53. "%d" writes them out, where Lua's own way writes 1e+15;
// Redis writes those that its commands are given in all their digits.

const LUA = `
local call, format = redis.call, string.format
local time = call("TIME")
local now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
local most = 9007199254740991

local function level_of(key, quota)
  local kept = call("GET", key)
  if not kept then return 0 end
  local level, at = string.match(kept, "^(%d+) (%d+)$")
  local elapsed = now - at
  -- The server's clock was set back: then nothing drains, and nothing is filled.
  if elapsed <= 0 then return tonumber(level) end
  level = level - elapsed * quota
  if level < 0 then return 0 end
  return level
end

local function fill(key, quota, level)
  if level < 0 then level = 0 end
  if level > most then level = most end
  -- A millisecond more than it takes to drain: the key's end counts from a moment that may lie before this one.
  local px = level / quota
  call("SET", key, format("%d %d", level, now), "PX", px - px % 1 + 2)
end

local function add(book, field, amount, ms)
  local sum = call("HINCRBY", book, field, amount)
  if sum > most then call("HSET", book, field, "9007199254740991") end
  if sum < 0 then call("HSET", book, field, "0") end
  if call("PTTL", book) < tonumber(ms) then call("PEXPIRE", book, ms) end
end
`;

/**
 * KEYS: of each cell, then of the hold, if any. ARGV: how long the hold is kept, or 0 without one; then of each cell
 * "r" quota window amount · "c" quota amount end field · "p" quota held member.
 * Returns the cells' states before; 0 where the hold was used before.
 * Nothing is written before a command that Redis refuses when it is out of memory: then all of it has not happened.
 */
const TAKE: RedisScript = {
  lua: `${LUA}
local cells = #KEYS
local hold
if ARGV[1] ~= "0" then
  hold = KEYS[cells]
  cells = cells - 1
  if call("EXISTS", hold) == 1 then return 0 end
end
local states = {}
local allowed = true
local at = 2
for i = 1, cells do
  local kind, quota = ARGV[at], ARGV[at + 1]
  local state
  if kind == "r" then
    state = level_of(KEYS[i], quota)
    if state > (quota - ARGV[at + 3]) * ARGV[at + 2] then allowed = false end
    at = at + 4
  elseif kind == "c" then
    state = tonumber(call("HGET", KEYS[i], ARGV[at + 4]) or 0)
    if state > quota - ARGV[at + 2] then allowed = false end
    at = at + 5
  else
    state = call("ZCOUNT", KEYS[i], format("(%d", now), "+inf")
    if state >= tonumber(quota) then allowed = false end
    at = at + 4
  end
  states[i] = state
end
if allowed then
  if hold then call("SET", hold, format("%d", now), "PX", ARGV[1]) end
  at = 2
  for i = 1, cells do
    local kind = ARGV[at]
    if kind == "r" then
      if ARGV[at + 3] ~= "0" then fill(KEYS[i], ARGV[at + 1], states[i] + ARGV[at + 3] * ARGV[at + 2]) end
      at = at + 4
    elseif kind == "c" then
      if ARGV[at + 2] ~= "0" then add(KEYS[i], ARGV[at + 4], ARGV[at + 2], ARGV[at + 3]) end
      at = at + 5
    else
      local ms = ARGV[at + 2]
      call("ZADD", KEYS[i], now + ms, ARGV[at + 3])
      call("ZREMRANGEBYSCORE", KEYS[i], "-inf", now)
      if call("PTTL", KEYS[i]) < tonumber(ms) then call("PEXPIRE", KEYS[i], ms) end
      at = at + 4
    end
  end
end
for i = 1, cells do
  -- Clients misread integers near 2^53, but no texts.
  if states[i] > 9e15 then states[i] = format("%d", states[i]) end
end
return states
`,
};

/**
 * KEYS: of the hold, of each cell, of each tally's book. ARGV: how long it is known that the hold was settled; how many cells;
 * of each cell "r" quota window change · "c" change end field · "p" member; of each tally amount, how long it is kept, field.
 * The first write is a deletion, which Redis allows when it is out of memory, and with it all the rest: to settle frees more
 * than it takes.
 */
const SETTLE: RedisScript = {
  lua: `${LUA}
local taken = call("GET", KEYS[1])
if taken == "settled" then return 0 end
call("DEL", KEYS[1])
call("SET", KEYS[1], "settled", "PX", ARGV[1])
local cells = tonumber(ARGV[2])
local at = 3
for i = 2, cells + 1 do
  local kind = ARGV[at]
  if kind == "r" then
    if taken then fill(KEYS[i], ARGV[at + 1], level_of(KEYS[i], ARGV[at + 1]) + ARGV[at + 3] * ARGV[at + 2]) end
    at = at + 4
  elseif kind == "c" then
    -- A period that is over is past correcting: its book is gone.
    local left = taken and taken + ARGV[at + 2] - now or 0
    if left > 0 then add(KEYS[i], ARGV[at + 3], ARGV[at + 1], left) end
    at = at + 4
  else
    if taken then call("ZREM", KEYS[i], ARGV[at + 1]) end
    at = at + 2
  end
end
for i = cells + 2, #KEYS do
  add(KEYS[i], ARGV[at + 2], ARGV[at], ARGV[at + 1])
  at = at + 3
end
return 1
`,
};

/** Opens the store. Its rates and periods run by the clock of the Redis server. `close` leaves the Redis open, which others use too. */
export function openRedisLimitStore(redis: Redis): LimitStore {
  const keyOf = (cell: LimitCell): string =>
    redis.key(cell.kind === "count" ? `book:${cell.book}` : `${cell.kind}:${cell.key}`);

  return {
    async take(hold, cells) {
      const keys = cells.map(keyOf);
      const args = [hold === null ? "0" : whole(holdKeptMs(cells))];
      for (const cell of cells) {
        switch (cell.kind) {
          case "rate":
            args.push("r", whole(cell.quota), whole(cell.windowMs), whole(cell.amount));
            break;
          case "count":
            args.push("c", whole(cell.quota), whole(cell.amount), whole(cell.endsInMs), cell.key);
            break;
          case "place":
            args.push("p", whole(cell.quota), whole(cell.heldMs), hold ?? crypto.randomUUID());
        }
      }
      if (hold !== null) keys.push(redis.key(`hold:${hold}`));
      if (keys.length === 0) return [];
      const states = await redis.run(TAKE, keys, args);
      if (states === 0) throw holdRefused();
      return decideCells(cells, list(states).map((state) => Number(text(state)))).decisions;
    },

    async settle(hold, used, tallies) {
      const keys = [redis.key(`hold:${hold}`)];
      const args = [];
      for (const { cell, used: amount } of used) {
        if (cell.kind === "place") args.push("p", hold);
        else if (amount === cell.amount) continue;
        else if (cell.kind === "rate") {
          args.push("r", whole(cell.quota), whole(cell.windowMs), whole(amount - cell.amount));
        } else args.push("c", whole(amount - cell.amount), whole(cell.endsInMs), cell.key);
        keys.push(keyOf(cell));
      }
      args.unshift(whole(SETTLED_KEPT_MS), `${keys.length - 1}`);
      for (const { book, key, amount, keptMs } of tallies) {
        if (amount === 0) continue;
        keys.push(redis.key(`book:${book}`));
        args.push(whole(amount), whole(keptMs), key);
      }
      await redis.run(SETTLE, keys, args);
    },

    async sums(book, keys) {
      const key = redis.key(`book:${book}`);
      if (keys?.length === 0) return new Map();
      const reply = list(
        await redis.call(key, keys === undefined ? ["HGETALL", key] : ["HMGET", key, ...keys]),
      );
      const texts = reply.map(text);
      const entries = keys?.map((each, at) => [each, texts[at]] as const) ??
        texts.flatMap((each, at) => at % 2 === 0 ? [[each, texts[at + 1]] as const] : []);
      return new Map(entries.map(([each, sum]) => [each, Number(sum)] as const).filter(([, sum]) => sum > 0));
    },

    close: () => Promise.resolve(),
  };
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** A number as Redis reads it: whole, a fraction of a millisecond rounded up. */
function whole(value: number): string {
  return `${Math.ceil(value)}`;
}

function list(reply: RedisReply): readonly RedisReply[] {
  if (Array.isArray(reply)) return reply;
  throw new Fault("unavailable", "Cannot read the limit store: Redis answered something that is no list");
}

function text(reply: RedisReply): string {
  return reply instanceof Uint8Array ? decoder.decode(reply) : `${reply ?? ""}`;
}
