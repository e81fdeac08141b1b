// The limit store in SQLite: one file, for one instance or several processes of one machine.
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import { decideCells, holdKeptMs, holdRefused, SETTLED_KEPT_MS } from "./decide_cells.ts";
import { drained, filled } from "./gcra.ts";
import type { LimitCell, LimitDecision, RateCell } from "./limit_store.ts";
import type { LocalLimitStore } from "./local_limit_store.ts";
import { nextTurn } from "./next_turn.ts";
import { SUM_PAGE_MAX, type SumPage, type SumPages, sumsByPages } from "./sum_pages.ts";

// NORMAL: a commit is in the file's log before it is answered, and on the disk a moment later. A process that is killed loses
// nothing; a power cut may lose the last commits (at most what was written since the log was last taken over into the file),
// whole ones, latest first: then budgets count a little less than was used. FULL would cost a disk's delay at each request.
// That log is taken over every 16 MiB; SQLite's 4 MiB come around a hundred requests, and each time the disk is waited for.
const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  PRAGMA wal_autocheckpoint = 4000;
  CREATE TABLE IF NOT EXISTS rates (
    key TEXT PRIMARY KEY, level INTEGER NOT NULL, at_ms INTEGER NOT NULL, ends_at_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS books (book TEXT PRIMARY KEY, ends_at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS sums (
    book TEXT NOT NULL, key TEXT NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (book, key)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS places (
    key TEXT NOT NULL, hold TEXT NOT NULL, ends_at_ms INTEGER NOT NULL, PRIMARY KEY (key, hold)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS holds (
    hold TEXT PRIMARY KEY, taken_at_ms INTEGER, ends_at_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS rates_by_end ON rates (ends_at_ms);
  CREATE INDEX IF NOT EXISTS places_by_end ON places (ends_at_ms);
  CREATE INDEX IF NOT EXISTS holds_by_end ON holds (ends_at_ms);
`;
/** How long a statement waits for another process that holds the file. */
const BUSY_TIMEOUT_MS = 250;
/** What has ended leaves the file so often, in small portions: nobody's decision waits for a large one. */
const SWEEP_EVERY_MS = 1000;
const SWEPT_MAX = 500;

/** The store, whose sums may be read by pages as well. */
export interface SqliteLimitStore extends LocalLimitStore, SumPages {
  sumsFrom(book: string, key: string): SumPage;
  sumsOf(book: string, keys: readonly string[]): SumPage;
}

/**
 * Opens (or makes) the store.
 *
 * @param clock its wall time, which all processes of a machine share: a restart has to find its periods again
 * @throws Fault `unavailable` when the file cannot be opened
 */
export function openSqliteLimitStore(file: string, clock: Clock): SqliteLimitStore {
  const database = guard("open", () => new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS }));
  try {
    guard("open", () => database.exec(SCHEMA));
    return storeOver(database, clock);
  } catch (thrown) {
    // Whoever tries again opens it again.
    database.close();
    throw thrown;
  }
}

function storeOver(database: DatabaseSync, clock: Clock): SqliteLimitStore {
  const prepare = (sql: string): StatementSync => guard("prepare", () => database.prepare(sql));
  const selectHold = prepare("SELECT taken_at_ms FROM holds WHERE hold = ? AND ends_at_ms > ?");
  const upsertHold = prepare(
    "INSERT INTO holds VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET taken_at_ms = excluded.taken_at_ms, ends_at_ms = excluded.ends_at_ms",
  );
  const selectRate = prepare("SELECT level, at_ms FROM rates WHERE key = ?");
  const upsertRate = prepare(
    "INSERT INTO rates VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET level = excluded.level, at_ms = excluded.at_ms, ends_at_ms = excluded.ends_at_ms",
  );
  const selectBook = prepare("SELECT ends_at_ms FROM books WHERE book = ?");
  const upsertBook = prepare(
    "INSERT INTO books VALUES (?, ?) ON CONFLICT DO UPDATE SET ends_at_ms = excluded.ends_at_ms",
  );
  const deleteSums = prepare("DELETE FROM sums WHERE book = ?");
  const selectSum = prepare(
    "SELECT sum FROM sums JOIN books USING (book) WHERE book = ? AND key = ? AND ends_at_ms > ?",
  );
  const selectSums = prepare(
    `SELECT key, sum FROM sums JOIN books USING (book)
      WHERE book = ? AND key >= ? AND ends_at_ms > ? ORDER BY key LIMIT ${SUM_PAGE_MAX}`,
  );
  const addSum = prepare(
    `INSERT INTO sums VALUES (?, ?, max(0, ?))
      ON CONFLICT DO UPDATE SET sum = max(0, min(${Number.MAX_SAFE_INTEGER}, sum + ?))`,
  );
  const countPlaces = prepare("SELECT count(*) AS held FROM places WHERE key = ? AND ends_at_ms > ?");
  const upsertPlace = prepare(
    "INSERT INTO places VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET ends_at_ms = excluded.ends_at_ms",
  );
  const deletePlace = prepare("DELETE FROM places WHERE key = ? AND hold = ?");
  const sweeps = [
    prepare(
      `DELETE FROM rates WHERE key IN (SELECT key FROM rates WHERE ends_at_ms <= ? LIMIT ${SWEPT_MAX})`,
    ),
    prepare(
      `DELETE FROM holds WHERE hold IN (SELECT hold FROM holds WHERE ends_at_ms <= ? LIMIT ${SWEPT_MAX})`,
    ),
    prepare(
      `DELETE FROM places WHERE (key, hold) IN (SELECT key, hold FROM places WHERE ends_at_ms <= ? LIMIT ${SWEPT_MAX})`,
    ),
    // CROSS: books come first, which are few; SQLite would look through all sums.
    prepare(
      `DELETE FROM sums WHERE (book, key) IN
        (SELECT book, key FROM books CROSS JOIN sums USING (book) WHERE ends_at_ms <= ? LIMIT ${SWEPT_MAX})`,
    ),
    prepare(
      "DELETE FROM books WHERE ends_at_ms <= ? AND NOT EXISTS (SELECT 1 FROM sums WHERE sums.book = books.book)",
    ),
  ];
  let sweepAtMs = clock.now();

  /** Runs one decision alone on the file. */
  function transact<Value>(act: string, decide: (nowMs: number) => Value): Value {
    return guard(act, () => {
      // IMMEDIATE: the file is ours before anything is read, so what is judged is what is changed.
      database.exec("BEGIN IMMEDIATE");
      try {
        // Only now: whoever waited for another process decides by the time of its turn.
        const nowMs = clock.now();
        const value = decide(nowMs);
        if (nowMs >= sweepAtMs) sweep(nowMs);
        database.exec("COMMIT");
        return value;
      } finally {
        // Not after the commit, nor after an error at which SQLite itself has rolled back.
        if (database.isTransaction) database.exec("ROLLBACK");
      }
    });
  }

  function sweep(nowMs: number): void {
    const isMore = sweeps.map((statement) => Number(statement.run(nowMs).changes)).includes(SWEPT_MAX);
    if (!isMore) sweepAtMs = nowMs + SWEEP_EVERY_MS;
  }

  function levelOf(cell: RateCell, nowMs: number): number {
    const row = selectRate.get(cell.key);
    return row === undefined ? 0 : drained(cell, Number(row.level), nowMs - Number(row.at_ms));
  }

  function stateOf(cell: LimitCell, nowMs: number): number {
    switch (cell.kind) {
      case "rate":
        return levelOf(cell, nowMs);
      case "count":
        return Number(selectSum.get(cell.book, cell.key, nowMs)?.sum ?? 0);
      case "place":
        return Number(countPlaces.get(cell.key, nowMs)?.held);
    }
  }

  function fill(cell: RateCell, levelBefore: number, amount: number, nowMs: number): void {
    if (amount === 0) return;
    const level = filled(cell, levelBefore, amount);
    upsertRate.run(cell.key, level, nowMs, wholeMs(nowMs + level / cell.quota));
  }

  function add(book: string, key: string, amount: number, endsAtMs: number, nowMs: number): void {
    if (amount === 0) return;
    const end = selectBook.get(book)?.ends_at_ms;
    if (end !== undefined && Number(end) <= nowMs) deleteSums.run(book);
    if (end === undefined || Number(end) < endsAtMs) upsertBook.run(book, endsAtMs);
    addSum.run(book, key, amount, amount);
  }

  function correct(cell: LimitCell, used: number, hold: string, takenAtMs: number, nowMs: number): void {
    switch (cell.kind) {
      case "rate":
        return fill(cell, levelOf(cell, nowMs), used - cell.amount, nowMs);
      case "count": {
        // A period that is over is past correcting: its book is gone.
        const endsAtMs = wholeMs(takenAtMs + cell.endsInMs);
        if (endsAtMs > nowMs) add(cell.book, cell.key, used - cell.amount, endsAtMs, nowMs);
        return;
      }
      case "place":
        deletePlace.run(cell.key, hold);
    }
  }

  return {
    take(hold, cells, keptMs = holdKeptMs(cells)): readonly LimitDecision[] {
      return transact("take from", (nowMs) => {
        if (hold !== null && selectHold.get(hold, nowMs) !== undefined) throw holdRefused();
        const states = cells.map((cell) => stateOf(cell, nowMs));
        const { allowed, decisions } = decideCells(cells, states);
        if (!allowed) return decisions;
        cells.forEach((cell, index) => {
          if (cell.kind === "rate") fill(cell, states[index] ?? 0, cell.amount, nowMs);
          else if (cell.kind === "count") {
            add(cell.book, cell.key, cell.amount, wholeMs(nowMs + cell.endsInMs), nowMs);
          } else upsertPlace.run(cell.key, hold ?? crypto.randomUUID(), wholeMs(nowMs + cell.heldMs));
        });
        if (hold !== null) upsertHold.run(hold, nowMs, wholeMs(nowMs + keptMs));
        return decisions;
      });
    },

    settle(hold, used, tallies): void {
      transact("settle in", (nowMs) => {
        const row = selectHold.get(hold, nowMs);
        if (row !== undefined && row.taken_at_ms === null) return;
        if (row !== undefined) {
          for (const { cell, used: amount } of used) {
            correct(cell, amount, hold, Number(row.taken_at_ms), nowMs);
          }
        }
        for (const { book, key, amount, keptMs } of tallies) {
          add(book, key, amount, wholeMs(nowMs + keptMs), nowMs);
        }
        upsertHold.run(hold, null, nowMs + SETTLED_KEPT_MS);
      });
    },

    sums: (book, keys) => sumsByPages({ sumsFrom, sumsOf }, nextTurn, book, keys),
    sumsFrom,
    sumsOf,

    close(): Promise<void> {
      try {
        return Promise.resolve(guard("close", () => database.close()));
      } catch (fault) {
        return Promise.reject(fault);
      }
    },
  };

  function sumsFrom(book: string, from: string): SumPage {
    return guard("read", () => selectSums.all(book, from, clock.now()))
      .map(({ key, sum }) => [String(key), Number(sum)] as const);
  }

  function sumsOf(book: string, keys: readonly string[]): SumPage {
    return guard(
      "read",
      () => keys.map((key) => [key, Number(selectSum.get(book, key, clock.now())?.sum ?? 0)] as const),
    );
  }
}

/** As the file keeps it: whole, and no more than is exact. */
function wholeMs(ms: number): number {
  return Math.min(Number.MAX_SAFE_INTEGER, Math.ceil(ms));
}

function guard<Value>(act: string, run: () => Value): Value {
  try {
    return run();
  } catch (cause) {
    if (cause instanceof Fault) throw cause;
    throw new Fault(
      "unavailable",
      `Cannot ${act} the limit store: ${cause instanceof Error ? cause.message : "unknown"}`,
      { cause },
    );
  }
}
