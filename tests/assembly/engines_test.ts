// Tests of the assembly of engines: those of this process come and go, and none is closed under what runs on it.
import { ok, strictEqual } from "node:assert/strict";
import { openEngines, whenWarm } from "../../src/assembly/engines.ts";
import { parseConfig } from "../../src/config/config.ts";
import { readArtefact } from "../../src/registry/artefact.ts";
import { parseModelCard } from "../../src/registry/model_card.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { systemClock } from "../../src/time/clock.ts";

const FOLDER = `${import.meta.dirname}/../../models/use-lite`;

Deno.test("an engine that is stopped ends when nothing is under way on its model, and not before; a new one takes its place", async () => {
  const parsed = parseConfig({
    variables: { PORTCULLIS_ENGINE_WORKERS: "1" },
    file: undefined,
    cores: 2,
    storeExists: () => false,
  });
  ok(parsed.ok);
  const card = parseModelCard(Deno.readFileSync(`${FOLDER}/card.json`));
  ok(card.ok);
  const graph = readArtefact(FOLDER, card.value.artefacts.graph);
  const vocabulary = readArtefact(FOLDER, card.value.artefacts.vocabulary);
  ok(graph.ok && vocabulary.ok);
  const artefacts = { graph: graph.value, vocabulary: vocabulary.value };
  const log = openLog({ level: "error", clock: systemClock, sink: (bytes) => Promise.resolve(bytes.length) });
  let underWay = 1;
  const engines = openEngines(new Map(), parsed.config, systemClock, log, () => underWay);
  const embed = async () => {
    const engine = engines.get("use-lite");
    ok(engine);
    const bounds = {
      signal: new AbortController().signal,
      deadlineMs: systemClock.monotonic() + 30_000,
      trace: { servedBy: null, attempts: 0 },
    };
    return (await engine.run<"embedding">({ task: "embedding", texts: ["hello"] }, bounds)).dimensions;
  };
  try {
    engines.start(card.value, artefacts);
    strictEqual(await whenWarm(engines), 0);
    const first = engines.get("use-lite");
    ok(first);
    engines.stop("use-lite");
    engines.stop("use-lite");
    engines.stop("nobody");
    await new Promise((resolve) => setTimeout(resolve, 100));
    strictEqual(await embed(), 512);
    underWay = 0;
    while (engines.get("use-lite") !== undefined) await new Promise((resolve) => setTimeout(resolve, 5));
    while (first.state() !== "closed") await new Promise((resolve) => setTimeout(resolve, 5));

    engines.start(card.value, artefacts);
    const second = engines.get("use-lite");
    strictEqual(await whenWarm(engines), 0);
    underWay = 1;
    engines.start(card.value, artefacts);
    ok(engines.get("use-lite") !== second);
    strictEqual(second?.state(), "ready");
    underWay = 0;
    while (second?.state() !== "closed") await new Promise((resolve) => setTimeout(resolve, 5));
    strictEqual(await whenWarm(engines), 0);
    strictEqual(await embed(), 512);
  } finally {
    await engines.close();
  }
});
