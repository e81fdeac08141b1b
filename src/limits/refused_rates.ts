// Refused rates: whom the store has just refused need not be asked about again until there is something to ask for.
import type { LimitDecision, UsedCell } from "./limit_store.ts";
import type { GuardedCell } from "./guarded_cell.ts";
import { RecentMap } from "./recent_map.ts";

/** Keys kept in mind; who is forgotten is asked about again. */
const KEYS_MAX = 10_000;
/**
 * A refusal is believed no longer than this. What another instance gives back, or a store that lost its rates, is nowhere
 * told; a flood of one client costs one question a second all the same.
 */
const BELIEVED_MS_MAX = 1000;

/** What is known of a key. */
interface Refusal {
  readonly quota: number;
  readonly windowMs: number;
  /** The least that was refused: more is refused as well. */
  readonly amount: number;
  readonly remaining: number;
  readonly believedUntilMs: number;
  readonly retryAtMs: number;
  readonly resetAtMs: number;
  /** When something of the key was given back: an answer to what was asked before is no longer believed. */
  readonly freedAtMs: number;
}

/** All moments are of `Clock.monotonic()`. */
export class RefusedRates {
  readonly #refusals = new RecentMap<Refusal>(KEYS_MAX);
  /** Of all: mostly nobody was refused for a second, and nothing has to be looked up. */
  #believedUntilMs = -Infinity;

  /**
   * The refusal that the store would give now; undefined where it has to be asked. Cells that nobody asked about read as if
   * they were unused.
   */
  answer(cells: readonly GuardedCell[], nowMs: number): readonly LimitDecision[] | undefined {
    if (nowMs >= this.#believedUntilMs) return undefined;
    for (const guarded of cells) {
      if (this.#refusalOf(guarded, nowMs) === undefined) continue;
      return cells.map((each) => {
        const refusal = this.#refusalOf(each, nowMs);
        return refusal === undefined ? unasked(each) : {
          allowed: false,
          remaining: refusal.remaining,
          retryAfterMs: refusal.retryAtMs - nowMs,
          resetAfterMs: refusal.resetAtMs - nowMs,
        };
      });
    }
    return undefined;
  }

  /**
   * Remembers refusals of rates whose amount is fixed. Counts end and places come free unforeseen; tokens are given back.
   *
   * @param askedAtMs before the store was asked, so that its answer is believed rather too short than too long
   */
  learn(cells: readonly GuardedCell[], decisions: readonly LimitDecision[], askedAtMs: number): void {
    for (let index = 0; index < cells.length; index++) {
      const decision = decisions[index];
      const guarded = cells[index];
      if (decision === undefined || guarded === undefined || decision.allowed || !guarded.fixed) continue;
      const { cell } = guarded;
      if (cell.kind !== "rate" || (this.#refusals.get(cell.key)?.freedAtMs ?? -Infinity) >= askedAtMs) {
        continue;
      }
      // Stores count in whole milliseconds and may so allow one earlier.
      const believedUntilMs = askedAtMs + Math.min(decision.retryAfterMs, BELIEVED_MS_MAX) - 1;
      this.#believedUntilMs = Math.max(this.#believedUntilMs, believedUntilMs);
      this.#refusals.set(cell.key, {
        quota: cell.quota,
        windowMs: cell.windowMs,
        amount: cell.amount,
        remaining: decision.remaining,
        believedUntilMs,
        retryAtMs: askedAtMs + decision.retryAfterMs,
        resetAtMs: askedAtMs + decision.resetAfterMs,
        freedAtMs: -Infinity,
      });
    }
  }

  /** Forgets what was refused of rates that have just got back all that was taken. */
  forget(used: readonly UsedCell[], nowMs: number): void {
    for (const { cell, used: amount } of used) {
      if (cell.kind === "rate" && amount === 0 && cell.amount > 0) {
        this.#refusals.set(cell.key, { ...FREED, freedAtMs: nowMs });
      }
    }
  }

  #refusalOf({ cell }: GuardedCell, nowMs: number): Refusal | undefined {
    if (cell.kind !== "rate") return undefined;
    const refusal = this.#refusals.get(cell.key);
    return refusal !== undefined && nowMs < refusal.believedUntilMs && cell.amount >= refusal.amount &&
        cell.quota === refusal.quota && cell.windowMs === refusal.windowMs
      ? refusal
      : undefined;
  }
}

const FREED = {
  quota: 0,
  windowMs: 0,
  amount: 0,
  remaining: 0,
  believedUntilMs: -Infinity,
  retryAtMs: 0,
  resetAtMs: 0,
} as const;

function unasked({ cell }: GuardedCell): LimitDecision {
  return { allowed: true, remaining: cell.quota, retryAfterMs: 0, resetAfterMs: 0 };
}
