// Open identity: the parts of identity for its tests, real ones over a store in memory and a clock moved by hand.
import { openRevocations } from "../../src/identity/revocation.ts";
import { openSessions } from "../../src/identity/sessions.ts";
import { generateSigningKey, openSigningKeys } from "../../src/identity/signing_keys.ts";
import { openStandings, type Standing } from "../../src/identity/standings.ts";
import { openTeams } from "../../src/identity/teams.ts";
import { openUsers, userStanding } from "../../src/identity/users.ts";
import { type ChangeFeed, NO_OTHERS } from "../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { type SealedTable, sealedTable } from "../../src/vault/sealed_store.ts";
import { type ManualClock, manualClock } from "../support/manual_clock.ts";
import { watchStore } from "./watched_store.ts";

/** What survives a restart. */
export interface IdentityMatter {
  readonly clock: ManualClock;
  readonly store: RecordStore;
  readonly masterKey: Uint8Array<ArrayBuffer>;
}

/** Longer than any access token lives. */
export const SESSION_TTL_SECONDS = 30 * 86_400;

/** The parts, over an empty vault or, for a restart, over the matter of parts that were opened before. */
export async function openIdentityParts(
  before: Partial<IdentityMatter> = {},
  feed: ChangeFeed = NO_OTHERS,
) {
  const clock = before.clock ?? manualClock();
  const store = before.store ?? openMemoryRecordStore(clock);
  const masterKey = before.masterKey ?? parseMasterKey(generateMasterKey());
  const keyRing = await openKeyRing(store, localMasterKey(masterKey), clock);
  const sealed = (table: string): SealedTable => sealedTable(store, keyRing, table);
  const matter = { store, sealed, keyRing, clock, feed };
  const standings = openStandings(
    async (subject): Promise<Standing | undefined> => userStanding((await users.read(subject))?.value),
    feed,
  );
  const teams = await openTeams(matter);
  const users = await openUsers({ ...matter, teams, standings });
  const revocations = await openRevocations(store, clock, feed);
  const sessions = openSessions({ ...matter, revocations, ttlSeconds: SESSION_TTL_SECONDS });
  return { ...matter, masterKey, standings, teams, users, revocations, sessions };
}

/** The parts over an empty store under watch. */
export async function openWatchedParts() {
  const clock = manualClock();
  const store = watchStore(openMemoryRecordStore(clock));
  return { ...await openIdentityParts({ clock, store }), store };
}

/** A signing key with its PEM, to sign by hand. */
export async function makeSigningKeys() {
  const pem = await generateSigningKey();
  const { store, sealed, clock } = await openIdentityParts();
  const table = sealed("signing_keys");
  return {
    pem,
    keys: await openSigningKeys({
      store,
      table,
      clock,
      feed: NO_OTHERS,
      signsAfterMs: 0,
      configured: pem,
      overlapMs: 3_600_000,
      recordRotation: () => Promise.resolve(),
    }),
  };
}
