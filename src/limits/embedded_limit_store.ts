// The limit store of one instance on its own: rates and places in memory, what a restart must not forget in SQLite.
import { Fault, toFault } from "../faults/fault.ts";
import { holdKeptMs, holdRefused } from "./decide_cells.ts";
import type {
  CountCell,
  LimitCell,
  LimitDecision,
  LimitStore,
  PlaceCell,
  Tally,
  UsedCell,
} from "./limit_store.ts";
import type { LocalLimitStore } from "./local_limit_store.ts";
import { RecentMap } from "./recent_map.ts";

/** Tallies are gathered for so long into one transaction; a kill loses at most these. */
const GATHER_MS = 50;
/** Sums that wait for a failing SQLite at most. */
const GATHERED_MAX = 10_000;
/** Settled holds kept in mind: more than are settled while anybody may still try again. */
const SETTLED_MAX = 20_000;
/** Who asks without a hold never settles; only what memory then refuses is given back, at once. */
const UNNAMED_KEPT_MS = 60_000;
/** Sums of which something was given back, kept in mind while whoever was refused meanwhile may look. */
const GIVEN_BACK_MAX = 20_000;
/** Beside it others only say what they have, and nothing is taken. */
const REFUSES: PlaceCell = { kind: "place", key: "never", quota: 0, heldMs: 1 };

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
 * Joins both into one store, whose decisions are one over both: all or nothing, and what is taken for a moment and then given back
 * refuses nobody else. Sums are taken first, and memory right after their answer: between the two nothing of memory is taken that
 * could have to go back. Where memory refuses, sums are not looked at and say their whole quota. Where no sum is limited, the decision is there at once, SQLite is not asked, and tallies are
 * acknowledged at once and written a moment later; `sums` and `close` write them before anything else. `close` closes both stores.
 */
export function openEmbeddedLimitStore(memory: LocalLimitStore, sqlite: SumStore): LimitStore {
  const settledHolds = new RecentMap<true>(SETTLED_MAX);
  /** Holds that took nothing in the end: their sums were taken, and given back. */
  const undoneHolds = new RecentMap<true>(SETTLED_MAX);
  /** Takes of sums behind which memory has not decided yet. */
  const undecided = new Set<Promise<void>>();
  /** How often something of a sum was given back because memory refused. */
  const givenBack = new RecentMap<number>(GIVEN_BACK_MAX);
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
      const key = sumName(tally);
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
    const others = cells.filter((cell) => !isCount(cell));
    // Without a name nothing could be given back.
    const id = hold ?? (others.length === 0 ? null : crypto.randomUUID());
    const keptMs = hold === null ? UNNAMED_KEPT_MS : holdKeptMs(cells);
    for (;;) {
      const seen = look(others);
      if (!areAllowed(seen)) return inOrder(cells, seen, counts.map(untouched));
      await writeBefore(counts);
      const before = timesGivenBack(counts);
      const { promise, resolve } = Promise.withResolvers<void>();
      undecided.add(promise);
      let fromSqlite: readonly LimitDecision[];
      try {
        fromSqlite = await sqlite.take(id, counts, keptMs);
        if (areAllowed(fromSqlite)) {
          if (id === null || others.length === 0) return inOrder(cells, [], fromSqlite);
          const fromMemory = await takeOthers(hold, others, id, counts);
          return inOrder(cells, fromMemory, areAllowed(fromMemory) ? fromSqlite : counts.map(untouched));
        }
      } finally {
        undecided.delete(promise);
        resolve();
      }
      // Where it was refused for what others had only for a moment, it is asked again.
      await Promise.all(undecided);
      if (timesGivenBack(counts) === before) return inOrder(cells, look(others), fromSqlite);
    }
  }

  /** What cells of memory say of themselves, nothing taken. */
  function look(others: readonly LimitCell[]): readonly LimitDecision[] {
    return memory.take(null, [...others, REFUSES]).slice(0, -1);
  }

  /** Takes from memory, or gives back what was taken of the sums. */
  async function takeOthers(
    hold: string | null,
    others: readonly LimitCell[],
    id: string,
    counts: readonly CountCell[],
  ): Promise<readonly LimitDecision[]> {
    let isAllowed = false;
    try {
      const decisions = memory.take(hold, others);
      isAllowed = areAllowed(decisions);
      return decisions;
    } finally {
      if (!isAllowed) await giveBack(id, counts);
    }
  }

  async function giveBack(id: string, counts: readonly CountCell[]): Promise<void> {
    try {
      await sqlite.settle(id, counts.map((cell) => ({ cell, used: 0 })), []);
    } catch (thrown) {
      // Not as it was thrown, which may say that nothing was asked: something was taken, and whoever has a hold settles it later.
      const { message } = toFault(thrown);
      throw new Fault("unavailable", `Cannot give back what was taken of a sum: ${message}`, {
        cause: thrown,
      });
    }
    undoneHolds.set(id, true);
    for (const cell of counts) givenBack.set(sumName(cell), 1 + (givenBack.get(sumName(cell)) ?? 0));
  }

  function timesGivenBack(counts: readonly CountCell[]): number {
    return counts.reduce((times, cell) => times + (givenBack.get(sumName(cell)) ?? 0), 0);
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
      if (counts.length > 0 && undoneHolds.get(hold) !== true) return settleCounts(hold, counts, tallies);
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

/** No book's name holds a line end. */
function sumName({ book, key }: { readonly book: string; readonly key: string }): string {
  return `${book}\n${key}`;
}

/** Two tallies of one sum as one. */
function joined(one: Tally, other: Tally): Tally {
  return {
    ...one,
    amount: Math.min(Number.MAX_SAFE_INTEGER, one.amount + other.amount),
    keptMs: Math.max(one.keptMs, other.keptMs),
  };
}
