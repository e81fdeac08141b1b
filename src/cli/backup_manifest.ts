// Backup manifest: what a backup holds, file by file, with sizes and digests, and the copying that finds them out.
import { createHash } from "node:crypto";
import { canonicalJson, type JsonValue } from "../encoding/canonical_json.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { Fault } from "../faults/fault.ts";

/** One file of a backup. */
export interface BackupFile {
  /** Below the backup's folder, and below the data folder. */
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** What `backup.json` says. It is written last: a folder without it is no backup. */
export interface BackupManifest {
  /** ISO 8601, UTC: before anything was read. All that was acknowledged until then is in it. */
  readonly madeAt: string;
  /** Where the records were: in the data folder, so they are here; or in Redis, which is backed up by its own means. */
  readonly records: "files" | "redis";
  /** Ids of the master keys that its data keys are wrapped under; none where Redis has them. */
  readonly masterKeys: readonly string[];
  /** Entries of the audit trail. */
  readonly entries: number;
  readonly files: readonly BackupFile[];
}

/** The manifest's file. */
export const MANIFEST_FILE = "backup.json";

const FORMAT = 1;
const DEPTH_MAX = 4;
const FILES_MAX = 1_000_000;
/** No path of these leaves its folder. */
const PATH = /^(?:[a-z0-9-]{1,64}\/)?[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$/;

/** The manifest's text. */
export function formatManifest(manifest: BackupManifest): string {
  const { madeAt, records, masterKeys, entries, files } = manifest;
  const value = {
    format: FORMAT,
    madeAt,
    records,
    masterKeys,
    entries,
    files: files.map((file) => ({ ...file })),
  };
  return `${canonicalJson(value as unknown as JsonValue)}\n`;
}

/** The manifest in a text; undefined where it is none, or of another format. */
export function parseManifest(text: string): BackupManifest | undefined {
  const json = parseStrictJson(text, DEPTH_MAX, FILES_MAX + 10);
  if (!json.ok || typeof json.value !== "object" || json.value === null || Array.isArray(json.value)) {
    return undefined;
  }
  const { format, madeAt, records, masterKeys, entries, files } = json.value as Record<string, JsonValue>;
  if (
    format !== FORMAT || typeof madeAt !== "string" || (records !== "files" && records !== "redis") ||
    !Array.isArray(masterKeys) || !masterKeys.every((each) => typeof each === "string") ||
    typeof entries !== "number" || !Number.isSafeInteger(entries) || !Array.isArray(files)
  ) return undefined;
  const read = files.map(fileOf);
  return read.every((file) => file !== undefined) &&
      new Set(read.map(({ path }) => path)).size === read.length
    ? { madeAt, records, masterKeys: masterKeys as string[], entries, files: read }
    : undefined;
}

function fileOf(value: JsonValue): BackupFile | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const { path, bytes, sha256 } = value as Record<string, JsonValue>;
  return typeof path === "string" && PATH.test(path) && typeof bytes === "number" &&
      Number.isSafeInteger(bytes) &&
      bytes >= 0 && typeof sha256 === "string" && /^[0-9a-f]{64}$/.test(sha256)
    ? { path, bytes, sha256 }
    : undefined;
}

const PIECE_BYTES = 1024 * 1024;

/**
 * Copies a file into one that its owner only may read, durably, and tells its size and digest. Of a file that grows, what stood
 * there when it was opened.
 *
 * @param to must not exist; its folder must
 * @param onBytes told how many were copied since it was told last
 * @throws Fault `unavailable` when it cannot be read or written · Deno.errors.NotFound where there is no such file
 */
export function copyFile(
  from: string,
  to: string,
  onBytes: (bytes: number) => void = () => {},
): Pick<BackupFile, "bytes" | "sha256"> {
  using source = Deno.openSync(from, { read: true });
  using target = Deno.openSync(to, { write: true, createNew: true, mode: 0o600 });
  const { size } = source.statSync();
  const digest = createHash("sha256");
  const buffer = new Uint8Array(PIECE_BYTES);
  let bytes = 0;
  while (bytes < size) {
    const read = source.readSync(buffer.subarray(0, Math.min(buffer.length, size - bytes)));
    if (read === null) break;
    const piece = buffer.subarray(0, read);
    digest.update(piece);
    for (let written = 0; written < piece.length;) written += target.writeSync(piece.subarray(written));
    bytes += read;
    onBytes(read);
  }
  target.syncSync();
  return { bytes, sha256: digest.digest("hex") };
}

/** Size and digest of a file that is there already, made durable. */
export function digestFile(path: string): Pick<BackupFile, "bytes" | "sha256"> {
  using file = Deno.openSync(path, { read: true });
  const digest = createHash("sha256");
  const buffer = new Uint8Array(PIECE_BYTES);
  let bytes = 0;
  for (let read = file.readSync(buffer); read !== null; read = file.readSync(buffer)) {
    digest.update(buffer.subarray(0, read));
    bytes += read;
  }
  file.syncSync();
  return { bytes, sha256: digest.digest("hex") };
}

/** Makes the names in a folder durable. */
export function syncFolder(folder: string): void {
  if (Deno.build.os === "windows") return;
  using opened = Deno.openSync(folder, { read: true });
  opened.syncSync();
}

/**
 * Makes a folder for its owner only, or takes one that is there and empty.
 *
 * @param except names that do not count
 * @throws Fault `conflict` when something is in it
 */
export function takeEmptyFolder(folder: string, except: readonly string[] = []): void {
  Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
  const found = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) =>
    !except.includes(name)
  );
  if (found.length > 0) {
    throw new Fault("conflict", `${folder} is not empty: ${found.slice(0, 3).join(", ")}`);
  }
  Deno.chmodSync(folder, 0o700);
}
