// Tests of bans on instances that share a Redis: one ban for all, known to all.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { BAN_TABLE, type BanList, openBanList } from "../../src/limits/ban_list.ts";
import { openRedisChangeFeed } from "../../src/store/redis_change_feed.ts";
import { openRedisRecordStore } from "../../src/store/redis_record_store.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { systemClock } from "../../src/time/clock.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { openRedisUnderTest } from "../store/redis_under_test.ts";
import { hasRedisServer, startRedisServer } from "../support/redis_server.ts";

const INSTANCES = 4;
const clock = systemClock;
const log = openLog({ level: "error", clock, sink: (bytes) => Promise.resolve(bytes.length) });

Deno.test({
  name:
    `of ${INSTANCES} instances that share a Redis one bans, and all come to know it, as they do of its end (redis-server is needed)`,
  ignore: !hasRedisServer,
}, async () => {
  const opened: (() => Promise<void>)[] = [];
  try {
    const server = await startRedisServer();
    opened.push(() => server.stop());
    const masterKey = parseMasterKey(generateMasterKey());
    const open = async (instance: number): Promise<BanList> => {
      const redis = await openRedisUnderTest(server, "test");
      opened.push(() => redis.close());
      const store = openRedisRecordStore(redis, clock, `ins_${instance}`);
      const feed = await openRedisChangeFeed({ redis, clock, staleMsMax: 1000, onFault() {} });
      opened.push(() => feed.close());
      const keyRing = await openKeyRing(store, localMasterKey(masterKey), clock);
      return await openBanList({
        store,
        table: sealedTable(store, keyRing, BAN_TABLE),
        feed,
        clock,
        log,
        exempt: [],
        firstSeconds: 60,
        secondSeconds: 60,
        labelNetwork: (network) => keyRing.pseudonym("address", network),
      });
    };
    const instances: BanList[] = [];
    for (let instance = 0; instance < INSTANCES; instance++) instances.push(await open(instance));
    const [first] = instances;
    ok(first);
    const networks = Array.from({ length: 25 }, (_, host) => `192.0.2.${host}`);
    for (const count of [1, 2]) {
      const made = await Promise.all(
        instances.flatMap((bans) =>
          networks.map((network) => bans.strike(network, "probes", () => Promise.resolve()))
        ),
      );
      const ids = made.flatMap((ban) => ban?.id ?? []);
      strictEqual(ids.length, networks.length);
      await until(() => instances.every((bans) => bans.list({ limit: 99 }).length === networks.length));
      for (const bans of instances) {
        deepStrictEqual(
          bans.list({ limit: 99 }).map(({ id, count }) => [id, count]),
          ids.sort().map((id) => [id, count]),
        );
      }
      for (const [index, ban] of first.list({ limit: 99 }).entries()) {
        strictEqual(await instances[index % INSTANCES]?.lift(ban, { forget: false }), true);
      }
      await until(() => instances.every((bans) => bans.list({ limit: 99 }).length === 0));
    }
  } finally {
    for (const close of opened.reverse()) await close();
  }
});

/** Gives a busy machine more time than the second that is promised. */
async function until(holds: () => boolean): Promise<void> {
  for (let tries = 0; tries < 100 && !holds(); tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  ok(holds(), "not known to all in time");
}
