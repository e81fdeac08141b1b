// Assembly of matter and trust: the data folder with its store, its keys and its audit trail.
import { auditFolders, type AuditTrail, openAuditTrail } from "../audit/audit_trail.ts";
import type { Config } from "../config/config.ts";
import { storeFile } from "../config/environment.ts";
import { openSqliteRecordStore } from "../store/sqlite_record_store.ts";
import type { RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import { type KeyRing, openKeyRing } from "../vault/key_ring.ts";
import { generateMasterKey, parseMasterKey } from "../vault/master_key.ts";
import { makePrivateFile, makePrivateFolder, readOrMakePrivateFile } from "../vault/private_file.ts";

/** What everything else rests on. */
export interface Trust {
  readonly store: RecordStore;
  readonly keyRing: KeyRing;
  readonly trail: AuditTrail;
}

/** How parts are undone: the last opened first. */
export type Opened = (() => Promise<void> | void)[];

/** Events that may wait for the disk; each is about 500 bytes. */
const AUDIT_WAITING_MAX = 10_000;

/**
 * Opens the data folder. One process at a time: the trail is locked.
 *
 * @param beforeTrailCloses what is recorded last
 * @throws Fault `unavailable` with the part that could not be opened and why
 */
export async function openTrust(
  config: Config,
  clock: Clock,
  opened: Opened,
  beforeTrailCloses: (trail: AuditTrail) => Promise<void> = () => Promise.resolve(),
): Promise<Trust> {
  const { dataDir } = config;
  makePrivateFolder(dataDir);
  const masterKey = parseMasterKey(
    config.masterKey ?? await readOrMakePrivateFile(`${dataDir}/master.key`, generateMasterKey),
  );
  makePrivateFile(storeFile(dataDir));
  const store = openSqliteRecordStore(storeFile(dataDir), clock);
  opened.push(() => store.close());
  const keyRing = await openKeyRing(store, masterKey, clock);
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
  return { store, keyRing, trail };
}
