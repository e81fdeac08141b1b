// Tests of the record store in Redis: the contract, and what only a server that many share can do.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { openRedisMark } from "../../src/store/redis_mark.ts";
import { openRedisRecordStore } from "../../src/store/redis_record_store.ts";
import type { RecordChange, RecordStore } from "../../src/store/record_store.ts";
import type { Redis } from "../../src/store/redis/redis.ts";
import { type Clock, systemClock } from "../../src/time/clock.ts";
import { isFault } from "../identity/is_fault.ts";
import { manualClock } from "../support/manual_clock.ts";
import {
  hasRedisServer,
  type RedisServer,
  startRedisCluster,
  startRedisServer,
} from "../support/redis_server.ts";
import { openRedisUnderTest } from "./redis_under_test.ts";
import { countOf, countUp } from "./fixtures/count_up.ts";
import { testRecordStoreContract } from "./record_store_contract.ts";

const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => Uint8Array.from(values);
const text = (value: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(value);

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

testRecordStoreContract("Redis store", async (clock) => {
  const redis = await openRedisUnderTest(sharedServer(), `contract-${prefixes++}`);
  return { store: openRedisRecordStore(redis, clock, "here"), dispose: () => redis.close() };
}, !hasRedisServer);

interface World {
  readonly server: RedisServer;
  readonly redis: Redis;
  readonly prefix: string;
  open(clock: Clock): RecordStore;
}

/** A test on an empty prefix of the shared server. */
function redisTest(criterion: string, run: (world: World) => Promise<void>): void {
  Deno.test({
    name: `Redis store: ${criterion}`,
    ignore: !hasRedisServer,
    async fn() {
      const prefix = `test-${prefixes++}`;
      const redis = await openRedisUnderTest(sharedServer(), prefix);
      try {
        await run({
          server: sharedServer(),
          redis,
          prefix,
          open: (clock) => openRedisRecordStore(redis, clock, "here"),
        });
      } finally {
        await redis.close();
      }
    },
  });
}

/** How many records, keys in order and moments of expiry Redis holds. */
async function held({ server, redis }: World, table: string): Promise<readonly number[]> {
  return [
    Number(await server.cli("HLEN", redis.key(`records:${table}`))),
    Number(await server.cli("ZCARD", redis.key(`record-order:${table}`))),
    Number(await server.cli("ZCARD", redis.key("record-expiries"))),
  ];
}

/** All that Redis holds under the prefix, as text. */
async function dump({ server, redis }: World): Promise<string> {
  const names = (await server.cli("KEYS", redis.key("*").replace(/[[\]]/g, "\\$&"))).split("\n").toSorted();
  const dumps = names.map(async (name) => `${name} ${await server.cli("--no-raw", "DUMP", name)}`);
  return (await Promise.all(dumps)).join("\n");
}

redisTest(
  "ASVS V15.4.2: four instances that race to change one record lose no change",
  async ({ server, prefix }) => {
    const times = 50;
    const instances = await Promise.all(
      Array.from({ length: 4 }, async (_, index) => {
        const redis = await openRedisUnderTest(server, prefix);
        return { redis, store: openRedisRecordStore(redis, systemClock, `instance-${index}`) };
      }),
    );
    await Promise.all(instances.map(({ store }) => countUp(store, times)));
    for (const { redis, store } of instances) {
      strictEqual(countOf(await store.get("t", "count")), 4 * times);
      await redis.close();
    }
  },
);

redisTest(
  "three pages with expired records between them are full, and give every live record once",
  async (world) => {
    const clock = manualClock();
    const store = world.open(clock);
    const keys = Array.from({ length: 30 }, (_, index) => `k${String(index).padStart(2, "0")}`);
    const mortal = new Set(keys.filter((_, index) => index % 2 === 0 || (index > 10 && index < 20)));
    for (const key of keys) {
      const lifetime = mortal.has(key) ? { lifetime: { expiresAtMs: clock.now() + 10 } } : {};
      await store.write([{ table: "t", key, value: text(key), ...lifetime }]);
    }
    const live = keys.filter((key) => !mortal.has(key));
    clock.advance(10);
    strictEqual((await held(world, "t"))[0], 30, "the expired ones are still in Redis");
    const pages: string[][] = [];
    let after: string | undefined;
    for (;;) {
      const page = await store.list("t", { limit: 4, ...(after !== undefined && { after }) });
      for (const { key, value } of page) deepStrictEqual(value, text(key));
      pages.push(page.map(({ key }) => key));
      if (page.length < 4) break;
      after = page.at(-1)?.key;
    }
    deepStrictEqual(pages.flat(), live);
    deepStrictEqual(pages.map(({ length }) => length), [4, 4, 2]);
  },
);

redisTest("a live record behind more expired ones than a call looks at is found", async (world) => {
  const clock = manualClock();
  const store = world.open(clock);
  const changes = Array.from({ length: 2500 }, (_, index): RecordChange => ({
    table: "t",
    key: `a${String(index).padStart(4, "0")}`,
    value: bytes(1),
    lifetime: { expiresAtMs: clock.now() + 10 },
  }));
  strictEqual(await store.write([...changes, { table: "t", key: "b", value: bytes(2) }]), true);
  strictEqual((await store.list("t", { limit: 5000 })).length, 2501);
  clock.advance(10);
  for (const limit of [1, 2, 5000]) {
    deepStrictEqual(await store.list("t", { limit }), [{ key: "b", value: bytes(2) }]);
  }
});

redisTest(
  "values that look like numbers, words of the script or nothing are kept and expected exactly",
  async (world) => {
    const clock = manualClock();
    const store = world.open(clock);
    const values = [
      ..."0|00|1|1.0|01|1e0|-0|nan|inf|nothing|something|anything|=|=1|9007199254740993|\0|\0\0|1\0|\r\n|$-1"
        .split("|"),
      "",
    ].map(text);
    values.push(bytes(0xff, 0xfe), bytes(0xc3, 0x28));
    for (const standing of values) {
      for (const expects of values) {
        await store.put("t", "k", standing, { expiresAtMs: clock.now() + 10 });
        const same = standing === expects;
        strictEqual(await store.write([{ table: "t", key: "k", value: bytes(7), expects }]), same);
        deepStrictEqual(await store.get("t", "k"), same ? bytes(7) : standing);
      }
    }
  },
);

redisTest("a table and a key whose names run together like another's are not that one's", async (world) => {
  const clock = manualClock();
  const store = world.open(clock);
  const places = [["a:b", "c"], ["a", "b:c"], ["a%3Ab", "c"], ["a", "b%3Ac"], [":", ":"], ["", "a"]] as const;
  for (const [index, [table, key]] of places.entries()) {
    await store.put(table, key, bytes(index), { expiresAtMs: clock.now() + 10 });
  }
  for (const [index, [table, key]] of places.entries()) {
    deepStrictEqual(await store.get(table, key), bytes(index));
  }
  clock.advance(100_000);
  await store.put("other", "k", bytes(1));
  for (const [table] of places) {
    deepStrictEqual((await held(world, encodeURIComponent(table))).slice(0, 2), [0, 0]);
  }
});

redisTest(
  "what expired a minute ago leaves Redis with later writes, a hundred a time, whatever table they go to",
  async (world) => {
    const clock = manualClock();
    const store = world.open(clock);
    const changes = Array.from({ length: 250 }, (_, index): RecordChange => ({
      table: "t",
      key: `k${index}`,
      value: bytes(1),
      lifetime: { expiresAtMs: clock.now() + 10 },
    }));
    await store.write(changes);
    await store.put("t", "k7", bytes(2));
    await store.put("t", "k8", bytes(2), { expiresAtMs: clock.now() + 1_000_000 });
    await store.put("t", "forever", bytes(3));
    await store.delete("t", "k9");
    deepStrictEqual(await held(world, "t"), [250, 250, 248]);
    clock.advance(10 + 59_999);
    await store.put("u", "k", bytes(4));
    deepStrictEqual(await held(world, "t"), [250, 250, 248]);
    clock.advance(1);
    const left: (readonly number[])[] = [];
    for (let write = 0; write < 4; write++) {
      // A write that is refused sweeps too.
      strictEqual(await store.create("u", "k", bytes(5)), false);
      left.push(await held(world, "t"));
    }
    deepStrictEqual(left, [[150, 150, 148], [50, 50, 48], [3, 3, 1], [3, 3, 1]]);
    deepStrictEqual((await store.list("t", { limit: 10 })).map(({ key }) => key), ["forever", "k7", "k8"]);
  },
);

redisTest(
  "an instance whose clock runs ahead of Redis's sweeps nothing that others still see",
  async (world) => {
    const clock = manualClock(systemClock.now());
    const store = world.open(clock);
    await store.put("t", "k", bytes(1), { expiresAtMs: clock.now() + 600_000 });
    const ahead = manualClock(systemClock.now() + 86_400_000);
    const beside = world.open(ahead);
    await beside.put("t", "other", bytes(2));
    strictEqual(await beside.get("t", "k"), undefined);
    deepStrictEqual(await store.get("t", "k"), bytes(1));
  },
);

redisTest(
  "tables are found among many other keys, and no other installation's are among them",
  async (world) => {
    const store = world.open(manualClock());
    for (let index = 0; index < 60; index++) await store.put(`table ${index}:*[a]`, "k", bytes(1));
    await Promise.all(
      Array.from(
        { length: 3000 },
        (_, index) => world.redis.call("x", ["SET", world.redis.key(`rate:${index}`), "1"]),
      ),
    );
    const other = await openRedisUnderTest(world.server, `${world.prefix}x`);
    await openRedisRecordStore(other, manualClock(), "there").put("theirs", "k", bytes(1));
    await other.close();
    deepStrictEqual(
      (await store.tables()).toSorted(),
      Array.from({ length: 60 }, (_, index) => `table ${index}:*[a]`).toSorted(),
    );
  },
);

redisTest(
  "a replaced record is told to no feed, and keeps its place in the order and its moment of expiry",
  async (world) => {
    const clock = manualClock();
    const store = world.open(clock);
    await store.put("t", "k", bytes(1), { expiresAtMs: clock.now() + 10 });
    const before = await world.server.cli("GET", world.redis.key("record-change-count"));
    strictEqual(await store.replace("t", [{ key: "k", before: bytes(1), after: bytes(2) }]), 1);
    strictEqual(await world.server.cli("GET", world.redis.key("record-change-count")), before);
    deepStrictEqual(await held(world, "t"), [1, 1, 1]);
  },
);

redisTest("a deleted record leaves nothing of it behind", async (world) => {
  const clock = manualClock();
  const store = world.open(clock);
  await store.put("t", "k", bytes(1), { expiresAtMs: clock.now() + 10 });
  strictEqual(await store.delete("t", "k"), true);
  deepStrictEqual(await held(world, "t"), [0, 0, 0]);
});

for (
  const [failure, setting, value] of [["is full (-OOM)", "maxmemory", "1"], [
    "misses its replicas (-NOREPLICAS)",
    "min-replicas-to-write",
    "1",
  ]] as const
) {
  redisTest(
    `ASVS V16.5.3: a write to a Redis that ${failure} is a fault and changes nothing`,
    async (world) => {
      const store = world.open(manualClock());
      await store.put("t", "changed", bytes(1));
      await store.put("t", "deleted", bytes(2));
      const before = await dump(world);
      await world.server.cli("CONFIG", "SET", setting, value);
      try {
        for (
          const write of [
            () => store.put("t", "changed", bytes(3)),
            () => store.create("t", "new", bytes(3)),
            () =>
              store.write([
                { table: "t", key: "changed", value: bytes(3), expects: bytes(1) },
                { table: "u", key: "new", value: bytes(3), expects: "nothing" },
                { table: "t", key: "deleted", value: undefined },
              ]),
          ]
        ) await rejects(write(), isFault("unavailable"));
        strictEqual(await dump(world), before);
        deepStrictEqual(await store.get("t", "changed"), bytes(1));
        strictEqual((await store.list("t", { limit: 10 })).length, 2);
      } finally {
        await world.server.cli("CONFIG", "SET", setting, "0");
      }
      await store.put("t", "changed", bytes(3));
      deepStrictEqual(await store.get("t", "changed"), bytes(3));
    },
  );
}

redisTest("a full Redis still deletes, and takes writes that begin with a deletion whole", async (world) => {
  const store = world.open(manualClock());
  await store.put("t", "a", bytes(1));
  await store.put("t", "b", bytes(2));
  await world.server.cli("CONFIG", "SET", "maxmemory", "1");
  try {
    strictEqual(await store.delete("t", "a"), true);
    strictEqual(
      await store.write([{ table: "t", key: "b", value: undefined }, {
        table: "t",
        key: "c",
        value: bytes(3),
      }]),
      true,
    );
    deepStrictEqual(await store.list("t", { limit: 10 }), [{ key: "c", value: bytes(3) }]);
  } finally {
    await world.server.cli("CONFIG", "SET", "maxmemory", "0");
  }
});

redisTest("a full Redis gets its memory back from what has expired", async (world) => {
  const clock = manualClock();
  const store = world.open(clock);
  await store.put("t", "k", bytes(1), { expiresAtMs: clock.now() + 10 });
  clock.advance(100_000);
  await world.server.cli("CONFIG", "SET", "maxmemory", "1");
  try {
    await store.put("t", "new", bytes(2));
    deepStrictEqual(await held(world, "t"), [1, 1, 0]);
  } finally {
    await world.server.cli("CONFIG", "SET", "maxmemory", "0");
  }
});

redisTest(
  "a moment of expiry that is no whole number is a fault, and the write changes nothing",
  async (world) => {
    const store = world.open(manualClock());
    for (const expiresAtMs of [0.5, NaN, Infinity, 2 ** 53]) {
      await rejects(
        store.write([
          { table: "t", key: "a", value: bytes(1) },
          { table: "t", key: "b", value: bytes(1), lifetime: { expiresAtMs } },
        ]),
        isFault("unavailable"),
      );
    }
    await store.put("t", "past", bytes(1), { expiresAtMs: -5 });
    deepStrictEqual(await store.list("t", { limit: 10 }), []);
  },
);

redisTest("what somebody else put into Redis is a fault, never a value", async (world) => {
  const store = world.open(manualClock());
  await store.put("t", "k", bytes(1));
  for (const alien of ["", "1", "123456789012345", "12345678901234 6value", "-000000000000001value"]) {
    await world.server.cli("HSET", world.redis.key("records:t"), "k", alien);
    await rejects(store.get("t", "k"), isFault("unavailable"));
    await rejects(store.list("t", { limit: 1 }), isFault("unavailable"));
  }
  await world.server.cli("SET", world.redis.key("records:other"), "text");
  await rejects(store.get("other", "k"), isFault("unavailable"));
  await rejects(store.put("other", "k", bytes(1)), isFault("unavailable"));
});

redisTest("the log of changes is cut to the length that is kept", async (world) => {
  const store = openRedisRecordStore(world.redis, manualClock(), "here", { changesKeptMax: 5 });
  const changes = Array.from(
    { length: 9 },
    (_, index) => ({ table: "t", key: `k${index}`, value: bytes(1) }),
  );
  await store.write(changes);
  for (let write = 0; write < 9; write++) await store.put("t", "k", bytes(write));
  strictEqual(await world.server.cli("LLEN", world.redis.key("record-changes")), "6");
  strictEqual(await world.server.cli("GET", world.redis.key("record-change-count")), "18");
});

const MARK = { table: "installation", key: "id", value: bytes(1, 2, 3) };

for (
  const [loss, lose] of [
    ["no mark", (store: RecordStore) => store.delete(MARK.table, MARK.key)],
    ["another mark", (store: RecordStore) => store.put(MARK.table, MARK.key, bytes(9))],
    [
      "a mark that expires",
      (store: RecordStore) =>
        store.put(MARK.table, MARK.key, MARK.value, { expiresAtMs: systemClock.now() + 1e9 }),
    ],
  ] as const
) {
  redisTest(
    `a store that has ${loss} is written to no more by who knows another, and then not read either`,
    async (world) => {
      const clock = manualClock();
      const told: string[] = [];
      const mark = openRedisMark(({ message }) => void told.push(message));
      const store = openRedisRecordStore(world.redis, clock, "here", { mark });
      const stranger = world.open(clock);
      await store.put(MARK.table, MARK.key, MARK.value);
      await store.put("t", "k", bytes(1), { expiresAtMs: clock.now() + 10 });
      store.requireMark(MARK);
      await store.put("t", "k", bytes(2), { expiresAtMs: clock.now() + 10 });
      await lose(stranger);
      clock.advance(100_000);
      const before = await dump(world);
      for (
        const write of [
          () => store.put("t", "k", bytes(3)),
          () => store.create("t", "new", bytes(3)),
          () => store.delete("t", "k"),
          () => store.write([]),
          () => store.put(MARK.table, MARK.key, MARK.value),
        ]
      ) await rejects(write(), isFault("unavailable"));
      strictEqual(await dump(world), before, "nothing was swept either");
      // Nor when it comes back: what happened meanwhile nobody knows.
      await stranger.put(MARK.table, MARK.key, MARK.value);
      await rejects(store.get("t", "k"), isFault("unavailable"));
      await rejects(store.list("t", { limit: 1 }), isFault("unavailable"));
      strictEqual(mark.isLost(), true);
      strictEqual(told.length, 1);
      match(told[0] ?? "", /it is not the one this instance started with/);
    },
  );
}

Deno.test({
  name: "Redis store: everything works in a cluster, the sweep of other tables as well",
  ignore: !hasRedisServer,
  async fn() {
    const cluster = await startRedisCluster();
    try {
      const redis = await openRedisUnderTest(cluster, "cluster");
      const clock = manualClock();
      const store = openRedisRecordStore(redis, clock, "here");
      await store.put("t", "k", bytes(1), { expiresAtMs: clock.now() + 10 });
      strictEqual(await store.create("u", "k", bytes(2)), true);
      strictEqual(
        await store.write([{
          table: "t",
          key: "k",
          value: bytes(3),
          expects: bytes(1),
          lifetime: { expiresAtMs: clock.now() + 10 },
        }, {
          table: "v",
          key: "k",
          value: bytes(4),
          expects: "nothing",
        }]),
        true,
      );
      deepStrictEqual(await store.list("t", { limit: 10 }), [{ key: "k", value: bytes(3) }]);
      await store.put(MARK.table, MARK.key, MARK.value);
      store.requireMark(MARK);
      clock.advance(100_000);
      strictEqual(await store.delete("v", "k"), true);
      const node = await cluster.nodeOf(redis.key("records:t"));
      strictEqual(await node.cli("EXISTS", redis.key("records:t"), redis.key("record-expiries")), "0");
      ok(await store.get("u", "k"));
      await redis.close();
    } finally {
      await cluster.stop();
    }
  },
});
