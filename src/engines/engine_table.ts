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

/** A table whose engines come and go. */
export interface ChangingEngineTable extends EngineTable {
  /** From now on this engine computes its model; one that did so before is taken out and not closed. */
  put(engine: Engine): void;
  /** Takes an engine out, unless another has its place by now. It is not closed. */
  remove(engine: Engine): void;
}

/**
 * Makes the table; closing it closes the engines that are in it.
 *
 * @throws Error when two engines compute one model
 */
export function createEngineTable(engines: readonly Engine[]): ChangingEngineTable {
  const byModel = new Map(engines.map((engine) => [engine.modelId, engine]));
  if (byModel.size !== engines.length) {
    throw new Error("Cannot make an engine table: a model has two engines");
  }
  return {
    get: (modelId) => byModel.get(modelId),
    states: () => [...byModel].map(([modelId, engine]) => ({ modelId, state: engine.state() })),
    put(engine) {
      byModel.set(engine.modelId, engine);
    },
    remove(engine) {
      if (byModel.get(engine.modelId) === engine) byModel.delete(engine.modelId);
    },
    close: async () => {
      await Promise.all([...byModel.values()].map((engine) => engine.close()));
    },
  };
}
