// Tests of the limiter over a real Redis that fails: what passes meanwhile, and that afterwards every charge is there once.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { parseRedisAddress } from "../../src/config/redis_setting.ts";
import { Fault } from "../../src/faults/fault.ts";
import type { LimitCell, LimitDecision } from "../../src/limits/limit_store.ts";
import type { GuardedCell } from "../../src/limits/guarded_cell.ts";
import { openRedisLimitStore } from "../../src/limits/redis_limit_store.ts";
import { openRedis } from "../../src/store/redis/open_redis.ts";
import { systemClock } from "../../src/time/clock.ts";
import { hasRedisServer, type RedisServer, startRedisServer } from "../support/redis_server.ts";
import { freePort } from "../support/server_under_test.ts";
import { budget, limiterOver, places, requests, until } from "./limiter_under_test.ts";

/** Several times what a Redis that has to share the machine needs. */
const TIMEOUT_MS = 1000;
const MONTH_MS = 30 * 86_400_000;

/** How Redis fails, and what ends that. */
const FAILURES: readonly {
  readonly name: string;
  fail(server: RedisServer): Promise<unknown> | void;
  repair(server: RedisServer): Promise<unknown> | void;
}[] = [
  {
    name: "is stopped in order and started again",
    // redis-cli loses its connection: that is its answer.
    fail: (server) => server.cli("SHUTDOWN", "NOSAVE").catch(() => {}),
    repair: (server) => server.restart(),
  },
  {
    name: "is killed and started again",
    fail: (server) => server.kill(),
    repair: (server) => server.restart(),
  },
  { name: "hangs (SIGSTOP)", fail: (server) => server.pause(), repair: (server) => server.resume() },
  {
    name: "is out of memory",
    fail: (server) => server.cli("CONFIG", "SET", "maxmemory", "1"),
    repair: (server) => server.cli("CONFIG", "SET", "maxmemory", "0"),
  },
  {
    name: "is read-only",
    fail: (server) => server.cli("REPLICAOF", "127.0.0.1", `${freePort()}`),
    repair: (server) => server.cli("REPLICAOF", "NO", "ONE"),
  },
];

/** A limiter over a Redis that forgets nothing that it answered. */
async function open() {
  const server = await startRedisServer({ persistent: true, args: ["--maxmemory-policy", "noeviction"] });
  const address = parseRedisAddress(server.url);
  ok(address);
  const redis = await openRedis({
    address,
    prefix: "limiter",
    caCertificates: undefined,
    timeoutMs: TIMEOUT_MS,
  }, {
    stateChanged() {},
  });
  const under = limiterOver(openRedisLimitStore(redis), systemClock, 0.25);
  let holds = 0;
  return {
    ...under,
    server,
    newHold: () => `hold-${++holds}`,
    passes: async (hold: string | null, ...cells: readonly GuardedCell[]) =>
      isAllowed(await under.limiter.take(hold, cells)),
    /** Of a budget's book. */
    charged: async (key: string) => (await under.limiter.sums("budget", [key])).get(key) ?? 0,
    tallied: async () => (await under.limiter.sums("usage")).get("a") ?? 0,
    async [Symbol.asyncDispose]() {
      await under[Symbol.asyncDispose]();
      await redis.close();
      await server.stop();
    },
  };
}

type Under = Awaited<ReturnType<typeof open>>;

const isAllowed = (decisions: readonly LimitDecision[]) => decisions.every(({ allowed }) => allowed);

const isUnavailable = (thrown: unknown) =>
  thrown instanceof Fault && thrown.kind === "unavailable" && thrown.details.retryAfterSeconds === 1;

const tally = (amount: number) => ({ book: "usage", key: "a", amount, keptMs: MONTH_MS });

/** Requests of a month: during a test none comes back. */
function monthly(key: string, quota: number): GuardedCell {
  return { ...requests(key, quota), cell: { kind: "rate", key, quota, windowMs: MONTH_MS, amount: 1 } };
}

/** What a cell of a rate has left. */
async function leftOf({ limiter }: Under, { cell }: GuardedCell): Promise<number | undefined> {
  const look: LimitCell = cell.kind === "place" ? cell : { ...cell, amount: 0 };
  return (await limiter.take(null, [{ cell: look, whenStoreFails: "closed", fixed: false }]))[0]?.remaining;
}

/** How often Redis was given a command since `CONFIG RESETSTAT`, by scripts or by clients. */
async function callsOf(server: RedisServer, command: string): Promise<number> {
  const stats = await server.cli("INFO", "commandstats");
  return Number(new RegExp(`^cmdstat_${command}:calls=(\\d+)`, "m").exec(stats)?.[1] ?? 0);
}

/** How many places a fresh taker gets; they are given back. */
async function freePlaces(under: Under, cell: GuardedCell): Promise<number> {
  const holds: string[] = [];
  for (let hold = under.newHold(); await under.passes(hold, cell); hold = under.newHold()) holds.push(hold);
  for (const hold of holds) under.limiter.settle(hold, [{ cell: cell.cell, used: 0 }], []);
  return holds.length;
}

for (const { name, fail, repair } of FAILURES) {
  Deno.test({
    name:
      `when Redis ${name}, what is closed is refused, what is degraded gets its fraction, and no charge is lost or doubled`,
    ignore: !hasRedisServer,
    async fn() {
      await using under = await open();
      const { limiter, server, passes, newHold } = under;
      const [sum, rate, place] = [budget("a", 1000, 100), monthly("a", 1000), places("a", 8)];
      // Under way when it happens.
      ok(await passes("before", sum, rate, place));
      strictEqual(limiter.isDegraded(), false);

      await fail(server);
      // One alone first: where Redis hangs, only time tells.
      await rejects(passes(newHold(), sum, rate, place), isUnavailable);
      strictEqual(limiter.isDegraded(), true);
      await Promise.all(
        Array.from({ length: 20 }, () => rejects(passes(newHold(), sum, place), isUnavailable)),
      );

      let passed = 0;
      for (let request = 0; request < 150; request++) if (await passes(null, monthly("fresh", 400))) passed++;
      strictEqual(passed, 100);
      const running: string[] = [];
      for (let request = 0; request < 8; request++) {
        const hold = newHold();
        if (await passes(hold, rate, place)) running.push(hold);
      }
      strictEqual(running.length, 2);

      limiter.settle(
        "before",
        [sum, rate, place].map(({ cell }) => ({ cell, used: cell.kind === "count" ? 60 : 1 })),
        [
          tally(60),
        ],
      );
      for (const hold of running) {
        limiter.settle(hold, [rate, place].map(({ cell }) => ({ cell, used: 1 })), [tally(7)]);
      }
      ok(await passes(newHold(), places("a", 8)), "the local places are free again");
      strictEqual(limiter.isDegraded(), true);

      await repair(server);
      await until("the limiter recovers", () => !limiter.isDegraded());
      await until(
        "all is settled",
        async () => await under.tallied() === 74 && await under.charged("a") === 60,
      );
      strictEqual(await leftOf(under, rate), 999);
      await until("all places are free", async () => await freePlaces(under, place) === 8);
      deepStrictEqual(await under.limiter.sums("budget"), new Map([["a", 60]]));
      strictEqual(await leftOf(under, monthly("fresh", 400)), 400);
      ok(await passes(newHold(), sum, rate, place));
      deepStrictEqual(await under.events(), ["limits.degraded", "limits.recovered"]);
    },
  });
}

Deno.test({
  name: "takes whose answers are lost while Redis hangs, and which it does later, are given back",
  ignore: !hasRedisServer,
  async fn() {
    await using under = await open();
    const { limiter, server, passes, newHold } = under;
    const cells = [budget("a", 1000, 5), monthly("a", 1000), places("a", 100)];
    ok(await passes("first", ...cells));
    await server.cli("CONFIG", "RESETSTAT");
    server.pause();
    await Promise.all(Array.from({ length: 50 }, () => rejects(passes(newHold(), ...cells), isUnavailable)));
    server.resume();
    await until("the limiter recovers", () => !limiter.isDegraded());
    await until("they are given back", async () => await under.charged("a") === 5);
    await until("their places are free", async () => await freePlaces(under, places("a", 100)) === 99);
    strictEqual(await leftOf(under, monthly("a", 1000)), 999);
    // Given back is what was taken, and nothing else; the few others are probes.
    ok(await callsOf(server, "hincrby") > 40, "Redis did what waited in the socket");
  },
});

Deno.test({
  name: "settlements whose answers are lost while Redis hangs, and which it does later, count once",
  ignore: !hasRedisServer,
  async fn() {
    await using under = await open();
    const { limiter, server, passes, newHold } = under;
    const cells = [budget("a", 1000, 5), monthly("a", 1000), places("a", 100)];
    const settle = (hold: string) =>
      limiter.settle(hold, cells.map(({ cell }) => ({ cell, used: 1 })), [tally(3)]);
    const holds = Array.from({ length: 50 }, newHold);
    for (const hold of ["first", ...holds]) ok(await passes(hold, ...cells));
    // Redis knows the script from then on.
    settle("first");
    await until("the first is settled", async () => await under.tallied() === 3);
    await server.cli("CONFIG", "RESETSTAT");
    server.pause();
    for (const hold of holds) settle(hold);
    await rejects(passes(newHold(), ...cells), isUnavailable);
    server.resume();
    await until("the limiter recovers", () => !limiter.isDegraded());
    await until("all is settled", async () => await under.tallied() >= 153 && await under.charged("a") <= 51);
    await limiter.close(20_000);
    ok(await callsOf(server, "set") > 75, "Redis settled what waited in the socket, and was told again");
    deepStrictEqual(await limiter.sums("budget"), new Map([["a", 51]]));
    deepStrictEqual(await limiter.sums("usage"), new Map([["a", 153]]));
    deepStrictEqual(await under.lines("limits.settlements_dropped"), []);
  },
});

for (
  const { name, interrupt } of [
    {
      name: "hangs again and again",
      interrupt: async (server: RedisServer) => {
        server.pause();
        await new Promise((resolve) => setTimeout(resolve, TIMEOUT_MS * 1.3));
        server.resume();
      },
    },
    { name: "is killed again and again", interrupt: (server: RedisServer) => server.restart() },
  ]
) {
  Deno.test({
    name: `under load, while Redis ${name}, every request that ran is charged once and every other never`,
    ignore: !hasRedisServer,
    async fn() {
      await using under = await open();
      const { limiter, server, newHold } = under;
      const cells = [budget("a", 1_000_000, 5), monthly("a", 100_000), places("a", 64)];
      let ran = 0;
      let refused = 0;
      let isOver = false;
      async function client(): Promise<void> {
        while (!isOver) {
          const hold = newHold();
          try {
            if (!isAllowed(await limiter.take(hold, cells))) continue;
          } catch (thrown) {
            ok(isUnavailable(thrown));
            refused++;
            // As somebody who was told to come again later.
            await new Promise((resolve) => setTimeout(resolve, 20));
            continue;
          }
          await new Promise((resolve) => setTimeout(resolve, 1));
          ran++;
          limiter.settle(hold, cells.map(({ cell }) => ({ cell, used: cell.kind === "count" ? 3 : 1 })), [
            tally(3),
          ]);
        }
      }
      const clients = Array.from({ length: 32 }, client);
      for (let time = 0; time < 3; time++) {
        const before = ran;
        await until("requests run", () => ran > before + 100);
        await interrupt(server);
      }
      const before = ran;
      await until("requests run again", () => ran > before + 100);
      isOver = true;
      await Promise.all(clients);
      await until("the limiter recovers", () => !limiter.isDegraded());
      ok(refused > 0);
      await until("every place is free", async () => await freePlaces(under, places("a", 64)) === 64);
      const left = await leftOf(under, monthly("a", 100_000));
      await limiter.close(20_000);
      deepStrictEqual(await under.lines("limits.settlements_dropped"), []);
      deepStrictEqual(await limiter.sums("budget"), new Map([["a", 3 * ran]]));
      deepStrictEqual(await limiter.sums("usage"), new Map([["a", 3 * ran]]));
      strictEqual(left, 100_000 - ran);
    },
  });
}
