// Converts a TF.js graph to an ONNX model: one small function for each TensorFlow operation.
import { Fault } from "../../faults/fault.ts";
import {
  ELEMENT_TYPE_NUMBER,
  type ElementType,
  encodeOnnxModel,
  type OnnxAttribute,
  type OnnxNode,
  type OnnxPort,
  type OnnxTensor,
} from "./onnx_model.ts";
import {
  TENSORFLOW_TYPE,
  type TfjsAttribute,
  type TfjsGraph,
  type TfjsNode,
  type TfjsWeight,
} from "./tfjs_graph.ts";

/** What the ends of the converted graph are called, and their shapes. */
export interface GraphEnds {
  /** The graph's own name. */
  readonly name: string;
  /** One for each Placeholder node, and of the same name. */
  readonly inputs: readonly OnnxPort[];
  readonly output: OnnxPort;
  /** The TF.js node whose first output becomes `output`. */
  readonly outputNode: string;
}

/**
 * Converts a graph. Every integer becomes int64, because that is what ONNX wants of shapes and indices.
 *
 * @returns the bytes of an `.onnx` file: the same for the same graph, on every machine
 * @throws Fault `unavailable` when the graph holds an operation, or a variant of one, that is not known here
 */
export function convertTfjsGraph(graph: TfjsGraph, ends: GraphEnds): Uint8Array<ArrayBuffer> {
  if (!graph.nodes.some((node) => node.name === ends.outputNode)) {
    throw new Fault("unavailable", `Cannot convert the graph: it has no node ${ends.outputNode}`);
  }
  const nodes: OnnxNode[] = [];
  const constants = new Map<string, OnnxTensor>();
  for (const node of graph.nodes) {
    const convert = CONVERSIONS.get(node.operation);
    if (convert === undefined) {
      throw new Fault(
        "unavailable",
        `Cannot convert ${node.name}: the operation ${node.operation} is not supported`,
      );
    }
    convert(conversionStep(node, graph.weights, ends, nodes, constants));
  }
  nodes.push({
    name: ends.output.name,
    operation: "Identity",
    inputs: [ends.outputNode],
    outputs: [ends.output.name],
    attributes: {},
  });
  return encodeOnnxModel({
    name: ends.name,
    nodes,
    constants: [...constants.values()],
    inputs: ends.inputs,
    outputs: [ends.output],
  });
}

/** What the conversion of one TensorFlow node reads and writes. Tensors are referred to by name. */
interface Step {
  readonly node: TfjsNode;
  /** The node's input at a position. */
  input(position: number): string;
  /** All inputs of the node. */
  inputs(): readonly string[];
  /** An input that must be a constant, because ONNX wants its value in the graph's structure. */
  weight(position: number): TfjsWeight;
  /** The integers of such an input. */
  integers(position: number): readonly number[];
  /** An attribute; empty when the node does not state it. */
  attribute(name: string): TfjsAttribute;
  /** The node's own output: 0 for the first. */
  output(position?: number): string;
  /** A tensor between two ONNX nodes that stand for this one node. */
  between(label: string): string;
  /** A new constant: a list of int64. */
  int64s(values: readonly (number | bigint)[]): string;
  /** A new constant. */
  constant(tensor: OnnxTensor): string;
  /** Adds an ONNX node and gives the name of its first output. */
  emit(
    operation: string,
    inputs: readonly string[],
    outputs: readonly [string, ...string[]],
    attributes?: Readonly<Record<string, OnnxAttribute>>,
  ): string;
  /** Stops the conversion unless the node is of the variant that is supported. */
  require(holds: boolean, otherwise: string): void;
  readonly ends: GraphEnds;
}

type Conversion = (step: Step) => void;

function conversionStep(
  node: TfjsNode,
  weights: ReadonlyMap<string, TfjsWeight>,
  ends: GraphEnds,
  nodes: OnnxNode[],
  constants: Map<string, OnnxTensor>,
): Step {
  const refuse = (state: string): Fault =>
    new Fault("unavailable", `Cannot convert ${node.name} (${node.operation}): ${state}`);
  const inputName = (position: number): string => {
    const name = node.inputs[position];
    if (name === undefined) throw refuse(`it has no input ${position}`);
    return name;
  };
  const weightAt = (position: number): TfjsWeight => {
    const weight = weights.get(inputName(position));
    if (weight === undefined) throw refuse(`its input ${position} is not a constant`);
    return weight;
  };
  const constant = (tensor: OnnxTensor): string => {
    constants.set(tensor.name, tensor);
    return tensor.name;
  };
  const input = (position: number): string => {
    const name = inputName(position);
    const weight = weights.get(name);
    // Only the weights that are read as tensors go into the file.
    return weight === undefined || constants.has(name) ? name : constant(tensorOfWeight(name, weight));
  };
  return {
    node,
    ends,
    input,
    inputs: () => node.inputs.map((_, position) => input(position)),
    weight: weightAt,
    integers: (position) => {
      const weight = weightAt(position);
      if (weight.elementType !== "int32") throw refuse(`its input ${position} holds no integers`);
      return readInt32s(weight.bytes);
    },
    attribute: (name) => node.attributes[name] ?? {},
    output: (position = 0) => position === 0 ? node.name : `${node.name}:${position}`,
    between: (label) => `${node.name}/~${label}`,
    // The name is the value, so equal lists are stored once.
    int64s: (values) =>
      constant({
        name: `int64[${values.join(",")}]`,
        elementType: "int64",
        dimensions: [values.length],
        bytes: writeInt64s(values),
      }),
    constant,
    emit: (operation, inputs, outputs, attributes = {}) => {
      nodes.push({ name: outputs[0], operation, inputs, outputs, attributes });
      return outputs[0];
    },
    require: (holds, otherwise) => {
      if (!holds) throw refuse(otherwise);
    },
  };
}

/** TensorFlow's name → the conversion. Inputs and attributes: https://www.tensorflow.org/api_docs/python/tf/raw_ops */
const CONVERSIONS: ReadonlyMap<string, Conversion> = new Map(Object.entries<Conversion>({
  // The ends, and constants: those are added when a node reads them.
  Placeholder: convertPlaceholder,
  Const: () => {},

  // The same operation in both, mostly under the same name.
  Add: sameAs("Add"),
  BiasAdd: convertBiasAdd,
  Cos: sameAs("Cos"),
  GatherNd: sameAs("GatherND"),
  Greater: sameAs("Greater"),
  Less: sameAs("Less"),
  LogicalNot: sameAs("Not"),
  Maximum: sameAs("Max"),
  Mul: sameAs("Mul"),
  Range: sameAs("Range"),
  RealDiv: sameAs("Div"),
  Relu: sameAs("Relu"),
  Reshape: sameAs("Reshape"),
  Shape: sameAs("Shape"),
  Sin: sameAs("Sin"),
  Sub: sameAs("Sub"),
  Tanh: sameAs("Tanh"),

  // Arithmetic.
  Cast: convertCast,
  Rsqrt: convertRsqrt,
  Softmax: (step) => step.emit("Softmax", [step.input(0)], [step.output()], { axis: -1 }),
  Square: (step) => step.emit("Mul", [step.input(0), step.input(0)], [step.output()]),

  // Products of matrices.
  BatchMatMul: convertBatchMatMul,
  Conv2D: convertConv2d,
  MatMul: convertMatMul,

  // Reductions.
  Max: reduceAs("ReduceMax"),
  Mean: reduceAs("ReduceMean"),
  Prod: reduceAs("ReduceProd"),
  Sum: convertSum,

  // Shapes.
  ConcatV2: convertConcat,
  ExpandDims: (step) =>
    step.emit("Unsqueeze", [step.input(0), step.int64s(step.integers(1))], [step.output()]),
  Pack: convertPack,
  SplitV: convertSplit,
  Squeeze: convertSqueeze,
  Transpose: (step) => step.emit("Transpose", [step.input(0)], [step.output()], { perm: step.integers(1) }),

  // Parts of tensors.
  GatherV2: convertGather,
  ScatterNd: convertScatterNd,
  Slice: convertSlice,
  SparseToDense: convertSparseToDense,
  StridedSlice: convertStridedSlice,
  Where: convertWhere,
}));

/** Same inputs in the same order, one output, no attribute that changes the meaning. */
function sameAs(operation: string): Conversion {
  return (step) => step.emit(operation, step.inputs(), [step.output()]);
}

/** Reductions whose axes are an attribute in this operation set. */
function reduceAs(operation: string): Conversion {
  return (step) =>
    step.emit(operation, [step.input(0)], [step.output()], {
      axes: step.integers(1),
      keepdims: keepsAxes(step),
    });
}

/** Of the reductions, only ReduceSum takes its axes as an input already. */
function convertSum(step: Step): void {
  step.emit("ReduceSum", [step.input(0), step.int64s(step.integers(1))], [step.output()], {
    keepdims: keepsAxes(step),
  });
}

function keepsAxes(step: Step): number {
  return step.attribute("keep_dims").b === true ? 1 : 0;
}

function convertPlaceholder(step: Step): void {
  const known = step.ends.inputs.some((port) => port.name === step.node.name);
  step.require(known, "it is not among the inputs that were asked for");
}

/** ONNX broadcasts along the last axis, where the channels are in NHWC. */
function convertBiasAdd(step: Step): void {
  step.require((step.attribute("data_format").s ?? "NHWC") === "NHWC", "only the layout NHWC is supported");
  step.emit("Add", [step.input(0), step.input(1)], [step.output()]);
}

function convertCast(step: Step): void {
  const elementType = ELEMENT_TYPES.get(step.attribute("DstT").type ?? 0);
  step.require(elementType !== undefined, "its target type is not supported");
  if (elementType === undefined) return;
  step.emit("Cast", [step.input(0)], [step.output()], { to: ELEMENT_TYPE_NUMBER[elementType] });
}

const ELEMENT_TYPES: ReadonlyMap<number, ElementType> = new Map([
  [TENSORFLOW_TYPE.float32, "float32"],
  [TENSORFLOW_TYPE.int32, "int64"],
  [TENSORFLOW_TYPE.int64, "int64"],
  [TENSORFLOW_TYPE.bool, "bool"],
]);

function convertRsqrt(step: Step): void {
  const root = step.emit("Sqrt", [step.input(0)], [step.between("root")]);
  step.emit("Reciprocal", [root], [step.output()]);
}

function convertMatMul(step: Step): void {
  const transposes = step.attribute("transpose_a").b === true || step.attribute("transpose_b").b === true;
  step.require(!transposes, "transposed operands are not supported");
  step.emit("MatMul", [step.input(0), step.input(1)], [step.output()]);
}

/** The operands have four axes here, [batch, heads, rows, columns]: a graph does not state it, and attention has no others. */
function convertBatchMatMul(step: Step): void {
  step.require(step.attribute("adj_x").b !== true, "a transposed left operand is not supported");
  const right = step.attribute("adj_y").b === true
    ? step.emit("Transpose", [step.input(1)], [step.between("transposed")], { perm: [0, 1, 3, 2] })
    : step.input(1);
  step.emit("MatMul", [step.input(0), right], [step.output()]);
}

/** A kernel of 1×1 looks at one place at a time: the convolution is a product with the matrix [channels in, out]. */
function convertConv2d(step: Step): void {
  const kernel = step.weight(1);
  const [height, width, ...matrix] = kernel.dimensions;
  const ones = (name: string) => step.attribute(name).list?.i?.every((value) => value === 1) ?? true;
  step.require(height === 1 && width === 1, "only kernels of 1×1 are supported");
  step.require(ones("strides") && ones("dilations"), "only strides and dilations of 1 are supported");
  step.require((step.attribute("data_format").s ?? "NHWC") === "NHWC", "only the layout NHWC is supported");
  const weights = step.constant({
    name: step.between("matrix"),
    elementType: "float32",
    dimensions: matrix,
    bytes: kernel.bytes,
  });
  step.emit("MatMul", [step.input(0), weights], [step.output()]);
}

function convertConcat(step: Step): void {
  const last = step.node.inputs.length - 1;
  step.emit("Concat", step.inputs().slice(0, last), [step.output()], { axis: singleInteger(step, last) });
}

/** Tensors of one shape, stacked along a new axis. */
function convertPack(step: Step): void {
  const axis = step.attribute("axis").i ?? 0;
  const slices = step.inputs().map((input, position) =>
    step.emit("Unsqueeze", [input, step.int64s([axis])], [step.between(`item ${position}`)])
  );
  step.emit("Concat", slices, [step.output()], { axis });
}

function convertSplit(step: Step): void {
  const others = step.integers(1).slice(1).map((_, index) => step.output(index + 1));
  step.emit("Split", [step.input(0), step.input(1)], [step.output(), ...others], {
    axis: singleInteger(step, 2),
  });
}

function convertSqueeze(step: Step): void {
  const axes = step.attribute("squeeze_dims").list?.i ?? [];
  step.require(axes.length > 0, "the axes to remove must be stated");
  step.emit("Squeeze", [step.input(0), step.int64s(axes)], [step.output()]);
}

function convertGather(step: Step): void {
  step.require((step.attribute("batch_dims").i ?? 0) === 0, "batch dimensions are not supported");
  step.emit("Gather", [step.input(0), step.input(1)], [step.output()], { axis: singleInteger(step, 2) });
}

/** TensorFlow adds values of equal indices, ONNX keeps one of them: the indices must be distinct, as those of Where are. */
function convertScatterNd(step: Step): void {
  step.require(step.attribute("T").type === TENSORFLOW_TYPE.float32, "only float32 is supported");
  const zero: OnnxTensor = { name: "", elementType: "float32", dimensions: [1], bytes: new Uint8Array(4) };
  const zeros = step.emit("ConstantOfShape", [step.input(2)], [step.between("zeros")], { value: zero });
  step.emit("ScatterND", [zeros, step.input(0), step.input(1)], [step.output()]);
}

/** Inputs: indices, shape, values, the value of all other places. */
function convertSparseToDense(step: Step): void {
  const empty = step.emit("Expand", [step.input(3), step.input(1)], [step.between("empty")]);
  step.emit("ScatterND", [empty, step.input(0), step.input(2)], [step.output()]);
}

/** The indices at which a condition holds: a row for each in TensorFlow, a column in ONNX. */
function convertWhere(step: Step): void {
  const columns = step.emit("NonZero", [step.input(0)], [step.between("columns")]);
  step.emit("Transpose", [columns], [step.output()], { perm: [1, 0] });
}

/** "To the end", whatever the length (ONNX, Slice). */
const TO_THE_END = 2n ** 63n - 1n;

/** TensorFlow gives begin and size, where size −1 means "to the end"; ONNX wants begin and end. */
function convertSlice(step: Step): void {
  const begin = step.input(1), size = step.input(2);
  const toTheEnd = step.emit("Equal", [size, step.int64s([-1])], [step.between("to the end")]);
  const sum = step.emit("Add", [begin, size], [step.between("begin + size")]);
  const end = step.emit("Where", [toTheEnd, step.int64s([TO_THE_END]), sum], [step.between("end")]);
  step.emit("Slice", [step.input(0), begin, end], [step.output()]);
}

/** `x[begin:end:stride]` for each axis. Bit k of a mask concerns axis k. */
function convertStridedSlice(step: Step): void {
  const mask = (name: string) => step.attribute(name).i ?? 0;
  step.require(
    mask("ellipsis_mask") === 0 && mask("new_axis_mask") === 0,
    "ellipses and new axes are not supported",
  );
  const begins = step.integers(1), ends = step.integers(2), strides = step.integers(3);
  step.require(strides.every((stride) => stride > 0), "negative strides are not supported");
  const masked = (name: string, axis: number) => (mask(name) >> axis & 1) === 1;
  // A shrunk axis keeps the one element at `begin` and then disappears; the other masks and `end` do not count there.
  const shrinks = (axis: number) => masked("shrink_axis_mask", axis);
  const axes = begins.map((_, axis) => axis);
  const starts = begins.map((begin, axis) => !shrinks(axis) && masked("begin_mask", axis) ? 0 : begin);
  const stops = begins.map((begin, axis) => {
    if (shrinks(axis)) return begin === -1 ? TO_THE_END : begin + 1;
    return masked("end_mask", axis) ? TO_THE_END : ends[axis] ?? 0;
  });
  const shrunk = axes.filter(shrinks);
  const slice = shrunk.length === 0 ? step.output() : step.between("slice");
  step.emit(
    "Slice",
    [step.input(0), step.int64s(starts), step.int64s(stops), step.int64s(axes), step.int64s(strides)],
    [slice],
  );
  if (shrunk.length > 0) step.emit("Squeeze", [slice, step.int64s(shrunk)], [step.output()]);
}

function singleInteger(step: Step, position: number): number {
  const [value] = step.integers(position);
  step.require(value !== undefined, `its input ${position} is empty`);
  return value ?? 0;
}

function tensorOfWeight(name: string, weight: TfjsWeight): OnnxTensor {
  return weight.elementType === "float32"
    ? { name, elementType: "float32", dimensions: weight.dimensions, bytes: weight.bytes }
    : {
      name,
      elementType: "int64",
      dimensions: weight.dimensions,
      bytes: writeInt64s(readInt32s(weight.bytes)),
    };
}

/** Little-endian by declaration, so that the machine's own order does not matter. */
function readInt32s(bytes: Uint8Array): readonly number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 4 }, (_, index) => view.getInt32(index * 4, true));
}

function writeInt64s(values: readonly (number | bigint)[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8);
  const view = new DataView(bytes.buffer);
  values.forEach((value, index) => view.setBigInt64(index * 8, BigInt(value), true));
  return bytes;
}
