// Tests of the limit store in Redis: the contract, and what only a server that many share can do and suffer.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../src/faults/fault.ts";
import type { LimitDecision, LimitStore } from "../../src/limits/limit_store.ts";
import { openRedisLimitStore } from "../../src/limits/redis_limit_store.ts";
import type { Redis } from "../../src/store/redis/redis.ts";
import { isFault } from "../identity/is_fault.ts";
import { openRedisUnderTest } from "../store/redis_under_test.ts";
import { hasRedisServer, type RedisServer, startRedisServer } from "../support/redis_server.ts";
import { racedCells, raceForLimit } from "./fixtures/take_many.ts";
import { count, place, rate, tally, testLimitStoreContract } from "./limit_store_contract.ts";

let shared: RedisServer | undefined;
if (hasRedisServer) {
  Deno.test.beforeAll(async () => {
    shared = await startRedisServer();
  });
  Deno.test.afterAll(() => shared?.stop());
}

function sharedServer(): RedisServer {
  if (shared === undefined) throw new Error("no redis-server was started");
  return shared;
}

let prefixes = 0;

// Nobody can move the server's clock; so all that is kept moves into the past instead.
const MOVE_BACK = {
  lua: `
    local ms = tonumber(ARGV[2])
    for _, key in ipairs(redis.call("KEYS", ARGV[1])) do
      local kind = redis.call("TYPE", key).ok
      if kind == "zset" then
        local kept = redis.call("ZRANGE", key, 0, -1, "WITHSCORES")
        for i = 1, #kept, 2 do redis.call("ZADD", key, string.format("%.0f", kept[i + 1] - ms), kept[i]) end
      elseif kind == "string" then
        local kept = redis.call("GET", key)
        if string.find(key, ":rate:", 1, true) then
          local level, at = struct.unpack("<dd", kept)
          redis.call("SET", key, struct.pack("<dd", level, at - ms), "KEEPTTL")
        elseif kept ~= "settled" then
          redis.call("SET", key, kept - ms, "KEEPTTL")
        end
      end
      local px = redis.call("PTTL", key)
      if px < 0 then error("a key without an end: " .. key) end
      redis.call("PEXPIRE", key, string.format("%.0f", px - ms))
    end
    return 1
  `,
};

testLimitStoreContract("Redis limit store", async () => {
  const prefix = `contract-${prefixes++}`;
  const redis = await openRedisUnderTest(sharedServer(), prefix);
  return {
    store: openRedisLimitStore(redis),
    async advance(ms) {
      await redis.run(MOVE_BACK, [], [`{${prefix}}:*`, `${ms}`]);
    },
    dispose: () => redis.close(),
  };
}, { ignore: !hasRedisServer, realTime: true, propertyRuns: 50 });

/** A test on an empty prefix of a server. */
function redisTest(
  criterion: string,
  run: (world: { server: RedisServer; redis: Redis; prefix: string; store: LimitStore }) => Promise<void>,
  isOwnServer = false,
): void {
  Deno.test({
    name: `Redis limit store: ${criterion}`,
    ignore: !hasRedisServer,
    async fn() {
      const server = isOwnServer ? await startRedisServer() : sharedServer();
      const prefix = `test-${prefixes++}`;
      try {
        const redis = await openRedisUnderTest(server, prefix);
        try {
          await run({ server, redis, prefix, store: openRedisLimitStore(redis) });
        } finally {
          await redis.close();
        }
      } finally {
        if (isOwnServer) await server.stop();
      }
    },
  });
}

redisTest(
  "of 4 instances with 1,000 requests each exactly 500 pass, and refused ones drain nothing",
  async (world) => {
    const { server, prefix, store } = world;
    const taken = await raceForLimit(["redis", server.url, prefix], "rate", 4, new Array(1000).fill(1));
    deepStrictEqual(taken, { requests: 500, amount: 500 });
    deepStrictEqual([...await store.sums("month")], [["raced", 500]]);
    const looked = await store.take(null, racedCells("rate", 0));
    deepStrictEqual(looked.map(({ remaining }) => remaining), [999_500, 0]);
  },
);

redisTest(
  "4 instances use up a budget to the last unit and never go past it",
  async ({ server, prefix, store }) => {
    const amounts = Array.from({ length: 1000 }, (_, index) => index % 7 + 1);
    strictEqual((await raceForLimit(["redis", server.url, prefix], "count", 4, amounts)).amount, 500);
    deepStrictEqual([...await store.sums("month")], [["raced", 500]]);
    const looked = await store.take(null, racedCells("count", 0));
    deepStrictEqual(looked.map(({ remaining }) => remaining), [0, 999_500]);
  },
);

redisTest("a decision is one call, also of many cells", async ({ redis }) => {
  const calls: string[] = [];
  const store = openRedisLimitStore({
    ...redis,
    run(...words) {
      calls.push("run");
      return redis.run(...words);
    },
    call(...words) {
      calls.push("call");
      return redis.call(...words);
    },
  });
  const cells = [rate("a", 5), rate("b", 5), count("a", 5), count("a", 5, 2, "month"), place("a", 5)];
  await store.take("hold", cells);
  await store.settle("hold", cells.map((cell) => ({ cell, used: 2 })), [tally("a", 1), tally("b", 1)]);
  deepStrictEqual(calls, ["run", "run"]);
});

/** The store over a Redis that counts the calls. */
function counting(redis: Redis): { readonly store: LimitStore; calls: number } {
  const counted = {
    calls: 0,
    store: openRedisLimitStore({
      ...redis,
      run(...words) {
        counted.calls++;
        return redis.run(...words);
      },
    }),
  };
  return counted;
}

redisTest("what is asked in one turn goes out together, and each is decided by itself", async ({ redis }) => {
  const counted = counting(redis);
  const { store } = counted;
  await store.settle("given up", [], []);
  await store.take("held", [count("b", 10, 4), place("a", 2)]);
  counted.calls = 0;
  const asked = [
    store.settle("held", [{ cell: count("b", 10, 4), used: 1 }, { cell: place("a", 2), used: 0 }], [
      tally("t", 2),
    ]),
    ...[3, 3, 5, 1].map((amount) => store.take(null, [rate("a", 7, amount), count("a", 100, amount)])),
    store.take("given up", [rate("c", 5), place("a", 2)]),
    store.take("next", [place("a", 2), rate("c", 5)]),
    store.take("empty", []),
  ];
  const [, ...taken] = (await Promise.allSettled(asked)).map((each) =>
    each.status === "rejected"
      ? "refused"
      : each.value?.map(({ allowed, remaining }: LimitDecision) => [allowed, remaining])
  );
  strictEqual(counted.calls, 1);
  deepStrictEqual(taken, [
    [[true, 4], [true, 97]],
    [[true, 1], [true, 94]],
    [[false, 1], [true, 94]],
    [[true, 0], [true, 93]],
    "refused",
    // Settlings come last: the place was still held.
    [[true, 0], [true, 4]],
    [],
  ]);
  deepStrictEqual([[...await store.sums("day")].sort(), [...await store.sums("used")]], [
    [["a", 7], ["b", 1]],
    [["t", 2]],
  ]);
});

redisTest(
  "what is asked while calls are under way goes out together, in bounded lists",
  async ({ redis }) => {
    const counted = counting(redis);
    const asked: Promise<boolean>[] = [];
    const ask = async () => (await counted.store.take(null, [count("a", 150)]))[0]?.allowed === true;
    for (let turn = 0; turn < 20; turn++) {
      asked.push(ask());
      // Answers come in a later turn of the event loop.
      await Promise.resolve().then(() => {}).then(() => {});
    }
    strictEqual(counted.calls, 2);
    await Promise.all(asked);
    strictEqual(counted.calls, 3);
    for (let request = 20; request < 200; request++) asked.push(ask());
    const allowed = (await Promise.all(asked)).filter((each) => each).length;
    deepStrictEqual([allowed, counted.calls], [150, 3 + 6]);
  },
);

redisTest("property: asked together or one by one, the decisions are the same", async ({ redis }) => {
  const key = fc.constantFrom("a", "b");
  const amount = fc.nat(4);
  const cell = fc.oneof(
    fc.record({ key, amount }).map(({ key, amount }) => rate(key, 9, amount)),
    fc.record({ key, amount }).map(({ key, amount }) => count(key, 9, amount)),
    fc.record({ key }).map(({ key }) => place(key, 3)),
  );
  const requests = fc.array(
    fc.record({
      isHeld: fc.boolean(),
      cells: fc.uniqueArray(cell, { maxLength: 3, selector: ({ kind, key }) => `${kind} ${key}` }),
      used: fc.nat(6),
    }),
    { maxLength: 40, size: "max" },
  );
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(requests, async (sequence) => {
      runs++;
      const [together, alone] = ["together", "alone"].map((name) =>
        openRedisLimitStore({ ...redis, key: (each) => redis.key(`${name}${runs}:${each}`) })
      );
      ok(together !== undefined && alone !== undefined);
      const isOver = (decisions: readonly LimitDecision[]) =>
        decisions.map(({ allowed, remaining, retryAfterMs }) => [allowed, remaining, retryAfterMs === 0]);
      const holdOf = (index: number) => sequence[index]?.isHeld ? `hold${index}` : null;
      const settlings = sequence.map(({ cells, used }, index) =>
        [`hold${index}`, cells.map((cell) => ({ cell, used })), [tally("t", used)]] as const
      );
      const first = await Promise.all(
        sequence.map(async ({ cells }, index) => isOver(await together.take(holdOf(index), cells))),
      );
      await Promise.all(settlings.map((settling) => together.settle(...settling)));
      for (const [index, { cells }] of sequence.entries()) {
        deepStrictEqual(isOver(await alone.take(holdOf(index), cells)), first[index]);
      }
      for (const settling of settlings) await alone.settle(...settling);
      const looks = [rate("a", 9, 0), rate("b", 9, 0), place("a", 3), place("b", 3)];
      deepStrictEqual(isOver(await together.take(null, looks)), isOver(await alone.take(null, looks)));
      for (const book of ["day", "used"]) {
        deepStrictEqual(new Map([...await together.sums(book)]), new Map([...await alone.sums(book)]));
      }
    }),
    { numRuns: 30 },
  );
});

redisTest("a call that fails fails all that it held, and the next works", async ({ redis, store }) => {
  await redis.call(redis.key("rate:broken"), ["SET", redis.key("rate:broken"), "no level"]);
  const asked = await Promise.allSettled([
    store.take("first", [count("a", 5)]),
    store.take("second", [rate("broken", 5)]),
    store.take("third", [count("a", 5)]),
    store.settle("fourth", [], [tally("t", 1)]),
  ]);
  // Settlings are told once more, without the takes.
  deepStrictEqual(asked.map(({ status }) => status), ["rejected", "rejected", "rejected", "fulfilled"]);
  for (const hold of ["first", "second", "third"]) {
    await store.settle(hold, [{ cell: count("a", 5), used: 0 }], []);
  }
  deepStrictEqual([[...await store.sums("day")], [...await store.sums("used")]], [[], [["t", 1]]]);
});

redisTest("a settling that may have happened never says that it was not sent", async ({ redis }) => {
  const faults = [
    new Fault("unavailable", "lost"),
    new Fault("unavailable", "down", { notSent: true }),
    new Fault("unavailable", "down", { notSent: true }),
  ];
  const store = openRedisLimitStore({ ...redis, run: () => Promise.reject(faults.shift()) });
  for (const expected of [undefined, true]) {
    const asked = [store.take("a", [rate("a", 1)]), store.settle("b", [], [tally("t", 1)])];
    for (const each of asked) {
      await rejects(
        Promise.resolve<unknown>(each),
        (thrown) => thrown instanceof Fault && thrown.details.notSent === expected,
      );
    }
  }
  strictEqual(faults.length, 0);
});

redisTest("every key has an end", async ({ server, prefix, store }) => {
  const cells = [rate("a", 5), count("a", 5), place("a", 5)];
  await store.take("open", cells);
  await store.take("settled", cells);
  await store.settle("settled", cells.map((cell) => ({ cell, used: 2 })), [tally("a", 1)]);
  await store.settle("unknown", [], [tally("a", 1)]);
  const keys = (await server.cli("--scan", "--pattern", `{${prefix}}:*`)).split("\n");
  deepStrictEqual(keys.map((key) => key.slice(key.indexOf(":") + 1)).sort(), [
    ...["book:day", "book:used", "hold:open", "hold:settled", "hold:unknown", "place:a", "rate:a"],
  ]);
  for (const key of keys) ok(Number(await server.cli("PTTL", key)) > 0, key);
});

redisTest("scripts that Redis forgets in the midst of it are sent again", async ({ server, store }) => {
  let allowed = 0;
  for (let request = 0; request < 20; request++) {
    if (request % 3 === 0) await server.cli("SCRIPT", "FLUSH");
    if ((await store.take(`hold${request}`, [count("a", 10)]))[0]?.allowed) allowed++;
    if (request % 3 === 1) await server.cli("SCRIPT", "FLUSH");
    await store.settle(`hold${request}`, [], [tally("a", 1)]);
  }
  strictEqual(allowed, 10);
  deepStrictEqual([[...await store.sums("day")], [...await store.sums("used")]], [[["a", 10]], [["a", 20]]]);
});

redisTest("keys that end at any moment disturb no decision", async ({ store }) => {
  const cells = [
    rate("a", 1, 1, 1),
    count("a", 1, 1, "book", 1),
    place("a", 1, 1),
    rate("large", 1_000_000, 1_000_000, 2),
  ];
  let allowed = 0;
  for (let request = 0; request < 300; request++) {
    const decisions = await store.take(`hold${request}`, cells);
    for (const [index, { remaining, retryAfterMs, resetAfterMs }] of decisions.entries()) {
      ok(remaining >= 0 && remaining <= (cells[index]?.quota ?? 0), `${remaining} left`);
      ok(Number.isFinite(retryAfterMs) && retryAfterMs >= 0 && Number.isFinite(resetAfterMs));
    }
    if (decisions.every((decision) => decision.allowed)) allowed++;
    await store.settle(`hold${request}`, cells.map((cell) => ({ cell, used: request % 3 })), [
      tally("t", 1, "tallies", 1),
    ]);
    ok([...(await store.sums("tallies")).values()].every((sum) => sum >= 1));
  }
  ok(allowed > 0);
});

redisTest(
  "a rate's key ends when it has drained, so an unused limit takes no room",
  async ({ server, prefix, store }) => {
    await store.take(null, [rate("a", 1000, 1, 1000)]);
    for (let tries = 0; tries < 500; tries++) {
      if (await server.cli("EXISTS", `{${prefix}}:rate:a`) === "0") return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error("the key is still there");
  },
);

redisTest(
  "places whose time is over leave Redis while others are taken",
  async ({ server, prefix, store }) => {
    await store.take(null, [place("a", 10_000)]);
    for (let taken = 1; taken < 5000; taken++) {
      await store.take(null, [place("a", 10_000, 1)]);
      if (Number(await server.cli("ZCARD", `{${prefix}}:place:a`)) < taken) return;
    }
    throw new Error("they are all still there");
  },
);

redisTest("what is beyond all sums counts as much as they hold, and fails nobody", async ({ store }) => {
  const cell = count("a", Number.MAX_SAFE_INTEGER, 1);
  await store.take("hold", [cell, rate("a", 5)]);
  await Promise.all([
    store.settle("hold", [{ cell, used: 2 ** 70 }, { cell: rate("a", 5), used: Infinity }], [
      tally("t", 2 ** 70),
    ]),
    store.settle("other", [], [tally("other", 1)]),
  ]);
  const most = Number.MAX_SAFE_INTEGER;
  deepStrictEqual([[...await store.sums("day")], [...await store.sums("used")].sort()], [[["a", most]], [
    ["other", 1],
    ["t", most],
  ]]);
  strictEqual((await store.take(null, [rate("a", 5, 0)]))[0]?.allowed, false);
});

redisTest("large numbers are kept exactly", async ({ server, redis, prefix, store }) => {
  await store.take("hold", [count("a", 2 ** 53 - 1, 10 ** 15), rate("a", 10 ** 10, 10 ** 10 - 1, 900_000)]);
  strictEqual(await server.cli("HGET", `{${prefix}}:book:day`, "a"), "1000000000000000");
  match(await server.cli("GET", `{${prefix}}:hold:hold`), /^\d{13}$/);
  const level = await redis.call(redis.key("rate:a"), ["GETRANGE", redis.key("rate:a"), "0", "7"]);
  ok(level instanceof Uint8Array);
  strictEqual(new DataView(level.buffer).getFloat64(0, true), 8_999_999_999_100_000);
});

redisTest("a key of another form is a failure, and nothing is taken", async ({ redis, store }) => {
  const key = redis.key("rate:broken");
  for (const form of [["SET", key, "no level"], ["DEL", key], ["LPUSH", key, "x"]]) {
    await redis.call(key, form);
    if (form[0] !== "DEL") {
      await rejects(
        async () => await store.take("hold", [rate("a", 5), rate("broken", 5)]),
        isFault("unavailable"),
      );
    }
  }
  deepStrictEqual((await store.take("hold", [rate("a", 5)]))[0]?.remaining, 4);
});

redisTest("closing it leaves Redis to others", async ({ redis, store }) => {
  await store.close();
  strictEqual(await redis.call(redis.key("x"), ["SET", redis.key("x"), "1", "PX", "1000"]) === null, false);
});

redisTest("out of memory it takes nothing, and what was taken can be settled", async ({ server, store }) => {
  const cells = [rate("a", 5, 2), count("a", 5, 2), place("a", 1)];
  await store.take("hold", cells);
  await server.cli("CONFIG", "SET", "maxmemory", "1");
  for (const cell of [rate("b", 5), count("b", 5), place("b", 5)]) {
    await rejects(async () => await store.take("late", [cell]), isFault("unavailable"));
    await rejects(async () => await store.take(null, [cell]), isFault("unavailable"));
  }
  // Told together with takes as well.
  const [late] = await Promise.allSettled([
    store.take("late", [count("b", 5)]),
    store.settle("hold", cells.map((cell) => ({ cell, used: 1 })), [tally("t", 1)]),
  ]);
  strictEqual(late.status, "rejected");
  await server.cli("CONFIG", "SET", "maxmemory", "0");
  deepStrictEqual([[...await store.sums("day")], [...await store.sums("used")]], [[["a", 1]], [["t", 1]]]);
  deepStrictEqual(
    (await store.take("late", [rate("a", 5), place("a", 1), rate("b", 5), place("b", 5)])).map(
      ({ remaining }) => remaining,
    ),
    [3, 0, 4, 4],
  );
}, true);

redisTest("made read-only it takes and settles nothing", async ({ server, redis, prefix, store }) => {
  const cells = [rate("a", 5, 2), count("a", 5, 2), place("a", 1)];
  await store.take("hold", cells);
  await server.cli("REPLICAOF", "127.0.0.1", "1");
  await rejects(async () => await store.take("late", [rate("a", 5)]), isFault("unavailable"));
  await rejects(async () => await store.settle("hold", [], [tally("t", 1)]), isFault("unavailable"));
  await server.cli("REPLICAOF", "NO", "ONE");
  await redis.close();
  const again = await openRedisUnderTest(server, prefix);
  try {
    const later = openRedisLimitStore(again);
    await later.settle("hold", cells.map((cell) => ({ cell, used: 0 })), [tally("t", 1)]);
    deepStrictEqual([[...await later.sums("day")], [...await later.sums("used")]], [[], [["t", 1]]]);
  } finally {
    await again.close();
  }
}, true);
