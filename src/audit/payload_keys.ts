// Payload keys: one for each subject whose prompts or answers are kept. With its key, all of a subject's payloads are gone at once.
import { decodeBase64url, encodeBase64url } from "../encoding/base64url.ts";
import type { JsonValue } from "../encoding/canonical_json.ts";
import { newId } from "../encoding/ids.ts";
import { Fault } from "../faults/fault.ts";
import type { ChangeFeed } from "../store/change_feed.ts";
import type { RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import { sealedTable } from "../vault/sealed_store.ts";
import type { AuditTrail } from "./audit_trail.ts";
import type { PayloadKey } from "./payload_seal.ts";
import { identityText } from "./subject_labels.ts";

/** A key that stands in the store. */
export interface StoredPayloadKey extends PayloadKey {
  readonly issuer: string;
  readonly subject: string;
  readonly createdAtMs: number;
  /** What stood in the store when it was read. */
  readonly version: Uint8Array<ArrayBuffer>;
}

/** The keys. All methods throw Fault `unavailable` when the store fails. */
export interface PayloadKeys {
  /**
   * The key of a subject, made where there is none; that is on record before.
   *
   * @throws Fault `unavailable` without a durable record as well
   */
  keyOf(issuer: string, subject: string): Promise<PayloadKey>;
  /** The key of a subject, where there is one. */
  find(issuer: string, subject: string): Promise<StoredPayloadKey | undefined>;
  /** A key by its id; undefined where it was destroyed. */
  read(id: string): Promise<PayloadKey | undefined>;
  /**
   * Destroys a key, also in the files of the store: nothing that it sealed opens any more. The next payload of its subject gets
   * a new one.
   *
   * @returns false when it was changed or destroyed meanwhile
   */
  destroy(key: StoredPayloadKey): Promise<boolean>;
}

const TABLE = "payload_keys";
const KEY_BYTES = 32;
const KNOWN_MAX = 10_000;

/** Opens the keys over the store. */
export function openPayloadKeys({ store, keyRing, feed, trail, clock }: {
  readonly store: RecordStore;
  readonly keyRing: Pick<KeyRing, "seal" | "open" | "pseudonym">;
  readonly feed: Pick<ChangeFeed, "follow" | "isCurrent">;
  readonly trail: Pick<AuditTrail, "record">;
  readonly clock: Clock;
}): PayloadKeys {
  const table = sealedTable(store, keyRing as KeyRing, TABLE);
  /** By pseudonym. */
  const known = new Map<string, PayloadKey>();
  /** Of the last change that was heard of: what was read before it is not kept. */
  let changes = 0;

  function forget(pseudonym: string | undefined): void {
    changes++;
    if (pseudonym === undefined) known.clear();
    else known.delete(pseudonym);
  }
  feed.follow(TABLE, forget);

  const pseudonymOf = (issuer: string, subject: string): string =>
    keyRing.pseudonym("subject", identityText(issuer, subject));

  async function readByPseudonym(pseudonym: string): Promise<StoredPayloadKey | undefined> {
    const seen = changes;
    const record = await table.read(pseudonym);
    if (record === undefined) return undefined;
    const key = { ...parseKey(record.value), version: record.version };
    if (seen === changes) {
      if (known.size >= KNOWN_MAX) known.clear();
      known.set(pseudonym, { id: key.id, raw: key.raw });
    }
    return key;
  }

  async function make(pseudonym: string, issuer: string, subject: string): Promise<void> {
    const createdAtMs = clock.now();
    const id = `${pseudonym}.${newId("pay", createdAtMs)}`;
    await trail.record({ type: "key.changed", kind: "payload", key: id, change: "made" });
    const raw = encodeBase64url(crypto.getRandomValues(new Uint8Array(KEY_BYTES)));
    // Where another request or instance was faster, its key is the one, and this one never was.
    await table.create(pseudonym, { id, raw, issuer, subject, createdAtMs });
  }

  return {
    async keyOf(issuer, subject) {
      const pseudonym = pseudonymOf(issuer, subject);
      const atHand = feed.isCurrent() ? known.get(pseudonym) : undefined;
      if (atHand !== undefined) return atHand;
      const stored = await readByPseudonym(pseudonym);
      if (stored !== undefined) return stored;
      await make(pseudonym, issuer, subject);
      const made = await readByPseudonym(pseudonym);
      if (made === undefined) {
        throw new Fault("unavailable", "Cannot seal a payload: its key was destroyed as it was made");
      }
      return made;
    },
    find: (issuer, subject) => readByPseudonym(pseudonymOf(issuer, subject)),
    async read(id) {
      const key = await readByPseudonym(id.split(".", 1)[0] ?? "");
      return key?.id === id ? key : undefined;
    },
    async destroy({ id, version }) {
      const pseudonym = id.split(".", 1)[0] ?? "";
      const isDestroyed = await store.write([
        await table.changeOf(pseudonym, undefined, { expects: version }),
      ]);
      // The feed tells this instance only where there are others.
      forget(pseudonym);
      if (isDestroyed) await store.scrub();
      return isDestroyed;
    },
  };
}

function parseKey(value: JsonValue): Omit<StoredPayloadKey, "version"> {
  const { id, raw, issuer, subject, createdAtMs } = value as { readonly [name: string]: JsonValue };
  const bytes = typeof raw === "string" ? decodeBase64url(raw) : undefined;
  if (
    typeof id !== "string" || typeof issuer !== "string" || typeof subject !== "string" ||
    typeof createdAtMs !== "number" || bytes?.ok !== true || bytes.value.length !== KEY_BYTES
  ) throw new Fault("unavailable", "Cannot read a payload key: its record has another form");
  return { id, raw: bytes.value, issuer, subject, createdAtMs };
}
