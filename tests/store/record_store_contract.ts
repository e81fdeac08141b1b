// The contract of the record store: what every adapter must do, as tests that each of them runs.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordChange, RecordStore } from "../../src/store/record_store.ts";
import type { Clock } from "../../src/time/clock.ts";
import { anyText } from "../support/any_text.ts";
import { manualClock } from "../support/manual_clock.ts";

const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => Uint8Array.from(values);

type Expects = RecordChange["expects"];

/** A store and what ends it. */
interface StoreUnderTest {
  readonly store: RecordStore;
  readonly dispose: () => Promise<void> | void;
}

/** Keys that say nothing to a store, although some of them say something to SQL, to paths or to globs. */
const ODD_KEYS = [
  "'; DROP TABLE records; --",
  '" OR 1=1 --',
  "%",
  "_",
  "*",
  "?",
  "?1",
  ":key",
  "../../etc/passwd",
  "a\nb",
  " ",
  "NULL",
  "é",
  "e\u0301",
  "A",
  "a",
  "0",
  "00",
  "😀",
];

/**
 * Registers the contract's tests.
 *
 * @param open an empty store over the clock; its `dispose` ends what it rests on
 * @param ignore whether this machine lacks what the store rests on
 */
export function testRecordStoreContract(
  adapter: string,
  open: (clock: Clock) => StoreUnderTest | Promise<StoreUnderTest>,
  ignore: boolean = false,
): void {
  function contract(
    criterion: string,
    run: (store: RecordStore, clock: ReturnType<typeof manualClock>) => Promise<void>,
  ) {
    Deno.test({
      name: `${adapter}: ${criterion}`,
      ignore,
      async fn() {
        const clock = manualClock();
        const { store, dispose } = await open(clock);
        try {
          await run(store, clock);
        } finally {
          await store.close();
          await dispose();
        }
      },
    });
  }

  contract("a record that was put is got back, byte by byte", async (store) => {
    const values = [bytes(), bytes(0), bytes(0, 255, 0, 128), crypto.getRandomValues(new Uint8Array(60_000))];
    for (const [index, value] of values.entries()) {
      await store.put("t", `k${index}`, value);
      deepStrictEqual(await store.get("t", `k${index}`), value);
    }
  });

  contract("an absent record is undefined, in an unknown table as well", async (store) => {
    await store.put("t", "k", bytes(1));
    strictEqual(await store.get("t", "other"), undefined);
    strictEqual(await store.get("other", "k"), undefined);
    deepStrictEqual(await store.list("other", { limit: 10 }), []);
  });

  contract("what was put or got is a copy: changing it changes no record", async (store) => {
    const value = bytes(1, 2, 3);
    await store.put("t", "k", value);
    value.fill(9);
    (await store.get("t", "k"))?.fill(8);
    (await store.list("t", { limit: 1 }))[0]?.value.fill(7);
    deepStrictEqual(await store.get("t", "k"), bytes(1, 2, 3));
  });

  contract("put overwrites the value and the lifetime", async (store, clock) => {
    await store.put("t", "k", bytes(1), { expiresAtMs: clock.now() + 10 });
    await store.put("t", "k", bytes(2));
    clock.advance(10);
    deepStrictEqual(await store.get("t", "k"), bytes(2));
    await store.put("t", "k", bytes(3), { expiresAtMs: clock.now() + 10 });
    clock.advance(10);
    strictEqual(await store.get("t", "k"), undefined);
  });

  contract("create writes only where there is no record, and leaves the one that is there", async (store) => {
    strictEqual(await store.create("t", "k", bytes(1)), true);
    strictEqual(await store.create("t", "k", bytes(2)), false);
    deepStrictEqual(await store.get("t", "k"), bytes(1));
    strictEqual(await store.create("other", "k", bytes(2)), true);
    await store.delete("t", "k");
    strictEqual(await store.create("t", "k", bytes(3)), true);
    deepStrictEqual(await store.get("t", "k"), bytes(3));
  });

  contract("ASVS V15.4.2: of many that create one record at once, exactly one does", async (store) => {
    const results = await Promise.all(
      Array.from({ length: 50 }, (_, index) => store.create("t", "k", bytes(index))),
    );
    strictEqual(results.filter((created) => created).length, 1);
    deepStrictEqual(await store.get("t", "k"), bytes(results.indexOf(true)));
  });

  contract(
    "a record counts until its moment and from then on is as if deleted, for every method",
    async (store, clock) => {
      const expiresAtMs = clock.now() + 1000;
      await store.put("t", "a", bytes(1), { expiresAtMs });
      await store.create("t", "b", bytes(2), { expiresAtMs });
      await store.create("t", "c", bytes(3), { expiresAtMs });
      await store.put("t", "d", bytes(4));
      clock.advance(999);
      strictEqual((await store.list("t", { limit: 10 })).length, 4);
      strictEqual(await store.create("t", "a", bytes(9)), false);
      clock.advance(1);
      strictEqual(await store.get("t", "a"), undefined);
      deepStrictEqual((await store.list("t", { limit: 10 })).map(({ key }) => key), ["d"]);
      strictEqual(await store.delete("t", "b"), false);
      strictEqual(await store.create("t", "c", bytes(5)), true);
      deepStrictEqual(await store.get("t", "c"), bytes(5));
    },
  );

  contract("a record that is put with a moment in the past is not there", async (store, clock) => {
    await store.put("t", "k", bytes(1), { expiresAtMs: clock.now() });
    strictEqual(await store.get("t", "k"), undefined);
    strictEqual(await store.create("t", "k", bytes(2), { expiresAtMs: 0 }), true);
    strictEqual(await store.get("t", "k"), undefined);
  });

  contract("delete tells whether there was a record, and touches no other", async (store) => {
    await store.put("t", "k", bytes(1));
    await store.put("t", "l", bytes(2));
    await store.put("other", "k", bytes(3));
    strictEqual(await store.delete("t", "k"), true);
    strictEqual(await store.delete("t", "k"), false);
    strictEqual(await store.delete("never", "k"), false);
    deepStrictEqual(await store.get("t", "l"), bytes(2));
    deepStrictEqual(await store.get("other", "k"), bytes(3));
  });

  contract(
    "list gives the keys by code point, where UTF-16 units would order them differently",
    async (store) => {
      const sorted = [
        "!",
        "0",
        "A",
        "a",
        "a\u0001",
        "aa",
        "b",
        "é",
        "\ud7ff",
        "\ue000",
        "\uffff",
        "\u{10000}",
        "😀",
      ];
      for (const key of sorted.toReversed()) await store.put("t", key, bytes(key.length));
      deepStrictEqual(
        await store.list("t", { limit: 100 }),
        sorted.map((key) => ({ key, value: bytes(key.length) })),
      );
    },
  );

  contract(
    "paging by `after` gives every record once, whatever the page is and whether `after` still exists",
    async (store) => {
      const keys = Array.from({ length: 23 }, (_, index) => `k${String(index).padStart(2, "0")}`);
      for (const key of keys) await store.put("t", key, bytes(1));
      await store.put("s", "k99", bytes(1));
      await store.put("u", "k00", bytes(1));
      for (const limit of [1, 7, 23, 24]) {
        const seen: string[] = [];
        let after: string | undefined;
        for (;;) {
          const page = await store.list("t", after === undefined ? { limit } : { after, limit });
          strictEqual(page.length <= limit, true);
          seen.push(...page.map(({ key }) => key));
          if (page.length < limit) break;
          after = page.at(-1)?.key;
        }
        deepStrictEqual(seen, keys);
      }
      await store.delete("t", "k05");
      deepStrictEqual((await store.list("t", { after: "k05", limit: 1 }))[0]?.key, "k06");
      deepStrictEqual(await store.list("t", { after: "k22", limit: 5 }), []);
      deepStrictEqual(await store.list("t", { limit: 0 }), []);
    },
  );

  contract("ASVS V1.2.4: names of tables and keys are just names", async (store) => {
    await store.put("users", "k", bytes(1));
    for (const [index, key] of ODD_KEYS.entries()) {
      strictEqual(await store.create("t", key, bytes(index)), true, key);
      strictEqual(await store.create(key, "k", bytes(index)), true, key);
    }
    for (const [index, key] of ODD_KEYS.entries()) {
      deepStrictEqual(await store.get("t", key), bytes(index), key);
      deepStrictEqual(await store.list(key, { limit: 10 }), [{ key: "k", value: bytes(index) }]);
    }
    strictEqual((await store.list("t", { limit: 100 })).length, ODD_KEYS.length);
    for (const key of ODD_KEYS) strictEqual(await store.delete("t", key), true, key);
    deepStrictEqual(await store.list("t", { limit: 100 }), []);
    deepStrictEqual(await store.get("users", "k"), bytes(1));
  });

  contract("write makes all its changes, in whatever tables, and every method sees them", async (store) => {
    await store.put("t", "old", bytes(1));
    await store.put("t", "gone", bytes(2));
    await store.put("t", "bystander", bytes(3));
    const made = await store.write([
      { table: "t", key: "old", value: bytes(4), expects: bytes(1) },
      { table: "t", key: "gone", value: undefined, expects: bytes(2) },
      { table: "t", key: "new", value: bytes(5), expects: "nothing" },
      { table: "u", key: "whatever", value: bytes() },
      { table: "u", key: "never-there", value: undefined },
    ]);
    strictEqual(made, true);
    deepStrictEqual(await store.list("t", { limit: 10 }), [
      { key: "bystander", value: bytes(3) },
      { key: "new", value: bytes(5) },
      { key: "old", value: bytes(4) },
    ]);
    deepStrictEqual(await store.list("u", { limit: 10 }), [{ key: "whatever", value: bytes() }]);
    strictEqual(await store.get("t", "gone"), undefined);
    strictEqual(await store.create("t", "gone", bytes(6)), true);
    strictEqual(await store.create("t", "new", bytes(6)), false);
    strictEqual(await store.delete("u", "never-there"), false);
  });

  contract("write makes an empty list of changes", async (store) => {
    strictEqual(await store.write([]), true);
  });

  contract("write finds what it expects, or not, whatever it is about to write", async (store, clock) => {
    // What stands there; what may be expected of it; what may not.
    const cases: [Uint8Array<ArrayBuffer> | undefined, Expects[], Expects[]][] = [
      [undefined, [undefined, "nothing"], [bytes(), bytes(1)]],
      [bytes(), [undefined, bytes()], ["nothing", bytes(0)]],
      [bytes(1, 2), [undefined, bytes(1, 2)], ["nothing", bytes(), bytes(1), bytes(1, 3), bytes(1, 2, 0)]],
    ];
    for (const [standing, found, missed] of cases) {
      for (const expects of [...found, ...missed]) {
        for (const value of [bytes(9), undefined]) {
          await store.delete("t", "k");
          if (standing !== undefined) await store.put("t", "k", standing, { expiresAtMs: clock.now() + 10 });
          const change = { table: "t", key: "k", value, ...(expects === undefined ? {} : { expects }) };
          const made = await store.write([change]);
          const situation = `${standing} stands, ${expects} is expected, ${value} is written`;
          strictEqual(made, found.includes(expects), situation);
          deepStrictEqual(await store.get("t", "k"), made ? value : standing, situation);
        }
      }
    }
  });

  contract("what has expired is nothing to what a write expects", async (store, clock) => {
    const put = () => store.put("t", "k", bytes(1), { expiresAtMs: clock.now() + 10 });
    const change = { table: "t", key: "k", value: bytes(2) };
    await put();
    clock.advance(9);
    strictEqual(await store.write([{ ...change, expects: "nothing" }]), false);
    strictEqual(await store.write([{ ...change, value: bytes(1), expects: bytes(1) }]), true);
    await put();
    clock.advance(10);
    strictEqual(await store.write([{ ...change, expects: bytes(1) }]), false);
    strictEqual(await store.write([{ ...change, value: undefined, expects: "nothing" }]), true);
    strictEqual(await store.write([{ ...change, expects: "nothing" }]), true);
    deepStrictEqual(await store.get("t", "k"), bytes(2));
  });

  contract("a write sets the lifetime with the value, and takes it away", async (store, clock) => {
    const change = { table: "t", key: "k", value: bytes(1) };
    await store.write([{ ...change, lifetime: { expiresAtMs: clock.now() + 10 } }]);
    await store.write([change, { ...change, key: "short", lifetime: { expiresAtMs: clock.now() + 10 } }]);
    await store.write([{ ...change, key: "past", lifetime: { expiresAtMs: clock.now() } }]);
    strictEqual(await store.get("t", "past"), undefined);
    clock.advance(9);
    strictEqual((await store.list("t", { limit: 10 })).length, 2);
    clock.advance(1);
    deepStrictEqual(await store.list("t", { limit: 10 }), [{ key: "k", value: bytes(1) }]);
  });

  contract(
    "ASVS V2.3.3: a write of which one change misses what it expects changes nothing, wherever that one stands",
    async (store, clock) => {
      const good: RecordChange[] = [
        { table: "t", key: "kept", value: undefined },
        { table: "t", key: "mortal", value: bytes(8), expects: bytes(2) },
        { table: "u", key: "new", value: bytes(8), expects: "nothing" },
      ];
      const bad: RecordChange[] = [
        { table: "t", key: "other", value: bytes(8), expects: "nothing" },
        { table: "t", key: "other", value: undefined, expects: bytes(8) },
        { table: "u", key: "absent", value: bytes(8), expects: bytes(8) },
      ];
      await store.put("t", "kept", bytes(1));
      await store.put("t", "mortal", bytes(2), { expiresAtMs: clock.now() + 10 });
      await store.put("t", "other", bytes(3));
      const before = await store.list("t", { limit: 10 });
      for (const miss of bad) {
        for (let place = 0; place <= good.length; place++) {
          strictEqual(await store.write(good.toSpliced(place, 0, miss)), false);
          deepStrictEqual(await store.list("t", { limit: 10 }), before);
          deepStrictEqual(await store.list("u", { limit: 10 }), []);
        }
      }
      clock.advance(10);
      strictEqual(await store.get("t", "mortal"), undefined, "the lifetime is the old one");
    },
  );

  contract(
    "changes of one record are all judged by what stood before the write, and the last wins",
    async (store, clock) => {
      const at = { table: "t", key: "k" };
      const lifetime = { expiresAtMs: clock.now() + 10 };
      const twice = [{ ...at, value: bytes(1), expects: "nothing" }, {
        ...at,
        value: bytes(2),
        expects: "nothing",
      }] as const;
      strictEqual(await store.write(twice), true);
      deepStrictEqual(await store.get("t", "k"), bytes(2));
      // The second expects what the first would leave.
      strictEqual(
        await store.write([{ ...at, value: bytes(3), expects: bytes(2) }, {
          ...at,
          value: bytes(4),
          expects: bytes(3),
        }]),
        false,
      );
      deepStrictEqual(await store.get("t", "k"), bytes(2));
      strictEqual(
        await store.write([{ ...at, value: undefined }, { ...at, value: bytes(5), lifetime }]),
        true,
      );
      deepStrictEqual(await store.get("t", "k"), bytes(5));
      strictEqual(
        await store.write([{ ...at, value: bytes(6), lifetime }, { ...at, value: bytes(7) }]),
        true,
      );
      clock.advance(10);
      deepStrictEqual(await store.get("t", "k"), bytes(7), "the last one's lifetime");
      strictEqual(await store.write([{ ...at, value: bytes(8) }, { ...at, value: undefined }]), true);
      strictEqual(await store.get("t", "k"), undefined);
    },
  );

  contract("what was written is a copy, and a part of a larger buffer is just that part", async (store) => {
    const larger = bytes(9, 1, 2, 9);
    const change = { table: "t", key: "k" };
    await store.write([{ ...change, value: larger.subarray(1, 3) }]);
    larger.fill(7);
    deepStrictEqual(await store.get("t", "k"), bytes(1, 2));
    strictEqual(await store.write([{ ...change, value: bytes(3), expects: larger.subarray(1, 3) }]), false);
    larger.set([1, 2], 2);
    strictEqual(await store.write([{ ...change, value: bytes(3), expects: larger.subarray(2) }]), true);
    deepStrictEqual(await store.get("t", "k"), bytes(3));
  });

  contract("ASVS V15.4.2: of many that change one version at once, exactly one does", async (store) => {
    await store.put("t", "k", bytes(255));
    const results = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        store.write([
          { table: "t", key: `log${index}`, value: bytes(index) },
          { table: "t", key: "k", value: bytes(index), expects: bytes(255) },
        ])),
    );
    strictEqual(results.filter((made) => made).length, 1);
    const winner = results.indexOf(true);
    deepStrictEqual(await store.list("t", { limit: 100 }), [
      { key: "k", value: bytes(winner) },
      { key: `log${winner}`, value: bytes(winner) },
    ]);
  });

  contract(
    "tables are those that hold records, whatever their names and however many records",
    async (store) => {
      deepStrictEqual(await store.tables(), []);
      for (let index = 0; index < 30; index++) await store.put("many", `k${index}`, bytes(index));
      for (const table of ODD_KEYS) await store.put(table, "k", bytes(1));
      deepStrictEqual((await store.tables()).toSorted(), ["many", ...ODD_KEYS].toSorted());
      for (const table of ODD_KEYS) await store.delete(table, "k");
      deepStrictEqual(await store.tables(), ["many"]);
    },
  );

  contract("replace puts other bytes in the place of exactly these, and of no others", async (store) => {
    await store.put("t", "k", bytes(1, 2));
    await store.put("t", "l", bytes(1, 2));
    await store.put("u", "k", bytes(1, 2));
    for (const before of [bytes(), bytes(1), bytes(1, 2, 0), bytes(1, 3)]) {
      strictEqual(await store.replace("t", [{ key: "k", before, after: bytes(9) }]), 0);
    }
    strictEqual(await store.replace("t", [{ key: "never", before: bytes(), after: bytes(9) }]), 0);
    strictEqual(await store.replace("never", [{ key: "k", before: bytes(1, 2), after: bytes(9) }]), 0);
    const larger = bytes(0, 1, 2, 0);
    const after = bytes(7, 8);
    strictEqual(await store.replace("t", [{ key: "k", before: larger.subarray(1, 3), after }]), 1);
    after.fill(0);
    deepStrictEqual(await store.list("t", { limit: 10 }), [
      { key: "k", value: bytes(7, 8) },
      { key: "l", value: bytes(1, 2) },
    ]);
    deepStrictEqual(await store.get("u", "k"), bytes(1, 2));
    strictEqual(await store.replace("t", [{ key: "k", before: bytes(1, 2), after: bytes(9) }]), 0);
    strictEqual(await store.replace("t", [{ key: "k", before: bytes(7, 8), after: bytes() }]), 1);
    deepStrictEqual(await store.get("t", "k"), bytes());
  });

  contract(
    "replace leaves a lifetime as it was, and finds nothing that has expired",
    async (store, clock) => {
      await store.put("t", "k", bytes(1), { expiresAtMs: clock.now() + 10 });
      await store.put("t", "forever", bytes(1));
      clock.advance(9);
      for (const key of ["k", "forever"]) {
        strictEqual(await store.replace("t", [{ key, before: bytes(1), after: bytes(2) }]), 1);
      }
      deepStrictEqual(await store.get("t", "k"), bytes(2));
      clock.advance(1);
      strictEqual(await store.get("t", "k"), undefined);
      strictEqual(await store.replace("t", [{ key: "k", before: bytes(2), after: bytes(3) }]), 0);
      deepStrictEqual(await store.get("t", "forever"), bytes(2));
    },
  );

  contract("ASVS V15.4.2: of many that replace the same bytes at once, exactly one does", async (store) => {
    await store.put("t", "k", bytes(255));
    const results = await Promise.all(
      Array.from(
        { length: 30 },
        (_, index) => store.replace("t", [{ key: "k", before: bytes(255), after: bytes(index) }]),
      ),
    );
    strictEqual(results.filter((made) => made === 1).length, 1);
    deepStrictEqual(await store.get("t", "k"), bytes(results.indexOf(1)));
  });

  contract(
    "a write is made only while what has to stand stands, whatever is in it, and changes nothing of that",
    async (store, clock) => {
      const standing = [{ table: "keys", key: "a" }, { table: "t", key: "b" }];
      const change = { table: "t", key: "k", value: bytes(1) };
      await store.put("keys", "a", bytes(7), { expiresAtMs: clock.now() + 10 });
      strictEqual(await store.write([change], standing), false);
      strictEqual(await store.get("t", "k"), undefined);
      await store.put("t", "b", bytes());
      strictEqual(await store.write([{ ...change, expects: bytes(9) }], standing), false);
      strictEqual(await store.write([{ ...change, expects: "nothing" }], standing), true);
      strictEqual(await store.write([], standing), true);
      strictEqual(
        await store.write([{ table: "keys", key: "a", value: undefined }], standing.slice(1)),
        true,
      );
      strictEqual(await store.write([], standing), false);
      await store.put("keys", "a", bytes(7), { expiresAtMs: clock.now() + 10 });
      // Judged by what stood before the write, as all else.
      strictEqual(await store.write([{ table: "t", key: "b", value: undefined }], standing), true);
      strictEqual(await store.write([change], standing.slice(0, 1)), true);
      clock.advance(10);
      strictEqual(await store.write([{ ...change, value: bytes(2) }], standing.slice(0, 1)), false);
      deepStrictEqual(await store.list("t", { limit: 10 }), [{ key: "k", value: bytes(1) }]);
    },
  );

  contract("scrub changes no record", async (store) => {
    await store.put("t", "k", bytes(1));
    await store.delete("t", "gone");
    await store.scrub();
    deepStrictEqual(await store.list("t", { limit: 10 }), [{ key: "k", value: bytes(1) }]);
  });

  contract("property: it does what a map of its live records does", async (store, clock) => {
    const name = fc.oneof(fc.constantFrom("a", "b", "B"), anyText.filter(isKey));
    const act = fc.record({
      kind: fc.constantFrom("put", "create", "delete", "get", "list", "advance"),
      key: name,
      value: fc.uint8Array({ maxLength: 4 }),
      lifeMs: fc.option(fc.nat(20), { nil: undefined }),
    });
    let round = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(act, { maxLength: 20 }), async (acts) => {
        const table = `table${round++}`;
        const model = new Map<string, { value: Uint8Array; expiresAtMs: number }>();
        for (const { kind, key, value: drawn, lifeMs } of acts) {
          for (const [each, { expiresAtMs }] of model) if (expiresAtMs <= clock.now()) model.delete(each);
          const value = Uint8Array.from(drawn);
          const expiresAtMs = clock.now() + (lifeMs ?? 0);
          const lifetime = lifeMs === undefined ? undefined : { expiresAtMs };
          const modelled = { value, expiresAtMs: lifeMs === undefined ? Infinity : expiresAtMs };
          if (kind === "put") {
            await store.put(table, key, value, lifetime);
            model.set(key, modelled);
          } else if (kind === "create") {
            strictEqual(await store.create(table, key, value, lifetime), !model.has(key));
            if (!model.has(key)) model.set(key, modelled);
          } else if (kind === "delete") {
            strictEqual(await store.delete(table, key), model.delete(key));
          } else if (kind === "get") {
            deepStrictEqual(await store.get(table, key), model.get(key)?.value);
          } else if (kind === "list") {
            const keys = (await store.list(table, { limit: 100 })).map((record) => record.key);
            deepStrictEqual(keys.toSorted(), [...model.keys()].toSorted());
          } else clock.advance(7);
        }
      }),
      { numRuns: 60 },
    );
  });

  contract(
    "property: it agrees with the store in memory on whatever is written, created, deleted and listed over time",
    async (store, clock) => {
      const at = { table: fc.constantFrom("t", "u"), key: fc.constantFrom("a", "b", "c") };
      const value = fc.constantFrom(bytes(), bytes(1), bytes(1, 2));
      const lifeMs = fc.option(fc.integer({ min: -1, max: 20 }), { nil: undefined });
      const change = fc.record({
        ...at,
        value: fc.option(value, { nil: undefined }),
        expects: fc.oneof(fc.constantFrom(undefined, "nothing" as const, "what stands" as const), value),
        lifeMs,
      });
      const act = fc.oneof(
        { weight: 3, arbitrary: fc.record({ write: fc.array(change, { maxLength: 4 }) }) },
        fc.record({ ...at, put: value, lifeMs }),
        fc.record({ ...at, create: value, lifeMs }),
        fc.record({ ...at, delete: fc.constant(true) }),
        fc.record({ advanceMs: fc.nat(9) }),
      );
      const lifetime = (lifeMs: number | undefined) =>
        lifeMs === undefined ? {} : { lifetime: { expiresAtMs: clock.now() + lifeMs } };
      const made = { true: 0, false: 0 };
      const memory = openMemoryRecordStore(clock);
      const both = async (run: (store: RecordStore) => Promise<unknown>): Promise<unknown> => {
        const answer = await run(memory);
        deepStrictEqual(await run(store), answer);
        return answer;
      };
      const clear = ["t", "u"].flatMap((table) =>
        ["a", "b", "c"].map((key) => ({ table, key, value: undefined }))
      );

      await fc.assert(
        fc.asyncProperty(fc.array(act, { maxLength: 12 }), async (acts) => {
          strictEqual(await both((each) => each.write(clear)), true);
          for (const act of acts) {
            if ("write" in act) {
              const changes: RecordChange[] = [];
              for (const { table, key, value, expects, lifeMs } of act.write) {
                const expected = expects === "what stands"
                  ? await memory.get(table, key) ?? "nothing"
                  : expects;
                changes.push({
                  table,
                  key,
                  value,
                  ...lifetime(lifeMs),
                  ...(expected === undefined ? {} : { expects: expected }),
                });
              }
              made[await both((each) => each.write(changes)) === true ? "true" : "false"]++;
            } else if ("put" in act) {
              await both((each) => each.put(act.table, act.key, act.put, lifetime(act.lifeMs).lifetime));
            } else if ("create" in act) {
              await both((each) =>
                each.create(act.table, act.key, act.create, lifetime(act.lifeMs).lifetime)
              );
            } else if ("delete" in act) await both((each) => each.delete(act.table, act.key));
            else clock.advance(act.advanceMs);
            for (const table of ["t", "u"]) await both((each) => each.list(table, { limit: 10 }));
          }
        }),
        { numRuns: 100 },
      );
      ok(made.true > 20 && made.false > 20, `writes were made and refused: ${JSON.stringify(made)}`);
    },
  );
}

/** What the port takes for a key. */
function isKey(text: string): boolean {
  return text !== "" && !text.includes("\0");
}
