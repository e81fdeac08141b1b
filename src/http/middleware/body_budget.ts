// Body budget: memory for bodies under way, of all callers together and of any one of them.
import { Fault } from "../../faults/fault.ts";

/** What a budget is opened with. */
export interface BudgetBounds {
  /** Of all callers together. */
  readonly bytesMax: number;
  /** Of one caller. */
  readonly callerBytesMax: number;
  /** Public words for a caller whose own share is used up. */
  readonly shareUsedUp: string;
  /** Public words for any caller where all of it is used up. */
  readonly allUsedUp: string;
}

/** Bytes that were announced or have come, by who sends them. What is taken has to be given back. */
export class BodyBudget {
  readonly #bounds: BudgetBounds;
  readonly #byCaller = new Map<string, number>();
  #bytes = 0;

  constructor(bounds: BudgetBounds) {
    this.#bounds = bounds;
  }

  /** How much is taken. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Takes bytes for a caller, or none of them.
   *
   * @throws Fault `rate_limited` where its share is used up · `overloaded` where all of the budget is
   */
  take(caller: string, bytes: number): void {
    const { bytesMax, callerBytesMax, shareUsedUp, allUsedUp } = this.#bounds;
    const ofCaller = (this.#byCaller.get(caller) ?? 0) + bytes;
    if (ofCaller > callerBytesMax) {
      throw new Fault("rate_limited", "Cannot take a body: its sender has too many bytes under way", {
        detail: shareUsedUp,
        retryAfterSeconds: 1,
      });
    }
    if (this.#bytes + bytes > bytesMax) {
      throw new Fault("overloaded", "Cannot take a body: too many bytes are under way", {
        detail: allUsedUp,
        retryAfterSeconds: 1,
      });
    }
    if (bytes === 0) return;
    this.#bytes += bytes;
    this.#byCaller.set(caller, ofCaller);
  }

  /** Gives back what was taken. */
  giveBack(caller: string, bytes: number): void {
    const left = (this.#byCaller.get(caller) ?? 0) - bytes;
    this.#bytes -= bytes;
    if (left > 0) this.#byCaller.set(caller, left);
    else this.#byCaller.delete(caller);
  }
}

/** What the budget of all bodies is made for. */
export interface BodiesBounds {
  /** Of all callers together, unless one body may be larger. */
  readonly bodiesBytesMax: number;
  /** The most that one body counts: so much a caller may always have under way. */
  readonly largestBytes: number;
}

/** A caller's share of the whole, unless one body may be larger. */
const CALLER_SHARE = 1 / 4;

/** Opens the budget of all bodies that are held while they are read and answered. */
export function openBodyBudget({ bodiesBytesMax, largestBytes }: BodiesBounds): BodyBudget {
  return new BodyBudget({
    bytesMax: Math.max(bodiesBytesMax, largestBytes),
    callerBytesMax: Math.max(Math.floor(bodiesBytesMax * CALLER_SHARE), largestBytes),
    shareUsedUp: "Too many bytes of your requests are under way. Wait for answers, or send less at once; " +
      "a body without Content-Length counts as the largest that the route takes.",
    allUsedUp: "Too many bytes of requests are under way. Try again shortly.",
  });
}
