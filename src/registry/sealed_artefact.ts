// Sealed artefact: a file of a model as it rests sealed in the model's folder, and how it gets there and back into memory.
import { createHash, hash } from "node:crypto";
import { toFault } from "../faults/fault.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import { openFile, type ReadInto, sealFile } from "../vault/sealed_file.ts";
import type { ArtefactDescription, ArtefactRefusal } from "./artefact.ts";

/** What a sealed file is called in its folder. */
export function sealedName(file: string): string {
  return `${file}.sealed`;
}

/** Where a sealed file rests, as its chunks have it: no file of another model or of another name opens there. */
function placeOf(model: string, file: string): string {
  return `models/${model}/${file}`;
}

/**
 * Seals a plain file into a new one beside its future name, in bounded memory.
 *
 * @param onProgress told how many plain bytes are done
 * @returns what was sealed
 * @throws what the file system throws
 */
export async function sealArtefact(options: {
  readonly source: string;
  readonly folder: string;
  readonly model: string;
  readonly file: string;
  readonly key: Uint8Array<ArrayBuffer>;
  readonly onProgress?: (bytes: number) => void;
}): Promise<ArtefactDescription> {
  const { source, folder, model, file, key, onProgress } = options;
  using input = await Deno.open(source, { read: true });
  using output = await Deno.open(`${folder}/${sealedName(file)}`, {
    write: true,
    createNew: true,
  });
  const digest = createHash("sha256");
  const fill = readerOf(input);
  let bytes = 0;
  const read: ReadInto = async (buffer) => {
    const filled = await fill(buffer);
    digest.update(buffer.subarray(0, filled));
    bytes += filled;
    return filled;
  };
  for await (const piece of sealFile(key, placeOf(model, file), read)) {
    for (let written = 0; written < piece.length;) written += await output.write(piece.subarray(written));
    onProgress?.(bytes);
  }
  await output.sync();
  return { file, sha256: digest.digest("hex"), bytes };
}

/** Opens a sealed file of a model's folder in memory and checks its length and digest. What is returned is what was checked. */
export async function openArtefact(
  folder: string,
  model: string,
  described: ArtefactDescription,
  key: Uint8Array<ArrayBuffer>,
): Promise<Outcome<Uint8Array<ArrayBuffer>, ArtefactRefusal | "seal_broken">> {
  const path = `${folder}/${sealedName(described.file)}`;
  try {
    const info = await Deno.lstat(path);
    if (info.isSymlink) return no("artefact_outside_its_folder");
    if (!info.isFile) return no("artefact_unreadable");
    // Before memory is taken for as much as the card says.
    if (info.size < described.bytes) return no("seal_broken");
    using file = await Deno.open(path, { read: true });
    const plain = new Uint8Array(described.bytes);
    let filled = 0;
    for await (const piece of openFile(key, placeOf(model, described.file), readerOf(file))) {
      if (filled + piece.length > plain.length) return no("digest_mismatch");
      plain.set(piece, filled);
      filled += piece.length;
    }
    const matches = filled === plain.length && hash("sha256", plain, "hex") === described.sha256;
    return matches ? ok(plain) : no("digest_mismatch");
  } catch (thrown) {
    if (thrown instanceof Deno.errors.NotFound) return no("artefact_missing");
    return no(toFault(thrown).kind === "unavailable" ? "seal_broken" : "artefact_unreadable");
  }
}

function readerOf(file: Deno.FsFile): ReadInto {
  return async (buffer) => {
    let filled = 0;
    while (filled < buffer.length) {
      const read = await file.read(buffer.subarray(filled));
      if (read === null) break;
      filled += read;
    }
    return filled;
  };
}
