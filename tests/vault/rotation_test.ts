// Tests of the rotation of data keys: whatever happens meanwhile, at its end everything opens and the older keys are gone.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { encodeUtf8 } from "../../src/encoding/utf8.ts";
import { Fault } from "../../src/faults/fault.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { systemClock } from "../../src/time/clock.ts";
import { dataKeyPlaceOf, openKeyRing } from "../../src/vault/key_ring.ts";
import {
  generateMasterKey,
  localMasterKey,
  type MasterKey,
  parseMasterKey,
} from "../../src/vault/master_key.ts";
import { openResealedStore } from "../../src/vault/resealed_store.ts";
import {
  openVaultRotation,
  type VaultRotation,
  type VaultRotationOptions,
} from "../../src/vault/rotation.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { isFault } from "../identity/is_fault.ts";
import { ManualFeed } from "../support/manual_feed.ts";

const clock = systemClock;
const LIFE_MS = 3_600_000;

/** A store, and instances over it. */
function openStoreUnderTest(records = 0) {
  const memory = openMemoryRecordStore(clock);
  const master = localMasterKey(parseMasterKey(generateMasterKey()));
  const opened: VaultRotation[] = [];

  async function openInstance(more: Partial<VaultRotationOptions> & { readonly store?: RecordStore } = {}) {
    const feed = new ManualFeed();
    const store = more.store ?? memory;
    const keyRing = await openKeyRing(store, more.master as MasterKey ?? master, clock, feed);
    const recorded: string[] = [];
    const faults: string[] = [];
    const rotation = await openVaultRotation({
      keyRing,
      master,
      clock,
      feed,
      isShared: false,
      settleMs: 1,
      share: 1,
      recordKey: (id, change) => Promise.resolve(void recorded.push(`${change} ${id}`)),
      onFault: (fault, is) => void faults.push(`${is}: ${fault.message}`),
      ...more,
      store,
    });
    opened.push(rotation);
    const rooms = openResealedStore(store, keyRing);
    return {
      keyRing,
      rotation,
      feed,
      recorded,
      faults,
      store: rooms,
      users: sealedTable(rooms, keyRing, "users"),
    };
  }
  type Instance = Awaited<ReturnType<typeof openInstance>>;

  async function fill({ users, store, keyRing }: Instance): Promise<void> {
    const keys = sealedTable(store, keyRing, "api_keys");
    for (let index = 0; index < records; index++) {
      await users.put(`user-${index}`, { index });
      if (index % 3 === 0) {
        await keys.put(`key-${index}`, { of: index }, { expiresAtMs: clock.now() + LIFE_MS });
      }
      if (index % 5 === 0) await store.put("marks", `mark-${index}`, encodeUtf8(`plain ${index}`));
    }
  }
  /** What all records mean; throws where one does not open. */
  async function meanings({ keyRing, store }: Instance): Promise<Readonly<Record<string, unknown>>> {
    const found: Record<string, unknown> = {};
    for (const table of ["users", "api_keys"]) {
      for (const { key, value } of await sealedTable(store, keyRing, table).list({ limit: 10_000 })) {
        found[`${table}/${key}`] = value;
      }
    }
    for (const { key, value } of await store.list("marks", { limit: 10_000 })) found[`marks/${key}`] = value;
    return found;
  }
  /** The keys under which anything rests. */
  async function keysInUse(): Promise<ReadonlySet<string>> {
    const keys = new Set<string>();
    for (const table of await memory.tables()) {
      if (table === "data_keys") continue;
      for (const { value } of await memory.list(table, { limit: 10_000 })) {
        const place = dataKeyPlaceOf(value);
        if (place !== undefined) keys.add(place.key.slice("seal.".length));
      }
    }
    return keys;
  }
  const close = async () => void await Promise.all(opened.map((rotation) => rotation.close()));
  return { memory, master, openInstance, fill, meanings, keysInUse, close };
}

Deno.test("afterwards everything means what it meant, all of it is under the new key, and the old one is gone", async () => {
  const world = openStoreUnderTest(230);
  const instance = await world.openInstance();
  const { keyRing, rotation, recorded, faults } = instance;
  await world.fill(instance);
  strictEqual(await rotation.state(), undefined);
  const [before, old] = [await world.meanings(instance), keyRing.activeKey()];
  const { state, key } = await rotation.start();
  deepStrictEqual([state, key], ["running", keyRing.activeKey()]);
  notStrictEqual(key, old);
  await rotation.whenIdle();
  const ended = await rotation.state();
  deepStrictEqual(
    [ended?.state, ended?.key, ended?.done, ended?.total, ended?.resealed, ended?.reason],
    ["done", key, 230 + 77 + 46 + 1, 230 + 77 + 46 + 1, 230 + 77, null],
  );
  deepStrictEqual(await world.meanings(instance), before);
  deepStrictEqual([...await world.keysInUse()], [key]);
  deepStrictEqual((await rotation.keys()).map((each) => each.state), ["active", "active"]);
  deepStrictEqual(recorded, [`made ${key}`, `destroyed ${old}`]);
  deepStrictEqual(faults, []);
  deepStrictEqual(await world.meanings(await world.openInstance()), before);
  await world.close();
});

Deno.test("ASVS V15.4.2: rooms that change versions all the while lose no change and are refused none", async () => {
  const world = openStoreUnderTest(60);
  const instance = await world.openInstance();
  await world.fill(instance);
  const { users, store, rotation } = instance;
  const writers = 12;
  for (let index = 0; index < writers; index++) await users.put(`counter-${index}`, 0);
  let isOver = false;
  const counts = Array<number>(writers).fill(0);
  const counting = counts.map(async (_, index) => {
    let counted = 0;
    while (!isOver) {
      const read = await users.read(`counter-${index}`);
      ok(read);
      // Some think long about it: a rotation comes and goes meanwhile.
      if (index % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 5 * index));
      const change = await users.changeOf(read.key, counted + 1, { expects: read.version });
      strictEqual(read.value, counted);
      strictEqual(await store.write([change]), true, "nobody else changes it");
      counts[index] = ++counted;
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  });
  for (let rotations = 0; rotations < 4 || Math.min(...counts) < 5; rotations++) {
    await rotation.start();
    await rotation.whenIdle();
    strictEqual((await rotation.state())?.state, "done");
  }
  isOver = true;
  await Promise.all(counting);
  for (const [index, times] of counts.entries()) strictEqual(await users.get(`counter-${index}`), times);
  deepStrictEqual([...await world.keysInUse()], [instance.keyRing.activeKey()]);
  await world.close();
});

/** A store that dies at its n-th call from now on, before the call or behind it. */
function mortal(store: RecordStore, calls: number, isBehind: boolean): RecordStore {
  let left = calls;
  const dying = (method: keyof RecordStore) => async (...parameters: never[]): Promise<unknown> => {
    if (left < 0) throw new Fault("unavailable", "Cannot reach the record store: it died");
    left--;
    if (left < 0 && !isBehind) throw new Fault("unavailable", "Cannot reach the record store: it died");
    const answer = await (store[method] as (...all: never[]) => Promise<unknown>)(...parameters);
    if (left < 0) throw new Fault("unavailable", "Cannot reach the record store: it died");
    return answer;
  };
  return Object.fromEntries(
    Object.keys(store).map((name) => [name, dying(name as keyof RecordStore)]),
  ) as unknown as RecordStore;
}

Deno.test("property: a rotation whose process dies at any moment is finished by the next one, by itself, and loses nothing", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(45), fc.boolean()), { minLength: 1, maxLength: 3 }),
      async (deaths) => {
        const world = openStoreUnderTest(70);
        const first = await world.openInstance();
        await world.fill(first);
        const [before, old] = [await world.meanings(first), first.keyRing.activeKey()];
        let begun = false;
        for (const [calls, isBehind] of deaths) {
          const store = mortal(world.memory, calls, isBehind);
          const dying = await world.openInstance({ store }).catch(() => undefined);
          if (dying === undefined) continue;
          await dying.rotation.start().catch(() => {});
          begun ||= (await first.rotation.state())?.state === "running";
          // It goes no further.
          void dying.rotation.close();
          await dying.rotation.whenIdle();
        }
        const last = await world.openInstance();
        await last.rotation.whenIdle();
        while (last.rotation && (await last.rotation.state())?.state === "running") {
          await last.rotation
            .whenIdle();
        }
        if (!begun) {
          await last.rotation.start().catch(() => {});
          await last.rotation.whenIdle();
        }
        deepStrictEqual(await world.meanings(last), before);
        const state = await last.rotation.state();
        strictEqual(state?.state, "done");
        deepStrictEqual([...await world.keysInUse()], [last.keyRing.activeKey()]);
        notStrictEqual(last.keyRing.activeKey(), old);
        strictEqual((await last.rotation.keys()).length, 2);
        await world.close();
      },
    ),
    { numRuns: 40 },
  );
});

Deno.test("a value that does not open keeps the older keys, is named, and is all that is left behind", async () => {
  const world = openStoreUnderTest(20);
  const instance = await world.openInstance();
  await world.fill(instance);
  const { rotation, memory, keyRing, faults, recorded } = { ...world, ...instance };
  const altered = await memory.get("users", "user-7");
  ok(altered);
  altered[altered.length - 1] = (altered.at(-1) ?? 0) ^ 1;
  await memory.put("users", "user-7", altered);
  const old = keyRing.activeKey();
  await rotation.start();
  await rotation.whenIdle();
  const { state, reason, endedAtMs } = await rotation.state() ?? {};
  strictEqual(state, "blocked");
  match(reason ?? "", /1 values? do not open.*users\/user-7/);
  ok(endedAtMs);
  match(faults.join(), /^blocked: Cannot destroy older data keys: /);
  deepStrictEqual(await world.keysInUse(), new Set([old, keyRing.activeKey()]));
  strictEqual(recorded.some((each) => each.startsWith("destroyed")), false);
  strictEqual((await rotation.keys()).length, 3);
  await memory.delete("users", "user-7");
  await rotation.start();
  await rotation.whenIdle();
  strictEqual((await rotation.state())?.state, "done");
  strictEqual((await rotation.keys()).length, 2);
  deepStrictEqual(recorded.filter((each) => each.startsWith("destroyed")).length, 2);
  await world.close();
});

Deno.test("while one runs there is no other, here or on another instance", async () => {
  const world = openStoreUnderTest(10);
  const [one, other] = [
    await world.openInstance({ isShared: true, settleMs: 300 }),
    await world.openInstance({ isShared: true }),
  ];
  await world.fill(one);
  const started = await Promise.allSettled([
    one.rotation.start(),
    one.rotation.start(),
    other.rotation.start(),
  ]);
  deepStrictEqual(started.map(({ status }) => status).toSorted(), ["fulfilled", "rejected", "rejected"]);
  for (const each of started) if (each.status === "rejected") isFault("conflict")(each.reason);
  await rejects(one.rotation.start(), isFault("conflict"));
  await rejects(other.rotation.start(), isFault("conflict"));
  strictEqual((await other.rotation.state())?.state, "running");
  await Promise.all([one.rotation.whenIdle(), other.rotation.whenIdle()]);
  strictEqual((await world.memory.list("data_keys", { limit: 10 })).length, 2);
  await world.close();
});

for (const missing of ["master key", "trail"] as const) {
  Deno.test(`ASVS V16.5.3: without the ${missing} a rotation does not begin, says so, and nothing is changed`, async () => {
    const world = openStoreUnderTest(10);
    const away = () => Promise.reject(new Fault("unavailable", `Cannot reach the ${missing}: a test`));
    const instance = await world.openInstance(
      missing === "trail" ? { recordKey: away } : { master: { ...world.master, renew: away } },
    );
    await world.fill(instance);
    const { rotation, keyRing } = instance;
    const [old, before] = [keyRing.activeKey(), await world.memory.list("users", { limit: 100 })];
    await rejects(rotation.start(), isFault("unavailable"));
    await rotation.whenIdle();
    const { state, reason } = await rotation.state() ?? {};
    strictEqual(state, "failed");
    match(reason ?? "", /a test/);
    strictEqual(keyRing.activeKey(), old);
    deepStrictEqual(await world.memory.list("users", { limit: 100 }), before);
    const next = await world.openInstance();
    await next.rotation.start();
    await next.rotation.whenIdle();
    strictEqual((await next.rotation.state())?.state, "done");
    await world.close();
  });
}

Deno.test("what fails for a while holds a rotation up, is told once, and ends nothing", async () => {
  const world = openStoreUnderTest(10);
  let failures = 2;
  const instance = await world.openInstance({
    recordKey: (_id, change) =>
      change === "destroyed" && failures-- > 0
        ? Promise.reject(new Fault("unavailable", "Cannot record: the disk is full"))
        : Promise.resolve(),
  });
  await world.fill(instance);
  await instance.rotation.start();
  await instance.rotation.whenIdle();
  strictEqual((await instance.rotation.state())?.state, "done");
  deepStrictEqual(instance.faults, ["waiting: Cannot record: the disk is full"]);
  await world.close();
});

Deno.test("an instance takes over from one that died, when that has given no sign of life for a while", async () => {
  const world = openStoreUnderTest(30);
  const shared = { isShared: true, deadAfterMs: 50 };
  const first = await world.openInstance(shared);
  await world.fill(first);
  const [before, old] = [await world.meanings(first), first.keyRing.activeKey()];
  const waiting = await world.openInstance(shared);
  const dying = await world.openInstance({ ...shared, settleMs: 60_000 });
  await dying.rotation.start();
  await dying.rotation.close();
  strictEqual((await waiting.rotation.state())?.state, "running");
  await waiting.feed.tell("vault_rotations", "last");
  await waiting.feed.tell("data_keys", undefined);
  while ((await waiting.rotation.state())?.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await waiting.rotation.whenIdle();
  strictEqual((await waiting.rotation.state())?.state, "done");
  deepStrictEqual(await world.meanings(waiting), before);
  notStrictEqual(waiting.keyRing.activeKey(), old);
  deepStrictEqual([...await world.keysInUse()], [waiting.keyRing.activeKey()]);
  await world.close();
});

Deno.test("an instance that does not know the new key yet writes under the old one, and that is found; once that is gone, it writes under the new one", async () => {
  const world = openStoreUnderTest(30);
  const [one, late] = [
    await world.openInstance({ isShared: true, settleMs: 200 }),
    await world.openInstance({ isShared: true }),
  ];
  await world.fill(one);
  const old = one.keyRing.activeKey();
  await one.rotation.start();
  let writes = 0;
  let refused: unknown;
  while (refused === undefined) {
    // Nobody tells it.
    await late.users.put(`late-${writes}`, { writes }).catch((thrown) => refused = thrown);
    if (refused === undefined) writes++;
    await new Promise((resolve) => setTimeout(resolve, 2));
    // What every instance does within moments, this one does after the first few.
    if (writes === 20) await late.feed.tell("data_keys", undefined);
    if (writes === 40) break;
  }
  await one.rotation.whenIdle();
  strictEqual(refused, undefined);
  strictEqual((await one.rotation.state())?.state, "done");
  deepStrictEqual([...await world.keysInUse()], [one.keyRing.activeKey()]);
  for (let index = 0; index < writes; index++) {
    deepStrictEqual(await one.users.get(`late-${index}`), { writes: index });
  }
  const frozen = await openKeyRing(world.memory, world.master, clock);
  await one.rotation.start();
  await one.rotation.whenIdle();
  const users = sealedTable(openResealedStore(world.memory, frozen), frozen, "users");
  await users.put("frozen", 1);
  strictEqual(await one.users.get("frozen"), 1);
  deepStrictEqual([...await world.keysInUse()], [one.keyRing.activeKey()]);
  strictEqual((await one.rotation.keys()).some(({ id }) => id === old), false);
  await world.close();
});

Deno.test("what somebody who knows nothing of it writes between the last look and the end of the key is under the new one", async () => {
  const world = openStoreUnderTest(10);
  const before = await openKeyRing(world.memory, world.master, clock);
  const beside = sealedTable(openResealedStore(world.memory, before), before, "users");
  const one = await world.openInstance({
    // Each key, after it was looked for and just before it is destroyed.
    recordKey: async (_id, change) =>
      change === "destroyed" ? await beside.put("beside", { n: 1 }) : undefined,
  });
  await world.fill(one);
  for (let times = 0; times < 2; times++) {
    await one.rotation.start();
    await one.rotation.whenIdle();
    strictEqual((await one.rotation.state())?.state, "done");
    deepStrictEqual(await one.users.get("beside"), { n: 1 });
    deepStrictEqual([...await world.keysInUse()], [one.keyRing.activeKey()]);
  }
  await world.close();
});

Deno.test("a value whose data key is nowhere is told of with its place, and holds nothing up", async () => {
  const world = openStoreUnderTest(10);
  const { rotation, keyRing, faults } = await world.openInstance();
  const lost = await keyRing.seal("users/lost", encodeUtf8("1"));
  await rotation.start();
  await rotation.whenIdle();
  await world.memory.put("users", "lost", lost);
  await rotation.start();
  await rotation.whenIdle();
  const { state, reason } = await rotation.state() ?? {};
  strictEqual(state, "done");
  match(reason ?? "", /^1 values are lost, .*: users\/lost$/);
  deepStrictEqual(faults.map((each) => each.slice(0, 5)), ["lost:"]);
  match(faults.join(), /users\/lost/);
  strictEqual((await rotation.keys()).length, 2);
  await world.close();
});

Deno.test("other keys rotate with it, once", async () => {
  const world = openStoreUnderTest(5);
  let rotated = 0;
  const { rotation } = await world.openInstance({ rotateOthers: () => Promise.resolve(void rotated++) });
  for (let times = 1; times <= 2; times++) {
    await rotation.start();
    await rotation.whenIdle();
    strictEqual(rotated, times);
  }
  await world.close();
});
