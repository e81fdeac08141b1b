// Tests of model folders: a sealed and signed model opens as it was, and each way to tamper with it has its reason.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { type FolderJudge, modelFolders, readModelFolder } from "../../src/registry/model_folder.ts";
import {
  breakRecord,
  cardOf,
  foreignSigner,
  GRAPH,
  newJudge,
  sealModel,
  VOCABULARY,
} from "./sealed_model.ts";

/** A models folder that goes away. */
function modelsFolder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ prefix: "models-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

const read = (folder: { readonly path: string }, judge: FolderJudge, id = "a") =>
  readModelFolder(folder.path, id, judge, "everything");

function flip(file: string, at: number): void {
  const bytes = Deno.readFileSync(file);
  const index = at < 0 ? bytes.length + at : at;
  Deno.writeFileSync(file, bytes.with(index, (bytes[index] ?? 0) ^ 1));
}

Deno.test("a sealed model opens to the bytes that were sealed, and nothing plain lies in its folder", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const path = await sealModel(folder.path, "a", judge, { serial: 3 });
  const { card, manifest, isSealed, refusals, artefacts } = await read(folder, judge);
  deepStrictEqual([card, isSealed, refusals, artefacts], [cardOf("a"), true, [], {
    graph: GRAPH,
    vocabulary: VOCABULARY,
  }]);
  deepStrictEqual([manifest?.serial, manifest?.signer], [3, (await judge.signers.ensureOwn()).id]);
  deepStrictEqual(
    [...Deno.readDirSync(path)].map(({ name }) => name).sort(),
    ["card.json", "graph.onnx.sealed", "model.sig", "vocabulary.json.sealed"],
  );
  const description = await readModelFolder(folder.path, "a", judge, "description");
  deepStrictEqual([description.card, description.artefacts, description.refusals], [
    cardOf("a"),
    undefined,
    [],
  ]);
});

Deno.test("OWASP LLM03: each way to tamper with a sealed model refuses it, with the reason", async () => {
  const stranger = await foreignSigner();
  const ways: Record<string, (path: string, judge: FolderJudge, models: string) => Promise<void> | void> = {
    "seal_broken: graph.onnx": (path) => flip(`${path}/graph.onnx.sealed`, -1),
    "seal_broken: vocabulary.json": (path) => flip(`${path}/vocabulary.json.sealed`, 0),
    "artefact_missing: graph.onnx": (path) => Deno.removeSync(`${path}/graph.onnx.sealed`),
    "artefact_outside_its_folder: vocabulary.json": (path) => {
      Deno.renameSync(`${path}/vocabulary.json.sealed`, `${path}/../elsewhere`);
      Deno.symlinkSync("../elsewhere", `${path}/vocabulary.json.sealed`);
    },
    "key_missing": async (_, { records }) => {
      strictEqual(await records.destroyFileKeys("a"), 1);
    },
    "card_not_as_signed": (path) =>
      Deno.writeTextFileSync(`${path}/card.json`, JSON.stringify({ ...cardOf("a"), license: "MIT" })),
    "signature_wrong": (path) => {
      const bundle = JSON.parse(Deno.readTextFileSync(`${path}/model.sig`));
      const payload = atob(bundle.dsseEnvelope.payload).replace('"serial":1', '"serial":9');
      bundle.dsseEnvelope.payload = btoa(payload);
      Deno.writeTextFileSync(`${path}/model.sig`, JSON.stringify(bundle));
    },
    "signer_unknown": async (path, judge, models) => {
      Deno.removeSync(path, { recursive: true });
      await sealModel(models, "a", judge, { signer: stranger });
    },
    "manifest_malformed": (path) => Deno.writeTextFileSync(`${path}/model.sig`, "{}"),
    "manifest_is_no_file": (path) => {
      Deno.removeSync(`${path}/model.sig`);
      Deno.mkdirSync(`${path}/model.sig`);
    },
    "manifest_too_long": (path) => Deno.truncateSync(`${path}/model.sig`, 1024 * 1024 + 1),
    "downgrade: serial 1 after 2": async (_, { records }) => await records.raiseSerial("a", 2),
  };
  for (const [reason, tamper] of Object.entries(ways)) {
    using folder = modelsFolder();
    const judge = await newJudge();
    const path = await sealModel(folder.path, "a", judge);
    await tamper(path, judge, folder.path);
    const { refusals, artefacts } = await read(folder, judge);
    deepStrictEqual([refusals, artefacts], [[reason], undefined]);
  }
});

Deno.test("a manifest that is taken away from a model that was ever added or accepted with one refuses it, and so does plain: refuse", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const path = await sealModel(folder.path, "a", judge);
  Deno.removeSync(`${path}/model.sig`);
  Deno.writeFileSync(`${path}/graph.onnx`, GRAPH);
  Deno.writeFileSync(`${path}/vocabulary.json`, VOCABULARY);
  const elsewhere = await newJudge();
  deepStrictEqual((await read(folder, elsewhere)).refusals, []);
  deepStrictEqual((await read(folder, { ...elsewhere, plain: "refuse" })).refusals, ["manifest_missing"]);
  await elsewhere.records.raiseSerial("a", 1);
  deepStrictEqual((await read(folder, elsewhere)).refusals, ["manifest_missing"]);
  // Sealed here, and never served.
  deepStrictEqual((await read(folder, judge)).refusals, ["manifest_missing"]);
  await judge.records.noteRemoval("a");
  await judge.records.destroyFileKeys("a");
  deepStrictEqual((await read(folder, judge)).refusals, ["manifest_missing"]);
});

Deno.test("what cannot be read is not taken for missing", async () => {
  using folder = modelsFolder();
  // To look for a file below a file is another failure than not to find it.
  Deno.writeTextFileSync(`${folder.path}/a`, "");
  deepStrictEqual((await read(folder, await newJudge())).refusals, ["card_unreadable"]);
});

Deno.test("a plain model with the manifest of a trusted signer is held to it", async () => {
  using folder = modelsFolder();
  const signer = await foreignSigner();
  const sealing = await newJudge();
  const path = await sealModel(folder.path, "a", sealing, { signer, serial: 5 });
  Deno.writeFileSync(`${path}/graph.onnx`, GRAPH);
  Deno.writeFileSync(`${path}/vocabulary.json`, VOCABULARY);
  for (const file of ["graph.onnx", "vocabulary.json"]) Deno.removeSync(`${path}/${file}.sealed`);
  const trusting = await newJudge({ plain: "refuse", trusted: [signer.setting] });
  const { refusals, manifest, isSealed } = await read(folder, trusting);
  deepStrictEqual([refusals, manifest?.signer, manifest?.serial, isSealed], [[], signer.id, 5, false]);
  deepStrictEqual((await read(folder, await newJudge())).refusals, ["signer_unknown"]);
  flip(`${path}/graph.onnx`, 0);
  deepStrictEqual((await read(folder, trusting)).refusals, ["digest_mismatch: graph.onnx"]);
});

Deno.test("a file that was sealed for one model or name does not open as another", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const a = await sealModel(folder.path, "a", judge);
  const b = await sealModel(folder.path, "b", judge);
  Deno.copyFileSync(`${a}/graph.onnx.sealed`, `${b}/graph.onnx.sealed`);
  Deno.copyFileSync(`${a}/graph.onnx.sealed`, `${a}/vocabulary.json.sealed`);
  deepStrictEqual((await read(folder, judge, "b")).refusals, ["seal_broken: graph.onnx"]);
  deepStrictEqual((await read(folder, judge, "a")).refusals, ["seal_broken: vocabulary.json"]);
});

Deno.test("a manifest without a serial is no protection against old versions, and refused", async () => {
  using folder = modelsFolder();
  const judge = await newJudge();
  const path = await sealModel(folder.path, "a", judge);
  const own = await judge.signers.ensureOwn();
  const bundle = JSON.parse(Deno.readTextFileSync(`${path}/model.sig`));
  const statement = JSON.parse(atob(bundle.dsseEnvelope.payload));
  delete statement.predicate.portcullis;
  const payload = JSON.stringify(statement);
  const type = bundle.dsseEnvelope.payloadType;
  const signed = new TextEncoder().encode(`DSSEv1 ${type.length} ${type} ${payload.length} ${payload}`);
  bundle.dsseEnvelope.payload = btoa(payload);
  const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", own.privateKey, signed));
  bundle.dsseEnvelope.signatures = [{ sig: signature.toBase64() }];
  Deno.writeTextFileSync(`${path}/model.sig`, JSON.stringify(bundle));
  deepStrictEqual((await read(folder, judge)).refusals, ["manifest_without_serial"]);
});

Deno.test("folders whose names begin with a dot are being made or were replaced, and are no models", () => {
  using folder = modelsFolder();
  for (const name of ["b", ".adding-a", ".adding-c", ".replaced-a", "a"]) {
    Deno.mkdirSync(`${folder.path}/${name}`);
  }
  deepStrictEqual(modelFolders(folder.path), ["a", "b"]);
});

Deno.test("keys of older versions are destroyed, and those from a serial on stay", async () => {
  const { records } = await newJudge();
  for (const serial of [1, 2, 3]) await records.keepFileKeys("a", `${serial}`, serial, new Map());
  await records.keepFileKeys("a.b", "1", 1, new Map());
  strictEqual(await records.destroyFileKeys("a", 3), 2);
  deepStrictEqual(
    [await records.fileKeys("a", "1"), await records.fileKeys("a", "3"), await records.fileKeys("a.b", "1")],
    [undefined, new Map(), new Map()].map((value) => ({ ok: true, value })),
  );
});

Deno.test("keys that do not open are destroyed with their model, and hold up no other", async () => {
  const { records, store } = await newJudge();
  for (const id of ["a", "b"]) {
    for (const serial of [1, 2]) await records.keepFileKeys(id, `${serial}`, serial, new Map());
  }
  await breakRecord(store, "model_keys");
  strictEqual(await records.destroyFileKeys("b"), 2);
  strictEqual(await records.destroyFileKeys("a", 3), 1);
  deepStrictEqual([await records.hasFileKeys("a"), await records.hasFileKeys("b")], [true, false]);
  strictEqual(await records.destroyFileKeys("a"), 1);
});

Deno.test("without the own signer's record the signers of the settings are still believed, and a new own one is made when it is needed", async () => {
  using folder = modelsFolder();
  const foreign = await foreignSigner();
  const judge = await newJudge({ trusted: [foreign.setting] });
  await sealModel(folder.path, "a", judge);
  await sealModel(folder.path, "b", judge, { signer: foreign });
  const { id } = await judge.signers.ensureOwn();
  await breakRecord(judge.store, "model_signers");
  deepStrictEqual((await read(folder, judge)).refusals, ["record_broken: model_signers"]);
  deepStrictEqual((await read(folder, judge, "b")).refusals, []);
  const made = await Promise.all([judge.signers.ensureOwn(), judge.signers.ensureOwn()]);
  strictEqual(new Set([id, ...made.map((signer) => signer.id)]).size, 2);
  deepStrictEqual((await read(folder, judge)).refusals, ["signer_unknown"]);
});

Deno.test("a serial only rises, however many raise it at once, and the installation's signer is made once", async () => {
  const { records, signers } = await newJudge();
  await Promise.all([3, 1, 5, 2, 4].map((serial) => records.raiseSerial("a", serial)));
  deepStrictEqual(await records.highestSerial("a"), { ok: true, value: 5 });
  const ids = await Promise.all([signers.ensureOwn(), signers.ensureOwn(), signers.ensureOwn()]);
  strictEqual(new Set(ids.map(({ id }) => id)).size, 1);
});
