// Master key: the 256 bits over all other keys, here or in a key service. It wraps data keys and never seals data itself.
import { createHmac } from "node:crypto";
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import { Fault } from "../faults/fault.ts";
import { importSealingKey, open, seal, type SealingKey, sealingKeyIdOf } from "./aead.ts";

/** What wraps data keys, wherever it is. Every method throws Fault `unavailable` when the master key cannot be used. */
export interface MasterKey {
  /** Which key (of the service: which version) wraps now. No secret; it stands in what is wrapped. */
  readonly id: string;
  /**
   * Wraps a data key under the newest master key.
   *
   * @param place where the wrapped key will rest; the same text is needed to unwrap it
   */
  wrap(place: string, raw: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  unwrap(place: string, wrapped: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  /** Whether what is wrapped is so under the newest master key. */
  isCurrent(wrapped: Uint8Array<ArrayBuffer>): Promise<boolean>;
  /**
   * Before all data keys are wrapped anew: takes up the master key that its holder has put first meanwhile; where this server is the
   * holder, makes a new one. Older ones still unwrap.
   */
  renew(): Promise<void>;
  /** After it, when no data key is under an older master key any more: drops the older ones where this server is the holder. */
  settle(): Promise<void>;
}

/** Master keys: the first wraps, all of them unwrap. */
export type MasterKeys = readonly [Uint8Array<ArrayBuffer>, ...Uint8Array<ArrayBuffer>[]];

/** Who holds the keys. */
export interface MasterKeySource {
  /** The keys as they stand there now. */
  read(): MasterKeys;
  /** As in MasterKey; the keys from now on. */
  renew(): Promise<MasterKeys>;
  settle(): Promise<MasterKeys>;
}

/** Bytes of a master key. */
export const MASTER_KEY_BYTES = 32;
/** How a wrapped key named its master key when there could be one only. */
const UNNAMED = "master";
const ID_BYTES = 9;

/** A new random master key, as text for a file or a secret mount. */
export function generateMasterKey(): string {
  return encodeBase64url(crypto.getRandomValues(new Uint8Array(MASTER_KEY_BYTES)));
}

/**
 * Text to master key bytes.
 *
 * @throws Fault `unavailable` when it is not 32 bytes in base64url
 */
export function parseMasterKey(text: string): Uint8Array<ArrayBuffer> {
  const bytes = decodeBase64url(text.trim());
  if (!bytes.ok || bytes.value.length !== MASTER_KEY_BYTES) {
    throw new Fault("unavailable", "Cannot read the master key: it is not 32 bytes in base64url");
  }
  return bytes.value;
}

/**
 * Text to master keys, separated by white space.
 *
 * @throws Fault `unavailable` when one of them is not 32 bytes in base64url
 */
export function parseMasterKeys(text: string): MasterKeys {
  const [current = "", ...older] = text.trim().split(/\s+/);
  return [parseMasterKey(current), ...older.map(parseMasterKey)];
}

/** A master key that is at hand and does not change while this process runs. */
export function localMasterKey(
  current: Uint8Array<ArrayBuffer>,
  older: readonly Uint8Array<ArrayBuffer>[] = [],
): MasterKey {
  const keys: MasterKeys = [current, ...older];
  return masterKeyFrom({
    read: () => keys,
    renew: () => Promise.resolve(keys),
    settle: () => Promise.resolve(keys),
  });
}

/** A master key at hand, from whoever holds it. */
export function masterKeyFrom(source: MasterKeySource): MasterKey {
  let ring = ringOf(source.read());
  return {
    get id() {
      return ring.id;
    },
    wrap: async (place, raw) => await seal(await importSealingKey(ring.id, ring.current), place, raw),
    async unwrap(place, wrapped) {
      const id = sealingKeyIdOf(wrapped);
      // Another instance may have taken up a newer one, which the holder has here as well by now.
      if (id !== UNNAMED && !ring.byId.has(id)) ring = ringOf(source.read(), ring);
      return await unwrap(ring, id, place, wrapped);
    },
    isCurrent: (wrapped) => Promise.resolve(sealingKeyIdOf(wrapped) === ring.id),
    async renew() {
      ring = ringOf(await source.renew(), ring);
    },
    async settle() {
      ring = ringOf(await source.settle());
    },
  };
}

interface Ring {
  readonly id: string;
  readonly current: Uint8Array<ArrayBuffer>;
  readonly byId: ReadonlyMap<string, Uint8Array<ArrayBuffer>>;
}

/** @param before whose keys still unwrap, also where the holder has dropped them: not all data keys are wrapped anew yet */
function ringOf(keys: MasterKeys, before?: Ring): Ring {
  const byId = new Map(before?.byId);
  for (const raw of keys) byId.set(idOf(raw), raw);
  return { id: idOf(keys[0]), current: keys[0], byId };
}

/** A name that follows from the key, so that the holder need not give one. 72 bits of a keyed hash say nothing of 256 random ones. */
function idOf(raw: Uint8Array<ArrayBuffer>): string {
  const digest = createHmac("sha256", raw).update("portcullis master key").digest();
  return `${UNNAMED}_${encodeBase64url(digest.subarray(0, ID_BYTES))}`;
}

async function unwrap(
  ring: Ring,
  id: string,
  place: string,
  wrapped: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const named = ring.byId.get(id);
  if (named !== undefined) return await open(await importSealingKey(id, named), place, wrapped);
  if (id !== UNNAMED) {
    throw new Fault(
      "unavailable",
      `Cannot unwrap a key: it is under ${id}, here ${[...ring.byId.keys()].join(", ")}`,
    );
  }
  // From a store of the time when wrapped keys did not say which: it is one of these.
  const candidates: SealingKey[] = [];
  for (const raw of ring.byId.values()) candidates.push(await importSealingKey(UNNAMED, raw));
  let last: unknown;
  for (const candidate of candidates) {
    try {
      return await open(candidate, place, wrapped);
    } catch (thrown) {
      last = thrown;
    }
  }
  throw last;
}

/** In the place of an id, for what was wrapped when there could be one key only. */
export const UNNAMED_MASTER_KEY = "unnamed";

/** The id of the master key that a wrapped data key is under, as it says. */
export function masterKeyIdOf(wrapped: Uint8Array<ArrayBuffer>): string {
  const service = /^vault:v\d+(?=:)/.exec(new TextDecoder().decode(wrapped.subarray(0, 20)))?.[0];
  const id = service ?? sealingKeyIdOf(wrapped);
  return id === UNNAMED ? UNNAMED_MASTER_KEY : id;
}
