// Signing keys: the Ed25519 key that signs access tokens, and its public half as a JWK set (RFC 7517, RFC 8037).
import { calculateJwkThumbprint, exportJWK, importPKCS8 } from "jose";
import { Fault } from "../faults/fault.ts";

/** A public key as RFC 8037 §2 writes it. */
export interface PublicJwk {
  readonly kty: "OKP";
  readonly crv: "Ed25519";
  readonly x: string;
  readonly kid: string;
  readonly use: "sig";
  readonly alg: "EdDSA";
}

/** The keys of our own tokens. */
export interface SigningKeys {
  /** RFC 7638 thumbprint of the active key. */
  readonly activeKeyId: string;
  readonly privateKey: CryptoKey;
  /** The key that verifies tokens naming this `kid`; undefined for a `kid` that is not ours. */
  publicKey(keyId: string): CryptoKey | undefined;
  readonly jwks: { readonly keys: readonly PublicJwk[] };
}

/** A new Ed25519 private key as PKCS #8 PEM. */
export async function generateSigningKey(): Promise<string> {
  const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
  const der = new Uint8Array(await crypto.subtle.exportKey("pkcs8", (pair as CryptoKeyPair).privateKey));
  return `-----BEGIN PRIVATE KEY-----\n${der.toBase64()}\n-----END PRIVATE KEY-----\n`;
}

/**
 * Opens the signing key.
 *
 * @param pem PKCS #8
 * @throws Fault `unavailable` when it is no Ed25519 private key
 */
export async function openSigningKeys(pem: string): Promise<SigningKeys> {
  try {
    const { x } = await exportJWK(await importPKCS8(pem, "EdDSA", { extractable: true }));
    if (x === undefined) throw new TypeError("the key has no public half");
    const kid = await calculateJwkThumbprint({ kty: "OKP", crv: "Ed25519", x });
    const publicKey = await crypto.subtle.importKey(
      "jwk",
      { kty: "OKP", crv: "Ed25519", x },
      "Ed25519",
      false,
      ["verify"],
    );
    return {
      activeKeyId: kid,
      privateKey: await importPKCS8(pem, "EdDSA", { extractable: false }),
      publicKey: (keyId) => keyId === kid ? publicKey : undefined,
      jwks: { keys: [{ kty: "OKP", crv: "Ed25519", x, kid, use: "sig", alg: "EdDSA" }] },
    };
  } catch (cause) {
    // The cause may quote the key: it is not kept.
    throw new Fault(
      "unavailable",
      `Cannot open the signing key: it is no Ed25519 private key in PKCS #8 (${
        cause instanceof Error ? cause.name : "unknown"
      })`,
    );
  }
}
