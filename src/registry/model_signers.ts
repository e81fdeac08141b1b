// Model signers: whose signatures under manifests are believed: this installation's own key, made when it is first needed, and those
// that the settings name.
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import { Fault } from "../faults/fault.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { RecordStore } from "../store/record_store.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import { type ModelSigner, signerId, type TrustedSigners } from "./manifest.ts";
import { modelTable, type RecordBroken } from "./model_table.ts";

/** The installation's own key. */
export interface OwnSigner extends ModelSigner {
  /** 32 bytes. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
}

/** The signers. Every method throws Fault `unavailable` when the store or the master key fails. */
export interface ModelSigners {
  /** Without the own key where its record does not open: nobody then believes what it signed. */
  trusted(): Promise<TrustedSigners>;
  /** The own key; undefined while there is none. */
  own(): Promise<Outcome<OwnSigner | undefined, RecordBroken>>;
  /** The own key, which is made when there is none, or none that opens. */
  ensureOwn(): Promise<OwnSigner>;
}

const OWN = "own";

/** @param trusted public Ed25519 keys of the settings: 32 bytes each, base64url */
export function openModelSigners(
  store: RecordStore,
  keyRing: KeyRing,
  trusted: readonly string[],
): ModelSigners {
  const table = modelTable(store, keyRing, "model_signers");

  async function own(): Promise<Outcome<OwnSigner | undefined, RecordBroken>> {
    const record = await table.read(OWN);
    return record === undefined ? ok(undefined) : await ownSignerIn(record.value);
  }
  return {
    own,
    async trusted() {
      const ownKey = await own();
      const raws = trusted.flatMap((text) => bytesOf(text) ?? []);
      const all = ownKey.ok && ownKey.value !== undefined ? [ownKey.value.publicKey, ...raws] : raws;
      return new Map(
        await Promise.all(all.map(async (raw) =>
          [
            signerId(raw),
            await crypto.subtle.importKey("raw", raw, "Ed25519", true, ["verify"]),
          ] as const
        )),
      );
    },
    async ensureOwn() {
      const record = await table.read(OWN);
      const standing = await ownSignerIn(record?.value);
      if (standing.ok) return standing.value;
      const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]) as CryptoKeyPair;
      const exported = async (format: "pkcs8" | "raw", key: CryptoKey) =>
        encodeBase64url(new Uint8Array(await crypto.subtle.exportKey(format, key)));
      const made = {
        pkcs8: await exported("pkcs8", pair.privateKey),
        publicKey: await exported("raw", pair.publicKey),
      };
      // Of two that do so at once one makes it, and both have the same.
      await store.write([await table.changeOf(OWN, made, { expects: record?.version ?? "nothing" })]);
      const kept = await own();
      if (kept.ok && kept.value !== undefined) return kept.value;
      throw new Fault("unavailable", "Cannot sign a model: the store lost the key");
    },
  };
}

async function ownSignerIn(value: unknown): Promise<Outcome<OwnSigner, RecordBroken>> {
  const { pkcs8, publicKey } = (value ?? {}) as { readonly pkcs8?: unknown; readonly publicKey?: unknown };
  const der = bytesOf(pkcs8);
  const raw = bytesOf(publicKey);
  if (der === undefined || raw === undefined) return no("record_broken");
  const privateKey = await crypto.subtle.importKey("pkcs8", der, "Ed25519", false, ["sign"]);
  return ok({ id: signerId(raw), privateKey, publicKey: raw });
}

function bytesOf(text: unknown): Uint8Array<ArrayBuffer> | undefined {
  const bytes = typeof text === "string" ? decodeBase64url(text) : undefined;
  return bytes?.ok === true ? bytes.value : undefined;
}
