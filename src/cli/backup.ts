// Backup: copies a data folder, while a server runs on it or not, into a folder of its own that a restore can prove to be whole.
import { backup as copyDatabase, DatabaseSync } from "node:sqlite";
import { ownMasterKeyFile } from "../assembly/master_key.ts";
import { sinkFolder } from "../assembly/sinks.ts";
import { auditFolders } from "../audit/audit_trail.ts";
import { encodeCheckpoint, readCheckpoint } from "../audit/trail/checkpoint.ts";
import { verifyChain } from "../audit/verify/verify_chain.ts";
import { requireIntact } from "./intact_trail.ts";
import type { Config } from "../config/config.ts";
import { limitsFile, storeFile } from "../config/environment.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";
import { systemClock } from "../time/clock.ts";
import { localMasterKey, masterKeyIdOf, parseMasterKeys, UNNAMED_MASTER_KEY } from "../vault/master_key.ts";
import { makePrivateFile, makePrivateFolder, readPrivateFile } from "../vault/private_file.ts";
import {
  type BackupFile,
  type BackupManifest,
  copyFile,
  digestFile,
  formatManifest,
  MANIFEST_FILE,
  syncFolder,
  takeEmptyFolder,
} from "./backup_manifest.ts";

/** What to copy, where to, and where the words go. */
export interface BackupOptions {
  readonly config: Config;
  /** Made when it is missing; must be empty. */
  readonly folder: string;
  /** Whether the master key of a data folder that holds its own is copied too: whoever has the backup can then open it. */
  readonly withMasterKey: boolean;
  readonly print: (line: string) => void;
}

/** Files of a folder of the data folder, by their names. */
interface Folder {
  readonly name: string;
  readonly files: RegExp;
}

/** The search index over the trail. */
const INDEX = "audit-index";
const CHECKPOINT_FILE = "checkpoint.json";
const AUDIT = "audit";
const CHECKPOINTS: Folder = {
  name: "audit-checkpoint",
  files: /^(?:checkpoints-[\d-]+\.jsonl|trail\.vkey)$/,
};
const SEGMENTS: Folder = { name: AUDIT, files: /^audit-\d+\.jsonl$/ };
const STUBS: Folder = { name: AUDIT, files: /^audit-\d+\.stub$/ };
/** Retention may thin a segment, and a start may make a key, while copies are made: rarely, and never twice in a row. */
const TRIES = 3;
/** How long the copying of a database waits for one who holds it. */
const BUSY_TIMEOUT_MS = 10_000;
const PAGES_PER_STEP = 4000;
const PROGRESS_BYTES = 256 * 1024 * 1024;

/**
 * Makes a backup.
 *
 * @returns the process's exit code
 * @throws Fault `conflict` when the target is not empty · `unavailable` when something cannot be read or written, or the trail's copy
 * does not verify; what was copied until then stays, without a manifest
 */
export async function backUp({ config, folder, withMasterKey, print }: BackupOptions): Promise<number> {
  const { dataDir } = config;
  const isShared = config.redisUrl !== undefined;
  if (!exists(auditFolders(dataDir).checkpointDirectory) || !(isShared || exists(storeFile(dataDir)))) {
    throw new Fault("not_found", `there is no server's data in ${dataDir}`);
  }
  takeEmptyFolder(folder);
  const madeAt = new Date(systemClock.now()).toISOString();
  for (let tries = 1;; tries++) {
    // Before the records: a rotation replaces both, and a key that is gone from here afterwards still opens what was copied.
    const masterKey = withMasterKey && hasOwnMasterKey(config) ? copyMasterKey(dataDir, folder) : undefined;
    const records = isShared ? undefined : await copyRecords(dataDir, folder, print);
    const files = [...records?.files ?? [], ...copyTrail(dataDir, folder, print)];
    const verdict = await verifyChain(auditFolders(folder));
    if (masterKey !== undefined) files.push(masterKey.file);
    const opensAll = masterKey === undefined ||
      (records?.masterKeys ?? []).every((id) => masterKey.opens(id));
    const isWhole = verdict.finding === undefined && opensAll &&
      (records === undefined || !records.changed());
    if (!isWhole && tries < TRIES) {
      print("again        the trail or keys changed meanwhile");
      for (const { path } of files) Deno.removeSync(`${folder}/${path}`);
      continue;
    }
    requireIntact(verdict, "the copy of the audit trail");
    if (!opensAll) {
      throw new Fault(
        "unavailable",
        "the master key does not open the data keys: it is replaced again and again, or it is not this store's",
      );
    }
    print(`verified     ${verdict.entries} entries of the audit trail`);
    tellMasterKey(config, masterKey !== undefined, print);
    tellLeftOut(dataDir, print);
    const manifest: BackupManifest = {
      madeAt,
      records: isShared ? "redis" : "files",
      masterKeys: records?.masterKeys ?? [],
      entries: verdict.entries,
      files,
    };
    writeManifest(folder, manifest);
    if (isShared) print("not here     what is in Redis: back that up by its own means (docs/operations.md)");
    print(`done         ${folder}: ${manifest.files.length} files, ${inMegabytes(manifest.files)}`);
    return 0;
  }
}

interface CopiedRecords {
  readonly files: readonly BackupFile[];
  readonly masterKeys: readonly string[];
  /** Whether there are other keys of the trail by now. */
  changed(): boolean;
}

/**
 * The databases before the trail: of what is in them, the trail's copy tells as well. A record without its act does no harm.
 */
async function copyRecords(
  dataDir: string,
  folder: string,
  print: (line: string) => void,
): Promise<CopiedRecords> {
  const source = storeFile(dataDir);
  let masterKeys: readonly string[] = [];
  let keysBefore = "";
  const files = [
    await copyOne(source, `${folder}/portcullis.db`, (database) => {
      masterKeys = masterKeysOf(database);
      keysBefore = trailKeysOf(database);
    }),
  ];
  if (exists(limitsFile(dataDir))) files.push(await copyOne(limitsFile(dataDir), `${folder}/limits.db`));
  print(`records      ${files.map(({ path }) => path).join(", ")}: ${inMegabytes(files)}`);
  return {
    files,
    masterKeys,
    changed() {
      using database = new DatabaseSync(source, { readOnly: true, timeout: BUSY_TIMEOUT_MS });
      return trailKeysOf(database) !== keysBefore;
    },
  };
}

/** Copies a database as it is at one moment, whoever writes to it meanwhile. */
async function copyOne(
  source: string,
  target: string,
  look: (database: DatabaseSync) => void = () => {},
): Promise<BackupFile> {
  makePrivateFile(target);
  {
    using database = new DatabaseSync(source, { readOnly: true, timeout: BUSY_TIMEOUT_MS });
    // The moment is that of the first read. Without the transaction, each write of the server's would have the copy begin anew.
    database.exec("BEGIN");
    look(database);
    database.prepare("SELECT count(*) FROM sqlite_schema").get();
    await copyDatabase(database, target, { rate: PAGES_PER_STEP });
    database.exec("COMMIT");
  }
  return { path: target.slice(target.lastIndexOf("/") + 1), ...digestFile(target) };
}

function masterKeysOf(database: DatabaseSync): readonly string[] {
  const rows = database.prepare("SELECT value FROM records WHERE collection = 'data_keys'").all();
  return [...new Set(rows.map(({ value }) => masterKeyIdOf(bytesOf(value))))].sort();
}

function trailKeysOf(database: DatabaseSync): string {
  return database.prepare("SELECT key FROM records WHERE collection = 'audit_keys' ORDER BY key").all()
    .map(({ key }) => String(key)).join();
}

function bytesOf(value: unknown): Uint8Array<ArrayBuffer> {
  return value instanceof Uint8Array ? value.slice() : new Uint8Array();
}

/**
 * Each after what it must not be ahead of: cursors and checkpoints before the entries that they speak of, and stubs after the
 * segments that they excuse.
 */
function copyTrail(dataDir: string, folder: string, print: (line: string) => void): readonly BackupFile[] {
  const { checkpointDirectory } = auditFolders(dataDir);
  const sinks: Folder = { name: nameOf(sinkFolder(dataDir)), files: /\.cursor$/ };
  const cursors = copyFolder(sinks, dataDir, folder);
  // Overwritten in place: read as a whole or not at all.
  const checkpoint = readCheckpoint(checkpointDirectory);
  if (!checkpoint.ok) throw new Fault("unavailable", `the audit checkpoint is ${checkpoint.reason}`);
  const path = `${CHECKPOINTS.name}/${CHECKPOINT_FILE}`;
  makePrivateFolder(`${folder}/${CHECKPOINTS.name}`);
  makePrivateFile(`${folder}/${path}`);
  Deno.writeFileSync(`${folder}/${path}`, encodeCheckpoint(checkpoint.value));
  const checkpoints = [
    { path, ...digestFile(`${folder}/${path}`) },
    ...copyFolder(CHECKPOINTS, dataDir, folder),
  ];
  const segments = copyFolder(SEGMENTS, dataDir, folder, print);
  const stubs = copyFolder(STUBS, dataDir, folder);
  const trail = [...checkpoints, ...segments, ...stubs];
  print(`audit        ${segments.length} segments, ${stubs.length} stubs: ${inMegabytes(trail)}`);
  return [...cursors, ...trail];
}

function copyFolder(
  { name, files }: Folder,
  dataDir: string,
  folder: string,
  print: (line: string) => void = () => {},
): readonly BackupFile[] {
  const from = `${dataDir}/${name}`;
  if (!exists(from)) return [];
  makePrivateFolder(`${folder}/${name}`);
  let sinceTold = 0;
  const names = [...Deno.readDirSync(from)].filter((entry) => entry.isFile && files.test(entry.name))
    .map((entry) => entry.name).sort();
  const copied = names.flatMap((each, index) => {
    try {
      const path = `${name}/${each}`;
      const made = copyFile(`${dataDir}/${path}`, `${folder}/${path}`, (bytes) => {
        sinceTold += bytes;
        if (sinceTold < PROGRESS_BYTES) return;
        sinceTold = 0;
        print(`${name.padEnd(13)}${each}, ${index + 1} of ${names.length} …`);
      });
      return [{ path, ...made }];
    } catch (thrown) {
      // Retention took it meanwhile; its stub says so.
      if (thrown instanceof Deno.errors.NotFound) return [];
      throw thrown;
    }
  });
  syncFolder(`${folder}/${name}`);
  return copied;
}

function hasOwnMasterKey({ dataDir, masterKey, keyServiceUrl }: Config): boolean {
  return masterKey === undefined && keyServiceUrl === undefined && exists(ownMasterKeyFile(dataDir));
}

interface CopiedMasterKey {
  readonly file: BackupFile;
  /** Whether the copy holds the master key of an id; one that older stores do not name shows at the restore. */
  opens(id: string): boolean;
}

function copyMasterKey(dataDir: string, folder: string): CopiedMasterKey {
  const path = nameOf(ownMasterKeyFile(dataDir));
  const file = { path, ...copyFile(ownMasterKeyFile(dataDir), `${folder}/${path}`) };
  const keys = parseMasterKeys(readPrivateFile(`${folder}/${path}`) ?? "");
  const ids = keys.map((raw) => localMasterKey(raw).id);
  return { file, opens: (id) => id === UNNAMED_MASTER_KEY || ids.includes(id) };
}

function tellMasterKey(config: Config, isCopied: boolean, print: (line: string) => void): void {
  print(
    isCopied
      ? "master key   copied: whoever has this backup can open it"
      : config.keyServiceUrl !== undefined
      ? "master key   stays in the key service"
      : `master key   NOT in this backup, and without it nobody can open it: keep a copy elsewhere${
        hasOwnMasterKey(config) ? ` (${ownMasterKeyFile(config.dataDir)}, or --with-master-key)` : ""
      }`,
  );
}

/** What is there and not copied, so that nobody believes it safe. */
function tellLeftOut(dataDir: string, print: (line: string) => void): void {
  const known = ["portcullis.db", "limits.db"].flatMap((name) => [name, `${name}-wal`, `${name}-shm`]);
  known.push(nameOf(ownMasterKeyFile(dataDir)), nameOf(sinkFolder(dataDir)), CHECKPOINTS.name, AUDIT);
  const others = [...Deno.readDirSync(dataDir)].map(({ name }) => name).filter((name) =>
    !known.includes(name)
  );
  for (const name of others.sort()) {
    print(`left out     ${name}${name === INDEX ? ": the server makes it anew" : ""}`);
  }
}

function writeManifest(folder: string, manifest: BackupManifest): void {
  const file = `${folder}/${MANIFEST_FILE}`;
  makePrivateFile(`${file}.new`);
  Deno.writeFileSync(`${file}.new`, encodeUtf8(formatManifest(manifest)));
  digestFile(`${file}.new`);
  Deno.renameSync(`${file}.new`, file);
  syncFolder(folder);
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function inMegabytes(files: readonly BackupFile[]): string {
  return `${(files.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6).toFixed(1)} MB`;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
