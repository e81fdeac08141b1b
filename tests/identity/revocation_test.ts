// Tests of revocation: in this process once it is durable, after every restart, and forgotten when it no longer matters.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { openRevocations } from "../../src/identity/revocation.ts";
import { NO_OTHERS } from "../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { openSqliteRecordStore } from "../../src/store/sqlite_record_store.ts";
import { manualClock } from "../support/manual_clock.ts";
import { ManualFeed } from "../support/manual_feed.ts";
import { isFault } from "./is_fault.ts";
import { watchStore } from "./watched_store.ts";

Deno.test("ASVS V7.4.1: a revocation holds when it is durable, and for that token alone", async () => {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const revocations = await openRevocations(store, clock, NO_OTHERS);
  await revocations.revoke("tok_1", clock.now() + 1000);
  deepStrictEqual([revocations.isRevoked("tok_1"), revocations.isRevoked("tok_2")], [true, false]);
  strictEqual((await openRevocations(store, clock, NO_OTHERS)).isRevoked("tok_1"), true);
});

Deno.test("revocations survive a restart of the store's file, more of them than a page holds", async () => {
  const folder = Deno.makeTempDirSync({ prefix: "revocation-" });
  try {
    const clock = manualClock();
    const store = openSqliteRecordStore(`${folder}/x.db`, clock);
    const revocations = await openRevocations(store, clock, NO_OTHERS);
    const ids = Array.from({ length: 1001 }, (_, index) => `tok_${String(index).padStart(5, "0")}`);
    for (const id of ids) await revocations.revoke(id, clock.now() + 900_000);
    await revocations.revoke("tok_short", clock.now() + 1000);
    await store.close();
    clock.advance(1000);
    const reopened = openSqliteRecordStore(`${folder}/x.db`, clock);
    const again = await openRevocations(reopened, clock, NO_OTHERS);
    ok(ids.every((id) => again.isRevoked(id)));
    strictEqual(again.isRevoked("tok_short"), false); // its token has expired by itself
    strictEqual(again.isRevoked("tok_other"), false);
    await reopened.close();
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("revoking twice is revoking once", async () => {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const revocations = await openRevocations(store, clock, NO_OTHERS);
  await revocations.revoke("tok_1", clock.now() + 1000);
  await revocations.revoke("tok_1", clock.now() + 1000);
  strictEqual(revocations.isRevoked("tok_1"), true);
  strictEqual((await store.list("revoked_tokens", { limit: 10 })).length, 1);
});

Deno.test("ASVS V15.2.2: memory does not grow with tokens that have expired, and no live revocation is lost to it", async () => {
  const clock = manualClock();
  const revocations = await openRevocations(openMemoryRecordStore(clock), clock, NO_OTHERS);
  await revocations.revoke("tok_live", clock.now() + 3_600_000);
  for (let index = 0; index < 900; index++) await revocations.revoke(`tok_old${index}`, clock.now() + 10);
  clock.advance(10);
  strictEqual(revocations.isRevoked("tok_old0"), true); // not yet swept: harmless, it has expired
  for (let index = 0; index < 200; index++) {
    await revocations.revoke(`tok_new${index}`, clock.now() + 3_600_000);
  }
  strictEqual(revocations.isRevoked("tok_old0"), false);
  strictEqual(revocations.isRevoked("tok_live"), true);
  for (let index = 0; index < 200; index++) strictEqual(revocations.isRevoked(`tok_new${index}`), true);
});

Deno.test("ASVS V16.5.3: a revocation that could not be written is a fault and holds nowhere; made again it holds everywhere", async () => {
  const clock = manualClock();
  const store = watchStore(openMemoryRecordStore(clock));
  const revocations = await openRevocations(store, clock, NO_OTHERS);
  const revoke = (id: string) => revocations.revoke(id, clock.now() + 1000);
  const isOver = async (id: string): Promise<readonly boolean[]> => [
    revocations.isRevoked(id),
    (await openRevocations(store, clock, NO_OTHERS)).isRevoked(id),
  ];
  store.dieAfter(0);
  await rejects(revoke("tok_1"), isFault("unavailable"));
  deepStrictEqual(await isOver("tok_1"), [false, false]);
  store.dieAfter(Infinity);
  await revoke("tok_1");
  deepStrictEqual(await isOver("tok_1"), [true, true]);
  // One that holds already is not taken back by a second one that fails, before it or beside it.
  store.dieAfter(0);
  await rejects(revoke("tok_1"), isFault("unavailable"));
  deepStrictEqual(await isOver("tok_1"), [true, true]);
  store.dieAfter(1);
  const outcomes = await Promise.allSettled([revoke("tok_2"), revoke("tok_2")]);
  deepStrictEqual(outcomes.map(({ status }) => status), ["fulfilled", "rejected"]);
  deepStrictEqual(await isOver("tok_2"), [true, true]);
});

Deno.test("a revocation that was written while only the store's answer was lost holds once it is told, be it before the failure", async () => {
  for (const isToldBefore of [true, false]) {
    const clock = manualClock();
    const memory = openMemoryRecordStore(clock);
    const feed = new ManualFeed();
    const store: RecordStore = {
      ...memory,
      async write(changes) {
        await memory.write(changes);
        if (isToldBefore) await feed.tell("revoked_tokens", "tok_1");
        throw new Fault("unavailable", "the answer was lost");
      },
    };
    const revocations = await openRevocations(store, clock, feed);
    await rejects(revocations.revoke("tok_1", clock.now() + 1000), isFault("unavailable"));
    if (!isToldBefore) await feed.tell("revoked_tokens", "tok_1");
    strictEqual(revocations.isRevoked("tok_1"), true);
  }
});

Deno.test("ASVS V7.4.1: what another instance revokes is over here once it is told, be it of one or of all", async () => {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const feed = new ManualFeed();
  const here = await openRevocations(store, clock, feed);
  const elsewhere = await openRevocations(store, clock, NO_OTHERS);
  for (const id of ["tok_1", "tok_2", "ses_3"]) await elsewhere.revoke(id, clock.now() + 1000);
  const isOver = (): boolean[] => ["tok_1", "tok_2", "ses_3"].map((id) => here.isRevoked(id));
  deepStrictEqual(isOver(), [false, false, false]);
  await feed.tell("revoked_tokens", "tok_1");
  deepStrictEqual(isOver(), [true, false, false]);
  await feed.tell("revoked_tokens", "tok_other");
  await feed.tell("revoked_tokens", undefined);
  deepStrictEqual(isOver(), [true, true, true]);
});

Deno.test("a revocation that is told while the stored ones are being read is not missed", async () => {
  const clock = manualClock();
  const memory = openMemoryRecordStore(clock);
  const elsewhere = await openRevocations(memory, clock, NO_OTHERS);
  const feed = new ManualFeed();
  const store: RecordStore = {
    ...memory,
    async list(table, page) {
      const found = await memory.list(table, page);
      await elsewhere.revoke("tok_1", clock.now() + 1000);
      await feed.tell(table, "tok_1");
      return found;
    },
  };
  strictEqual((await openRevocations(store, clock, feed)).isRevoked("tok_1"), true);
});
