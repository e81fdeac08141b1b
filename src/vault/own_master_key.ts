// Own master key: one that this server holds itself, in a private file of its data folder. For development.
import {
  generateMasterKey,
  type MasterKey,
  masterKeyFrom,
  type MasterKeys,
  parseMasterKeys,
} from "./master_key.ts";
import { readOrMakePrivateFile, readPrivateFile, replacePrivateFile } from "./private_file.ts";
import { Fault } from "../faults/fault.ts";

/**
 * Opens the key in a file, making both where there is none. The file holds the key that wraps, and below it those that data keys may
 * still be under: a crash at any moment leaves a file that opens the store.
 *
 * @throws Fault `unavailable` when others may read the file, or it holds no key
 */
export async function openOwnMasterKey(file: string): Promise<MasterKey> {
  await readOrMakePrivateFile(file, generateMasterKey);
  return masterKeyFrom({
    read: () => parseMasterKeys(readText(file)),
    renew() {
      const keys = keysIn(file);
      // Of several, the first is from a replacement that did not come to its end: it goes on, instead of adding one with each try.
      return Promise.resolve(
        keys.length > 1 ? parseMasterKeys(keys.join("\n")) : write(file, [generateMasterKey(), ...keys]),
      );
    },
    settle() {
      const [current = "", ...older] = keysIn(file);
      return Promise.resolve(older.length === 0 ? parseMasterKeys(current) : write(file, [current]));
    },
  });
}

function keysIn(file: string): readonly string[] {
  return readText(file).trim().split(/\s+/);
}

function readText(file: string): string {
  const text = readPrivateFile(file);
  if (text === undefined) throw new Fault("unavailable", `Cannot read ${file}: it was removed`);
  return text;
}

/** In the file before anything is wrapped under it. */
function write(file: string, keys: readonly string[]): MasterKeys {
  const text = keys.join("\n");
  replacePrivateFile(file, text);
  return parseMasterKeys(text);
}
