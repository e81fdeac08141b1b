// Tests of the usage book: what is billed, to the billionth, and that what was written is read back.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { openMemoryLimitStore } from "../../src/limits/memory_limit_store.ts";
import {
  addUse,
  amountsOf,
  costOf,
  NO_USE,
  readUsage,
  type UsageRow,
  usageTallies,
  type UsedAmounts,
} from "../../src/limits/usage_book.ts";
import { anyText } from "../support/any_text.ts";
import { manualClock } from "../support/manual_clock.ts";

const NOON = Date.UTC(2026, 10, 22, 12);
const ROW: UsageRow = {
  team: "red",
  issuer: "https://ai.example.com",
  subject: "usr_1",
  key: "pck_1",
  model: "llama3.2:3b",
};

const prices = (inputPerMillion: number, outputPerMillion = 0) => ({ inputPerMillion, outputPerMillion });

/** The cost in billionths, rounded up, of prices that are so many ten-thousandths. */
function exactCost(
  inputPrice: bigint,
  outputPrice: bigint,
  inputTokens: bigint,
  outputTokens: bigint,
): bigint {
  // A ten-thousandth a million tokens is a tenth of a billionth a token.
  return (inputTokens * inputPrice + outputTokens * outputPrice + 9n) / 10n;
}

Deno.test("a token costs a millionth of its price, in billionths of the currency", () => {
  strictEqual(costOf(prices(1), 1, 0), 1000);
  strictEqual(costOf(prices(0, 1), 0, 1), 1000);
  strictEqual(costOf(prices(2.5, 10), 1_000_000, 1_000_000), 12_500_000_000);
  strictEqual(costOf(prices(2.5, 10), 0, 0), 0);
  strictEqual(costOf(prices(0), 5, 5), 0);
  strictEqual(costOf(null, 1_000_000, 1_000_000), 0);
});

Deno.test("decimals that binary numbers do not have cost what they say", () => {
  const cases: readonly (readonly [price: number, tokens: number, cost: number])[] = [
    [0.1, 3, 300],
    [0.1, 7, 700],
    [0.3, 3, 900],
    [0.0375, 8, 300],
    [0.0375, 4_000_000, 150_000_000],
    [2.675, 3, 8025],
    [2.675, 1_000_001, 2_675_002_675],
    [1.005, 1000, 1_005_000],
    [0.15, 1_234_567, 185_185_050],
    [4.35, 100, 435_000],
  ];
  for (const [price, tokens, cost] of cases) {
    strictEqual(costOf(prices(price), tokens, 0), cost, `${tokens} at ${price}`);
    strictEqual(costOf(prices(0, price), 0, tokens), cost, `${tokens} at ${price}`);
  }
});

Deno.test("a fraction of a billionth counts as one", () => {
  strictEqual(costOf(prices(0.0375), 1, 0), 38);
  strictEqual(costOf(prices(0.0005), 1, 0), 1);
  strictEqual(costOf(prices(0.0005), 2, 0), 1);
  strictEqual(costOf(prices(0.0005), 3, 0), 2);
  strictEqual(costOf(prices(0.000001), 1, 0), 1);
  // Input and output are rounded together.
  strictEqual(costOf(prices(0.0005, 0.0005), 1, 1), 1);
});

Deno.test("property: with prices of up to four decimals the cost is the exact one, rounded up", () => {
  // In ten-thousandths, up to 5,000 a million tokens; up to five million tokens.
  const anyPrice = fc.bigInt({ min: 0n, max: 50_000_000n });
  const anyTokens = fc.bigInt({ min: 0n, max: 5_000_000n });
  fc.assert(
    fc.property(anyPrice, anyPrice, anyTokens, anyTokens, (input, output, inputTokens, outputTokens) => {
      const price = prices(Number(input) / 10_000, Number(output) / 10_000);
      strictEqual(
        BigInt(costOf(price, Number(inputTokens), Number(outputTokens))),
        exactCost(input, output, inputTokens, outputTokens),
      );
    }),
    { numRuns: 1000 },
  );
});

Deno.test("property: any prices cost a whole number that is not below the true cost by more than its fifteenth digit", () => {
  const anyPrice = fc.double({ min: 0, max: 1e6, noNaN: true });
  const anyTokens = fc.integer({ min: 0, max: 1_000_000 });
  fc.assert(
    fc.property(anyPrice, anyPrice, anyTokens, anyTokens, (input, output, inputTokens, outputTokens) => {
      const cost = costOf(prices(input, output), inputTokens, outputTokens);
      ok(Number.isSafeInteger(cost), String(cost));
      const scale = 10n ** 20n;
      const truly = BigInt(inputTokens) * scaled(input, 20) + BigInt(outputTokens) * scaled(output, 20);
      const difference = BigInt(cost) * scale - truly * 1000n;
      // Up to one more for rounding up, and the error of the arithmetic on either side.
      const slack = truly * 1000n / 10n ** 14n + 1n;
      ok(difference >= -slack && difference <= scale + slack, `${cost} and ${truly}`);
    }),
    { numRuns: 1000 },
  );
});

/** The exact value of a binary number, times a power of ten, rounded down. */
function scaled(value: number, digits: number): bigint {
  let [whole, shift] = [value, 0];
  while (!Number.isInteger(whole)) {
    whole *= 2;
    shift++;
  }
  return BigInt(whole) * 10n ** BigInt(digits) >> BigInt(shift);
}

Deno.test("what policies count of a use: requests, all tokens, the cost", () => {
  const used = { requests: 2, inputTokens: 10, outputTokens: 5, cost: 7 };
  deepStrictEqual(amountsOf(used), { requests: 2, tokens: 15, cost: 7 });
  deepStrictEqual(addUse(used, used), { requests: 4, inputTokens: 20, outputTokens: 10, cost: 14 });
  deepStrictEqual(addUse(NO_USE, used), used);
});

const dayIn = (book = "") => /^usage\/(\d{4}-\d\d-\d\d)\/\d+$/.exec(book)?.[1];

Deno.test("a use is four sums in the book of its UTC day, kept for 400 days; of nothing there is none", () => {
  const used = { requests: 1, inputTokens: 10, outputTokens: 5, cost: 7 };
  const tallies = usageTallies(ROW, used, NOON);
  deepStrictEqual(tallies.map(({ book, amount, keptMs }) => [dayIn(book), amount, keptMs / 86_400_000]), [
    ["2026-11-22", 1, 400],
    ["2026-11-22", 10, 400],
    ["2026-11-22", 5, 400],
    ["2026-11-22", 7, 400],
  ]);
  strictEqual(new Set(tallies.map(({ key }) => key)).size, 4);
  deepStrictEqual(
    usageTallies(ROW, { ...used, outputTokens: 0, cost: 0 }, NOON).map(({ amount }) => amount),
    [
      1,
      10,
    ],
  );
  deepStrictEqual(usageTallies(ROW, NO_USE, NOON), []);
  strictEqual(dayIn(usageTallies(ROW, used, Date.UTC(2026, 10, 23) - 1)[0]?.book), "2026-11-22");
  strictEqual(dayIn(usageTallies(ROW, used, Date.UTC(2026, 10, 23))[0]?.book), "2026-11-23");
});

Deno.test("uses of one row add up, rows that differ in anything stay apart, and a day holds its own", async () => {
  const store = openMemoryLimitStore(manualClock(NOON));
  const used = { requests: 1, inputTokens: 10, outputTokens: 0, cost: 7 };
  const others = (["team", "issuer", "subject", "key", "model"] as const).map((name) => ({
    ...ROW,
    [name]: name === "key" ? "" : `another-${name}`,
  }));
  let hold = 0;
  for (const row of [ROW, ROW, ...others]) store.settle(`hold-${hold++}`, [], usageTallies(row, used, NOON));
  store.settle("yesterday", [], usageTallies(ROW, used, NOON - 86_400_000));
  deepStrictEqual(
    new Set(await readUsage(store, "2026-11-22")),
    new Set([{ row: ROW, used: addUse(used, used) }, ...others.map((row) => ({ row, used }))]),
  );
  deepStrictEqual(await readUsage(store, "2026-11-21"), [{ row: ROW, used }]);
  deepStrictEqual(await readUsage(store, "2026-11-20"), []);
  await store.close();
});

Deno.test("whoever's rows are asked for, theirs are read, and of a thousand users no more than a part of the rest", async () => {
  const inner = openMemoryLimitStore(manualClock(NOON));
  let sumsRead = 0;
  const store = {
    async sums(book: string) {
      const sums = await inner.sums(book);
      sumsRead += sums.size;
      return sums;
    },
  };
  const used = { requests: 1, inputTokens: 10, outputTokens: 5, cost: 7 };
  const subjects = Array.from({ length: 1000 }, (_, index) => `usr_${index}`);
  const rows = subjects.map((subject) => ({ ...ROW, subject }));
  rows.forEach((row, index) => inner.settle(`hold-${index}`, [], usageTallies(row, used, NOON)));
  for (const subject of ["usr_0", "usr_1", "usr_500", "usr_999"]) {
    sumsRead = 0;
    const user = { issuer: ROW.issuer, subject };
    deepStrictEqual(await readUsage(store, "2026-11-22", user), [{ row: { ...ROW, subject }, used }]);
    ok(sumsRead < 4000 / 20, String(sumsRead));
  }
  deepStrictEqual(
    await readUsage(store, "2026-11-22", { issuer: "https://other.example.com", subject: "usr_1" }),
    [],
  );
  const all = await readUsage(store, "2026-11-22");
  deepStrictEqual(all.map(({ row }) => row.subject).sort(), subjects.toSorted());
  await inner.close();
});

Deno.test("to read everybody's day takes turns with whatever else the server does", async () => {
  const store = openMemoryLimitStore(manualClock(NOON));
  const used = { requests: 1, inputTokens: 10, outputTokens: 5, cost: 7 };
  for (let index = 0; index < 3000; index++) {
    store.settle(`hold-${index}`, [], usageTallies({ ...ROW, subject: `usr_${index}` }, used, NOON));
  }
  let turns = 0;
  const other = setInterval(() => turns++, 0);
  strictEqual((await readUsage(store, "2026-11-22")).length, 3000);
  clearInterval(other);
  ok(turns > 1, String(turns));
  await store.close();
});

Deno.test("property: whatever names and amounts were written are read back", async () => {
  const anyAmount = fc.nat({ max: 1_000_000 });
  const anyRow: fc.Arbitrary<UsageRow> = fc.record({
    team: anyText,
    issuer: anyText,
    subject: anyText,
    key: anyText,
    model: anyText,
  });
  const anyUsed: fc.Arbitrary<UsedAmounts> = fc.record({
    requests: fc.integer({ min: 1, max: 3 }),
    inputTokens: anyAmount,
    outputTokens: anyAmount,
    cost: anyAmount,
  });
  const nameOf = (row: UsageRow) => JSON.stringify([row.team, row.issuer, row.subject, row.key, row.model]);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(anyRow, anyUsed), { maxLength: 5 }), async (uses) => {
      const store = openMemoryLimitStore(manualClock(NOON));
      const wanted = new Map<string, UsedAmounts>();
      uses.forEach(([row, used], index) => {
        store.settle(`hold-${index}`, [], usageTallies(row, used, NOON));
        wanted.set(nameOf(row), addUse(wanted.get(nameOf(row)) ?? NO_USE, used));
      });
      const read = await readUsage(store, "2026-11-22");
      deepStrictEqual(new Map(read.map(({ row, used }) => [nameOf(row), used])), wanted);
      strictEqual(read.length, wanted.size);
      await store.close();
    }),
    { numRuns: 100 },
  );
});
