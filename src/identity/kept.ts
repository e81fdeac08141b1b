// Kept: something as it was read from the store, for compare and set.

/** What was read, with the bytes at rest that a change of it expects to find. */
export interface Kept<T> {
  readonly value: T;
  readonly version: Uint8Array<ArrayBuffer>;
}
