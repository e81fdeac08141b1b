// The limit store in Redis, for instances that share it: decisions and settlings that meet go out together, in one script call.
import type { Redis, RedisReply, RedisScript } from "../store/redis/redis.ts";
import { Fault, toFault } from "../faults/fault.ts";
import { decideCells, holdKeptMs, holdRefused, SETTLED_KEPT_MS } from "./decide_cells.ts";
import type { LimitCell, LimitStore } from "./limit_store.ts";

// Keys: `rate:…` two doubles, level and at_ms, that live until it is drained · `book:…` a hash of sums that lives until its period
// ends · `place:…` a sorted set of holds by when their place is free again · `hold:…` when it was taken, or "settled".
// Lua's numbers are doubles: exact, for all are whole and below 2^53. Redis writes those that its commands are given in all their
// digits, where Lua's own way writes 1e+15.

/**
 * A list of operations, each all or nothing by itself. An error, such as a key of another form, ends the list: what stands before
 * it has happened, and all learn that nobody knows. KEYS: what they name, in order.
 *
 * To take: of each cell "r" quota, highest level that allows, how much it fills · "c" quota amount end field · "p" quota held
 * member; then "." or, of a hold, its key and "h", how long it is kept. It answers the cells' states before; of a hold then 1, or 0
 * where it was used before.
 *
 * To settle: "s", the hold's key; of each cell "r" quota change of its level · "c" change end field · "p" member; of each tally
 * "t" amount, how long it is kept, field; then ".". It answers nothing.
 *
 * Of a take nothing is written before a command that Redis refuses when it is out of memory: then all of it has not happened.
 * Settling begins with a write that it allows, and with it all the rest: to settle frees more than it takes. So takes come first.
 */
const OPERATIONS: RedisScript = {
  lua: `
local call, format, pack, unpack = redis.call, string.format, struct.pack, struct.unpack
local KEYS, ARGV, tonumber = KEYS, ARGV, tonumber
local time = call("TIME")
local now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
local now_text = format("%d", now)
local later = "(" .. now_text
local most = 9007199254740991
local key, at = 1, 1
local states, answer, answers = {}, {}, 0
-- Of each book: for so long it is known to be kept.
local kept_ms = {}

local function level_of(name, quota)
  local kept = call("GET", name)
  if not kept then return 0 end
  local level, since = unpack("<dd", kept)
  -- The server's clock was set back: then nothing drains, and nothing is filled.
  if since >= now then return level end
  level = level - (now - since) * quota
  if level < 0 then return 0 end
  return level
end

local function fill(name, quota, level)
  if level < 0 then level = 0 end
  if level > most then level = most end
  -- A millisecond more than it takes to drain: the key's end counts from a moment that may lie before this one.
  local px = level / quota
  call("SET", name, pack("<dd", level, now), "PX", px - px % 1 + 2)
end

local function add(book, field, amount, ms)
  local sum = call("HINCRBY", book, field, amount)
  if sum > most then call("HSET", book, field, most) end
  if sum < 0 then call("HSET", book, field, 0) end
  if (kept_ms[book] or 0) >= ms then return end
  if call("PTTL", book) < ms then call("PEXPIRE", book, ms) end
  kept_ms[book] = ms
end

local function hold_place(name, held, ms, member)
  call("ZADD", name, now + ms, member)
  -- For twice as long, so that it need not be said each time; nor need what is over, which nobody counts, go each time.
  if held == 0 or call("PTTL", name) < ms then call("PEXPIRE", name, 2 * ms) end
  if now % 16 == 0 then call("ZREMRANGEBYSCORE", name, "-inf", now_text) end
end

local function take()
  local first_key, first = key, at
  local count, allowed = 0, true
  local kind = ARGV[at]
  while kind ~= "." and kind ~= "h" do
    local state
    if kind == "r" then
      state = level_of(KEYS[key], ARGV[at + 1])
      if state > tonumber(ARGV[at + 2]) then allowed = false end
      at = at + 4
    elseif kind == "c" then
      state = tonumber(call("HGET", KEYS[key], ARGV[at + 4]) or 0)
      if state > ARGV[at + 1] - ARGV[at + 2] then allowed = false end
      at = at + 5
    else
      state = call("ZCOUNT", KEYS[key], later, "+inf")
      if state >= tonumber(ARGV[at + 1]) then allowed = false end
      at = at + 4
    end
    key = key + 1
    count = count + 1
    states[count] = state
    -- Clients misread integers near 2^53, but no texts.
    answer[answers + count] = state > 9e15 and format("%d", state) or state
    kind = ARGV[at]
  end
  answers = answers + count
  if kind == "h" then
    local fresh
    if allowed then fresh = call("SET", KEYS[key], now_text, "PX", ARGV[at + 1], "NX")
    else fresh = call("EXISTS", KEYS[key]) == 0 end
    answers = answers + 1
    answer[answers] = fresh and 1 or 0
    allowed = allowed and fresh
    key = key + 1
    at = at + 1
  end
  at = at + 1
  if not allowed then return end
  for i = 1, count do
    local name = KEYS[first_key + i - 1]
    kind = ARGV[first]
    if kind == "r" then
      if ARGV[first + 3] ~= "0" then fill(name, ARGV[first + 1], states[i] + ARGV[first + 3]) end
      first = first + 4
    elseif kind == "c" then
      if ARGV[first + 2] ~= "0" then add(name, ARGV[first + 4], ARGV[first + 2], tonumber(ARGV[first + 3])) end
      first = first + 5
    else
      hold_place(name, states[i], tonumber(ARGV[first + 2]), ARGV[first + 3])
      first = first + 4
    end
  end
end

local function settle()
  local before = call("SET", KEYS[key], "settled", "PX", "${SETTLED_KEPT_MS}", "GET")
  local taken, again = tonumber(before), before == "settled"
  while true do
    key = key + 1
    local kind = ARGV[at]
    if kind == "r" then
      local quota = ARGV[at + 1]
      if taken then fill(KEYS[key], quota, level_of(KEYS[key], quota) + ARGV[at + 2]) end
      at = at + 3
    elseif kind == "c" then
      -- A period that is over is past correcting: its book is gone.
      local left = taken and taken + ARGV[at + 2] - now or 0
      if left > 0 then add(KEYS[key], ARGV[at + 3], ARGV[at + 1], left) end
      at = at + 4
    elseif kind == "p" then
      if taken then call("ZREM", KEYS[key], ARGV[at + 1]) end
      at = at + 2
    elseif kind == "t" then
      if not again then add(KEYS[key], ARGV[at + 3], ARGV[at + 1], tonumber(ARGV[at + 2])) end
      at = at + 4
    else
      at = at + 1
      return
    end
  end
end

local is_settling = false
while at <= #ARGV do
  if ARGV[at] == "s" then
    at = at + 1
    if not is_settling then call("PEXPIRE", KEYS[key], "${SETTLED_KEPT_MS}") end
    is_settling = true
    settle()
  else
    take()
  end
end
return answer
`,
};

/** So many are sent together: Redis does nothing else meanwhile, some tenths of a millisecond. */
const TOGETHER_MAX = 32;
/** While so many calls wait for their answers, operations gather until they are as many. */
const CALLS_MAX = 2;

interface Operation {
  readonly keys: readonly string[];
  readonly args: readonly string[];
  /** How many of the answers are its own. */
  readonly answers: number;
  done(states: readonly RedisReply[]): void;
  failed(fault: unknown): void;
}

/** Operations on their way to Redis. */
class Operations {
  readonly #redis: Redis;
  #takes: Operation[] = [];
  #settlings: Operation[] = [];
  #calls = 0;
  #isScheduled = false;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** Resolves with the operation's own answers. */
  perform(
    kind: "take" | "settle",
    keys: readonly string[],
    args: readonly string[],
    answers: number,
  ): Promise<readonly RedisReply[]> {
    return new Promise((done, failed) => {
      (kind === "take" ? this.#takes : this.#settlings).push({ keys, args, answers, done, failed });
      this.#schedule();
    });
  }

  get #isReady(): boolean {
    const waiting = this.#takes.length + this.#settlings.length;
    return waiting >= (this.#calls < CALLS_MAX ? 1 : TOGETHER_MAX);
  }

  /** Not at once: who was woken by the same answer asks in the same turn. */
  #schedule(): void {
    if (this.#isScheduled || !this.#isReady) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      while (this.#isReady) {
        const takes = this.#takes.splice(0, TOGETHER_MAX);
        void this.#send(takes, this.#settlings.splice(0, TOGETHER_MAX - takes.length));
      }
    });
  }

  /** @param failure of a call that held these settlings before */
  async #send(
    takes: readonly Operation[],
    settlings: readonly Operation[],
    failure?: Fault,
  ): Promise<void> {
    this.#calls++;
    const operations = [...takes, ...settlings];
    try {
      const answers = list(
        await this.#redis.run(
          OPERATIONS,
          operations.flatMap(({ keys }) => keys),
          operations.flatMap(({ args }) => args),
        ),
      );
      let at = 0;
      for (const operation of operations) operation.done(answers.slice(at, at += operation.answers));
    } catch (thrown) {
      // What was sent once stays sent, whatever became of it the second time.
      const fault = failure ?? toFault(thrown);
      for (const take of takes) take.failed(fault);
      // A Redis that is out of memory refuses takes, but settles; and whatever it has settled it will not settle again.
      const again = takes.length > 0 && settlings.length > 0 && fault.details.notSent !== true;
      if (again) await this.#send([], settlings, fault);
      else for (const settling of settlings) settling.failed(fault);
    } finally {
      this.#calls--;
      this.#schedule();
    }
  }
}

/** Opens the store. Its rates and periods run by the clock of the Redis server. `close` leaves the Redis open, which others use too. */
export function openRedisLimitStore(redis: Redis): LimitStore {
  const keyOf = (cell: LimitCell): string =>
    redis.key(cell.kind === "count" ? `book:${cell.book}` : `${cell.kind}:${cell.key}`);

  const operations = new Operations(redis);

  return {
    async take(hold, cells) {
      if (hold === null && cells.length === 0) return [];
      const keys = cells.map(keyOf);
      const args: string[] = [];
      for (const cell of cells) {
        switch (cell.kind) {
          case "rate": {
            const { quota, windowMs, amount } = cell;
            args.push("r", whole(quota), whole((quota - amount) * windowMs), whole(amount * windowMs));
            break;
          }
          case "count":
            args.push("c", whole(cell.quota), whole(cell.amount), whole(cell.endsInMs), cell.key);
            break;
          case "place":
            args.push("p", whole(cell.quota), whole(cell.heldMs), hold ?? crypto.randomUUID());
        }
      }
      if (hold === null) args.push(".");
      else {
        keys.push(redis.key(`hold:${hold}`));
        args.push("h", whole(holdKeptMs(cells)));
      }
      const states = await operations.perform("take", keys, args, keys.length);
      if (hold !== null && states[cells.length] === 0) throw holdRefused();
      return decideCells(cells, cells.map((_, index) => stateOf(states[index]))).decisions;
    },

    async settle(hold, used, tallies) {
      const keys = [redis.key(`hold:${hold}`)];
      const args = ["s"];
      for (const { cell, used: amount } of used) {
        if (cell.kind === "place") args.push("p", hold);
        else if (amount === cell.amount) continue;
        else if (cell.kind === "rate") {
          args.push("r", whole(cell.quota), whole((amount - cell.amount) * cell.windowMs));
        } else args.push("c", whole(amount - cell.amount), whole(cell.endsInMs), cell.key);
        keys.push(keyOf(cell));
      }
      for (const { book, key, amount, keptMs } of tallies) {
        if (amount === 0) continue;
        keys.push(redis.key(`book:${book}`));
        args.push("t", whole(amount), whole(keptMs), key);
      }
      args.push(".");
      await operations.perform("settle", keys, args, 0);
    },

    async sums(book, keys) {
      const key = redis.key(`book:${book}`);
      const sums = new Map<string, number>();
      for (let at = 0; keys !== undefined && at < keys.length; at += PAGE_MAX) {
        const asked = keys.slice(at, at + PAGE_MAX);
        const page = list(await redis.call(key, ["HMGET", key, ...asked]));
        asked.forEach((each, index) => sums.set(each, Number(text(page[index] ?? null))));
      }
      for (let cursor = "0"; keys === undefined;) {
        // It may show a sum twice, but leaves none out that is there all the while.
        const scanned = list(await redis.call(key, ["HSCAN", key, cursor, "COUNT", `${PAGE_MAX}`]));
        const page = list(scanned[1] ?? null);
        for (let at = 0; at < page.length; at += 2) {
          sums.set(text(page[at] ?? null), Number(text(page[at + 1] ?? null)));
        }
        cursor = text(scanned[0] ?? null);
        if (cursor === "0") break;
      }
      for (const [each, sum] of sums) if (sum === 0) sums.delete(each);
      return sums;
    },

    close: () => Promise.resolve(),
  };
}

/** So many sums come in one answer: a connection that many share waits for no whole book. */
const PAGE_MAX = 500;
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** A number as Redis reads it: whole, a fraction of a millisecond rounded up; one beyond what is exact would fail all in its call. */
function whole(value: number): string {
  return `${Math.max(-Number.MAX_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, Math.ceil(value)))}`;
}

function list(reply: RedisReply): readonly RedisReply[] {
  if (Array.isArray(reply)) return reply;
  throw new Fault("unavailable", "Cannot read the limit store: Redis answered something that is no list");
}

function stateOf(reply: RedisReply | undefined): number {
  return typeof reply === "number" ? reply : Number(text(reply ?? null));
}

function text(reply: RedisReply): string {
  return reply instanceof Uint8Array ? decoder.decode(reply) : `${reply ?? ""}`;
}
