// AEAD: AES-256-GCM (NIST SP 800-38D) over bytes, with the key's id in the sealed value and its place bound to it.
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";

/** A data key with its name. */
export interface SealingKey {
  /** Printable ASCII, at most 255 characters. */
  readonly id: string;
  readonly key: CryptoKey;
}

/*
 * A sealed value: version (1 byte, 1) · length of key id (1) · key id · nonce (12) · ciphertext with its 16-byte tag.
 * Additional data: "portcullis", version, key id and place, so that no part of the header and no move to another record
 * goes unnoticed. Nonces are random: at most 2^32 values a key (SP 800-38D §8.3).
 */
const VERSION = 1;
const NONCE_BYTES = 12;

/** Imports 32 raw bytes as a sealing key. */
export async function importSealingKey(id: string, raw: Uint8Array<ArrayBuffer>): Promise<SealingKey> {
  return { id, key: await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]) };
}

/**
 * Seals bytes.
 *
 * @param place where the value will rest (table and key, or file); the same text is needed to open it
 */
export async function seal(
  key: SealingKey,
  place: string,
  plain: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const id = encodeUtf8(key.id);
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  const additionalData = additionalDataFor(key.id, place);
  const ciphertext = await crypto.subtle.encrypt(
    { name: "AES-GCM", iv: nonce, additionalData },
    key.key,
    plain,
  );
  const sealed = new Uint8Array(2 + id.length + NONCE_BYTES + ciphertext.byteLength);
  sealed.set([VERSION, id.length]);
  sealed.set(id, 2);
  sealed.set(nonce, 2 + id.length);
  sealed.set(new Uint8Array(ciphertext), 2 + id.length + NONCE_BYTES);
  return sealed;
}

/**
 * The id of the key that sealed a value. Not proved until the value is opened.
 *
 * @throws Fault `unavailable` when the bytes are no sealed value
 */
export function sealingKeyIdOf(sealed: Uint8Array<ArrayBuffer>): string {
  const idBytes = sealed[1] ?? 0;
  const id = decodeUtf8(sealed.subarray(2, 2 + idBytes));
  if (sealed[0] !== VERSION || sealed.length < 2 + idBytes + NONCE_BYTES + 16 || !id.ok) {
    throw unopened("it has no known form");
  }
  return id.value;
}

/**
 * Opens a sealed value.
 *
 * @throws Fault `unavailable` when it was altered, moved, or sealed under another key
 */
export async function open(
  key: SealingKey,
  place: string,
  sealed: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  if (sealingKeyIdOf(sealed) !== key.id) throw unopened("another key sealed it");
  const start = 2 + (sealed[1] ?? 0);
  const iv = sealed.subarray(start, start + NONCE_BYTES);
  try {
    const ciphertext = sealed.subarray(start + NONCE_BYTES);
    const additionalData = additionalDataFor(key.id, place);
    return new Uint8Array(
      await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData }, key.key, ciphertext),
    );
  } catch {
    throw unopened("it was altered or moved, or the key is wrong");
  }
}

function additionalDataFor(keyId: string, place: string): Uint8Array<ArrayBuffer> {
  // NUL cannot occur in a key id, so that no two pairs of id and place give the same bytes.
  return encodeUtf8(`portcullis\0${VERSION}\0${keyId}\0${place}`);
}

function unopened(state: string): Fault {
  return new Fault("unavailable", `Cannot open a sealed value: ${state}`);
}
