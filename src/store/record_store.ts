// Record store: the port behind which small records rest, in memory, in SQLite, or on a server that instances share.
import { constantTimeEqual } from "../encoding/constant_time_equal.ts";

/** One record of a table. */
export interface StoredRecord {
  readonly key: string;
  readonly value: Uint8Array<ArrayBuffer>;
}

/**
 * Tables of records. Keys are opaque texts, well-formed, not empty and without NUL (SQLite ends a text there); values
 * are bytes that the caller has sealed where they are personal or secret. A write has reached the disk when its promise
 * resolves. Every method throws Fault `unavailable` when the store fails.
 */
export interface RecordStore {
  get(table: string, key: string): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Writes a record, whether or not it exists. */
  put(table: string, key: string, value: Uint8Array<ArrayBuffer>, lifetime?: RecordLifetime): Promise<void>;
  /** Writes a record unless it exists; whether it was written. Atomic. */
  create(
    table: string,
    key: string,
    value: Uint8Array<ArrayBuffer>,
    lifetime?: RecordLifetime,
  ): Promise<boolean>;
  /**
   * Makes all changes or none of them; whether they were made. None are where one of them does not find what it expects,
   * or where the store fails. Atomic, also against other instances that share the store. Every change is judged by what
   * stood before the write; of several with one table and key the last wins. No change at all is always made.
   *
   * @param standing records that must stand as well, whatever is in them; none of them is changed by that
   */
  write(changes: readonly RecordChange[], standing?: readonly RecordPlace[]): Promise<boolean>;
  /**
   * Puts other bytes in the place of exactly these, in each record where these stand; how many there were. Atomic for each record. Its
   * lifetime stays, and no change feed is told: what the record means is the same.
   */
  replace(table: string, replacements: readonly Replacement[]): Promise<number>;
  /** Whether there was one to delete. */
  delete(table: string, key: string): Promise<boolean>;
  /** Records in the order of their keys (by code point), after a key, at most `limit`. */
  list(
    table: string,
    page: { readonly after?: string; readonly limit: number },
  ): Promise<readonly StoredRecord[]>;
  /** The names of all tables that hold records, in no order. Some of them may hold none that is still alive. */
  tables(): Promise<readonly string[]>;
  /**
   * Takes what was deleted or replaced out of the store's own files as well, as far as they are this process's to write: those of
   * a server that is asked over the network are not. Throws Fault `unavailable` while somebody else reads them.
   */
  scrub(): Promise<void>;
  close(): Promise<void>;
}

/** Where a record stands. */
export interface RecordPlace {
  readonly table: string;
  readonly key: string;
}

/** Bytes for bytes. */
export interface Replacement {
  readonly key: string;
  readonly before: Uint8Array<ArrayBuffer>;
  readonly after: Uint8Array<ArrayBuffer>;
}

/** One change of a `write`. */
export interface RecordChange extends RecordPlace {
  /** What stands there from now on; undefined: nothing (it need not have stood there). */
  readonly value: Uint8Array<ArrayBuffer> | undefined;
  readonly lifetime?: RecordLifetime;
  /** What must stand there before: anything (absent), nothing (or what has expired), or exactly these bytes. */
  readonly expects?: "nothing" | Uint8Array<ArrayBuffer>;
}

/**
 * For adapters: whether a change finds what it expects.
 *
 * @param standing the live record's bytes; undefined where there is none
 */
export function findsWhatItExpects({ expects }: RecordChange, standing: Uint8Array | undefined): boolean {
  if (expects === undefined) return true;
  if (expects === "nothing") return standing === undefined;
  return standing !== undefined && constantTimeEqual(standing, expects);
}

/** Until when a record counts: from that moment on it is as if deleted. */
export interface RecordLifetime {
  /** Whole milliseconds since 1970. */
  readonly expiresAtMs: number;
}
