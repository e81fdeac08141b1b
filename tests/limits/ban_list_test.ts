// Tests of the ban list: how long bans last, who is never banned, and what instances know of each other's.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { Fault } from "../../src/faults/fault.ts";
import { type Ban, BAN_TABLE, type BanList } from "../../src/limits/ban_list.ts";
import { type BanWorld, DAY_SECONDS, openBanWorld, WEEK_SECONDS } from "./bans_under_test.ts";

const NETWORK = "192.0.2.1";
const YEAR_MS = 366 * DAY_SECONDS * 1000;
const unrecorded = (): Promise<void> => Promise.resolve();
const manual = { note: "", actor: "issuer usr_1", seconds: 60 };

/** Bans a network by itself; fails where it is banned already. */
async function strike(bans: BanList, network = NETWORK): Promise<Ban> {
  const ban = await bans.strike(network, "credentials", unrecorded);
  ok(ban);
  return ban;
}

function secondsOf({ createdAtMs, untilMs }: Ban): number | null {
  return untilMs === null ? null : (untilMs - createdAtMs) / 1000;
}

function isFault(kind: Fault["kind"]) {
  return (thrown: unknown) => thrown instanceof Fault && thrown.kind === kind;
}

Deno.test("the first ban of a network lasts as the settings say, so does the second, and the third is for good", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open();
  const first = await strike(bans);
  deepStrictEqual([first.count, secondsOf(first), first.actor, first.reason], [
    1,
    DAY_SECONDS,
    null,
    "credentials",
  ]);
  world.clock.advance(DAY_SECONDS * 1000 - 1);
  strictEqual(bans.find(NETWORK)?.id, first.id);
  world.clock.advance(1);
  strictEqual(bans.find(NETWORK), undefined);
  const second = await strike(bans);
  deepStrictEqual([second.count, secondsOf(second)], [2, WEEK_SECONDS]);
  world.clock.advance(WEEK_SECONDS * 1000);
  const third = await strike(bans);
  deepStrictEqual([third.count, third.untilMs], [3, null]);
  world.clock.advance(50 * YEAR_MS);
  strictEqual(bans.find(NETWORK)?.id, third.id);
  // As it is told after a restart.
  strictEqual((await world.open()).bans.find(NETWORK)?.id, third.id);
});

Deno.test("what a network did is forgotten a year after its last ban ended, and not before", async () => {
  for (const [passedMs, count] of [[YEAR_MS - 1, 2], [YEAR_MS, 1]] as const) {
    const world = await openBanWorld();
    const { bans } = await world.open();
    await strike(bans);
    world.clock.advance(DAY_SECONDS * 1000 + passedMs);
    strictEqual((await strike(bans)).count, count);
  }
});

Deno.test("a ban does not hold before it is recorded, and there is none where it cannot be", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open();
  let seen: Ban | undefined;
  const ban = await bans.strike(NETWORK, "probes", async (each) => {
    seen = each;
    strictEqual(bans.find(NETWORK), undefined);
    deepStrictEqual(await world.memory.list(BAN_TABLE, { limit: 9 }), []);
  });
  deepStrictEqual(ban, seen);
  deepStrictEqual(bans.find(NETWORK), ban);

  const fault = new Fault("unavailable", "Cannot record: told to fail");
  await rejects(bans.strike("192.0.2.2", "probes", () => Promise.reject(fault)), fault);
  strictEqual(bans.find("192.0.2.2"), undefined);
  strictEqual((await world.memory.list(BAN_TABLE, { limit: 9 })).length, 1);
  // One that failed keeps nobody waiting.
  await strike(bans, "192.0.2.3");
});

Deno.test("a network that is banned already is not banned again, whoever notices it", async () => {
  const world = await openBanWorld();
  const [here, there] = [await world.open(), await world.open()];
  const ban = await strike(here.bans);
  let records = 0;
  const record = () => Promise.resolve(void records++);
  strictEqual(await here.bans.strike(NETWORK, "probes", record), undefined);
  // The other has not heard of it, and learns it here.
  strictEqual(there.bans.find(NETWORK), undefined);
  strictEqual(await there.bans.strike(NETWORK, "probes", record), undefined);
  deepStrictEqual(there.bans.find(NETWORK), ban);
  strictEqual(records, 0);
});

Deno.test("of four instances that ban a network at the same moment one does, and it counts once", async () => {
  const world = await openBanWorld();
  const instances = await Promise.all([1, 2, 3, 4].map(() => world.open()));
  for (const count of [1, 2, 3]) {
    // Each has read that there is no ban before any of them writes.
    let waiting = 0;
    const met = Promise.withResolvers<void>();
    const meet = async (): Promise<void> => {
      if (++waiting === instances.length) met.resolve();
      await met.promise;
    };
    const made = await Promise.all(instances.map(({ bans }) => bans.strike(NETWORK, "validation", meet)));
    const bans = made.flatMap((ban) => ban ?? []);
    deepStrictEqual(bans.map((ban) => ban.count), [count]);
    for (const instance of instances) deepStrictEqual(instance.bans.find(NETWORK), bans[0]);
    world.clock.advance(WEEK_SECONDS * 1000);
  }
});

Deno.test("of many strikes of a network that come while it is being banned none records anything, and each waits for the ban", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open();
  const recording = Promise.withResolvers<void>();
  let records = 0;
  const record = async (): Promise<void> => {
    records++;
    await recording.promise;
  };
  const strikes = Array.from({ length: 20 }, async () => {
    const made = await bans.strike(NETWORK, "probes", record);
    ok(bans.find(NETWORK) !== undefined);
    return made;
  });
  // Nobody else waits for that one.
  await strike(bans, "192.0.2.2");
  strictEqual(bans.find(NETWORK), undefined);
  recording.resolve();
  strictEqual((await Promise.all(strikes)).filter((made) => made !== undefined).length, 1);
  strictEqual(records, 1);
  // The next one after a ban's end is banned again.
  world.clock.advance(DAY_SECONDS * 1000);
  strictEqual((await strike(bans)).count, 2);
});

Deno.test("a ban, its end and its oblivion hold on another instance as soon as it hears of them", async () => {
  const world = await openBanWorld();
  const [here, there] = [await world.open(), await world.open()];
  const key = world.labelNetwork(NETWORK);
  const ban = await strike(here.bans);
  strictEqual(there.bans.find(NETWORK), undefined);
  await there.hears(key);
  deepStrictEqual(there.bans.find(NETWORK), ban);
  deepStrictEqual(there.bans.read(ban.id), ban);

  strictEqual(await here.bans.lift(ban, { forget: false }), true);
  strictEqual(there.bans.find(NETWORK)?.id, ban.id);
  await there.hears(key);
  strictEqual(there.bans.find(NETWORK), undefined);

  const second = await strike(there.bans);
  await here.hears(undefined);
  deepStrictEqual(here.bans.list({ limit: 9 }), [second]);
  await strike(here.bans, "198.51.100.1");
  strictEqual(await here.bans.lift(second, { forget: true }), true);
  deepStrictEqual(await world.memory.get(BAN_TABLE, key), undefined);
  await there.hears(key);
  strictEqual(there.bans.find(NETWORK), undefined);
  await there.hears(undefined);
  deepStrictEqual(there.bans.list({ limit: 9 }).map(({ network }) => network), ["198.51.100.1"]);
});

Deno.test("what is read of the store never goes back behind what was just written", async () => {
  const world = await openBanWorld();
  const { bans, hears } = await world.open();
  const ban = await strike(bans);
  // The table is being read, and still holds the ban, when it is lifted.
  const [reading, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  world.store.list = async (table, page) => {
    const records = await world.memory.list(table, page);
    reading.resolve();
    await go.promise;
    return records;
  };
  const reload = hears(undefined);
  await reading.promise;
  const lifted = bans.lift(ban, { forget: false });
  go.resolve();
  strictEqual(await lifted, true);
  await reload;
  strictEqual(bans.find(NETWORK), undefined);
});

Deno.test("a lifted ban counts for the next one, unless it is to be forgotten; one that is over cannot be lifted", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open();
  const first = await strike(bans);
  strictEqual(await bans.lift(first, { forget: false }), true);
  strictEqual(await bans.lift(first, { forget: false }), false);
  const second = await strike(bans);
  strictEqual(second.count, 2);
  strictEqual(await bans.lift(first, { forget: true }), false);
  strictEqual(bans.find(NETWORK)?.id, second.id);
  strictEqual(await bans.lift(second, { forget: true }), true);
  const again = await strike(bans);
  strictEqual(again.count, 1);
  world.clock.advance(DAY_SECONDS * 1000);
  strictEqual(await bans.lift(again, { forget: true }), false);
  strictEqual((await strike(bans)).count, 2);
});

Deno.test("an admin bans for so long or for good, and not what is banned already; the ban counts", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open();
  const ban = await bans.ban({ ...manual, network: "2001:db8:0:1::/64", note: "a scanner" });
  deepStrictEqual(
    [ban.reason, ban.note, ban.actor, secondsOf(ban), ban.count],
    ["manual", "a scanner", "issuer usr_1", 60, 1],
  );
  await rejects(bans.ban({ ...manual, network: ban.network }), isFault("conflict"));
  const forGood = await bans.ban({ ...manual, network: NETWORK, seconds: null });
  strictEqual(forGood.untilMs, null);
  world.clock.advance(60_000);
  strictEqual((await strike(bans, ban.network)).count, 2);
});

const EXEMPT = ["127.0.0.0/8", "::1", "203.0.113.7", "10.0.0.0/8", "2001:db8:5::/48", "2001:db8:9:1::42"];
const NEVER = [
  ...["127.0.0.1", "127.9.9.9", "203.0.113.7", "10.255.0.1"],
  // Networks that hold an exempt address, and networks in an exempt one.
  ...["0:0:0:0::/64", "2001:db8:9:1::/64", "2001:db8:5:77::/64"],
  // Whose address nobody knows, and what is no network.
  ...["0.0.0.0", "", "nonsense"],
];

Deno.test("what is exempt is never banned, by itself without a word and by an admin with one; its neighbours are", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open({ exempt: EXEMPT });
  for (const network of NEVER) {
    strictEqual(bans.isExempt(network), true, network);
    strictEqual(await bans.strike(network, "probes", unrecorded), undefined, network);
    await rejects(bans.ban({ ...manual, network }), isFault("conflict"), network);
    strictEqual(bans.find(network), undefined, network);
  }
  deepStrictEqual(await world.memory.list(BAN_TABLE, { limit: 9 }), []);
  for (const network of ["126.255.255.255", "203.0.113.8", "2001:db8:6:0::/64", "2001:db8:9:2::/64"]) {
    strictEqual((await strike(bans, network)).network, network);
  }
});

Deno.test("a ban from before its network became exempt does not hold, and holds again once it is not", async () => {
  const world = await openBanWorld();
  const ban = await strike((await world.open()).bans);
  const exempt = await world.open({ exempt: ["192.0.2.0/24"] });
  strictEqual(exempt.bans.find(NETWORK), undefined);
  await exempt.hears(world.labelNetwork(NETWORK));
  deepStrictEqual(exempt.bans.list({ limit: 9 }), []);
  deepStrictEqual((await world.open()).bans.find(NETWORK), ban);
});

Deno.test("a network rests sealed under a keyed pseudonym", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open();
  await bans.ban({ ...manual, network: NETWORK, note: "a very private note" });
  const [record, ...others] = await world.memory.list(BAN_TABLE, { limit: 9 });
  deepStrictEqual(others, []);
  strictEqual(record?.key, world.labelNetwork(NETWORK));
  const text = new TextDecoder("latin1").decode(record.value);
  for (const secret of [NETWORK, "private", "manual"]) ok(!text.includes(secret), secret);
});

Deno.test("more bans than there is room for: those go that would end soonest, and their networks' counts stay", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open({ bansMax: 10 });
  const made: Ban[] = [];
  for (let host = 1; host <= 11; host++) {
    const seconds = host === 3 ? null : 1000 + 10 * host;
    made.push(await bans.ban({ ...manual, network: `198.51.100.${host}`, seconds }));
    world.clock.advance(1);
  }
  const goneHosts = [1, 2];
  const held = bans.list({ limit: 99 }).map(({ network }) => network);
  deepStrictEqual(
    held,
    made.map(({ network }) => network).filter((network) =>
      !goneHosts.includes(Number(network.split(".").at(-1)))
    ),
  );
  await world.log.flush();
  deepStrictEqual(world.lines.map(({ event, dropped, held }) => [event, dropped, held]), [
    ["bans.too_many", 2, 9],
  ]);
  world.clock.advance(2_000_000);
  strictEqual((await strike(bans, "198.51.100.1")).count, 2);
});

Deno.test("where bans have ended there is room before any that holds goes", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open({ bansMax: 4 });
  for (let host = 1; host <= 3; host++) await bans.ban({ ...manual, network: `198.51.100.${host}` });
  world.clock.advance(60_000);
  for (let host = 4; host <= 7; host++) await bans.ban({ ...manual, network: `198.51.100.${host}` });
  deepStrictEqual(bans.list({ limit: 9 }).length, 4);
  await world.log.flush();
  deepStrictEqual(world.lines, []);
});

Deno.test("pages of the list hold every ban that holds once, by age, and none that is over", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open();
  for (let host = 1; host <= 25; host++) {
    await bans.ban({ ...manual, network: `198.51.100.${host}`, seconds: host % 5 === 0 ? 10 : 60 });
    world.clock.advance(1);
  }
  world.clock.advance(30_000);
  const listed: Ban[] = [];
  for (let page = bans.list({ limit: 7 }); page.length > 0;) {
    listed.push(...page);
    page = bans.list({ after: page.at(-1)?.id ?? "", limit: 7 });
  }
  deepStrictEqual(
    listed.map(({ network }) => Number(network.split(".").at(-1))),
    Array.from({ length: 25 }, (_, index) => index + 1).filter((host) => host % 5 !== 0),
  );
  strictEqual(bans.read(listed[0]?.id ?? "")?.id, listed[0]?.id);
  strictEqual(bans.read("ban_unknown"), undefined);
});

Deno.test("more bans than the store gives at once are all there after a restart", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open({ bansMax: 5000 });
  const hosts = Array.from({ length: 1001 }, (_, host) => `198.51.${host >> 8}.${host & 255}`);
  for (const network of hosts) await bans.ban({ ...manual, network });
  const again = (await world.open({ bansMax: 5000 })).bans;
  strictEqual(hosts.filter((network) => again.find(network) !== undefined).length, 1001);
});

Deno.test("a store that fails makes no ban, lifts none, and keeps those that are known", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open();
  const ban = await strike(bans);
  const fail = () => Promise.reject(new Fault("unavailable", "Cannot reach the store: told to fail"));
  world.store.write = fail;
  await rejects(strike(bans, "198.51.100.1"), isFault("unavailable"));
  await rejects(bans.lift(ban, { forget: true }), isFault("unavailable"));
  deepStrictEqual(bans.list({ limit: 9 }), [ban]);
  world.store.write = world.memory.write;
  strictEqual(await bans.lift(ban, { forget: false }), true);
});

Deno.test("a record that others keep changing is given up on", async () => {
  const world = await openBanWorld();
  const { bans } = await world.open();
  let writes = 0;
  world.store.write = () => Promise.resolve(writes++ < 0);
  await rejects(strike(bans), isFault("unavailable"));
  ok(writes > 1);
});

Deno.test("a record without a known form keeps nothing from being noticed: opening fails", async () => {
  const world: BanWorld = await openBanWorld();
  const table = world.keyRing;
  await world.memory.put(
    BAN_TABLE,
    "x",
    await table.seal(`${BAN_TABLE}/x`, new TextEncoder().encode('{"network":"192.0.2.1","count":1}')),
  );
  await rejects(world.open(), isFault("unavailable"));
});

Deno.test("property: whatever is done in whatever order on two instances that hear of it, both know what a plain model knows", async () => {
  const host = fc.integer({ min: 1, max: 3 });
  const step = fc.oneof(
    fc.record({ act: fc.constantFrom("strike", "ban", "lift", "forget"), host, at: fc.nat({ max: 1 }) }),
    fc.record({ act: fc.constant("pass"), host, at: fc.constant(0) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const world = await openBanWorld();
      const instances = [await world.open(), await world.open()];
      const model = new Map<string, { count: number; untilMs: number | null | undefined }>();
      const isBanned = (network: string): boolean => {
        const untilMs = model.get(network)?.untilMs;
        return untilMs === null || (untilMs !== undefined && untilMs > world.clock.now());
      };
      for (const { act, host, at } of steps) {
        const network = `192.0.2.${host}`;
        const instance = instances[at];
        ok(instance);
        const before = isBanned(network);
        const count = model.get(network)?.count ?? 0;
        const nowMs = world.clock.now();
        if (act === "pass") world.clock.advance(DAY_SECONDS * 1000 * host);
        if (act === "strike") {
          const made = await instance.bans.strike(network, "validation", unrecorded);
          strictEqual(made === undefined, before);
          const seconds = [DAY_SECONDS, WEEK_SECONDS][count];
          if (!before) {
            model.set(network, {
              count: count + 1,
              untilMs: seconds === undefined ? null : nowMs + seconds * 1000,
            });
          }
        }
        if (act === "ban") {
          const made = await instance.bans.ban({ ...manual, network }).catch(() => undefined);
          strictEqual(made === undefined, before);
          if (!before) model.set(network, { count: count + 1, untilMs: nowMs + 60_000 });
        }
        const found = instance.bans.find(network);
        if ((act === "lift" || act === "forget") && found !== undefined) {
          strictEqual(await instance.bans.lift(found, { forget: act === "forget" }), true);
          if (act === "forget") model.delete(network);
          else model.set(network, { count, untilMs: undefined });
        }
        for (const each of instances) await each.hears(world.labelNetwork(network));
        for (const each of instances) {
          for (const other of [1, 2, 3].map((last) => `192.0.2.${last}`)) {
            const ban = each.bans.find(other);
            const expected = model.get(other);
            strictEqual(ban !== undefined, isBanned(other));
            if (ban !== undefined) {
              deepStrictEqual([ban.count, ban.untilMs], [expected?.count, expected?.untilMs]);
            }
          }
        }
      }
    }),
    { numRuns: 40 },
  );
});
