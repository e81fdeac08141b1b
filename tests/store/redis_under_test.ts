// Redis under test: the port to a real redis-server that a test has started.
import { parseRedisAddress } from "../../src/config/redis_setting.ts";
import { openRedis } from "../../src/store/redis/open_redis.ts";
import type { Redis } from "../../src/store/redis/redis.ts";

/** Slow enough for a machine that does much else. */
const TIMEOUT_MS = 2_000;

/** @param prefix what keeps the keys of one test from those of others on the same server */
export async function openRedisUnderTest(server: { readonly url: string }, prefix: string): Promise<Redis> {
  const address = parseRedisAddress(server.url);
  if (address === undefined) throw new Error(`${server.url} is no address of a Redis`);
  return await openRedis({ address, prefix, caCertificates: undefined, timeoutMs: TIMEOUT_MS }, {
    stateChanged() {},
  });
}
