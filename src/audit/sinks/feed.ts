// Feed: the port to what is shipped, in order and from any position that was kept.
import type { JsonValue } from "../../encoding/canonical_json.ts";

/** Something that grows at its end. */
export interface Feed<Position extends JsonValue, Item> {
  /** Where a new sink begins. */
  start(from: "start" | "now"): Position;
  /** A position that was kept; undefined where it is none of what this feed reads: another's, or one that was there before. */
  resume(kept: JsonValue): Position | undefined;
  /**
   * The next items and the position behind them. Without items the position may have moved all the same.
   *
   * @throws Fault `unavailable` when it cannot be read now
   */
  read(from: Position, itemsMax: number): Promise<Piece<Position, Item>>;
}

/** What a feed gives at once. */
export interface Piece<Position, Item> {
  readonly items: readonly Item[];
  readonly next: Position;
  /** How many there once were between these items, and are no more. */
  readonly gone: number;
}
