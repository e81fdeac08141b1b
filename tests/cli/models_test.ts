// Tests of the commands on models: what can be added, what is refused before anything changes, and what a removal leaves.
import { Buffer } from "node:buffer";
import { DatabaseSync } from "node:sqlite";
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { addModel, listModels, removeModel, verifyModels } from "../../src/cli/models.ts";
import { type Config, parseConfig } from "../../src/config/config.ts";
import { Fault } from "../../src/faults/fault.ts";
import { signManifest } from "../../src/registry/manifest.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { systemClock } from "../../src/time/clock.ts";
import { openVault, type Vault } from "../../src/assembly/trust.ts";
import { openModelRecords } from "../../src/registry/model_records.ts";
import { breakRecord, cardOf, foreignSigner, GRAPH, sha256, VOCABULARY } from "../registry/sealed_model.ts";

/** A data folder, a models folder and a folder with a model to add; all of it goes away. */
class Workbench implements Disposable {
  readonly path: string = Deno.makeTempDirSync({ prefix: "portcullis-add-" });
  readonly models = `${this.path}/models`;
  readonly source = `${this.path}/source`;
  readonly config: Config;

  constructor(variables: Record<string, string> = {}) {
    Deno.mkdirSync(this.models);
    Deno.mkdirSync(this.source);
    this.writeSource(cardOf("a"));
    const parsed = parseConfig({
      variables: {
        PORTCULLIS_DATA_DIR: `${this.path}/data`,
        PORTCULLIS_MODELS_DIR: this.models,
        ...variables,
      },
      file: undefined,
      cores: 1,
      storeExists: () => true,
    });
    if (!parsed.ok) throw new Error(JSON.stringify(parsed.mistakes));
    this.config = parsed.config;
  }

  writeSource(card: unknown): void {
    Deno.writeTextFileSync(`${this.source}/card.json`, JSON.stringify(card));
    Deno.writeFileSync(`${this.source}/graph.onnx`, GRAPH);
    Deno.writeFileSync(`${this.source}/vocabulary.json`, VOCABULARY);
  }

  /** Runs a command; what it printed, and its exit code at the end. */
  async run(
    command: (
      config: Config,
      parameters: readonly string[],
      print: (line: string) => void,
    ) => Promise<number>,
    ...parameters: readonly string[]
  ): Promise<string> {
    const lines: string[] = [];
    const code = await command(this.config, parameters, (line) => lines.push(line));
    return [...lines, `${code}`].join("\n");
  }

  add(...options: readonly string[]): Promise<string> {
    return this.run(addModel, this.source, ...options);
  }

  /** Does something with the store, as a server beside the commands does. */
  async withVault(act: (vault: Vault) => Promise<void>): Promise<void> {
    const opened: (() => Promise<void> | void)[] = [];
    const log = openLog({
      level: "error",
      clock: systemClock,
      sink: (bytes) => Promise.resolve(bytes.length),
    });
    try {
      await act(await openVault(this.config, systemClock, log, opened));
    } finally {
      while (opened.length > 0) await opened.pop()?.();
    }
  }

  verify = (): Promise<string> => this.run(verifyModels);
  card = (id = "a") => JSON.parse(Deno.readTextFileSync(`${this.models}/${id}/card.json`));
  names = (folder = this.models): string[] => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

  async refuses(words: RegExp, run: Promise<unknown>): Promise<void> {
    await rejects(run, (thrown) => {
      ok(thrown instanceof Fault, String(thrown));
      match(thrown.message, words);
      return true;
    });
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

const list = (config: Config, _: readonly string[], print: (line: string) => void) =>
  listModels(config, print);

Deno.test("a folder with a whole card is sealed with the card as it is, and found in order", async () => {
  using bench = new Workbench();
  const printed = await bench.add();
  match(printed, /^a: sealed graph\.onnx, 0\.0 MB at \d+ MB\/s$/m);
  match(printed, /^a: sealed as serial 1, signed by [0-9a-f]{64}$/m);
  match(printed, /POST \/admin\/v1\/models\/a\/enable, another one at its start\n0$/);
  deepStrictEqual(bench.names(`${bench.models}/a`), [
    "card.json",
    "graph.onnx.sealed",
    "model.sig",
    "vocabulary.json.sealed",
  ]);
  deepStrictEqual(bench.card(), cardOf("a"));
  match(await bench.verify(), /^a: in order \(sealed, serial 1, signed by [0-9a-f]{64}\)\n0$/);
  const told = await bench.run(list);
  match(
    told,
    /^own signer [0-9a-f]{64}\n {2}public key [A-Za-z0-9_-]{43}\na {2}enabled, sealed\n {2}serial 1, signed by own signer, added 20/,
  );
  ok(told.includes(`${sha256(GRAPH)}  5  graph.onnx`), told);
});

Deno.test("digests that a card lacks are computed, those that it has are held against the files, and options stand instead of its fields", async () => {
  using bench = new Workbench();
  bench.writeSource({
    ...cardOf("a"),
    artefacts: { graph: { file: "graph.onnx" }, vocabulary: { file: "vocabulary.json" } },
  });
  await bench.add("--id", "b", "--license", "MIT", "--see", "admin,user", "--use", "admin");
  deepStrictEqual(bench.card("b"), {
    ...cardOf("b"),
    name: "a",
    license: "MIT",
    access: { see: ["admin", "user"], use: ["admin"] },
  });
  bench.writeSource(cardOf("a"));
  Deno.writeTextFileSync(`${bench.source}/vocabulary.json`, "other");
  await bench.refuses(
    /vocabulary\.json is not what its card says: 5 bytes with SHA-256 [0-9a-f]{64}$/,
    bench.add(),
  );
  deepStrictEqual(bench.names(), ["b"]);
});

Deno.test("a graph without a card becomes a model by the options", async () => {
  using bench = new Workbench();
  const graph = `${bench.source}/graph.onnx`;
  await bench.refuses(/--vocabulary/, bench.run(addModel, graph, "--id", "a"));
  const vocabulary = ["--vocabulary", `${bench.source}/vocabulary.json`];
  await bench.refuses(/license: [\s\S]*dimensions: /, bench.run(addModel, graph, "--id", "a", ...vocabulary));
  await bench.run(addModel, graph, ...[
    "--id",
    "a",
    "--license",
    "MIT",
    "--dimensions",
    "4",
    "--tokens-max",
    "7",
  ], ...vocabulary);
  const { createdSeconds, ...card } = bench.card();
  ok(createdSeconds > 1_700_000_000);
  deepStrictEqual(card, {
    id: "a",
    task: "embedding",
    name: "a",
    description: "",
    license: "MIT",
    source: "a local file",
    artefacts: cardOf("a").artefacts,
    dimensions: 4,
    dimensionsReducible: false,
    limits: {
      textsPerRequestMax: 256,
      charactersPerTextMax: 4096,
      tokensPerTextMax: 7,
      tokensPerRequestMax: 8192,
    },
    access: { see: ["admin", "operator", "auditor", "user"], use: ["admin", "operator", "user"] },
  });
  match(await bench.verify(), /\n0$/);
});

Deno.test("what is wrong is said before anything is sealed, and leaves what was there", async () => {
  using bench = new Workbench({
    PORTCULLIS_UPSTREAMS: JSON.stringify([{ name: "far", kind: "openai", url: "http://127.0.0.1:9/v1" }]),
    PORTCULLIS_UPSTREAM_MODELS: JSON.stringify([
      { id: "far", aliases: ["away"], capabilities: ["chat"], servedBy: [{ upstream: "far" }] },
    ]),
  });
  await bench.add();
  const before = Deno.readFileSync(`${bench.models}/a/graph.onnx.sealed`);
  await bench.refuses(/id: Invalid string/, bench.add("--id", "../a"));
  await bench.refuses(/a model of an upstream is called away/, bench.add("--id", "away"));
  await bench.refuses(/Unknown option '--nothing'/, bench.add("--nothing"));
  await bench.refuses(/one PATH is needed/, bench.run(addModel));
  await bench.refuses(/\/nowhere cannot be read/, bench.run(addModel, "/nowhere"));
  for (const file of ["../graph.onnx", "/etc/passwd", "a/b"]) {
    bench.writeSource({
      ...cardOf("a"),
      artefacts: { graph: { file }, vocabulary: { file: "vocabulary.json" } },
    });
    await bench.refuses(/no name inside a folder/, bench.add());
  }
  bench.writeSource({ ...cardOf("a"), limits: {} });
  await bench.refuses(/limits\.textsPerRequestMax/, bench.add());
  bench.writeSource(cardOf("a"));
  Deno.removeSync(`${bench.source}/vocabulary.json`);
  await bench.refuses(/vocabulary\.json cannot be read/, bench.add());
  deepStrictEqual([bench.names(), Deno.readFileSync(`${bench.models}/a/graph.onnx.sealed`)], [["a"], before]);
  match(await bench.verify(), /^a: in order .*\n0$/);
});

Deno.test("the next version takes the place of the one before, whose keys go with the one after", async () => {
  using bench = new Workbench();
  await bench.add();
  Deno.mkdirSync(`${bench.path}/copy`);
  for (const name of bench.names(`${bench.models}/a`)) {
    Deno.copyFileSync(`${bench.models}/a/${name}`, `${bench.path}/copy/${name}`);
  }
  match(await bench.add(), /serial 2/);
  match(await bench.add(), /serial 3/);
  match(await bench.verify(), /^a: in order \(sealed, serial 3/);
  for (const name of bench.names(`${bench.path}/copy`)) {
    Deno.copyFileSync(`${bench.path}/copy/${name}`, `${bench.models}/a/${name}`);
  }
  strictEqual(await bench.verify(), "a: refused: key_missing\n1");
});

Deno.test("what a crash left beside a model is mended by the next addition", async () => {
  using bench = new Workbench();
  await bench.add();
  Deno.mkdirSync(`${bench.models}/.adding-a`);
  Deno.writeTextFileSync(`${bench.models}/.adding-a/graph.onnx.sealed`, "half");
  // Between the two renames: the version that was there counts for the next serial.
  Deno.renameSync(`${bench.models}/a`, `${bench.models}/.replaced-a`);
  match(await bench.add(), /serial 2/);
  deepStrictEqual(bench.names(), ["a"]);
  match(await bench.verify(), /^a: in order \(sealed, serial 2/);
});

Deno.test("a model whose replacement was broken off is listed and verified as refused, and can be removed", async () => {
  using bench = new Workbench();
  await bench.add();
  Deno.renameSync(`${bench.models}/a`, `${bench.models}/.replaced-a`);
  match(await bench.run(list), /^a {2}refused: swap_unfinished/m);
  strictEqual(await bench.verify(), "a: refused: swap_unfinished\n1");
  match(await bench.run(removeModel, "a", "--yes"), /^a: deleted, with the keys of 1 version$/m);
  deepStrictEqual(bench.names(), []);
});

Deno.test("additions at once never meet: each is made or refused, and the last version is in order", async () => {
  using bench = new Workbench();
  const all = await Promise.allSettled([bench.add(), bench.add(), bench.add()]);
  const refused = all.flatMap((each) => each.status === "rejected" ? [String(each.reason)] : []);
  for (const reason of refused) match(reason, /another command is changing the models folder/);
  match(await bench.verify(), new RegExp(`^a: in order \\(sealed, serial ${all.length - refused.length},`));
  deepStrictEqual(bench.names(), ["a"]);
});

Deno.test("while another command changes the models folder nothing is added or removed; the lock of one that was killed holds up nobody", async () => {
  using bench = new Workbench();
  Deno.writeTextFileSync(`${bench.models}/.lock`, "");
  await bench.add();
  {
    using held = Deno.openSync(`${bench.models}/.lock`, { write: true, create: true });
    strictEqual(held.tryLockSync(true), true);
    await bench.refuses(/another command/, bench.run(removeModel, "a", "--yes"));
    await bench.refuses(/another command/, bench.add());
  }
  match(await bench.verify(), /^a: in order \(sealed, serial 1,.*\n0$/);
  match(await bench.add(), /serial 2/);
  deepStrictEqual(bench.names(), ["a"]);
});

Deno.test("a version that would be refused takes no good one's place", async () => {
  using bench = new Workbench();
  await bench.add();
  const before = Deno.readFileSync(`${bench.models}/a/model.sig`);
  await bench.refuses(
    /it would be refused: seal_broken: graph\.onnx/,
    addModel(bench.config, [bench.source], (line) => {
      // Somebody writes to what was sealed.
      if (line.includes("sealed vocabulary")) {
        Deno.truncateSync(`${bench.models}/.adding-a/graph.onnx.sealed`, 40);
      }
    }),
  );
  deepStrictEqual([bench.names(), Deno.readFileSync(`${bench.models}/a/model.sig`)], [["a"], before]);
  match(await bench.verify(), /^a: in order \(sealed, serial 1/);
});

Deno.test("an addition that cannot come into its place keeps no key of it", async () => {
  using bench = new Workbench();
  await bench.add();
  await rejects(
    addModel(bench.config, [bench.source], (line) => {
      if (line.includes("sealed vocabulary")) {
        Deno.mkdirSync(`${bench.models}/.replaced-a/full`, { recursive: true });
      }
    }),
    Error,
  );
  await bench.withVault(async ({ store }) => {
    strictEqual((await store.list("model_keys", { limit: 5 })).length, 1);
  });
  match(await bench.verify(), /^a: in order \(sealed, serial 1/);
});

Deno.test("links and what is no file are not added", async () => {
  using bench = new Workbench();
  Deno.renameSync(`${bench.source}/graph.onnx`, `${bench.path}/elsewhere`);
  Deno.symlinkSync("../elsewhere", `${bench.source}/graph.onnx`);
  await bench.refuses(/graph\.onnx is no file$/, bench.add());
  Deno.removeSync(`${bench.source}/graph.onnx`);
  Deno.mkdirSync(`${bench.source}/graph.onnx`);
  await bench.refuses(/graph\.onnx is no file$/, bench.add());
  Deno.renameSync(`${bench.source}/card.json`, `${bench.path}/card`);
  Deno.symlinkSync("../card", `${bench.source}/card.json`);
  await bench.refuses(/card\.json is no file$/, bench.add());
  Deno.symlinkSync(bench.source, `${bench.path}/link`);
  await bench.refuses(/link is a link$/, bench.run(addModel, `${bench.path}/link`));
  deepStrictEqual(bench.names(), []);
});

Deno.test("records that do not open are told, and written anew by the next addition", async () => {
  for (const table of ["model_serials", "model_signers", "model_states", "model_keys"]) {
    using bench = new Workbench();
    await bench.add();
    await bench.withVault(async ({ store, keyRing }) => {
      const records = openModelRecords(store, keyRing);
      await records.raiseSerial("a", 1);
      await records.setState("a", records.newState(true));
      await breakRecord(store, table);
    });
    match(
      await bench.run(list),
      table === "model_states" ? /^a {2}disabled/m : new RegExp(`record_broken: ${table}`),
    );
    strictEqual(
      await bench.verify(),
      table === "model_states"
        ? `a: in order (sealed, serial 1, signed by ${
          JSON.parse(Deno.readTextFileSync(`${bench.models}/a/model.sig`)).verificationMaterial.publicKey.hint
        })\n0`
        : `a: refused: record_broken: ${table}\n1`,
    );
    match(await bench.add(), /^a: sealed as serial 2/m);
    match(await bench.verify(), /^a: in order \(sealed, serial 2/);
  }
});

Deno.test("a model that a trusted signer has signed is added with that manifest, and held to it", async () => {
  const signer = await foreignSigner();
  const cardBytes = new TextEncoder().encode(JSON.stringify(cardOf("a")));
  const files = new Map([
    ["card.json", sha256(cardBytes)],
    ["graph.onnx", sha256(GRAPH)],
    ["vocabulary.json", sha256(VOCABULARY)],
  ]);
  const manifest = await signManifest(
    { model: "a", files, serial: 12, license: null, addedAt: null },
    signer,
  );
  const sign = (bench: Workbench, bytes = manifest) => Deno.writeFileSync(`${bench.source}/model.sig`, bytes);

  using strange = new Workbench();
  sign(strange);
  await strange.refuses(
    /model\.sig is not believed \(signer_unknown\).*PORTCULLIS_MODEL_SIGNERS/,
    strange.add(),
  );
  deepStrictEqual(strange.names(), []);

  using trusting = new Workbench({ PORTCULLIS_MODEL_SIGNERS: signer.setting });
  sign(trusting);
  match(await trusting.add(), new RegExp(`serial 12, signed by ${signer.id}`));
  deepStrictEqual(Deno.readFileSync(`${trusting.models}/a/model.sig`), manifest);
  match(
    await trusting.verify(),
    new RegExp(`^a: in order \\(sealed, serial 12, signed by ${signer.id}\\)\n0$`),
  );
  await trusting.refuses(/is signed: its card must be whole/, trusting.add("--see", "admin"));
  const other = { ...cardOf("a"), description: "other" };
  trusting.writeSource(other);
  await trusting.refuses(/card\.json is not what its model\.sig signs/, trusting.add());

  // A bundle without a serial is proved, and ours takes its place: what is accepted can only rise.
  const bundle = JSON.parse(new TextDecoder().decode(manifest));
  const statement = JSON.parse(atob(bundle.dsseEnvelope.payload));
  delete statement.predicate.portcullis;
  const payload = JSON.stringify(statement);
  const signed = new TextEncoder().encode(
    `DSSEv1 28 application/vnd.in-toto+json ${payload.length} ${payload}`,
  );
  bundle.dsseEnvelope = {
    ...bundle.dsseEnvelope,
    payload: btoa(payload),
    signatures: [{
      sig: new Uint8Array(await crypto.subtle.sign("Ed25519", signer.privateKey, signed)).toBase64(),
    }],
  };
  trusting.writeSource(cardOf("a"));
  sign(trusting, new TextEncoder().encode(JSON.stringify(bundle)));
  const printed = await trusting.add();
  match(printed, /serial 13/);
  ok(!printed.includes(signer.id));
});

Deno.test("a removal wants to be meant, destroys the keys, and no copy of the folder opens after it", async () => {
  using bench = new Workbench();
  await bench.add();
  match(await bench.run(removeModel, "a"), /models:remove a --yes\n1$/);
  match(await bench.verify(), /\n0$/);
  Deno.mkdirSync(`${bench.path}/copy`);
  for (const name of bench.names(`${bench.models}/a`)) {
    Deno.copyFileSync(`${bench.models}/a/${name}`, `${bench.path}/copy/${name}`);
  }
  match(await bench.run(removeModel, "a", "--yes"), /^a: deleted, with the keys of 1 version$/m);
  deepStrictEqual(bench.names(), []);
  await bench.refuses(/there is no model a/, bench.run(removeModel, "a", "--yes"));
  await bench.refuses(/is no model's id/, bench.run(removeModel, "../data", "--yes"));
  Deno.renameSync(`${bench.path}/copy`, `${bench.models}/a`);
  strictEqual(await bench.verify(), "a: refused: key_missing\n1");
});

Deno.test("beside a server too, the store's files hold no key of a model that was removed; while somebody reads them that is said, and done by the next try", async () => {
  using bench = new Workbench();
  await bench.withVault(async ({ store }) => {
    await bench.add();
    const [record] = await store.list("model_keys", { limit: 5 });
    const sealed = Buffer.from(record?.value ?? []);
    const files = bench.names(`${bench.path}/data`).filter((name) => name.startsWith("portcullis.db"));
    const holding = () =>
      files.filter((name) => Buffer.from(Deno.readFileSync(`${bench.path}/data/${name}`)).includes(sealed));
    ok(holding().length > 0);
    const reader = new DatabaseSync(`${bench.path}/data/portcullis.db`, { readOnly: true });
    reader.exec("BEGIN; SELECT count(*) FROM records");
    match(
      await bench.run(removeModel, "a", "--yes"),
      /the store's files may still hold them: .*\n.*Run this again.*\n1$/,
    );
    deepStrictEqual([bench.names(), await bench.verify()], [["a"], "a: refused: key_missing\n1"]);
    ok(holding().length > 0);
    reader.close();
    match(await bench.run(removeModel, "a", "--yes"), /^a: deleted, with the keys of 0 versions\n[^]*\n0$/);
    deepStrictEqual([holding(), bench.names()], [[], []]);
  });
});

Deno.test("verifying one model reads no other", async () => {
  using bench = new Workbench();
  await bench.add();
  await bench.add("--id", "b");
  Deno.truncateSync(`${bench.models}/b/graph.onnx.sealed`, 40);
  match(await bench.run(verifyModels, "a"), /^a: in order .*\n0$/);
  match(await bench.run(verifyModels, "b"), /^b: refused: seal_broken: graph\.onnx\n1$/);
  match(await bench.verify(), /^a: in order .*\nb: refused.*\n1$/);
  await bench.refuses(/there is no model c/, bench.run(verifyModels, "c"));
});
