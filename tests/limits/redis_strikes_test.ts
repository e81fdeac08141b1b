// Tests of strikes in Redis: the contract, four instances that count together, and what is left in Redis.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { hash } from "node:crypto";
import { Fault } from "../../src/faults/fault.ts";
import { openRedisStrikes } from "../../src/limits/redis_strikes.ts";
import type { Strikes, StrikeThresholds } from "../../src/limits/strikes.ts";
import type { Redis } from "../../src/store/redis/redis.ts";
import { hasRedisServer, type RedisServer, startRedisServer } from "../support/redis_server.ts";
import { openRedisUnderTest } from "../store/redis_under_test.ts";
import { testStrikes, THRESHOLDS } from "./strikes_contract.ts";

const label = (network: string): string => hash("sha256", network, "base64url");
const KEY = `{test}:strikes:credentials:${label("192.0.2.1")}`;

/** Instances that share a Redis. */
async function openStrikes(
  instances: number,
  thresholds: StrikeThresholds = THRESHOLDS,
): Promise<{
  readonly server: RedisServer;
  readonly strikes: readonly Strikes[];
  dispose(): Promise<void>;
}> {
  const server = await startRedisServer();
  const opened: Redis[] = [];
  const dispose = async (): Promise<void> => {
    for (const redis of opened) await redis.close();
    await server.stop();
  };
  try {
    for (let instance = 0; instance < instances; instance++) {
      opened.push(await openRedisUnderTest(server, "test"));
    }
    return { server, strikes: opened.map((redis) => openRedisStrikes(redis, thresholds, label)), dispose };
  } catch (thrown) {
    await dispose();
    throw thrown;
  }
}

testStrikes("in Redis (redis-server is needed)", async (thresholds) => {
  const { strikes: [strikes], dispose } = await openStrikes(1, thresholds);
  ok(strikes);
  return { strikes, pass: (ms) => new Promise((resolve) => setTimeout(resolve, ms)), dispose };
}, !hasRedisServer);

function testWithRedis(
  name: string,
  instances: number,
  run: (opened: { readonly server: RedisServer; readonly strikes: readonly Strikes[] }) => Promise<void>,
): void {
  Deno.test({
    name: `${name} (redis-server is needed)`,
    ignore: !hasRedisServer,
    async fn() {
      const opened = await openStrikes(instances);
      try {
        await run(opened);
      } finally {
        await opened.dispose();
      }
    },
  });
}

testWithRedis(
  "of 400 strikes at once on four instances every fifth reaches a threshold of five",
  4,
  async ({ strikes }) => {
    const reached = await Promise.all(
      Array.from({ length: 400 }, (_, at) => strikes[at % 4]?.add("validation", "192.0.2.1")),
    );
    strictEqual(reached.filter((each) => each === true).length, 80);
    strictEqual(reached.filter((each) => each === false).length, 320);
  },
);

testWithRedis(
  "a strike rests under a label of its network and lives as long as its window, longer with each further one",
  1,
  async ({ server, strikes: [strikes] }) => {
    await strikes?.add("credentials", "192.0.2.1");
    strictEqual(await server.cli("KEYS", "*"), KEY);
    const livesMs = async (): Promise<number> => Number(await server.cli("PTTL", KEY));
    ok(await livesMs() > 0 && await livesMs() <= 60_000);
    await server.cli("PEXPIRE", KEY, "30000");
    await strikes?.add("credentials", "192.0.2.1");
    ok(await livesMs() > 30_000);
    strictEqual(await server.cli("LLEN", KEY), "2");
    strictEqual(await strikes?.add("credentials", "192.0.2.1"), true);
    strictEqual(await server.cli("KEYS", "*"), "");
  },
);

testWithRedis(
  "a count whose key goes in the midst of it, and with it all scripts, starts anew",
  1,
  async ({ server, strikes: [strikes] }) => {
    await strikes?.add("credentials", "192.0.2.1");
    await strikes?.add("credentials", "192.0.2.1");
    await server.cli("DEL", KEY);
    await server.cli("SCRIPT", "FLUSH");
    const reached = [1, 2, 3].map(() => strikes?.add("credentials", "192.0.2.1"));
    deepStrictEqual(await Promise.all(reached), [false, false, true]);
  },
);

testWithRedis(
  "a Redis without memory, and a key of another kind, are failures of the store",
  1,
  async ({ server, strikes: [strikes] }) => {
    const isUnavailable = (thrown: unknown) => thrown instanceof Fault && thrown.kind === "unavailable";
    const add = async () => await strikes?.add("credentials", "192.0.2.1");
    await server.cli("CONFIG", "SET", "maxmemory", "1");
    await rejects(add, isUnavailable);
    await server.cli("CONFIG", "SET", "maxmemory", "0");
    await server.cli("SET", KEY, "x");
    await rejects(add, isUnavailable);
    await server.cli("DEL", KEY);
    strictEqual(await add(), false);
  },
);
