// Usage view: what both lists of usage have in common: which days they are about, and how sums are written.
import { z } from "@hono/zod-openapi";
import { Fault } from "../faults/fault.ts";
import { COST_SCALE, dayOf } from "../limits/limit_policy.ts";
import type { UsedAmounts } from "../limits/usage_book.ts";

/** Every day is read by itself. */
const DAYS_MAX = 92;
const DAY_MS = 86_400_000;

const day = z.iso.date("is no day such as 2026-11-22").optional();

/** `?from=DAY&to=DAY`, both included. */
export const usageQuery = z.strictObject({
  from: day.describe("The first day, UTC. Default: the first of the last day's month."),
  to: day.describe(`The last day, UTC; at most ${DAYS_MAX} days in all. Default: today.`),
});

/** An answer has no more rows than these, except of a single day, which is one part. */
const ROWS_MAX = 20_000;

/** What was used, in answers. */
export const usageSums = z.strictObject({
  requests: z.int(),
  input_tokens: z.int(),
  output_tokens: z.int(),
  cost: z.number().describe("In the currency of the models' prices."),
});

/** The days of a query. */
export interface UsageDays {
  /** As `dayOf` names days. */
  readonly from: string;
  readonly to: string;
  readonly days: readonly string[];
}

/**
 * The days that a query asks for.
 *
 * @param nowMs wall time
 * @throws Fault `request_invalid` where there are none, or more than are read for one answer
 */
export function usageDays(query: z.infer<typeof usageQuery>, nowMs: number): UsageDays {
  const to = query.to ?? dayOf(nowMs).name;
  const from = query.from ?? `${to.slice(0, 7)}-01`;
  const [firstMs, lastMs] = [Date.parse(from), Date.parse(to)];
  if (firstMs > lastMs) throw refused(`lies behind the last day, ${to}`);
  if (lastMs - firstMs >= DAYS_MAX * DAY_MS) throw refused(`asks for more than ${DAYS_MAX} days`);
  const days: string[] = [];
  for (let atMs = firstMs; atMs <= lastMs; atMs += DAY_MS) days.push(dayOf(atMs).name);
  return { from, to, days };
}

/** Sums as answers have them. */
export function usageSumsView({ requests, inputTokens, outputTokens, cost }: UsedAmounts): z.infer<
  typeof usageSums
> {
  return { requests, input_tokens: inputTokens, output_tokens: outputTokens, cost: cost / COST_SCALE };
}

/**
 * Whether an answer is held in memory as a whole.
 *
 * @throws Fault `request_invalid` where the days asked for have too many rows for one answer
 */
export function checkRows(rows: number, days: readonly string[]): void {
  if (rows > ROWS_MAX && days.length > 1) {
    throw refused(`asks for more than ${ROWS_MAX} rows: name fewer days`);
  }
}

function refused(message: string): Fault {
  return new Fault("request_invalid", "Cannot accept a query: its days are no range", {
    detail: `The query parameter from ${message}.`,
  });
}
