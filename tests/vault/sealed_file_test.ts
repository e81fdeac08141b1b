// Tests of sealed files: what was sealed opens to the same bytes, and whatever is done to it does not open.
import { deepStrictEqual, notDeepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../src/faults/fault.ts";
import {
  newFileKey,
  openFile,
  type ReadInto,
  sealedFileBytes,
  sealFile,
} from "../../src/vault/sealed_file.ts";

const CHUNK = 256 * 1024;
const HEADER = 29;
const SEALED_CHUNK = CHUNK + 16;
const PLACE = "models/a/graph.onnx";

type Bytes = Uint8Array<ArrayBuffer>;

/** Reads from memory, as a file is read. */
function reader(bytes: Uint8Array): ReadInto {
  let at = 0;
  return (buffer) => {
    const piece = bytes.subarray(at, at + buffer.length);
    buffer.set(piece);
    at += piece.length;
    return Promise.resolve(piece.length);
  };
}

async function joined(pieces: AsyncIterable<Bytes>): Promise<Bytes> {
  const all: Bytes[] = [];
  for await (const piece of pieces) all.push(piece);
  return new Uint8Array(await new Blob(all).arrayBuffer());
}

const sealed = (key: Bytes, plain: Uint8Array, place = PLACE) => joined(sealFile(key, place, reader(plain)));
const opened = (key: Bytes, bytes: Uint8Array, place = PLACE) => joined(openFile(key, place, reader(bytes)));

async function refused(key: Bytes, bytes: Uint8Array, what: string, place = PLACE): Promise<void> {
  await rejects(
    opened(key, bytes, place),
    (thrown) =>
      thrown instanceof Fault && thrown.kind === "unavailable" && thrown.message.includes("sealed file"),
    what,
  );
}

/** Bytes of which no two chunks are alike. */
function plainOf(length: number): Bytes {
  const bytes = new Uint8Array(length);
  const words = new Uint32Array(bytes.buffer, 0, length >> 2);
  for (let index = 0; index < words.length; index++) words[index] = Math.imul(index + 1, 2_654_435_761);
  return bytes;
}

function concat(...parts: readonly Uint8Array[]): Bytes {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Header and chunks of a sealed file. */
function partsOf(bytes: Uint8Array): readonly [header: Uint8Array, ...chunks: Uint8Array[]] {
  const chunks: Uint8Array[] = [];
  for (let at = HEADER; at < bytes.length; at += SEALED_CHUNK) {
    chunks.push(bytes.subarray(at, at + SEALED_CHUNK));
  }
  return [bytes.subarray(0, HEADER), ...chunks];
}

Deno.test("a file of any length opens to the same bytes, and is as long as was said", async () => {
  const key = newFileKey();
  for (const length of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 9 * CHUNK + 5]) {
    const plain = plainOf(length);
    const bytes = await sealed(key, plain);
    strictEqual(bytes.length, sealedFileBytes(length), `${length}`);
    deepStrictEqual(await opened(key, bytes), plain, `${length}`);
  }
});

Deno.test("NIST SP 800-38D: two sealings of the same bytes under two keys have nothing in common but version and length", async () => {
  const plain = plainOf(100);
  const [one, other] = [await sealed(newFileKey(), plain), await sealed(newFileKey(), plain)];
  deepStrictEqual(one.subarray(0, 6), other.subarray(0, 6));
  notDeepStrictEqual(one.subarray(6, HEADER), other.subarray(6, HEADER));
  notDeepStrictEqual(one.subarray(HEADER), other.subarray(HEADER));
});

Deno.test("a sealed file opens by AES-256-GCM as its first lines describe it", async () => {
  const key = newFileKey();
  const plain = plainOf(CHUNK + 3);
  const [header, whole, last] = partsOf(await sealed(key, plain));
  const imported = await crypto.subtle.importKey("raw", key, "AES-GCM", false, ["decrypt"]);
  const additionalData = concat(header, new TextEncoder().encode(PLACE));
  const open = async (chunk: Uint8Array | undefined, ...end: number[]) =>
    new Uint8Array(
      await crypto.subtle.decrypt(
        { name: "AES-GCM", iv: concat(header.subarray(6, 13), Uint8Array.from(end)), additionalData },
        imported,
        concat(chunk ?? new Uint8Array()),
      ),
    );
  deepStrictEqual(concat(await open(whole, 0, 0, 0, 0, 0), await open(last, 0, 0, 0, 1, 1)), plain);
});

Deno.test("one flipped bit anywhere keeps a sealed file from opening", async () => {
  const key = newFileKey();
  const bytes = await sealed(key, plainOf(2 * CHUNK + 10));
  const edges = [HEADER, HEADER + CHUNK - 1, HEADER + CHUNK, HEADER + SEALED_CHUNK, bytes.length - 1];
  const places = [...Array.from({ length: HEADER }, (_, index) => index), ...edges];
  for (const at of places) await refused(key, bytes.with(at, (bytes[at] ?? 0) ^ 1), `byte ${at}`);
  await fc.assert(
    fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(7), async (at, bit) => {
      await refused(key, bytes.with(at, (bytes[at] ?? 0) ^ (1 << bit)), `byte ${at}, bit ${bit}`);
    }),
    { numRuns: 20 },
  );
});

Deno.test("a sealed file that was cut anywhere, or has something behind its end, does not open", async () => {
  const key = newFileKey();
  const bytes = await sealed(key, plainOf(2 * CHUNK));
  const borders = [0, 1, HEADER - 1, HEADER, HEADER + 15, HEADER + 16, HEADER + SEALED_CHUNK];
  for (const length of [...borders, bytes.length - 17, bytes.length - 16, bytes.length - 1]) {
    await refused(key, bytes.subarray(0, length), `cut to ${length}`);
  }
  const [, , last = new Uint8Array()] = partsOf(bytes);
  for (const added of [new Uint8Array(1), new Uint8Array(16), last]) {
    await refused(key, concat(bytes, added), `${added.length} more`);
  }
  // Short of a whole chunk as well.
  const short = await sealed(key, plainOf(10));
  await refused(key, concat(short, new Uint8Array(1)), "one more behind a short chunk");
});

Deno.test("chunks in another order, doubled or left out do not open", async () => {
  const key = newFileKey();
  const [header, one = header, two = header, three = header] = partsOf(await sealed(key, plainOf(3 * CHUNK)));
  deepStrictEqual(await opened(key, concat(header, one, two, three)), plainOf(3 * CHUNK));
  const orders: Record<string, readonly Uint8Array[]> = {
    "the first two changed places": [two, one, three],
    "the last two changed places": [one, three, two],
    "the first doubled": [one, one, two, three],
    "the last doubled": [one, two, three, three],
    "the first left out": [two, three],
    "the second left out": [one, three],
    "the last left out": [one, two],
    "all left out": [],
  };
  for (const [what, chunks] of Object.entries(orders)) await refused(key, concat(header, ...chunks), what);
});

Deno.test("nothing of another file opens in its place, not even one of the same key", async () => {
  const key = newFileKey();
  const [header, one = header] = partsOf(await sealed(key, plainOf(2 * CHUNK)));
  const [otherHeader, , otherTwo = header] = partsOf(await sealed(key, plainOf(2 * CHUNK)));
  await refused(key, concat(header, one, otherTwo), "a chunk of another file");
  await refused(key, concat(otherHeader, one, otherTwo), "another file's header");
  await refused(newFileKey(), await sealed(key, plainOf(10)), "another key");
  await refused(key, await sealed(key, plainOf(10)), "another place", "models/b/graph.onnx");
});

Deno.test("sealing holds a few chunks, whatever a file's length", async () => {
  let read = 0;
  const generator = sealFile(newFileKey(), PLACE, (buffer) => {
    read += buffer.length;
    return Promise.resolve(read > 1000 * CHUNK ? 0 : buffer.length);
  });
  let written = 0;
  for (let taken = 0; taken < 20; taken++) {
    const { value } = await generator.next();
    written += value?.length ?? 0;
    strictEqual(read - written <= 8 * CHUNK, true, `${read} read, ${written} written`);
  }
  await generator.return(undefined);
});
