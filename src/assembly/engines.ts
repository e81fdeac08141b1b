// Assembly of engines: the models of this process, the upstreams, and the models that those serve.
import type { Config } from "../config/config.ts";
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
import type { ModelArtefacts } from "../registry/catalog.ts";
import type { ModelCard } from "../registry/model_card.ts";
import type { ServedModel } from "../registry/served_model.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import { readCertificates } from "./certificates.ts";

const WARM_POLL_MS = 20;

/** A model of this process whose files were accepted. */
export interface AcceptedModel {
  readonly card: ModelCard;
  readonly artefacts: ModelArtefacts;
}

/** Engines for the accepted models and for those of upstreams. */
export function openEngines(
  models: readonly AcceptedModel[],
  upstreams: ReadonlyMap<string, Upstream>,
  config: Config,
  clock: Clock,
  log: Log,
): EngineTable {
  const runtimeWasm = models.length === 0 ? new Uint8Array() : Deno.readFileSync(runtimeWasmUrl);
  const own = models.map(({ card, artefacts }) =>
    openOnnxEngine({
      card,
      ...artefacts,
      runtimeWasm,
      workers: config.engineWorkers,
      queueMax: config.engineQueueMax,
      clock,
      onFault: (fault) => log.write("error", "engine.fault", { model: card.id, reason: fault.message }),
    })
  );
  const behind = config.upstreamModels.map(({ id, servedBy, routing }) => {
    const replicas = servedBy.map(({ upstream, model = id, weight }) => ({ upstream, model, weight }));
    return openUpstreamEngine({ model: { id, routing, replicas }, upstreams, clock });
  });
  return createEngineTable([...own, ...behind]);
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
