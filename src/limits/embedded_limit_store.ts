// The limit store of one instance on its own: rates and places in memory, what a restart must not forget in SQLite.
import { Fault } from "../faults/fault.ts";
import { holdKeptMs, holdRefused } from "./decide_cells.ts";
import type { CountCell, LimitCell, LimitDecision, Tally } from "./limit_store.ts";
import type { LocalLimitStore } from "./local_limit_store.ts";
import { RecentMap } from "./recent_map.ts";

/** Tallies are gathered for so long into one transaction; a kill loses at most these. */
const GATHER_MS = 50;
/** Sums that wait for a failing SQLite at most. */
const GATHERED_MAX = 10_000;
/** Settled holds kept in mind: more than are settled while anybody may still try again. */
const SETTLED_MAX = 20_000;

/** Tallies of many requests, written as one. */
interface Batch {
  /** A hold's id, so that a batch that is tried again is written once. */
  readonly id: string;
  readonly books: Set<string>;
  readonly tallies: Map<string, Tally>;
}

/**
 * Joins both into one store, whose decisions are one over both: all or nothing. Where memory refuses, sums are not looked at
 * and say their whole quota. Where no sum is limited, SQLite is not asked, and tallies are acknowledged at once and written
 * a moment later; `sums` and `close` write them before anything else. `close` closes both stores.
 */
export function openEmbeddedLimitStore(memory: LocalLimitStore, sqlite: LocalLimitStore): LocalLimitStore {
  const settledHolds = new RecentMap<true>(SETTLED_MAX);
  let gathered: Batch | undefined;
  /** What is being written, or what SQLite did not take. */
  let unwritten: Batch | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isClosed = false;

  function gather(tallies: readonly Tally[]): void {
    const waiting = (gathered?.tallies.size ?? 0) + (unwritten?.tallies.size ?? 0);
    if (waiting + tallies.length > GATHERED_MAX) write();
    gathered ??= { id: crypto.randomUUID(), books: new Set(), tallies: new Map() };
    for (const tally of tallies) {
      if (tally.amount === 0) continue;
      // No book's name holds a line end.
      const key = `${tally.book}\n${tally.key}`;
      const before = gathered.tallies.get(key);
      gathered.books.add(tally.book);
      gathered.tallies.set(key, before === undefined ? tally : joined(before, tally));
    }
    timer ??= setTimeout(writeInTime, GATHER_MS);
  }

  /** Writes all that is gathered, or throws and keeps what is not written. */
  function write(): void {
    clearTimeout(timer);
    timer = undefined;
    try {
      writeBatch();
      unwritten = gathered;
      gathered = undefined;
      writeBatch();
    } finally {
      if (unwritten !== undefined && !isClosed) timer = setTimeout(writeInTime, GATHER_MS);
    }
  }

  function writeBatch(): void {
    if (unwritten !== undefined) sqlite.settle(unwritten.id, [], [...unwritten.tallies.values()]);
    unwritten = undefined;
  }

  /** Whoever asks for a sum or corrects one finds what was added before. */
  function writeBefore(cells: readonly LimitCell[]): void {
    const isWaiting = (book: string) => gathered?.books.has(book) || unwritten?.books.has(book);
    if (cells.some((cell) => isCount(cell) && isWaiting(cell.book))) write();
  }

  function writeInTime(): void {
    try {
      write();
    } catch (thrown) {
      // It is tried again; whoever reads sums or settles a budget meanwhile hears of it.
      if (!(thrown instanceof Fault)) throw thrown;
    }
  }

  return {
    take(hold, cells): readonly LimitDecision[] {
      if (hold !== null && settledHolds.get(hold) === true) throw holdRefused();
      const counts = cells.filter(isCount);
      if (counts.length === 0) return memory.take(hold, cells);
      writeBefore(counts);
      if (counts.length === cells.length) return sqlite.take(hold, cells);

      const others = cells.filter((cell) => !isCount(cell));
      const id = hold ?? crypto.randomUUID();
      const fromMemory = memory.take(id, others);
      if (!areAllowed(fromMemory)) return inOrder(cells, fromMemory, counts.map(untouched));
      let fromSqlite: readonly LimitDecision[] = [];
      let isAllowed = false;
      try {
        fromSqlite = sqlite.take(hold, counts, holdKeptMs(cells));
        isAllowed = areAllowed(fromSqlite);
      } finally {
        // All of it goes back to where it was: nobody else was asked in between. Without a hold nothing is settled later.
        if (!isAllowed) memory.settle(id, others.map((cell) => ({ cell, used: 0 })), []);
        else if (hold === null) memory.settle(id, [], []);
      }
      return inOrder(
        cells,
        isAllowed ? fromMemory : fromMemory.map((each, at) => givenBack(each, others[at])),
        fromSqlite,
      );
    },

    settle(hold, used, tallies): void {
      if (settledHolds.get(hold) === true) return;
      const counts = used.filter(({ cell }) => isCount(cell));
      // First, and to no effect a second time: a place must not wait for a SQLite that fails.
      memory.settle(hold, used.filter(({ cell }) => !isCount(cell)), []);
      if (counts.length > 0) {
        writeBefore(counts.map(({ cell }) => cell));
        sqlite.settle(hold, counts, tallies);
      } else if (tallies.length > 0) gather(tallies);
      settledHolds.set(hold, true);
    },

    async sums(book, keys): Promise<ReadonlyMap<string, number>> {
      write();
      return await sqlite.sums(book, keys);
    },

    async close(): Promise<void> {
      isClosed = true;
      try {
        write();
      } finally {
        await memory.close();
        await sqlite.close();
      }
    },
  };
}

function isCount(cell: LimitCell): cell is CountCell {
  return cell.kind === "count";
}

function areAllowed(decisions: readonly LimitDecision[]): boolean {
  return decisions.every(({ allowed }) => allowed);
}

/** The decisions of counts and of all others, in the order of the cells. */
function inOrder(
  cells: readonly LimitCell[],
  ofOthers: readonly LimitDecision[],
  ofCounts: readonly LimitDecision[],
): readonly LimitDecision[] {
  const [others, counts] = [ofOthers.values(), ofCounts.values()];
  return cells.flatMap((cell) => (isCount(cell) ? counts : others).next().value ?? []);
}

/** What a sum says that was not looked at. */
function untouched({ quota }: CountCell): LimitDecision {
  return { allowed: true, remaining: quota, retryAfterMs: 0, resetAfterMs: 0 };
}

/** What a cell that was taken from says when that is given back. */
function givenBack(decision: LimitDecision, cell: LimitCell | undefined): LimitDecision {
  const { remaining, resetAfterMs } = decision;
  if (cell?.kind !== "rate") return { ...decision, remaining: remaining + 1 };
  const { amount, windowMs, quota } = cell;
  return {
    ...decision,
    remaining: remaining + amount,
    resetAfterMs: Math.max(0, resetAfterMs - amount * windowMs / quota),
  };
}

/** Two tallies of one sum as one. */
function joined(one: Tally, other: Tally): Tally {
  return {
    ...one,
    amount: Math.min(Number.MAX_SAFE_INTEGER, one.amount + other.amount),
    keptMs: Math.max(one.keptMs, other.keptMs),
  };
}
