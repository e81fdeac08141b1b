// Payload seal: a text in pieces that fit into events, sealed under the key of its subject and bound to their request and place.
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from "node:crypto";
import { decodeBase64url, encodeBase64url } from "../../encoding/base64url.ts";
import { decodeUtf8, encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";

/** What is kept of an inference. */
export type PayloadPart = "input" | "output";

/** The key of one subject. */
export interface PayloadKey {
  /** ASCII without NUL. */
  readonly id: string;
  /** 32 bytes. */
  readonly raw: Uint8Array;
}

/** What a sealed payload is about. */
export interface PayloadPlace {
  readonly request: string;
  readonly part: PayloadPart;
}

/** A payload as it goes to the trail. */
export interface SealedPayload {
  readonly model: string;
  readonly part: PayloadPart;
  /** The id of the key. */
  readonly key: string;
  /** Whether the rest was too long to be kept. */
  readonly cut: boolean;
  /** At least one; base64url. */
  readonly pieces: readonly string[];
}

/** Of one part of one inference; what is beyond is not kept. */
export const PAYLOAD_BYTES_MAX = 1024 * 1024;
/** As base64url, and that sealed and encoded once more with the trail, it stays below the length of an event. */
const PIECE_BYTES_MAX = 32 * 1024;

/*
 * A piece: salt (16 bytes) · ciphertext with its 16-byte tag. AES-256-GCM under a key derived by HKDF-SHA-256 (RFC 5869) from the
 * subject's key and the salt, which is random and the same for all pieces of a payload; the nonce is the piece's number. So no
 * nonce comes twice under one key, however often a subject asks.
 */
const CIPHER = "aes-256-gcm";
const SALT_BYTES = 16;
const TAG_BYTES = 16;

/**
 * Seals a text of any length; of one that is too long, what fits.
 *
 * @param cut whether something is missing already
 */
export function sealPayload(
  key: PayloadKey,
  place: PayloadPlace & { readonly model: string },
  text: string,
  cut = false,
): SealedPayload {
  const whole = encodeUtf8(text);
  const bytes = whole.length > PAYLOAD_BYTES_MAX
    ? whole.subarray(0, characterStart(whole, PAYLOAD_BYTES_MAX))
    : whole;
  const isCut = cut || bytes.length < whole.length;
  const salt = randomBytes(SALT_BYTES);
  const pieceKey = derive(key, salt);
  const count = Math.max(1, Math.ceil(bytes.length / PIECE_BYTES_MAX));
  const pieces = Array.from({ length: count }, (_, piece) => {
    const cipher = createCipheriv(CIPHER, pieceKey, nonceOf(piece));
    cipher.setAAD(additionalData(key.id, place, piece, count, isCut));
    const part = bytes.subarray(piece * PIECE_BYTES_MAX, (piece + 1) * PIECE_BYTES_MAX);
    return encodeBase64url(concat([salt, cipher.update(part), cipher.final(), cipher.getAuthTag()]));
  });
  return { model: place.model, part: place.part, key: key.id, cut: isCut, pieces };
}

/**
 * The text of a payload.
 *
 * @throws Fault `unavailable` when a piece was altered, moved or is missing, or another key sealed it
 */
export function openPayload(
  key: PayloadKey,
  place: PayloadPlace,
  { cut, pieces }: Pick<SealedPayload, "cut" | "pieces">,
): string {
  const opened = pieces.map((text, piece) => {
    const bytes = decodeBase64url(text);
    if (!bytes.ok || bytes.value.length < SALT_BYTES + TAG_BYTES) throw unopened();
    const salt = bytes.value.subarray(0, SALT_BYTES);
    const decipher = createDecipheriv(CIPHER, derive(key, salt), nonceOf(piece), {
      authTagLength: TAG_BYTES,
    });
    decipher.setAAD(additionalData(key.id, place, piece, pieces.length, cut));
    decipher.setAuthTag(bytes.value.subarray(-TAG_BYTES));
    try {
      return concat([decipher.update(bytes.value.subarray(SALT_BYTES, -TAG_BYTES)), decipher.final()]);
    } catch {
      throw unopened();
    }
  });
  const text = decodeUtf8(concat(opened));
  if (!text.ok) throw unopened();
  return text.value;
}

function derive({ id, raw }: PayloadKey, salt: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", raw, salt, `portcullis payload\0${id}`, 32));
}

function nonceOf(piece: number): Uint8Array {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setUint32(8, piece);
  return nonce;
}

function additionalData(
  keyId: string,
  { request, part }: PayloadPlace,
  piece: number,
  pieces: number,
  cut: boolean,
): Uint8Array {
  return encodeUtf8(`portcullis payload\0${keyId}\0${request}\0${part}\0${piece}\0${pieces}\0${cut}`);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The last beginning of a character at or before a place. */
function characterStart(utf8: Uint8Array, at: number): number {
  let start = at;
  while (start > 0 && ((utf8[start] ?? 0) & 0xc0) === 0x80) start--;
  return start;
}

function unopened(): Fault {
  return new Fault("unavailable", "Cannot open a payload: it was altered or moved, or the key is wrong");
}
