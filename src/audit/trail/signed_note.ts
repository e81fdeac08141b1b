// Signed note: a text with the Ed25519 signatures of named keys (C2SP signed-note), and how those keys are written. Pure.
import {
  createPrivateKey,
  createPublicKey,
  hash,
  type KeyObject,
  sign,
  verify as verifySignature,
} from "node:crypto";
import { encodeBase64url } from "../../encoding/base64url.ts";
import { constantTimeEqual } from "../../encoding/constant_time_equal.ts";
import { encodeUtf8 } from "../../encoding/utf8.ts";
import { no, ok, type Outcome } from "../../faults/outcome.ts";

/** Who signed: the name and the public key; what a verifier trusts. */
export interface NoteVerifier {
  readonly name: string;
  /** 32 bytes (RFC 8032). */
  readonly publicKey: Uint8Array<ArrayBuffer>;
}

/** A key that signs notes. */
export interface NoteSigner extends NoteVerifier {
  readonly privateKey: KeyObject;
}

/** One signature line, not verified. */
export interface NoteSignature {
  readonly name: string;
  /** The first 4 bytes of the key's hash. */
  readonly keyHash: Uint8Array<ArrayBuffer>;
  readonly signature: Uint8Array<ArrayBuffer>;
}

/** A note taken apart, nothing of it verified. */
export interface ParsedNote {
  /** With its last line feed: what is signed. */
  readonly text: string;
  readonly signatures: readonly NoteSignature[];
}

/** Signature type of Ed25519 (C2SP signed-note). */
const ED25519 = 0x01;
const KEY_HASH_BYTES = 4;
const PUBLIC_KEY_BYTES = 32;
const SIGNATURES_MAX = 100;
/** Neither white space nor plus. Narrower than the specification asks: names are ours. */
const NAME = /^[^\s+\p{White_Space}\p{Cc}]+$/u;
const VERIFIER_KEY = /^([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})$/;
const SIGNATURE_LINE = /^— ([^ ]+) ([A-Za-z0-9+/]+={0,2})$/;

/**
 * A signer of a PKCS #8 key.
 *
 * @param pkcs8 DER of an Ed25519 private key
 * @throws Error when it is none
 */
export function noteSigner(name: string, pkcs8: Uint8Array<ArrayBuffer>): NoteSigner {
  const privateKey = createPrivateKey({ key: Buffer.from(pkcs8), format: "der", type: "pkcs8" });
  const { x = "" } = createPublicKey(privateKey).export({ format: "jwk" });
  return { name, privateKey, publicKey: Uint8Array.fromBase64(x, { alphabet: "base64url" }) };
}

/** The key's hash: by it a signature line says which of a name's keys signed. */
export function keyHash({ name, publicKey }: NoteVerifier): Uint8Array<ArrayBuffer> {
  const digest = hash("sha256", Uint8Array.of(...encodeUtf8(`${name}\n`), ED25519, ...publicKey), "hex");
  return Uint8Array.fromHex(digest).subarray(0, KEY_HASH_BYTES);
}

/** A verifier's key as text: `NAME+HASH+BASE64`. */
export function formatVerifierKey(key: NoteVerifier): string {
  return `${key.name}+${keyHash(key).toHex()}+${Uint8Array.of(ED25519, ...key.publicKey).toBase64()}`;
}

/** Verifiers' keys as they are published: one a line. */
export function formatVerifierKeys(keys: readonly NoteVerifier[]): string {
  return keys.map((key) => `${formatVerifierKey(key)}\n`).join("");
}

/** The verifier's key in a text; refused where its hash is not the key's. */
export function parseVerifierKey(text: string): Outcome<NoteVerifier, "not_a_verifier_key"> {
  const [, name = "", hashed = "", encoded = ""] = VERIFIER_KEY.exec(text) ?? [];
  const bytes = decodeBase64(encoded);
  if (!NAME.test(name) || bytes?.length !== 1 + PUBLIC_KEY_BYTES || bytes[0] !== ED25519) {
    return no("not_a_verifier_key");
  }
  const key = { name, publicKey: bytes.slice(1) };
  return keyHash(key).toHex() === hashed ? ok(key) : no("not_a_verifier_key");
}

/**
 * A note.
 *
 * @param text ends with a line feed, has no control character besides it and no signature line of its own
 * @throws RangeError when it is no such text
 */
export function signNote(text: string, signers: readonly NoteSigner[]): string {
  if (!isNoteText(text)) throw new RangeError("Cannot sign a note: its text is not one");
  const lines = signers.map((signer) => {
    const signature = sign(null, encodeUtf8(text), signer.privateKey);
    return `— ${signer.name} ${Uint8Array.of(...keyHash(signer), ...signature).toBase64()}\n`;
  });
  return `${text}\n${lines.join("")}`;
}

/** Takes a note apart and verifies nothing. */
export function parseNote(note: string): Outcome<ParsedNote, "malformed"> {
  // The last blank line: the text may hold others.
  const end = note.lastIndexOf("\n\n");
  const text = note.slice(0, end + 1);
  const lines = note.slice(end + 2).split("\n");
  if (end === -1 || !isNoteText(text) || lines.pop() !== "" || lines.length > SIGNATURES_MAX) {
    return no("malformed");
  }
  const signatures: NoteSignature[] = [];
  for (const line of lines) {
    const [, name = "", encoded = ""] = SIGNATURE_LINE.exec(line) ?? [];
    const bytes = decodeBase64(encoded);
    if (!NAME.test(name) || bytes === undefined || bytes.length <= KEY_HASH_BYTES) return no("malformed");
    signatures.push({
      name,
      keyHash: bytes.slice(0, KEY_HASH_BYTES),
      signature: bytes.slice(KEY_HASH_BYTES),
    });
  }
  return signatures.length === 0 ? no("malformed") : ok({ text, signatures });
}

/** A note that trusted keys have signed. */
export interface OpenedNote {
  readonly text: string;
  /** Those of the trusted keys that signed it, at least one. */
  readonly signedBy: readonly NoteVerifier[];
}

/**
 * The text of a note, where at least one of the keys has signed it. Signatures of other keys are passed over. One that
 * names a trusted key and is not its signature makes the whole note `forged`.
 */
export function openNote(
  note: string,
  trusted: readonly NoteVerifier[],
): Outcome<OpenedNote, "malformed" | "unknown_key" | "forged"> {
  const parsed = parseNote(note);
  if (!parsed.ok) return parsed;
  const { text, signatures } = parsed.value;
  const signedBy: NoteVerifier[] = [];
  for (const { name, keyHash: hint, signature } of signatures) {
    const key = trusted.find((each) => each.name === name && constantTimeEqual(keyHash(each), hint));
    if (key === undefined || signedBy.includes(key)) continue;
    if (!isSignatureOf(key, text, signature)) return no("forged");
    signedBy.push(key);
  }
  return signedBy.length === 0 ? no("unknown_key") : ok({ text, signedBy });
}

function isSignatureOf(key: NoteVerifier, text: string, signature: Uint8Array<ArrayBuffer>): boolean {
  try {
    const jwk = { kty: "OKP", crv: "Ed25519", x: encodeBase64url(key.publicKey) };
    const publicKey = createPublicKey({ key: jwk, format: "jwk" });
    return verifySignature(null, encodeUtf8(text), publicKey, signature);
  } catch {
    return false; // no point of the curve, or of another length
  }
}

/** Whole lines without control characters; not empty. */
function isNoteText(text: string): boolean {
  return text.length > 1 && text.endsWith("\n") && text.isWellFormed() && !/[^\P{Cc}\n]/u.test(text);
}

function decodeBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
  } catch {
    return undefined;
  }
}
