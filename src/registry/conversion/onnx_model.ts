// ONNX model files: the messages of onnx.proto that we write (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
import {
  bytesField,
  integerField,
  type Message,
  message,
  messageField,
  textField,
  toBytes,
} from "./protobuf_writer.ts";

/** The element types that we write, by their names in ONNX. */
export type ElementType = "float32" | "int64" | "bool";

/** A constant tensor. */
export interface OnnxTensor {
  readonly name: string;
  readonly elementType: ElementType;
  /** Lengths of the axes, outermost first; empty for a scalar. */
  readonly dimensions: readonly number[];
  /** The elements, row-major, each little-endian (onnx.proto: `raw_data`). */
  readonly bytes: Uint8Array;
}

/** What a node's attribute may hold here. */
export type OnnxAttribute = number | readonly number[] | OnnxTensor;

/** One operation. Tensors are referred to by name. */
export interface OnnxNode {
  /** Unique in the graph; the runtime's error messages use it. */
  readonly name: string;
  readonly operation: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, OnnxAttribute>>;
}

/** An input or output of the whole graph. A dimension that is a name has no fixed length. */
export interface OnnxPort {
  readonly name: string;
  readonly elementType: ElementType;
  readonly dimensions: readonly (number | string)[];
}

/** A graph. Each node stands behind the nodes whose outputs it reads. */
export interface OnnxGraph {
  readonly name: string;
  readonly nodes: readonly OnnxNode[];
  readonly constants: readonly OnnxTensor[];
  readonly inputs: readonly OnnxPort[];
  readonly outputs: readonly OnnxPort[];
}

/** The set of operations in which graphs are written: their meaning is fixed by this number. */
export const OPERATION_SET_VERSION = 17;
/** The file format's version that belongs to it (ONNX 1.12). */
const IR_VERSION = 8;

// Field numbers, named as in onnx.proto.
const MODEL = { ir_version: 1, producer_name: 2, graph: 7, opset_import: 8 } as const;
const OPERATOR_SET_ID = { domain: 1, version: 2 } as const;
const GRAPH = { node: 1, name: 2, initializer: 5, input: 11, output: 12 } as const;
const NODE = { input: 1, output: 2, name: 3, op_type: 4, attribute: 5 } as const;
const ATTRIBUTE = { name: 1, i: 3, t: 5, ints: 8, type: 20 } as const;
const TENSOR = { dims: 1, data_type: 2, name: 8, raw_data: 9 } as const;
const VALUE_INFO = { name: 1, type: 2 } as const;
const TYPE = { tensor_type: 1 } as const;
const TYPE_TENSOR = { elem_type: 1, shape: 2 } as const;
const TENSOR_SHAPE = { dim: 1 } as const;
const DIMENSION = { dim_value: 1, dim_param: 2 } as const;

/** AttributeProto.AttributeType. */
const ATTRIBUTE_TYPE = { INT: 2, TENSOR: 4, INTS: 7 } as const;

/** TensorProto.DataType: the numbers by which operations such as Cast name an element type as well. */
export const ELEMENT_TYPE_NUMBER: Readonly<Record<ElementType, number>> = { float32: 1, int64: 7, bool: 9 };

/** The bytes of an `.onnx` file. The same graph gives the same bytes on every machine. */
export function encodeOnnxModel(graph: OnnxGraph): Uint8Array<ArrayBuffer> {
  return toBytes(message(
    integerField(MODEL.ir_version, IR_VERSION),
    textField(MODEL.producer_name, "portcullis"),
    messageField(MODEL.graph, graphMessage(graph)),
    messageField(
      MODEL.opset_import,
      // The empty domain stands for the operations of ONNX itself.
      message(
        textField(OPERATOR_SET_ID.domain, ""),
        integerField(OPERATOR_SET_ID.version, OPERATION_SET_VERSION),
      ),
    ),
  ));
}

function graphMessage(graph: OnnxGraph): Message {
  return message(
    ...graph.nodes.map((node) => messageField(GRAPH.node, nodeMessage(node))),
    textField(GRAPH.name, graph.name),
    ...graph.constants.map((tensor) => messageField(GRAPH.initializer, tensorMessage(tensor))),
    ...graph.inputs.map((port) => messageField(GRAPH.input, portMessage(port))),
    ...graph.outputs.map((port) => messageField(GRAPH.output, portMessage(port))),
  );
}

function nodeMessage(node: OnnxNode): Message {
  return message(
    ...node.inputs.map((name) => textField(NODE.input, name)),
    ...node.outputs.map((name) => textField(NODE.output, name)),
    textField(NODE.name, node.name),
    textField(NODE.op_type, node.operation),
    ...Object.entries(node.attributes).map(([name, value]) =>
      messageField(NODE.attribute, attributeMessage(name, value))
    ),
  );
}

function attributeMessage(name: string, value: OnnxAttribute): Message {
  const named = textField(ATTRIBUTE.name, name);
  const typed = (type: number) => integerField(ATTRIBUTE.type, type);
  if (typeof value === "number") {
    return message(named, integerField(ATTRIBUTE.i, value), typed(ATTRIBUTE_TYPE.INT));
  }
  if ("bytes" in value) {
    return message(named, messageField(ATTRIBUTE.t, tensorMessage(value)), typed(ATTRIBUTE_TYPE.TENSOR));
  }
  return message(
    named,
    ...value.map((item) => integerField(ATTRIBUTE.ints, item)),
    typed(ATTRIBUTE_TYPE.INTS),
  );
}

function tensorMessage(tensor: OnnxTensor): Message {
  return message(
    ...tensor.dimensions.map((length) => integerField(TENSOR.dims, length)),
    integerField(TENSOR.data_type, ELEMENT_TYPE_NUMBER[tensor.elementType]),
    textField(TENSOR.name, tensor.name),
    bytesField(TENSOR.raw_data, tensor.bytes),
  );
}

function portMessage(port: OnnxPort): Message {
  const shape = message(...port.dimensions.map((length) =>
    messageField(
      TENSOR_SHAPE.dim,
      typeof length === "number"
        ? integerField(DIMENSION.dim_value, length)
        : textField(DIMENSION.dim_param, length),
    )
  ));
  const tensorType = message(
    integerField(TYPE_TENSOR.elem_type, ELEMENT_TYPE_NUMBER[port.elementType]),
    messageField(TYPE_TENSOR.shape, shape),
  );
  return message(
    textField(VALUE_INFO.name, port.name),
    messageField(VALUE_INFO.type, messageField(TYPE.tensor_type, tensorType)),
  );
}
