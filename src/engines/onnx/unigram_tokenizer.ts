// The unigram tokenizer of SentencePiece: cuts a text into the pieces whose scores have the highest sum (Viterbi).
import { parseStrictJson } from "../../encoding/strict_json.ts";
import { decodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";

/** Each piece with its score, the logarithm of its probability. A piece's id is its position. */
export type UnigramVocabulary = readonly (readonly [piece: string, score: number])[];

/** The first ids stand for no text: 0 is what no piece matches, the others mark sentences. */
const CONTROL_IDS = 6;
const UNKNOWN_ID = 0;
/** Far below the scores of pieces: an unknown character is the last resort. */
const UNKNOWN_SCORE = -30;
/** Stands for a space inside pieces, and in front of a text. */
const WORD_START = "\u2581";

/** The work for one character grows with the longest piece. SentencePiece itself trains pieces of 16 at most. */
const PIECE_LENGTH_MAX = 64;
const PIECES_MAX = 1_000_000;

/**
 * Reads a vocabulary file: a JSON array of `[piece, score]`.
 *
 * @throws Fault `unavailable` when it is malformed
 */
export function parseUnigramVocabulary(bytes: Uint8Array): UnigramVocabulary {
  const refusal = (state: string) => new Fault("unavailable", `Cannot read the vocabulary: ${state}`);
  const text = decodeUtf8(bytes);
  if (!text.ok) throw refusal("it is not UTF-8");
  // This refuses lone surrogates as well, on which the tokenizer relies.
  const json = parseStrictJson(text.value, 2);
  if (!json.ok) throw refusal(`it is not strict JSON (${json.reason})`);
  const entries = json.value;
  if (!Array.isArray(entries)) throw refusal("it is not an array");
  if (entries.length <= CONTROL_IDS || entries.length > PIECES_MAX) {
    throw refusal(`it has ${entries.length} entries`);
  }
  return entries.map((entry: unknown, id) => {
    if (!Array.isArray(entry) || entry.length !== 2) throw refusal(`entry ${id} is not a pair`);
    const [piece, score]: unknown[] = entry;
    if (typeof piece !== "string" || piece === "" || piece.length > PIECE_LENGTH_MAX) {
      throw refusal(`the piece of entry ${id} is not a text of 1 to ${PIECE_LENGTH_MAX} characters`);
    }
    // Universal Sentence Encoder lite ships null for its pieces with a colon, and its own tokenizer adds that as 0.
    // The vectors that others hold were made so.
    if (score === null) return [piece, 0] as const;
    if (!Number.isFinite(score)) throw refusal(`the score of entry ${id} is not a finite number`);
    return [piece, Number(score)] as const;
  });
}

/**
 * Makes a tokenizer: text → the ids of its pieces, none for the empty text. It takes any string, lone surrogates
 * included, and never throws; its time is bounded by the text's length (in NFKC) times the longest piece.
 *
 * @param vocabulary as `parseUnigramVocabulary` gives it
 */
export function createUnigramTokenizer(vocabulary: UnigramVocabulary): (text: string) => Int32Array {
  const trie = buildTrie(vocabulary);
  return (text) => {
    const prepared = prepare(text);
    return readBack(findBestPath(prepared, trie));
  };
}

/** The pieces as a tree of UTF-16 code units. Node 0 is its root. */
interface Trie {
  /** (node, code unit) → the next node; see `edge`. */
  readonly edges: ReadonlyMap<number, number>;
  /** By node: the id of the piece that ends there, 0 where none does. */
  readonly ids: Int32Array;
  readonly scores: Float64Array;
}

function edge(node: number, codeUnit: number): number {
  return node * 0x10000 + codeUnit;
}

function buildTrie(vocabulary: UnigramVocabulary): Trie {
  const edges = new Map<number, number>();
  const ids = [UNKNOWN_ID], scores = [0];
  vocabulary.forEach(([piece, score], id) => {
    if (id < CONTROL_IDS) return;
    let node = 0;
    for (let index = 0; index < piece.length; index++) {
      const key = edge(node, piece.charCodeAt(index));
      let next = edges.get(key);
      if (next === undefined) {
        next = ids.push(UNKNOWN_ID) - 1;
        scores.push(0);
        edges.set(key, next);
      }
      node = next;
    }
    // Where the vocabulary names a piece twice, the first counts.
    if (ids[node] === UNKNOWN_ID) {
      ids[node] = id;
      scores[node] = score;
    }
  });
  return { edges, ids: Int32Array.from(ids), scores: Float64Array.from(scores) };
}

// Sorting a run of combining marks takes the square of its length (8192 marks: 90 ms). So such a run is broken after 30
// with a COMBINING GRAPHEME JOINER, which is the Stream-Safe Text Format of UAX #15 §13. The two half-width characters
// become combining marks under NFKC.
const THIRTY_MARKS = /[\p{M}\uFF9E\uFF9F]{30}/gu;

function prepare(text: string): string {
  if (text === "") return "";
  const normal = text.replace(THIRTY_MARKS, "$&\u034F").normalize("NFKC");
  return WORD_START + normal.replaceAll(" ", WORD_START);
}

/** For each end of a piece (a position in the text): the best last piece up to there. */
interface BestPath {
  /** Where that piece starts. */
  readonly starts: Int32Array;
  readonly ids: Int32Array;
}

function findBestPath(text: string, trie: Trie): BestPath {
  const best = new Float64Array(text.length + 1).fill(-Infinity);
  const starts = new Int32Array(text.length + 1);
  const ids = new Int32Array(text.length + 1);
  const offer = (start: number, end: number, id: number, score: number): void => {
    if (score <= (best[end] ?? 0)) return;
    best[end] = score;
    starts[end] = start;
    ids[end] = id;
  };
  best[0] = 0;
  // Only starts of characters are visited. As pieces are well-formed, they end where a character ends.
  for (let start = 0, next = 0; start < text.length; start = next) {
    next = start + ((text.codePointAt(start) ?? 0) > 0xffff ? 2 : 1);
    const scoreSoFar = best[start] ?? 0;
    let characterIsKnown = false;
    let node = 0;
    for (let end = start; end < text.length;) {
      const child = trie.edges.get(edge(node, text.charCodeAt(end++)));
      if (child === undefined) break;
      node = child;
      const id = trie.ids[node] ?? UNKNOWN_ID;
      if (id === UNKNOWN_ID) continue;
      characterIsKnown ||= end === next;
      offer(start, end, id, scoreSoFar + (trie.scores[node] ?? 0));
    }
    if (!characterIsKnown) offer(start, next, UNKNOWN_ID, scoreSoFar + UNKNOWN_SCORE);
  }
  return { starts, ids };
}

/** The ids along the best path, from the text's end to its start. Unknown characters in a row count as one. */
function readBack({ starts, ids }: BestPath): Int32Array {
  const found = new Int32Array(ids.length);
  let first = found.length;
  for (let end = ids.length - 1; end > 0; end = starts[end] ?? 0) {
    const id = ids[end] ?? UNKNOWN_ID;
    if (id === UNKNOWN_ID && found[first] === UNKNOWN_ID) continue;
    found[--first] = id;
  }
  return found.slice(first);
}
