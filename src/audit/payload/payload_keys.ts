// Payload keys: one for each subject whose prompts or answers are kept. With its key, all of a subject's payloads are gone at once.
import { decodeBase64url, encodeBase64url } from "../../encoding/base64url.ts";
import type { JsonValue } from "../../encoding/canonical_json.ts";
import { newId } from "../../encoding/ids.ts";
import { Fault, toFault } from "../../faults/fault.ts";
import type { ChangeFeed } from "../../store/change_feed.ts";
import type { RecordStore } from "../../store/record_store.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Clock } from "../../time/clock.ts";
import type { KeyRing } from "../../vault/key_ring.ts";
import { sealedTable } from "../../vault/sealed_store.ts";
import type { AuditTrail } from "../audit_trail.ts";
import type { PayloadKey } from "./payload_seal.ts";
import { identityText } from "../subject_labels.ts";

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
   * @throws Fault `unavailable` also where it is destroyed and could not be taken out of the files: see `unscrubbed`
   */
  destroy(key: StoredPayloadKey): Promise<boolean>;
  /**
   * The id of a key of a subject that is destroyed, and may still stand in the files of the store. It is scrubbed in the background,
   * also by the next process; `scrub` need not be called for it.
   */
  unscrubbed(issuer: string, subject: string): Promise<string | undefined>;
  /**
   * Takes all destroyed keys out of the files of the store.
   *
   * @throws Fault `unavailable` while somebody else reads them as well
   */
  scrub(): Promise<void>;
  /** What is still to be scrubbed is left to the next process. Never rejects. */
  close(): Promise<void>;
}

const TABLE = "payload_keys";
/** Ids of keys that were deleted and may still be read from the files of the store. */
const DESTROYED_TABLE = "destroyed_payload_keys";
const DESTROYED_PAGE = 1000;
const RETRY_MS = 1000;
const RETRY_MS_MAX = 60_000;
const KEY_BYTES = 32;
const KNOWN_MAX = 10_000;

/** Opens the keys over the store. What an earlier process left to be scrubbed is scrubbed from now on. */
export function openPayloadKeys({ store, keyRing, feed, trail, clock, log, retryMs = RETRY_MS }: {
  readonly store: RecordStore;
  readonly keyRing: Pick<KeyRing, "seal" | "open" | "pseudonym">;
  readonly feed: Pick<ChangeFeed, "follow" | "isCurrent">;
  readonly trail: Pick<AuditTrail, "record">;
  readonly clock: Clock;
  readonly log: Pick<Log, "write">;
  /** When it is first tried again to scrub. */
  readonly retryMs?: number;
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

  async function scrub(): Promise<void> {
    for (;;) {
      // Looked for first: what is destroyed behind this needs another scrub.
      const due = await store.list(DESTROYED_TABLE, { limit: DESTROYED_PAGE });
      if (due.length === 0) return;
      await store.scrub();
      await store.write(due.map(({ key }) => ({ table: DESTROYED_TABLE, key, value: undefined })));
    }
  }

  let scrubbing = Promise.resolve();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let delayMs = retryMs;
  let isClosed = false;

  function scrubInBackground(): void {
    scrubbing = scrubbing.then(scrub).then(() => {
      delayMs = retryMs;
    }, scrubLater);
  }
  function scrubLater(thrown: unknown): void {
    if (isClosed || timer !== undefined) return;
    // Once, until it works.
    if (delayMs === retryMs) {
      log.write("warn", "payload.key_not_scrubbed", { reason: toFault(thrown).message });
    }
    timer = setTimeout(() => {
      timer = undefined;
      scrubInBackground();
    }, delayMs);
    delayMs = Math.min(RETRY_MS_MAX, 2 * delayMs);
  }
  scrubInBackground();

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
      const deletion = [
        await table.changeOf(pseudonym, undefined, { expects: version }),
        { table: DESTROYED_TABLE, key: id, value: new Uint8Array([1]) },
      ];
      try {
        // Forgotten also where only the answer was lost.
        const isDestroyed = await store.write(deletion).finally(() => forget(pseudonym));
        if (isDestroyed) await scrub();
        return isDestroyed;
      } catch (thrown) {
        scrubLater(thrown);
        throw thrown;
      }
    },
    async unscrubbed(issuer, subject) {
      const ids = `${pseudonymOf(issuer, subject)}.`;
      const [first] = await store.list(DESTROYED_TABLE, { after: ids, limit: 1 });
      return first?.key.startsWith(ids) ? first.key : undefined;
    },
    scrub,
    async close() {
      isClosed = true;
      clearTimeout(timer);
      await scrubbing;
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
