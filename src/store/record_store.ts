// Record store: the port behind which small records rest, in memory, in SQLite, or on a server that instances share.

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
  /** Whether there was one to delete. */
  delete(table: string, key: string): Promise<boolean>;
  /** Records in the order of their keys (by code point), after a key, at most `limit`. */
  list(
    table: string,
    page: { readonly after?: string; readonly limit: number },
  ): Promise<readonly StoredRecord[]>;
  close(): Promise<void>;
}

/** Until when a record counts: from that moment on it is as if deleted. */
export interface RecordLifetime {
  /** Whole milliseconds since 1970. */
  readonly expiresAtMs: number;
}
