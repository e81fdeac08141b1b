// Answer stream: an answer that comes in pieces, pulled by whoever sends it on, so that back-pressure reaches the engine.
import type { Fault } from "../faults/fault.ts";

/** Pieces in their order. */
export interface AnswerStream<Item> {
  /** What the bytes are, where the items are bytes. */
  readonly mediaType?: string;
  /**
   * The next pieces, at least one; undefined after the last. Not to be called again before it has settled.
   *
   * @throws Fault what broke the stream; it has then ended and needs no `cancel()`
   */
  next(): Promise<readonly Item[] | undefined>;
  /**
   * Ends the stream early and stops the engine. Harmless after the end. Never throws.
   *
   * @param reason why, for the record; absent: the client left
   */
  cancel(reason?: Fault): void;
}
