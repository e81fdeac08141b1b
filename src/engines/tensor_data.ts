// Tensor data: the elements of a tensor, as JSON or as raw little-endian bytes, checked against its datatype and its shape.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import type { FieldMistake } from "../faults/fault.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import { type Datatype, DATATYPES, type Tensor } from "./tensor.ts";

/** Bytes of the length that stands before each raw BYTES element. */
const LENGTH_BYTES = 4;

interface ElementRule {
  fits(element: JsonValue | undefined): boolean;
  /** What one that does not fit is not. */
  readonly words: string;
}

const integer = (min: number, max: number, words = `is no integer from ${min} to ${max}`): ElementRule => ({
  fits: (element) =>
    typeof element === "number" && Number.isInteger(element) && element >= min && element <= max,
  words,
});
/** JSON numbers are doubles (RFC 8259 §6): beyond 2^53 another integer than the written one would arrive. */
const wide = (min: number): ElementRule =>
  integer(
    min,
    Number.MAX_SAFE_INTEGER,
    "is no integer that JSON carries exactly (at most 2^53 - 1): larger ones go as binary data",
  );
const number: ElementRule = {
  fits: (element) => typeof element === "number" && Number.isFinite(element),
  words: "is no finite number",
};

const RULES: Readonly<Record<Datatype, ElementRule>> = {
  BOOL: { fits: (element) => typeof element === "boolean", words: "is neither true nor false" },
  UINT8: integer(0, 2 ** 8 - 1),
  UINT16: integer(0, 2 ** 16 - 1),
  UINT32: integer(0, 2 ** 32 - 1),
  UINT64: wide(0),
  INT8: integer(-(2 ** 7), 2 ** 7 - 1),
  INT16: integer(-(2 ** 15), 2 ** 15 - 1),
  INT32: integer(-(2 ** 31), 2 ** 31 - 1),
  INT64: wide(Number.MIN_SAFE_INTEGER),
  FP16: number,
  BF16: number,
  FP32: {
    fits: (element) => typeof element === "number" && Number.isFinite(Math.fround(element)),
    words: "is no number that FP32 can hold",
  },
  FP64: number,
  BYTES: { fits: (element) => typeof element === "string", words: "is no string" },
};

/** The count of elements that a shape says; 1 for a scalar's empty shape. */
export function elementCount(shape: readonly number[]): number {
  let count = 1;
  for (const length of shape) count *= length;
  return count;
}

/** What is wrong with JSON elements, flat or nested as their shape; the path is below the data. Undefined: nothing is. */
export function findJsonMistake(
  elements: readonly JsonValue[],
  datatype: Datatype,
  shape: readonly number[],
): FieldMistake | undefined {
  if (shape.length > 1 && Array.isArray(elements[0])) return findNestedMistake(elements, datatype, shape, 0);
  return findRowMistake(elements, datatype, elementCount(shape));
}

function findNestedMistake(
  elements: readonly JsonValue[],
  datatype: Datatype,
  shape: readonly number[],
  axis: number,
): FieldMistake | undefined {
  const length = shape[axis] ?? 0;
  if (axis === shape.length - 1) return findRowMistake(elements, datatype, length);
  if (elements.length !== length) return wrongLength(elements.length, length);
  for (let index = 0; index < elements.length; index++) {
    const inner = elements[index];
    // The path is put together on the way back only: there may be millions of rows, and most have no mistake.
    const mistake = Array.isArray(inner)
      ? findNestedMistake(inner, datatype, shape, axis + 1)
      : { path: "", message: "is no array, where the shape has a further dimension" };
    if (mistake !== undefined) return { path: `/${index}${mistake.path}`, message: mistake.message };
  }
  return undefined;
}

function findRowMistake(
  elements: readonly JsonValue[],
  datatype: Datatype,
  length: number,
): FieldMistake | undefined {
  if (elements.length !== length) return wrongLength(elements.length, length);
  const { fits, words } = RULES[datatype];
  for (let index = 0; index < elements.length; index++) {
    if (!fits(elements[index])) return { path: `/${index}`, message: words };
  }
  return undefined;
}

function wrongLength(actual: number, expected: number): FieldMistake {
  return { path: "", message: `has ${actual} elements where the shape says ${expected}` };
}

/** What is wrong with raw bytes. Undefined: nothing is. */
export function findRawMistake(
  bytes: Uint8Array,
  datatype: Datatype,
  shape: readonly number[],
): string | undefined {
  const count = elementCount(shape);
  const size = DATATYPES[datatype];
  if (size === undefined) return findLengthMistake(bytes, count);
  if (bytes.length !== count * size) {
    return `has ${bytes.length} bytes where datatype and shape say ${count * size}`;
  }
  if (datatype === "BOOL") {
    for (let index = 0; index < bytes.length; index++) {
      if ((bytes[index] ?? 0) > 1) return "has a byte that is neither 0 nor 1";
    }
  }
  return undefined;
}

function findLengthMistake(bytes: Uint8Array, count: number): string | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = 0;
  for (let element = 0; element < count; element++) {
    if (offset + LENGTH_BYTES > bytes.length) return `ends before its ${count} elements do`;
    offset += LENGTH_BYTES + view.getUint32(offset, true);
  }
  return offset === bytes.length
    ? undefined
    : `is not filled exactly by the lengths of its ${count} elements`;
}

/** The elements of a checked FP32 tensor, row-major, in memory of their own. */
export function readFloat32({ data, shape }: Tensor): Float32Array<ArrayBuffer> {
  if ("bytes" in data) {
    const copy = new Uint8Array(data.bytes.length); // aligned, as a piece of a body need not be
    copy.set(data.bytes);
    return new Float32Array(copy.buffer);
  }
  const elements = flatten(data.json);
  const values = new Float32Array(elementCount(shape));
  for (let index = 0; index < values.length; index++) values[index] = Number(elements[index]);
  return values;
}

/** The raw bytes of FP32 elements: a view of the same memory (all platforms of the runtime are little-endian). */
export function float32Bytes(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** The elements of a checked BYTES tensor as texts; "not_utf8" where raw ones are no UTF-8. */
export function readTexts({ data, shape }: Tensor): Outcome<string[], "not_utf8"> {
  if ("json" in data) return ok(flatten(data.json).map(String));
  const { bytes } = data;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const texts: string[] = [];
  let offset = 0;
  for (let count = elementCount(shape); count > 0; count--) {
    const start = offset + LENGTH_BYTES;
    offset = start + view.getUint32(offset, true);
    const text = decodeUtf8(bytes.subarray(start, offset));
    if (!text.ok) return no("not_utf8");
    texts.push(text.value);
  }
  return ok(texts);
}

/** Texts as the raw bytes of a BYTES tensor. */
export function textBytes(texts: readonly string[]): Uint8Array<ArrayBuffer> {
  const elements = texts.map(encodeUtf8);
  const bytes = new Uint8Array(elements.reduce((sum, { length }) => sum + LENGTH_BYTES + length, 0));
  const view = new DataView(bytes.buffer);
  let offset = 0;
  for (const element of elements) {
    view.setUint32(offset, element.length, true);
    bytes.set(element, offset + LENGTH_BYTES);
    offset += LENGTH_BYTES + element.length;
  }
  return bytes;
}

function flatten(elements: readonly JsonValue[]): readonly JsonValue[] {
  return Array.isArray(elements[0])
    ? (elements as readonly unknown[]).flat(Infinity) as JsonValue[]
    : elements;
}
