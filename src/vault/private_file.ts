// Private files: key material of a single machine, mode 0600, in a folder of mode 0700.
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";

/** Makes a folder that only its owner may enter, or makes the one that is there so. */
export function makePrivateFolder(folder: string): void {
  Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
  // mkdir's mode is cut by the umask and not applied to a folder that was there.
  if (((Deno.statSync(folder).mode ?? 0o700) & 0o777) !== 0o700) Deno.chmodSync(folder, 0o700);
}

/** Makes an empty file that only its owner may read, or makes the one that is there so; for a database, whose side files take its mode over. */
export function makePrivateFile(file: string): void {
  Deno.openSync(file, { write: true, create: true, mode: 0o600 }).close();
  if (((Deno.statSync(file).mode ?? 0o600) & 0o777) !== 0o600) Deno.chmodSync(file, 0o600);
}

/** The text of a private file, made by `make` when there is none. Never overwrites: of those who make it at one moment, all get one text. */
export async function readOrMakePrivateFile(
  file: string,
  make: () => string | Promise<string>,
): Promise<string> {
  const existing = readPrivateFile(file);
  if (existing !== undefined) return existing;
  const text = await make();
  const beside = writeBeside(file, encodeUtf8(text));
  try {
    // Unlike a renaming, this fails where somebody else was quicker.
    Deno.linkSync(beside, file);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  } finally {
    Deno.removeSync(beside);
  }
  syncFolderOf(file);
  return readPrivateFile(file) ?? text;
}

/** Puts another text in the place of a private file's, or makes it: at any moment it holds the one or the other as a whole. */
export function replacePrivateFile(file: string, text: string): void {
  Deno.renameSync(writeBeside(file, encodeUtf8(text)), file);
  // What crashes left may hold what was just replaced.
  const [folder, name] = splitPath(file);
  for (const entry of Deno.readDirSync(folder)) {
    if (entry.name.startsWith(`${name}.`) && entry.name.endsWith(".new")) {
      Deno.removeSync(`${folder}/${entry.name}`);
    }
  }
  syncFolderOf(file);
}

/** The text of a private file; undefined where there is none. Throws Fault `unavailable` where others may read it. */
export function readPrivateFile(file: string): string | undefined {
  const bytes = readBytes(file);
  if (bytes === undefined) return undefined;
  const text = decodeUtf8(bytes);
  if (!text.ok) throw new Fault("unavailable", `Cannot read ${file}: it is not text`);
  return text.value;
}

function readBytes(file: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    const mode = Deno.statSync(file).mode;
    if (mode !== null && (mode & 0o077) !== 0) {
      throw new Fault("unavailable", `Cannot use ${file}: others may read it; run: chmod 600 ${file}`);
    }
    return Deno.readFileSync(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** A whole new file beside another, under a name that nobody else takes: a crash leaves the other as it was. */
function writeBeside(file: string, bytes: Uint8Array): string {
  const beside = `${file}.${crypto.randomUUID()}.new`;
  const handle = Deno.openSync(beside, { write: true, createNew: true, mode: 0o600 });
  try {
    for (let written = 0; written < bytes.length;) written += handle.writeSync(bytes.subarray(written));
    handle.syncSync();
  } finally {
    handle.close();
  }
  return beside;
}

/** The name is durable only when the folder is: a store that outlives its key would be lost. */
function syncFolderOf(file: string): void {
  if (Deno.build.os === "windows") return;
  using folder = Deno.openSync(splitPath(file)[0], { read: true });
  folder.syncSync();
}

function splitPath(file: string): readonly [folder: string, name: string] {
  const at = file.lastIndexOf("/");
  return at < 0 ? [".", file] : [file.slice(0, at) || "/", file.slice(at + 1)];
}
