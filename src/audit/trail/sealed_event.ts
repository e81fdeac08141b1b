// Sealed event: an event of the trail that only its key opens; the chain covers the sealed form and needs no key. AES-256-GCM.
import { createCipheriv, createDecipheriv } from "node:crypto";
import { decodeBase64url, encodeBase64url } from "../../encoding/base64url.ts";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { decodeUtf8, encodeUtf8 } from "../../encoding/utf8.ts";
import { Fault } from "../../faults/fault.ts";
import type { EventClass } from "../audit_event.ts";

/** A key that seals events. */
export interface EventSealingKey {
  /** `akey_…`. */
  readonly id: string;
  /** 32 bytes. */
  readonly raw: Uint8Array;
}

/** An event as the trail has it. */
export type EntryEvent = { readonly [name: string]: JsonValue };

/** How a sealed event stands in its entry. */
export type SealedEvent = {
  readonly class: EventClass;
  /** The id of its key. */
  readonly key: string;
  /** Nonce, ciphertext and tag; base64url. */
  readonly sealed: string;
};

/** Events that one key may seal: nonces are random, and far below 2^32 of them none comes twice (SP 800-38D §8.3). */
export const SEALED_EVENTS_MAX = 2 ** 31;

const CIPHER = "aes-256-gcm";
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

// Random bytes are drawn in one large piece: a draw costs far more than its bytes.
const nonces = new Uint8Array(NONCE_BYTES * 256);
let noncesUsed = nonces.length;

/**
 * Seals an event; canonical JSON.
 *
 * @param seq the number of its entry: it opens in no other
 * @param text the event as canonical JSON
 */
export function sealEvent(key: EventSealingKey, seq: number, eventClass: EventClass, text: string): string {
  if (noncesUsed === nonces.length) {
    crypto.getRandomValues(nonces);
    noncesUsed = 0;
  }
  const nonce = nonces.subarray(noncesUsed, noncesUsed += NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key.raw, nonce);
  cipher.setAAD(additionalData(key.id, seq));
  const ciphertext = cipher.update(text, "utf8");
  cipher.final(); // empty: this mode has no blocks to fill
  const sealed = new Uint8Array(NONCE_BYTES + ciphertext.length + TAG_BYTES);
  sealed.set(nonce);
  sealed.set(ciphertext, NONCE_BYTES);
  sealed.set(cipher.getAuthTag(), NONCE_BYTES + ciphertext.length);
  return `{"class":"${eventClass}","key":"${key.id}","sealed":"${encodeBase64url(sealed)}"}`;
}

/** Whether an entry's event is sealed. No plain event has these members. */
export function isSealed(event: EntryEvent): event is SealedEvent {
  return !Object.hasOwn(event, "type") && typeof event.sealed === "string" && typeof event.key === "string" &&
    (event.class === "security" || event.class === "activity");
}

/**
 * The plain event of an entry, sealed or not.
 *
 * @param keys raw keys by their ids
 * @param seq the number of its entry
 * @throws Fault `unavailable` when it does not open: its key is gone, or it was altered or moved
 */
export function openEvent(keys: ReadonlyMap<string, Uint8Array>, seq: number, event: EntryEvent): EntryEvent {
  if (!isSealed(event)) return event;
  const raw = keys.get(event.key);
  if (raw === undefined) throw unopened(seq, `its key ${event.key} is gone`);
  try {
    const sealed = decodeBase64url(event.sealed);
    if (!sealed.ok || sealed.value.length < NONCE_BYTES + TAG_BYTES) throw new Error("it has no known form");
    const bytes = sealed.value;
    const decipher = createDecipheriv(CIPHER, raw, bytes.subarray(0, NONCE_BYTES), {
      authTagLength: TAG_BYTES,
    });
    decipher.setAAD(additionalData(event.key, seq));
    decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES));
    const plain = decipher.update(bytes.subarray(NONCE_BYTES, bytes.length - TAG_BYTES));
    decipher.final();
    const text = decodeUtf8(plain);
    if (!text.ok) throw new Error(text.reason);
    return JSON.parse(text.value);
  } catch (cause) {
    throw unopened(seq, "it was altered or moved", cause);
  }
}

function additionalData(keyId: string, seq: number): Uint8Array<ArrayBuffer> {
  // NUL cannot occur in a key's id.
  return encodeUtf8(`portcullis audit\0${keyId}\0${seq}`);
}

function unopened(seq: number, state: string, cause?: unknown): Fault {
  return new Fault("unavailable", `Cannot open the event of audit entry ${seq}: ${state}`, { cause });
}
