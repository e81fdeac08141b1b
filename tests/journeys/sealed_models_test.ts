// Journey of sealed models: added by the command beside a server, taken up without a restart, tampered with, refused, and removed.
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type ServerUnderTest, startServerUnderTest } from "../support/server_under_test.ts";
import { readAuditEvents } from "../support/app_under_test.ts";
import { foreignSigner, sha256 } from "../registry/sealed_model.ts";
import { signManifest } from "../../src/registry/manifest.ts";

const ROOT = `${import.meta.dirname}/../..`;
const MODEL = `${ROOT}/models/use-lite`;

interface World {
  readonly folder: string;
  readonly models: string;
  readonly variables: Record<string, string>;
}

/** Runs a task of deno.json as a person does; what it printed. */
async function task(
  { variables }: World,
  ...words: readonly string[]
): Promise<{ code: number; text: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", ...words],
    cwd: ROOT,
    env: { ...Deno.env.toObject(), ...variables, NO_COLOR: "1" },
    clearEnv: true,
  }).output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

async function ask(server: ServerUnderTest, token: string, path: string, body?: unknown) {
  const response = await fetch(`${server.origin}${path}`, {
    method: body === undefined ? "GET" : "POST",
    headers: {
      authorization: `Bearer ${token}`,
      ...body === undefined ? {} : { "content-type": "application/json" },
    },
    ...body === undefined ? {} : { body: JSON.stringify(body) },
  });
  return { status: response.status, body: await response.json() };
}

async function post(server: ServerUnderTest, token: string, path: string) {
  const response = await fetch(`${server.origin}${path}`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}` },
  });
  return { status: response.status, body: await response.json() };
}

/** A model takes seconds to warm up. */
async function embeds(server: ServerUnderTest, token: string, model: string): Promise<number[]> {
  for (let tries = 0; tries < 300; tries++) {
    const { status, body } = await ask(server, token, "/v1/embeddings", { model, input: "How old are you?" });
    if (status === 200) return body.data[0].embedding;
    strictEqual(status, 503, JSON.stringify(body));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${model} did not warm up`);
}

async function standings(server: ServerUnderTest, token: string): Promise<Record<string, string>> {
  const { body } = await ask(server, token, "/admin/v1/models");
  return Object.fromEntries(
    body.data.map(({ id, state, reasons }: { id: string; state: string; reasons: string[] }) => [
      id,
      [state, ...reasons].join(" "),
    ]),
  );
}

Deno.test("OWASP LLM03: models are sealed beside a server, served, tampered with and refused one by one while the others serve", async () => {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-models-" });
  const models = `${folder}/models`;
  await Deno.mkdir(models);
  const variables = { PORTCULLIS_DATA_DIR: `${folder}/data`, PORTCULLIS_MODELS_DIR: models };
  const world = { folder, models, variables };
  let server: ServerUnderTest | undefined;
  const start = async () =>
    await startServerUnderTest({
      dataDir: `${folder}/data`,
      variables: { PORTCULLIS_MODELS_DIR: models, PORTCULLIS_ENGINE_WORKERS: "1" },
    });
  try {
    const first = await task(world, "models:add", MODEL, "--id", "good");
    strictEqual(first.code, 0, first.text);
    match(first.text, /^good: sealed as serial 1, signed by [0-9a-f]{64}$/m);
    server = await start();
    await server.whenReady();
    const token = await server.signIn();
    const vector = await embeds(server, token, "good");
    strictEqual(vector.length, 512);

    // Added while the server runs; a graph that is none keeps no server from starting, and this one is here to be tampered with.
    await Deno.writeTextFile(`${folder}/graph`, "no graph");
    await Deno.writeTextFile(`${folder}/vocabulary`, "[]");
    for (const id of ["flipped", "cut", "stranger", "older", "gone"]) {
      const added = await task(
        world,
        ...["models:add", `${folder}/graph`, "--id", id, "--license", "MIT", "--dimensions", "4"],
        ...["--vocabulary", `${folder}/vocabulary`, "--see", "admin", "--use", "admin"],
      );
      strictEqual(added.code, 0, added.text);
    }
    const late = await task(
      world,
      "models:add",
      MODEL,
      "--id",
      "late",
      "--see",
      "admin,user",
      "--use",
      "admin",
    );
    strictEqual(late.code, 0, late.text);
    strictEqual((await standings(server, token)).late, "found");
    strictEqual((await ask(server, token, "/v1/embeddings", { model: "late", input: "x" })).status, 404);
    const enabled = await post(server, token, "/admin/v1/models/late/enable");
    deepStrictEqual([enabled.status, enabled.body.state, enabled.body.sealed, enabled.body.serial], [
      200,
      "served",
      true,
      1,
    ]);
    deepStrictEqual(await embeds(server, token, "late"), vector);

    // Disabled, it is gone at once; its sisters serve.
    strictEqual((await post(server, token, "/admin/v1/models/late/disable")).status, 200);
    strictEqual((await ask(server, token, "/v1/embeddings", { model: "late", input: "x" })).status, 404);
    deepStrictEqual(await embeds(server, token, "good"), vector);

    // A second version of one is accepted, and the first put back after it.
    await Deno.mkdir(`${folder}/old`);
    for (const { name } of Deno.readDirSync(`${models}/older`)) {
      await Deno.copyFile(`${models}/older/${name}`, `${folder}/old/${name}`);
    }
    const second = await task(
      world,
      ...["models:add", `${folder}/graph`, "--id", "older", "--license", "MIT", "--dimensions", "4"],
      ...["--vocabulary", `${folder}/vocabulary`],
    );
    match(second.text, /older: sealed as serial 2/);
    strictEqual((await post(server, token, "/admin/v1/models/older/enable")).body.serial, 2);
    for (const { name } of Deno.readDirSync(`${folder}/old`)) {
      await Deno.copyFile(`${folder}/old/${name}`, `${models}/older/${name}`);
    }

    const flipped = Deno.readFileSync(`${models}/flipped/graph.onnx.sealed`);
    Deno.writeFileSync(`${models}/flipped/graph.onnx.sealed`, flipped.with(-1, (flipped.at(-1) ?? 0) ^ 1));
    await Deno.truncate(`${models}/cut/graph.onnx.sealed`, 29);
    const card = Deno.readFileSync(`${models}/stranger/card.json`);
    const { graph, vocabulary } = JSON.parse(new TextDecoder().decode(card)).artefacts;
    const files = new Map([
      ["card.json", sha256(card)],
      ...[graph, vocabulary].map(({ file, sha256 }) => [file, sha256] as const),
    ]);
    await Deno.writeFile(
      `${models}/stranger/model.sig`,
      await signManifest(
        { model: "stranger", files, serial: 9, license: null, addedAt: null },
        await foreignSigner(),
      ),
    );
    const removed = await task(world, "models:remove", "gone", "--yes");
    strictEqual(removed.code, 0, removed.text);

    const reasons = {
      cut: "refused seal_broken: graph.onnx",
      flipped: "refused seal_broken: graph.onnx",
      older: "refused downgrade: serial 1 after 2",
      stranger: "refused signer_unknown",
    };
    const verified = await task(world, "models:verify");
    strictEqual(verified.code, 1);
    for (const [id, reason] of Object.entries(reasons)) {
      ok(verified.text.includes(`${id}: ${reason.replace("refused", "refused:")}\n`), verified.text);
    }
    match(verified.text, /^good: in order \(sealed, serial 1, /m);
    match((await task(world, "models:list")).text, /^late {2}disabled, sealed$/m);

    await server.stop();
    server = await start();
    await server.whenReady();
    const again = await server.signIn();
    deepStrictEqual(await standings(server, again), { ...reasons, good: "served", late: "disabled" });
    deepStrictEqual(await embeds(server, again, "good"), vector);
    strictEqual((await ask(server, again, "/v1/embeddings", { model: "flipped", input: "x" })).status, 503);
    deepStrictEqual(
      server.output().split("\n").filter((line) => line.includes('"model.refused"')).map((line) =>
        JSON.parse(line)
      )
        .map(({ level, model, reason }) => `${level} ${model} refused ${reason}`),
      Object.entries(reasons).map(([id, reason]) => `error ${id} ${reason}`),
    );
    await server.stop();
    server = undefined;
    const events = readAuditEvents(`${folder}/data/audit`);
    deepStrictEqual(
      events.filter(({ type }) => type === "model.refused").map(({ model, reason }) =>
        `${model} refused ${reason}`
      ),
      Object.entries(reasons).map(([id, reason]) => `${id} ${reason}`),
    );
    const accepted = events.filter(({ type }) => type === "model.accepted");
    deepStrictEqual(accepted.map(({ model, serial }) => [model, serial]), [
      ["good", 1],
      ["late", 1],
      ["older", 2],
      ["good", 1],
    ]);
    strictEqual(new Set(accepted.map(({ signer }) => signer)).size, 1);
    const removals = events.filter(({ type, command }) =>
      type === "command.changed" && command === "models:remove"
    );
    deepStrictEqual(removals.map(({ object }) => object), ["model/gone"]);
    // Nothing plain was ever left in the models folder.
    for (const { name } of Deno.readDirSync(models)) {
      const names = [...Deno.readDirSync(`${models}/${name}`)].map((entry) => entry.name);
      ok(names.every((each) => /^(card\.json|model\.sig|[a-z.-]+\.sealed)$/.test(each)), names.join(" "));
    }
  } finally {
    await server?.stop("SIGKILL");
    await Deno.remove(folder, { recursive: true });
  }
});
