// Strikes in Redis: all instances count together, by its time.
import { Fault } from "../faults/fault.ts";
import type { Redis, RedisScript } from "../store/redis/redis.ts";
import type { Strikes, StrikeThresholds } from "./strikes.ts";

/**
 * A list of times in milliseconds, the oldest first, never longer than the threshold. It lives as long as its newest time.
 *
 * KEYS: the list · ARGV: threshold, window in milliseconds
 */
const ADD: RedisScript = {
  lua: `
local count, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local oldest = redis.call("LINDEX", KEYS[1], 0)
while oldest and now - tonumber(oldest) >= window do
  redis.call("LPOP", KEYS[1])
  oldest = redis.call("LINDEX", KEYS[1], 0)
end
if redis.call("LLEN", KEYS[1]) + 1 >= count then
  redis.call("DEL", KEYS[1])
  return 1
end
redis.call("RPUSH", KEYS[1], string.format("%.0f", now))
redis.call("PEXPIRE", KEYS[1], window)
return 0
`,
};

/**
 * Counts in a Redis.
 *
 * @param labelNetwork a keyed pseudonym: names of keys rest as they are
 */
export function openRedisStrikes(
  redis: Redis,
  thresholds: StrikeThresholds,
  labelNetwork: (network: string) => string,
): Strikes {
  return {
    async add(trigger, network) {
      const { count, seconds } = thresholds[trigger];
      const key = redis.key(`strikes:${trigger}:${labelNetwork(network)}`);
      const reply = await redis.run(ADD, [key], [String(count), String(seconds * 1000)]);
      if (reply !== 0 && reply !== 1) {
        throw new Fault("unavailable", "Cannot count a strike: Redis answered with something else");
      }
      return reply === 1;
    },
  };
}
