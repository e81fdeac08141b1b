// Tests of the change feed of a Redis: what one instance writes, the followers of the others are told.
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import type { Fault } from "../../src/faults/fault.ts";
import type { ChangeFeed } from "../../src/store/change_feed.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import type { Redis } from "../../src/store/redis/redis.ts";
import { openRedisChangeFeed, type RedisChangeFeedOptions } from "../../src/store/redis_change_feed.ts";
import { openRedisMark } from "../../src/store/redis_mark.ts";
import { openRedisRecordStore } from "../../src/store/redis_record_store.ts";
import { isFault } from "../identity/is_fault.ts";
import { type ManualClock, manualClock } from "../support/manual_clock.ts";
import { hasRedisServer, type RedisServer, startRedisServer } from "../support/redis_server.ts";
import { openRedisUnderTest } from "./redis_under_test.ts";

const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => Uint8Array.from(values);
const STALE_MS_MAX = 500;
const CHANGES_KEPT_MAX = 10;
/** A feed that asks by itself so rarely asks in these tests only when it is told to. */
const NEVER_MS = 1_000_000;

interface World {
  readonly server: RedisServer;
  readonly clock: ManualClock;
  /** Connects another instance. */
  connect(): Promise<Redis>;
  /** The store of another instance. */
  openStore(): Promise<RecordStore>;
  /** A feed that asks only when told to. */
  openFeed(options?: Partial<RedisChangeFeedOptions>): Promise<ChangeFeed>;
  readonly faults: Fault[];
}

/** A test on a server of its own. */
function feedTest(
  criterion: string,
  run: (world: World) => Promise<void>,
  persistent: boolean = false,
): void {
  Deno.test({
    name: `Redis change feed: ${criterion}`,
    ignore: !hasRedisServer,
    async fn() {
      const server = await startRedisServer({ persistent });
      const opened: { close(): Promise<void> }[] = [];
      const clock = manualClock();
      const faults: Fault[] = [];
      let instances = 0;
      const connect = async () => {
        const redis = await openRedisUnderTest(server, "feed");
        opened.push(redis);
        return redis;
      };
      try {
        await run({
          server,
          clock,
          faults,
          connect,
          openStore: async () =>
            openRedisRecordStore(await connect(), clock, `instance-${++instances}`, {
              changesKeptMax: CHANGES_KEPT_MAX,
              quietTables: ["quiet"],
            }),
          async openFeed(options) {
            const feed = await openRedisChangeFeed({
              redis: options?.redis ?? await connect(),
              clock,
              everyMs: NEVER_MS,
              staleMsMax: STALE_MS_MAX,
              onFault: (fault) => void faults.push(fault),
              ...options,
            });
            opened.push(feed);
            return feed;
          },
        });
      } finally {
        for (const each of opened.toReversed()) await each.close();
        await server.stop();
      }
    },
  });
}

/** Follows some tables; gives what was told since it was last asked, in order of keys. */
function listen(feed: ChangeFeed, ...tables: string[]): () => readonly string[] {
  const told: string[] = [];
  for (const table of tables) feed.follow(table, (key) => void told.push(`${table} ${key ?? "all"}`));
  return () => told.splice(0).toSorted();
}

/** Asks until Redis, which has just been started again, answers. */
async function recover(feed: ChangeFeed): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    try {
      return await feed.catchUp();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  throw new Error("the feed did not recover");
}

feedTest(
  "a master that takes no writes is not believed: what changes now may change elsewhere",
  async (world) => {
    const feed = await world.openFeed();
    await feed.catchUp();
    await world.server.cli("CONFIG", "SET", "min-replicas-to-write", "1");
    await rejects(feed.catchUp(), isFault("unavailable"));
    world.clock.advance(STALE_MS_MAX + 1);
    strictEqual(feed.isCurrent(), false);
    await world.server.cli("CONFIG", "SET", "min-replicas-to-write", "0");
    await feed.catchUp();
    strictEqual(feed.isCurrent(), true);
  },
);

feedTest("changes of a quiet table are told to nobody, and take no place of others", async (world) => {
  const store = await world.openStore();
  const feed = await world.openFeed();
  const heard = listen(feed, "t", "quiet");
  await store.put("t", "a", bytes(1));
  for (let count = 0; count < 2 * CHANGES_KEPT_MAX; count++) await store.put("quiet", `k${count}`, bytes(1));
  await feed.catchUp();
  deepStrictEqual(heard(), ["t a"]);
});

feedTest(
  "what an instance changes is told to the followers of its table, on every instance",
  async (world) => {
    const [one, two] = [await world.openStore(), await world.openStore()];
    await one.put("t", "before", bytes(1));
    const feeds = [await world.openFeed(), await world.openFeed()];
    const heard = feeds.map((feed) => listen(feed, "t", "u:%", "silent"));
    const all = async () => {
      await Promise.all(feeds.map((feed) => feed.catchUp()));
      const [first, second] = heard.map((take) => take());
      deepStrictEqual(first, second);
      return first;
    };
    deepStrictEqual(await all(), []);
    await one.put("t", "a", bytes(1));
    await two.create("u:%", "b:c\n\u{1f600}", bytes(1));
    deepStrictEqual(await all(), ["t a", "u:% b:c\n\u{1f600}"]);
    await two.write([
      { table: "t", key: "a", value: bytes(2), expects: bytes(1) },
      { table: "t", key: "c", value: bytes(2) },
      { table: "unheard", key: "d", value: bytes(2) },
    ]);
    await two.put("t", "a", bytes(3));
    deepStrictEqual(await all(), ["t a", "t c"]);
    await one.delete("t", "c");
    deepStrictEqual(await all(), ["t c"]);
    deepStrictEqual(await all(), []);
    deepStrictEqual(world.faults, []);
  },
);

feedTest("what changed nothing is not told", async (world) => {
  const store = await world.openStore();
  await store.put("t", "k", bytes(1));
  const feed = await world.openFeed();
  const heard = listen(feed, "t");
  strictEqual(await store.create("t", "k", bytes(2)), false);
  strictEqual(await store.delete("t", "other"), false);
  strictEqual(await store.write([{ table: "t", key: "other", value: undefined }]), true);
  strictEqual(await store.write([]), true);
  strictEqual(
    await store.write([{ table: "t", key: "l", value: bytes(1) }, {
      table: "t",
      key: "k",
      value: bytes(1),
      expects: bytes(2),
    }]),
    false,
  );
  await feed.catchUp();
  deepStrictEqual(heard(), []);
});

feedTest("it asks by itself, and stops when it is closed", async (world) => {
  const store = await world.openStore();
  const feed = await world.openFeed({ everyMs: 5 });
  const told = Promise.withResolvers<string | undefined>();
  feed.follow("t", told.resolve);
  await store.put("t", "k", bytes(1));
  strictEqual(await told.promise, "k");
  await feed.close();
  const heard = listen(feed, "t");
  await store.put("t", "l", bytes(1));
  await new Promise((resolve) => setTimeout(resolve, 30));
  await rejects(feed.catchUp(), isFault("unavailable"));
  deepStrictEqual(heard(), []);
  deepStrictEqual(world.faults, []);
});

feedTest(
  "as many changes as are kept are told one by one; one more, and all tables count as changed",
  async (world) => {
    const store = await world.openStore();
    for (const before of [0, 3, 30]) {
      for (let index = 0; index < before; index++) await store.put("t", "before", bytes(index));
      const feed = await world.openFeed();
      const heard = listen(feed, "t", "u");
      const behind = await world.openFeed();
      const heardBehind = listen(behind, "t", "u");
      for (let index = 0; index < CHANGES_KEPT_MAX; index++) await store.put("t", `k${index}`, bytes(1));
      await feed.catchUp();
      deepStrictEqual(heard(), Array.from({ length: CHANGES_KEPT_MAX }, (_, index) => `t k${index}`));
      for (let index = 0; index <= CHANGES_KEPT_MAX; index++) await store.put("t", `k${index}`, bytes(1));
      await feed.catchUp();
      await behind.catchUp();
      deepStrictEqual(heard(), ["t all", "u all"]);
      deepStrictEqual(heardBehind(), ["t all", "u all"]);
      await store.put("u", "k", bytes(1));
      await feed.catchUp();
      deepStrictEqual(heard(), ["u k"]);
      await world.server.cli("FLUSHALL");
    }
  },
);

feedTest(
  "after FLUSHALL everything counts as changed, however much is written before it is noticed",
  async (world) => {
    const store = await world.openStore();
    for (const after of [0, 1, 5, 6, 30]) {
      for (let index = 0; index < 5; index++) await store.put("t", "k", bytes(index));
      const feed = await world.openFeed();
      const heard = listen(feed, "t", "u");
      await world.server.cli("FLUSHALL");
      for (let index = 0; index < after; index++) await store.put("t", "k", bytes(index));
      await feed.catchUp();
      deepStrictEqual(heard(), ["t all", "u all"], `${after} changes afterwards`);
      await feed.catchUp();
      deepStrictEqual(heard(), []);
      await store.put("t", "l", bytes(1));
      await feed.catchUp();
      deepStrictEqual(heard(), ["t l"]);
      await world.server.cli("FLUSHALL");
    }
  },
);

feedTest(
  "an older copy of the data that takes over and is written on is noticed by another change in the place of the last",
  async (world) => {
    const [store, other] = [await world.openStore(), await world.openStore()];
    await store.put("t", "kept", bytes(1));
    const names = (await world.server.cli("KEYS", "*")).split("\n");
    for (const name of names) await world.server.cli("COPY", name, `older-${name}`);
    for (let index = 0; index < 3; index++) await store.put("t", "lost", bytes(index));
    const feed = await world.openFeed();
    const heard = listen(feed, "t");
    for (const name of names) await world.server.cli("RENAME", `older-${name}`, name);
    for (let index = 0; index < 4; index++) await other.put("t", "new", bytes(index));
    await feed.catchUp();
    deepStrictEqual(heard(), ["t all"]);
  },
);

for (const persistent of [true, false]) {
  feedTest(
    `ASVS V16.5.2: while Redis is away it is soon not current; when Redis is back with ${
      persistent ? "its data, only changes are told" : "nothing, everything counts as changed"
    }`,
    async (world) => {
      const [store, feed] = [await world.openStore(), await world.openFeed()];
      await store.put("t", "k", bytes(1));
      const heard = listen(feed, "t");
      await feed.catchUp();
      heard();
      strictEqual(feed.isCurrent(), true);
      await world.server.kill();
      for (let tries = 0; tries < 2; tries++) await rejects(feed.catchUp(), isFault("unavailable"));
      deepStrictEqual(world.faults.map(({ kind }) => kind), ["unavailable"]);
      world.clock.advance(STALE_MS_MAX);
      strictEqual(feed.isCurrent(), true);
      world.clock.advance(1);
      strictEqual(feed.isCurrent(), false);
      await world.server.restart();
      await recover(feed);
      strictEqual(feed.isCurrent(), true);
      deepStrictEqual(heard(), persistent ? [] : ["t all"]);
      // The store's own connection may still be coming back.
      for (let tries = 0; tries < 200; tries++) {
        try {
          await store.put("t", "l", bytes(1));
          break;
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      }
      await feed.catchUp();
      deepStrictEqual(heard(), ["t l"]);
      strictEqual(world.faults.length, 1);
    },
    persistent,
  );
}

feedTest("a feed is current as of when it asked, not of when Redis or a follower was done", async (world) => {
  const [store, redis] = [await world.openStore(), await world.connect()];
  let slowMs = 0;
  const slow: Redis = {
    ...redis,
    async run(...words) {
      const reply = await redis.run(...words);
      world.clock.advance(slowMs);
      return reply;
    },
  };
  const feed = await world.openFeed({ redis: slow });
  feed.follow("t", () => world.clock.advance(slowMs));
  strictEqual(feed.isCurrent(), true);
  slowMs = STALE_MS_MAX / 2;
  await store.put("t", "k", bytes(1));
  await feed.catchUp();
  strictEqual(feed.isCurrent(), true);
  slowMs++;
  await store.put("t", "k", bytes(2));
  await feed.catchUp();
  strictEqual(feed.isCurrent(), false);
});

feedTest(
  "a follower that throws is told again, alone, and until it has taken everything the feed is not current",
  async (world) => {
    const [store, feed] = [await world.openStore(), await world.openFeed()];
    let fails = true;
    const told: (string | undefined)[] = [];
    feed.follow("t", async (key) => {
      await Promise.resolve();
      if (fails && key !== "l") throw new TypeError("not now");
      told.push(key);
    });
    const heard = listen(feed, "t");
    await store.put("t", "k", bytes(1));
    await rejects(feed.catchUp(), isFault("internal"));
    deepStrictEqual(heard(), ["t k"]);
    world.clock.advance(STALE_MS_MAX + 1);
    await store.put("t", "l", bytes(1));
    await rejects(feed.catchUp(), isFault("internal"));
    deepStrictEqual(heard(), ["t l"]);
    strictEqual(feed.isCurrent(), false);
    deepStrictEqual(world.faults.map(({ message }) => message), ["TypeError: not now"]);
    // It is told again while it lasts, once a minute.
    world.clock.advance(60_000);
    await rejects(feed.catchUp(), isFault("internal"));
    await rejects(feed.catchUp(), isFault("internal"));
    strictEqual(world.faults.length, 2);
    fails = false;
    await feed.catchUp();
    strictEqual(feed.isCurrent(), true);
    deepStrictEqual(told.toSorted(), ["k", "l"]);
    deepStrictEqual(heard(), []);
    // At a gap as well.
    fails = true;
    await world.server.cli("FLUSHALL");
    await rejects(feed.catchUp(), isFault("internal"));
    deepStrictEqual(heard(), ["t all"]);
    await store.put("t", "k", bytes(2));
    await rejects(feed.catchUp(), isFault("internal"));
    deepStrictEqual(heard(), ["t k"]);
    fails = false;
    await feed.catchUp();
    deepStrictEqual(told.slice(2), [undefined], "which includes the one that changed since");
  },
);

feedTest(
  "a follower that stays behind by very many records is told once that all have changed",
  async (world) => {
    const store = openRedisRecordStore(await world.connect(), world.clock, "many", {
      changesKeptMax: 10_000,
    });
    const feed = await world.openFeed();
    const heard = listen(feed, "t", "u");
    const changes = (count: number) =>
      Array.from({ length: count }, (_, index) => ({ table: "t", key: `k${index}`, value: bytes(1) }));
    await store.write(changes(1000));
    await feed.catchUp();
    strictEqual(heard().length, 1000);
    await store.write(changes(1001));
    await feed.catchUp();
    deepStrictEqual(heard(), ["t all"]);
  },
);

feedTest("catchUp waits for a poll that is sent after the call, and calls share one", async (world) => {
  const [store, redis] = [await world.openStore(), await world.connect()];
  const gate = { polls: 0, hold: undefined as Promise<void> | undefined };
  const gated: Redis = {
    ...redis,
    async run(...words) {
      gate.polls++;
      const reply = await redis.run(...words);
      await gate.hold;
      return reply;
    },
  };
  const feed = await world.openFeed({ redis: gated });
  const heard = listen(feed, "t");
  const opened = Promise.withResolvers<void>();
  gate.hold = opened.promise;
  const early = feed.catchUp();
  // The early poll has its answer, which is held back; it knows nothing of this write.
  while (gate.polls < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  await redis.call("any", ["PING"]);
  await store.put("t", "k", bytes(1));
  const late = Array.from({ length: 5 }, () => feed.catchUp());
  opened.resolve();
  await early;
  deepStrictEqual(heard(), []);
  await Promise.all(late);
  deepStrictEqual(heard(), ["t k"]);
  strictEqual(gate.polls, 3);
});

feedTest("closing waits for the poll that is on its way, and no other is sent", async (world) => {
  const redis = await world.connect();
  const gate = { polls: 0, hold: undefined as Promise<void> | undefined };
  const gated: Redis = {
    ...redis,
    async run(...words) {
      gate.polls++;
      await gate.hold;
      return await redis.run(...words);
    },
  };
  const feed = await world.openFeed({ redis: gated, everyMs: 1 });
  const opened = Promise.withResolvers<void>();
  gate.hold = opened.promise;
  const polls = gate.polls;
  while (gate.polls === polls) await new Promise((resolve) => setTimeout(resolve, 1));
  let isClosed = false;
  const late = rejects(feed.catchUp(), isFault("unavailable"));
  const closing = feed.close().then(() => isClosed = true);
  await new Promise((resolve) => setTimeout(resolve, 20));
  strictEqual(isClosed, false);
  opened.resolve();
  await closing;
  await late;
  strictEqual(gate.polls, polls + 1);
  deepStrictEqual(world.faults, []);
});

feedTest(
  "where another store has taken the place of the one it started with, it is never current again and tells nobody",
  async (world) => {
    const told: Fault[] = [];
    const mark = openRedisMark((fault) => void told.push(fault));
    const store = openRedisRecordStore(await world.connect(), world.clock, "here", { mark });
    const record = { table: "installation", key: "id", value: bytes(1, 2, 3) };
    const feed = await world.openFeed({ mark });
    const heard = listen(feed, "t");
    await store.put(record.table, record.key, record.value);
    store.requireMark(record);
    await store.put("t", "k", bytes(1));
    await feed.catchUp();
    deepStrictEqual([heard(), feed.isCurrent()], [["t k"], true]);
    await world.server.cli("FLUSHALL");
    const stranger = await world.openStore();
    await stranger.put(record.table, record.key, bytes(4));
    await stranger.put("t", "k", bytes(5));
    await rejects(feed.catchUp(), isFault("unavailable"));
    strictEqual(feed.isCurrent(), false, "at once, not when it is stale");
    await rejects(store.get("t", "k"), isFault("unavailable"));
    await stranger.put(record.table, record.key, record.value);
    await rejects(feed.catchUp(), isFault("unavailable"));
    deepStrictEqual([heard(), feed.isCurrent()], [[], false]);
    strictEqual(told.length, 1);
  },
);

feedTest("a Redis that cannot be asked opens none", async (world) => {
  const redis = await world.connect();
  await world.server.kill();
  await rejects(world.openFeed({ redis }), isFault("unavailable"));
  deepStrictEqual(world.faults.map(({ kind }) => kind), ["unavailable"]);
});
