// Assembly of matter and trust: the store (of this data folder, or shared), its keys, and the data folder's audit trail.
import { auditFolders, type AuditTrail, openAuditTrail } from "../audit/audit_trail.ts";
import type { Config } from "../config/config.ts";
import { storeFile } from "../config/environment.ts";
import { parseRedisAddress } from "../config/redis_setting.ts";
import { newId } from "../encoding/ids.ts";
import { Fault } from "../faults/fault.ts";
import { type ChangeFeed, NO_OTHERS } from "../store/change_feed.ts";
import { openRedis } from "../store/redis/open_redis.ts";
import type { Redis } from "../store/redis/redis.ts";
import { openRedisChangeFeed } from "../store/redis_change_feed.ts";
import { openRedisMark } from "../store/redis_mark.ts";
import { openRedisRecordStore, type RedisRecordStore } from "../store/redis_record_store.ts";
import type { RecordStore } from "../store/record_store.ts";
import { openSqliteRecordStore } from "../store/sqlite_record_store.ts";
import { withStartLock } from "../store/start_lock.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import { type KeyRing, openKeyRing } from "../vault/key_ring.ts";
import { generateMasterKey, parseMasterKey } from "../vault/master_key.ts";
import { makePrivateFile, makePrivateFolder, readOrMakePrivateFile } from "../vault/private_file.ts";
import { readCertificates } from "./certificates.ts";

/** Where records rest. */
interface Matter {
  readonly store: RecordStore;
  /** What other instances change. */
  readonly feed: ChangeFeed;
  /** What instances share; undefined: this one is alone. */
  readonly redis: Redis | undefined;
  /** Does what only one instance may do at a time, such as making what is made once. */
  alone<Value>(act: () => Promise<Value>): Promise<Value>;
}

/** Matter of which it is not yet known whose it is. */
interface OpenedMatter {
  readonly matter: Matter;
  /** From now on the store is only believed while this record stands in it. */
  readonly requireMark: RedisRecordStore["requireMark"];
}

/** What everything else rests on. */
export interface Trust extends Matter {
  readonly keyRing: KeyRing;
  readonly trail: AuditTrail;
}

/** How parts are undone: the last opened first. */
export type Opened = (() => Promise<void> | void)[];

/** Tables that are read anew whenever they are needed, some of them written at each request: to tell all instances would be noise. */
const QUIET_TABLES: readonly string[] = [
  "api_key_uses",
  "known_networks",
  "lockout_ceilings",
  "lockout_pairs",
  "refresh_tokens",
  "sessions",
  "start_lock",
  "used_assertions",
  "user_names",
  "user_sessions",
];

/** Events that may wait for the disk; each is about 500 bytes. */
const AUDIT_WAITING_MAX = 10_000;

/**
 * Opens the data folder, and the shared store where there is one. One process a folder: the trail is locked.
 *
 * @param beforeTrailCloses what is recorded last
 * @throws Fault `unavailable` with the part that could not be opened and why
 */
export async function openTrust(
  config: Config,
  clock: Clock,
  log: Log,
  opened: Opened,
  beforeTrailCloses: (trail: AuditTrail) => Promise<void> = () => Promise.resolve(),
): Promise<Trust> {
  const { dataDir } = config;
  makePrivateFolder(dataDir);
  const masterKey = parseMasterKey(
    config.masterKey ?? await readOrMakePrivateFile(`${dataDir}/master.key`, generateMasterKey),
  );
  const { matter, requireMark } = config.redisUrl === undefined
    ? openOwnMatter(dataDir, clock, opened)
    : await openSharedMatter(config.redisUrl, config, clock, log, opened);
  const keyRing = await matter.alone(() => openKeyRing(matter.store, masterKey, clock));
  requireMark(keyRing.mark);
  const trail = await openAuditTrail({
    ...auditFolders(dataDir),
    clock,
    segmentBytesMax: config.auditSegmentBytesMax,
    timeoutMs: config.auditTimeoutMs,
    waitingMax: AUDIT_WAITING_MAX,
  });
  opened.push(async () => {
    await beforeTrailCloses(trail);
    await trail.close();
  });
  return { ...matter, keyRing, trail };
}

function openOwnMatter(dataDir: string, clock: Clock, opened: Opened): OpenedMatter {
  makePrivateFile(storeFile(dataDir));
  const store = openSqliteRecordStore(storeFile(dataDir), clock);
  opened.push(() => store.close());
  // Nobody puts another file in the place of one that is open.
  return { matter: { store, feed: NO_OTHERS, redis: undefined, alone: (act) => act() }, requireMark() {} };
}

async function openSharedMatter(
  url: string,
  config: Config,
  clock: Clock,
  log: Log,
  opened: Opened,
): Promise<OpenedMatter> {
  const address = parseRedisAddress(url);
  if (address === undefined) throw new Fault("internal", "Cannot open Redis: its address was not checked");
  const redis = await openRedis(
    {
      address,
      prefix: config.redisPrefix,
      caCertificates: config.redisCaFile === undefined ? undefined : readCertificates(config.redisCaFile),
      timeoutMs: config.storeTimeoutMs,
    },
    {
      stateChanged: (state, reason) =>
        log.write(state === "up" ? "info" : "error", "redis.state", { state, reason }),
      warn: (text) => log.write("warn", "redis.warning", { reason: text }),
    },
  );
  opened.push(() => redis.close());
  const mark = openRedisMark((fault) => log.write("error", "redis.other_store", { reason: fault.message }));
  const store = openRedisRecordStore(redis, clock, newId("ins", clock.now()), {
    quietTables: QUIET_TABLES,
    mark,
  });
  opened.push(() => store.close());
  const feed = await openRedisChangeFeed({
    redis,
    clock,
    staleMsMax: config.storeStaleMsMax,
    mark,
    // That Redis fails is told by its state.
    onFault: (fault, of) =>
      of === "redis"
        ? log.write("debug", "redis.changes_not_read", { reason: fault.message })
        : log.write("error", "redis.changes_not_taken", { reason: fault.message }),
  });
  opened.push(() => feed.close());
  const follow: ChangeFeed["follow"] = (table, follower) => {
    if (QUIET_TABLES.includes(table)) {
      throw new Fault("internal", `Cannot follow the table ${table}: nobody is told of it`);
    }
    feed.follow(table, follower);
  };
  return {
    matter: {
      store,
      feed: { ...feed, follow },
      redis,
      alone: (act) => withStartLock(store, clock, act),
    },
    requireMark: (record) => store.requireMark(record),
  };
}
