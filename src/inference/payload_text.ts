// Payload text: what a model was asked and answered, as JSON to be kept. Media stand as their digests and sizes.
import { hash } from "node:crypto";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { encodeUtf8 } from "../encoding/utf8.ts";
import type { ChatAnswer, ChatPart } from "../engines/chat.ts";
import type {
  Embeddings,
  Images,
  TaskRequest,
  Transcription,
  WholeAnswer,
  WholeTask,
} from "../engines/task.ts";
import type { Tensor, TensorAnswer } from "../engines/tensor.ts";
import { float32Bytes, readTexts } from "../engines/tensor_data.ts";

/** Bytes that are no text: what proves later which ones they were. */
export interface MediaDigest {
  /** Hexadecimal. */
  readonly sha256: string;
  readonly bytes: number;
}

/** RFC 2397 §2: media type, perhaps `;base64`, a comma, the data. Where the comma is missing, all that follows counts as data. */
const DATA_URL_HEAD = /^\s*data:(?:([^,]*),)?/i;
/** With its parameters. */
const MEDIA_TYPE_CHARACTERS_MAX = 100;

/** The request in its neutral form. The sound of a transcription passes through and is not there. */
export function requestText(request: TaskRequest): string {
  switch (request.task) {
    case "chat": {
      const messages = request.messages.map((message) => ({ ...message, parts: message.parts.map(partOf) }));
      return JSON.stringify({ ...request, messages });
    }
    case "transcription": {
      const { name, mediaType } = request.file;
      return JSON.stringify({ ...request, file: { name, mediaType } });
    }
    case "tensor":
      return JSON.stringify({ ...request, inputs: request.inputs.map(tensorOf) });
    default:
      return JSON.stringify(request);
  }
}

/** A whole answer in its neutral form, without the figures that its outcome has. */
export function answerText<T extends WholeTask>(task: T, answer: WholeAnswer<T>): string {
  const { usage: _, ...rest } = answer as { readonly usage?: unknown };
  return JSON.stringify(contentOf(task, rest));
}

function contentOf(task: WholeTask, answer: unknown): unknown {
  switch (task) {
    case "embedding": {
      const { vectors, dimensions } = answer as Embeddings;
      return { vectors: digestOf(float32Bytes(vectors)), dimensions };
    }
    case "image": {
      const { images } = answer as Images;
      return { images: images.map(({ base64, ...rest }) => ({ ...digestOfBase64(base64), ...rest })) };
    }
    case "tensor": {
      const { outputs, ...rest } = answer as TensorAnswer;
      return { ...rest, outputs: outputs.map(tensorOf) };
    }
    case "transcription":
      return (answer as Transcription).content;
    case "chat":
    case "completion":
      return { choices: (answer as ChatAnswer).choices };
    case "rerank":
    case "moderation":
    case "tensor_metadata":
      return answer;
  }
}

/** The digest of bytes. */
export function digestOf(bytes: Uint8Array): MediaDigest {
  return { sha256: hash("sha256", bytes, "hex"), bytes: bytes.length };
}

function digestOfBase64(text: string): MediaDigest {
  let bytes: Uint8Array;
  try {
    bytes = Uint8Array.fromBase64(text);
  } catch {
    // Whoever reads it takes it as it is: then so it is digested.
    bytes = encodeUtf8(text);
  }
  return digestOf(bytes);
}

function partOf(part: ChatPart): JsonValue {
  switch (part.type) {
    case "text":
      return { ...part };
    case "audio":
      return { type: "audio", format: part.format, ...digestOfBase64(part.data) };
    case "image": {
      const { url, ...rest } = part;
      const head = DATA_URL_HEAD.exec(url);
      if (head === null) return { ...part };
      const [whole, about = ""] = head;
      const mediaType = about.replace(/;base64$/i, "");
      const data = url.slice(whole.length);
      const digest = mediaType === about ? digestOf(encodeUtf8(data)) : digestOfBase64(data);
      return { ...rest, mediaType: mediaType.slice(0, MEDIA_TYPE_CHARACTERS_MAX), ...digest };
    }
  }
}

/** Elements as JSON stay; of raw ones, texts are read and numbers digested. */
function tensorOf(tensor: Tensor): unknown {
  const { data, ...rest } = tensor;
  if ("json" in data) return { ...rest, data: data.json };
  const texts = tensor.datatype === "BYTES" ? readTexts(tensor) : undefined;
  return { ...rest, data: texts?.ok === true ? texts.value : digestOf(data.bytes) };
}
