// Sealed file: bytes of any length in chunks of AES-256-GCM, after the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár
// (CRYPTO 2015), so that no chunk that was altered, moved, left out, doubled, added or taken from another file ever opens.
import { encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";

/*
 * A sealed file: header, then the chunks, each as long as the header says and with its 16-byte tag; the last one may be shorter.
 * Header: "PCSF" (4 bytes) · version (1) · binary logarithm of a chunk's plain bytes (1) · first part of each nonce (7) · the file's id (16).
 * Nonce: those 7 bytes · the chunk's number (4, big-endian) · whether it is the last one (1). Every file has a random key of its own, so that
 * no nonce comes twice under one key (SP 800-38D §8.2.1).
 * Additional data of each chunk: the header and the place where the file rests.
 */
const MAGIC = encodeUtf8("PCSF");
const VERSION = 1;
const CHUNK_BITS = 18;
const CHUNK_BITS_MIN = 12;
const CHUNK_BITS_MAX = 24;
const PREFIX_BYTES = 7;
const PREFIX_AT = MAGIC.length + 2;
const ID_BYTES = 16;
const HEADER_BYTES = PREFIX_AT + PREFIX_BYTES + ID_BYTES;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const CHUNKS_MAX = 2 ** 32;
/** Chunks that are under way at once: WebCrypto works beside the thread that asks, and reading and writing go on meanwhile. */
const AHEAD = 4;

/** Fills the buffer and resolves to how many bytes it holds: fewer than fit only at the end. */
export type ReadInto = (buffer: Uint8Array<ArrayBuffer>) => Promise<number>;

/** A new random key, for one file. */
export function newFileKey(): Uint8Array<ArrayBuffer> {
  return crypto.getRandomValues(new Uint8Array(KEY_BYTES));
}

/** How long a file of so many bytes is when it is sealed by this version. */
export function sealedFileBytes(plainBytes: number): number {
  return HEADER_BYTES + plainBytes + Math.max(1, Math.ceil(plainBytes / 2 ** CHUNK_BITS)) * TAG_BYTES;
}

/**
 * Seals a file piece by piece, with a few chunks in memory whatever its length.
 *
 * @param key 32 bytes that have sealed nothing else, and will not
 * @param place where the file will rest; the same text is needed to open it
 */
export async function* sealFile(
  key: Uint8Array<ArrayBuffer>,
  place: string,
  read: ReadInto,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const header = new Uint8Array(HEADER_BYTES);
  header.set(MAGIC);
  header.set([VERSION, CHUNK_BITS], MAGIC.length);
  crypto.getRandomValues(header.subarray(PREFIX_AT));
  yield header;
  const imported = await importFileKey(key, "encrypt");
  const additionalData = additionalDataFor(header, place);
  yield* eachChunk(read, 2 ** CHUNK_BITS, async (chunk, index, isLast) => {
    const iv = nonceOf(header, index, isLast);
    return await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData }, imported, chunk);
  });
}

/**
 * Opens a sealed file piece by piece. Each piece is authentic when it comes; that nothing is missing is known only when the generator
 * has ended by itself, so nothing may be done with the pieces before.
 *
 * @throws Fault `unavailable` when anything of it was altered, or the key or the place is another one
 */
export async function* openFile(
  key: Uint8Array<ArrayBuffer>,
  place: string,
  read: ReadInto,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const header = new Uint8Array(HEADER_BYTES);
  const headBytes = await read(header);
  const chunkBits = header[MAGIC.length + 1] ?? 0;
  const isKnown = headBytes === HEADER_BYTES && MAGIC.every((byte, index) => header[index] === byte) &&
    header[MAGIC.length] === VERSION && chunkBits >= CHUNK_BITS_MIN && chunkBits <= CHUNK_BITS_MAX;
  if (!isKnown) throw unopened("it has no known form");
  const imported = await importFileKey(key, "decrypt");
  const additionalData = additionalDataFor(header, place);
  yield* eachChunk(read, 2 ** chunkBits + TAG_BYTES, async (chunk, index, isLast) => {
    const iv = nonceOf(header, index, isLast);
    try {
      return await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, imported, chunk);
    } catch {
      throw unopened(`chunk ${index} is not as it was sealed here`);
    }
  });
}

/** Reads chunks and transforms some of them at once; the results come in order. */
async function* eachChunk(
  read: ReadInto,
  chunkBytes: number,
  transform: (chunk: Uint8Array<ArrayBuffer>, index: number, isLast: boolean) => Promise<ArrayBuffer>,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  // Two, taken in turn: WebCrypto copies what it is given before it returns (W3C WebCrypto §14.3).
  let chunk = new Uint8Array(chunkBytes);
  let following = new Uint8Array(chunkBytes);
  const underWay: Promise<ArrayBuffer>[] = [];
  let bytes = await read(chunk);
  try {
    for (let index = 0;; index++) {
      if (index >= CHUNKS_MAX) throw new Fault("unavailable", "Cannot seal a file: it is too long");
      const followingBytes = bytes < chunkBytes ? 0 : await read(following);
      const transformed = transform(chunk.subarray(0, bytes), index, followingBytes === 0);
      // It is awaited in its turn; until then nobody listens, and a rejection would count as a stray one.
      transformed.catch(() => {});
      underWay.push(transformed);
      if (followingBytes === 0) break;
      if (underWay.length >= AHEAD) yield* first(underWay);
      [chunk, following] = [following, chunk];
      bytes = followingBytes;
    }
    while (underWay.length > 0) yield* first(underWay);
  } finally {
    // Whoever stops early leaves nothing running.
    await Promise.allSettled(underWay);
  }
}

async function* first(underWay: Promise<ArrayBuffer>[]): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const next = await underWay.shift();
  if (next !== undefined) yield new Uint8Array(next);
}

function nonceOf(header: Uint8Array, index: number, isLast: boolean): Uint8Array<ArrayBuffer> {
  const nonce = new Uint8Array(PREFIX_BYTES + 5);
  nonce.set(header.subarray(PREFIX_AT, PREFIX_AT + PREFIX_BYTES));
  new DataView(nonce.buffer).setUint32(PREFIX_BYTES, index);
  nonce[PREFIX_BYTES + 4] = isLast ? 1 : 0;
  return nonce;
}

function additionalDataFor(header: Uint8Array, place: string): Uint8Array<ArrayBuffer> {
  const text = encodeUtf8(place);
  const additionalData = new Uint8Array(header.length + text.length);
  additionalData.set(header);
  additionalData.set(text, header.length);
  return additionalData;
}

async function importFileKey(
  key: Uint8Array<ArrayBuffer>,
  usage: "encrypt" | "decrypt",
): Promise<CryptoKey> {
  return await crypto.subtle.importKey("raw", key, "AES-GCM", false, [usage]);
}

function unopened(state: string): Fault {
  return new Fault("unavailable", `Cannot open a sealed file: ${state}`);
}
