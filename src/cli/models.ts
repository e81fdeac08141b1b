// Models: the commands that seal a model into the models folder, list what lies there, read every chunk of it, and take one out.
import { hash } from "node:crypto";
import { parseArgs } from "node:util";
import { z } from "zod";
import { openVault, type Vault } from "../assembly/trust.ts";
import type { Config } from "../config/config.ts";
import { encodeBase64url } from "../encoding/base64url.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { parseStrictJson } from "../encoding/strict_json.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import { Fault, toFault } from "../faults/fault.ts";
import { ok } from "../faults/outcome.ts";
import type { ArtefactDescription } from "../registry/artefact.ts";
import { type Manifest, signManifest, verifyManifest } from "../registry/manifest.ts";
import { type ModelCard, modelCardSchema } from "../registry/model_card.ts";
import {
  addingPlace,
  CARD_FILE,
  type FolderJudge,
  hasModelFolder,
  MANIFEST_FILE,
  modelFolders,
  readModelFolder,
  replacedPlace,
} from "../registry/model_folder.ts";
import { openModelRecords } from "../registry/model_records.ts";
import { openModelSigners } from "../registry/model_signers.ts";
import { sealArtefact } from "../registry/sealed_artefact.ts";
import { openLog } from "../telemetry/log.ts";
import { systemClock } from "../time/clock.ts";
import { newFileKey } from "../vault/sealed_file.ts";

/** Prints one line for a person. */
type Print = (line: string) => void;

const ADD_USAGE = `models:add PATH [options]
  PATH is a folder with card.json and the files that it names, or the graph of a model. Digests and sizes are computed where the card
  lacks them.
  --id ID  --license TEXT  --name TEXT  --description TEXT  --source TEXT  --see ROLES  --use ROLES      instead of the card's
  For a graph without a card: --id, --license, --vocabulary FILE, --dimensions N are needed; --texts-max N  --characters-max N
  --tokens-max N  --tokens-total-max N bound a request`;
const PROGRESS_EVERY_MS = 1000;
/** A server beside the command reads the store for moments. */
const SCRUB_TRIES_MAX = 20;
const SCRUB_RETRY_MS = 100;
const ROLES_THAT_SEE = "admin,operator,auditor,user";
const ROLES_THAT_USE = "admin,operator,user";
const DEFAULT_LIMITS = {
  "texts-max": "256",
  "characters-max": "4096",
  "tokens-max": "128",
  "tokens-total-max": "8192",
} as const;

/** What of a card must stand there before its files can be read. */
const draftSchema = z.looseObject({
  artefacts: z.looseObject({
    graph: z.looseObject({ file: z.string(), sha256: z.string().optional(), bytes: z.number().optional() }),
    vocabulary: z.looseObject({
      file: z.string(),
      sha256: z.string().optional(),
      bytes: z.number().optional(),
    }),
  }),
});
type Draft = z.infer<typeof draftSchema>;

/** What is to be added. */
interface Source {
  /** The card without what is computed. */
  readonly draft: Draft;
  /** The card's own bytes where nothing is to be added to it. */
  readonly cardBytes: Uint8Array<ArrayBuffer> | undefined;
  readonly graph: string;
  readonly vocabulary: string;
  /** A manifest that came with it. */
  readonly manifest: Uint8Array<ArrayBuffer> | undefined;
}

/** Seals a model into the models folder. A server takes it up when it is told to, or at its next start. */
export async function addModel(config: Config, parameters: readonly string[], print: Print): Promise<number> {
  const source = readSource(parameters);
  const draft = describedSoFar(source.draft);
  const { id } = draft;
  if (config.upstreamModels.some((model) => model.id === id || model.aliases.includes(id))) {
    throw failure(`a model of an upstream is called ${id}`);
  }
  return await withModels(config, (judge, store) =>
    withFolder(config.modelsDir, async () => {
      const { records, signers } = judge;
      const given = source.manifest === undefined ? undefined : await believed(source.manifest, judge);
      const places = await cleanPlaces(config.modelsDir, id);
      try {
        const sealed = await sealFiles(source, draft, places.adding, print);
        if (given !== undefined) requireSigned(given, sealed.digests);
        const serials = await serialsOf(config, id, judge);
        if (!serials.isKnown) {
          print(`${id}: the record of its serial does not open; it counts on from ${serials.highest}`);
        }
        if (!(await signers.own()).ok) {
          print("the record of the own signer does not open: models that it signed must be added again");
        }
        const manifest = given !== undefined && given.serial !== null && source.manifest !== undefined
          ? { bytes: source.manifest, serial: given.serial, signer: given.signer }
          : await ownManifest(draft, sealed.digests, serials, judge);
        if (manifest.serial < serials.highest) {
          throw failure(
            `its serial is ${manifest.serial}, and serial ${serials.highest} was accepted already`,
          );
        }
        await writeDurably(`${places.adding}/${CARD_FILE}`, sealed.cardBytes);
        await writeDurably(`${places.adding}/${MANIFEST_FILE}`, manifest.bytes);
        await syncFolder(places.adding);
        const manifestSha256 = hash("sha256", manifest.bytes, "hex");
        // As a server will: what it would refuse takes no good version's place.
        const { refusals } = await readModelFolder(
          config.modelsDir,
          id,
          {
            ...judge,
            records: {
              ...records,
              fileKeys: () => Promise.resolve(ok(sealed.keys)),
              highestSerial: () => Promise.resolve(ok(serials.highest)),
            },
          },
          "everything",
          places.adding,
        );
        if (refusals.length > 0) throw failure(`it would be refused: ${refusals.join(", ")}`);
        // The keys before the folder: whatever is in the models folder under its own name can be opened.
        await records.keepFileKeys(id, manifestSha256, manifest.serial, sealed.keys);
        try {
          await swapIn(places);
        } catch (thrown) {
          await records.dropFileKeys(id, manifestSha256);
          throw thrown;
        }
        await syncFolder(config.modelsDir);
        await remove(places.replaced);
        if (!serials.isKnown) await records.raiseSerial(id, serials.highest);
        // The version that was there until now stays readable for instances that have a copy of it; those before do not.
        if (await records.destroyFileKeys(id, serials.standing) > 0) {
          const reason = await scrub(store);
          if (reason !== undefined) {
            print(`${id}: the store's files may still hold the keys of older versions: ${reason}`);
          }
        }
        print(`${id}: sealed as serial ${manifest.serial}, signed by ${manifest.signer}`);
      } catch (thrown) {
        await remove(places.adding);
        throw thrown;
      }
      print(
        `${id}: a server that runs takes it up with POST /admin/v1/models/${id}/enable` +
          (await isEnabled(id, judge) ? ", another one at its start" : "; it is disabled until then"),
      );
      return 0;
    }));
}

/** Prints every model of the models folder with what is known of it without reading its files. */
export async function listModels(config: Config, print: Print): Promise<number> {
  return await withModels(config, async (judge) => {
    const ownSigner = await judge.signers.own();
    const own = ownSigner.ok ? ownSigner.value : undefined;
    if (!ownSigner.ok) print("own signer: its record does not open");
    if (own !== undefined) print(`own signer ${own.id}\n  public key ${encodeBase64url(own.publicKey)}`);
    for (const id of modelFolders(config.modelsDir)) {
      const { card, manifest, isSealed, refusals } = await readModelFolder(
        config.modelsDir,
        id,
        judge,
        "description",
      );
      print(
        `${id}  ${
          refusals.length > 0
            ? `refused: ${refusals.join(", ")}`
            : await isEnabled(id, judge)
            ? "enabled"
            : "disabled"
        }` +
          `, ${isSealed ? "sealed" : "plain"}`,
      );
      if (manifest !== undefined) {
        const whose = manifest.signer === own?.id ? "own signer" : manifest.signer;
        print(
          `  serial ${manifest.serial}, signed by ${whose}, added ${
            manifest.addedAt ?? "at an unknown time"
          }`,
        );
      }
      if (card === undefined) continue;
      const { graph, vocabulary } = card.artefacts;
      print(`  ${card.license}, see: ${card.access.see.join(" ")}, use: ${card.access.use.join(" ")}`);
      for (const { file, sha256, bytes } of [graph, vocabulary]) print(`  ${sha256}  ${bytes}  ${file}`);
    }
    return 0;
  });
}

/** Reads every chunk of one model or of all, as a server does; the exit code says whether all are in order. */
export async function verifyModels(config: Config, [only]: readonly string[], print: Print): Promise<number> {
  return await withModels(config, async (judge) => {
    const ids = modelFolders(config.modelsDir).filter((id) => only === undefined || id === only);
    if (only !== undefined && ids.length === 0) throw new Fault("not_found", `there is no model ${only}`);
    let refused = 0;
    for (const id of ids) {
      const { refusals, isSealed, manifest } = await readModelFolder(
        config.modelsDir,
        id,
        judge,
        "everything",
      );
      if (refusals.length > 0) refused++;
      const how = `${isSealed ? "sealed" : "plain"}, ${
        manifest === undefined ? "not signed" : `serial ${manifest.serial}, signed by ${manifest.signer}`
      }`;
      print(refusals.length === 0 ? `${id}: in order (${how})` : `${id}: refused: ${refusals.join(", ")}`);
    }
    return refused === 0 ? 0 : 1;
  });
}

/** Takes a model out for good: first its keys, so that no copy of the folder opens any more. */
export async function removeModel(
  config: Config,
  parameters: readonly string[],
  print: Print,
): Promise<number> {
  const { values: { yes }, positionals: [id = ""] } = parsed(
    () =>
      parseArgs({
        args: [...parameters],
        allowPositionals: true,
        options: { yes: { type: "boolean", default: false } },
      }),
    "models:remove ID --yes",
  );
  if (!modelCardSchema.shape.id.safeParse(id).success) throw failure(`"${id}" is no model's id`);
  return await withModels(config, async ({ records }, store) => {
    if (!hasModelFolder(config.modelsDir, id)) throw new Fault("not_found", `there is no model ${id}`);
    if (!yes) {
      print(
        `This destroys the keys of ${id} and deletes ${config.modelsDir}/${id}. If that is meant: models:remove ${id} --yes`,
      );
      return 1;
    }
    return await withFolder(config.modelsDir, async () => {
      // A server records it at its next start: the trail is of one process.
      await records.noteRemoval(id);
      const destroyed = await records.destroyFileKeys(id);
      const reason = await scrub(store);
      if (reason !== undefined) {
        print(`${id}: its keys are deleted, but the store's files may still hold them: ${reason}`);
        print(
          `${id}: its folder is still there. Run this again; where that does not help, stop the server first`,
        );
        return 1;
      }
      const { folder, adding, replaced } = placesOf(config.modelsDir, id);
      for (const path of [folder, adding, replaced]) await remove(path);
      print(`${id}: deleted, with the keys of ${destroyed} ${destroyed === 1 ? "version" : "versions"}`);
      if (config.redisUrl !== undefined) {
        print(
          `${id}: files of Redis hold the keys, sealed, until they are written anew: BGREWRITEAOF and BGSAVE`,
        );
      }
      print(
        `${id}: a server that runs has it in memory until POST /admin/v1/models/${id}/disable, or until it stops`,
      );
      return 0;
    });
  });
}

function readSource(parameters: readonly string[]): Source {
  const { values, positionals: [path, ...others] } = parsed(
    () =>
      parseArgs({
        args: [...parameters],
        allowPositionals: true,
        options: {
          "id": { type: "string" },
          "license": { type: "string" },
          "name": { type: "string" },
          "description": { type: "string" },
          "source": { type: "string" },
          "see": { type: "string" },
          "use": { type: "string" },
          "vocabulary": { type: "string" },
          "dimensions": { type: "string" },
          "texts-max": { type: "string" },
          "characters-max": { type: "string" },
          "tokens-max": { type: "string" },
          "tokens-total-max": { type: "string" },
        },
      }),
    ADD_USAGE,
  );
  if (path === undefined || others.length > 0) throw failure(`one PATH is needed:\n${ADD_USAGE}`);
  const { id, license, name, description, source, see, use } = values;
  const access = { see: see?.split(","), use: use?.split(",") };
  const said = definedOf({ id, license, name, description, source });
  if (isFolder(path)) {
    const cardBytes = readFile(`${path}/${CARD_FILE}`);
    const json = parseStrictJson(new TextDecoder().decode(cardBytes), 8);
    const read = draftSchema.safeParse(json.ok ? json.value : undefined);
    if (!read.success) {
      throw failure(`${path}/${CARD_FILE} is no card with the files of graph and vocabulary`);
    }
    const { graph, vocabulary } = read.data.artefacts;
    const isWhole = [graph, vocabulary].every(({ sha256, bytes }) =>
      sha256 !== undefined && bytes !== undefined
    );
    const isChanged = Object.keys(said).length > 0 || see !== undefined || use !== undefined;
    const manifest = exists(`${path}/${MANIFEST_FILE}`) ? readFile(`${path}/${MANIFEST_FILE}`) : undefined;
    if (manifest !== undefined && (isChanged || !isWhole)) {
      throw failure(`${path} is signed: its card must be whole, and stays as it is`);
    }
    const draft = {
      ...read.data,
      ...said,
      access: { ...(read.data.access as Record<string, JsonValue> | undefined), ...definedOf(access) },
    };
    return {
      draft,
      cardBytes: isWhole && !isChanged ? cardBytes : undefined,
      graph: `${path}/${fileName(graph.file)}`,
      vocabulary: `${path}/${fileName(vocabulary.file)}`,
      manifest,
    };
  }
  if (values.vocabulary === undefined) throw failure(`a graph needs --vocabulary FILE:\n${ADD_USAGE}`);
  const limit = (option: keyof typeof DEFAULT_LIMITS): number =>
    Number(values[option] ?? DEFAULT_LIMITS[option]);
  return {
    draft: {
      task: "embedding",
      name: id ?? "",
      description: "",
      source: "a local file",
      createdSeconds: Math.floor(systemClock.now() / 1000),
      dimensions: Number(values.dimensions),
      dimensionsReducible: false,
      limits: {
        textsPerRequestMax: limit("texts-max"),
        charactersPerTextMax: limit("characters-max"),
        tokensPerTextMax: limit("tokens-max"),
        tokensPerRequestMax: limit("tokens-total-max"),
      },
      ...said,
      access: { see: ROLES_THAT_SEE.split(","), use: ROLES_THAT_USE.split(","), ...definedOf(access) },
      artefacts: { graph: { file: "graph.onnx" }, vocabulary: { file: "vocabulary.json" } },
    },
    cardBytes: undefined,
    graph: path,
    vocabulary: values.vocabulary,
    manifest: undefined,
  };
}

/** The card with nothing where digests will stand: what else is wrong with it is said before anything is sealed. */
function describedSoFar(draft: Draft): ModelCard {
  const { graph, vocabulary } = draft.artefacts;
  const filled = (described: Draft["artefacts"]["graph"]) => ({
    sha256: "0".repeat(64),
    bytes: 1,
    ...described,
  });
  const card = modelCardSchema.safeParse({
    ...draft,
    artefacts: { ...draft.artefacts, graph: filled(graph), vocabulary: filled(vocabulary) },
  });
  if (card.success) return card.data;
  const mistakes = card.error.issues.map(({ path, message }) => `  ${path.join(".") || "card"}: ${message}`);
  throw failure(`its card is not in order:\n${mistakes.join("\n")}`);
}

/** A model as it rests beside its place. */
interface SealedFiles {
  readonly cardBytes: Uint8Array<ArrayBuffer>;
  /** Of card and artefacts by their names. */
  readonly digests: ReadonlyMap<string, string>;
  readonly keys: ReadonlyMap<string, Uint8Array<ArrayBuffer>>;
}

async function sealFiles(
  source: Source,
  draft: ModelCard,
  folder: string,
  print: Print,
): Promise<SealedFiles> {
  const keys = new Map<string, Uint8Array<ArrayBuffer>>();
  const sealed = new Map<string, ArtefactDescription>();
  async function sealOnce(which: "graph" | "vocabulary"): Promise<ArtefactDescription> {
    const { file } = draft.artefacts[which];
    // A card may name one file twice.
    const known = sealed.get(file);
    if (known !== undefined) return known;
    const key = newFileKey();
    const described = await sealOne(source, which, { folder, model: draft.id, file, key }, print);
    keys.set(file, key);
    sealed.set(file, described);
    return described;
  }
  const artefacts = { graph: await sealOnce("graph"), vocabulary: await sealOnce("vocabulary") };
  const cardBytes = source.cardBytes ??
    encodeUtf8(`${JSON.stringify({ ...draft, artefacts }, undefined, 2)}\n`);
  const digests = new Map([...sealed].map(([file, { sha256 }]) => [file, sha256]));
  return { cardBytes, digests: digests.set(CARD_FILE, hash("sha256", cardBytes, "hex")), keys };
}

async function sealOne(
  source: Source,
  which: "graph" | "vocabulary",
  place: Pick<Parameters<typeof sealArtefact>[0], "folder" | "model" | "file" | "key">,
  print: Print,
): Promise<ArtefactDescription> {
  const { sha256, bytes } = source.draft.artefacts[which];
  const startMs = systemClock.monotonic();
  let saidMs = startMs;
  const total = Math.max(1, fileBytes(source[which]));
  const sealed = await sealArtefact({
    ...place,
    source: source[which],
    onProgress(done) {
      if (systemClock.monotonic() - saidMs < PROGRESS_EVERY_MS) return;
      saidMs = systemClock.monotonic();
      print(`${place.model}: sealing ${place.file} … ${Math.floor(100 * done / total)} %`);
    },
  });
  if ((sha256 !== undefined && sha256 !== sealed.sha256) || (bytes !== undefined && bytes !== sealed.bytes)) {
    throw failure(
      `${source[which]} is not what its card says: ${sealed.bytes} bytes with SHA-256 ${sealed.sha256}`,
    );
  }
  const megabytes = sealed.bytes / 1e6;
  const seconds = Math.max(0.001, (systemClock.monotonic() - startMs) / 1000);
  print(
    `${place.model}: sealed ${place.file}, ${megabytes.toFixed(1)} MB at ${
      Math.round(megabytes / seconds)
    } MB/s`,
  );
  return sealed;
}

/** How far a model's versions are counted. */
interface Serials {
  /** The highest that was accepted; where no record says so, the highest of a version that was added. */
  readonly highest: number;
  /** Whether a record says so, or there is none. */
  readonly isKnown: boolean;
  /** Of the version in its place; 0: none that is believed. */
  readonly standing: number;
  /** The highest of a version that was added. */
  readonly kept: number;
}

async function serialsOf({ modelsDir }: Config, id: string, judge: FolderJudge): Promise<Serials> {
  const { manifest } = await readModelFolder(modelsDir, id, judge, "description");
  const accepted = await judge.records.highestSerial(id);
  const kept = await judge.records.highestKeptSerial(id);
  return {
    highest: accepted.ok ? accepted.value : kept,
    isKnown: accepted.ok,
    standing: manifest?.serial ?? 0,
    kept,
  };
}

/** A manifest of our own, of the version after all others. */
async function ownManifest(
  { id, license }: ModelCard,
  files: ReadonlyMap<string, string>,
  { highest, standing, kept }: Serials,
  { signers }: FolderJudge,
): Promise<{ readonly bytes: Uint8Array<ArrayBuffer>; readonly serial: number; readonly signer: string }> {
  const signer = await signers.ensureOwn();
  const serial = Math.max(highest, standing, kept) + 1;
  const addedAt = new Date(systemClock.now()).toISOString();
  const bytes = await signManifest({ model: id, files, serial, license, addedAt }, signer);
  return { bytes, serial, signer: signer.id };
}

/** Where the folders of a model are while it is added. */
interface Places {
  readonly folder: string;
  readonly adding: string;
  readonly replaced: string;
}

function placesOf(directory: string, id: string): Places {
  return {
    folder: `${directory}/${id}`,
    adding: addingPlace(directory, id),
    replaced: replacedPlace(directory, id),
  };
}

/** Mends what a crash left, and makes an empty folder to seal into. */
async function cleanPlaces(directory: string, id: string): Promise<Places> {
  const places = placesOf(directory, id);
  if (exists(places.replaced) && !exists(places.folder)) await Deno.rename(places.replaced, places.folder);
  await remove(places.replaced);
  await remove(places.adding);
  await Deno.mkdir(places.adding);
  return places;
}

/** Puts the new version in its place. Where it throws, the one before is there. */
async function swapIn({ folder, adding, replaced }: Places): Promise<void> {
  const isReplacing = exists(folder);
  if (isReplacing) await Deno.rename(folder, replaced);
  try {
    await Deno.rename(adding, folder);
  } catch (thrown) {
    if (isReplacing) await Deno.rename(replaced, folder);
    throw thrown;
  }
}

/** Changes the models folder while no other command does. The system takes the lock off a process that ends, however it does. */
async function withFolder<Value>(directory: string, change: () => Promise<Value>): Promise<Value> {
  await Deno.mkdir(directory, { recursive: true });
  const path = `${directory}/.lock`;
  using file = await Deno.open(path, { write: true, create: true });
  const isLocked = await file.tryLock(true);
  // Whoever had the lock before has taken the file away: then it is nobody's.
  if (!isLocked || !exists(path) || (await Deno.lstat(path)).ino !== (await file.stat()).ino) {
    throw failure("another command is changing the models folder; try again when it is done");
  }
  try {
    return await change();
  } finally {
    await remove(path);
  }
}

/** Takes what was deleted out of the store's files; why that is not done, or undefined. */
async function scrub(store: Vault["store"]): Promise<string | undefined> {
  for (let tries = 1;; tries++) {
    try {
      await store.scrub();
      return undefined;
    } catch (thrown) {
      if (tries === SCRUB_TRIES_MAX) return toFault(thrown).message;
    }
    await new Promise((resolve) => setTimeout(resolve, SCRUB_RETRY_MS));
  }
}

/** As a server takes it: of a record that does not open nobody knows what it says. */
async function isEnabled(id: string, { records }: FolderJudge): Promise<boolean> {
  const state = await records.state(id);
  return state.ok && state.value?.enabled !== false;
}

/** What a manifest that came with a model says; it must be of somebody trusted. */
async function believed(bytes: Uint8Array<ArrayBuffer>, { signers }: FolderJudge): Promise<Manifest> {
  const verified = await verifyManifest(bytes, await signers.trusted());
  if (verified.ok) return verified.value;
  throw failure(
    `its ${MANIFEST_FILE} is not believed (${verified.reason}); name its signer in PORTCULLIS_MODEL_SIGNERS, or take the file away`,
  );
}

function requireSigned(manifest: Manifest, files: ReadonlyMap<string, string>): void {
  for (const [file, sha256] of files) {
    if (manifest.files.get(file) !== sha256) throw failure(`${file} is not what its ${MANIFEST_FILE} signs`);
  }
}

async function withModels(
  config: Config,
  run: (judge: FolderJudge, store: Vault["store"]) => Promise<number>,
): Promise<number> {
  const opened: (() => Promise<void> | void)[] = [];
  const log = openLog({ level: "error", clock: systemClock, sink: (bytes) => Promise.resolve(bytes.length) });
  try {
    const { store, keyRing } = await openVault(config, systemClock, log, opened);
    const judge = {
      records: openModelRecords(store, keyRing),
      signers: openModelSigners(store, keyRing, config.modelSigners),
      plain: config.modelsPlain,
    };
    return await run(judge, store);
  } finally {
    while (opened.length > 0) await opened.pop()?.();
  }
}

function parsed<Value>(parse: () => Value, usage: string): Value {
  try {
    return parse();
  } catch (thrown) {
    throw failure(`${thrown instanceof Error ? thrown.message : "the parameters are wrong"}:\n${usage}`);
  }
}

function definedOf<Value>(fields: Readonly<Record<string, Value | undefined>>): Record<string, Value> {
  return Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => value === undefined ? [] : [[name, value]]),
  );
}

/** A name inside the folder, never a path out of it. */
function fileName(file: string): string {
  if (modelCardSchema.shape.artefacts.shape.graph.shape.file.safeParse(file).success) return file;
  throw failure(`its card names the file "${file}", which is no name inside a folder`);
}

/** A link is followed nowhere: what is sealed is what lies under the name that was given. */
function isFolder(path: string): boolean {
  const { isDirectory, isSymlink } = infoOf(path);
  if (isSymlink) throw failure(`${path} is a link`);
  return isDirectory;
}

function fileBytes(path: string): number {
  const { isFile, size } = infoOf(path);
  if (!isFile) throw failure(`${path} is no file`);
  return size;
}

function infoOf(path: string): Deno.FileInfo {
  try {
    return Deno.lstatSync(path);
  } catch {
    throw failure(`${path} cannot be read`);
  }
}

function readFile(path: string): Uint8Array<ArrayBuffer> {
  fileBytes(path);
  try {
    return Deno.readFileSync(path);
  } catch {
    throw failure(`${path} cannot be read`);
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

async function remove(path: string): Promise<void> {
  if (exists(path)) await Deno.remove(path, { recursive: true });
}

async function writeDurably(path: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true });
  for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
  await file.sync();
}

async function syncFolder(path: string): Promise<void> {
  if (Deno.build.os === "windows") return;
  using folder = await Deno.open(path, { read: true });
  await folder.sync();
}

function failure(state: string): Fault {
  return new Fault("unavailable", `the model is left as it is: ${state}`);
}
