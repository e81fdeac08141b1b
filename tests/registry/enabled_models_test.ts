// Tests of enabling and disabling: models come and go while the catalog is open, here and on every instance of the same store.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { Fault } from "../../src/faults/fault.ts";
import { type ManagedCatalog, openCatalog } from "../../src/registry/catalog.ts";
import type { FolderJudge } from "../../src/registry/model_folder.ts";
import { type ServedModel, servedModelOfCard } from "../../src/registry/served_model.ts";
import { ManualFeed } from "../support/manual_feed.ts";
import { breakRecord, cardOf, newJudge, sealModel } from "./sealed_model.ts";

const UPSTREAM: ServedModel = {
  ...servedModelOfCard(cardOf("far"), true),
  aliases: ["far-away"],
  sha256: null,
};

/** A catalog with all that it tells. */
interface Instance {
  readonly catalog: ManagedCatalog;
  /** Ids of models as they are loaded and, with a minus, dropped. */
  readonly engines: string[];
  readonly feed: ManualFeed;
  readonly trail: ReturnType<typeof memoryAuditTrail>;
  readonly logged: string[];
}

async function openInstance(modelsDirectory: string, judge: FolderJudge): Promise<Instance> {
  const engines: string[] = [];
  const logged: string[] = [];
  const feed = new ManualFeed();
  const trail = memoryAuditTrail();
  const catalog = await openCatalog({
    modelsDirectory,
    trail,
    log: {
      write: (level, event, fields) => logged.push(`${level} ${event} ${fields?.model}: ${fields?.reason}`),
      flush: () => Promise.resolve(),
    },
    judge,
    feed,
    upstreamModels: [UPSTREAM],
    accept: (card) => engines.push(card.id),
    drop: (id) => engines.push(`-${id}`),
  });
  return { catalog, engines, feed, trail, logged };
}

function modelsFolder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ prefix: "models-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

const ids = ({ catalog }: Instance) => catalog.list().map(({ id }) => id);
const states = ({ catalog }: Instance) => catalog.standings().map(({ id, state }) => `${id} ${state}`);
const accepted = ({ trail }: Instance) =>
  trail.events.flatMap((event) => event.type === "model.accepted" ? [[event.model, event.serial]] : []);
const refused = ({ trail }: Instance) =>
  trail.events.flatMap((event) => event.type === "model.refused" ? [`${event.model}: ${event.reason}`] : []);
const isKind = (kind: string) => (thrown: unknown): boolean =>
  thrown instanceof Fault && thrown.kind === kind;

Deno.test("a disabled model is not there for callers, its engine is dropped, and enabling loads it anew", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  await sealModel(folder.path, "a", judge);
  const instance = await openInstance(folder.path, judge);
  deepStrictEqual([ids(instance), instance.engines], [["a", "far"], ["a"]]);
  strictEqual((await instance.catalog.disable("a")).state, "disabled");
  deepStrictEqual([instance.catalog.find("a"), ids(instance), instance.engines], [undefined, ["far"], [
    "a",
    "-a",
  ]]);
  await instance.catalog.disable("a");
  deepStrictEqual(instance.engines, ["a", "-a"]);
  strictEqual((await instance.catalog.enable("a")).state, "served");
  deepStrictEqual([ids(instance), instance.engines], [["a", "far"], ["a", "-a", "a"]]);
  deepStrictEqual(accepted(instance), [["a", 1], ["a", 1]]);
  // What is served as it is stays as it is.
  await instance.catalog.enable("a");
  deepStrictEqual([instance.engines, accepted(instance).length], [["a", "-a", "a"], 2]);
});

Deno.test("a model of an upstream is disabled with all its names, and enabled again", async () => {
  using folder = modelsFolder();
  const instance = await openInstance(folder.path, await newJudge());
  ok(instance.catalog.find("far-away"));
  await instance.catalog.disable("far");
  deepStrictEqual([instance.catalog.find("far"), instance.catalog.find("far-away"), ids(instance)], [
    undefined,
    undefined,
    [],
  ]);
  deepStrictEqual(states(instance), ["far disabled"]);
  await instance.catalog.enable("far");
  strictEqual(instance.catalog.find("far-away")?.id, "far");
});

Deno.test("what is disabled stays so at the next start, and its files are not read", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const path = await sealModel(folder.path, "a", judge);
  const first = await openInstance(folder.path, judge);
  await first.catalog.disable("a");
  await first.catalog.disable("far");
  Deno.removeSync(`${path}/graph.onnx.sealed`);
  const next = await openInstance(folder.path, judge);
  deepStrictEqual([ids(next), next.engines, next.trail.events], [[], [], []]);
  deepStrictEqual(states(next), ["a disabled", "far disabled"]);
  strictEqual(next.catalog.standing("a")?.license, "Apache-2.0");
});

Deno.test("a model that comes into the folder is found, and served when it is enabled", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const instance = await openInstance(folder.path, judge);
  strictEqual(instance.catalog.standing("late"), undefined);
  await rejects(instance.catalog.enable("late"), isKind("not_found"));
  await sealModel(folder.path, "late", judge, { serial: 4 });
  deepStrictEqual(states(instance), ["far served", "late found"]);
  deepStrictEqual(ids(instance), ["far"]);
  const { state, serial, isSealed } = await instance.catalog.enable("late");
  deepStrictEqual([state, serial, isSealed, ids(instance)], ["served", 4, true, ["far", "late"]]);
  deepStrictEqual(await judge.records.highestSerial("late"), { ok: true, value: 4 });
  for (const name of ["../late", ".late", "late/", "LATE", ""]) {
    strictEqual(instance.catalog.standing(name), undefined);
  }
});

Deno.test("a folder that is refused changes nothing: a disabled model stays disabled, and one that is served goes on", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const path = await sealModel(folder.path, "a", judge);
  const instance = await openInstance(folder.path, judge);
  Deno.truncateSync(`${path}/graph.onnx.sealed`, 20);
  await rejects(
    instance.catalog.enable("a"),
    (thrown) =>
      isKind("conflict")(thrown) &&
      (thrown as Fault).details.detail === "The model was refused: seal_broken: graph.onnx.",
  );
  deepStrictEqual([ids(instance), instance.engines], [["a", "far"], ["a"]]);
  await instance.catalog.disable("a");
  await rejects(instance.catalog.enable("a"), isKind("conflict"));
  deepStrictEqual([states(instance)[0], ids(instance), instance.engines], ["a disabled", ["far"], [
    "a",
    "-a",
  ]]);
  deepStrictEqual(instance.catalog.standing("a")?.refusals, ["seal_broken: graph.onnx"]);
  const reason = "a: seal_broken: graph.onnx";
  deepStrictEqual(refused(instance), [reason, reason]);
  deepStrictEqual(instance.logged, [`error model.refused ${reason}`, `error model.refused ${reason}`]);
  const state = await judge.records.state("a");
  strictEqual(state.ok && state.value?.enabled, false);
});

Deno.test("a newer version takes the place of the one that is served, and an older one is refused for ever", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const path = await sealModel(folder.path, "a", judge, { serial: 1 });
  const instance = await openInstance(folder.path, judge);
  const old = await Deno.makeTempDir();
  await Deno.rename(path, `${old}/a`);
  await sealModel(folder.path, "a", judge, { serial: 2 });
  strictEqual((await instance.catalog.enable("a")).serial, 2);
  deepStrictEqual([instance.engines, accepted(instance)], [["a", "a"], [["a", 1], ["a", 2]]]);
  await Deno.remove(path, { recursive: true });
  await Deno.rename(`${old}/a`, path);
  await Deno.remove(old);
  await rejects(instance.catalog.enable("a"), isKind("conflict"));
  const next = await openInstance(folder.path, judge);
  deepStrictEqual(refused(next), ["a: downgrade: serial 1 after 2"]);
  deepStrictEqual([ids(next), states(next)], [["far"], ["a refused", "far served"]]);
});

Deno.test("what one instance disables or enables, the others do as soon as they hear of it, and each says so in its own trail", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  await sealModel(folder.path, "a", judge);
  const one = await openInstance(folder.path, judge);
  const other = await openInstance(folder.path, judge);
  const tell = async (key: string | undefined) => {
    for (const { feed } of [one, other]) await feed.tell("model_states", key);
  };
  deepStrictEqual(one.feed.tables(), ["model_states"]);
  await one.catalog.disable("a");
  await tell("a");
  deepStrictEqual([ids(other), other.engines, one.engines], [["far"], ["a", "-a"], ["a", "-a"]]);
  await one.catalog.enable("a");
  await tell(undefined);
  // Loading goes on beside the feed; the next act waits for it.
  await other.catalog.enable("far");
  deepStrictEqual([ids(other), other.engines, accepted(other)], [["a", "far"], ["a", "-a", "a"], [["a", 1], [
    "a",
    1,
  ]]]);
  deepStrictEqual(one.engines, ["a", "-a", "a"]);
  // What was told once is not taken up twice.
  await tell("a");
  await other.catalog.enable("far");
  deepStrictEqual(other.engines, ["a", "-a", "a"]);
});

Deno.test("an instance that hears of a disabling while it loads does not serve what it has loaded", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  await sealModel(folder.path, "a", judge);
  const one = await openInstance(folder.path, judge);
  const other = await openInstance(folder.path, judge);
  await one.catalog.disable("a");
  await other.feed.tell("model_states", "a");
  await one.catalog.enable("a");
  const loading = other.feed.tell("model_states", "a");
  await loading;
  await one.catalog.disable("a");
  await other.feed.tell("model_states", "a");
  await other.catalog.enable("far");
  deepStrictEqual([ids(other), other.engines], [["far"], ["a", "-a"]]);
});

Deno.test("ASVS V16.5.3: without a record of it no model is enabled", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  await sealModel(folder.path, "a", judge);
  const instance = await openInstance(folder.path, judge);
  await instance.catalog.disable("a");
  instance.trail.setFailing(true);
  await rejects(instance.catalog.enable("a"), isKind("unavailable"));
  deepStrictEqual([ids(instance), instance.engines], [["far"], ["a", "-a"]]);
  instance.trail.setFailing(false);
  await instance.catalog.enable("a");
  deepStrictEqual(ids(instance), ["a", "far"]);
});

Deno.test("a removal by the command is recorded once, by the next start", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  await judge.records.raiseSerial("gone", 3);
  await judge.records.noteRemoval("gone");
  deepStrictEqual((await openInstance(folder.path, judge)).trail.events, [{
    type: "command.changed",
    command: "models:remove",
    object: "model/gone",
    before: { serial: 3 },
    after: null,
  }]);
  deepStrictEqual((await openInstance(folder.path, judge)).trail.events, []);
});

Deno.test("a record that does not open refuses or disables its own model, says so, and no other model is disturbed", async () => {
  const outcomes: Record<string, [states: string[], refused: string[]]> = {
    model_keys: [["a refused", "b served", "far served"], ["a: record_broken: model_keys"]],
    model_serials: [["a refused", "b served", "far served"], ["a: record_broken: model_serials"]],
    model_states: [["a disabled", "b served", "far served"], ["a: record_broken: model_states"]],
    model_signers: [["a refused", "b refused", "far served"], [
      "a: record_broken: model_signers",
      "b: record_broken: model_signers",
    ]],
  };
  for (const [table, [expectedStates, expectedRefusals]] of Object.entries(outcomes)) {
    using folder = modelsFolder();
    const judge = await newJudge();
    await sealModel(folder.path, "a", judge);
    await sealModel(folder.path, "b", judge);
    const first = await openInstance(folder.path, judge);
    await first.catalog.enable("a");
    await breakRecord(judge.store, table);
    const next = await openInstance(folder.path, judge);
    deepStrictEqual([states(next), refused(next)], [expectedStates, expectedRefusals], table);
    deepStrictEqual(next.logged, expectedRefusals.map((line) => `error model.refused ${line}`));
    const served = next.catalog.list().flatMap(({ id, accepted }) => accepted ? [`${id} served`] : []);
    deepStrictEqual(served, expectedStates.filter((line) => line.endsWith("served")));
  }
});

Deno.test("a state that does not open disables its model on all instances, until an admin says something new", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const instance = await openInstance(folder.path, judge);
  await instance.catalog.enable("far");
  await breakRecord(judge.store, "model_states");
  await instance.feed.tell("model_states", "far");
  await instance.feed.tell("model_states", "far");
  deepStrictEqual([ids(instance), refused(instance)], [[], ["far: record_broken: model_states"]]);
  await instance.catalog.enable("far");
  deepStrictEqual([ids(instance), ids(await openInstance(folder.path, judge))], [["far"], ["far"]]);
});

Deno.test("a store that fails is no broken record: the start fails with it, and refuses no model", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  await sealModel(folder.path, "a", judge);
  Object.assign(judge.store, { get: () => Promise.reject(new Fault("unavailable", "the store fails")) });
  await rejects(openInstance(folder.path, judge), { message: "the store fails" });
});

/** A judge whose store writes what is enabled or disabled, and then does not answer. */
function unanswering(
  judge: FolderJudge,
  beforeFault: () => Promise<void> = () => Promise.resolve(),
): FolderJudge {
  const records: FolderJudge["records"] = {
    ...judge.records,
    async setState(id, state) {
      await judge.records.setState(id, state);
      await beforeFault();
      throw new Fault("unavailable", "no answer");
    },
  };
  return { ...judge, records };
}

Deno.test("a disabling whose answer was lost holds here as well, as soon as the feed tells of it", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  await sealModel(folder.path, "a", judge);
  const instance = await openInstance(folder.path, unanswering(judge));
  for (const id of ["a", "far"]) await rejects(instance.catalog.disable(id), isKind("unavailable"));
  deepStrictEqual(ids(instance), ["a", "far"]);
  await instance.feed.tell("model_states", "a");
  await instance.feed.tell("model_states", undefined);
  deepStrictEqual([ids(instance), instance.engines], [[], ["a", "-a", "-far"]]);
});

Deno.test("a disabling holds also where the feed tells of it before its answer is given up", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const instance: Instance = await openInstance(
    folder.path,
    unanswering(judge, () => instance.feed.tell("model_states", "far")),
  );
  await rejects(instance.catalog.disable("far"), isKind("unavailable"));
  deepStrictEqual(ids(instance), []);
});

Deno.test("an act that was not written leaves what another instance said meanwhile", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const other = await openInstance(folder.path, judge);
  const records: FolderJudge["records"] = {
    ...judge.records,
    async setState() {
      await other.catalog.disable("far");
      await instance.feed.tell("model_states", "far");
      throw new Fault("unavailable", "no answer");
    },
  };
  const instance: Instance = await openInstance(folder.path, { ...judge, records });
  await rejects(instance.catalog.enable("far"), isKind("unavailable"));
  await instance.feed.tell("model_states", undefined);
  deepStrictEqual(ids(instance), []);
});

Deno.test("a model whose replacement was broken off is refused, and not passed over", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const path = await sealModel(folder.path, "a", judge);
  Deno.renameSync(path, `${folder.path}/.replaced-a`);
  const instance = await openInstance(folder.path, judge);
  deepStrictEqual([states(instance), refused(instance)], [["a refused", "far served"], [
    "a: swap_unfinished",
  ]]);
  Deno.renameSync(`${folder.path}/.replaced-a`, path);
  strictEqual((await instance.catalog.enable("a")).state, "served");
});

Deno.test("no model of the folder takes a name that an upstream's model has", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const instance = await openInstance(folder.path, judge);
  await sealModel(folder.path, "far-away", judge);
  strictEqual(instance.catalog.standing("far-away"), undefined);
  await rejects(instance.catalog.enable("far-away"), isKind("not_found"));
  await rejects(openInstance(folder.path, judge), isKind("unavailable"));
});
