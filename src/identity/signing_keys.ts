// Signing keys: the Ed25519 keys of our own tokens, rotated with overlap, and their public halves as a JWK set (RFC 7517, RFC 8037).
import { calculateJwkThumbprint, exportJWK, importPKCS8 } from "jose";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { Fault } from "../faults/fault.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import type { RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import { everyRecord, isSameVersion, type SealedTable } from "../vault/sealed_store.ts";

/** A public key as RFC 8037 §2 writes it. */
export interface PublicJwk {
  readonly kty: "OKP";
  readonly crv: "Ed25519";
  readonly x: string;
  readonly kid: string;
  readonly use: "sig";
  readonly alg: "EdDSA";
}

/** A key as it may be shown. */
export interface SigningKeyState {
  readonly keyId: string;
  /** `retired`: signs nothing any more, and verifies what it signed until that has expired. */
  readonly state: "active" | "retired";
  /** Milliseconds since 1970. */
  readonly createdAtMs: number;
  readonly retiredAtMs: number | null;
}

/** The keys of our own tokens. */
export interface SigningKeys {
  /** The key that signs, with its RFC 7638 thumbprint: the active one, or for a moment still the one before. */
  active(): { readonly keyId: string; readonly privateKey: CryptoKey };
  /** The key that verifies tokens naming this `kid`; undefined for a `kid` that is not ours, or whose tokens have all expired. */
  publicKey(keyId: string): CryptoKey | undefined;
  jwks(): { readonly keys: readonly PublicJwk[] };
  /** The newest first. */
  list(): readonly SigningKeyState[];
  /**
   * From now on, or as soon as all instances know it, a new key signs. Returns its id.
   *
   * @throws Fault `conflict` when another rotation came between
   */
  rotate(): Promise<string>;
}

interface OpenKey extends SigningKeyState {
  readonly jwk: PublicJwk;
  readonly publicKey: CryptoKey;
  /** undefined once it is retired: then nothing is kept that could sign. */
  readonly privateKey: CryptoKey | undefined;
  readonly version: Uint8Array<ArrayBuffer>;
}

/** A new Ed25519 private key as PKCS #8 PEM. */
export async function generateSigningKey(): Promise<string> {
  const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]);
  const der = new Uint8Array(await crypto.subtle.exportKey("pkcs8", (pair as CryptoKeyPair).privateKey));
  return `-----BEGIN PRIVATE KEY-----\n${der.toBase64()}\n-----END PRIVATE KEY-----\n`;
}

const TABLE = "signing_keys";

/**
 * Opens the keys, making the first one in an empty table: one instance at a time (`store/start_lock.ts`).
 *
 * @param options.table `signing_keys`
 * @param options.feed tells of keys that others make
 * @param options.signsAfterMs for so long after a rotation became known here the key before goes on signing, so that no token comes
 * to an instance that does not know its key yet; 0 where there is one instance
 * @param options.configured PKCS #8 PEM of the settings: signs from now on if the table has never seen it; one that was
 * rotated out stays out
 * @param options.overlapMs how long a retired key verifies: the longest life of a token
 * @param options.recordRotation told the ids of the key that signed before (null: none) and of the next one, before that one
 * signs; of what happens at this opening. Whoever calls `rotate` records it
 * @throws Fault `unavailable` when the configured one is no Ed25519 private key · what `recordRotation` throws: nothing has
 * changed then
 */
export async function openSigningKeys(options: {
  readonly store: RecordStore;
  readonly table: SealedTable;
  readonly clock: Clock;
  readonly feed: Pick<ChangeFeed, "follow">;
  readonly signsAfterMs: number;
  readonly configured: string | undefined;
  readonly overlapMs: number;
  readonly recordRotation: (before: string | null, next: string) => Promise<void>;
}): Promise<SigningKeys> {
  const { store, table, clock, feed, signsAfterMs, configured, overlapMs, recordRotation } = options;
  let keys: ReadonlyMap<string, OpenKey> = new Map();
  // What was read before a change must not be kept after it.
  let changes = 0;
  // Those that were active one after the other; the first of them signs until the next one may.
  const signers: { readonly key: OpenKey; readonly fromMs: number }[] = [];

  // The key before may have signed until all instances had heard of the next one, and for as long as they wait then.
  const verifies = ({ retiredAtMs }: SigningKeyState): boolean =>
    retiredAtMs === null || retiredAtMs + overlapMs + 2 * signsAfterMs > clock.now();
  const activeKeys = (): OpenKey[] => newestFirst(keys).filter(({ state }) => state === "active");

  function signer(): OpenKey | undefined {
    // What has signed for the last time goes, so that nothing is kept that could.
    while (signers[1] !== undefined && signers[1].fromMs <= clock.monotonic()) signers.shift();
    return signers[0]?.key;
  }
  function keep(next: ReadonlyMap<string, OpenKey>): void {
    changes++;
    keys = next;
    const [active] = activeKeys();
    if (active !== undefined && active.keyId !== signers.at(-1)?.key.keyId) {
      signers.push({ key: active, fromMs: clock.monotonic() + signsAfterMs });
    }
    signer();
  }
  async function reload(): Promise<void> {
    for (;;) {
      const before = changes;
      const read = new Map<string, OpenKey>();
      for await (const { key, value, version } of everyRecord(table)) {
        const known = keys.get(key);
        const isSame = known !== undefined && isSameVersion(known.version, version);
        read.set(key, isSame ? known : await openKey(value, version));
      }
      if (before === changes) return keep(read);
    }
  }
  feed.follow(TABLE, reload);
  await reload();

  /** Makes a key the one that signs and retires the one before. Public halves stay, so that what is out stays out. */
  async function activate(pem: string, record?: typeof recordRotation): Promise<string> {
    const { kid } = await publicJwkOf(pem);
    const nowMs = clock.now();
    const before = activeKeys();
    const next = await table.changeOf(kid, { pem, createdAtMs: nowMs }, { expects: "nothing" });
    const retirements = await Promise.all(
      before.map((key) =>
        table.changeOf(key.keyId, recordOf({ ...key, retiredAtMs: nowMs }), { expects: key.version })
      ),
    );
    await record?.(before[0]?.keyId ?? null, kid);
    const made = await store.write([next, ...retirements]);
    await reload();
    if (made) return kid;
    throw new Fault("conflict", "Cannot rotate the signing key: another rotation came between", {
      detail: "Another rotation came between.",
    });
  }

  const configuredId = configured === undefined ? undefined : (await publicJwkOf(configured)).kid;
  if (configured !== undefined && configuredId !== undefined && !keys.has(configuredId)) {
    await activate(configured, recordRotation);
  } else if (activeKeys().length === 0) await activate(await generateSigningKey(), recordRotation);

  return {
    active() {
      const key = signer();
      if (key?.privateKey === undefined) throw new Fault("internal", "Cannot sign: there is no active key");
      return { keyId: key.keyId, privateKey: key.privateKey };
    },
    publicKey(keyId) {
      const key = keys.get(keyId);
      return key !== undefined && verifies(key) ? key.publicKey : undefined;
    },
    jwks: () => ({ keys: newestFirst(keys).filter(verifies).map(({ jwk }) => jwk) }),
    list: () =>
      newestFirst(keys).filter(verifies).map(({ keyId, state, createdAtMs, retiredAtMs }) => ({
        keyId,
        state,
        createdAtMs,
        retiredAtMs,
      })),
    rotate: async () => await activate(await generateSigningKey()),
  };
}

/** In the same order at each instance: the table's, where two are of one age. */
function newestFirst(keys: ReadonlyMap<string, OpenKey>): OpenKey[] {
  return [...keys.values()].sort((one, other) => other.createdAtMs - one.createdAtMs);
}

/** What is kept of a retired key: its public half. */
function recordOf({ jwk, createdAtMs, retiredAtMs }: OpenKey): JsonValue {
  return { x: jwk.x, createdAtMs, retiredAtMs };
}

async function openKey(value: JsonValue, version: Uint8Array<ArrayBuffer>): Promise<OpenKey> {
  const { pem, x, createdAtMs, retiredAtMs = null } = (value ?? {}) as Record<string, JsonValue>;
  if (typeof createdAtMs !== "number" || (retiredAtMs !== null && typeof retiredAtMs !== "number")) {
    throw new Fault("unavailable", "Cannot open a signing key: the record has no known form");
  }
  const jwk = typeof pem === "string" ? await publicJwkOf(pem) : await jwkOf(String(x));
  const { kty, crv } = jwk;
  return {
    keyId: jwk.kid,
    state: retiredAtMs === null ? "active" : "retired",
    createdAtMs,
    retiredAtMs,
    jwk,
    publicKey: await crypto.subtle.importKey("jwk", { kty, crv, x: jwk.x }, "Ed25519", false, ["verify"]),
    privateKey: typeof pem === "string" ? await importPKCS8(pem, "EdDSA", { extractable: false }) : undefined,
    version,
  };
}

async function publicJwkOf(pem: string): Promise<PublicJwk> {
  try {
    const { x } = await exportJWK(await importPKCS8(pem, "EdDSA", { extractable: true }));
    if (x === undefined) throw new TypeError("the key has no public half");
    return await jwkOf(x);
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

async function jwkOf(x: string): Promise<PublicJwk> {
  const kid = await calculateJwkThumbprint({ kty: "OKP", crv: "Ed25519", x });
  return { kty: "OKP", crv: "Ed25519", x, kid, use: "sig", alg: "EdDSA" };
}
