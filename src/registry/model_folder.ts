// Model folder: what lies below models/ID, read whole: its card, its manifest where it has one, its artefacts sealed or plain. A model is
// in order as a whole or refused with the reasons.
import { hash } from "node:crypto";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import { type ArtefactDescription, readArtefact } from "./artefact.ts";
import { type Manifest, verifyManifest } from "./manifest.ts";
import { type ModelCard, parseModelCard } from "./model_card.ts";
import type { FileKeys, ModelRecords } from "./model_records.ts";
import type { ModelSigners } from "./model_signers.ts";
import { openArtefact, sealedName } from "./sealed_artefact.ts";

/** A model's card. */
export const CARD_FILE = "card.json";
/** A model's manifest. */
export const MANIFEST_FILE = "model.sig";
/** A manifest or card is text of a few kilobytes; nothing longer is read into memory. */
const TEXT_BYTES_MAX = 1024 * 1024;
const REPLACED = ".replaced-";

/** The files of an accepted model, as they were checked. */
export interface ModelArtefacts {
  readonly graph: Uint8Array<ArrayBuffer>;
  readonly vocabulary: Uint8Array<ArrayBuffer>;
}

/** What a folder holds. */
export interface ReadModel {
  /** The folder's name. */
  readonly id: string;
  /** undefined where it is not in order itself, or not what was signed. */
  readonly card: ModelCard | undefined;
  /** undefined where there is none that is believed. */
  readonly manifest: Manifest | undefined;
  readonly isSealed: boolean;
  /** Why the model is not served; none: it may be. */
  readonly refusals: readonly string[];
  /** There where nothing is refused and they were asked for. */
  readonly artefacts: ModelArtefacts | undefined;
}

/** What a folder is held against. */
export interface FolderJudge {
  readonly records: ModelRecords;
  readonly signers: ModelSigners;
  /** Whether a model without a manifest is served at all. */
  readonly plain: "allow" | "refuse";
}

/** Where a model is made; it begins with a dot, as no model's id does. */
export function addingPlace(directory: string, id: string): string {
  return `${directory}/.adding-${id}`;
}

/** Where the version is that another one takes the place of. It is there for a moment, or since a command was killed in it. */
export function replacedPlace(directory: string, id: string): string {
  return `${directory}/${REPLACED}${id}`;
}

/**
 * In the order of their names. A link is no folder and is told all the same, so that nobody wonders where a model is; so is one of which
 * there is only the version that was to be replaced.
 */
export function modelFolders(directory: string): readonly string[] {
  const names = [...Deno.readDirSync(directory)]
    .filter((entry) => entry.isDirectory || entry.isSymlink)
    .map(({ name }) => name.startsWith(REPLACED) ? name.slice(REPLACED.length) : name)
    .filter((name) => !name.startsWith("."));
  return [...new Set(names)].sort();
}

/** Whether there is something of this name in the models folder. */
export function hasModelFolder(directory: string, id: string): boolean {
  return [`${directory}/${id}`, replacedPlace(directory, id)].some((path) => {
    try {
      const info = Deno.lstatSync(path);
      return info.isDirectory || info.isSymlink;
    } catch {
      return false;
    }
  });
}

/**
 * Reads and judges one folder.
 *
 * @param what `description`: card and manifest only · `everything`: the artefacts too, each chunk and digest of them
 * @param folder where it lies, while it is not yet in its place
 * @throws Fault `unavailable` when the store or the master key fails
 */
export async function readModelFolder(
  directory: string,
  id: string,
  judge: FolderJudge,
  what: "description" | "everything",
  folder = `${directory}/${id}`,
): Promise<ReadModel> {
  const refused = (reason: string, known: Partial<ReadModel> = {}): ReadModel => ({
    id,
    card: undefined,
    manifest: undefined,
    isSealed: false,
    artefacts: undefined,
    ...known,
    refusals: [reason],
  });
  if (isLink(folder)) return refused("folder_is_a_link");
  if (!exists(folder) && exists(replacedPlace(directory, id))) return refused("swap_unfinished");
  const cardBytes = readText(folder, CARD_FILE);
  if (!cardBytes.ok) return refused(`card_${cardBytes.reason}`);
  const card = parseModelCard(cardBytes.value);
  if (!card.ok) return refused(card.reason);
  if (card.value.id !== id) return refused("card_names_another_folder");

  const signed = await readManifest(folder, card.value, hash("sha256", cardBytes.value, "hex"), judge);
  // A card that is not what was signed says nothing.
  if (!signed.ok) return refused(signed.reason);
  const manifest = signed.value;
  const kept = manifest === undefined ? ok(undefined) : await judge.records.fileKeys(id, manifest.sha256);
  if (!kept.ok) return refused(`${kept.reason}: model_keys`, { card: card.value, manifest, isSealed: true });
  const keys = kept.value;
  const known = { card: card.value, manifest, isSealed: keys !== undefined };
  const { graph, vocabulary } = card.value.artefacts;
  if (keys === undefined && manifest !== undefined && exists(`${folder}/${sealedName(graph.file)}`)) {
    return refused("key_missing", { ...known, isSealed: true });
  }
  if (what === "description") return { id, ...known, refusals: [], artefacts: undefined };
  const read = [
    await readFile(folder, id, graph, keys),
    await readFile(folder, id, vocabulary, keys),
  ] as const;
  const refusals = read.flatMap((each, index) =>
    each.ok ? [] : [`${each.reason}: ${(index === 0 ? graph : vocabulary).file}`]
  );
  const [graphRead, vocabularyRead] = read;
  const artefacts = graphRead.ok && vocabularyRead.ok
    ? { graph: graphRead.value, vocabulary: vocabularyRead.value }
    : undefined;
  return { id, ...known, refusals, artefacts };
}

/** The manifest that fits the card; undefined: there is none, and none is needed. */
async function readManifest(
  folder: string,
  card: ModelCard,
  cardSha256: string,
  { records, signers, plain }: FolderJudge,
): Promise<Outcome<Manifest | undefined, string>> {
  const bytes = readText(folder, MANIFEST_FILE);
  const read = await records.highestSerial(card.id);
  if (!read.ok) return no(`${read.reason}: model_serials`);
  const highest = read.value;
  if (!bytes.ok) {
    if (bytes.reason !== "missing") return no(`manifest_${bytes.reason}`);
    // Whoever could take the manifest away from a model that had one could put anything in its place.
    const hadOne = highest > 0 || await records.hasFileKeys(card.id);
    return plain === "refuse" || hadOne ? no("manifest_missing") : ok(undefined);
  }
  const verified = await verifyManifest(bytes.value, await signers.trusted());
  if (!verified.ok) {
    const own = await signers.own();
    return verified.reason === "signer_unknown" && !own.ok ? no(`${own.reason}: model_signers`) : verified;
  }
  const { serial, files } = verified.value;
  if (serial === null) return no("manifest_without_serial");
  if (serial < highest) return no(`downgrade: serial ${serial} after ${highest}`);
  if (files.get(CARD_FILE) !== cardSha256) return no("card_not_as_signed");
  const unsigned = [card.artefacts.graph, card.artefacts.vocabulary].find(({ file, sha256 }) =>
    files.get(file) !== sha256
  );
  return unsigned === undefined ? verified : no(`artefact_not_as_signed: ${unsigned.file}`);
}

async function readFile(
  folder: string,
  id: string,
  described: ArtefactDescription,
  keys: FileKeys | undefined,
): Promise<Outcome<Uint8Array<ArrayBuffer>, string>> {
  if (keys === undefined) return readArtefact(folder, described);
  const key = keys.get(described.file);
  return key === undefined ? no("key_missing") : await openArtefact(folder, id, described, key);
}

function readText(
  folder: string,
  file: string,
): Outcome<Uint8Array<ArrayBuffer>, "missing" | "unreadable" | "is_no_file" | "too_long"> {
  try {
    const path = `${folder}/${file}`;
    const info = Deno.lstatSync(path);
    if (!info.isFile) return no("is_no_file");
    return info.size > TEXT_BYTES_MAX ? no("too_long") : ok(Deno.readFileSync(path));
  } catch (thrown) {
    return no(thrown instanceof Deno.errors.NotFound ? "missing" : "unreadable");
  }
}

function isLink(path: string): boolean {
  try {
    return Deno.lstatSync(path).isSymlink;
  } catch {
    return false;
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
