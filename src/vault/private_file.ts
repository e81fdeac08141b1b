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

/** The text of a private file, made by `make` when there is none. Never overwrites. */
export async function readOrMakePrivateFile(
  file: string,
  make: () => string | Promise<string>,
): Promise<string> {
  const existing = readPrivateFile(file);
  if (existing !== undefined) return existing;
  const text = await make();
  writeNewFile(file, encodeUtf8(text));
  return text;
}

/** Puts another text in the place of a private file's, or makes it: at any moment it holds the one or the other as a whole. */
export function replacePrivateFile(file: string, text: string): void {
  writeNewFile(file, encodeUtf8(text));
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

/** Written beside and renamed, so that a crash leaves either no file or a whole one. */
function writeNewFile(file: string, bytes: Uint8Array): void {
  const beside = `${file}.new`;
  const handle = Deno.openSync(beside, { write: true, create: true, truncate: true, mode: 0o600 });
  try {
    // A file that a crash left here keeps its own mode otherwise.
    if (Deno.build.os !== "windows") Deno.chmodSync(beside, 0o600);
    for (let written = 0; written < bytes.length;) written += handle.writeSync(bytes.subarray(written));
    handle.syncSync();
  } finally {
    handle.close();
  }
  Deno.renameSync(beside, file);
  if (Deno.build.os === "windows") return;
  // The name is durable only when the folder is: a store that outlives its key would be lost.
  const folder = Deno.openSync(file.slice(0, file.lastIndexOf("/")) || ".", { read: true });
  try {
    folder.syncSync();
  } finally {
    folder.close();
  }
}
