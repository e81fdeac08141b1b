// Catalog: every model by name: those of the models folder, each accepted whole or refused with a recorded reason, and those of
// upstreams; and which of them an admin has enabled or disabled.
import type { AuditTrail } from "../audit/audit_trail.ts";
import { Fault, toFault } from "../faults/fault.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import type { Log } from "../telemetry/log.ts";
import type { ModelCard } from "./model_card.ts";
import {
  type FolderJudge,
  hasModelFolder,
  type ModelArtefacts,
  modelFolders,
  type ReadModel,
  readModelFolder,
} from "./model_folder.ts";
import { MODEL_STATES, type ModelState } from "./model_records.ts";
import { type ServedModel, servedModelOfCard } from "./served_model.ts";

/** The models by their ids. A disabled one is in neither answer. */
export interface Catalog {
  /** By id or by alias. */
  find(name: string): ServedModel | undefined;
  /** In the order of their ids. */
  list(): readonly ServedModel[];
}

/** How a model stands, for whoever administers it. */
export interface ModelStanding {
  readonly id: string;
  /** `local`: of the models folder · `upstream`: of the settings. */
  readonly kind: "local" | "upstream";
  /** `found`: it came into the models folder since the start, and nobody has enabled it. */
  readonly state: "served" | "disabled" | "refused" | "found";
  /** Why it is refused. */
  readonly refusals: readonly string[];
  /** Whether its artefacts rest sealed here. */
  readonly isSealed: boolean;
  /** Id of the key that signed its manifest, and the manifest's serial and time; null where there is none. */
  readonly signer: string | null;
  readonly serial: number | null;
  readonly addedAt: string | null;
  /** Digest of the weights; null where they are not here, or the card is not in order. */
  readonly sha256: string | null;
  readonly license: string | null;
  readonly access: ServedModel["access"] | null;
}

/** A catalog whose models come and go. */
export interface ManagedCatalog extends Catalog {
  /** Of every model, in the order of their ids. */
  standings(): readonly ModelStanding[];
  /** undefined: nobody has heard of it. */
  standing(id: string): ModelStanding | undefined;
  /**
   * Serves a model from now on: one of the models folder is read, checked and loaded anew, unless it is served as it is.
   *
   * @throws Fault `not_found` · `conflict` when it is refused; nothing has changed then · `unavailable` when it cannot be recorded
   */
  enable(id: string): Promise<ModelStanding>;
  /**
   * Callers do not find it any more; what runs ends by itself.
   *
   * @throws Fault `not_found` · `unavailable` when that cannot be kept
   */
  disable(id: string): Promise<ModelStanding>;
}

/** A model as the catalog has it. */
interface Entry {
  readonly standing: ModelStanding;
  /** What callers see while it is enabled; undefined: nothing. */
  readonly served: ServedModel | undefined;
  /** Of a model of this machine: what was read of it. */
  readonly digest: string | undefined;
}

/** What an admin has said of a model, or that it is not to be known. */
interface Saying extends ModelState {
  readonly refusals?: readonly string[];
}

const UNREADABLE: Saying = {
  enabled: false,
  version: "record_broken",
  refusals: [`record_broken: ${MODEL_STATES}`],
};

/** A card's id; nothing else is looked for in the models folder. */
const LOCAL_ID = /^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$/;

/**
 * Joins the models of the models folder and those that upstreams serve.
 *
 * Reads every folder of `modelsDirectory`. A model whose card, manifest or artefact is not in order is refused, recorded and
 * logged; the others are not disturbed. A disabled one is not loaded.
 *
 * @param options.accept gets the files of each accepted model, which is recorded by then; the catalog keeps none of them
 * @param options.drop told of each model that is served no more
 * @throws Fault `unavailable` when the folder itself cannot be read, a refusal cannot be recorded, or two models bear one name
 */
export async function openCatalog(options: {
  modelsDirectory: string;
  trail: AuditTrail;
  log: Log;
  judge: FolderJudge;
  /** Tells of what other instances enable and disable. */
  feed: Pick<ChangeFeed, "follow">;
  /** Models that upstreams serve. */
  upstreamModels: readonly ServedModel[];
  accept: (card: ModelCard, artefacts: ModelArtefacts) => void;
  drop: (id: string) => void;
}): Promise<ManagedCatalog> {
  const { modelsDirectory, trail, log, judge, upstreamModels, accept, drop } = options;
  const { records } = judge;
  const upstream = new Map(upstreamModels.map((model) => [model.id, model]));
  const entries = new Map<string, Entry>();
  /** The last saying about each model that this instance has taken up. */
  const states = new Map<string, string>();
  /** Sayings of this instance whose writing has not ended: whether they stand is known from the feed, or not yet. */
  const unconfirmed = new Set<string>();
  const disabled = new Set<string>();
  let byName: ReadonlyMap<string, ServedModel> = new Map();
  let listed: readonly ServedModel[] = [];

  function keep(entry: Entry): void {
    entries.set(entry.standing.id, entry);
    listed = [...entries.values()].flatMap(({ served, standing }) =>
      served === undefined || standing.state === "disabled" ? [] : [served]
    ).sort((left, right) => left.id < right.id ? -1 : 1);
    byName = new Map(
      listed.flatMap((model) => [model.id, ...model.aliases].map((name) => [name, model] as const)),
    );
  }

  async function refuse({ id, refusals }: Pick<ReadModel, "id" | "refusals">): Promise<void> {
    for (const reason of refusals) {
      log.write("error", "model.refused", { model: id, reason });
      await trail.record({ type: "model.refused", model: id, reason });
    }
  }

  /** The names that a model may not have, for another one has them: aliases of upstream models, and their ids. */
  function nameIsTaken(id: string): boolean {
    return upstreamModels.some((model) => model.id === id || model.aliases.includes(id));
  }

  /** Reads a model of the folder and judges it. */
  async function read(id: string, what: "description" | "everything"): Promise<ReadModel> {
    return nameIsTaken(id)
      ? { ...NOTHING_READ, id, refusals: ["name_taken"] }
      : await readModelFolder(modelsDirectory, id, judge, what);
  }

  /** Serves a model that was read, once that is on record. */
  async function take(found: ReadModel, isWanted: () => boolean): Promise<void> {
    const { card, artefacts, manifest } = found;
    if (card === undefined || artefacts === undefined) {
      throw new Fault("internal", "Cannot serve a model: it was refused");
    }
    const signer = manifest?.signer ?? null;
    const serial = manifest?.serial ?? null;
    const { sha256 } = card.artefacts.graph;
    await trail.record({ type: "model.accepted", model: card.id, sha256, signer, serial });
    if (serial !== null) await records.raiseSerial(card.id, serial);
    if (!isWanted()) return;
    keep(entryOf(found, "served"));
    accept(card, artefacts);
  }

  function hide(id: string): void {
    const entry = entries.get(id);
    disabled.add(id);
    if (entry === undefined || entry.standing.state === "disabled") return;
    keep({ ...entry, standing: { ...entry.standing, state: "disabled", refusals: [] } });
    if (entry.standing.state === "served") drop(id);
  }

  /** One change at a time: what was read for one must not be served after the next. */
  let turn: Promise<unknown> = Promise.resolve();
  function inTurn<Value>(act: () => Promise<Value>): Promise<Value> {
    const next = turn.then(act, act);
    turn = next.catch(() => {});
    return next;
  }

  /** Reads a local model anew. Where it is refused, that is recorded; what was read before, and checked, goes on. */
  async function readAnew(id: string): Promise<ReadModel> {
    const found = await read(id, "everything");
    if (found.refusals.length === 0) return found;
    await refuse(found);
    if (entries.get(id)?.standing.state !== "served") {
      keep(entryOf(found, disabled.has(id) ? "disabled" : "refused"));
    }
    return found;
  }
  async function takeAnew(found: ReadModel, isWanted: () => boolean): Promise<void> {
    const entry = entries.get(found.id);
    const isSame = entry?.standing.state === "served" && entry.digest === digestOf(found);
    if (!isSame && isWanted()) await take(found, isWanted);
  }

  /** What an admin has said; where that is not to be known, nothing may be served. */
  async function lastSaying(id: string): Promise<Saying | undefined> {
    const state = await records.state(id);
    return state.ok ? state.value : UNREADABLE;
  }

  /** What another instance has said. */
  async function follow(id: string): Promise<void> {
    const state = await lastSaying(id);
    if (state === undefined) return;
    // Where our own write ends in a fault although it was made, this is all that tells.
    if (states.get(id) === state.version && !unconfirmed.has(state.version)) return;
    states.set(id, state.version);
    if (!state.enabled) {
      hide(id);
      if (state.refusals !== undefined) await refuse({ id, refusals: state.refusals });
      return;
    }
    disabled.delete(id);
    if (upstream.has(id)) return keepUpstream(id);
    // Not waited for: a feed that waits for a model to load is a feed that is not current.
    const isCurrent = (): boolean => states.get(id) === state.version;
    inTurn(async () => {
      const found = await readAnew(id);
      if (found.refusals.length === 0) await takeAnew(found, isCurrent);
    }).catch((thrown) =>
      log.write("error", "model.not_loaded", { model: id, reason: toFault(thrown).message })
    );
  }

  /** Writes what an admin says, for all instances and the next start. */
  async function say(id: string, state: ModelState): Promise<void> {
    const before = states.get(id);
    states.set(id, state.version);
    unconfirmed.add(state.version);
    try {
      await records.setState(id, state);
    } catch (thrown) {
      // Nobody knows whether it stands: if it does, it is taken up like another's when the feed tells.
      if (states.get(id) === state.version) {
        if (before === undefined) states.delete(id);
        else states.set(id, before);
      }
      throw thrown;
    } finally {
      unconfirmed.delete(state.version);
    }
  }

  function keepUpstream(id: string): void {
    const model = upstream.get(id);
    if (model !== undefined) keep(upstreamEntry(model, disabled.has(id)));
  }

  /** What came into the models folder since the start. */
  function newcomer(id: string): ModelStanding | undefined {
    const isThere = LOCAL_ID.test(id) && !nameIsTaken(id) && hasModelFolder(modelsDirectory, id);
    const state = disabled.has(id) ? "disabled" : "found";
    return isThere ? entryOf({ ...NOTHING_READ, id }, state).standing : undefined;
  }
  function standing(id: string): ModelStanding | undefined {
    return entries.get(id)?.standing ?? newcomer(id);
  }
  function required(id: string): ModelStanding {
    const found = standing(id);
    if (found === undefined) {
      throw new Fault("not_found", `Cannot find the model ${id}: there is none of that name`);
    }
    return found;
  }

  checkNames(upstreamModels);
  for (const { id, serial, isRemovalUnrecorded } of await records.serials()) {
    if (!isRemovalUnrecorded) continue;
    await trail.record({
      type: "command.changed",
      command: "models:remove",
      object: `model/${id}`,
      before: { serial },
      after: null,
    });
    await records.clearRemoval(id);
  }
  for (const id of await records.idsWithState()) {
    const state = await lastSaying(id);
    if (state === undefined) continue;
    states.set(id, state.version);
    if (!state.enabled) disabled.add(id);
    if (state.refusals !== undefined) await refuse({ id, refusals: state.refusals });
  }
  for (const id of upstream.keys()) keepUpstream(id);
  for (const id of foldersOf(modelsDirectory)) {
    if (nameIsTaken(id)) {
      throw new Fault(
        "unavailable",
        `Cannot serve ${id} from the models folder: a model of an upstream bears the name`,
      );
    }
    const found = await read(id, disabled.has(id) ? "description" : "everything");
    if (disabled.has(id)) keep(entryOf(found, "disabled"));
    else if (found.refusals.length === 0) await take(found, () => true);
    else {
      await refuse(found);
      keep(entryOf(found, "refused"));
    }
  }
  options.feed.follow(MODEL_STATES, async (key) => {
    for (const id of key === undefined ? await records.idsWithState() : [key]) await follow(id);
  });

  return {
    find: (name) => byName.get(name),
    list: () => listed,
    standings: () =>
      [...new Set([...entries.keys(), ...foldersOf(modelsDirectory)])].sort().flatMap((id) =>
        standing(id) ?? []
      ),
    standing,
    enable: (id) =>
      inTurn(async () => {
        required(id);
        const found = upstream.has(id) ? undefined : await readAnew(id);
        if (found !== undefined && found.refusals.length > 0) {
          const reasons = found.refusals.join(", ");
          throw new Fault("conflict", `Cannot enable the model ${id}: ${reasons}`, {
            detail: `The model was refused: ${reasons}.`,
          });
        }
        const state = records.newState(true);
        await say(id, state);
        // Another instance may say otherwise from here on.
        const isCurrent = (): boolean => states.get(id) === state.version;
        if (isCurrent()) disabled.delete(id);
        if (found === undefined) keepUpstream(id);
        else await takeAnew(found, isCurrent);
        return required(id);
      }),
    disable: (id) =>
      inTurn(async () => {
        required(id);
        await say(id, records.newState(false));
        if (!entries.has(id)) keep(entryOf(await read(id, "description"), "disabled"));
        hide(id);
        return required(id);
      }),
  };
}

const NOTHING_READ: ReadModel = {
  id: "",
  card: undefined,
  manifest: undefined,
  isSealed: false,
  refusals: [],
  artefacts: undefined,
};

function entryOf(found: ReadModel, state: ModelStanding["state"]): Entry {
  const { id, card, manifest, isSealed } = found;
  const served = card === undefined ? undefined : servedModelOfCard(card, state === "served");
  return {
    standing: {
      id,
      kind: "local",
      state,
      refusals: found.refusals,
      isSealed,
      signer: manifest?.signer ?? null,
      serial: manifest?.serial ?? null,
      addedAt: manifest?.addedAt ?? null,
      sha256: served?.sha256 ?? null,
      license: card?.license ?? null,
      access: served?.access ?? null,
    },
    served,
    digest: digestOf(found),
  };
}

function upstreamEntry(model: ServedModel, isDisabled: boolean): Entry {
  return {
    standing: {
      id: model.id,
      kind: "upstream",
      state: isDisabled ? "disabled" : "served",
      refusals: [],
      isSealed: false,
      signer: null,
      serial: null,
      addedAt: null,
      sha256: null,
      license: null,
      access: model.access,
    },
    served: model,
    digest: undefined,
  };
}

/** Names what was read of a model: its card, which names the digests of its files, and its manifest. */
function digestOf({ card, manifest }: ReadModel): string {
  return JSON.stringify([card, manifest?.sha256]);
}

/** Throws Fault `unavailable` where two models of upstreams bear one name. */
function checkNames(models: readonly ServedModel[]): void {
  const seen = new Set(models.map(({ id }) => id));
  for (const { id, aliases } of models) {
    for (const alias of aliases) {
      if (seen.has(alias)) {
        throw new Fault("unavailable", `Cannot serve ${id} as ${alias}: another model bears the name`);
      }
      seen.add(alias);
    }
  }
}

function foldersOf(directory: string): readonly string[] {
  try {
    return modelFolders(directory);
  } catch (cause) {
    throw new Fault(
      "unavailable",
      `Cannot read the models folder ${directory}: ${cause instanceof Error ? cause.name : "unknown"}`,
      { cause },
    );
  }
}
