// Embedding: texts as POST /embeddings, and their vectors.
import type { EmbeddingRequest, Embeddings } from "../../task.ts";
import {
  answerInvalid,
  type AnswerObject,
  listOf,
  objectOf,
  readAnswerObject,
  wholeNumberOf,
} from "../answer_json.ts";
import type { WholeCall, WireOptions } from "../wire.ts";
import { JSON_ONLY, jsonRequest } from "./json_request.ts";
import { readUsage } from "./usage.ts";

/** A vector as it came: base64 of little-endian float32, or numbers. */
type Row = string | readonly unknown[];

/** Texts to vectors. */
export function embeddingCall(request: EmbeddingRequest, { model }: WireOptions): WholeCall<"embedding"> {
  return {
    request: jsonRequest("/embeddings", JSON_ONLY, {
      model,
      input: request.texts,
      // A fourth of the numbers' bytes, and no number to parse. Engines that do not know it send numbers.
      encoding_format: "base64",
      dimensions: request.dimensions,
    }),
    read: ({ bytes }) => readEmbeddings(readAnswerObject(bytes), request),
  };
}

function readEmbeddings(body: AnswerObject, request: EmbeddingRequest): Embeddings {
  const rows = orderedRows(body, request.texts.length);
  const dimensions = dimensionsOf(rows);
  if (request.dimensions !== undefined && dimensions !== request.dimensions) {
    throw answerInvalid("its vectors have not the length that was asked for");
  }
  const vectors = new Float32Array(rows.length * dimensions);
  rows.forEach((row, position) => {
    const vector = vectors.subarray(position * dimensions, (position + 1) * dimensions);
    if (typeof row === "string") decodeRow(row, vector);
    else copyRow(row, vector);
  });
  for (let position = 0; position < vectors.length; position++) {
    if (!Number.isFinite(vectors[position])) throw answerInvalid("a vector holds what is no finite number");
  }
  return { vectors, dimensions, usage: readUsage(body.usage) };
}

function orderedRows(body: AnswerObject, count: number): readonly Row[] {
  const list = listOf(body.data, "its list of vectors");
  if (list.length !== count) throw answerInvalid("it has too few or many vectors");
  const rows: Row[] = [];
  list.forEach((value, position) => {
    const entry = objectOf(value, "a vector's entry");
    const index = wholeNumberOf(entry.index ?? position, count, "a vector's index");
    if (rows[index] !== undefined) throw answerInvalid("a vector is there twice");
    const { embedding } = entry;
    rows[index] = typeof embedding === "string" ? embedding : listOf(embedding, "a vector");
  });
  return rows;
}

/** The length of all vectors. It is known before memory is taken, so that no more is taken than the answer is long. */
function dimensionsOf(rows: readonly Row[]): number {
  const [first, ...others] = rows.map((row) => typeof row === "string" ? base64Length(row) / 4 : row.length);
  if (first === undefined || first < 1 || !Number.isInteger(first)) {
    throw answerInvalid("a vector has no numbers");
  }
  if (others.some((length) => length !== first)) throw answerInvalid("its vectors differ in length");
  return first;
}

/** Bytes that base64 text stands for, padded or not. */
function base64Length(text: string): number {
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  return Math.floor((text.length - padding) * 3 / 4);
}

function decodeRow(text: string, vector: Float32Array<ArrayBuffer>): void {
  const bytes = new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
  try {
    if (bytes.setFromBase64(text).written === bytes.length) return;
  } catch {
    // Not base64: below.
  }
  throw answerInvalid("a vector is no base64");
}

function copyRow(row: readonly unknown[], vector: Float32Array<ArrayBuffer>): void {
  for (let position = 0; position < row.length; position++) {
    const value = row[position];
    if (typeof value !== "number") throw answerInvalid("a vector holds what is no number");
    vector[position] = value;
  }
}
