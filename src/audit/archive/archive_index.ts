// Archive index: where in the trail which entries stand, in SQLite. Derived: the trail is what counts. Runs in the archive's worker.
import { createHmac } from "node:crypto";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { canonicalJson } from "../../encoding/canonical_json.ts";
import type { EntryPlace, ReadEntry, TrailPosition } from "../trail/trail_reader.ts";
import { START } from "../trail/trail_reader.ts";
import { type AuditQuery, requestNumber, WORD_COLUMNS, type WordColumn, wordsOf } from "./audit_query.ts";

/** What an index was made of. Where it is another, the index is of no use. */
export interface IndexMaker {
  /** The trail's origin. */
  readonly origin: string;
  /** 32 bytes: words stand in the index as HMAC under it and never as they are. */
  readonly key: Uint8Array;
}

/** An entry by its number and its hash. */
export interface Newest {
  readonly seq: number;
  readonly hash: string;
}

/** A segment as it was when it was indexed. */
export interface IndexedSegment {
  readonly number: number;
  /** Numbers of the first and last entry of it in the index. */
  readonly first: number;
  readonly last: number;
  /** Thinning puts another file in its place. 0: there was none. */
  readonly inode: number;
}

/** How far a search has come. */
export interface Search {
  readonly places: readonly EntryPlace[];
  /** All entries on this side of that number are looked at, itself included; undefined: there are no more. */
  readonly reached: number | undefined;
}

/** Where a search goes on, and how much it may find. */
export interface SearchBounds {
  /** `newest`: from the last to the first. */
  readonly order: "newest" | "oldest";
  /** Only what comes behind this number in that order. */
  readonly after: number | undefined;
  /** Only what is not behind this number, whatever the order; absent: all. */
  readonly last?: number;
  readonly limit: number;
  /** About so many entries are looked at; absent: as many as take a tenth of a second. */
  readonly entriesMax?: number;
}

/**
 * NORMAL in a write-ahead log: nothing is synced at a commit, yet a power loss leaves an older index and never half a page.
 * An index that is damaged without anybody noticing would hide entries from an auditor.
 */
const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  PRAGMA wal_autocheckpoint = 4000;
  PRAGMA cache_size = -32768;
  CREATE TABLE IF NOT EXISTS state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    maker TEXT NOT NULL,
    segment INTEGER NOT NULL,
    position INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    hash TEXT NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS words (mark BLOB PRIMARY KEY, id INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS segments (
    number INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    inode INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS spans (
    number INTEGER PRIMARY KEY,
    earliest INTEGER NOT NULL,
    latest INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    position INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    request INTEGER,
    ${WORD_COLUMNS.map((column) => `${column} INTEGER`).join(", ")}
  ) STRICT;
`;
const FORMAT = 1;
/** By each of them, with the entry's number behind it, as SQLite has it: a range of one value comes in the order of the numbers. */
const INDEXED = ["request", ...WORD_COLUMNS.filter((column) => column !== "issuer")] as const;
type Column = "request" | WordColumn;

/** Entries of one span: of each it is known from when to when it reaches, so times need no index of their own. */
const SPAN_ENTRIES = 4096;
/** About 10 MiB. */
const KNOWN_WORDS_MAX = 100_000;
const MARK_BYTES = 16;
/** Beyond that one filter is as good as another to begin with. */
const COUNTED_MAX = 10_000;
const ENTRIES_MAX = 200_000;
const WINDOW_FIRST = 500;
const WINDOW_MAX = 16_000;

/** SQLite's words for a file that is none of its own, or no longer (SQLITE_CORRUPT, SQLITE_NOTADB). */
export function isDamage(thrown: unknown): boolean {
  if (!(thrown instanceof Error) || !("errcode" in thrown)) return false;
  return thrown.errcode === 11 || thrown.errcode === 26;
}

/** An index in a file. */
export class ArchiveIndex {
  readonly #database: DatabaseSync;
  readonly #key: Uint8Array;
  readonly #knownWords = new Map<string, number>();
  readonly #insertEntry: StatementSync;
  readonly #insertWord: StatementSync;
  readonly #selectWord: StatementSync;
  readonly #widenSpan: StatementSync;
  readonly #widenSegment: StatementSync;
  readonly #moveEntry: StatementSync;
  readonly #moveTo: StatementSync;
  #wordCount: number;
  #position: TrailPosition;
  #newest: Newest | undefined;

  /**
   * Opens an index, or makes one where there is none.
   *
   * @throws Error of SQLite, or a TypeError where it is no index of this maker: then the file is to be removed
   */
  constructor(file: string, { origin, key }: IndexMaker) {
    this.#key = key;
    const maker = canonicalJson({ format: FORMAT, origin, key: this.#mark("key").toHex() });
    this.#database = new DatabaseSync(file);
    try {
      this.#database.exec(SCHEMA);
      for (const column of INDEXED) {
        this.#database.exec(
          `CREATE INDEX IF NOT EXISTS entries_by_${column} ON entries (${column}) WHERE ${column} IS NOT NULL`,
        );
      }
      this.#prepare("INSERT INTO state VALUES (1, ?, ?, ?, ?, 0, '') ON CONFLICT DO NOTHING")
        .run(maker, START.segment, START.offset, START.seq);
      const state = this.#prepare("SELECT * FROM state").get();
      if (state?.maker !== maker) throw new TypeError("the index was made of another trail");
      this.#position = {
        segment: Number(state.segment),
        offset: Number(state.position),
        seq: Number(state.seq),
      };
      this.#newest = state.newest === 0 ? undefined : { seq: Number(state.newest), hash: String(state.hash) };
      this.#wordCount = Number(this.#prepare("SELECT count(*) AS count FROM words").get()?.count);
      const columns = ["seq", "time", "segment", "position", "bytes", "request", ...WORD_COLUMNS];
      this.#insertEntry = this.#prepare(
        `INSERT INTO entries (${columns}) VALUES (${columns.map(() => "?")})`,
      );
      this.#insertWord = this.#prepare("INSERT INTO words VALUES (?, ?)");
      this.#selectWord = this.#prepare("SELECT id FROM words WHERE mark = ?");
      this.#widenSpan = this.#prepare(
        "INSERT INTO spans VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET earliest = min(earliest, excluded.earliest), " +
          "latest = max(latest, excluded.latest)",
      );
      this.#widenSegment = this.#prepare(
        "INSERT INTO segments VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last",
      );
      this.#moveEntry = this.#prepare(
        "UPDATE entries SET segment = ?, position = ?, bytes = ? WHERE seq = ?",
      );
      this.#moveTo = this.#prepare(
        "UPDATE state SET segment = ?, position = ?, seq = ?, newest = ?, hash = ?",
      );
    } catch (thrown) {
      this.#database.close();
      throw thrown;
    }
  }

  /** Everything before it is in the index. */
  get position(): TrailPosition {
    return this.#position;
  }

  /** The last entry that came into the index. */
  get newest(): Newest | undefined {
    return this.#newest;
  }

  /**
   * Takes the next entries of the trail. All of them are in the index when it returns, or none.
   *
   * @param inodeOf of a segment's file, as it was before the entries were read
   */
  add(entries: readonly ReadEntry[], next: TrailPosition, inodeOf: (segment: number) => number): void {
    const newest = entries.at(-1) ?? this.#newest;
    this.#transact(() => {
      let [segment, first] = [0, 0];
      for (const [index, entry] of entries.entries()) {
        if (entry.segment !== segment) [segment, first] = [entry.segment, entry.seq];
        this.#insert(entry);
        if (entries[index + 1]?.segment === segment) continue;
        this.#widenSegment.run(segment, first, entry.seq, inodeOf(segment));
      }
      this.#widenSpans(entries);
      this.#moveTo.run(next.segment, next.offset, next.seq, newest?.seq ?? 0, newest?.hash ?? "");
    });
    this.#position = next;
    this.#newest = newest;
  }

  #insert({ seq, time, segment, offset, bytes, event }: ReadEntry): void {
    const words = event === undefined ? [] : wordsOf(event);
    const ids = WORD_COLUMNS.map((column, index) => {
      const word = words[index];
      return word === undefined ? null : this.#wordId(column, word, true) ?? null;
    });
    const request = requestNumber(event?.request) ?? null;
    this.#insertEntry.run(seq, Date.parse(time), segment, offset, bytes, request, ...ids);
  }

  #widenSpans(entries: readonly ReadEntry[]): void {
    const spans = new Map<number, { earliest: number; latest: number }>();
    for (const { seq, time } of entries) {
      const number = Math.floor(seq / SPAN_ENTRIES);
      const ms = Date.parse(time);
      const span = spans.get(number);
      spans.set(number, {
        earliest: Math.min(span?.earliest ?? ms, ms),
        latest: Math.max(span?.latest ?? ms, ms),
      });
    }
    for (const [number, { earliest, latest }] of spans) this.#widenSpan.run(number, earliest, latest);
  }

  /** The segments of which entries are in the index, ascending. */
  segments(): readonly IndexedSegment[] {
    return this.#prepare("SELECT number, first, last, inode FROM segments ORDER BY number").all().map((
      row,
    ) => ({
      number: Number(row.number),
      first: Number(row.first),
      last: Number(row.last),
      inode: Number(row.inode),
    }));
  }

  /**
   * Notes where entries of a thinned segment stand now, and forgets those between them.
   *
   * @param entries what stands between the two numbers now, ascending
   * @param after what was noted before ended with this number
   * @param last nothing behind this number is meant; with all entries of a segment noted, its own last number
   */
  replace(entries: readonly EntryPlace[], after: number, last: number): void {
    this.#transact(() => {
      const remove = this.#prepare("DELETE FROM entries WHERE seq > ? AND seq < ?");
      let previous = after;
      for (const { seq, segment, offset, bytes } of entries) {
        if (seq > previous + 1) remove.run(previous, seq);
        this.#moveEntry.run(segment, offset, bytes, seq);
        previous = seq;
      }
      remove.run(previous, last + 1);
    });
  }

  /** Notes that a segment is indexed as it stands in this file. */
  settleSegment(number: number, inode: number): void {
    this.#prepare("UPDATE segments SET inode = ? WHERE number = ?").run(inode, number);
  }

  /** Where an entry stands; undefined when it is not in the index. */
  placeOf(entrySeq: number): EntryPlace | undefined {
    const row = this.#prepare("SELECT seq, segment, position, bytes FROM entries WHERE seq = ?").get(
      entrySeq,
    );
    return row === undefined ? undefined : placeOfRow(row);
  }

  /** The number of the entry before this one; 0 when there is none. */
  before(entrySeq: number): number {
    return Number(this.#prepare("SELECT max(seq) AS seq FROM entries WHERE seq < ?").get(entrySeq)?.seq ?? 0);
  }

  /**
   * Entries that fit, in order. It ends before `limit` is reached where it has looked at many in vain: whoever wants more asks
   * again from where it has come to.
   */
  search(query: AuditQuery, bounds: SearchBounds): Search {
    const filters = this.#filters(query);
    const range = this.#range(query, bounds);
    if (filters === undefined || range === undefined) return { places: [], reached: undefined };
    const driver = this.#mostSelective(filters, range);
    const walk = new Walk(this.#database, { query, filters, driver, bounds });
    return walk.run(range);
  }

  /** Undefined where a word is looked for that no entry has. */
  #filters({ request, words }: AuditQuery): readonly Filter[] | undefined {
    const filters: Filter[] = [];
    const number = requestNumber(request);
    if (request !== undefined) filters.push({ column: "request", ids: number === undefined ? [] : [number] });
    for (const column of WORD_COLUMNS) {
      const texts = words[column];
      if (texts === undefined) continue;
      const ids = new Set(texts.map((text) => this.#wordId(column, text, false)));
      filters.push({ column, ids: [...ids].filter((id) => id !== undefined) });
    }
    return filters.some(({ ids }) => ids.length === 0) ? undefined : filters;
  }

  /** The numbers between which all that fits must be, both included; undefined: nothing does. */
  #range({ fromMs, untilMs }: AuditQuery, { order, after, last }: SearchBounds): Range | undefined {
    let [low, high] = [1, last ?? this.#position.seq];
    if (fromMs !== undefined || untilMs !== undefined) {
      const row = this.#prepare(
        "SELECT min(number) AS low, max(number) AS high FROM spans WHERE latest >= ? AND earliest < ?",
      ).get(fromMs ?? 0, untilMs ?? Number.MAX_SAFE_INTEGER);
      if (row === undefined || row.low === null) return undefined;
      low = Math.max(low, Number(row.low) * SPAN_ENTRIES);
      high = Math.min(high, (Number(row.high) + 1) * SPAN_ENTRIES - 1);
    }
    if (after !== undefined) {
      if (order === "newest") high = Math.min(high, after - 1);
      else low = Math.max(low, after + 1);
    }
    return low <= high ? { low, high } : undefined;
  }

  #mostSelective(filters: readonly Filter[], { low, high }: Range): Filter | undefined {
    const indexed = filters.filter(({ column }) => column !== "issuer");
    if (indexed.length < 2) return indexed[0];
    const counted = indexed.map((filter) => {
      const { column, ids } = filter;
      const row = this.#prepare(
        `SELECT count(*) AS count FROM (SELECT 1 FROM entries INDEXED BY entries_by_${column}
          WHERE ${isIn(column, ids)} AND seq BETWEEN ? AND ? LIMIT ${COUNTED_MAX})`,
      ).get(...ids, low, high);
      return { filter, count: Number(row?.count) };
    });
    return counted.reduce((least, each) => each.count < least.count ? each : least).filter;
  }

  /** The id of a word; undefined where the index has none and none is to be made. */
  #wordId(column: WordColumn, text: string, make: boolean): number | undefined {
    const name = `${column}\0${text}`;
    const known = this.#knownWords.get(name);
    if (known !== undefined) return known;
    const mark = this.#mark(name);
    const row = this.#selectWord.get(mark);
    if (row === undefined && !make) return undefined;
    const id = row === undefined ? ++this.#wordCount : Number(row.id);
    if (row === undefined) this.#insertWord.run(mark, id);
    if (this.#knownWords.size >= KNOWN_WORDS_MAX) this.#knownWords.clear();
    this.#knownWords.set(name, id);
    return id;
  }

  #mark(text: string): Uint8Array {
    return new Uint8Array(createHmac("sha256", this.#key).update(text).digest().subarray(0, MARK_BYTES));
  }

  #transact(act: () => void): void {
    this.#database.exec("BEGIN");
    const wordCount = this.#wordCount;
    try {
      act();
      this.#database.exec("COMMIT");
    } catch (thrown) {
      this.#wordCount = wordCount;
      this.#knownWords.clear(); // some may have been new
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw thrown;
    }
  }

  #prepare(sql: string): StatementSync {
    return this.#database.prepare(sql);
  }

  /** Frees the file. */
  close(): void {
    this.#database.close();
  }
}

interface Filter {
  readonly column: Column;
  readonly ids: readonly number[];
}

interface Range {
  readonly low: number;
  readonly high: number;
}

interface Way {
  readonly query: AuditQuery;
  readonly filters: readonly Filter[];
  /** Whose entries are looked at; undefined: all. */
  readonly driver: Filter | undefined;
  readonly bounds: SearchBounds;
}

/** One search: window by window, each of a bounded number of entries of each of the driver's values. */
class Walk {
  readonly #limit: number;
  readonly #entriesMax: number;
  readonly #isNewest: boolean;
  /** The driver's values; one that is none where there is no driver. */
  readonly #values: readonly number[];
  readonly #edge: StatementSync;
  readonly #select: StatementSync;
  readonly #selectParameters: readonly number[];
  readonly #isDriven: boolean;

  constructor(database: DatabaseSync, { query, filters, driver, bounds }: Way) {
    const { fromMs, untilMs } = query;
    this.#limit = bounds.limit;
    this.#entriesMax = bounds.entriesMax ?? ENTRIES_MAX;
    this.#isNewest = bounds.order === "newest";
    this.#isDriven = driver !== undefined;
    this.#values = driver?.ids ?? [0];
    const source = driver === undefined
      ? "entries NOT INDEXED WHERE"
      : `entries INDEXED BY entries_by_${driver.column} WHERE ${driver.column} = ? AND`;
    const order = `ORDER BY seq ${this.#isNewest ? "DESC" : "ASC"}`;
    this.#edge = database.prepare(
      `SELECT seq FROM ${source} seq BETWEEN ? AND ? ${order} LIMIT 1 OFFSET ?`,
    );
    const others = filters.filter((filter) => filter !== driver);
    const conditions = [
      "seq BETWEEN ? AND ?",
      ...others.map(({ column, ids }) => isIn(column, ids)),
      ...fromMs === undefined ? [] : ["time >= ?"],
      ...untilMs === undefined ? [] : ["time < ?"],
    ];
    this.#select = database.prepare(
      `SELECT seq, segment, position, bytes FROM ${source} ${conditions.join(" AND ")} ${order} LIMIT ?`,
    );
    this.#selectParameters = [
      ...others.flatMap(({ ids }) => ids),
      ...fromMs === undefined ? [] : [fromMs],
      ...untilMs === undefined ? [] : [untilMs],
    ];
  }

  run(range: Range): Search {
    const places: EntryPlace[] = [];
    let left: Range | undefined = range;
    let entriesLeft = this.#entriesMax;
    let windowMax = WINDOW_FIRST;
    let reached: number | undefined;
    while (left !== undefined && places.length <= this.#limit && entriesLeft > 0) {
      const window = this.#window(left, windowMax);
      // One more than asked for: there is more.
      const found = this.#values.flatMap((value) =>
        this.#find(value, window, this.#limit + 1 - places.length)
      );
      places.push(...found.sort((one, other) => this.#isNewest ? other.seq - one.seq : one.seq - other.seq));
      left = this.#isNewest ? rangeOf(left.low, window.low - 1) : rangeOf(window.high + 1, left.high);
      reached = this.#isNewest ? window.low : window.high;
      entriesLeft -= windowMax * this.#values.length;
      windowMax = Math.min(WINDOW_MAX, windowMax * 4);
    }
    if (places.length > this.#limit) {
      const page = places.slice(0, this.#limit);
      return { places: page, reached: page.at(-1)?.seq };
    }
    return { places, reached: left === undefined ? undefined : reached };
  }

  /** The next part of a range: at most so many entries of each value are in it. */
  #window({ low, high }: Range, entriesMax: number): Range {
    const edges = this.#values.flatMap((value) => {
      const row = this.#edge.get(...this.#valueOf(value), low, high, entriesMax - 1);
      return row === undefined ? [] : [Number(row.seq)];
    });
    return this.#isNewest ? { low: Math.max(low, ...edges), high } : { low, high: Math.min(high, ...edges) };
  }

  #find(value: number, { low, high }: Range, limit: number): EntryPlace[] {
    return this.#select.all(...this.#valueOf(value), low, high, ...this.#selectParameters, limit)
      .map(placeOfRow);
  }

  #valueOf(value: number): readonly number[] {
    return this.#isDriven ? [value] : [];
  }
}

function rangeOf(low: number, high: number): Range | undefined {
  return low <= high ? { low, high } : undefined;
}

function isIn(column: Column, ids: readonly number[]): string {
  return `${column} IN (${ids.map(() => "?")})`;
}

function placeOfRow(row: Record<string, unknown>): EntryPlace {
  return {
    seq: Number(row.seq),
    segment: Number(row.segment),
    offset: Number(row.position),
    bytes: Number(row.bytes),
  };
}
