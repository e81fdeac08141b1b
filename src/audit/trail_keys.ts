// Trail keys: the Ed25519 keys that sign the trail's checkpoints and the keys that seal its events, in the store, sealed themselves.
import { generateKeyPairSync } from "node:crypto";
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { newId } from "../encoding/ids.ts";
import { Fault } from "../faults/fault.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import { everyRecord, sealedTable } from "../vault/sealed_store.ts";
import { signVoucher } from "./trail/key_voucher.ts";
import type { EventSealingKey } from "./trail/sealed_event.ts";
import { formatVerifierKeys, noteSigner } from "./trail/signed_note.ts";

/** A key that signs checkpoints. */
export interface TrailSigningKey {
  /** `akey_…`. */
  readonly id: string;
  readonly madeAtMs: number;
  /** DER. */
  readonly pkcs8: Uint8Array<ArrayBuffer>;
  /** 32 bytes. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
}

/** A key that signed checkpoints before. Its private key is gone. */
export interface RetiredSigningKey {
  readonly id: string;
  readonly madeAtMs: number;
  /** 32 bytes. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
  /** Names the key behind it, signed by this one (`key_voucher.ts`). */
  readonly voucher: string;
}

/** What a trail is signed and sealed with. */
export interface TrailKeys {
  /** The name under which checkpoints are signed: `portcullis.` and a part of the installation's mark. */
  readonly name: string;
  readonly signing: TrailSigningKey;
  /** All signing keys before it, the newest first: they lead from the one that a trail saw last to the present one. */
  readonly older: readonly RetiredSigningKey[];
  /** Undefined where events are not sealed. */
  readonly sealing: EventSealingKey | undefined;
}

/** What a key of the trail is for. */
export type TrailKeyKind = "audit_signing" | "audit_sealing";

/** A key that was made. */
export interface MadeTrailKey {
  readonly kind: TrailKeyKind;
  readonly key: string;
}

/** Told of a key before it is stored; where it throws, nothing has changed. */
export type RecordTrailKey = (kind: TrailKeyKind, keyId: string) => Promise<void>;

/** The trail's keys of an installation: all its instances have the same. */
export interface OpenTrailKeys {
  current(): TrailKeys;
  /** All keys that ever sealed events and are still there, raw, by their ids. The same map as long as nothing changes. */
  sealingKeys(): ReadonlyMap<string, Uint8Array>;
  /** The keys that verify checkpoints, one a line, the newest last (C2SP verifier keys). */
  verifierKeys(): string;
  /** Keys that were made when these were opened. */
  readonly made: readonly MadeTrailKey[];
  /** From now on told whenever `current` has changed. */
  onChange(changed: (keys: TrailKeys) => void): void;
  /**
   * Makes a new signing key and, where events are sealed, a new sealing key. Of the signing key before, its public key and its
   * voucher for the new one are kept; the private key goes with the same write.
   *
   * @throws Fault `unavailable` when the store fails, or when others change the keys all the time · what `record` throws: nothing
   * has changed then
   */
  rotate(record?: RecordTrailKey): Promise<void>;
  /** Makes a new sealing key alone, where events are sealed. Throws as `rotate` does. */
  renewSealing(record?: RecordTrailKey): Promise<void>;
}

/** The table. */
export const TRAIL_KEYS_TABLE = "audit_keys";

const KEY_BYTES = 32;
/** At a start, a younger sealing key is gone on with: a server that starts over and over must not fill the table. */
const SEALING_KEY_STALE_MS = 86_400_000;
const NAME_DIGITS = 16;
/** Where another instance makes keys at the same moment, or the table is just sealed anew. */
const ATTEMPTS = 5;
/** Record keys are `KIND.ID`: the newest of a kind sorts last. */
const PREFIX = { audit_signing: "sign.", audit_sealing: "seal." } as const;

interface StoredSealingKey extends EventSealingKey {
  readonly madeAtMs: number;
}

interface StoredKeys {
  /** The one that signs, and its record's bytes; undefined before the first. */
  readonly signing: (TrailSigningKey & { readonly version: Uint8Array<ArrayBuffer> }) | undefined;
  /** The newest first, here and below. */
  readonly older: readonly RetiredSigningKey[];
  readonly sealing: readonly StoredSealingKey[];
}

/**
 * Opens the keys, making those that lack: one instance at a time (`store/start_lock.ts`).
 *
 * @param options.sealed whether events are sealed: only then there is a key for it
 * @throws Fault `unavailable` when the store fails or has something else in this table
 */
export async function openTrailKeys(options: {
  readonly store: RecordStore;
  readonly keyRing: KeyRing;
  readonly feed: Pick<ChangeFeed, "follow">;
  readonly clock: Clock;
  readonly sealed: boolean;
}): Promise<OpenTrailKeys> {
  const { store, keyRing, feed, clock, sealed } = options;
  const table = sealedTable(store, keyRing, TRAIL_KEYS_TABLE);
  const name = `portcullis.${keyRing.mark.value.toHex().slice(0, NAME_DIGITS)}`;
  const listeners: ((keys: TrailKeys) => void)[] = [];
  let sealingKeys: ReadonlyMap<string, Uint8Array> = new Map();
  let current: TrailKeys | undefined;
  let reloads = 0;

  async function read(): Promise<StoredKeys> {
    let signing: StoredKeys["signing"];
    const older: RetiredSigningKey[] = [];
    const sealing: StoredSealingKey[] = [];
    for await (const { key, value, version } of everyRecord(table)) {
      const id = key.slice(PREFIX.audit_signing.length);
      if (key.startsWith(PREFIX.audit_sealing)) sealing.unshift(parseSealingKey(id, value));
      else if (!key.startsWith(PREFIX.audit_signing) || signing !== undefined) throw unreadable(key);
      else if (isRetired(value)) older.unshift(parseRetiredKey(id, value));
      else signing = { ...parseSigningKey(id, value), version };
    }
    return { signing, older, sealing };
  }

  /** Stores new keys; a new signing key takes the private key of the one before with the same write. */
  async function make(
    kinds: readonly TrailKeyKind[],
    record: RecordTrailKey | undefined,
  ): Promise<readonly MadeTrailKey[]> {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const { signing, older: [retired], sealing: [sealing] } = await read();
      const newest = Math.max(signing?.madeAtMs ?? 0, retired?.madeAtMs ?? 0, sealing?.madeAtMs ?? 0);
      // The newest sorts last, also where the clock went back.
      const madeAtMs = Math.max(clock.now(), 1 + newest);
      const made: MadeTrailKey[] = [];
      const changes: RecordChange[] = [];
      for (const kind of kinds) {
        const key = newId("akey", madeAtMs);
        await record?.(kind, key);
        made.push({ kind, key });
        const value = kind === "audit_signing" ? newSigningKey() : newSealingKey();
        const place = PREFIX[kind] + key;
        changes.push(await table.changeOf(place, { ...value.stored, madeAtMs }, { expects: "nothing" }));
        if (value.publicKey === undefined || signing === undefined) continue;
        const voucher = signVoucher(noteSigner(name, signing.pkcs8), { name, publicKey: value.publicKey });
        const rest = { publicKey: encodeBase64url(signing.publicKey), madeAtMs: signing.madeAtMs, voucher };
        changes.push(
          await table.changeOf(PREFIX.audit_signing + signing.id, rest, { expects: signing.version }),
        );
      }
      if (await store.write(changes)) return made;
    }
    throw new Fault("unavailable", "Cannot make keys of the audit trail: others change them all the time");
  }

  async function reload(): Promise<void> {
    const mine = ++reloads;
    const { signing: stored, older, sealing } = await read();
    // Of two at the same time the later one has read the newer keys.
    if (mine !== reloads) return;
    if (stored === undefined) {
      throw new Fault(
        "unavailable",
        "Cannot open the audit trail's keys: the store has lost them; restore it",
      );
    }
    const { version: _, ...signing } = stored;
    const [newest] = sealing;
    const before = current;
    sealingKeys = new Map(sealing.map(({ id, raw }) => [id, raw]));
    current = {
      name,
      signing,
      older,
      sealing: sealed && newest !== undefined ? { id: newest.id, raw: newest.raw } : undefined,
    };
    if (before?.signing.id !== signing.id || before.sealing?.id !== current.sealing?.id) {
      for (const changed of listeners) changed(current);
    }
  }

  const stored = await read();
  const [newest] = stored.sealing;
  const isStale = newest === undefined || clock.now() - newest.madeAtMs >= SEALING_KEY_STALE_MS;
  const made = await make([
    ...stored.signing === undefined ? ["audit_signing" as const] : [],
    ...sealed && isStale ? ["audit_sealing" as const] : [],
  ], undefined);
  feed.follow(TRAIL_KEYS_TABLE, reload);
  await reload();

  const keys = (): TrailKeys => {
    if (current === undefined) throw new Fault("internal", "Cannot sign the audit trail: it has no keys");
    return current;
  };
  return {
    current: keys,
    sealingKeys: () => sealingKeys,
    verifierKeys() {
      const { signing, older } = keys();
      return formatVerifierKeys(
        [...older.toReversed(), signing].map(({ publicKey }) => ({ name, publicKey })),
      );
    },
    made,
    onChange(changed) {
      listeners.push(changed);
    },
    async rotate(record) {
      const kinds: TrailKeyKind[] = sealed ? ["audit_signing", "audit_sealing"] : ["audit_signing"];
      await make(kinds, record);
      await reload();
    },
    async renewSealing(record) {
      if (!sealed) return;
      await make(["audit_sealing"], record);
      await reload();
    },
  };
}

interface NewKey {
  readonly stored: Readonly<Record<string, string>>;
  /** Undefined for a sealing key. */
  readonly publicKey: Uint8Array<ArrayBuffer> | undefined;
}

function newSigningKey(): NewKey {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const { x = "" } = publicKey.export({ format: "jwk" });
  return {
    stored: {
      pkcs8: encodeBase64url(privateKey.export({ format: "der", type: "pkcs8" })),
      publicKey: x,
    },
    publicKey: Uint8Array.fromBase64(x, { alphabet: "base64url" }),
  };
}

function newSealingKey(): NewKey {
  const raw = encodeBase64url(crypto.getRandomValues(new Uint8Array(KEY_BYTES)));
  return { stored: { raw }, publicKey: undefined };
}

function parseSigningKey(id: string, value: JsonValue): TrailSigningKey {
  return {
    id,
    madeAtMs: timeOf(id, value),
    pkcs8: bytesOf(id, value, "pkcs8"),
    publicKey: bytesOf(id, value, "publicKey"),
  };
}

function isRetired(value: JsonValue): boolean {
  return Object.hasOwn(Object(value), "voucher");
}

function parseRetiredKey(id: string, value: JsonValue): RetiredSigningKey {
  const { voucher } = Object(value) as { readonly voucher?: unknown };
  if (typeof voucher !== "string") throw unreadable(id);
  return { id, madeAtMs: timeOf(id, value), publicKey: bytesOf(id, value, "publicKey"), voucher };
}

function parseSealingKey(id: string, value: JsonValue): StoredSealingKey {
  return { id, raw: bytesOf(id, value, "raw"), madeAtMs: timeOf(id, value) };
}

function timeOf(id: string, value: JsonValue): number {
  const { madeAtMs } = Object(value) as { readonly madeAtMs?: unknown };
  if (typeof madeAtMs !== "number") throw unreadable(id);
  return madeAtMs;
}

function bytesOf(id: string, value: JsonValue, name: string): Uint8Array<ArrayBuffer> {
  const text = (Object(value) as Readonly<Record<string, unknown>>)[name];
  const bytes = typeof text === "string" ? decodeBase64url(text) : undefined;
  if (bytes?.ok !== true) throw unreadable(id);
  return bytes.value;
}

function unreadable(key: string): Fault {
  return new Fault("unavailable", `Cannot read key ${key} of the audit trail: its record has no known form`);
}
