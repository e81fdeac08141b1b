// Tensors on the wire: one inference on tensors, and what a model says of its tensors (Open Inference Protocol, REST).
import type { JsonValue } from "../../../encoding/canonical_json.ts";
import { Fault } from "../../../faults/fault.ts";
import type { Tensor, TensorAnswer, TensorRequest } from "../../tensor.ts";
import {
  HEAD_LENGTH_HEADER,
  type Parsed,
  parseTensorAnswer,
  parseTensorMetadata,
  splitTensorBody,
  writeTensorRequest,
} from "../../tensor_codec.ts";
import { answerInvalid, decodeAnswer, parseAnswer } from "../answer_json.ts";
import type { WholeCall, WireAnswer, WireRequest } from "../wire.ts";

/** An inference on tensors, each in the form in which it came. */
export function tensorCall(request: TensorRequest, model: string): WholeCall<"tensor"> {
  return {
    request: inferRequest(request, model),
    read(answer) {
      const { outputs, parameters } = readInferAnswer(answer);
      const answered = request.outputs.length === 0 ? outputs : request.outputs.map(({ name, binary }) => {
        const output = outputs.find((each) => each.name === name);
        if (output === undefined) throw answerInvalid("an output that was asked for is missing");
        return requireReadable(output, binary);
      });
      if (request.outputs.length === 0) {
        for (const output of outputs) requireReadable(output, request.binaryOutputs);
      }
      return { outputs: answered, ...(parameters === undefined ? {} : { parameters }) };
    },
  };
}

/** Who asked for JSON may be unable to read raw bytes; who asked for raw bytes can read JSON. */
function requireReadable(output: Tensor, binary: boolean): Tensor {
  if (!binary && "bytes" in output.data) {
    throw answerInvalid("an output is binary that was asked for as JSON");
  }
  return output;
}

/** What a model takes and gives. */
export function tensorMetadataCall(model: string): WholeCall<"tensor_metadata"> {
  return {
    request: { method: "GET", path: modelPath(model), headers: {}, accept: ["application/json"] },
    read: ({ bytes }) => valueOf(parseTensorMetadata(parseJson(bytes))),
  };
}

/** The request of an inference. */
export function inferRequest(request: TensorRequest, model: string): WireRequest {
  const { bytes, headers } = writeTensorRequest(request);
  const binary = request.binaryOutputs || request.outputs.some((output) => output.binary);
  return {
    method: "POST",
    path: `${modelPath(model)}/infer`,
    headers,
    body: bytes,
    accept: ["application/json", ...(binary ? ["application/octet-stream"] : [])],
  };
}

/**
 * The checked outputs of an inference.
 *
 * @throws Fault `upstream_answer_invalid`
 */
export function readInferAnswer({ bytes, headers }: WireAnswer): TensorAnswer {
  const parts = splitTensorBody(bytes, headers.get(HEAD_LENGTH_HEADER));
  if (!parts.ok) throw answerInvalid("the length of its head is none");
  return valueOf(parseTensorAnswer(parseJson(parts.value.json), parts.value.raw));
}

/** Plain JSON.parse: a million numbers take the strict parser most of a second, and the codec reads no deeper than it knows. */
function parseJson(bytes: Uint8Array): JsonValue {
  return parseAnswer(decodeAnswer(bytes)) as JsonValue;
}

function valueOf<Value>(parsed: Parsed<Value>): Value {
  if (parsed.ok) return parsed.value;
  throw answerInvalid(`${parsed.mistake.path} ${parsed.mistake.message}`);
}

/** @throws Fault `internal` for a name that no encoding keeps from being read as a way up (WHATWG URL §4.4) */
function modelPath(model: string): string {
  if (model === "" || model === "." || model === ".." || !model.isWellFormed()) {
    throw new Fault("internal", "Cannot name a model in a path: its name at the upstream is no path segment");
  }
  return `/v2/models/${encodeURIComponent(model)}`;
}
