// Assembly of engines: the models of this process, the upstreams, and the models that those serve.
import type { Config } from "../config/config.ts";
import type { Engine } from "../engines/engine.ts";
import { createEngineTable, type EngineTable } from "../engines/engine_table.ts";
import { openOnnxEngine } from "../engines/onnx/onnx_engine.ts";
import { runtimeWasmUrl } from "../engines/onnx/runtime_wasm.ts";
import { anthropicWire } from "../engines/upstream/anthropic/anthropic_wire.ts";
import { openaiWire } from "../engines/upstream/openai/openai_wire.ts";
import { openinferenceWire } from "../engines/upstream/openinference/openinference_wire.ts";
import { openUpstream, type Upstream } from "../engines/upstream/upstream.ts";
import { openUpstreamEngine } from "../engines/upstream/upstream_engine.ts";
import type { UpstreamSettings } from "../engines/upstream/upstream_settings.ts";
import type { Wire } from "../engines/upstream/wire.ts";
import { toFault } from "../faults/fault.ts";
import type { ModelCard } from "../registry/model_card.ts";
import type { ModelArtefacts } from "../registry/model_folder.ts";
import type { ServedModel } from "../registry/served_model.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import { readCertificates } from "./certificates.ts";

const WARM_POLL_MS = 20;

/** The engines, of which those of this process come and go with their models. */
export interface Engines extends EngineTable {
  /** Opens an engine for a model whose files were accepted; one that it had ends once it has nothing to do. */
  start(card: ModelCard, artefacts: ModelArtefacts): void;
  /** Ends a model's engine, and frees what it holds, once it has nothing to do. Engines of upstream models stay: they hold nothing. */
  stop(modelId: string): void;
}

/**
 * Engines for the models of upstreams; those of this process are started one by one.
 *
 * @param underWayOn how many inferences are under way on a model
 */
export function openEngines(
  upstreams: ReadonlyMap<string, Upstream>,
  config: Config,
  clock: Clock,
  log: Log,
  underWayOn: (modelId: string) => number,
): Engines {
  const table = createEngineTable(config.upstreamModels.map(({ id, servedBy, routing }) => {
    const replicas = servedBy.map(({ upstream, model = id, weight }) => ({ upstream, model, weight }));
    return openUpstreamEngine({ model: { id, routing, replicas }, upstreams, clock });
  }));
  const own = new Set<Engine>();
  const ending = new Set<Promise<void>>();
  let isClosing = false;
  let runtimeWasm: Uint8Array | undefined;

  /** What was begun on it ends by itself; the bound is for what never does. */
  async function end(engine: Engine): Promise<void> {
    const endsMs = clock.monotonic() + config.requestTimeoutMs;
    while (underWayOn(engine.modelId) > 0 && !isClosing && clock.monotonic() < endsMs) {
      await new Promise((resolve) => setTimeout(resolve, WARM_POLL_MS));
    }
    table.remove(engine);
    await engine.close();
  }
  function stop(modelId: string): void {
    const engine = table.get(modelId);
    if (engine === undefined || !own.delete(engine)) return;
    const ended = end(engine).catch((thrown) =>
      log.write("error", "engine.fault", { model: modelId, reason: toFault(thrown).message })
    ).finally(() => ending.delete(ended));
    ending.add(ended);
  }

  return {
    ...table,
    start(card, artefacts) {
      stop(card.id);
      runtimeWasm ??= Deno.readFileSync(runtimeWasmUrl);
      const engine = openOnnxEngine({
        card,
        ...artefacts,
        runtimeWasm,
        workers: config.engineWorkers,
        queueMax: config.engineQueueMax,
        clock,
        onFault: (fault) => log.write("error", "engine.fault", { model: card.id, reason: fault.message }),
      });
      own.add(engine);
      table.put(engine);
    },
    stop,
    async close() {
      isClosing = true;
      await Promise.all([table.close(), ...ending]);
    },
  };
}

const WIRES: Readonly<Record<UpstreamSettings["kind"], Wire>> = {
  openai: openaiWire,
  anthropic: anthropicWire,
  openinference: openinferenceWire,
};

/** The upstreams of the settings by their names. */
export function openUpstreams(config: Config, clock: Clock, log: Log): ReadonlyMap<string, Upstream> {
  return new Map(config.upstreams.map(({ caFile, healthPath, ...setting }) => {
    const settings: UpstreamSettings = {
      ...setting,
      healthPath,
      // An upstream may be called "constructor".
      key: Object.hasOwn(config.upstreamKeys, setting.name) ? config.upstreamKeys[setting.name] : undefined,
      caCertificates: caFile === undefined ? undefined : readCertificates(caFile),
    };
    return [
      setting.name,
      openUpstream(settings, WIRES[setting.kind], clock, {
        healthChanged: (upstream, healthy, reason) =>
          log.write(healthy ? "info" : "warn", "upstream.health", {
            upstream,
            healthy,
            reason: reason ?? null,
          }),
        breakerChanged: (upstream, state) =>
          log.write(state === "closed" ? "info" : "warn", "upstream.breaker", { upstream, state }),
      }),
    ];
  }));
}

/** Closes them all. */
export async function closeUpstreams(upstreams: ReadonlyMap<string, Upstream>): Promise<void> {
  await Promise.all([...upstreams.values()].map((upstream) => upstream.close()));
}

/** What the gate has to know of a model of the settings. */
export function servedModelOfSetting(setting: Config["upstreamModels"][number]): ServedModel {
  return {
    id: setting.id,
    aliases: setting.aliases,
    capabilities: setting.capabilities,
    ownedBy: "upstream",
    createdSeconds: 0,
    access: { see: setting.see, use: setting.use, teams: setting.teams ?? null },
    accepted: true,
    sha256: null,
    limits: {
      textsPerRequestMax: setting.textsPerRequestMax,
      charactersPerTextMax: setting.charactersPerTextMax,
      contextTokensMax: setting.contextTokensMax ?? null,
      outputTokensMax: setting.outputTokensMax ?? null,
    },
    dimensions: setting.dimensions ?? null,
    dimensionsReducible: true,
    passFields: setting.passFields,
    prices: setting.prices ?? null,
    fallbacks: setting.fallbacks,
  };
}

/** Resolves when no engine warms up any more; how many cannot be served. */
export async function whenWarm(engines: EngineTable): Promise<number> {
  for (;;) {
    const states = engines.states().map(({ state }) => state);
    if (!states.includes("warming")) return states.filter((state) => state !== "ready").length;
    await new Promise((resolve) => setTimeout(resolve, WARM_POLL_MS));
  }
}
