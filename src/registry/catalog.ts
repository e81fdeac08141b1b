// Catalog: every model by name: those of the models folder, each accepted whole or refused with a recorded reason, and those of
// upstreams.
import type { AuditTrail } from "../audit/audit_trail.ts";
import { Fault } from "../faults/fault.ts";
import { no, type Outcome } from "../faults/outcome.ts";
import type { Log } from "../telemetry/log.ts";
import { readArtefact } from "./artefact.ts";
import { type ModelCard, parseModelCard } from "./model_card.ts";
import { type ServedModel, servedModelOfCard } from "./served_model.ts";

/** The models by their ids. */
export interface Catalog {
  /** By id or by alias. */
  find(name: string): ServedModel | undefined;
  /** In the order of their ids. */
  list(): readonly ServedModel[];
}

/** The files of an accepted model, as they were checked. */
export interface ModelArtefacts {
  readonly graph: Uint8Array<ArrayBuffer>;
  readonly vocabulary: Uint8Array<ArrayBuffer>;
}

const CARD_FILE = "card.json";

/**
 * Joins the models of the models folder and those that upstreams serve.
 *
 * Reads every folder of `modelsDirectory`. A model whose card or artefact is not in order is refused, recorded and
 * logged; the others are not disturbed.
 *
 * @param options.accept gets the files of each accepted model; the catalog keeps none of them
 * @throws Fault `unavailable` when the folder itself cannot be read, a refusal cannot be recorded, or two models bear one name
 */
export async function openCatalog(options: {
  modelsDirectory: string;
  trail: AuditTrail;
  log: Log;
  /** Models that upstreams serve. */
  upstreamModels: readonly ServedModel[];
  accept: (card: ModelCard, artefacts: ModelArtefacts) => void;
}): Promise<Catalog> {
  const { modelsDirectory, trail, log, accept } = options;
  const models = new Map<string, ServedModel>();

  async function refuse(model: string, reason: string): Promise<void> {
    log.write("error", "model.refused", { model, reason });
    await trail.record({ type: "model.refused", model, reason });
  }

  for (const { name, isSymlink } of modelFolders(modelsDirectory)) {
    if (isSymlink) {
      await refuse(name, "folder_is_a_link");
      continue;
    }
    const folder = `${modelsDirectory}/${name}`;
    const card = readCard(folder, name);
    if (!card.ok) {
      await refuse(name, card.reason);
      continue;
    }
    const { id, artefacts } = card.value;
    const graph = readArtefact(folder, artefacts.graph);
    const vocabulary = readArtefact(folder, artefacts.vocabulary);
    if (graph.ok && vocabulary.ok) {
      models.set(id, servedModelOfCard(card.value, true));
      const { sha256 } = artefacts.graph;
      await trail.record({ type: "model.accepted", model: id, sha256, signer: null, serial: null });
      accept(card.value, { graph: graph.value, vocabulary: vocabulary.value });
    } else {
      models.set(id, servedModelOfCard(card.value, false));
      if (!graph.ok) await refuse(id, `${graph.reason}: ${artefacts.graph.file}`);
      if (!vocabulary.ok) await refuse(id, `${vocabulary.reason}: ${artefacts.vocabulary.file}`);
    }
  }
  for (const model of options.upstreamModels) {
    if (models.has(model.id)) {
      throw new Fault(
        "unavailable",
        `Cannot serve ${model.id} from an upstream: a model of the models folder bears the name`,
      );
    }
    models.set(model.id, model);
  }
  const listed = [...models.values()].sort((left, right) => left.id < right.id ? -1 : 1);
  const byName = new Map(listed.map((model) => [model.id, model]));
  for (const model of listed) {
    for (const alias of model.aliases) {
      if (byName.has(alias)) {
        throw new Fault("unavailable", `Cannot serve ${model.id} as ${alias}: another model bears the name`);
      }
      byName.set(alias, model);
    }
  }
  return { find: (name) => byName.get(name), list: () => listed };
}

/** In the order of their names. A link is no folder and is told all the same, so that nobody wonders where a model is. */
function modelFolders(directory: string): Deno.DirEntry[] {
  try {
    return [...Deno.readDirSync(directory)].filter((entry) => entry.isDirectory || entry.isSymlink)
      .sort((left, right) => left.name < right.name ? -1 : 1);
  } catch (cause) {
    throw new Fault(
      "unavailable",
      `Cannot read the models folder ${directory}: ${cause instanceof Error ? cause.name : "unknown"}`,
      { cause },
    );
  }
}

type CardRefusal =
  | "card_missing"
  | "card_is_no_file"
  | "card_not_json"
  | "card_invalid"
  | "card_names_another_folder";

function readCard(folder: string, name: string): Outcome<ModelCard, CardRefusal> {
  let bytes: Uint8Array;
  try {
    const path = `${folder}/${CARD_FILE}`;
    if (!Deno.lstatSync(path).isFile) return no("card_is_no_file");
    bytes = Deno.readFileSync(path);
  } catch {
    return no("card_missing");
  }
  const card = parseModelCard(bytes);
  if (!card.ok) return card;
  return card.value.id === name ? card : no("card_names_another_folder");
}
