// Transcription: sound as POST /audio/transcriptions, streamed through as multipart/form-data (RFC 7578), and its text.
import type { JsonValue } from "../../../encoding/canonical_json.ts";
import { encodeUtf8 } from "../../../encoding/utf8.ts";
import { Fault } from "../../../faults/fault.ts";
import type { Transcription, TranscriptionRequest } from "../../task.ts";
import {
  answerInvalid,
  type AnswerObject,
  decodeAnswer,
  objectOf,
  parseAnswer,
  readAnswerObject,
  shallowJson,
} from "../answer_json.ts";
import type { WholeCall, WireAnswer, WireOptions } from "../wire.ts";
import { readUsage } from "./usage.ts";

/** Days of speech. */
const TEXT_CHARACTERS_MAX = 8_000_000;
const DETAILS_DEPTH_MAX = 10;
const FILE_NAME = /^[a-z0-9_-]{1,64}(\.[a-z0-9]{1,8})?$/i;
/** Type and subtype (RFC 9110 §8.3.1), no parameters. */
const MEDIA_TYPE = /^[a-z0-9!#$&^_.+-]{1,64}\/[a-z0-9!#$&^_.+-]{1,64}$/i;
/** What a `verbose_json` answer tells besides its text. */
const DETAILS = ["task", "language", "duration", "segments", "words"] as const;

/** Sound to text. The request can be sent once: its body is the caller's upload. */
export function transcriptionCall(
  request: TranscriptionRequest,
  { model }: WireOptions,
): WholeCall<"transcription"> {
  const boundary = `portcullis-${crypto.getRandomValues(new Uint8Array(24)).toHex()}`;
  const fields: readonly (readonly [string, string | undefined])[] = [
    ["model", model],
    ["response_format", request.format],
    ["language", request.language],
    ["prompt", request.prompt],
    ["temperature", request.temperature?.toString()],
    ...request.timestampGranularities.map((each) => ["timestamp_granularities[]", each] as const),
  ];
  return {
    request: {
      method: "POST",
      path: "/audio/transcriptions",
      headers: { "Content-Type": `multipart/form-data; boundary=${boundary}` },
      body: multipartStream(boundary, fields, request.file),
      accept: ["application/json", "text/plain", "text/vtt", "text/srt", "application/x-subrip"],
    },
    read: (answer) => readTranscription(answer, request),
  };
}

/** The fields, then the file at the reader's pace; no more of it is held than the piece under way. */
function multipartStream(
  boundary: string,
  fields: readonly (readonly [string, string | undefined])[],
  file: TranscriptionRequest["file"],
): ReadableStream<Uint8Array> {
  if (!FILE_NAME.test(file.name)) throw new Fault("internal", "Cannot upload: the file's name is not plain");
  const mediaType = MEDIA_TYPE.test(file.mediaType) ? file.mediaType : "application/octet-stream";
  let head = "";
  for (const [name, value] of fields) {
    // The boundary is random, so that no value can hold it.
    if (value !== undefined) head += `${partHead(boundary, `name="${name}"`)}\r\n${value}\r\n`;
  }
  head += `${partHead(boundary, `name="file"; filename="${file.name}"`)}Content-Type: ${mediaType}\r\n\r\n`;
  const reader = file.bytes.getReader();
  let begun = false;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (!begun) {
        begun = true;
        controller.enqueue(encodeUtf8(head));
        return;
      }
      // What the source errors with is thrown here, and so errors the upload.
      let piece = await reader.read();
      // An empty piece would end a body in chunks (RFC 9112 §7.1).
      while (piece.value?.length === 0) piece = await reader.read();
      if (!piece.done) {
        controller.enqueue(piece.value);
        return;
      }
      controller.enqueue(encodeUtf8(`\r\n--${boundary}--\r\n`));
      controller.close();
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

function partHead(boundary: string, disposition: string): string {
  return `--${boundary}\r\nContent-Disposition: form-data; ${disposition}\r\n`;
}

function readTranscription(answer: WireAnswer, { format }: TranscriptionRequest): Transcription {
  if (format === "json" || format === "verbose_json") {
    const body = readAnswerObject(answer.bytes);
    const content: Record<string, JsonValue> = { text: transcriptIn(body) };
    if (format === "verbose_json") {
      for (const name of DETAILS) {
        const value = body[name];
        if (value !== undefined) content[name] = shallowJson(value, DETAILS_DEPTH_MAX, "its details");
      }
    }
    return { content: { json: content }, usage: readUsage(body.usage) };
  }
  const text = decodeAnswer(answer.bytes);
  // Some engines wrap every format in JSON: a string, or an object as for `json`.
  const wrapped = answer.mediaType === "application/json" ? parseAnswer(text) : text;
  return {
    content: {
      text: checkLength(typeof wrapped === "string" ? wrapped : transcriptIn(objectOf(wrapped, "it"))),
    },
    usage: readUsage(undefined),
  };
}

function transcriptIn({ text }: AnswerObject): string {
  if (typeof text !== "string") throw answerInvalid("it has no text");
  return checkLength(text);
}

function checkLength(text: string): string {
  if (text.length > TEXT_CHARACTERS_MAX) throw answerInvalid("its text is too long");
  return text;
}
