// Sealed models of tests: a judge over a store in memory, and model folders sealed and signed as the command makes them.
import { createHash } from "node:crypto";
import { encodeBase64url } from "../../src/encoding/base64url.ts";
import { type ModelSigner, signerId, signManifest } from "../../src/registry/manifest.ts";
import type { ModelCard } from "../../src/registry/model_card.ts";
import type { FolderJudge } from "../../src/registry/model_folder.ts";
import { openModelRecords } from "../../src/registry/model_records.ts";
import { openModelSigners } from "../../src/registry/model_signers.ts";
import { sealArtefact } from "../../src/registry/sealed_artefact.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { newFileKey } from "../../src/vault/sealed_file.ts";
import { manualClock } from "../support/manual_clock.ts";

export const GRAPH = new TextEncoder().encode("graph");
export const VOCABULARY = new TextEncoder().encode("vocabulary");

/** A card of the two files above. */
export function cardOf(id: string): ModelCard {
  const artefact = (file: string, bytes: Uint8Array) => ({
    file,
    sha256: sha256(bytes),
    bytes: bytes.length,
  });
  return {
    id,
    task: "embedding",
    name: id,
    description: "",
    license: "Apache-2.0",
    source: "this test",
    createdSeconds: 0,
    artefacts: { graph: artefact("graph.onnx", GRAPH), vocabulary: artefact("vocabulary.json", VOCABULARY) },
    dimensions: 4,
    dimensionsReducible: false,
    limits: { textsPerRequestMax: 1, charactersPerTextMax: 1, tokensPerTextMax: 1, tokensPerRequestMax: 1 },
    access: { see: ["admin"], use: [] },
  };
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Flips a bit of the first record of a table. */
export async function breakRecord(store: RecordStore, table: string): Promise<void> {
  const [record] = await store.list(table, { limit: 1 });
  if (record === undefined) throw new Error(`${table} is empty`);
  await store.put(table, record.key, record.value.with(-1, (record.value.at(-1) ?? 0) ^ 1));
}

/** What a server judges models by, over an empty store in memory. */
export async function newJudge(
  { plain = "allow", trusted = [] }: { plain?: FolderJudge["plain"]; trusted?: readonly string[] } = {},
): Promise<FolderJudge & { readonly store: RecordStore }> {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const keyRing = await openKeyRing(store, localMasterKey(parseMasterKey(generateMasterKey())), clock);
  return {
    records: openModelRecords(store, keyRing),
    signers: openModelSigners(store, keyRing, trusted),
    plain,
    store,
  };
}

/** A signer that is not the installation's own; its public key as the settings take it. */
export async function foreignSigner(): Promise<ModelSigner & { readonly setting: string }> {
  const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]) as CryptoKeyPair;
  const raw = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  return { id: signerId(raw), privateKey: pair.privateKey, setting: encodeBase64url(raw) };
}

/** Writes a model's folder, sealed and signed. */
export async function sealModel(
  modelsDirectory: string,
  id: string,
  { records, signers }: FolderJudge,
  { serial = 1, signer, card = cardOf(id) }: { serial?: number; signer?: ModelSigner; card?: ModelCard } = {},
): Promise<string> {
  const folder = `${modelsDirectory}/${id}`;
  await Deno.mkdir(folder);
  const keys = new Map<string, Uint8Array<ArrayBuffer>>();
  const cardBytes = new TextEncoder().encode(JSON.stringify(card));
  const files = new Map([["card.json", sha256(cardBytes)]]);
  for (const [file, bytes] of [["graph.onnx", GRAPH], ["vocabulary.json", VOCABULARY]] as const) {
    const source = await Deno.makeTempFile();
    await Deno.writeFile(source, bytes);
    const key = newFileKey();
    const sealed = await sealArtefact({ source, folder, model: id, file, key });
    await Deno.remove(source);
    keys.set(file, key);
    files.set(file, sealed.sha256);
  }
  const statement = { model: id, files, serial, license: card.license, addedAt: "2026-01-01T00:00:00.000Z" };
  const manifest = await signManifest(statement, signer ?? await signers.ensureOwn());
  await Deno.writeFile(`${folder}/card.json`, cardBytes);
  await Deno.writeFile(`${folder}/model.sig`, manifest);
  await records.keepFileKeys(id, sha256(manifest), serial, keys);
  return folder;
}
