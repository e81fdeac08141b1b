// Worker messages: what the engine and its workers say to each other. What a worker says is checked before use.

/** To the tokenizer worker. */
export type TokenizerOrder =
  | { readonly kind: "start"; readonly vocabulary: Uint8Array }
  | { readonly kind: "tokenize"; readonly texts: readonly string[] };

/** To an inference worker. */
export type InferenceOrder =
  | { readonly kind: "start"; readonly graph: Uint8Array; readonly runtimeWasm: Uint8Array }
  | ({ readonly kind: "run" } & TokenRows);

/** Token ids of several texts, one text behind the other; `lengths` holds how many ids each has. */
export interface TokenRows {
  readonly ids: Int32Array;
  readonly lengths: Int32Array;
}

/** Lays the ids of several texts behind each other. */
export function packRows(rows: readonly Int32Array[]): TokenRows {
  const lengths = Int32Array.from(rows, (row) => row.length);
  const ids = new Int32Array(lengths.reduce((sum, length) => sum + length, 0));
  let offset = 0;
  for (const row of rows) {
    ids.set(row, offset);
    offset += row.length;
  }
  return { ids, lengths };
}

/** From any worker: its start is over, or it cannot do what it was told (and stays usable). */
export type WorkerReport =
  | { readonly kind: "started" }
  | { readonly kind: "refused"; readonly reason: string };

/** From the tokenizer worker. */
export type TokensAnswer = { readonly kind: "tokens" } & TokenRows;

/** From an inference worker: row-major, shape [texts, dimensions]. */
export interface VectorsAnswer {
  readonly kind: "vectors";
  readonly vectors: Float32Array;
}

/** A reason is for the log; a worker does not decide how long the log gets. */
export const REASON_CHARACTERS_MAX = 300;

/** A worker's report; undefined when `data` is none. */
export function parseReport(data: unknown): WorkerReport | undefined {
  if (kindOf(data) === "started") return { kind: "started" };
  if (kindOf(data) !== "refused") return undefined;
  const { reason } = data as { reason?: unknown };
  if (typeof reason !== "string") return undefined;
  return { kind: "refused", reason: reason.slice(0, REASON_CHARACTERS_MAX) };
}

/** The ids of `textCount` texts; undefined when `data` is not that. */
export function parseTokens(data: unknown, textCount: number): TokenRows | undefined {
  if (kindOf(data) !== "tokens") return undefined;
  const { ids, lengths } = data as { ids?: unknown; lengths?: unknown };
  if (!(ids instanceof Int32Array) || !(lengths instanceof Int32Array)) return undefined;
  // Shared memory could change after this check.
  if (!(ids.buffer instanceof ArrayBuffer) || !(lengths.buffer instanceof ArrayBuffer)) return undefined;
  if (lengths.length !== textCount || lengths.some((length) => length < 0) || ids.some((id) => id < 0)) {
    return undefined;
  }
  return lengths.reduce((sum, length) => sum + length, 0) === ids.length ? { ids, lengths } : undefined;
}

/** `numberCount` finite numbers; undefined when `data` is not that. */
export function parseVectors(data: unknown, numberCount: number): Float32Array | undefined {
  if (kindOf(data) !== "vectors") return undefined;
  const { vectors } = data as { vectors?: unknown };
  if (!(vectors instanceof Float32Array) || !(vectors.buffer instanceof ArrayBuffer)) return undefined;
  return vectors.length === numberCount && vectors.every(Number.isFinite) ? vectors : undefined;
}

function kindOf(data: unknown): unknown {
  return typeof data === "object" && data !== null && "kind" in data ? data.kind : undefined;
}
