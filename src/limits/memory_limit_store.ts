// The limit store in the memory of one instance: a restart forgets it.
import { Fault } from "../faults/fault.ts";
import type { Clock } from "../time/clock.ts";
import { decideCells, holdRefused, tookFrom } from "./decide_cells.ts";
import { drained, filled, levelAllows, observeLevel } from "./gcra.ts";
import type { CountCell, LimitCell, LimitDecision, PlaceCell, RateCell } from "./limit_store.ts";
import type { LocalLimitStore } from "./local_limit_store.ts";
import { RecentMap } from "./recent_map.ts";

/** Of each kind so many are kept in mind at most. */
const CELLS_MAX = 100_000;

/** Settled holds kept in mind: who asks here is answered at once, and settles a hold again only by mistake. */
const SETTLED_MAX = 10_000;

interface Bucket {
  level: number;
  atMs: number;
}

interface Book {
  endsAtMs: number;
  readonly sums: Map<string, number>;
}

interface Place {
  /** When each hold's place is free again. */
  readonly holds: Map<string, number>;
  /** No place is free again before; it may be later. */
  earliestMs: number;
}

/**
 * Opens an empty store, whose memory is bounded:
 * - rates that half of `cellsMax` others came after are forgotten and start with a whole quota;
 * - sums and places are kept until they end; where there are `cellsMax`, new ones are refused (Fault `unavailable`);
 * - of open holds the oldest is forgotten when there are more than `cellsMax`: what it took stays taken;
 * - a settled hold is forgotten when thousands of others were settled after it.
 */
export function openMemoryLimitStore(clock: Clock, cellsMax: number = CELLS_MAX): LocalLimitStore {
  const buckets = new RecentMap<Bucket>(cellsMax);
  const books = new Map<string, Book>();
  const places = new Map<string, Place>();
  /** When each open hold was taken. */
  const openHolds = new Map<string, number>();
  const settledHolds = new RecentMap<true>(Math.min(cellsMax, SETTLED_MAX));
  let sumCount = 0;
  let heldCount = 0;

  // Whole milliseconds: all arithmetic stays in whole numbers.
  const now = (): number => Math.floor(clock.monotonic());

  function levelOf(cell: RateCell, nowMs: number): number {
    // By the look alone, who is refused stays in mind: a flood of strangers must not win anybody a whole quota.
    const bucket = buckets.get(cell.key);
    return bucket === undefined ? 0 : drained(cell, bucket.level, nowMs - bucket.atMs);
  }

  function fill(cell: RateCell, amount: number, nowMs: number): void {
    const bucket = buckets.get(cell.key);
    if (bucket === undefined) {
      const level = filled(cell, 0, amount);
      if (level > 0) buckets.set(cell.key, { level, atMs: nowMs });
      return;
    }
    bucket.level = filled(cell, drained(cell, bucket.level, nowMs - bucket.atMs), amount);
    bucket.atMs = nowMs;
  }

  function bookOf(name: string, nowMs: number): Book | undefined {
    const book = books.get(name);
    if (book === undefined || book.endsAtMs > nowMs) return book;
    sumCount -= book.sums.size;
    books.delete(name);
    return undefined;
  }

  function add(name: string, key: string, amount: number, endsAtMs: number, nowMs: number): void {
    let book = bookOf(name, nowMs);
    if (book === undefined) books.set(name, book = { endsAtMs, sums: new Map() });
    book.endsAtMs = Math.max(book.endsAtMs, endsAtMs);
    const before = book.sums.get(key);
    if (before === undefined) sumCount++;
    book.sums.set(key, Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, (before ?? 0) + amount)));
  }

  function placeOf(key: string, nowMs: number): Place | undefined {
    const place = places.get(key);
    if (place === undefined || place.earliestMs > nowMs) return place;
    place.earliestMs = Infinity;
    for (const [hold, endsAtMs] of place.holds) {
      if (endsAtMs <= nowMs) {
        place.holds.delete(hold);
        heldCount--;
      } else place.earliestMs = Math.min(place.earliestMs, endsAtMs);
    }
    if (place.holds.size > 0) return place;
    places.delete(key);
    return undefined;
  }

  function hold(cell: PlaceCell, id: string, nowMs: number): void {
    const endsAtMs = nowMs + cell.heldMs;
    const place = places.get(cell.key);
    if (place === undefined) places.set(cell.key, { holds: new Map([[id, endsAtMs]]), earliestMs: endsAtMs });
    else {
      place.holds.set(id, endsAtMs);
      place.earliestMs = Math.min(place.earliestMs, endsAtMs);
    }
    heldCount++;
  }

  function giveBack(cell: PlaceCell, id: string): void {
    const place = places.get(cell.key);
    if (place === undefined || !place.holds.delete(id)) return;
    heldCount--;
    if (place.holds.size === 0) places.delete(cell.key);
  }

  /** Refuses before anything is changed: to forget a sum or a place would lift a limit. */
  function makeRoom(sumsNew: number, placesNew: number, nowMs: number): void {
    if (sumCount + sumsNew > cellsMax) { for (const name of books.keys()) bookOf(name, nowMs); }
    if (heldCount + placesNew > cellsMax) { for (const key of places.keys()) placeOf(key, nowMs); }
    if (sumCount + sumsNew > cellsMax || heldCount + placesNew > cellsMax) {
      throw new Fault(
        "unavailable",
        `Cannot count for one more: ${sumCount} sums and ${heldCount} places are in memory`,
      );
    }
  }

  function stateOf(cell: LimitCell, nowMs: number): number {
    switch (cell.kind) {
      case "rate":
        return levelOf(cell, nowMs);
      case "count":
        return bookOf(cell.book, nowMs)?.sums.get(cell.key) ?? 0;
      case "place":
        return placeOf(cell.key, nowMs)?.holds.size ?? 0;
    }
  }

  function takeFrom(cell: LimitCell, id: string | null, nowMs: number): void {
    switch (cell.kind) {
      case "rate":
        return fill(cell, cell.amount, nowMs);
      case "count":
        if (cell.amount > 0) add(cell.book, cell.key, cell.amount, nowMs + cell.endsInMs, nowMs);
        return;
      case "place":
        return hold(cell, id ?? crypto.randomUUID(), nowMs);
    }
  }

  /** One rate without a hold, as the gate asks at each request: one look-up, and nothing made but the decision. */
  function takeRate(cell: RateCell, nowMs: number): readonly LimitDecision[] {
    const bucket = buckets.get(cell.key);
    const level = bucket === undefined ? 0 : drained(cell, bucket.level, nowMs - bucket.atMs);
    if (!levelAllows(cell, level, cell.amount)) return [observeLevel(cell, level, cell.amount)];
    const after = filled(cell, level, cell.amount);
    if (bucket !== undefined) {
      bucket.level = after;
      bucket.atMs = nowMs;
    } else if (after > 0) buckets.set(cell.key, { level: after, atMs: nowMs });
    return [tookFrom(cell, after)];
  }

  return {
    take(id, cells): readonly LimitDecision[] {
      const nowMs = now();
      const [only] = cells;
      if (id === null && cells.length === 1 && only?.kind === "rate") return takeRate(only, nowMs);
      if (id !== null && (openHolds.has(id) || settledHolds.get(id) === true)) throw holdRefused();
      const { allowed, decisions } = decideCells(cells, cells.map((cell) => stateOf(cell, nowMs)));
      if (!allowed) return decisions;
      let countCells = 0, placeCells = 0;
      for (const { kind } of cells) {
        if (kind === "count") countCells++;
        else if (kind === "place") placeCells++;
      }
      if (countCells + placeCells > 0) makeRoom(countCells, placeCells, nowMs);
      for (const cell of cells) takeFrom(cell, id, nowMs);
      if (id !== null) {
        openHolds.set(id, nowMs);
        if (openHolds.size > cellsMax) {
          const [oldest] = openHolds.keys();
          if (oldest !== undefined) openHolds.delete(oldest);
        }
      }
      return decisions;
    },

    settle(id, used, tallies): void {
      if (settledHolds.get(id) === true) return;
      const nowMs = now();
      const takenAtMs = openHolds.get(id);
      const counts = used.filter(({ cell }) => cell.kind === "count").length;
      if (counts + tallies.length > 0) makeRoom(counts + tallies.length, 0, nowMs);
      if (takenAtMs !== undefined) {
        for (const { cell, used: amount } of used) correct(cell, amount, id, takenAtMs, nowMs);
      }
      for (const { book, key, amount, keptMs } of tallies) {
        if (amount > 0) add(book, key, amount, nowMs + keptMs, nowMs);
      }
      openHolds.delete(id);
      settledHolds.set(id, true);
    },

    sums(name, keys): Promise<ReadonlyMap<string, number>> {
      const sums = bookOf(name, now())?.sums ?? new Map<string, number>();
      const asked = keys?.map((key) => [key, sums.get(key) ?? 0] as const) ?? [...sums];
      return Promise.resolve(new Map(asked.filter(([, sum]) => sum > 0)));
    },

    close: () => Promise.resolve(),
  };

  function correct(cell: LimitCell, used: number, id: string, takenAtMs: number, nowMs: number): void {
    switch (cell.kind) {
      case "rate":
        return fill(cell, used - cell.amount, nowMs);
      case "count":
        return correctSum(cell, used - cell.amount, takenAtMs + cell.endsInMs, nowMs);
      case "place":
        return giveBack(cell, id);
    }
  }

  /** A period that is over is past correcting: its book is gone. */
  function correctSum(cell: CountCell, amount: number, endsAtMs: number, nowMs: number): void {
    if (amount !== 0 && endsAtMs > nowMs) add(cell.book, cell.key, amount, endsAtMs, nowMs);
  }
}
