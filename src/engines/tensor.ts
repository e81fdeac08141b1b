// Tensor: what the Open Inference Protocol moves, in its JSON form or in its binary extension's.
import type { JsonValue } from "../encoding/canonical_json.ts";

/** Datatypes of the protocol, and the bytes of one element; BYTES elements have their own length before them. */
export const DATATYPES = {
  BOOL: 1,
  UINT8: 1,
  UINT16: 2,
  UINT32: 4,
  UINT64: 8,
  INT8: 1,
  INT16: 2,
  INT32: 4,
  INT64: 8,
  FP16: 2,
  BF16: 2,
  FP32: 4,
  FP64: 8,
  BYTES: undefined,
} as const;

/** A datatype's name. */
export type Datatype = keyof typeof DATATYPES;

/** One tensor. */
export interface Tensor {
  readonly name: string;
  readonly datatype: Datatype;
  /** Row-major; the product of it is the count of elements. */
  readonly shape: readonly number[];
  readonly parameters?: Readonly<Record<string, JsonValue>>;
  /** Flat or nested JSON elements, or the raw little-endian bytes of the binary extension. */
  readonly data: { readonly json: readonly JsonValue[] } | { readonly bytes: Uint8Array };
}

/** An output that is asked for. */
export interface WantedOutput {
  readonly name: string;
  /** True where the caller wants raw bytes. */
  readonly binary: boolean;
  readonly parameters?: Readonly<Record<string, JsonValue>>;
}

/** A run on tensors. */
export interface TensorRequest {
  readonly task: "tensor";
  readonly inputs: readonly Tensor[];
  /** Empty: all of them, in the form that `binaryOutputs` says. */
  readonly outputs: readonly WantedOutput[];
  readonly binaryOutputs: boolean;
  readonly parameters?: Readonly<Record<string, JsonValue>>;
}

/** What came out. */
export interface TensorAnswer {
  readonly outputs: readonly Tensor[];
  readonly parameters?: Readonly<Record<string, JsonValue>>;
}

/** Asks what tensors a model takes and gives. It runs nothing. */
export interface TensorMetadataRequest {
  readonly task: "tensor_metadata";
}

/** The name, datatype and shape of one tensor; -1 where a length is open. */
export interface TensorDescription {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: readonly number[];
}

/** What a model takes and gives. */
export interface TensorMetadata {
  readonly platform: string;
  readonly inputs: readonly TensorDescription[];
  readonly outputs: readonly TensorDescription[];
}
