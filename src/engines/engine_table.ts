// Engine table: which engine computes which model.
import type { Engine, EngineState } from "./engine.ts";

/** All engines of the server. */
export interface EngineTable {
  /** The engine of a model, or undefined. */
  get(modelId: string): Engine | undefined;
  /** Each model's state, in the order of the engines. */
  states(): readonly { readonly modelId: string; readonly state: EngineState }[];
  /** Closes all engines, side by side. */
  close(): Promise<void>;
}

/**
 * Makes the table; closing it closes the engines.
 *
 * @throws Error when two engines compute one model
 */
export function createEngineTable(engines: readonly Engine[]): EngineTable {
  const byModel = new Map(engines.map((engine) => [engine.modelId, engine]));
  if (byModel.size !== engines.length) {
    throw new Error("Cannot make an engine table: a model has two engines");
  }
  return {
    get: (modelId) => byModel.get(modelId),
    states: () => engines.map((engine) => ({ modelId: engine.modelId, state: engine.state() })),
    close: async () => {
      await Promise.all(engines.map((engine) => engine.close()));
    },
  };
}
