// Restore: puts a backup in the place of a data folder that was lost, and proves that it is whole and that the master key opens it.
import { ownMasterKeyFile } from "../assembly/master_key.ts";
import { type Opened, openTrust, openVault } from "../assembly/trust.ts";
import { auditFolders } from "../audit/audit_trail.ts";
import { trailHeads } from "../audit/trail/trail_heads.ts";
import { openTrailKeys } from "../audit/trail_keys.ts";
import { type ChainVerdict, verifyChain } from "../audit/verify/verify_chain.ts";
import type { Config } from "../config/config.ts";
import { Fault } from "../faults/fault.ts";
import { type Log, openLog } from "../telemetry/log.ts";
import { systemClock } from "../time/clock.ts";
import { requireIntact } from "./intact_trail.ts";
import { makePrivateFolder } from "../vault/private_file.ts";
import {
  type BackupManifest,
  copyFile,
  MANIFEST_FILE,
  parseManifest,
  syncFolder,
  takeEmptyFolder,
} from "./backup_manifest.ts";

/** What to put back, under which settings, and where the words go. */
export interface RestoreOptions {
  readonly config: Config;
  /** The backup's. */
  readonly folder: string;
  readonly print: (line: string) => void;
}

const STORE = "portcullis.db";
const MASTER_KEY = "master.key";

/**
 * Restores.
 *
 * @returns the process's exit code
 * @throws Fault `conflict` when the data folder is not empty · `not_found` when the folder holds no whole backup, or the master key is
 * not there · `unavailable` when a file was altered, the trail is not intact, or the master key is another one. Whatever is thrown, the
 * data folder is then as it was
 */
export async function restore({ config, folder, print }: RestoreOptions): Promise<number> {
  const manifest = readManifest(folder);
  const { dataDir } = config;
  requireSamePlace(manifest, config);
  const brings = manifest.files.some(({ path }) => path === MASTER_KEY);
  const kept = brings ? [] : [MASTER_KEY];
  takeEmptyFolder(dataDir, kept);
  if (!brings) requireMasterKey(config);
  try {
    copyAll(manifest, folder, dataDir);
    print(`copied       ${manifest.files.length} files of ${manifest.madeAt}, each as it was`);
    const verdict = await verifyTrail(config);
    print(`verified     ${verdict.entries} entries of the audit trail`);
    await recordRestore(config, manifest);
  } catch (thrown) {
    for (const { name } of Deno.readDirSync(dataDir)) {
      if (!kept.includes(name)) Deno.removeSync(`${dataDir}/${name}`, { recursive: true });
    }
    throw thrown;
  }
  print("opened       the master key fits");
  print(`done         ${dataDir}; the server can start`);
  return 0;
}

function readManifest(folder: string): BackupManifest {
  let text: string;
  try {
    text = Deno.readTextFileSync(`${folder}/${MANIFEST_FILE}`);
  } catch (thrown) {
    if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
    throw new Fault(
      "not_found",
      `${folder} is no backup: there is no ${MANIFEST_FILE}, which is written last`,
    );
  }
  const manifest = parseManifest(text);
  if (manifest === undefined) throw new Fault("unavailable", `${folder}/${MANIFEST_FILE} is damaged`);
  return manifest;
}

/** Records of a folder do not get into a Redis by this, nor those of a Redis into a folder. */
function requireSamePlace({ records }: BackupManifest, { redisUrl }: Config): void {
  if (records === "redis" && redisUrl === undefined) {
    throw new Fault(
      "conflict",
      "the records of this backup were in Redis: restore that, and set PORTCULLIS_REDIS_URL",
    );
  }
  if (records === "files" && redisUrl !== undefined) {
    throw new Fault("conflict", "this backup holds the records itself: start without PORTCULLIS_REDIS_URL");
  }
}

/** Or the start would make a new one, which opens nothing. */
function requireMasterKey({ masterKey, keyServiceUrl, dataDir }: Config): void {
  const file = ownMasterKeyFile(dataDir);
  if (masterKey !== undefined || keyServiceUrl !== undefined || isFile(file)) return;
  throw new Fault(
    "not_found",
    `the master key is not in this backup: put it into ${file} (mode 0600) or PORTCULLIS_MASTER_KEY_FILE first`,
  );
}

/** The store last: a server that is started in between, after a crash of this, finds none and refuses. */
function copyAll({ files }: BackupManifest, folder: string, dataDir: string): void {
  const folders = new Set([dataDir]);
  const storeLast = [...files].sort((one, other) =>
    Number(one.path === STORE) - Number(other.path === STORE)
  );
  for (const { path, bytes, sha256 } of storeLast) {
    const target = `${dataDir}/${path}`;
    const into = target.slice(0, target.lastIndexOf("/"));
    if (!folders.has(into)) makePrivateFolder(into);
    folders.add(into);
    let copied: ReturnType<typeof copyFile>;
    try {
      copied = copyFile(`${folder}/${path}`, target);
    } catch (thrown) {
      if (!(thrown instanceof Deno.errors.NotFound)) throw thrown;
      throw new Fault("unavailable", `${folder}/${path} is missing`);
    }
    if (copied.bytes !== bytes || copied.sha256 !== sha256) {
      throw new Fault("unavailable", `${folder}/${path} is not what was backed up: it was altered or cut`);
    }
  }
  for (const each of folders) syncFolder(each);
}

/**
 * Verifies the trail by the keys that the store holds sealed: those that stand beside the trail are whose who could write the backup.
 *
 * @throws Fault `unavailable` when it is not intact
 */
async function verifyTrail(config: Config): Promise<ChainVerdict> {
  const opened: Opened = [];
  try {
    const { store, keyRing, feed, alone } = await openVault(config, systemClock, quietLog(), opened);
    const keys = await alone(() =>
      // Without a new key for sealing: the trail could not say so yet.
      openTrailKeys({ store, keyRing, feed, clock: systemClock, sealed: false })
    );
    const { name, signing, older } = keys.current();
    const trusted = [...older.toReversed(), signing].map(({ publicKey }) => ({ name, publicKey }));
    // A Redis may know more of the trail by now than was backed up.
    const head = config.redisUrl === undefined
      ? await trailHeads({ store, keyRing, clock: systemClock, isShared: false, onFault() {} }).of(undefined)
      : undefined;
    const kept = head === undefined ? [] : [head];
    const verdict = await verifyChain({ ...auditFolders(config.dataDir), trusted, kept });
    requireIntact(verdict, "the audit trail");
    return verdict;
  } finally {
    while (opened.length > 0) await opened.pop()?.();
  }
}

function quietLog(): Log {
  return openLog({ level: "error", clock: systemClock, sink: (bytes) => Promise.resolve(bytes.length) });
}

/** Opens everything that the master key opens, as a start does, and says in the trail why it goes on from here. */
async function recordRestore(config: Config, { madeAt, entries }: BackupManifest): Promise<void> {
  const opened: Opened = [];
  try {
    const { trail } = await openTrust(config, systemClock, quietLog(), opened, { isRestored: true });
    await trail.record({
      type: "command.changed",
      command: "restore",
      object: "data",
      before: null,
      after: { madeAt, entries },
    });
  } finally {
    while (opened.length > 0) await opened.pop()?.();
  }
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
