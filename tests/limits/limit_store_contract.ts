// The contract of the limit store: what every adapter must do, as tests that each of them runs.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { HOLD_KEPT_MS, SETTLED_KEPT_MS } from "../../src/limits/decide_cells.ts";
import type {
  CountCell,
  LimitCell,
  LimitDecision,
  LimitStore,
  PlaceCell,
  RateCell,
  Tally,
  UsedCell,
} from "../../src/limits/limit_store.ts";
import { isFault } from "../identity/is_fault.ts";
import { LimitStoreModel } from "./limit_store_model.ts";

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const DAY_MS = 24 * 60 * MINUTE_MS;
const MOST = Number.MAX_SAFE_INTEGER;

/** A store whose time a test moves. */
export interface LimitStoreUnderTest {
  readonly store: LimitStore;
  advance(ms: number): Promise<void> | void;
  /** Ends what the store rests on; the store is closed already. */
  dispose(): Promise<void> | void;
}

/** What an adapter is like. */
export interface AdapterTraits {
  /** Whether this machine lacks what the store rests on. */
  readonly ignore?: boolean;
  /** Real time passes besides: moments are tested some seconds off. */
  readonly realTime?: boolean;
  /** Where something else refuses, sums are not looked at. */
  readonly looksAtSumsLast?: boolean;
  readonly propertyRuns: number;
}

export const rate = (key: string, quota: number, amount = 1, windowMs = MINUTE_MS): RateCell => ({
  kind: "rate",
  key,
  quota,
  windowMs,
  amount,
});
export const count = (
  key: string,
  quota: number,
  amount = 1,
  book = "day",
  endsInMs = DAY_MS,
): CountCell => ({
  kind: "count",
  book,
  key,
  quota,
  amount,
  endsInMs,
});
export const place = (key: string, quota: number, heldMs = MINUTE_MS): PlaceCell => ({
  kind: "place",
  key,
  quota,
  heldMs,
});
export const tally = (key: string, amount: number, book = "used", keptMs = DAY_MS): Tally => ({
  book,
  key,
  amount,
  keptMs,
});

/** Registers the contract's tests. */
export function testLimitStoreContract(
  adapter: string,
  open: () => Promise<LimitStoreUnderTest> | LimitStoreUnderTest,
  { ignore = false, realTime = false, looksAtSumsLast = false, propertyRuns }: AdapterTraits,
): void {
  function contract(criterion: string, run: (world: World) => Promise<void>): void {
    Deno.test({
      name: `${adapter}: ${criterion}`,
      ignore,
      async fn() {
        await within(open, ({ store, advance }) => run(worldOf(store, advance)));
      },
    });
  }

  contract("each kind of cell allows its quota exactly, then refuses", async ({ take }) => {
    const cells = { rate: rate("a", 7), count: count("a", 7), place: place("a", 7) };
    for (const cell of Object.values(cells)) {
      for (let left = 6; left >= 0; left--) {
        const [decision] = await take(null, cell);
        deepStrictEqual([decision?.allowed, decision?.remaining, decision?.retryAfterMs], [true, left, 0]);
      }
      const [refused] = await take(null, cell);
      deepStrictEqual([refused?.allowed, refused?.remaining], [false, 0]);
    }
  });

  contract(
    "amounts are taken whole, and one that does not fit leaves room for a smaller one",
    async ({ take }) => {
      for (
        const cell of [(amount: number) => rate("a", 10, amount), (amount: number) => count("a", 10, amount)]
      ) {
        deepStrictEqual(summary(await take(null, cell(7))), [[true, 3]]);
        deepStrictEqual(summary(await take(null, cell(4))), [[false, 3]]);
        deepStrictEqual(summary(await take(null, cell(3))), [[true, 0]]);
      }
    },
  );

  contract("an amount of 0 only looks", async ({ take }) => {
    await take(null, rate("a", 3), count("a", 3));
    for (let round = 0; round < 5; round++) {
      deepStrictEqual(summary(await take(null, rate("a", 3, 0), count("a", 3, 0))), [[true, 2], [true, 2]]);
    }
  });

  contract("an amount larger than the quota is never allowed, and takes nothing", async ({ take }) => {
    for (const cell of [rate("a", 3, 4), count("a", 3, 4), place("a", 0)]) {
      const [decision] = await take(null, cell);
      deepStrictEqual([decision?.allowed, decision?.retryAfterMs, decision?.remaining], [
        false,
        Infinity,
        cell.quota,
      ]);
    }
  });

  contract(
    "a request takes from all of its cells or from none, whichever refuses",
    async ({ take, sums }) => {
      await take(null, rate("full", 1), count("full", 1), place("full", 1));
      const free = [rate("free", 5, 2), count("free", 5, 2), place("free", 5)];
      for (const full of [rate("full", 1), count("full", 1), place("full", 1)]) {
        for (const cells of [[...free, full], [full, ...free]]) {
          const decisions = await take(`${full.kind} ${cells.indexOf(full)}`, ...cells);
          deepStrictEqual(decisions.map(({ allowed }) => allowed), cells.map((cell) => cell !== full));
        }
      }
      deepStrictEqual(await sums("day"), { full: 1 });
      deepStrictEqual(summary(await take(null, ...free)), [[true, 3], [true, 3], [true, 4]]);
    },
  );

  contract(
    "the decisions of a refused request stand in order and say what each would have",
    async ({ take }) => {
      await take("first", rate("a", 5, 2), count("a", 1), place("a", 5));
      const decisions = await take("second", rate("a", 5, 2), place("a", 5), count("a", 1));
      deepStrictEqual(summary(decisions), [[true, 3], [true, 4], [false, 0]]);
    },
  );

  contract("a request without cells is allowed", async ({ take }) => {
    deepStrictEqual(await take(null), []);
    deepStrictEqual(await take("hold"), []);
  });

  contract("storms of refused requests delay nobody", async ({ take, advance }) => {
    await take(null, rate("a", 3, 3));
    for (let refused = 0; refused < 100; refused++) {
      strictEqual((await take(null, rate("a", 3)))[0]?.allowed, false);
      await advance(100);
    }
    await advance(10 * SECOND_MS);
    deepStrictEqual(summary(await take(null, rate("a", 3))), [[true, 0]]);
  });

  contract("a rate comes back evenly, up to one quota", async ({ take, advance }) => {
    await take(null, rate("a", 6, 6));
    await advance(5 * SECOND_MS);
    strictEqual((await take(null, rate("a", 6)))[0]?.allowed, false);
    await advance(6 * SECOND_MS);
    deepStrictEqual(summary(await take(null, rate("a", 6))), [[true, 0]]);
    await advance(30 * SECOND_MS);
    deepStrictEqual(summary(await take(null, rate("a", 6, 0))), [[true, 3]]);
    await advance(10 * MINUTE_MS);
    deepStrictEqual(summary(await take(null, rate("a", 6, 0))), [[true, 6]]);
  });

  contract(
    "no fraction is lost: who asks all the time gets 7 a minute exactly, hour after hour",
    async ({ take, advance }) => {
      const minutes = 120;
      let allowed = 0;
      for (let passedMs = 0;; passedMs += 5 * SECOND_MS) {
        while ((await take(null, rate("a", 7)))[0]?.allowed) allowed++;
        if (passedMs >= minutes * MINUTE_MS) break;
        await advance(5 * SECOND_MS);
      }
      strictEqual(allowed, 7 + 7 * minutes);
    },
  );

  contract("the quota of a rate is exact for millions of tokens", async ({ take }) => {
    const quota = 100_000_000;
    deepStrictEqual(summary(await take(null, rate("a", quota, quota - 1, DAY_MS / 10_000))), [[true, 1]]);
    deepStrictEqual(summary(await take(null, rate("b", 9_000_000_000, 8_999_999_999, MINUTE_MS * 16))), [[
      true,
      1,
    ]]);
  });

  contract("a sum ends with its period, and all of a book end together", async ({ take, sums, advance }) => {
    await take(null, count("a", 5, 5, "book", 2 * MINUTE_MS));
    await advance(MINUTE_MS);
    await take(null, count("b", 5, 3, "book", MINUTE_MS));
    deepStrictEqual(await sums("book"), { a: 5, b: 3 });
    await advance(MINUTE_MS / 2);
    deepStrictEqual(await sums("book"), { a: 5, b: 3 });
    strictEqual((await take(null, count("a", 5, 1, "book", MINUTE_MS / 2)))[0]?.allowed, false);
    await advance(MINUTE_MS);
    deepStrictEqual(await sums("book"), {});
    deepStrictEqual(summary(await take(null, count("a", 5, 1, "book"))), [[true, 4]]);
    deepStrictEqual(await sums("book"), { a: 1 });
  });

  contract("a later end of a book counts, an earlier one does not", async ({ take, sums, advance }) => {
    await take(null, count("a", 5, 1, "book", MINUTE_MS));
    await take(null, count("b", 5, 1, "book", 3 * MINUTE_MS));
    await take(null, count("a", 5, 1, "book", MINUTE_MS));
    await advance(2 * MINUTE_MS);
    deepStrictEqual(await sums("book"), { a: 2, b: 1 });
    await advance(2 * MINUTE_MS);
    deepStrictEqual(await sums("book"), {});
  });

  contract("a decision tells how long to wait", async ({ take }) => {
    await take("h", rate("a", 6, 6), count("a", 6, 6), place("a", 1));
    const decisions = [];
    for (const cell of [rate("a", 6, 3), count("a", 6, 3), place("a", 1)]) {
      decisions.push(...await take(null, cell));
    }
    areClose(decisions, [
      { allowed: false, remaining: 0, retryAfterMs: MINUTE_MS / 2, resetAfterMs: MINUTE_MS },
      { allowed: false, remaining: 0, retryAfterMs: DAY_MS, resetAfterMs: DAY_MS },
      { allowed: false, remaining: 0, retryAfterMs: 1000, resetAfterMs: 0 },
    ], realTime);
  });

  contract(
    "a place is given back by settling, whatever that says was used, and again after the time that it is held",
    async (world) => {
      const { take, settle, advance } = world;
      const cell = place("a", 2);
      await take("one", cell);
      await take("two", cell);
      strictEqual((await take("three", cell))[0]?.allowed, false);
      await settle("one", [{ cell, used: 1 }]);
      deepStrictEqual(summary(await take("four", cell)), [[true, 0]]);
      await advance(MINUTE_MS / 2);
      strictEqual((await take("five", cell))[0]?.allowed, false);
      await advance(MINUTE_MS);
      deepStrictEqual(summary(await take("six", cell)), [[true, 1]]);
      // Settled late, these two give nothing back that is somebody else's.
      await settle("two", [{ cell, used: 0 }]);
      await settle("four", [{ cell, used: 0 }]);
      deepStrictEqual(summary(await take("seven", cell)), [[true, 0]]);
      strictEqual((await take("eight", cell))[0]?.allowed, false);
    },
  );

  contract("a hold is known for as long as its longest place", async ({ take, settle, sums, advance }) => {
    const cells = [place("a", 1, 3 * HOLD_KEPT_MS), count("a", 10, 4), place("b", 1)];
    await take("hold", ...cells);
    await advance(2 * HOLD_KEPT_MS);
    await settle("hold", cells.map((cell) => ({ cell, used: 1 })));
    deepStrictEqual(await sums("day"), { a: 1 });
    deepStrictEqual(summary(await take(null, place("a", 1))), [[true, 0]]);
  });

  contract(
    "to settle again within an hour changes nothing, however long the answer was lost",
    async ({ take, settle, sums, advance, refusesHold }) => {
      const cells = [count("a", 100, 40), rate("a", 100, 40)];
      await take("hold", ...cells);
      const used = cells.map((cell) => ({ cell, used: 10 }));
      await settle("hold", used, [tally("t", 7)]);
      for (const minutes of [3, 56]) {
        await advance(minutes * MINUTE_MS);
        await settle("hold", used, [tally("t", 7)]);
        await refusesHold("hold", count("a", 100, 1));
      }
      deepStrictEqual([await sums("day"), await sums("used")], [{ a: 10 }, { t: 7 }]);
    },
  );

  contract(
    "a book of many sums is read whole, or of many keys those that are there",
    async ({ take, settle, sums }) => {
      const keys = Array.from({ length: 1300 }, (_, index) => `${index} ${"é".repeat(index % 5)}`);
      for (let at = 0; at < keys.length; at += 100) {
        await settle(`hold${at}`, [], keys.slice(at, at + 100).map((key) => tally(key, key.length)));
      }
      await take("hold", count("nothing", 10, 1, "used"));
      await settle("hold", [{ cell: count("nothing", 10, 1, "used"), used: 0 }]);
      const all = keys.map((key) => [key, key.length] as const);
      deepStrictEqual(await sums("used"), Object.fromEntries(all));
      const asked = [...keys.slice(0, 1200), "nothing", "not there"];
      deepStrictEqual(await sums("used", asked), Object.fromEntries(all.slice(0, 1200)));
      deepStrictEqual(await sums("used", []), {});
    },
  );

  contract("places held for different times come free one by one", async ({ take, advance }) => {
    await take("long", place("a", 3, 10 * MINUTE_MS));
    await take("short", place("a", 3, MINUTE_MS));
    await take("middle", place("a", 3, 5 * MINUTE_MS));
    await advance(2 * MINUTE_MS);
    deepStrictEqual(summary(await take("next", place("a", 3, MINUTE_MS))), [[true, 0]]);
    await advance(4 * MINUTE_MS);
    deepStrictEqual(summary(await take("last", place("a", 3, MINUTE_MS))), [[true, 1]]);
  });

  contract("settling corrects a rate and a sum, downward and upward", async ({ take, settle, sums }) => {
    for (const [hold, used, left] of [["less", 3, 7], ["more", 6, 1], ["as much", 1, 0]] as const) {
      const cells = [rate("a", 10, hold === "as much" ? 1 : 4), count("a", 10, hold === "as much" ? 1 : 4)];
      strictEqual((await take(hold, ...cells)).every(({ allowed }) => allowed), true);
      await settle(hold, cells.map((cell) => ({ cell, used })));
      deepStrictEqual(summary(await take(null, rate("a", 10, 0), count("a", 10, 0))), [[true, left], [
        true,
        left,
      ]]);
    }
    deepStrictEqual(await sums("day"), { a: 10 });
  });

  contract(
    "what was used past a quota stays counted: others wait longer",
    async ({ take, settle, sums, advance }) => {
      const cells = [rate("a", 10, 5), count("a", 10, 5)];
      await take("hold", ...cells);
      await settle("hold", cells.map((cell) => ({ cell, used: 30 })));
      for (const cell of cells) {
        deepStrictEqual(summary(await take(null, { ...cell, amount: 0 })), [[false, 0]]);
      }
      deepStrictEqual(await sums("day"), { a: 30 });
      await advance(110 * SECOND_MS);
      strictEqual((await take(null, rate("a", 10)))[0]?.allowed, false);
      await advance(20 * SECOND_MS);
      strictEqual((await take(null, rate("a", 10)))[0]?.allowed, true);
    },
  );

  contract(
    "what is given back after it has drained makes nothing more than a quota",
    async ({ take, settle, advance }) => {
      const cell = rate("a", 10, 10);
      await take("hold", cell);
      await advance(5 * MINUTE_MS);
      await settle("hold", [{ cell, used: 0 }]);
      deepStrictEqual(summary(await take(null, cell)), [[true, 0]]);
    },
  );

  contract("to settle a second time changes nothing", async ({ take, settle, sums }) => {
    const cells = [rate("a", 10, 4), count("a", 10, 4), place("a", 2)];
    await take("other", place("a", 2));
    await take("hold", ...cells);
    await settle("hold", cells.map((cell) => ({ cell, used: 2 })), [tally("t", 5)]);
    await take("next", place("a", 2));
    for (let again = 0; again < 3; again++) {
      await settle("hold", cells.map((cell) => ({ cell, used: 0 })), [tally("t", 5)]);
    }
    deepStrictEqual([await sums("day"), await sums("used")], [{ a: 2 }, { t: 5 }]);
    deepStrictEqual(summary(await take(null, rate("a", 10, 0))), [[true, 8]]);
    strictEqual((await take(null, place("a", 2)))[0]?.allowed, false);
  });

  contract(
    "a hold that took nothing corrects nothing, and its tallies are added",
    async ({ take, settle, sums }) => {
      const cells = [rate("a", 5, 5), count("a", 5, 5), place("a", 1)];
      await take("first", ...cells);
      strictEqual((await take("refused", ...cells)).every(({ allowed }) => allowed), false);
      await settle("refused", cells.map((cell) => ({ cell, used: 0 })), [tally("t", 2)]);
      await settle("unknown", cells.map((cell) => ({ cell, used: 0 })), [tally("t", 3)]);
      for (const cell of cells) strictEqual((await take(null, cell))[0]?.allowed, false);
      deepStrictEqual([await sums("day"), await sums("used")], [{ a: 5 }, { t: 5 }]);
    },
  );

  contract("a hold that was settled takes nothing any more", async ({ take, settle, refusesHold, sums }) => {
    await take("used", rate("a", 5), count("a", 5), place("a", 5));
    await settle("used", []);
    await settle("given up", [{ cell: count("a", 5), used: 0 }]);
    await settle("tallied", [], [tally("t", 1)]);
    for (const hold of ["used", "given up", "tallied"]) {
      for (
        const cells of [[rate("b", 5)], [count("b", 5)], [place("b", 1)], [
          rate("b", 5),
          count("b", 5),
          place("b", 1),
        ]]
      ) {
        await refusesHold(hold, ...cells);
      }
    }
    deepStrictEqual(await sums("day"), { a: 1 });
    deepStrictEqual(summary(await take(null, rate("b", 5, 0), count("b", 5, 0), place("b", 1))), [
      [true, 5],
      [true, 5],
      [true, 0],
    ]);
  });

  contract("a sum whose period is over is not corrected", async ({ take, settle, sums, advance }) => {
    const cell = count("a", 10, 4, "book", MINUTE_MS);
    await take("hold", cell);
    await advance(2 * MINUTE_MS);
    await settle("hold", [{ cell, used: 9 }]);
    deepStrictEqual(await sums("book"), {});
  });

  contract("what was looked at only is charged by settling", async ({ take, settle, sums, advance }) => {
    const cells = [rate("a", 10, 0), count("a", 10, 0, "book", 2 * MINUTE_MS)];
    await take("hold", ...cells);
    await settle("hold", cells.map((cell) => ({ cell, used: 4 })));
    deepStrictEqual(summary(await take(null, ...cells)), [[true, 6], [true, 6]]);
    await advance(3 * MINUTE_MS);
    deepStrictEqual(await sums("book"), {});
  });

  contract("tallies add up and are kept for so long from the last on", async ({ settle, sums, advance }) => {
    await settle("one", [], [tally("a", 2, "book", 2 * MINUTE_MS), tally("b", 0, "book", 2 * MINUTE_MS)]);
    await settle("two", [], [tally("a", 3, "book", 2 * MINUTE_MS), tally("a", 7, "other", DAY_MS)]);
    deepStrictEqual([await sums("book"), await sums("other")], [{ a: 5 }, { a: 7 }]);
    await advance(90 * SECOND_MS);
    await settle("three", [], [tally("c", 1, "book", 2 * MINUTE_MS)]);
    // Time passes from when it was said, also where it is written a little later.
    deepStrictEqual(await sums("book"), { a: 5, c: 1 });
    await advance(90 * SECOND_MS);
    deepStrictEqual(await sums("book"), { a: 5, c: 1 });
    await advance(MINUTE_MS);
    deepStrictEqual([await sums("book"), await sums("other")], [{}, { a: 7 }]);
  });

  contract("sums answers all keys, or those asked for; what is not there or 0 is absent", async (world) => {
    const { take, settle, sums } = world;
    await settle("one", [], [tally("a", 1), tally("b", 2), tally("c", 3)]);
    deepStrictEqual(await sums("used", ["c", "a", "x"]), { a: 1, c: 3 });
    deepStrictEqual(await sums("used", []), {});
    deepStrictEqual([await sums("nothing"), await sums("nothing", ["a"])], [{}, {}]);
    await take("two", count("a", 5, 4));
    await settle("two", [{ cell: count("a", 5, 4), used: 0 }]);
    deepStrictEqual([await sums("day"), await sums("day", ["a"])], [{}, {}]);
  });

  contract("sums are exact up to 2^53 - 1 and stay there", async ({ take, settle, sums }) => {
    deepStrictEqual(summary(await take(null, count("a", MOST, MOST - 1))), [[true, 1]]);
    deepStrictEqual(summary(await take("hold", count("a", MOST, 1))), [[true, 0]]);
    strictEqual((await take(null, count("a", MOST, 1)))[0]?.allowed, false);
    await settle("hold", [{ cell: count("a", MOST, 1), used: 5 }], [tally("t", MOST), tally("t", MOST)]);
    deepStrictEqual([await sums("day"), await sums("used")], [{ a: MOST }, { t: MOST }]);
  });

  contract(
    "keys and books that differ are apart, whatever they are made of",
    async ({ take, settle, sums }) => {
      const names = [
        "a",
        "A",
        "a b",
        "a:b",
        "a/b",
        "0",
        "00",
        "é",
        "e\u0301",
        "😀",
        "'; DROP TABLE sums; --",
        "%",
        "*",
        "{x}",
        "a\nb",
        " ",
        "__proto__",
      ];
      for (const name of names) {
        const cells = [rate(name, 1), count(name, 1), count("k", 1, 1, name), place(name, 1)];
        strictEqual((await take(`hold ${name}`, ...cells)).every(({ allowed }) => allowed), true, name);
      }
      deepStrictEqual(new Set(Object.keys(await sums("day"))), new Set(names));
      for (const name of names) deepStrictEqual(await sums(name), { k: 1 });
      for (const name of names) await settle(`hold ${name}`, [{ cell: count(name, 1), used: 0 }]);
      deepStrictEqual(await sums("day"), {});
    },
  );

  contract("places without a hold are each one's own and end with their time", async ({ take, advance }) => {
    for (let taken = 0; taken < 3; taken++) strictEqual((await take(null, place("a", 3)))[0]?.allowed, true);
    strictEqual((await take(null, place("a", 3)))[0]?.allowed, false);
    await advance(2 * MINUTE_MS);
    deepStrictEqual(summary(await take(null, place("a", 3))), [[true, 2]]);
  });

  Deno.test({
    name:
      `${adapter}: property: any sequence of takes, settlements and passing time decides as exact arithmetic does`,
    ignore,
    async fn() {
      await fc.assert(
        fc.asyncProperty(
          fc.array(realTime ? steps(MINUTE_MS) : steps(1), { minLength: 1, maxLength: 60, size: "max" }),
          async (sequence) => {
            await within(open, async ({ store, advance }) => {
              const run = new Run(worldOf(store, advance), realTime, looksAtSumsLast);
              for (const step of sequence) await run.step(step);
              await run.compareSums();
            });
          },
        ),
        { numRuns: propertyRuns },
      );
    },
  });
}

/** The store, said shorter. */
interface World {
  take(hold: string | null, ...cells: readonly LimitCell[]): Promise<readonly LimitDecision[]>;
  settle(hold: string, used: readonly UsedCell[], tallies?: readonly Tally[]): Promise<void>;
  sums(book: string, keys?: readonly string[]): Promise<Record<string, number>>;
  /** The hold takes nothing: the store says that it was used. */
  refusesHold(hold: string, ...cells: readonly LimitCell[]): Promise<void>;
  advance(ms: number): Promise<void>;
}

function worldOf(store: LimitStore, advance: LimitStoreUnderTest["advance"]): World {
  return {
    take: async (hold, ...cells) => await store.take(hold, cells),
    settle: async (hold, used, tallies = []) => await store.settle(hold, used, tallies),
    sums: async (book, keys) => Object.fromEntries(await store.sums(book, keys)),
    async refusesHold(hold, ...cells) {
      let thrown: unknown;
      try {
        await store.take(hold, cells);
      } catch (error) {
        thrown = error;
      }
      isFault("unavailable")(thrown);
    },
    advance: async (ms) => await advance(ms),
  };
}

async function within(
  open: () => Promise<LimitStoreUnderTest> | LimitStoreUnderTest,
  run: (opened: LimitStoreUnderTest) => Promise<void>,
): Promise<void> {
  const opened = await open();
  try {
    await run(opened);
  } finally {
    await opened.store.close();
    await opened.dispose();
  }
}

/** Whether each was allowed, and what was left. */
function summary(decisions: readonly LimitDecision[]): [boolean, number][] {
  return decisions.map(({ allowed, remaining }) => [allowed, remaining]);
}

function areClose(
  actual: readonly LimitDecision[],
  expected: readonly LimitDecision[],
  realTime: boolean,
): void {
  deepStrictEqual(summary(actual), summary(expected));
  for (const [index, decision] of actual.entries()) {
    for (const name of ["retryAfterMs", "resetAfterMs"] as const) {
      const [is, wanted] = [decision[name], expected[index]?.[name] ?? NaN];
      const slack = realTime ? 30 * SECOND_MS : 1e-9 * wanted + 1e-6;
      ok(is === wanted || Math.abs(is - wanted) <= slack, `${name}: ${is} instead of ${wanted}`);
    }
  }
}

type Step =
  | { readonly act: "take"; readonly isHeld: boolean; readonly cells: readonly LimitCell[] }
  | {
    readonly act: "settle";
    readonly which: number;
    readonly share: number;
    readonly tallies: readonly Tally[];
  }
  | { readonly act: "take again"; readonly which: number; readonly cells: readonly LimitCell[] }
  | { readonly act: "sums" }
  | { readonly act: "advance"; readonly ms: number };

const BOOKS = ["b0", "b1"];

/**
 * @param grainMs all of time is a multiple of it: units of rates, ends, and what passes. A store that lives in real time
 * decides alike as long as a test takes less
 */
function steps(grainMs: number): fc.Arbitrary<Step> {
  const key = fc.constantFrom("k0", "k1");
  const rates = [1, 3, 10, 1000].map((quota, index) => ({
    key: `r${index}`,
    quota,
    // A unit a grain; or windows in which a unit is a fraction of a millisecond.
    windowMs: grainMs > 1 ? quota * grainMs : [1, 7, 60_000, 500][index] ?? 1,
  }));
  const large = grainMs > 1 ? [] : [{ key: "large", quota: 1_000_000_000, windowMs: MINUTE_MS }];
  const rateCell = fc.record({
    of: fc.constantFrom(...rates, ...large),
    share: fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1.2, noNaN: true })),
  }).map(({ of, share }): LimitCell => ({ kind: "rate", ...of, amount: Math.round(share * of.quota) }));
  const countCell = fc.record({
    key,
    book: fc.constantFrom(...BOOKS),
    quota: fc.constantFrom(5, 50, MOST),
    amount: fc.oneof(fc.nat(6), fc.nat(60), fc.constantFrom(MOST, MOST - 1)),
    ends: fc.integer({ min: 1, max: 5 }),
  }).map(({ ends, ...cell }): LimitCell => ({ kind: "count", ...cell, endsInMs: ends * grainMs }));
  const placeCell = fc.record({ key, quota: fc.nat(3), held: fc.integer({ min: 1, max: 5 }) })
    .map(({ held, ...cell }): LimitCell => ({ kind: "place", ...cell, heldMs: held * grainMs }));
  const cells = fc.uniqueArray(fc.oneof(rateCell, countCell, placeCell), {
    maxLength: 4,
    selector: (cell) => `${cell.kind} ${cell.key} ${cell.kind === "count" ? cell.book : ""}`,
  });
  const tallies = fc.array(
    fc.record({
      key,
      book: fc.constantFrom(...BOOKS),
      amount: fc.oneof(fc.nat(9), fc.constantFrom(MOST)),
      keptMs: fc.integer({ min: 1, max: 5 }).map((kept) => kept * grainMs),
    }),
    { maxLength: 2 },
  );
  return fc.oneof(
    { weight: 6, arbitrary: fc.record({ act: fc.constant("take" as const), isHeld: fc.boolean(), cells }) },
    {
      weight: 5,
      arbitrary: fc.record({
        act: fc.constant("settle" as const),
        which: fc.nat(5),
        share: fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 4, noNaN: true })),
        tallies,
      }),
    },
    { weight: 1, arbitrary: fc.record({ act: fc.constant("take again" as const), which: fc.nat(5), cells }) },
    { weight: 1, arbitrary: fc.record({ act: fc.constant("sums" as const) }) },
    {
      weight: 2,
      arbitrary: fc.record({
        act: fc.constant("advance" as const),
        ms: fc.oneof(fc.nat(3), fc.nat(grainMs > 1 ? 3 : 40)).map((grains) => grains * grainMs),
      }),
    },
  );
}

/** One run of a property, beside the model. */
class Run {
  readonly #world: World;
  readonly #realTime: boolean;
  readonly #looksAtSumsLast: boolean;
  readonly #model = new LimitStoreModel();
  /** The latest holds, each with what it asked for, and when. */
  #holds: {
    readonly id: string;
    readonly cells: readonly LimitCell[];
    readonly atMs: number;
    settledAtMs?: number;
  }[] = [];
  #holdCount = 0;
  #nowMs = 0;

  constructor(world: World, realTime: boolean, looksAtSumsLast: boolean) {
    this.#world = world;
    this.#realTime = realTime;
    this.#looksAtSumsLast = looksAtSumsLast;
  }

  async step(step: Step): Promise<void> {
    switch (step.act) {
      case "take":
        return await this.#take(step.isHeld, step.cells);
      case "settle":
        return await this.#settle(step.which, step.share, step.tallies);
      case "take again": {
        const hold = this.#holds[step.which];
        if (hold?.settledAtMs === undefined || this.#nowMs - hold.settledAtMs >= SETTLED_KEPT_MS) return;
        return await this.#world.refusesHold(hold.id, ...step.cells);
      }
      case "sums":
        return await this.compareSums();
      case "advance":
        this.#nowMs += step.ms;
        this.#model.advance(step.ms);
        return await this.#world.advance(step.ms);
    }
  }

  async compareSums(): Promise<void> {
    for (const book of BOOKS) {
      deepStrictEqual(await this.#world.sums(book), Object.fromEntries(this.#model.sums(book)));
    }
  }

  async #take(isHeld: boolean, cells: readonly LimitCell[]): Promise<void> {
    const id = isHeld ? `hold${this.#holdCount++}` : null;
    if (id !== null) this.#holds = [{ id, cells, atMs: this.#nowMs }, ...this.#holds].slice(0, 6);
    const expected = this.#model.take(id, cells);
    const actual = await this.#world.take(id, ...cells);
    if (expected === "refused") throw new Error("the model knows the hold");
    const isRefused = (index: number) => expected[index]?.allowed === false;
    const isUnlooked = this.#looksAtSumsLast &&
      cells.some((cell, index) => cell.kind !== "count" && isRefused(index));
    const looked = cells.map((cell) => !isUnlooked || cell.kind !== "count");
    areClose(
      actual.filter((_, index) => looked[index]),
      expected.filter((_, index) => looked[index]),
      this.#realTime,
    );
  }

  async #settle(which: number, share: number, tallies: readonly Tally[]): Promise<void> {
    const hold = this.#holds[which] ?? { id: `new${this.#holdCount++}`, cells: [], atMs: this.#nowMs };
    // Nobody knows of holds that old.
    if (
      this.#nowMs - hold.atMs >= HOLD_KEPT_MS ||
      this.#nowMs - (hold.settledAtMs ?? this.#nowMs) >= SETTLED_KEPT_MS
    ) return;
    hold.settledAtMs ??= this.#nowMs;
    const used = hold.cells.map((cell) => ({
      cell,
      used: cell.kind === "place" ? 0 : Math.min(MOST, Math.round(cell.amount * share + (share > 1 ? 1 : 0))),
    }));
    this.#model.settle(hold.id, used, tallies);
    await this.#world.settle(hold.id, used, tallies);
  }
}
