// TF.js graph models: reads and checks `model.json` and its weight shards.
import { z } from "zod";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";

/** A constant tensor. TF.js keeps every integer as int32, also where the node says int64. */
export interface TfjsWeight {
  readonly elementType: "float32" | "int32";
  /** Lengths of the axes, outermost first; empty for a scalar. */
  readonly dimensions: readonly number[];
  /** The elements, row-major, four bytes each, little-endian. */
  readonly bytes: Uint8Array;
}

/** One operation of the graph. */
export interface TfjsNode {
  readonly name: string;
  readonly operation: string;
  /** Tensor names: the name of a node for its first output, `NAME:1` for its second. */
  readonly inputs: readonly string[];
  readonly attributes: Readonly<Record<string, TfjsAttribute>>;
}

/** A graph whose parts fit together: every input is there, every weight has its bytes, nothing runs in a circle. */
export interface TfjsGraph {
  /** Every node stands behind the nodes that it reads; otherwise in the file's order. */
  readonly nodes: readonly TfjsNode[];
  /** By the name of the Const node that they belong to. */
  readonly weights: ReadonlyMap<string, TfjsWeight>;
}

/** TensorFlow's DataType numbers, as they stand in attributes. */
export const TENSORFLOW_TYPE = { float32: 1, int32: 3, int64: 9, bool: 10 } as const;

const BYTES_PER_ELEMENT = 4;

// Protobuf's JSON form writes 64-bit integers as text.
const integer = z.union([z.int(), z.string().regex(/^-?\d{1,15}$/).transform(Number)]);

const attributeSchema = z.object({
  i: integer.optional(),
  b: z.boolean().optional(),
  /** One of TENSORFLOW_TYPE. */
  type: z.int().optional(),
  /** Text, as character codes. */
  s: z.array(z.int().min(0).max(255)).transform((codes) => String.fromCharCode(...codes)).optional(),
  list: z.object({ i: z.array(integer).optional() }).optional(),
});

/** The value of an attribute; the member that is present depends on the attribute's type. */
export type TfjsAttribute = z.infer<typeof attributeSchema>;

const modelSchema = z.object({
  modelTopology: z.object({
    node: z.array(z.object({
      name: z.string().min(1),
      op: z.string().min(1),
      input: z.array(z.string()).default([]),
      attr: z.record(z.string(), attributeSchema).default({}),
    })),
  }),
  weightsManifest: z.array(z.object({
    // File names beside model.json; never a path.
    paths: z.array(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/)),
    weights: z.array(z.object({
      name: z.string().min(1),
      shape: z.array(z.int().min(0).max(2 ** 31)),
      dtype: z.enum(["float32", "int32"]),
      quantization: z.never("quantized weights are not supported").optional(),
    })),
  })),
});

type TfjsModel = z.infer<typeof modelSchema>;

/**
 * The names of the weight files that belong to a `model.json`, in their order.
 *
 * @throws Fault `unavailable` when the file is malformed
 */
export function listTfjsShards(modelJson: Uint8Array): readonly string[] {
  return parseModel(modelJson).weightsManifest.flatMap((group) => group.paths);
}

/**
 * Reads a TF.js graph model.
 *
 * @param modelJson the bytes of `model.json`
 * @param shards the bytes of each file that `listTfjsShards` names
 * @throws Fault `unavailable` when something is malformed, missing, too short or too long
 */
export function readTfjsGraph(modelJson: Uint8Array, shards: ReadonlyMap<string, Uint8Array>): TfjsGraph {
  const model = parseModel(modelJson);
  const weights = readWeights(model, shards);
  const nodes = model.modelTopology.node.map((node): TfjsNode => ({
    name: node.name,
    operation: node.op,
    // `^NAME` only orders two nodes, which matters to nodes with side effects; these have none.
    inputs: node.input.filter((input) => !input.startsWith("^")).map((input) => input.replace(/:0$/, "")),
    attributes: node.attr,
  }));
  for (const node of nodes) {
    if (node.operation === "Const" && !weights.has(node.name)) {
      throw refusal(`no weights belong to the constant ${node.name}`);
    }
  }
  return { nodes: sortNodes(nodes), weights };
}

function parseModel(modelJson: Uint8Array): TfjsModel {
  const text = decodeUtf8(modelJson);
  if (!text.ok) throw refusal("model.json is not UTF-8");
  let json: unknown;
  try {
    json = JSON.parse(text.value);
  } catch (cause) {
    throw refusal("model.json is not JSON", cause);
  }
  const model = modelSchema.safeParse(json);
  if (model.success) return model.data;
  const issue = model.error.issues[0];
  throw refusal(`model.json is wrong at /${issue?.path.join("/")}: ${issue?.message}`, model.error);
}

/** Cuts each group's bytes into its weights, which lie behind each other without gaps. */
function readWeights(
  model: TfjsModel,
  shards: ReadonlyMap<string, Uint8Array>,
): ReadonlyMap<string, TfjsWeight> {
  const weights = new Map<string, TfjsWeight>();
  for (const group of model.weightsManifest) {
    const bytes = joinShards(group.paths, shards);
    let offset = 0;
    for (const weight of group.weights) {
      const byteLength = BYTES_PER_ELEMENT * weight.shape.reduce((product, length) => product * length, 1);
      const end = offset + byteLength;
      if (end > bytes.byteLength) {
        throw refusal(`the weight files end at byte ${bytes.byteLength}, inside ${weight.name}`);
      }
      if (weights.has(weight.name)) throw refusal(`two weights are called ${weight.name}`);
      weights.set(weight.name, {
        elementType: weight.dtype,
        dimensions: weight.shape,
        bytes: bytes.subarray(offset, end),
      });
      offset = end;
    }
    if (offset !== bytes.byteLength) {
      throw refusal(`the weight files hold ${bytes.byteLength} bytes, the manifest describes ${offset}`);
    }
  }
  return weights;
}

function joinShards(paths: readonly string[], shards: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const pieces = paths.map((path) => {
    const piece = shards.get(path);
    if (piece === undefined) throw refusal(`the weight file ${path} is missing`);
    return piece;
  });
  const joined = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.byteLength, 0));
  let offset = 0;
  for (const piece of pieces) {
    joined.set(piece, offset);
    offset += piece.byteLength;
  }
  return joined;
}

/** Depth first from each node to what it reads, in the file's order: the same file gives the same order always. */
function sortNodes(nodes: readonly TfjsNode[]): readonly TfjsNode[] {
  const byName = new Map(nodes.map((node) => [node.name, node]));
  if (byName.size !== nodes.length) throw refusal("two nodes have the same name");
  const sorted = new Set<TfjsNode>();
  const open = new Set<TfjsNode>();
  const visit = (node: TfjsNode): void => {
    if (sorted.has(node)) return;
    if (open.has(node)) throw refusal(`the graph runs in a circle through ${node.name}`);
    open.add(node);
    for (const input of node.inputs) {
      const source = byName.get(nodeOfTensor(input));
      if (source === undefined) throw refusal(`${node.name} reads ${input}, which is not there`);
      visit(source);
    }
    open.delete(node);
    sorted.add(node);
  };
  for (const node of nodes) visit(node);
  return [...sorted];
}

/** `NAME:1` is the second output of the node `NAME`. */
function nodeOfTensor(tensor: string): string {
  return tensor.replace(/:\d+$/, "");
}

function refusal(state: string, cause?: unknown): Fault {
  return new Fault("unavailable", `Cannot read the TF.js model: ${state}`, { cause });
}
