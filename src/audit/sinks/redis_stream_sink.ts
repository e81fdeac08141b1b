// Redis stream sink: entries in a stream, each exactly once, for its number is the id that Redis takes only once.
import { findRedis } from "../../store/redis/find_redis.ts";
import { plainWords, type RedisConnection, RedisErrorReply } from "../../store/redis/redis_connection.ts";
import type { ShippedEntry } from "./shipped_entry.ts";
import { type Sink, SinkFault } from "./sink.ts";
import type { RedisStreamOptions } from "./sink_options.ts";

const TIMEOUT_MS = 10_000;

/**
 * Adds entries in their order, up to the first failure: an entry that is added after one that was not could never be mended. The id is
 * `SEQ-0`. What Redis has already must be the same entry, or older than all that the stream still keeps. Answers 0, or the number of
 * an entry in whose place another one stands.
 */
const ADD = `
local stream, entriesMax, trail = KEYS[1], ARGV[1], ARGV[2]
for at = 3, #ARGV, 3 do
  local seq, hash, entry = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local id = seq .. '-0'
  local added = redis.pcall('XADD', stream, 'MAXLEN', '~', entriesMax, id, 'entry', entry, 'hash', hash, 'trail', trail)
  if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
    local there = redis.call('XRANGE', stream, id, id)[1]
    if there then
      if there[2][4] ~= hash or there[2][6] ~= trail then return tonumber(seq) end
    else
      local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
      if oldest and tonumber(seq) >= tonumber(string.match(oldest[1], '^%d+')) then return tonumber(seq) end
    end
  end
end
return 0
`;

/** A sink of one stream, which one trail fills. */
export function openRedisStreamSink(options: RedisStreamOptions): Sink<ShippedEntry> {
  const { stream, entriesMax, address, caCertificates } = options;
  // The probe's key has the stream's name as its hash tag: in a cluster both are carried by one node.
  const find = findRedis({ address, prefix: stream, caCertificates, timeoutMs: TIMEOUT_MS });
  let connection: RedisConnection | undefined;

  return {
    acknowledges: true,
    async send(entries) {
      const [first] = entries;
      if (first === undefined) return;
      const words = entries.flatMap(({ seq, hash, line }) => [`${seq}`, hash, line]);
      let answer: unknown;
      try {
        connection ??= await find();
        answer = await connection.send(["EVAL", ADD, "1", stream, `${entriesMax}`, first.trail, ...words]);
      } catch (thrown) {
        // Whatever it was, somebody else may carry the keys by now.
        connection?.close();
        connection = undefined;
        throw new SinkFault(
          thrown instanceof RedisErrorReply
            ? plainWords(thrown)
            : thrown instanceof Error
            ? thrown.message
            : "",
        );
      }
      if (answer !== 0) {
        throw new SinkFault(
          `another entry stands in the stream where entry ${answer} belongs: name another stream`,
        );
      }
    },
    close() {
      connection?.close();
      return Promise.resolve(true);
    },
  };
}
