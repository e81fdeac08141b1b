// Read the body: bounded in bytes and time, one media type, strict UTF-8 and strict JSON.
import type { JsonValue } from "../../encoding/canonical_json.ts";
import {
  parseStrictJson,
  STRICT_JSON_MEMBERS_MAX,
  type StrictJsonReason,
} from "../../encoding/strict_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import type { Outcome } from "../../faults/outcome.ts";
import { Fault } from "../../faults/fault.ts";
import { type BodyBounds, BodyPieces, brokenOff, tooLarge, tooSlow } from "./body_pieces.ts";

const JSON_DEPTH_MAX = 32;
/** Objects and arrays of one body: the longest conversations have a few thousand. */
export const BODY_CONTAINERS_MAX = 20_000;
/** Room before anything has come. */
const BUFFER_BYTES_FIRST = 4096;
/** RFC 8259 §11 gives application/json no parameters; a charset of UTF-8 is harmless and common. */
const JSON_MEDIA_TYPE = /^application\/json *(?:; *charset="?utf-8"? *)?$/i;

const WORDS: Readonly<Record<StrictJsonReason, string>> = {
  malformed: "The body is not valid JSON.",
  too_deep: `The body is nested deeper than ${JSON_DEPTH_MAX} levels.`,
  duplicate_member: "The body has an object with the same member twice.",
  forbidden_member: 'The body has a member called "__proto__".',
  too_many_containers: `The body has more than ${BODY_CONTAINERS_MAX} objects and arrays.`,
  too_many_members: `The body has an object of more than ${STRICT_JSON_MEMBERS_MAX} members.`,
  lone_surrogate: "The body has a string that is not well-formed Unicode.",
};

/**
 * Refuses a JSON body by what its headers say of it.
 *
 * @throws Fault `media_type_unsupported` · `body_too_large` · `request_invalid`
 */
export function requireJsonAnnounced(request: Request, bounds: BodyBounds): void {
  if (!JSON_MEDIA_TYPE.test(request.headers.get("content-type") ?? "")) {
    throw new Fault("media_type_unsupported", "Cannot read a body: it is not application/json");
  }
  requireReadable(request, bounds);
}

/**
 * Refuses a body by what its headers say of it besides its media type: coding, framing and length.
 *
 * @param wanted public words for what to send instead of a coded body, where that is not JSON
 * @throws Fault `media_type_unsupported` · `body_too_large` · `request_invalid`
 */
export function requireReadable({ headers }: Request, { bodyBytesMax }: BodyBounds, wanted?: string): void {
  // Inflating what a client sends would let small requests cost much (ASVS V5.2.3).
  if ((headers.get("content-encoding") ?? "identity").toLowerCase() !== "identity") {
    throw new Fault(
      "media_type_unsupported",
      "Cannot read a body: it has a content encoding",
      wanted === undefined ? {} : { detail: wanted },
    );
  }
  // RFC 9112 §6.1: of the codings, only the framing one is understood here.
  if ((headers.get("transfer-encoding") ?? "chunked").toLowerCase() !== "chunked") {
    throw invalid("its transfer coding is unknown", "The body has an unknown transfer coding.");
  }
  if (Number(headers.get("content-length") ?? 0) > bodyBytesMax) throw tooLarge(bodyBytesMax);
}

/**
 * The JSON value of a request's body, whose headers have passed `requireJsonAnnounced`.
 *
 * @throws Fault `body_too_large` · `body_timeout` · `request_invalid` · `client_left`
 */
export async function readJsonBody(request: Request, bounds: BodyBounds): Promise<JsonValue> {
  const text = decodeUtf8(await readBytes(request, bounds));
  if (!text.ok) throw invalid("it is not UTF-8", "The body is not valid UTF-8.");
  const value = parseBodyJson(text.value);
  if (!value.ok) throw invalid(`it is not strict JSON: ${value.reason}`, WORDS[value.reason]);
  return value.value;
}

/** Strict JSON within the bounds of a body. */
export function parseBodyJson(text: string): Outcome<JsonValue, StrictJsonReason> {
  return parseStrictJson(text, JSON_DEPTH_MAX, BODY_CONTAINERS_MAX);
}

/** @throws Fault `request_invalid` when a route that takes no body is sent one */
export function requireNoBody(request: Request): void {
  const length = request.headers.get("content-length");
  if ((length !== null && length !== "0") || request.headers.has("transfer-encoding")) {
    throw invalid("the route takes none", "This route takes no body.");
  }
}

/**
 * A body's bytes, in time and within bounds.
 *
 * @throws Fault `body_too_large` · `body_timeout` · `request_invalid` · `client_left`
 */
export async function readBytes(request: Request, bounds: BodyBounds): Promise<Uint8Array> {
  const announced = request.headers.get("content-length");
  const bytes = announced === null ? await readPieces(request, bounds) : await readWhole(request, bounds);
  bounds.onRead?.(bytes.length);
  return bytes;
}

/** A body whose length is announced and was found to be within bounds: the runtime reads no more than that. */
async function readWhole(request: Request, { bodyTimeoutMs }: BodyBounds): Promise<Uint8Array> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(tooSlow()), bodyTimeoutMs);
  });
  try {
    return new Uint8Array(await Promise.race([request.arrayBuffer(), late]));
  } catch (thrown) {
    throw thrown instanceof Fault ? thrown : brokenOff(request.signal);
  } finally {
    clearTimeout(timer);
  }
}

/** A body in pieces until it ends. */
async function readPieces(request: Request, bounds: BodyBounds): Promise<Uint8Array> {
  const body = new BodyPieces(request, bounds);
  // For all of the pieces; each by itself has as much.
  const timer = setTimeout(() => body.end(tooSlow()), bounds.bodyTimeoutMs);
  try {
    // One buffer that grows: in pieces of one byte, a list of them would cost a hundred times the body's size.
    let buffer = new Uint8Array(BUFFER_BYTES_FIRST);
    let bytes = 0;
    for (let piece = await body.next(); piece !== undefined; piece = await body.next()) {
      buffer = append(buffer, bytes, piece);
      bytes += piece.length;
    }
    return buffer.subarray(0, bytes);
  } finally {
    clearTimeout(timer);
  }
}

/** The buffer with a piece behind its first `bytes` bytes; a larger one where it does not fit. */
function append(buffer: Uint8Array<ArrayBuffer>, bytes: number, piece: Uint8Array): Uint8Array<ArrayBuffer> {
  let room = buffer;
  if (bytes + piece.length > buffer.length) {
    room = new Uint8Array(2 * (bytes + piece.length));
    room.set(buffer.subarray(0, bytes));
  }
  room.set(piece, bytes);
  return room;
}

function invalid(state: string, detail: string): Fault {
  return new Fault("request_invalid", `Cannot read a body: ${state}`, { detail });
}
