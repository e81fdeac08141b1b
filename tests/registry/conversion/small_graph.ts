// A small TF.js graph model as bytes, for tests that change one thing in it.

/** A node as `model.json` writes it. */
export interface NodeJson {
  name: string;
  op: string;
  input?: string[];
  attr?: Record<string, unknown>;
}

/** A constant and its numbers. */
export interface ConstantJson {
  name: string;
  shape: number[];
  dtype: "float32" | "int32";
  values: number[];
}

/** `model.json` and its one shard. */
export interface SmallGraph {
  readonly modelJson: Uint8Array;
  readonly shards: Map<string, Uint8Array>;
}

/** Builds the two files; each constant gets its Const node. */
export function smallGraph(nodes: readonly NodeJson[], constants: readonly ConstantJson[]): SmallGraph {
  const view = new DataView(
    new ArrayBuffer(4 * constants.reduce((sum, { values }) => sum + values.length, 0)),
  );
  let offset = 0;
  for (const { dtype, values } of constants) {
    for (const value of values) {
      if (dtype === "float32") view.setFloat32(offset, value, true);
      else view.setInt32(offset, value, true);
      offset += 4;
    }
  }
  const model = {
    modelTopology: { node: [...nodes, ...constants.map(({ name }) => ({ name, op: "Const" }))] },
    weightsManifest: [{
      paths: ["shard1of1"],
      weights: constants.map(({ name, shape, dtype }) => ({ name, shape, dtype })),
    }],
  };
  return {
    modelJson: encodeJson(model),
    shards: new Map([["shard1of1", new Uint8Array(view.buffer)]]),
  };
}

/** A value as the bytes of its JSON. */
export function encodeJson(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
