// Run queue: which waiting texts go into the next run, in turn between those who wait.

/** What bounds one run. A worker that computes cannot be stopped, so that its work is bounded before it starts. */
export interface RunBudget {
  readonly textsMax: number;
  readonly costMax: number;
  /** What a run of texts costs, in the unit of their sizes. */
  cost(texts: number, longest: number, total: number): number;
  /** What a run costs beside its texts. Joining texts may waste as much, for it saves a run. */
  readonly costOfRun: number;
}

/** One text that waits: the `index`-th of its owner's. */
export interface QueuedText<Owner> {
  readonly owner: Owner;
  readonly index: number;
  readonly size: number;
}

interface Entry<Owner> {
  /** Short before long: texts of like size lie together, which a padded run wants. */
  readonly texts: readonly QueuedText<Owner>[];
  next: number;
}

/**
 * Texts of many owners, taken run by run. Whoever has waited longest leads the next run and then goes to the end of
 * the line, so that an owner of many texts never holds up an owner of one.
 */
export class RunQueue<Owner> {
  readonly #budget: RunBudget;
  readonly #line = new Map<Owner, Entry<Owner>>();

  constructor(budget: RunBudget) {
    this.#budget = budget;
  }

  /** Puts an owner's texts at the end of the line; `sizes` holds one size for each. An owner can be added once. */
  add(owner: Owner, sizes: readonly number[]): void {
    const texts = sizes.map((size, index) => ({ owner, index, size })).sort((left, right) =>
      left.size - right.size
    );
    this.#line.set(owner, { texts, next: 0 });
  }

  /** Forgets what an owner still has in the line. */
  drop(owner: Owner): void {
    this.#line.delete(owner);
  }

  /** Whether an owner still has texts in the line. */
  has(owner: Owner): boolean {
    return this.#line.has(owner);
  }

  /** Takes the next run out of the line; empty when nothing waits. A text beyond the budget runs alone. */
  take(): readonly QueuedText<Owner>[] {
    const run: QueuedText<Owner>[] = [];
    let longest = 0;
    let total = 0;
    for (let sizeBefore = -1; sizeBefore < run.length;) {
      sizeBefore = run.length;
      for (const [owner, entry] of this.#line) {
        const text = entry.texts[entry.next];
        if (text === undefined || !this.#joins(text.size, run.length, longest, total)) continue;
        run.push(text);
        longest = Math.max(longest, text.size);
        total += text.size;
        entry.next++;
        if (entry.next === entry.texts.length) this.#line.delete(owner);
      }
    }
    const leader = run[0]?.owner;
    const rest = leader === undefined ? undefined : this.#line.get(leader);
    if (leader !== undefined && rest !== undefined) {
      this.#line.delete(leader);
      this.#line.set(leader, rest);
    }
    return run;
  }

  #joins(size: number, texts: number, longest: number, total: number): boolean {
    if (texts === 0) return true;
    const { textsMax, costMax, cost, costOfRun } = this.#budget;
    const joined = cost(texts + 1, Math.max(longest, size), total + size);
    const apart = cost(texts, longest, total) + cost(1, size, size);
    return texts < textsMax && joined <= costMax && joined <= apart + costOfRun;
  }
}
