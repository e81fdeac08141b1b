// Tests of the index: a search finds what a look at every entry finds, in order, page by page, and no word stands in the file.
import { deepStrictEqual, ok, throws } from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import fc from "fast-check";
import { ArchiveIndex, isDamage } from "../../../src/audit/archive/archive_index.ts";
import { ALL_ENTRIES, type AuditQuery } from "../../../src/audit/archive/audit_query.ts";
import type { ReadEntry } from "../../../src/audit/trail/trail_reader.ts";
import { newId } from "../../../src/encoding/ids.ts";
import { TIME_MS } from "../trail_folder.ts";

const MAKER = { origin: "test/1", key: new Uint8Array(32).fill(7) };

/** An index with entries, and the file that it is in. */
function openIndex(entries: readonly ReadEntry[], batch = 100) {
  const folder = Deno.makeTempDirSync({ prefix: "archive-" });
  const file = `${folder}/index.db`;
  const index = new ArchiveIndex(file, MAKER);
  for (let at = 0; at < entries.length; at += batch) {
    const piece = entries.slice(at, at + batch);
    index.add(piece, { segment: 1, offset: 0, seq: piece.at(-1)?.seq ?? 0 }, () => 1);
  }
  let isOpen = true;
  return {
    index,
    file,
    close() {
      isOpen = false;
      index.close();
    },
    [Symbol.dispose]() {
      if (isOpen) index.close();
      Deno.removeSync(folder, { recursive: true });
    },
  };
}

interface Fields {
  readonly type: string;
  readonly subject: string;
  readonly address: string;
  readonly outcome: string | undefined;
  /** Behind the entry before it; may be less than nothing. */
  readonly laterMs: number;
}

function entriesOf(fields: readonly Fields[]): ReadEntry[] {
  let timeMs = TIME_MS;
  return fields.map(({ laterMs, outcome, ...event }, index) => {
    timeMs += laterMs;
    return {
      seq: index + 1,
      segment: 1,
      offset: index * 100,
      bytes: 99,
      time: new Date(timeMs).toISOString(),
      hash: "0".repeat(64),
      class: "activity",
      event: { ...event, issuer: `of ${event.subject}`, ...outcome === undefined ? {} : { outcome } },
      line: "",
    };
  });
}

/** The numbers that fit, by a look at each entry. */
function fitting(entries: readonly ReadEntry[], { fromMs, untilMs, words }: AuditQuery): number[] {
  return entries.filter(({ time, event }) =>
    Date.parse(time) >= (fromMs ?? -Infinity) && Date.parse(time) < (untilMs ?? Infinity) &&
    Object.entries(words).every(([column, texts]) => texts?.includes(String(event?.[column])))
  ).map(({ seq }) => seq);
}

/** All numbers that a search finds, page by page. */
function searched(
  index: ArchiveIndex,
  query: AuditQuery,
  order: "newest" | "oldest",
  limit: number,
): number[] {
  const found: number[] = [];
  let after: number | undefined;
  do {
    const { places, reached } = index.search(query, { order, after, limit });
    ok(places.length <= limit);
    found.push(...places.map(({ seq }) => seq));
    after = reached;
  } while (after !== undefined);
  return found;
}

const anyFields = fc.record<Fields>({
  type: fc.constantFrom("a.x", "a.y", "b.z"),
  subject: fc.constantFrom("ann", "ben", "cat", "dan"),
  address: fc.constantFrom("one", "two"),
  outcome: fc.option(fc.constantFrom("completed", "internal"), { nil: undefined }),
  laterMs: fc.integer({ min: -500, max: 1000 }),
});
const anyQuery: fc.Arbitrary<AuditQuery> = fc.record(
  {
    fromMs: fc.integer({ min: TIME_MS - 1000, max: TIME_MS + 50_000 }),
    untilMs: fc.integer({ min: TIME_MS - 1000, max: TIME_MS + 50_000 }),
    words: fc.record(
      {
        type: fc.subarray(["a.x", "a.y", "b.z", "unknown"], { minLength: 1 }),
        subject: fc.subarray(["ann", "ben", "cat", "nobody"], { minLength: 1 }),
        issuer: fc.subarray(["of ann", "of ben", "of none"], { minLength: 1 }),
        address: fc.constant(["one"]),
        outcome: fc.subarray(["completed", "internal"], { minLength: 1 }),
      },
      { requiredKeys: [] },
    ),
  },
  { requiredKeys: ["words"] },
);

Deno.test("a search finds what a look at every entry finds, in both orders, whatever the pages, also where the clock went back", () => {
  fc.assert(
    fc.property(
      fc.array(anyFields, { maxLength: 300 }),
      fc.array(anyQuery, { minLength: 1, maxLength: 10 }),
      fc.integer({ min: 1, max: 40 }),
      (fields, queries, limit) => {
        const entries = entriesOf(fields);
        using opened = openIndex(entries, 70);
        for (const query of queries) {
          const wanted = fitting(entries, query);
          deepStrictEqual(searched(opened.index, query, "oldest", limit), wanted);
          deepStrictEqual(searched(opened.index, query, "newest", limit), wanted.reverse());
        }
      },
    ),
    { numRuns: 25 },
  );
});

/** Entries of which half are of one type and half of another, and every thousandth is rare. */
function manyEntries(count: number): ReadEntry[] {
  return entriesOf(Array.from({ length: count }, (_, index) => ({
    type: index % 2 === 0 ? "a.x" : "a.y",
    subject: index % 1000 === 999 ? "rare" : `user ${index % 100}`,
    address: `address ${index % 77}`,
    outcome: index % 2 === 0 ? undefined : "completed",
    laterMs: 10,
  })));
}

Deno.test("pages over several windows hold all that fits, and each looks at a bounded number of entries", () => {
  const entries = manyEntries(20_000);
  using opened = openIndex(entries, 5000);
  const { index } = opened;
  const rare = { words: { subject: ["rare"], type: ["a.y"] } };
  deepStrictEqual(searched(index, rare, "newest", 3), fitting(entries, rare).reverse());
  const two = { words: { type: ["a.x", "a.y"], address: ["address 5"] } };
  deepStrictEqual(searched(index, two, "oldest", 50), fitting(entries, two));
  // Both are common, so each of the entries of one is looked at, some at a time.
  const never = { words: { type: ["a.x"], outcome: ["completed"] } };
  const bounds = { order: "newest", limit: 50, entriesMax: 2000 } as const;
  let [searches, after] = [0, undefined as number | undefined];
  do {
    const { places, reached } = index.search(never, { ...bounds, after });
    deepStrictEqual(places, []);
    ok(reached === undefined || after === undefined || reached < after);
    after = reached;
    searches++;
  } while (after !== undefined);
  ok(searches > 2 && searches < 10, `${searches}`);
});

Deno.test("where no word is indexed, time leads to the right part of the trail, and the rest comes page by page", () => {
  const entries = manyEntries(20_000);
  using opened = openIndex(entries, 5000);
  const { index } = opened;
  const bounds = { order: "newest", after: undefined, limit: 100, entriesMax: 8000 } as const;
  const oldest = { words: { issuer: ["of user 0"] }, untilMs: TIME_MS + 15 };
  deepStrictEqual(index.search(oldest, bounds), {
    places: [{ segment: 1, offset: 0, bytes: 99, seq: 1 }],
    reached: undefined,
  });
  const rare = index.search({ words: { issuer: ["of rare"] } }, bounds);
  ok(rare.places.length > 5 && rare.places.length < 20, `${rare.places.length}`);
  ok(Number(rare.reached) > 1); // entries before are not looked at yet
  const nobody = index.search({ words: { issuer: ["of rare"], outcome: ["internal"] } }, bounds);
  deepStrictEqual(nobody, { places: [], reached: undefined }); // no entry has that outcome: nothing is looked at
});

Deno.test("each filter alone is a range of an index in the order of the numbers: nothing is sorted, nothing else looked at", () => {
  using opened = openIndex(manyEntries(10));
  const database = new DatabaseSync(opened.file, { readOnly: true });
  try {
    for (const column of ["type", "subject", "address", "model", "outcome", "action", "request"]) {
      const plan = database.prepare(
        `EXPLAIN QUERY PLAN SELECT seq FROM entries INDEXED BY entries_by_${column}
          WHERE ${column} = ? AND seq BETWEEN ? AND ? ORDER BY seq DESC LIMIT 5`,
      ).all(1, 1, 9).map(({ detail }) => detail);
      deepStrictEqual(plan, [
        `SEARCH entries USING COVERING INDEX entries_by_${column} (${column}=? AND rowid>? AND rowid<?)`,
      ]);
    }
  } finally {
    database.close();
  }
});

Deno.test("no subject, address or other word stands in the index's files", () => {
  using opened = openIndex(manyEntries(2000));
  const folder = opened.file.replace(/\/[^/]+$/, "");
  const bytes = [...Deno.readDirSync(folder)].map(({ name }) =>
    new TextDecoder("latin1").decode(Deno.readFileSync(`${folder}/${name}`))
  ).join("");
  ok(bytes.includes("CREATE TABLE")); // it is the right file
  for (const word of ["user 5", "address 5", "a.x", "completed", "of user"]) ok(!bytes.includes(word), word);
});

Deno.test("a request is found by its number, and a clock outside of the numbers' range harms nothing", () => {
  const [first, second] = [newId("req", TIME_MS), newId("req", 2 ** 47)];
  const entries = entriesOf(Array.from({ length: 3 }, () => ({
    type: "a.x",
    subject: "ann",
    address: "one",
    outcome: undefined,
    laterMs: 1,
  })));
  const [one, two, three] = entries;
  ok(one && two && three);
  using opened = openIndex([
    { ...one, event: { request: first } },
    { ...two, event: { request: second } },
    { ...three, event: { request: first } },
  ]);
  deepStrictEqual(searched(opened.index, { request: first, words: {} }, "newest", 9), [3, 1]);
  deepStrictEqual(searched(opened.index, { request: second, words: {} }, "newest", 9), [2]);
  deepStrictEqual(searched(opened.index, { request: newId("req", 5), words: {} }, "newest", 9), []);
});

Deno.test("an index opens where it left off, and for no other trail and no other key", () => {
  const entries = manyEntries(10);
  using opened = openIndex(entries);
  opened.close();
  const again = new ArchiveIndex(opened.file, MAKER);
  deepStrictEqual(again.position, { segment: 1, offset: 0, seq: 10 });
  deepStrictEqual(searched(again, { words: { subject: ["user 3"] } }, "newest", 5), [4]);
  again.close();
  throws(() => new ArchiveIndex(opened.file, { ...MAKER, origin: "test/2" }), TypeError);
  throws(() => new ArchiveIndex(opened.file, { ...MAKER, key: new Uint8Array(32) }), TypeError);
  const last = new ArchiveIndex(opened.file, MAKER);
  last.close();
});

Deno.test("what SQLite calls a damaged file is damage, and nothing else is", () => {
  using opened = openIndex(manyEntries(2000));
  opened.close();
  const bytes = Deno.readFileSync(opened.file);
  Deno.writeFileSync(opened.file, bytes.map((byte, at) => at < 4096 ? byte : byte ^ 0x5a));
  let thrown: unknown;
  try {
    const index = new ArchiveIndex(opened.file, MAKER);
    try {
      index.search(ALL_ENTRIES, { order: "newest", after: undefined, limit: 5 });
    } finally {
      index.close();
    }
  } catch (each) {
    thrown = each;
  }
  ok(isDamage(thrown), String(thrown));
  ok(!isDamage(new TypeError("x")) && !isDamage(undefined));
});
