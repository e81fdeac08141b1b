// Model signers: whose signatures under manifests are believed: this installation's own key, made when it is first needed, and those
// that the settings name.
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import { Fault } from "../faults/fault.ts";
import type { SealedTable } from "../vault/sealed_store.ts";
import { type ModelSigner, signerId, type TrustedSigners } from "./manifest.ts";

/** The installation's own key. */
export interface OwnSigner extends ModelSigner {
  /** 32 bytes. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
}

/** The signers. */
export interface ModelSigners {
  trusted(): Promise<TrustedSigners>;
  /** The own key; undefined while there is none. */
  own(): Promise<OwnSigner | undefined>;
  /** The own key, which is made when there is none. */
  ensureOwn(): Promise<OwnSigner>;
}

const OWN = "own";

/**
 * @param table `model_signers`
 * @param trusted public Ed25519 keys of the settings: 32 bytes each, base64url
 */
export function openModelSigners(table: SealedTable, trusted: readonly string[]): ModelSigners {
  async function own(): Promise<OwnSigner | undefined> {
    const record = await table.get(OWN);
    if (record === undefined) return undefined;
    const { pkcs8, publicKey } = record as { readonly pkcs8?: unknown; readonly publicKey?: unknown };
    const der = bytesOf(pkcs8);
    const raw = bytesOf(publicKey);
    const privateKey = await crypto.subtle.importKey("pkcs8", der, "Ed25519", false, ["sign"]);
    return { id: signerId(raw), privateKey, publicKey: raw };
  }
  return {
    own,
    async trusted() {
      const ownKey = await own();
      const raws = trusted.map(bytesOf);
      const all = ownKey === undefined ? raws : [ownKey.publicKey, ...raws];
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
      const standing = await own();
      if (standing !== undefined) return standing;
      const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]) as CryptoKeyPair;
      const exported = async (format: "pkcs8" | "raw", key: CryptoKey) =>
        encodeBase64url(new Uint8Array(await crypto.subtle.exportKey(format, key)));
      // Of two that do so at once one makes it, and both have the same.
      await table.create(OWN, {
        pkcs8: await exported("pkcs8", pair.privateKey),
        publicKey: await exported("raw", pair.publicKey),
      });
      const made = await own();
      if (made === undefined) throw new Fault("unavailable", "Cannot sign a model: the store lost the key");
      return made;
    },
  };
}

function bytesOf(text: unknown): Uint8Array<ArrayBuffer> {
  const bytes = typeof text === "string" ? decodeBase64url(text) : undefined;
  if (bytes?.ok !== true) {
    throw new Fault("unavailable", "Cannot read the key of a model signer: it has no known form");
  }
  return bytes.value;
}
