// Assembly of matter and trust: the store (of this data folder, or shared), its keys, and the data folder's audit trail.
import { auditFolders, type AuditTrail, openAuditTrail } from "../audit/audit_trail.ts";
import type { AuditSinks } from "../audit/sinks/audit_sinks.ts";
import { lastWritten, openRetention } from "../audit/retention/retention.ts";
import { headerOf, listSegments } from "../audit/trail/segment_files.ts";
import { TRAIL_HEADS_TABLE, type TrailHeads, trailHeads } from "../audit/trail/trail_heads.ts";
import { type OpenTrailKeys, openTrailKeys } from "../audit/trail_keys.ts";
import type { TreeHead } from "../audit/trail/tree_head.ts";
import type { Config } from "../config/config.ts";
import { parseRedisAddress } from "../config/redis_setting.ts";
import { newId } from "../encoding/ids.ts";
import { Fault, toFault } from "../faults/fault.ts";
import type { SumStore } from "../limits/embedded_limit_store.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import { openRedis } from "../store/redis/open_redis.ts";
import type { Redis } from "../store/redis/redis.ts";
import { openRedisChangeFeed } from "../store/redis_change_feed.ts";
import { openRedisMark } from "../store/redis_mark.ts";
import { openRedisRecordStore, type RedisRecordStore } from "../store/redis_record_store.ts";
import type { RecordStore } from "../store/record_store.ts";
import { withStartLock } from "../store/start_lock.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import { type KeyRing, openKeyRing } from "../vault/key_ring.ts";
import type { MasterKey } from "../vault/master_key.ts";
import { makePrivateFolder } from "../vault/private_file.ts";
import { openResealedStore } from "../vault/resealed_store.ts";
import { type DataKeyChange, openVaultRotation, type VaultRotation } from "../vault/rotation.ts";
import { readCertificates } from "./certificates.ts";
import { openDataThread } from "./data_thread.ts";
import { openMasterKey } from "./master_key.ts";
import { openSinks } from "./sinks.ts";

/** Where records rest. */
interface Matter {
  readonly store: RecordStore;
  /** What other instances change, or where there are none, what of the own changes was not known. */
  readonly feed: ChangeFeed;
  /** What instances share; undefined: this one is alone. */
  readonly redis: Redis | undefined;
  /** Where sums of limits rest that are this instance's own; undefined: they are in Redis. */
  readonly sums: SumStore | undefined;
  /** Does what only one instance may do at a time, such as making what is made once. */
  alone<Value>(act: () => Promise<Value>): Promise<Value>;
}

/** Matter of which it is not yet known whose it is. */
interface OpenedMatter {
  readonly matter: Matter;
  /** From now on the store is only believed while this record stands in it. */
  readonly requireMark: RedisRecordStore["requireMark"];
}

/** Records and the keys that open them. */
export interface Vault extends Matter {
  readonly keyRing: KeyRing;
}

/** What everything else rests on. */
export interface Trust extends Vault {
  readonly trail: AuditTrail;
}

/** What is opened at a start. */
export interface OpenedTrust extends Trust {
  /** What signs and seals the trail. */
  readonly trailKeys: OpenTrailKeys;
  readonly rotation: VaultRotation;
}

/** How parts are undone: the last opened first. */
export type Opened = (() => Promise<void> | void)[];

/** Tables that are read anew whenever they are needed, some of them written at each request: to tell all instances would be noise. */
const QUIET_TABLES: readonly string[] = [
  "api_key_uses",
  TRAIL_HEADS_TABLE,
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

/** Of the time of a rotation of the data keys, the part that it works; the rest is for requests. */
const ROTATION_SHARE = 0.25;
/** What was sealed under the key before is written by then, where no other instance has to hear of the new one first. */
const ROTATION_SETTLE_MS = 1000;
/** Events that may wait for the disk; each is about 500 bytes. */
const AUDIT_WAITING_MAX = 10_000;
/** Old entries of the trail go within an hour. */
const RETENTION_EVERY_MS = 3_600_000;

/** What may differ from how a server opens it. */
export interface TrustOptions {
  /** Records what is recorded last. */
  readonly beforeTrailCloses?: (trail: AuditTrail) => Promise<void>;
  /** The part of its time that a rotation of the data keys works. */
  readonly rotationShare?: number;
  /** Whether the trail was just put back from a backup: it need not reach what the store remembers. */
  readonly isRestored?: boolean;
  /** The bench's way to measure another trail. */
  readonly openTrail?: typeof openAuditTrail;
}

/**
 * Opens the data folder, and the shared store where there is one. One process a folder: the trail is locked.
 *
 * @throws Fault `unavailable` with the part that could not be opened and why
 */
export async function openTrust(
  config: Config,
  clock: Clock,
  log: Log,
  opened: Opened,
  {
    beforeTrailCloses,
    rotationShare = ROTATION_SHARE,
    isRestored = false,
    openTrail = openAuditTrail,
  }: TrustOptions = {},
): Promise<OpenedTrust> {
  const { dataDir } = config;
  const { vault, masterKey, storeAsItIs } = await openKeys(config, clock, log, opened);
  const { store, feed, keyRing } = vault;
  const sealed = config.auditAtRest === "sealed";
  const trailKeys = await vault.alone(() => openTrailKeys({ store, keyRing, feed, clock, sealed }));
  const folders = auditFolders(dataDir);
  const lastWrittenMs = lastWritten(folders.directory);
  const heads = trailHeads({
    store,
    keyRing,
    clock,
    isShared: vault.redis !== undefined,
    onFault: (thrown) => log.write("debug", "audit.head_not_kept", { reason: toFault(thrown).message }),
  });
  const { remembered, lost } = isRestored ? {} : await rememberedOf(heads, folders.directory, config);
  const trail = await openTrail({
    ...folders,
    clock,
    segmentBytesMax: config.auditSegmentBytesMax,
    timeoutMs: config.auditTimeoutMs,
    waitingMax: AUDIT_WAITING_MAX,
    keys: trailKeys.current(),
    sealed,
    sealingKeys: () => trailKeys.sealingKeys(),
    checkpointEntriesMax: config.auditCheckpointEntries,
    checkpointMs: config.auditCheckpointMs,
    remembered: remembered === undefined ? {} : { signed: remembered },
    onSigned: (head) => heads.keep(head),
    onCheckpointFailed: (fault) => log.write("error", "audit.checkpoint_failed", { reason: fault.message }),
    onSealingKeyWorn: () =>
      trailKeys.renewSealing((kind, key) => trail.record({ type: "key.changed", kind, key, change: "made" }))
        .catch((thrown) =>
          log.write("error", "audit.sealing_key_not_renewed", { reason: toFault(thrown).message })
        ),
  });
  trailKeys.onChange((keys) => trail.useKeys(keys));
  // They may have changed while the trail was opened.
  trail.useKeys(trailKeys.current());
  const shipping: { sinks?: AuditSinks | undefined } = {};
  // Closed after the trail: they ship its last entries.
  opened.push(() => shipping.sinks?.close());
  opened.push(async () => {
    await beforeTrailCloses?.(trail);
    await trail.close();
    await heads.close();
  });
  if (lost !== undefined) {
    const { origin, size, root } = lost;
    await trail.record({
      type: "command.changed",
      command: "settings",
      object: `trail/${origin}`,
      before: { size, root },
      after: null,
    });
  }
  const retention = openRetention({
    ...folders,
    keys: trailKeys.current,
    securityDays: config.auditSecurityDays,
    activityDays: config.auditActivityDays,
    clock,
    trail,
    log,
    everyMs: RETENTION_EVERY_MS,
    lastWrittenMs,
  });
  opened.push(() => retention.close());
  shipping.sinks = openSinks(config, log, () => trailKeys.sealingKeys());
  // Made before there was a trail that could say so.
  for (const { kind, key } of trailKeys.made) {
    await trail.record({ type: "key.changed", kind, key, change: "made" });
  }
  const rotation = await openRotation();
  opened.push(() => rotation.close());
  return { ...vault, trail, trailKeys, rotation };

  async function openRotation(): Promise<VaultRotation> {
    const recordKey = (key: string, change: DataKeyChange): Promise<void> =>
      trail.record({ type: "key.changed", kind: "data", key, change });
    // Where the settings have put another master key first.
    try {
      if (await keyRing.rewrap((key) => recordKey(key, "rewrapped")) > 0) await storeAsItIs.scrub();
    } catch (thrown) {
      log.write("warn", "vault.keys_not_rewrapped", { reason: toFault(thrown).message });
    }
    return await openVaultRotation({
      store: storeAsItIs,
      keyRing,
      master: masterKey,
      clock,
      feed,
      isShared: vault.redis !== undefined,
      settleMs: vault.redis === undefined ? ROTATION_SETTLE_MS : 2 * config.storeStaleMsMax,
      share: rotationShare,
      recordKey,
      rotateOthers: () =>
        trailKeys.rotate((kind, key) => trail.record({ type: "key.changed", kind, key, change: "made" })),
      onFault: (fault, is) =>
        is === "blocked"
          ? log.write("error", "vault.rotation_blocked", { reason: fault.message })
          : is === "lost"
          ? log.write("error", "vault.values_lost", { reason: fault.message })
          : log.write("warn", "vault.rotation_waits", { reason: fault.message }),
    });
  }
}

/** What the trail must have reached, or what is given up for a new one because the settings say so. */
async function rememberedOf(
  heads: TrailHeads,
  directory: string,
  { auditLostTrail }: Config,
): Promise<{ readonly remembered?: TreeHead | undefined; readonly lost?: TreeHead }> {
  const origin = originOf(directory);
  const head = await heads.of(origin);
  const isLost = head !== undefined && head.origin !== origin && auditLostTrail === "begin";
  return isLost ? { lost: head } : { remembered: head };
}

/** Which trail a directory holds, by its newest header; undefined: none. */
function originOf(directory: string): string | undefined {
  if (!exists(directory)) return undefined; // made at the first start
  for (const number of listSegments(directory).reverse()) {
    const header = headerOf(directory, number);
    if (header !== undefined) return header.origin;
  }
  return undefined;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return false;
    throw thrown;
  }
}

/** Opens store and keys alone. Without the trail, which is of one process, this can be done beside a server. */
export async function openVault(config: Config, clock: Clock, log: Log, opened: Opened): Promise<Vault> {
  return (await openKeys(config, clock, log, opened)).vault;
}

async function openKeys(config: Config, clock: Clock, log: Log, opened: Opened): Promise<{
  readonly vault: Vault;
  readonly masterKey: MasterKey;
  /** Not as rooms see it. */
  readonly storeAsItIs: RecordStore;
}> {
  const { dataDir } = config;
  makePrivateFolder(dataDir);
  const masterKey = await openMasterKey(config, (close) => opened.push(close));
  const { matter, requireMark } = config.redisUrl === undefined
    ? openOwnMatter(dataDir, config.auditTimeoutMs, clock, log, opened)
    : await openSharedMatter(config.redisUrl, config, clock, log, opened);
  const keyRing = await matter.alone(() => openKeyRing(matter.store, masterKey, clock, matter.feed));
  requireMark(keyRing.mark);
  const store = openResealedStore(matter.store, keyRing);
  return { vault: { ...matter, store, keyRing }, masterKey, storeAsItIs: matter.store };
}

function openOwnMatter(
  dataDir: string,
  timeoutMs: number,
  clock: Clock,
  log: Log,
  opened: Opened,
): OpenedMatter {
  const thread = openDataThread(
    dataDir,
    timeoutMs,
    clock,
    (fault) => log.write("warn", "store.changes_not_taken", { reason: fault.message }),
  );
  opened.push(() => thread.close());
  const store = thread.records;
  // Nobody puts another file in the place of one that is open.
  const matter: Matter = {
    store,
    feed: thread.feed,
    redis: undefined,
    sums: thread.limits,
    alone: (act) => act(),
  };
  return { matter, requireMark() {} };
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
      sums: undefined,
      alone: (act) => withStartLock(store, clock, act),
    },
    requireMark: (record) => store.requireMark(record),
  };
}
