// Tensor codec: bodies of the Open Inference Protocol, as JSON and in the binary tensor data extension, parsed and written.
import type { JsonValue } from "../encoding/canonical_json.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import type { FieldMistake } from "../faults/fault.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import {
  type Datatype,
  DATATYPES,
  type Tensor,
  type TensorAnswer,
  type TensorDescription,
  type TensorMetadata,
  type TensorRequest,
  type WantedOutput,
} from "./tensor.ts";
import { findJsonMistake, findRawMistake } from "./tensor_data.ts";

/** Header that gives the length of the JSON where raw bytes follow it. */
export const HEAD_LENGTH_HEADER = "Inference-Header-Content-Length";

const TENSORS_MAX = 256;
const DIMENSIONS_MAX = 16;
const ELEMENTS_MAX = 2 ** 31;
const PARAMETERS_MAX = 64;
const PARAMETER_CHARACTERS_MAX = 4096;
const ID_CHARACTERS_MAX = 128;
/** A name that a client made up is repeated to it, for it must find it; at most so much of it. */
const NAME_CHARACTERS_SHOWN = 64;
const NAME = /^[^\p{C}\p{Zl}\p{Zp}]{1,256}$/u;
const DATATYPE_NAMES: ReadonlySet<string> = new Set(Object.keys(DATATYPES));

/** A value, or the first mistake on the way to it; paths are JSON Pointers into the JSON. */
export type Parsed<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly mistake: FieldMistake };

/** A request as it came. */
export interface ParsedTensorRequest {
  /** To be repeated in the answer. */
  readonly id: string | undefined;
  readonly request: TensorRequest;
}

/** A body to be sent. */
export interface TensorBody {
  /** JSON, and behind it the raw bytes of the tensors that have them, in their order. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Media type, and the head's length where raw bytes follow. */
  readonly headers: Readonly<Record<string, string>>;
}

/** The two parts of a body, without a copy. */
export interface TensorBodyParts {
  readonly json: Uint8Array;
  /** What follows the JSON; undefined where the body is plain JSON. */
  readonly raw: Uint8Array | undefined;
}

/**
 * Splits a body behind its JSON.
 *
 * @param headLength the header `Inference-Header-Content-Length` as it came, null where it did not
 */
export function splitTensorBody(
  bytes: Uint8Array,
  headLength: string | null,
): Outcome<TensorBodyParts, "head_length_invalid"> {
  if (headLength === null) return ok({ json: bytes, raw: undefined });
  const length = /^[1-9]\d{0,14}$/.test(headLength) ? Number(headLength) : Infinity;
  if (length > bytes.length) return no("head_length_invalid");
  return ok({ json: bytes.subarray(0, length), raw: bytes.subarray(length) });
}

/** A request of a caller: strict, fields that the protocol does not know are refused. */
export function parseTensorRequest(
  json: JsonValue,
  raw: Uint8Array | undefined,
): Parsed<ParsedTensorRequest> {
  return attempt(() => {
    const body = objectOf(json, "");
    requireKnown(body, ["id", "parameters", "inputs", "outputs"], "");
    const id = body.id === undefined ? undefined : parseId(body.id);
    const { binary_data_output: binary, ...parameters } = parseParameters(
      body.parameters,
      "/parameters",
      true,
    );
    const binaryOutputs = parseFlag(binary, "/parameters/binary_data_output") ?? false;
    const rest = { bytes: raw, used: 0 };
    const inputs = listOf(body.inputs, "/inputs", (value, path) => parseTensor(value, path, rest, true));
    if (inputs.length === 0) throw new MistakeFound("/inputs", "is empty");
    requireAllRead(rest);
    const outputs = body.outputs === undefined
      ? []
      : listOf(body.outputs, "/outputs", (value, path) => parseWantedOutput(value, path, binaryOutputs));
    return { id, request: { task: "tensor", inputs, outputs, binaryOutputs, ...given(parameters) } };
  });
}

/** An answer of an upstream: what the protocol does not know is passed over. */
export function parseTensorAnswer(json: JsonValue, raw: Uint8Array | undefined): Parsed<TensorAnswer> {
  return attempt(() => {
    const body = objectOf(json, "");
    const parameters = parseParameters(body.parameters, "/parameters", false);
    const rest = { bytes: raw, used: 0 };
    const outputs = listOf(body.outputs, "/outputs", (value, path) => parseTensor(value, path, rest, false));
    requireAllRead(rest);
    return { outputs, ...given(parameters) };
  });
}

/** What an upstream says of a model's tensors. */
export function parseTensorMetadata(json: JsonValue): Parsed<TensorMetadata> {
  return attempt(() => {
    const body = objectOf(json, "");
    const describe = (value: JsonValue, path: string): TensorDescription => {
      const tensor = objectOf(value, path);
      return {
        name: parseName(tensor.name, `${path}/name`),
        datatype: parseDatatype(tensor.datatype, `${path}/datatype`),
        shape: parseShape(tensor.shape, `${path}/shape`, -1),
      };
    };
    return {
      platform: body.platform === undefined || body.platform === ""
        ? ""
        : parseName(body.platform, "/platform"),
      inputs: listOf(body.inputs, "/inputs", describe),
      outputs: listOf(body.outputs, "/outputs", describe),
    };
  });
}

/** The body of a request; tensors stay in the form in which they are. */
export function writeTensorRequest(request: TensorRequest): TensorBody {
  const { inputs, outputs, binaryOutputs, parameters } = request;
  const wanted = outputs.map((output) => ({
    name: output.name,
    ...given({
      ...output.parameters,
      ...(output.binary === binaryOutputs ? {} : { binary_data: output.binary }),
    }),
  }));
  const head = {
    ...given({ ...parameters, ...(binaryOutputs ? { binary_data_output: true } : {}) }),
    inputs: inputs.map(writeTensor),
    ...(wanted.length === 0 ? {} : { outputs: wanted }),
  };
  return writeBody(head, inputs);
}

/** The body of an answer. */
export function writeTensorAnswer(
  { outputs, parameters }: TensorAnswer,
  { modelName, id }: { readonly modelName: string; readonly id?: string | undefined },
): TensorBody {
  const head = {
    model_name: modelName,
    ...(id === undefined ? {} : { id }),
    ...given(parameters ?? {}),
    outputs: outputs.map(writeTensor),
  };
  return writeBody(head, outputs);
}

function writeTensor({ name, shape, datatype, parameters, data }: Tensor): unknown {
  return "json" in data
    ? { name, shape, datatype, ...given(parameters ?? {}), data: data.json }
    : { name, shape, datatype, parameters: { ...parameters, binary_data_size: data.bytes.length } };
}

function writeBody(head: unknown, tensors: readonly Tensor[]): TensorBody {
  const json = encodeUtf8(JSON.stringify(head));
  const raws = tensors.flatMap(({ data }) => "bytes" in data ? [data.bytes] : []);
  if (raws.length === 0) return { bytes: json, headers: { "Content-Type": "application/json" } };
  const bytes = new Uint8Array(raws.reduce((sum, raw) => sum + raw.length, json.length));
  bytes.set(json);
  let offset = json.length;
  for (const raw of raws) {
    bytes.set(raw, offset);
    offset += raw.length;
  }
  const headers = { "Content-Type": "application/octet-stream", [HEAD_LENGTH_HEADER]: String(json.length) };
  return { bytes, headers };
}

type JsonObject = Readonly<Record<string, JsonValue>>;
type Parameters = Readonly<Record<string, string | number | boolean>>;

/** The raw bytes behind the JSON, and how many of them tensors have taken. */
interface RawRest {
  readonly bytes: Uint8Array | undefined;
  used: number;
}

/** Carries a mistake out of the depth of a body; it never leaves this file. */
class MistakeFound extends Error {
  readonly mistake: FieldMistake;

  constructor(path: string, message: string) {
    super(message);
    this.mistake = { path, message };
  }
}

function attempt<Value>(parse: () => Value): Parsed<Value> {
  try {
    return { ok: true, value: parse() };
  } catch (thrown) {
    if (thrown instanceof MistakeFound) return { ok: false, mistake: thrown.mistake };
    throw thrown;
  }
}

function parseTensor(value: JsonValue, path: string, rest: RawRest, strict: boolean): Tensor {
  const tensor = objectOf(value, path);
  if (strict) requireKnown(tensor, ["name", "shape", "datatype", "parameters", "data"], path);
  const name = parseName(tensor.name, `${path}/name`);
  const datatype = parseDatatype(tensor.datatype, `${path}/datatype`);
  const shape = parseShape(tensor.shape, `${path}/shape`, 0);
  const { binary_data_size: size, ...parameters } = parseParameters(
    tensor.parameters,
    `${path}/parameters`,
    strict,
  );
  const described = { name, datatype, shape, ...given(parameters) };
  if (size !== undefined) {
    if (tensor.data !== undefined) {
      throw new MistakeFound(`${path}/data`, "stands beside binary_data_size: one of them too many");
    }
    return { ...described, data: { bytes: takeRaw(size, rest, datatype, shape, path) } };
  }
  if (!Array.isArray(tensor.data)) throw new MistakeFound(`${path}/data`, "is no array");
  const json: readonly JsonValue[] = tensor.data;
  if (strict && (datatype === "FP16" || datatype === "BF16")) {
    throw new MistakeFound(
      `${path}/data`,
      `is JSON, which does not carry ${datatype}: send it as binary data`,
    );
  }
  const mistake = findJsonMistake(json, datatype, shape);
  if (mistake !== undefined) throw new MistakeFound(`${path}/data${mistake.path}`, mistake.message);
  return { ...described, data: { json } };
}

function takeRaw(
  size: JsonValue,
  rest: RawRest,
  datatype: Datatype,
  shape: readonly number[],
  path: string,
): Uint8Array {
  const place = `${path}/parameters/binary_data_size`;
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw new MistakeFound(place, "is no count of bytes");
  }
  if (rest.bytes === undefined) {
    throw new MistakeFound(place, `stands in a body without the header ${HEAD_LENGTH_HEADER}`);
  }
  if (size > rest.bytes.length - rest.used) throw new MistakeFound(place, "is more than the body has");
  const bytes = rest.bytes.subarray(rest.used, rest.used + size);
  rest.used += size;
  const mistake = findRawMistake(bytes, datatype, shape);
  if (mistake !== undefined) throw new MistakeFound(place, mistake);
  return bytes;
}

function requireAllRead({ bytes, used }: RawRest): void {
  if (bytes !== undefined && used !== bytes.length) {
    throw new MistakeFound("", `has ${bytes.length - used} bytes behind those of its tensors`);
  }
}

function parseWantedOutput(value: JsonValue, path: string, binaryOutputs: boolean): WantedOutput {
  const output = objectOf(value, path);
  requireKnown(output, ["name", "parameters"], path);
  const name = parseName(output.name, `${path}/name`);
  const { binary_data: flag, ...parameters } = parseParameters(output.parameters, `${path}/parameters`, true);
  const binary = parseFlag(flag, `${path}/parameters/binary_data`) ?? binaryOutputs;
  return { name, binary, ...given(parameters) };
}

/** Scalars by name. Strict: anything else is a mistake; else it is passed over. */
function parseParameters(value: JsonValue | undefined, path: string, strict: boolean): Parameters {
  if (value === undefined) return {};
  if (!strict && !isObject(value)) return {};
  const entries = Object.entries(objectOf(value, path));
  if (entries.length > PARAMETERS_MAX) {
    throw new MistakeFound(path, `has more than ${PARAMETERS_MAX} members`);
  }
  const parameters: [string, string | number | boolean][] = [];
  for (const [name, each] of entries) {
    const mistake = parameterMistake(name, each);
    if (mistake === undefined) parameters.push([name, each as string | number | boolean]);
    else if (strict) throw new MistakeFound(path + pointerPart(name), mistake);
  }
  return Object.fromEntries(parameters);
}

function parameterMistake(name: string, value: JsonValue): string | undefined {
  if (!NAME.test(name)) return "has a name that is not 1 to 256 printable characters";
  // They would have an engine read and write memory that it shares with others.
  if (name.startsWith("shared_memory_")) return "is not let through";
  if (typeof value === "string") {
    return value.length > PARAMETER_CHARACTERS_MAX
      ? `is longer than ${PARAMETER_CHARACTERS_MAX} characters`
      : undefined;
  }
  if (typeof value === "boolean" || (typeof value === "number" && Number.isFinite(value))) return undefined;
  return "is neither text nor number nor truth value";
}

function parseFlag(value: JsonValue | undefined, path: string): boolean | undefined {
  if (value === undefined || typeof value === "boolean") return value;
  throw new MistakeFound(path, "is neither true nor false");
}

function parseId(value: JsonValue): string {
  if (typeof value === "string" && value !== "" && value.length <= ID_CHARACTERS_MAX) return value;
  throw new MistakeFound("/id", `is no text of 1 to ${ID_CHARACTERS_MAX} characters`);
}

function parseName(value: JsonValue | undefined, path: string): string {
  if (typeof value === "string" && NAME.test(value)) return value;
  throw new MistakeFound(path, "is no text of 1 to 256 printable characters");
}

function parseDatatype(value: JsonValue | undefined, path: string): Datatype {
  if (typeof value === "string" && DATATYPE_NAMES.has(value)) return value as Datatype;
  throw new MistakeFound(path, `is none of ${[...DATATYPE_NAMES].join(", ")}`);
}

/** @param lengthMin -1 where a length may be open, else 0 */
function parseShape(value: JsonValue | undefined, path: string, lengthMin: -1 | 0): readonly number[] {
  if (!Array.isArray(value) || value.length > DIMENSIONS_MAX) {
    throw new MistakeFound(path, `is no array of at most ${DIMENSIONS_MAX} lengths`);
  }
  let count = 1;
  for (const [axis, length] of value.entries()) {
    if (typeof length !== "number" || !Number.isSafeInteger(length) || length < lengthMin) {
      throw new MistakeFound(`${path}/${axis}`, "is no length");
    }
    count *= Math.abs(length);
    if (lengthMin === 0 && count > ELEMENTS_MAX) throw new MistakeFound(path, "says more than 2^31 elements");
  }
  return value as readonly number[];
}

/** Parses each; what has a name has one of its own. */
function listOf<Item extends { readonly name: string }>(
  value: JsonValue | undefined,
  path: string,
  parse: (value: JsonValue, path: string) => Item,
): Item[] {
  if (!Array.isArray(value) || value.length > TENSORS_MAX) {
    throw new MistakeFound(path, `is no array of at most ${TENSORS_MAX} tensors`);
  }
  const names = new Set<string>();
  return (value as readonly JsonValue[]).map((each, index) => {
    const item = parse(each, `${path}/${index}`);
    if (names.has(item.name)) throw new MistakeFound(`${path}/${index}/name`, "stands there twice");
    names.add(item.name);
    return item;
  });
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectOf(value: JsonValue | undefined, path: string): JsonObject {
  if (isObject(value)) return value;
  throw new MistakeFound(path, "is no object");
}

function requireKnown(object: JsonObject, known: readonly string[], path: string): void {
  for (const name of Object.keys(object)) {
    if (!known.includes(name)) throw new MistakeFound(path + pointerPart(name), "is not a known field");
  }
}

function pointerPart(name: string): string {
  return `/${name.slice(0, NAME_CHARACTERS_SHOWN).replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

/** Parameters as a member, and none where there are none. */
function given<Value>(
  parameters: Readonly<Record<string, Value>>,
): { parameters?: Readonly<Record<string, Value>> } {
  return Object.keys(parameters).length === 0 ? {} : { parameters };
}
