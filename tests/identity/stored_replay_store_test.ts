// Tests of the stored replay store: the contract, and that a restart forgets nothing.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { openStoredReplayStore } from "../../src/identity/stored_replay_store.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import { openSqliteRecordStore } from "../../src/store/sqlite_record_store.ts";
import { manualClock } from "../support/manual_clock.ts";
import { isFault } from "./is_fault.ts";
import { START_MS, testReplayStoreContract } from "./replay_store_contract.ts";
import { watchStore } from "./watched_store.ts";

testReplayStoreContract("stored replays", (clock) => openStoredReplayStore(openMemoryRecordStore(clock)));

Deno.test("RFC 7523 §3: what was used before a restart is used after it, until it ends, and then nothing of it is left", async () => {
  const folder = await Deno.makeTempDir({ prefix: "portcullis-replays-" });
  const clock = manualClock(START_MS);
  const restarted = async (
    run: (uses: (id: string) => Promise<boolean>) => Promise<void>,
  ): Promise<number> => {
    const store = openSqliteRecordStore(`${folder}/portcullis.db`, clock);
    const replays = openStoredReplayStore(store);
    try {
      await run(async (id) => await replays.firstUse(id, START_MS + 59_999.5));
      return (await store.list("used_assertions", { limit: 10 })).length;
    } finally {
      await store.close();
    }
  };
  try {
    strictEqual(await restarted(async (uses) => ok(await uses("a"))), 1);
    clock.advance(59_999);
    strictEqual(
      await restarted(async (uses) => deepStrictEqual([await uses("a"), await uses("b")], [false, true])),
      2,
    );
    clock.advance(5000); // the clock of another instance may be behind by so much
    strictEqual(await restarted(() => Promise.resolve()), 2);
    clock.advance(1);
    strictEqual(await restarted(() => Promise.resolve()), 0);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a store that fails is a fault: nobody is the first whose use is not kept", async () => {
  const store = watchStore(openMemoryRecordStore(manualClock(START_MS)));
  const replays = openStoredReplayStore(store);
  store.dieAfter(0);
  await rejects(async () => await replays.firstUse("a", START_MS + 60_000), isFault("unavailable"));
});
