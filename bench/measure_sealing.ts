// Measure sealing: a model file sealed and opened in chunks, beside bare WebCrypto over the same bytes.
import { openArtefact, sealArtefact } from "../src/registry/sealed_artefact.ts";
import { newFileKey, openFile, type ReadInto, sealFile } from "../src/vault/sealed_file.ts";
import type { PhaseFindings, PhaseMeans } from "./phase.ts";
import { interleave, shuffled, spreadOf, spreadOfPairs } from "./rounds.ts";
import { aimAtLeast, type TableRow } from "./table.ts";

const AIM_SHARE = 0.9;
/** About the default model. */
const FILE_BYTES = 28 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;
const UNDER_WAY = 4;
const PLACE = "models/bench/graph.onnx";
const WARM_UP_ROUNDS = 2;

type Bytes = Uint8Array<ArrayBuffer>;
type Act = () => Promise<unknown>;

/** Sealing and opening in memory, and to and from the disk with the digest that each start checks. */
export async function measureSealing({ effort, folder, progress }: PhaseMeans): Promise<PhaseFindings> {
  progress(`sealing ${FILE_BYTES / 1024 / 1024} MiB`);
  const plain = new Uint8Array(FILE_BYTES);
  for (let at = 0; at < plain.length; at += 65_536) crypto.getRandomValues(plain.subarray(at, at + 65_536));
  const raw = newFileKey();
  const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]);
  const sealed = await joined(sealFile(raw, PLACE, readerOf(plain)));
  const bareChunks: Bytes[] = [];
  await bareEncrypt(key, plain, (chunk) => bareChunks.push(chunk));

  const source = `${folder}/plain`;
  const models = `${folder}/sealed`;
  await Deno.mkdir(models);
  await Deno.writeFile(source, plain);
  const artefact = { source, folder: models, model: "bench", file: "graph.onnx", key: raw };
  const described = await sealArtefact(artefact);
  const sealedPath = `${models}/graph.onnx.sealed`;

  const contestants = {
    seal: () => drained(sealFile(raw, PLACE, readerOf(plain))),
    bareSeal: () => bareEncrypt(key, plain, () => {}),
    open: () => drained(openFile(raw, PLACE, readerOf(sealed))),
    bareOpen: () => bareDecrypt(key, bareChunks),
    oneCall: () => crypto.subtle.encrypt({ name: "AES-GCM", iv: new Uint8Array(12) }, key, plain),
    sealToDisk: async () => {
      await Deno.remove(sealedPath);
      await sealArtefact(artefact);
    },
    openFromDisk: () => openArtefact(models, "bench", described, raw),
  } satisfies Record<string, Act>;
  const timed = Object.fromEntries(
    Object.entries(contestants).map(([name, act]) => [name, () => megabytesPerSecond(act)]),
  ) as Record<keyof typeof contestants, () => Promise<number>>;
  await interleave(WARM_UP_ROUNDS, timed, shuffled);
  const found = await interleave(effort.model.rounds, timed, shuffled);

  const mbPerSecond = (name: keyof typeof contestants): string =>
    `${Math.round(spreadOf(found[name]).median)} MB/s`;
  const beside = (
    what: string,
    ours: keyof typeof contestants,
    theirs: keyof typeof contestants,
    aimed: boolean,
  ): TableRow => {
    const ratio = spreadOfPairs(found[ours], found[theirs], (one, other) => one / other);
    return {
      what,
      ours: mbPerSecond(ours),
      beside: mbPerSecond(theirs),
      ratio,
      ...aimed ? { aim: aimAtLeast(ratio, AIM_SHARE) } : {},
    };
  };
  return {
    rows: [
      { what: "SEALING, a model file of 28 MiB | bare WebCrypto, AES-256-GCM", ours: "" },
      beside("seal, chunks of 256 KiB, 4 under way", "seal", "bareSeal", true),
      beside("open, chunks of 256 KiB, 4 under way", "open", "bareOpen", true),
      beside("seal | one call over the whole file", "seal", "oneCall", false),
      { what: "models:add: read, hash, seal, write, sync", ours: mbPerSecond("sealToDisk") },
      { what: "a start: read, open, hash", ours: mbPerSecond("openFromDisk") },
    ],
    notes: [
      "Bare WebCrypto encrypts and decrypts the same bytes in the same chunks, as many at once, and does nothing with them.",
    ],
  };
}

async function bareEncrypt(key: CryptoKey, plain: Bytes, take: (chunk: Bytes) => void): Promise<void> {
  const underWay: Promise<ArrayBuffer>[] = [];
  const takeFirst = async () => {
    const first = await underWay.shift();
    if (first !== undefined) take(new Uint8Array(first));
  };
  for (let index = 0; index * CHUNK_BYTES < plain.length; index++) {
    const chunk = plain.subarray(index * CHUNK_BYTES, (index + 1) * CHUNK_BYTES);
    underWay.push(crypto.subtle.encrypt({ name: "AES-GCM", iv: nonceOf(index) }, key, chunk));
    if (underWay.length >= UNDER_WAY) await takeFirst();
  }
  while (underWay.length > 0) await takeFirst();
}

async function bareDecrypt(key: CryptoKey, chunks: readonly Bytes[]): Promise<void> {
  const underWay: Promise<ArrayBuffer>[] = [];
  for (const [index, chunk] of chunks.entries()) {
    underWay.push(crypto.subtle.decrypt({ name: "AES-GCM", iv: nonceOf(index) }, key, chunk));
    if (underWay.length >= UNDER_WAY) await underWay.shift();
  }
  await Promise.all(underWay);
}

function nonceOf(index: number): Bytes {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setUint32(8, index);
  return nonce;
}

async function megabytesPerSecond(act: Act): Promise<number> {
  const startMs = performance.now();
  await act();
  return FILE_BYTES / 1e3 / (performance.now() - startMs);
}

async function drained(pieces: AsyncIterable<Bytes>): Promise<void> {
  for await (const _ of pieces);
}

async function joined(pieces: AsyncIterable<Bytes>): Promise<Bytes> {
  const all: Bytes[] = [];
  for await (const piece of pieces) all.push(piece);
  const length = all.reduce((sum, piece) => sum + piece.length, 0);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of all) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

function readerOf(bytes: Uint8Array): ReadInto {
  let at = 0;
  return (buffer) => {
    const piece = bytes.subarray(at, at + buffer.length);
    buffer.set(piece);
    at += piece.length;
    return Promise.resolve(piece.length);
  };
}
