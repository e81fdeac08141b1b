// Limit store model: what a limit store has to answer, in exact arithmetic and the plainest words, to compare adapters with.
import type { LimitCell, LimitDecision, Tally, UsedCell } from "../../src/limits/limit_store.ts";

const MOST = 2n ** 53n - 1n;

/** A store that forgets nothing. All numbers are whole. */
export class LimitStoreModel {
  #now = 0n;
  #nameless = 0;
  readonly #rates = new Map<string, { level: bigint; at: bigint }>();
  readonly #books = new Map<string, { endsAt: bigint; readonly sums: Map<string, bigint> }>();
  readonly #places = new Map<string, Map<string, bigint>>();
  readonly #holds = new Map<string, bigint | "settled">();

  advance(ms: number): void {
    this.#now += BigInt(ms);
  }

  /** "refused" where the hold was used before. */
  take(hold: string | null, cells: readonly LimitCell[]): readonly LimitDecision[] | "refused" {
    if (hold !== null && this.#holds.has(hold)) return "refused";
    if (!cells.every((cell) => this.#decide(cell, false).allowed)) {
      return cells.map((cell) => this.#decide(cell, false));
    }
    const decisions = cells.map((cell) => this.#decide(cell, true));
    for (const cell of cells) {
      if (cell.kind === "rate") this.#fill(cell, cell.amount);
      else if (cell.kind === "count") {
        this.#add(cell.book, cell.key, cell.amount, this.#now + BigInt(cell.endsInMs));
      } else {this.#held(cell.key).set(
          hold ?? `#${this.#nameless++}`,
          this.#now + BigInt(cell.heldMs),
        );}
    }
    if (hold !== null) this.#holds.set(hold, this.#now);
    return decisions;
  }

  settle(hold: string, used: readonly UsedCell[], tallies: readonly Tally[]): void {
    const takenAt = this.#holds.get(hold);
    if (takenAt === "settled") return;
    this.#holds.set(hold, "settled");
    for (const { cell, used: amount } of takenAt === undefined ? [] : used) {
      if (cell.kind === "place") this.#held(cell.key).delete(hold);
      else if (cell.kind === "rate") this.#fill(cell, amount - cell.amount);
      else {
        const endsAt = (takenAt ?? 0n) + BigInt(cell.endsInMs);
        if (endsAt > this.#now) this.#add(cell.book, cell.key, amount - cell.amount, endsAt);
      }
    }
    for (const { book, key, amount, keptMs } of tallies) {
      this.#add(book, key, amount, this.#now + BigInt(keptMs));
    }
  }

  sums(book: string): ReadonlyMap<string, number> {
    return new Map(
      [...this.#sums(book)].flatMap(([key, sum]) => sum > 0n ? [[key, Number(sum)] as const] : []),
    );
  }

  #decide(cell: LimitCell, isTaken: boolean): LimitDecision {
    const quota = BigInt(cell.quota);
    // All in units of a windowMs-th for rates, of 1 elsewhere.
    const unit = cell.kind === "rate" ? BigInt(cell.windowMs) : 1n;
    const amount = cell.kind === "place" ? 1n : BigInt(cell.amount);
    const before = cell.kind === "rate"
      ? this.#level(cell)
      : cell.kind === "count"
      ? this.#sums(cell.book).get(cell.key) ?? 0n
      : BigInt(this.#held(cell.key).size);
    const over = before + amount * unit - quota * unit;
    const state = isTaken ? before + amount * unit : before;
    const left = quota * unit - state;
    return {
      allowed: over <= 0n,
      remaining: left < 0n ? 0 : Number(left / unit),
      retryAfterMs: over <= 0n
        ? 0
        : amount > quota
        ? Infinity
        : cell.kind === "rate"
        ? Number(over) / cell.quota
        : cell.kind === "count"
        ? cell.endsInMs
        : 1000,
      resetAfterMs: cell.kind === "rate"
        ? Number(state) / cell.quota
        : cell.kind === "count" && state > 0n
        ? cell.endsInMs
        : 0,
    };
  }

  #level(cell: LimitCell & { kind: "rate" }): bigint {
    const { level, at } = this.#rates.get(cell.key) ?? { level: 0n, at: this.#now };
    const left = level - (this.#now - at) * BigInt(cell.quota);
    return left > 0n ? left : 0n;
  }

  #fill(cell: LimitCell & { kind: "rate" }, amount: number): void {
    this.#rates.set(cell.key, {
      level: clamped(this.#level(cell) + BigInt(amount) * BigInt(cell.windowMs)),
      at: this.#now,
    });
  }

  #sums(book: string): Map<string, bigint> {
    const found = this.#books.get(book);
    return found === undefined || found.endsAt <= this.#now ? new Map() : found.sums;
  }

  #add(book: string, key: string, amount: number, endsAt: bigint): void {
    if (amount === 0) return;
    const sums = this.#sums(book);
    sums.set(key, clamped((sums.get(key) ?? 0n) + BigInt(amount)));
    const before = this.#books.get(book)?.endsAt ?? 0n;
    this.#books.set(book, { sums, endsAt: before > endsAt ? before : endsAt });
  }

  #held(key: string): Map<string, bigint> {
    const held = new Map([...this.#places.get(key) ?? []].filter(([, endsAt]) => endsAt > this.#now));
    this.#places.set(key, held);
    return held;
  }
}

function clamped(value: bigint): bigint {
  return value < 0n ? 0n : value > MOST ? MOST : value;
}
