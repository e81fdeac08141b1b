// Tests of the catalog: each model is accepted whole or refused with a recorded reason, and none disturbs another.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { Fault } from "../../src/faults/fault.ts";
import { openCatalog } from "../../src/registry/catalog.ts";
import { servedModelOfCard } from "../../src/registry/served_model.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { NO_OTHERS } from "../../src/store/change_feed.ts";
import { manualClock } from "../support/manual_clock.ts";
import { cardOf, GRAPH, newJudge, VOCABULARY } from "./sealed_model.ts";

/** A models folder. */
class ModelsFolder implements Disposable {
  readonly path: string = Deno.makeTempDirSync({ prefix: "models-" });

  /** Writes a model in order, or with another card: a value, or the text of the file. */
  write(folder: string, card: unknown = cardOf(folder)): string {
    const path = `${this.path}/${folder}`;
    Deno.mkdirSync(path);
    Deno.writeTextFileSync(`${path}/card.json`, typeof card === "string" ? card : JSON.stringify(card));
    Deno.writeFileSync(`${path}/graph.onnx`, GRAPH);
    Deno.writeFileSync(`${path}/vocabulary.json`, VOCABULARY);
    return path;
  }

  /** Opens a catalog over the folder. */
  async open() {
    const trail = memoryAuditTrail();
    let logText = "";
    const log = openLog({
      level: "info",
      clock: manualClock(),
      sink: (bytes) => {
        logText += new TextDecoder().decode(bytes);
        return Promise.resolve(bytes.length);
      },
    });
    const accepted: string[] = [];
    const catalog = await openCatalog({
      modelsDirectory: this.path,
      trail,
      log,
      judge: await newJudge(),
      feed: NO_OTHERS,
      upstreamModels: [],
      accept(card, { graph, vocabulary }) {
        deepStrictEqual([graph, vocabulary], [GRAPH, VOCABULARY]);
        accepted.push(card.id);
      },
      drop: (id) => accepted.push(`-${id}`),
    });
    await log.flush();
    return {
      catalog,
      accepted,
      trail,
      logged: logText.split("\n").slice(0, -1).map((line) => JSON.parse(line)),
      /** Each refusal as `MODEL: REASON`. */
      refusals: trail.events.flatMap((event) =>
        event.type === "model.refused" ? [`${event.model}: ${event.reason}`] : []
      ),
    };
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

Deno.test("models in order are accepted, recorded with their digest, and listed by their ids", async () => {
  using folder = new ModelsFolder();
  for (const id of ["b", "a.1_x", "a"]) folder.write(id);
  const { catalog, accepted, trail, logged } = await folder.open();
  deepStrictEqual(accepted, ["a", "a.1_x", "b"]);
  deepStrictEqual(catalog.list().map(({ id, accepted }) => [id, accepted]), [["a", true], [
    "a.1_x",
    true,
  ], [
    "b",
    true,
  ]]);
  deepStrictEqual(catalog.find("a"), servedModelOfCard(cardOf("a"), true));
  deepStrictEqual(
    trail.events,
    ["a", "a.1_x", "b"].map((model) => ({
      type: "model.accepted",
      model,
      sha256: cardOf(model).artefacts.graph.sha256,
      signer: null,
      serial: null,
    })),
  );
  deepStrictEqual(logged, []);
});

Deno.test("a name that is no model is not found, whatever it is", async () => {
  using folder = new ModelsFolder();
  folder.write("a");
  const { catalog } = await folder.open();
  for (const id of ["", "A", "a ", "b", "../a", "a/", "__proto__", "constructor", "card.json"]) {
    strictEqual(catalog.find(id), undefined, id);
  }
});

Deno.test("an empty folder is an empty catalog, and files beside the model folders are no models", async () => {
  using folder = new ModelsFolder();
  Deno.writeTextFileSync(`${folder.path}/README.md`, "");
  const { catalog, trail } = await folder.open();
  deepStrictEqual([catalog.list(), trail.events], [[], []]);
});

Deno.test("OWASP LLM03: a model with an artefact out of order is known and refused, with the file's name; others are not disturbed", async () => {
  using folder = new ModelsFolder();
  folder.write("a");
  Deno.removeSync(`${folder.write("missing")}/graph.onnx`);
  Deno.writeTextFileSync(`${folder.write("altered")}/graph.onnx`, "Graph");
  Deno.writeTextFileSync(`${folder.write("longer")}/vocabulary.json`, "vocabulary ");
  Deno.writeTextFileSync(`${folder.path}/outside`, "graph");
  const linked = `${folder.write("linked")}/graph.onnx`;
  Deno.removeSync(linked);
  Deno.symlinkSync("../outside", linked);
  const both = folder.write("both");
  Deno.removeSync(`${both}/graph.onnx`);
  Deno.removeSync(`${both}/vocabulary.json`);
  folder.write("z");
  const { catalog, accepted, refusals, logged } = await folder.open();
  deepStrictEqual(accepted, ["a", "z"]);
  const expected = [
    "altered: digest_mismatch: graph.onnx",
    "both: artefact_missing: graph.onnx",
    "both: artefact_missing: vocabulary.json",
    "linked: artefact_outside_its_folder: graph.onnx",
    "longer: digest_mismatch: vocabulary.json",
    "missing: artefact_missing: graph.onnx",
  ];
  deepStrictEqual(refusals, expected);
  deepStrictEqual(logged.map(({ level, event, model, reason }) => `${level} ${event} ${model}: ${reason}`), [
    ...expected.map((line) => `error model.refused ${line}`),
  ]);
  deepStrictEqual(
    catalog.list().map(({ id, accepted }) => `${id} ${accepted}`),
    ["a true", "altered false", "both false", "linked false", "longer false", "missing false", "z true"],
  );
});

/** A card with one thing wrong: a change of the card, made to a deep copy. */
function broken(
  change: (card: Record<string, unknown> & { [part: string]: Record<string, unknown> }) => void,
) {
  const card = JSON.parse(JSON.stringify(cardOf("x")));
  change(card);
  return card;
}

Deno.test("ASVS V2.2.1: a card with an unknown field, a missing one or a wrong value refuses its model, which is then unknown", async () => {
  const cards = [
    {},
    [],
    null,
    "text",
    broken((card) => card.extra = {}),
    broken((card) => Object.assign(card.limits ?? {}, { extra: 1 })),
    broken((card) => Object.assign(card.artefacts ?? {}, { weights: card.artefacts?.graph })),
    broken((card) => delete card.access),
    broken((card) => Object.assign(card.access ?? {}, { see: [] })),
    broken((card) => Object.assign(card.access ?? {}, { see: "admin" })),
    broken((card) => Object.assign(card, { task: "chat" })),
    broken((card) => Object.assign(card, { dimensions: "4" })),
    broken((card) => Object.assign(card, { dimensions: 0 })),
    broken((card) => Object.assign(card, { dimensions: 4.5 })),
    broken((card) => Object.assign(card, { dimensionsReducible: "false" })),
    broken((card) => Object.assign(card.limits ?? {}, { textsPerRequestMax: 0 })),
    ...["../graph.onnx", "/etc/passwd", "a/b", "..", ".hidden", "Graph.onnx", "a\\b", "", "a\u0000"].map((
      file,
    ) => broken((card) => Object.assign(card.artefacts?.graph ?? {}, { file }))),
    broken((card) => Object.assign(card.artefacts?.graph ?? {}, { sha256: "AB".repeat(32) })),
    broken((card) => Object.assign(card.artefacts?.graph ?? {}, { bytes: -1 })),
    broken((card) => Object.assign(card, { prices: { inputPerMillion: 1 } })),
    broken((card) => Object.assign(card, { prices: { inputPerMillion: -1, outputPerMillion: 0 } })),
    broken((card) => Object.assign(card, { prices: { inputPerMillion: "1", outputPerMillion: 0 } })),
    broken((card) =>
      Object.assign(card, { prices: { inputPerMillion: 1, outputPerMillion: 0, currency: "EUR" } })
    ),
  ];
  for (const card of cards) {
    using folder = new ModelsFolder();
    folder.write("good");
    folder.write("x", JSON.stringify(card));
    const { catalog, accepted, refusals } = await folder.open();
    deepStrictEqual([accepted, refusals], [["good"], ["x: card_invalid"]], JSON.stringify(card));
    strictEqual(catalog.find("x"), undefined);
  }
});

Deno.test("a card can say what its model's tokens cost; one that does not has no prices", async () => {
  using folder = new ModelsFolder();
  const prices = { inputPerMillion: 0.02, outputPerMillion: 0 };
  folder.write("priced", { ...cardOf("priced"), prices });
  folder.write("free");
  const { catalog } = await folder.open();
  deepStrictEqual([catalog.find("priced")?.prices, catalog.find("free")?.prices], [prices, null]);
});

Deno.test("a card that is no strict JSON refuses its model", async () => {
  const good = JSON.stringify(cardOf("x"));
  for (
    const text of [
      "{",
      `\ufeff${good}`,
      `${good}//`,
      good.replace("{", '{"id":"y",'),
      good.replace("{", '{"__proto__":{},'),
    ]
  ) {
    using folder = new ModelsFolder();
    folder.write("x", text);
    deepStrictEqual((await folder.open()).refusals, ["x: card_not_json"], text.slice(0, 30));
  }
  using folder = new ModelsFolder();
  Deno.writeFileSync(`${folder.write("x")}/card.json`, Uint8Array.of(0xff));
  deepStrictEqual((await folder.open()).refusals, ["x: card_not_json"]);
});

Deno.test("a folder without a card, or with another model's card, is refused", async () => {
  using folder = new ModelsFolder();
  Deno.removeSync(`${folder.write("none")}/card.json`);
  folder.write("impostor", cardOf("original"));
  folder.write("original");
  folder.write("UPPER");
  const { catalog, accepted, refusals } = await folder.open();
  deepStrictEqual(accepted, ["original"]);
  deepStrictEqual(refusals, [
    "UPPER: card_invalid",
    "impostor: card_names_another_folder",
    "none: card_missing",
  ]);
  deepStrictEqual(catalog.list().map(({ id }) => id), ["original"]);
});

Deno.test("a model folder that is a link is refused and recorded, not passed over", async () => {
  using folder = new ModelsFolder();
  using elsewhere = new ModelsFolder();
  Deno.symlinkSync(elsewhere.write("linked"), `${folder.path}/linked`);
  const { accepted, refusals } = await folder.open();
  deepStrictEqual([accepted, refusals], [[], ["linked: folder_is_a_link"]]);
});

Deno.test("ASVS V16.5.3: without a record of it no model is accepted, and none refused", async () => {
  for (const order of ["good", "broken"] as const) {
    using folder = new ModelsFolder();
    folder.write("x", order === "good" ? undefined : "{");
    const trail = memoryAuditTrail();
    trail.setFailing(true);
    const accepted: string[] = [];
    await rejects(
      openCatalog({
        modelsDirectory: folder.path,
        trail,
        log: { write: () => undefined, flush: () => Promise.resolve() },
        judge: await newJudge(),
        feed: NO_OTHERS,
        upstreamModels: [],
        accept: (card) => accepted.push(card.id),
        drop: () => undefined,
      }),
      (thrown) => thrown instanceof Fault && thrown.kind === "unavailable",
    );
    deepStrictEqual(accepted, []);
  }
});

Deno.test("a models folder that is not there is a fault that names it", async () => {
  await rejects(
    openCatalog({
      modelsDirectory: "/no/such/folder",
      trail: memoryAuditTrail(),
      log: { write: () => undefined, flush: () => Promise.resolve() },
      judge: await newJudge(),
      feed: NO_OTHERS,
      upstreamModels: [],
      accept: () => undefined,
      drop: () => undefined,
    }),
    (thrown) => {
      ok(thrown instanceof Fault);
      strictEqual(thrown.kind, "unavailable");
      strictEqual(thrown.message, "Cannot read the models folder /no/such/folder: NotFound");
      return true;
    },
  );
});
