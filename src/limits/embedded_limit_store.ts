// The limit store of one instance on its own: rates and places in memory, what a restart must not forget in SQLite.
import { Fault } from "../faults/fault.ts";
import { holdKeptMs, holdRefused } from "./decide_cells.ts";
import type { CountCell, LimitCell, LimitDecision, LimitStore, Tally, UsedCell } from "./limit_store.ts";
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

/** Where sums rest: SQLite, in this thread or in another. */
export interface SumStore extends LimitStore {
  /** @param keptMs for how long the hold is known at least, where a place of it that lasts longer is kept elsewhere */
  take(
    hold: string | null,
    cells: readonly LimitCell[],
    keptMs?: number,
  ): Promise<readonly LimitDecision[]> | readonly LimitDecision[];
}

/**
 * Joins both into one store, whose decisions are one over both: all or nothing. Where memory refuses, sums are not looked at
 * and say their whole quota. Where no sum is limited, the decision is there at once, SQLite is not asked, and tallies are
 * acknowledged at once and written a moment later; `sums` and `close` write them before anything else. `close` closes both stores.
 */
export function openEmbeddedLimitStore(memory: LocalLimitStore, sqlite: SumStore): LimitStore {
  const settledHolds = new RecentMap<true>(SETTLED_MAX);
  let gathered: Batch | undefined;
  /** What is being written, or what SQLite did not take. */
  let unwritten: Batch | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** One write after the other. */
  let lastWrite: Promise<void> = Promise.resolve();
  let isClosed = false;

  function gather(tallies: readonly Tally[]): void {
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

  function isFull(tallies: readonly Tally[]): boolean {
    const waiting = (gathered?.tallies.size ?? 0) + (unwritten?.tallies.size ?? 0);
    return waiting + tallies.length > GATHERED_MAX;
  }

  /** Writes all that is gathered by now, or rejects and keeps what is not written. */
  function write(): Promise<void> {
    lastWrite = lastWrite.catch(() => {}).then(async () => {
      clearTimeout(timer);
      timer = undefined;
      try {
        await writeBatch();
        unwritten = gathered;
        gathered = undefined;
        await writeBatch();
      } finally {
        if (unwritten !== undefined && !isClosed) timer ??= setTimeout(writeInTime, GATHER_MS);
      }
    });
    return lastWrite;
  }

  async function writeBatch(): Promise<void> {
    if (unwritten !== undefined) await sqlite.settle(unwritten.id, [], [...unwritten.tallies.values()]);
    unwritten = undefined;
  }

  /** Whoever asks for a sum or corrects one finds what was added before. */
  async function writeBefore(cells: readonly CountCell[]): Promise<void> {
    const isWaiting = (book: string) => gathered?.books.has(book) || unwritten?.books.has(book);
    if (cells.some(({ book }) => isWaiting(book))) await write();
  }

  function writeInTime(): void {
    write().catch((thrown) => {
      // It is tried again; whoever reads sums or settles a budget meanwhile hears of it.
      if (!(thrown instanceof Fault)) throw thrown;
    });
  }

  async function takeCounts(
    hold: string | null,
    cells: readonly LimitCell[],
    counts: readonly CountCell[],
  ): Promise<readonly LimitDecision[]> {
    if (counts.length === cells.length) {
      await writeBefore(counts);
      return await sqlite.take(hold, cells);
    }
    const others = cells.filter((cell) => !isCount(cell));
    const id = hold ?? crypto.randomUUID();
    const fromMemory = memory.take(id, others);
    if (!areAllowed(fromMemory)) return inOrder(cells, fromMemory, counts.map(untouched));
    let fromSqlite: readonly LimitDecision[] = [];
    let isAllowed = false;
    try {
      await writeBefore(counts);
      fromSqlite = await sqlite.take(hold, counts, holdKeptMs(cells));
      isAllowed = areAllowed(fromSqlite);
    } finally {
      // All of it goes back to where it was. Without a hold nothing is settled later.
      if (!isAllowed) memory.settle(id, others.map((cell) => ({ cell, used: 0 })), []);
      else if (hold === null) memory.settle(id, [], []);
    }
    return inOrder(
      cells,
      isAllowed ? fromMemory : fromMemory.map((each, at) => givenBack(each, others[at])),
      fromSqlite,
    );
  }

  async function settleCounts(
    hold: string,
    counts: readonly CountedUse[],
    tallies: readonly Tally[],
  ): Promise<void> {
    await writeBefore(counts.map(({ cell }) => cell));
    await sqlite.settle(hold, counts, tallies);
    settledHolds.set(hold, true);
  }

  async function settleFull(hold: string, tallies: readonly Tally[]): Promise<void> {
    await write();
    // Who did not hear of it may have told it a second time meanwhile.
    if (settledHolds.get(hold) === true) return;
    gather(tallies);
    settledHolds.set(hold, true);
  }

  return {
    take(hold, cells): Promise<readonly LimitDecision[]> | readonly LimitDecision[] {
      if (hold !== null && settledHolds.get(hold) === true) throw holdRefused();
      const counts = cells.filter(isCount);
      return counts.length === 0 ? memory.take(hold, cells) : takeCounts(hold, cells, counts);
    },

    settle(hold, used, tallies): Promise<void> | void {
      if (settledHolds.get(hold) === true) return;
      const counts = used.filter((each): each is CountedUse => isCount(each.cell));
      // First, and to no effect a second time: a place must not wait for a SQLite that fails.
      memory.settle(hold, used.filter(({ cell }) => !isCount(cell)), []);
      if (counts.length > 0) return settleCounts(hold, counts, tallies);
      if (isFull(tallies)) return settleFull(hold, tallies);
      if (tallies.length > 0) gather(tallies);
      settledHolds.set(hold, true);
    },

    async sums(book, keys): Promise<ReadonlyMap<string, number>> {
      await write();
      return await sqlite.sums(book, keys);
    },

    async close(): Promise<void> {
      isClosed = true;
      try {
        await write();
      } finally {
        await memory.close();
        await sqlite.close();
      }
    },
  };
}

/** What was used of a sum. */
interface CountedUse extends UsedCell {
  readonly cell: CountCell;
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
