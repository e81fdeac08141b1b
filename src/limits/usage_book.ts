// Usage book: who used how much of which model on which day, limited or not. One row for each of them, of four sums. A day is cut
// into parts by users, so that whoever asks for their own does not make the server read everybody's.
import type { LimitStore, Tally } from "./limit_store.ts";
import { dayOf, type WorkAmounts } from "./limit_policy.ts";
import { nextTurn } from "./next_turn.ts";

/** Whose use it is. */
export interface UsageUser {
  readonly issuer: string;
  readonly subject: string;
}

/** Whose use it is, and of what. */
export interface UsageRow extends UsageUser {
  readonly team: string;
  /** The API key's id; empty where another credential was used. */
  readonly key: string;
  readonly model: string;
}

/** What was used. */
export interface UsedAmounts {
  readonly requests: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** Billionths of the currency of the prices. */
  readonly cost: number;
}

/** Nothing. */
export const NO_USE: UsedAmounts = { requests: 0, inputTokens: 0, outputTokens: 0, cost: 0 };

/** Days are kept for so long: a year and the month that is being billed. */
const KEPT_MS = 400 * 86_400_000;
/** Of a day. */
const PARTS = 64;
/** So many sums are looked at in one go: then the event loop has its turn, for a store in this process answers at once. */
const SUMS_A_TURN = 1000;
/** The first letter of a sum's key. */
const SUMS = { requests: "r", inputTokens: "i", outputTokens: "o", cost: "c" } as const;
const SUM_NAMES = Object.keys(SUMS) as (keyof UsedAmounts)[];

/** What to add to the book of this day. */
export function usageTallies(row: UsageRow, used: UsedAmounts, nowMs: number): readonly Tally[] {
  const book = bookOf(dayOf(nowMs).name, partOf(row));
  const whose = JSON.stringify([row.team, row.issuer, row.subject, row.key, row.model]);
  const tallies: Tally[] = [];
  for (const name of SUM_NAMES) {
    if (used[name] > 0) tallies.push({ book, key: SUMS[name] + whose, amount: used[name], keptMs: KEPT_MS });
  }
  return tallies;
}

/** A row, and what was used of it. */
export interface UsedRow {
  readonly row: UsageRow;
  readonly used: UsedAmounts;
}

/**
 * The rows of a day: a whole part of it is read even for one user. However many there are, nobody else waits for that: the store
 * answers in pages, one part after the other, and memory holds one day of those who were asked for.
 *
 * @param day as `dayOf` names it
 * @param user whose; absent: everybody's
 * @throws Fault `unavailable` when the store fails
 */
export async function readUsage(
  store: Pick<LimitStore, "sums">,
  day: string,
  user?: UsageUser,
): Promise<readonly UsedRow[]> {
  const parts = user === undefined ? [...Array(PARTS).keys()] : [partOf(user)];
  const rows = new Map<string, { row: UsageRow; used: Record<keyof UsedAmounts, number> }>();
  let read = 0;
  for (const part of parts) {
    for (const [key, sum] of await store.sums(bookOf(day, part))) {
      if (++read % SUMS_A_TURN === 0) await nextTurn();
      const name = SUM_NAMES.find((each) => SUMS[each] === key[0]);
      if (name === undefined) continue;
      const whose = key.slice(1);
      let found = rows.get(whose);
      if (found === undefined) {
        const row = rowOf(whose);
        if (user !== undefined && (row.issuer !== user.issuer || row.subject !== user.subject)) continue;
        rows.set(whose, found = { row, used: { ...NO_USE } });
      }
      found.used[name] += sum;
    }
  }
  // Also where there was next to nothing: callers read many days.
  await nextTurn();
  return [...rows.values()];
}

function rowOf(text: string): UsageRow {
  const [team, issuer, subject, key, model] = JSON.parse(text) as [string, string, string, string, string];
  return { team, issuer, subject, key, model };
}

/** Both together. */
export function addUse(one: UsedAmounts, other: UsedAmounts): UsedAmounts {
  return {
    requests: one.requests + other.requests,
    inputTokens: one.inputTokens + other.inputTokens,
    outputTokens: one.outputTokens + other.outputTokens,
    cost: one.cost + other.cost,
  };
}

/** What tokens cost, in billionths; a fraction of one counts as one. */
export function costOf(
  prices: { readonly inputPerMillion: number; readonly outputPerMillion: number } | null,
  inputTokens: number,
  outputTokens: number,
): number {
  if (prices === null) return 0;
  // A price a million tokens is a thousand times as many billionths a token.
  const cost = (inputTokens * prices.inputPerMillion + outputTokens * prices.outputPerMillion) * 1000;
  // Binary fractions: 3 × 0.1 is a little more than 0.3, and no reason to round up.
  return Math.min(Number.MAX_SAFE_INTEGER, Math.ceil(Number(cost.toPrecision(15))));
}

/** The amounts that policies count. */
export function amountsOf(used: UsedAmounts): WorkAmounts {
  return { requests: used.requests, tokens: used.inputTokens + used.outputTokens, cost: used.cost };
}

function bookOf(day: string, part: number): string {
  return `usage/${day}/${part}`;
}

/** Any part will do, as long as it is always the same. */
function partOf({ issuer, subject }: UsageUser): number {
  const text = `${issuer} ${subject}`;
  let sum = 0;
  for (let at = 0; at < text.length; at++) sum = (Math.imul(sum, 31) + text.charCodeAt(at)) >>> 0;
  return sum % PARTS;
}
