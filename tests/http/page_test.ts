// Tests of pages: strict queries, and pages that hold together everything once, in order.
import { deepStrictEqual, ok as isTrue, strictEqual } from "node:assert/strict";
import { z } from "@hono/zod-openapi";
import fc from "fast-check";
import { pageOf, pageQuery, pageSchema, readPage } from "../../src/http/page.ts";

Deno.test("a page has fifty entries where nobody says otherwise, and from one to two hundred where somebody does", () => {
  deepStrictEqual(pageOf(pageQuery.parse({})), { after: undefined, limit: 50 });
  for (const limit of [1, 9, 10, 99, 100, 200]) {
    deepStrictEqual(pageOf(pageQuery.parse({ limit: String(limit) })), { after: undefined, limit });
  }
  deepStrictEqual(pageOf(pageQuery.parse({ after: "usr_1", limit: "7" })), { after: "usr_1", limit: 7 });
});

Deno.test("ASVS V2.2.1, V15.3.5: a limit is written in one way, and nothing else is one", () => {
  const texts = [
    "",
    "0",
    "00",
    "01",
    "-1",
    "+1",
    "1.0",
    "1e2",
    "0x10",
    " 1",
    "1 ",
    "1\n",
    "201",
    "999",
    "1000",
    "ten",
    "NaN",
  ];
  for (const limit of [...texts, "\u0661", "\uff11", "true", 5, null, ["5"]]) {
    strictEqual(pageQuery.safeParse({ limit }).success, false, JSON.stringify(limit));
  }
});

Deno.test("where to go on is a text of visible ASCII, and no other parameter is known", () => {
  for (const after of ["", " ", "a b", "a\n", "a\0", "\u00e4", "\ufffd", "a".repeat(129), 1, null]) {
    strictEqual(pageQuery.safeParse({ after }).success, false, JSON.stringify(after));
  }
  for (const after of ["a", "usr_01k9", "red/labs", "~", "a".repeat(128)]) {
    strictEqual(pageQuery.safeParse({ after }).success, true, after);
  }
  strictEqual(pageQuery.safeParse({ before: "a" }).success, false);
});

Deno.test("the answer of a list has its entries and where to go on, and nothing else", () => {
  const schema = pageSchema(z.string());
  deepStrictEqual(schema.parse({ data: ["a"], next: null }), { data: ["a"], next: null });
  strictEqual(schema.safeParse({ data: ["a"], next: "a" }).success, true);
  for (const wrong of [{ data: [1], next: null }, { data: [] }, { data: [], next: null, total: 1 }]) {
    strictEqual(schema.safeParse(wrong).success, false, JSON.stringify(wrong));
  }
});

interface Item {
  readonly key: string;
  readonly isOpen: boolean;
}

/** Items in order, as a store has them. */
function listOf(isOpen: readonly boolean[]): Item[] {
  return isOpen.map((open, at) => ({ key: String(at).padStart(6, "0"), isOpen: open }));
}

/** Reads as a record store does, and counts the looks. */
function readerOf(items: readonly Item[]) {
  const looks = { count: 0, limitMax: 0 };
  const read = ({ after = "", limit }: { readonly after?: string; readonly limit: number }) => {
    looks.count++;
    looks.limitMax = Math.max(looks.limitMax, limit);
    return Promise.resolve(items.filter(({ key }) => key > after).slice(0, limit));
  };
  return { looks, read };
}

function page(items: readonly Item[], after: string | undefined, limit: number) {
  return readPage({ after, limit }, readerOf(items).read, ({ key }) => key, ({ isOpen }) => isOpen);
}

Deno.test("property: all pages together are what is open, each once and in order; only the last one is not full", async () => {
  const anyItems = fc.tuple(
    fc.array(fc.boolean(), { maxLength: 12 }),
    fc.nat({ max: 2 }),
    fc.constantFrom(1, 67, 100),
  )
    .map(([some, most, times]) => {
      // Long runs of one kind: a page may have to look over many that are closed.
      const run = Array(times).fill(most === 0);
      return listOf(most === 2 ? some : some.flatMap((open) => open ? [open] : run));
    });
  await fc.assert(
    fc.asyncProperty(anyItems, fc.integer({ min: 1, max: 200 }), async (items, limit) => {
      const open = items.filter(({ isOpen }) => isOpen);
      const seen: Item[] = [];
      let after: string | undefined;
      for (let pages = 0;; pages++) {
        isTrue(pages <= open.length, "it goes round in circles");
        const { data, next } = await page(items, after, limit);
        seen.push(...data);
        if (next === null) break;
        strictEqual(data.length, limit);
        strictEqual(next, data.at(-1)?.key);
        after = next;
      }
      deepStrictEqual(seen, open);
    }),
    { numRuns: 200 },
  );
});

Deno.test("a page that is full with the last open entry is the last one, however many closed ones follow", async () => {
  const items = listOf([true, true, ...Array(450).fill(false)]);
  deepStrictEqual(await page(items, undefined, 2), { data: items.slice(0, 2), next: null });
  // One open entry behind them all makes one more page.
  const more = listOf([true, true, ...Array(450).fill(false), true]);
  deepStrictEqual((await page(more, undefined, 2)).next, "000001");
  deepStrictEqual(await page(more, "000001", 2), { data: more.slice(-1), next: null });
});

Deno.test("an empty list, a list of closed entries, and a place behind the end are one empty page", async () => {
  const nothing = { data: [], next: null };
  deepStrictEqual(await page([], undefined, 50), nothing);
  deepStrictEqual(await page(listOf(Array(401).fill(false)), undefined, 50), nothing);
  deepStrictEqual(await page(listOf([true]), "zzz", 50), nothing);
});

Deno.test("ASVS V8.2.2: what is closed leaves no trace in a page: not in its entries, its length or its next", async () => {
  const mixed = listOf([false, true, false, false, true, false, true, false]);
  const open = mixed.filter(({ isOpen }) => isOpen);
  for (const limit of [1, 2, 3, 4]) {
    for (const after of [undefined, ...mixed.map(({ key }) => key)]) {
      deepStrictEqual(await page(mixed, after, limit), await page(open, after, limit), `${limit} ${after}`);
    }
  }
});

Deno.test("entries that come and go between two pages move no other entry", async () => {
  const before = listOf(Array(10).fill(true));
  const { data, next } = await page(before, undefined, 4);
  // The entry that `next` names is gone, and so is one further on; another one came.
  const after = before.filter(({ key }) => key !== next && key !== "000005");
  after.splice(0, 0, { key: "0000000", isOpen: true });
  const second = await page(after, next ?? undefined, 4);
  deepStrictEqual([...data, ...second.data].map(({ key }) => Number(key)), [0, 1, 2, 3, 4, 6, 7, 8]);
});

Deno.test("a page reads in pieces of two hundred, and no further than it must", async () => {
  const { looks, read } = readerOf(listOf(Array(1000).fill(true)));
  await readPage({ after: undefined, limit: 200 }, read, ({ key }) => key, () => true);
  deepStrictEqual(looks, { count: 2, limitMax: 200 });
});
