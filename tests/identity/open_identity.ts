// Open identity: the rooms below identity for its tests, real ones over a store in memory and a clock moved by hand.
import { generateSigningKey, openSigningKeys } from "../../src/identity/signing_keys.ts";
import { openUsers } from "../../src/identity/users.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { manualClock } from "../support/manual_clock.ts";

/** A vault in memory with no user in it. */
export async function openUserAccounts() {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const keyRing = await openKeyRing(store, parseMasterKey(generateMasterKey()), clock);
  const table = sealedTable(store, keyRing, "users");
  return { clock, store, keyRing, table, users: openUsers(table, keyRing, clock) };
}

/** A signing key with its PEM, to sign by hand. */
export async function makeSigningKeys() {
  const pem = await generateSigningKey();
  return { pem, keys: await openSigningKeys(pem) };
}
