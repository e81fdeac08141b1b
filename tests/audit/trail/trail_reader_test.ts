// Tests of reading a trail in pieces, while it grows and while entries are taken out of it.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import type { AuditEvent } from "../../../src/audit/audit_event.ts";
import { type ReadEntry, START, TrailReader } from "../../../src/audit/trail/trail_reader.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { mixedUpTo, thin } from "../thinned_trail.ts";
import { numbered, numberedUpTo, TRAIL_KEYS, TrailFolder, unwritten } from "../trail_folder.ts";

const LARGE = { entriesMax: 1_000, bytesMax: 10_000_000 };

function readerOf({ directory, checkpointDirectory }: TrailFolder, keys = new Map<string, Uint8Array>()) {
  return new TrailReader({ directory, checkpointDirectory, keys: () => keys });
}

/** All entries, some at a time. */
function readAll(reader: TrailReader, bounds = LARGE, from = START): ReadEntry[] {
  const all: ReadEntry[] = [];
  for (;;) {
    const { entries, next } = reader.read(from, bounds);
    if (entries.length === 0) return all;
    all.push(...entries);
    from = next;
  }
}

function numbersOf(entries: readonly ReadEntry[]): number[] {
  return entries.map(({ seq }) => seq);
}

const isFault = (kind: string) => (thrown: unknown) => thrown instanceof Fault && thrown.kind === kind;

Deno.test("a reader gives all entries once and in order, over all segments, whatever the bounds", async () => {
  await using folder = new TrailFolder();
  folder.write(mixedUpTo(40), 3_000);
  const written = folder.entries();
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 12 }),
      fc.integer({ min: 1, max: 4_000 }),
      (entriesMax, bytesMax) => {
        const read = readAll(readerOf(folder), { entriesMax, bytesMax });
        deepStrictEqual(
          read.map(({ seq, time, hash, event }) => ({ seq, time, hash, event })),
          written.map(({ seq, time, hash, event }) => ({ seq, time, hash, event })),
        );
      },
    ),
    { numRuns: 30 },
  );
  deepStrictEqual(readAll(readerOf(folder)).map((each) => each.class).slice(0, 2), ["security", "activity"]);
});

Deno.test("a reader keeps its bounds, but gives one entry that is longer than they are", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1), { ...numbered(2), reason: "x".repeat(10_000) } as AuditEvent, numbered(3)]);
  const reader = readerOf(folder);
  const first = reader.read(START, { entriesMax: 10, bytesMax: 5_000 });
  deepStrictEqual(numbersOf(first.entries), [1]);
  const second = reader.read(first.next, { entriesMax: 10, bytesMax: 5_000 });
  deepStrictEqual(numbersOf(second.entries), [2]);
  deepStrictEqual(numbersOf(reader.read(second.next, { entriesMax: 10, bytesMax: 5_000 }).entries), [3]);
});

Deno.test("a reader gives nothing beyond the durable head, and goes on when it has moved", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const early = Deno.readFileSync(folder.checkpointPath);
  folder.write(numberedUpTo(8, 4), 900);
  const late = Deno.readFileSync(folder.checkpointPath);
  Deno.writeFileSync(folder.checkpointPath, early);
  const reader = readerOf(folder);
  strictEqual(reader.durable(), 3);
  const { entries, next } = reader.read(START, LARGE);
  deepStrictEqual(numbersOf(entries), [1, 2, 3]);
  deepStrictEqual(reader.read(next, LARGE), { entries: [], next });
  Deno.writeFileSync(folder.checkpointPath, late);
  deepStrictEqual(numbersOf(readAll(reader, LARGE, next)), [4, 5, 6, 7, 8]);
});

Deno.test("a reader steps over a torn tail and follows a writer batch by batch", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter(2_000);
  try {
    const reader = readerOf(folder);
    let from = START;
    for (let number = 1; number <= 30; number++) {
      writer.append([unwritten(numbered(number))]);
      const { entries, next } = reader.read(from, LARGE);
      deepStrictEqual(numbersOf(entries), [number]);
      from = next;
    }
  } finally {
    writer.close();
  }
  const last = [...Deno.readDirSync(folder.directory)].map(({ name }) => name).sort().at(-1);
  Deno.writeTextFileSync(`${folder.directory}/${last}`, '{"event":{"ty', { append: true });
  strictEqual(readAll(readerOf(folder)).length, 30);
});

Deno.test("an entry is found by its place, and is not found there when it was taken out or moved", async () => {
  await using folder = new TrailFolder();
  folder.write(mixedUpTo(12), 1_500);
  const reader = readerOf(folder);
  const entries = readAll(reader);
  for (const entry of entries) deepStrictEqual(reader.at(entry), entry);
  const [first, second] = entries;
  ok(first !== undefined && second !== undefined);
  throws(() => reader.at({ ...first, seq: 2 }), isFault("not_found"));
  throws(() => reader.at({ ...first, offset: first.offset + 1 }), isFault("not_found"));
  thin(folder, 1, ["activity"]);
  throws(() => reader.at(second), isFault("not_found"));
  for (const entry of readAll(reader)) deepStrictEqual(reader.at(entry), entry);
  thin(folder, 1, ["activity", "security"]);
  throws(() => reader.at(first), isFault("not_found"));
});

Deno.test("a reader steps over what was taken out, and its positions stay good while that happens", async () => {
  await using folder = new TrailFolder();
  folder.write(mixedUpTo(24), 2_500);
  const reader = readerOf(folder);
  const whole = readAll(reader);
  // A position behind each entry, taken while the trail was whole.
  const positions = whole.map((_, index) => {
    const { next } = reader.read(START, { ...LARGE, entriesMax: index + 1 });
    return next;
  });
  const check = (kept: (entry: ReadEntry) => boolean): void => {
    for (const from of [START, ...positions]) {
      deepStrictEqual(
        numbersOf(readAll(reader, { ...LARGE, entriesMax: 3 }, from)),
        numbersOf(whole.filter((entry) => entry.seq > from.seq && kept(entry))),
      );
    }
  };
  thin(folder, 2, ["activity"]);
  check(({ seq, segment }) => segment !== 2 || seq % 2 === 1);
  thin(folder, 1, ["activity", "security"]);
  check(({ seq, segment }) => segment > 2 || (segment === 2 && seq % 2 === 1));
  thin(folder, 2, ["activity", "security"]);
  check(({ segment }) => segment > 2);
  strictEqual(reader.read(START, LARGE).entries[0]?.segment, 3);
});

Deno.test("a sealed event is opened with its key, and shows as unreadable without it", async () => {
  const sealing = { id: "akey_s", raw: new Uint8Array(32).fill(7) };
  await using folder = new TrailFolder();
  folder.write(mixedUpTo(4), 1_000, { keys: { ...TRAIL_KEYS, sealing }, sealed: true });
  const opened = readAll(readerOf(folder, new Map([[sealing.id, sealing.raw]])));
  deepStrictEqual(opened.map(({ event }) => event), mixedUpTo(4));
  deepStrictEqual(opened.map((each) => each.class), ["security", "activity", "security", "activity"]);
  const unreadable = readAll(readerOf(folder));
  deepStrictEqual(unreadable.map(({ event }) => event), [undefined, undefined, undefined, undefined]);
  deepStrictEqual(unreadable.map((each) => each.class), ["security", "activity", "security", "activity"]);
});

Deno.test("a reader throws where the trail is damaged instead of stepping over it", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(9), 1_500);
  const reader = readerOf(folder);
  const lines = folder.lines(2);
  folder.setLines(lines.toSpliced(1, 1), 2);
  throws(() => readAll(reader), isFault("unavailable"));
  folder.setLines(lines.toSpliced(0, 1), 2);
  throws(() => readAll(reader), isFault("unavailable"));
  folder.setLines(lines.with(1, "{}"), 2);
  throws(() => readAll(reader), isFault("unavailable"));
  Deno.removeSync(folder.segmentPath(2));
  throws(() => readAll(reader), isFault("unavailable"));
  folder.setLines(lines, 2);
  Deno.removeSync(folder.checkpointPath);
  throws(() => reader.durable(), isFault("unavailable"));
});

Deno.test("a reader of a trail without entries gives none", async () => {
  await using folder = new TrailFolder();
  folder.write([]);
  deepStrictEqual(readerOf(folder).read(START, LARGE), { entries: [], next: START });
});
