// Identity under test: all of its parts as the server assembles them, over a store in memory and a clock moved by hand.
import { type Identity, openIdentity } from "../../src/assembly/identity.ts";
import type { Opened } from "../../src/assembly/trust.ts";
import { memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import { parseConfig } from "../../src/config/config.ts";
import type { ChangeFeed } from "../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { type KeyRing, openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { type ManualClock, manualClock } from "./manual_clock.ts";
import { trustOver } from "./trust_over.ts";

export const ISSUER = "https://ai.example.com";

/** The parts; `close` ends what they hold. */
export interface IdentityUnderTest extends Identity {
  readonly clock: ManualClock;
  close(): Promise<void>;
}

/** What instances share. */
export interface SharedMatter {
  readonly clock: ManualClock;
  readonly store: RecordStore;
  readonly keyRing: KeyRing;
}

export async function makeSharedMatter(): Promise<SharedMatter> {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  return {
    clock,
    store,
    keyRing: await openKeyRing(store, localMasterKey(parseMasterKey(generateMasterKey())), clock),
  };
}

/**
 * @param variables settings besides the public address
 * @param instance what it shares with others, and what tells it of them
 */
export async function openIdentityUnderTest(
  variables: Readonly<Record<string, string>> = {},
  instance: Partial<SharedMatter> & { readonly feed?: ChangeFeed } = {},
): Promise<IdentityUnderTest> {
  const parsed = parseConfig({
    variables: { PORTCULLIS_PUBLIC_URL: ISSUER, ...variables },
    file: undefined,
    cores: 2,
    storeExists: () => false,
  });
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.mistakes));
  const { clock, store, keyRing } = { ...await makeSharedMatter(), ...instance };
  const log = openLog({ level: "error", clock, sink: (bytes) => Promise.resolve(bytes.length) });
  const opened: Opened = [];
  const trust = trustOver({ store, keyRing, trail: memoryAuditTrail(), feed: instance.feed });
  const identity = await openIdentity(trust, parsed.config, clock, log, opened);
  return {
    ...identity,
    clock,
    async close() {
      while (opened.length > 0) await opened.pop()?.();
      await log.flush();
    },
  };
}
