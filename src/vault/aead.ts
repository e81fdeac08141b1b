// AEAD: AES-256-GCM (NIST SP 800-38D) over bytes, with the key's id in the sealed value, its place bound to it, and no nonce used twice.
import { hash } from "node:crypto";
import { decodeUtf8, encodeUtf8 } from "../encoding/utf8.ts";
import { Fault } from "../faults/fault.ts";

/** A data key with its name, as one process uses it: two of one key share no nonce. */
export interface SealingKey {
  /** Printable ASCII, 1 to 255 characters. */
  readonly id: string;
  /** What sealing takes next. */
  next(): Promise<SubKeyUse>;
  /** The key of a sub-key's salt. */
  subKey(salt: Uint8Array<ArrayBuffer>): Promise<CryptoKey>;
  /** The key itself, for values of version 1. */
  readonly whole: CryptoKey;
}

/** A sub-key, and a nonce that it never had and never has again. */
interface SubKeyUse {
  readonly key: CryptoKey;
  readonly salt: Uint8Array<ArrayBuffer>;
  readonly counter: number;
}

/*
 * A sealed value: version (1 byte, 2) · length of key id (1) · key id · salt (16) · counter (4) · length of the revision (1; 0 or 16) ·
 * revision · ciphertext with its 16-byte tag.
 *
 * What seals is no data key but a sub-key of it: HKDF-SHA-256 (RFC 5869) with a random salt that each process draws for itself, and draws
 * anew when it starts again. Its nonces are 0, 1, 2 … (SP 800-38D §8.2.1), so nothing about them has to survive a crash. After 2^32 of
 * them another salt is drawn.
 *
 * Additional data: "portcullis", then all of the header, then the place, so that no part of it and no move to another record goes
 * unnoticed. Version 1, which is still opened: version (1) · length of key id · key id · random nonce (12) · ciphertext, under the data
 * key itself.
 */
const NAME = encodeUtf8("portcullis\0");
const VERSION = 2;
const FIRST_VERSION = 1;
const SALT_BYTES = 16;
const COUNTER_BYTES = 4;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const REVISION_BYTES = 16;
const USES_MAX = 2 ** 32;
/** Each process that sealed something has its own; the ones that were needed last stay derived. */
const SUB_KEYS_MAX = 1000;

/** Imports 32 raw bytes as a sealing key; the bytes are not kept, and cannot be taken out of it again. */
export async function importSealingKey(
  id: string,
  raw: Uint8Array<ArrayBuffer>,
  { usesMax = USES_MAX }: { readonly usesMax?: number } = {},
): Promise<SealingKey> {
  if (id.length < 1 || id.length > 255 || raw.length !== 32) {
    throw new Fault("internal", "Cannot import a sealing key: its id or its length is none of a key");
  }
  const root = await crypto.subtle.importKey("raw", raw, "HKDF", false, ["deriveKey"]);
  const whole = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["decrypt"]);
  const info = encodeUtf8(`portcullis seal ${VERSION}\0${id}`);
  const derived = new Map<string, Promise<CryptoKey>>();

  function subKey(salt: Uint8Array<ArrayBuffer>): Promise<CryptoKey> {
    const name = salt.toHex();
    const key = derived.get(name) ??
      crypto.subtle.deriveKey(
        { name: "HKDF", hash: "SHA-256", salt, info },
        root,
        { name: "AES-GCM", length: 256 },
        false,
        ["encrypt", "decrypt"],
      );
    // The one that was needed last comes last.
    derived.delete(name);
    derived.set(name, key);
    if (derived.size > SUB_KEYS_MAX) derived.delete(derived.keys().next().value ?? "");
    return key;
  }

  let salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
  let uses = 0;
  return {
    id,
    async next() {
      if (uses === usesMax) {
        salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
        uses = 0;
      }
      // Counted before anything is waited for: whoever comes meanwhile gets another.
      const use = { salt, counter: uses++ };
      return { ...use, key: await subKey(use.salt) };
    },
    subKey,
    whole,
  };
}

/**
 * Seals bytes.
 *
 * @param place where the value will rest (table and key, or file); the same text is needed to open it
 */
export function seal(
  key: SealingKey,
  place: string,
  plain: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  return sealAs(key, place, plain, new Uint8Array());
}

/**
 * Seals what a sealed value holds under another key. It is still the same value: `revisionOf` says so.
 *
 * @throws Fault `unavailable` when the value does not open with `from`
 */
export async function reseal(
  from: SealingKey,
  to: SealingKey,
  place: string,
  sealed: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  return await sealAs(to, place, await open(from, place, sealed), revisionOf(sealed));
}

async function sealAs(
  key: SealingKey,
  place: string,
  plain: Uint8Array<ArrayBuffer>,
  revision: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const id = encodeUtf8(key.id);
  const { salt, counter, key: subKey } = await key.next();
  const header = new Uint8Array(3 + id.length + SALT_BYTES + COUNTER_BYTES + revision.length);
  header.set([VERSION, id.length]);
  header.set(id, 2);
  header.set(salt, 2 + id.length);
  new DataView(header.buffer).setUint32(2 + id.length + SALT_BYTES, counter);
  header.set([revision.length], 2 + id.length + SALT_BYTES + COUNTER_BYTES);
  header.set(revision, 3 + id.length + SALT_BYTES + COUNTER_BYTES);
  const ciphertext = await crypto.subtle.encrypt(
    { name: "AES-GCM", iv: nonceOf(counter), additionalData: additionalData(header, place) },
    subKey,
    plain,
  );
  const sealed = new Uint8Array(header.length + ciphertext.byteLength);
  sealed.set(header);
  sealed.set(new Uint8Array(ciphertext), header.length);
  return sealed;
}

/**
 * The id of the key that sealed a value. Not proved until the value is opened.
 *
 * @throws Fault `unavailable` when the bytes are no sealed value
 */
export function sealingKeyIdOf(sealed: Uint8Array<ArrayBuffer>): string {
  const parsed = parse(sealed);
  if (parsed === undefined) throw unopened("it has no known form");
  return parsed.keyId;
}

/** The same of bytes that may be no sealed value: then undefined. */
export function sealingKeyIdIn(bytes: Uint8Array<ArrayBuffer>): string | undefined {
  return parse(bytes)?.keyId;
}

/**
 * 16 bytes that are another with each sealing of a value, and stay when it is resealed under another key. No key is needed to tell; not
 * proved until the value is opened.
 */
export function revisionOf(sealed: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const revision = parse(sealed)?.revision;
  return revision !== undefined && revision.length > 0
    ? revision.slice()
    : new Uint8Array(hash("sha256", sealed, "buffer")).slice(0, REVISION_BYTES);
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
  const parsed = parse(sealed);
  if (parsed === undefined) throw unopened("it has no known form");
  if (parsed.keyId !== key.id) throw unopened("another key sealed it");
  const { salt, iv, header, ciphertext } = parsed;
  try {
    const [subKey, additional] = salt === undefined
      ? [key.whole, firstAdditionalData(key.id, place)]
      : [await key.subKey(salt), additionalData(header, place)];
    return new Uint8Array(
      await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData: additional }, subKey, ciphertext),
    );
  } catch {
    throw unopened("it was altered or moved, or the key is wrong");
  }
}

interface Parsed {
  readonly keyId: string;
  readonly header: Uint8Array<ArrayBuffer>;
  /** undefined: the data key itself sealed it. */
  readonly salt: Uint8Array<ArrayBuffer> | undefined;
  readonly iv: Uint8Array<ArrayBuffer>;
  readonly revision: Uint8Array<ArrayBuffer>;
  readonly ciphertext: Uint8Array<ArrayBuffer>;
}

function parse(sealed: Uint8Array<ArrayBuffer>): Parsed | undefined {
  const [version, idBytes = 0] = sealed;
  const id = decodeUtf8(sealed.subarray(2, 2 + idBytes));
  if (idBytes === 0 || !id.ok) return undefined;
  const keyId = id.value;
  const at = 2 + idBytes;
  if (version === FIRST_VERSION) {
    const end = at + NONCE_BYTES;
    if (sealed.length < end + TAG_BYTES) return undefined;
    const nothing = sealed.subarray(0, 0);
    const [header, iv] = [sealed.subarray(0, end), sealed.subarray(at, end)];
    return { keyId, header, salt: undefined, iv, revision: nothing, ciphertext: sealed.subarray(end) };
  }
  const counterAt = at + SALT_BYTES;
  const revisionAt = counterAt + COUNTER_BYTES + 1;
  const revisionBytes = sealed[revisionAt - 1] ?? 0;
  const end = revisionAt + revisionBytes;
  if (
    version !== VERSION || (revisionBytes !== 0 && revisionBytes !== REVISION_BYTES) ||
    sealed.length < end + TAG_BYTES
  ) return undefined;
  const counter = new DataView(sealed.buffer, sealed.byteOffset).getUint32(counterAt);
  return {
    keyId,
    header: sealed.subarray(0, end),
    salt: sealed.slice(at, counterAt),
    iv: nonceOf(counter),
    revision: sealed.subarray(revisionAt, end),
    ciphertext: sealed.subarray(end),
  };
}

function nonceOf(counter: number): Uint8Array<ArrayBuffer> {
  const nonce = new Uint8Array(NONCE_BYTES);
  new DataView(nonce.buffer).setUint32(NONCE_BYTES - COUNTER_BYTES, counter);
  return nonce;
}

/** A header tells its own length: no two pairs of header and place give the same bytes. */
function additionalData(header: Uint8Array, place: string): Uint8Array<ArrayBuffer> {
  const rest = encodeUtf8(place);
  const data = new Uint8Array(NAME.length + header.length + rest.length);
  data.set(NAME);
  data.set(header, NAME.length);
  data.set(rest, NAME.length + header.length);
  return data;
}

function firstAdditionalData(keyId: string, place: string): Uint8Array<ArrayBuffer> {
  // NUL cannot occur in a key id, so that no two pairs of id and place give the same bytes.
  return encodeUtf8(`portcullis\0${FIRST_VERSION}\0${keyId}\0${place}`);
}

function unopened(state: string): Fault {
  return new Fault("unavailable", `Cannot open a sealed value: ${state}`);
}
