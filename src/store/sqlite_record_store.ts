// The record store in SQLite: one file, for one instance.
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import {
  findsWhatItExpects,
  type RecordChange,
  type RecordPlace,
  type RecordStore,
  type Replacement,
} from "./record_store.ts";

// FULL: a commit is on the disk before it is acknowledged. Writes here are rare (users, sign-outs), so its price is no matter.
const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  PRAGMA secure_delete = ON;
  PRAGMA temp_store = MEMORY;
  CREATE TABLE IF NOT EXISTS records (
    collection TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (collection, key)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS records_by_expiry ON records (expires_at_ms);
`;
/**
 * An empty table has no pages, and `secure_delete` fills those that it had with zeros. In the place of VACUUM, which attaches another file:
 * Deno allows that to none whose rights to read and write files have bounds.
 */
const REWRITE = `
  CREATE TEMP TABLE rewritten AS SELECT * FROM records;
  DELETE FROM records;
  INSERT INTO records SELECT * FROM rewritten;
  DROP TABLE rewritten;
`;
/** Half a second of work. */
const REWRITTEN_BYTES_MAX = 32 * 1024 * 1024;
/** 9999-12-31: later than any record lives. */
const NEVER_MS = 253_402_300_799_999;
/** What has expired leaves the file with the next write after this; by the index, it costs what there is to delete. */
const SWEEP_EVERY_MS = 60_000;
/** How long a statement waits for another process that holds the file. */
const BUSY_TIMEOUT_MS = 250;

/**
 * Opens (or makes) the store.
 *
 * @throws Fault `unavailable` when the file cannot be opened
 */
export function openSqliteRecordStore(file: string, clock: Clock): RecordStore {
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

function storeOver(database: DatabaseSync, clock: Clock): RecordStore {
  const prepare = (sql: string): StatementSync => guard("prepare", () => database.prepare(sql));
  const selectOne = prepare(
    "SELECT value FROM records WHERE collection = ? AND key = ? AND expires_at_ms > ?",
  );
  const selectPage = prepare(
    "SELECT key, value FROM records WHERE collection = ? AND key > ? AND expires_at_ms > ? ORDER BY key LIMIT ?",
  );
  const upsert = prepare(
    "INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value, expires_at_ms = excluded.expires_at_ms",
  );
  const remove = prepare("DELETE FROM records WHERE collection = ? AND key = ? AND expires_at_ms > ?");
  const sweep = prepare("DELETE FROM records WHERE expires_at_ms <= ?");
  const exchange = prepare(
    "UPDATE records SET value = ? WHERE collection = ? AND key = ? AND value = ? AND expires_at_ms > ?",
  );
  // One step of the index for each table, however many records it has.
  const selectTables = prepare(`
    WITH RECURSIVE names (name) AS (
      SELECT min(collection) FROM records
      UNION ALL SELECT (SELECT min(collection) FROM records WHERE collection > name) FROM names WHERE name IS NOT NULL
    ) SELECT name FROM names WHERE name IS NOT NULL`);

  guard("sweep", () => sweep.run(clock.now()));
  let sweptAtMs = clock.now();

  const get = (table: string, key: string, nowMs: number): Uint8Array<ArrayBuffer> | undefined => {
    const row = selectOne.get(table, key, nowMs);
    return row === undefined ? undefined : bytesOf(row.value);
  };

  function inTransaction<Value>(act: () => Value): Value {
    // IMMEDIATE: the file is ours before anything is read, so what is judged is what is changed.
    database.exec("BEGIN IMMEDIATE");
    try {
      const value = act();
      database.exec("COMMIT");
      return value;
    } finally {
      // Not after the commit, nor after an error at which SQLite itself has rolled back.
      if (database.isTransaction) database.exec("ROLLBACK");
    }
  }

  function transact(changes: readonly RecordChange[], standing: readonly RecordPlace[] = []): boolean {
    return inTransaction(() => {
      const nowMs = clock.now();
      const made = standing.every(({ table, key }) => get(table, key, nowMs) !== undefined) &&
        changes.every((change) => findsWhatItExpects(change, get(change.table, change.key, nowMs)));
      if (nowMs - sweptAtMs >= SWEEP_EVERY_MS) {
        sweep.run(nowMs);
        sweptAtMs = nowMs;
      }
      if (made) {
        for (const { table, key, value, lifetime } of changes) {
          if (value === undefined) remove.run(table, key, nowMs);
          else upsert.run(table, key, value, lifetime?.expiresAtMs ?? NEVER_MS);
        }
      }
      return made;
    });
  }

  /** In one transaction: the disk is asked once for all of them. */
  function exchangeAll(table: string, replacements: readonly Replacement[]): number {
    return inTransaction(() => {
      let replaced = 0;
      for (const { key, before, after } of replacements) {
        replaced += Number(exchange.run(after, table, key, before, clock.now()).changes);
      }
      return replaced;
    });
  }

  /**
   * By `secure_delete` there are zeros where something was deleted or replaced, but not where a record was moved to another page before
   * that: so all records are written anew, onto empty pages, while it is not too much for all others to wait. Older pages may still be in the write-ahead log.
   */
  function scrub(): void {
    // Whoever reads the file keeps the log: to wait for that would hold everybody up.
    database.exec("PRAGMA busy_timeout = 0");
    try {
      emptyLog();
      if (bytesOfPages() <= REWRITTEN_BYTES_MAX) inTransaction(() => database.exec(REWRITE));
      emptyLog();
    } finally {
      database.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    }
  }

  function bytesOfPages(): number {
    const sql = "SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()";
    return Number(database.prepare(sql).get()?.bytes);
  }
  function emptyLog(): void {
    const row = database.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get();
    if (row?.busy !== 0) throw new Error("somebody else reads it");
  }

  const attempt = <Value>(act: string, run: () => Value): Promise<Value> => {
    try {
      return Promise.resolve(guard(act, run));
    } catch (fault) {
      return Promise.reject(fault);
    }
  };

  return {
    get: (table, key) => attempt("read", () => get(table, key, clock.now())),
    put: (table, key, value, lifetime) =>
      attempt("write", () => void upsert.run(table, key, value, lifetime?.expiresAtMs ?? NEVER_MS)),
    create: (table, key, value, lifetime) =>
      attempt(
        "write",
        () => transact([{ table, key, value, expects: "nothing", ...(lifetime && { lifetime }) }]),
      ),
    write: (changes, standing) => attempt("write", () => transact(changes, standing)),
    replace: (table, replacements) => attempt("write", () => exchangeAll(table, replacements)),
    delete: (table, key) => attempt("delete", () => remove.run(table, key, clock.now()).changes === 1),
    list: (table, { after, limit }) =>
      attempt(
        "list",
        () =>
          selectPage.all(table, after ?? "", clock.now(), limit).map((row) => ({
            key: String(row.key),
            value: bytesOf(row.value),
          })),
      ),
    tables: () => attempt("list", () => selectTables.all().map(({ name }) => String(name))),
    scrub: () => attempt("scrub", scrub),
    close: () => attempt("close", () => database.close()),
  };
}

function bytesOf(value: unknown): Uint8Array<ArrayBuffer> {
  if (!(value instanceof Uint8Array)) throw new TypeError("a stored value is not bytes");
  return value.slice();
}

function guard<Value>(act: string, run: () => Value): Value {
  try {
    return run();
  } catch (cause) {
    throw new Fault(
      "unavailable",
      `Cannot ${act} the record store: ${cause instanceof Error ? cause.message : "unknown"}`,
      { cause },
    );
  }
}
