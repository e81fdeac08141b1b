// Tests of the assembly of identity: a key that begins to sign at a start is in the trail, with the one before.
import { deepStrictEqual, rejects } from "node:assert/strict";
import { openIdentity } from "../../src/assembly/identity.ts";
import { type MemoryAuditTrail, memoryAuditTrail } from "../../src/audit/memory_audit_trail.ts";
import type { Config } from "../../src/config/config.ts";
import { Fault } from "../../src/faults/fault.ts";
import { generateSigningKey } from "../../src/identity/signing_keys.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { manualClock } from "../support/manual_clock.ts";
import { trustOver } from "../support/trust_over.ts";

async function openMatter() {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const keyRing = await openKeyRing(store, localMasterKey(parseMasterKey(generateMasterKey())), clock);
  const log = openLog({ level: "error", clock, sink: (bytes) => Promise.resolve(bytes.length) });
  const settings = {
    publicUrl: "https://ai.example.com",
    tokenTtlSeconds: 300,
    sessionTtlSeconds: 300,
    issuers: [],
  };
  /** Starts with a signing key of the settings, or without one. */
  return async (signingKey: string | undefined, trail: MemoryAuditTrail): Promise<string> => {
    clock.advance(1000);
    const config = { ...settings, signingKey } as unknown as Config;
    const { signingKeys } = await openIdentity(
      trustOver({ store, keyRing, trail }),
      config,
      clock,
      log,
      [],
    );
    return signingKeys.active().keyId;
  };
}

Deno.test("ASVS V16.3.3: the first signing key, and one that comes by the settings, are in the trail; a start with the same key is not", async () => {
  const start = await openMatter();
  const trail = memoryAuditTrail();
  const changed = { type: "command.changed", object: "signing_key" };
  const first = await start(undefined, trail);
  const firstStart = { ...changed, command: "first start", before: null, after: { active: first } };
  deepStrictEqual(trail.events, [firstStart]);
  await start(undefined, trail);
  const pem = await generateSigningKey();
  const second = await start(pem, trail);
  await start(pem, trail);
  deepStrictEqual(trail.events, [
    firstStart,
    { ...changed, command: "settings", before: { active: first }, after: { active: second } },
  ]);
});

Deno.test("a signing key of the settings that cannot be recorded does not begin to sign", async () => {
  const start = await openMatter();
  const trail = memoryAuditTrail();
  const first = await start(undefined, trail);
  trail.setFailing(true);
  await rejects(start(await generateSigningKey(), trail), Fault);
  trail.setFailing(false);
  deepStrictEqual(await start(undefined, trail), first);
});
