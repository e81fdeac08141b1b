// Artefact: a file of a model, read whole and held against the digest that its card names.
import { hash } from "node:crypto";
import { no, ok, type Outcome } from "../faults/outcome.ts";

/** What the card says of a file. */
export interface ArtefactDescription {
  readonly file: string;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
  readonly bytes: number;
}

/** Why a file is not used. */
export type ArtefactRefusal =
  | "artefact_missing"
  | "artefact_unreadable"
  | "artefact_outside_its_folder"
  | "digest_mismatch";

/** Reads a file of a model's folder and checks its length and digest. What is returned is what was checked. */
export function readArtefact(
  folder: string,
  described: ArtefactDescription,
): Outcome<Uint8Array<ArrayBuffer>, ArtefactRefusal> {
  try {
    const path = `${folder}/${described.file}`;
    const info = Deno.lstatSync(path);
    // A link would lead the read out of the folder although its name is inside.
    if (info.isSymlink) return no("artefact_outside_its_folder");
    // A pipe would be waited for, and a file of any length be read into memory.
    if (!info.isFile) return no("artefact_unreadable");
    if (info.size !== described.bytes) return no("digest_mismatch");
    const bytes = Deno.readFileSync(path);
    const matches = bytes.length === described.bytes && hash("sha256", bytes, "hex") === described.sha256;
    return matches ? ok(bytes) : no("digest_mismatch");
  } catch (error) {
    return no(error instanceof Deno.errors.NotFound ? "artefact_missing" : "artefact_unreadable");
  }
}
