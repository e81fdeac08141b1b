// Tensor post: how a body of tensors is announced and read, as JSON alone or as JSON with raw bytes behind it.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { HEAD_LENGTH_HEADER, splitTensorBody } from "../../engines/tensor_codec.ts";
import { Fault } from "../../faults/fault.ts";
import type { BodyBounds } from "../middleware/body_pieces.ts";
import {
  parseBodyJson,
  readBytes,
  readJsonBody,
  requireJsonAnnounced,
  requireReadable,
} from "../middleware/read_body.ts";

/** A body whose JSON is strict JSON, and no more is known of it yet. */
export interface TensorPost {
  readonly json: JsonValue;
  /** What follows the JSON; undefined where the body is plain JSON. */
  readonly raw: Uint8Array | undefined;
}

const WANTED = `With ${HEAD_LENGTH_HEADER}, send application/octet-stream, uncompressed.`;
/** Of a body with a head. JSON is imprecise and harmless there: the head's length says how much of the body is JSON. */
const MEDIA_TYPE = /^application\/(?:octet-stream|json *(?:; *charset="?utf-8"?)?) *$/i;
const LENGTH = /^[1-9]\d{0,14}$/;

/**
 * Refuses a body by what its headers say of it.
 *
 * @throws Fault `media_type_unsupported` · `body_too_large` · `request_invalid`
 */
export function requireTensorsAnnounced(request: Request, bounds: BodyBounds): void {
  const headLength = request.headers.get(HEAD_LENGTH_HEADER);
  if (headLength === null) return requireJsonAnnounced(request, bounds);
  const mediaType = request.headers.get("content-type");
  // RFC 9110 §8.3: none may be taken for application/octet-stream. Triton's Python client sends none.
  if (mediaType !== null && !MEDIA_TYPE.test(mediaType)) {
    throw new Fault("media_type_unsupported", "Cannot read a body: tensors do not come as this", {
      detail: WANTED,
    });
  }
  requireReadable(request, bounds, WANTED);
  const length = request.headers.get("content-length");
  const lengthMax = length === null ? bounds.bodyBytesMax : Number(length);
  if (!LENGTH.test(headLength) || Number(headLength) > lengthMax) throw headLengthInvalid();
}

/**
 * Reads a body whose headers have passed `requireTensorsAnnounced`.
 *
 * @throws Fault `body_too_large` · `body_timeout` · `request_invalid` · `client_left`
 */
export async function readTensorPost(request: Request, bounds: BodyBounds): Promise<TensorPost> {
  const headLength = request.headers.get(HEAD_LENGTH_HEADER);
  if (headLength === null) return { json: await readJsonBody(request, bounds), raw: undefined };
  const parts = splitTensorBody(await readBytes(request, bounds), headLength);
  if (!parts.ok) throw headLengthInvalid();
  const text = decodeUtf8(parts.value.json);
  const json = text.ok ? parseBodyJson(text.value) : text;
  if (!json.ok) {
    throw invalid(`its head is not strict JSON: ${json.reason}`, {
      detail: `The first ${headLength} bytes of the body are not strict JSON (${json.reason}).`,
    });
  }
  return { json: json.value, raw: parts.value.raw };
}

function headLengthInvalid(): Fault {
  return invalid("the length of its head is none", {
    detail: `${HEAD_LENGTH_HEADER} is not the length of the JSON at the head of the body, in bytes.`,
  });
}

function invalid(state: string, details: { readonly detail: string }): Fault {
  return new Fault("request_invalid", `Cannot read a body: ${state}`, details);
}
