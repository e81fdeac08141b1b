// Forge a token: JWS by hand, so that a test can write what no library would.
import { createHmac, createPrivateKey, type KeyObject, sign } from "node:crypto";

/** A part of a token: a text or bytes stand as they are, anything else becomes JSON. */
export type TokenPart = string | Uint8Array | Readonly<Record<string, unknown>>;

/** How the signature is made; the text it signs is `header.payload` in base64url. */
export type Signer = (text: string) => Uint8Array;

export function ed25519Signer(pem: string): Signer {
  const key: KeyObject = createPrivateKey(pem);
  return (text) => sign(null, new TextEncoder().encode(text), key);
}

export function hmacSigner(secret: string | Uint8Array): Signer {
  return (text) => createHmac("sha256", secret).update(text).digest();
}

/** base64url of a part. */
export function encodePart(part: TokenPart): string {
  const bytes = part instanceof Uint8Array
    ? part
    : new TextEncoder().encode(typeof part === "string" ? part : JSON.stringify(part));
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}

/** The compact form (RFC 7515 §7.1). */
export function forgeToken(header: TokenPart, claims: TokenPart, signer: Signer): string {
  const text = `${encodePart(header)}.${encodePart(claims)}`;
  return `${text}.${encodePart(signer(text))}`;
}
