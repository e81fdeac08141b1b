// Limit fields: what an answer says of the limits that its request met.
import { COST_SCALE, type LimitUnit, type LimitView } from "../../limits/limit_policy.ts";

/**
 * Adds `RateLimit-Policy` and `RateLimit` of the tightest limit (draft-ietf-httpapi-ratelimit-headers-10). On a refusal `t` is the
 * whole seconds until the amount can be allowed, the same as Retry-After; else until the whole quota is there again. Limits that
 * others use up as well are told of only where they refuse.
 *
 * @param inOpenaiForm adds the fields that OpenAI's clients read as well: of the tightest limit on requests and of that on tokens
 */
export function addLimitFields(
  headers: Record<string, string>,
  all: readonly LimitView[],
  inOpenaiForm: boolean,
): void {
  const views = all.filter(({ limit, decision }) => !limit.isShared || !decision.allowed);
  const tightest = tightestOf(views, (view) => view.limit.unit !== "places" || !view.decision.allowed);
  if (tightest === undefined) return;
  const { limit: { name, cell, unit, windowSeconds }, decision } = tightest;
  // Whole numbers (RFC 9651 §3.3.1): of money, millionths.
  const scale = unit === "cost" ? COST_SCALE / 1e6 : 1;
  const window = windowSeconds === 0 ? "" : `;w=${windowSeconds}`;
  headers["RateLimit-Policy"] = `"${name}";q=${Math.floor(cell.quota / scale)}${window}`;
  headers["RateLimit"] = `"${name}";r=${Math.floor(decision.remaining / scale)};t=${
    seconds(waitMs(tightest))
  }`;
  if (!inOpenaiForm) return;
  addOpenaiFields(headers, views, "requests");
  addOpenaiFields(headers, views, "tokens");
}

/** As OpenAI's own API has them: `x-ratelimit-limit-requests`, `-remaining-requests`, `-reset-requests`, and the same of tokens. */
function addOpenaiFields(
  headers: Record<string, string>,
  views: readonly LimitView[],
  unit: Extract<LimitUnit, "requests" | "tokens">,
): void {
  const tightest = tightestOf(views, ({ limit }) => limit.unit === unit);
  if (tightest === undefined) return;
  const { limit: { cell }, decision } = tightest;
  headers[`x-ratelimit-limit-${unit}`] = String(cell.quota);
  headers[`x-ratelimit-remaining-${unit}`] = String(decision.remaining);
  headers[`x-ratelimit-reset-${unit}`] = duration(waitMs(tightest));
}

/** The one that refuses for longest; where none does, the one of which the smallest part is left. */
function tightestOf(
  views: readonly LimitView[],
  counts: (view: LimitView) => boolean,
): LimitView | undefined {
  let tightest: LimitView | undefined;
  for (const view of views) {
    if (counts(view) && (tightest === undefined || isTighter(view, tightest))) tightest = view;
  }
  return tightest;
}

function isTighter(one: LimitView, other: LimitView): boolean {
  if (one.decision.allowed !== other.decision.allowed) return other.decision.allowed;
  if (!one.decision.allowed) return one.decision.retryAfterMs > other.decision.retryAfterMs;
  return one.decision.remaining * other.limit.cell.quota < other.decision.remaining * one.limit.cell.quota;
}

/** The last one that is allowed need not wait: it is told when all of it is there again. */
function waitMs({ decision }: LimitView): number {
  return decision.allowed ? decision.resetAfterMs : decision.retryAfterMs;
}

/** Whole seconds; what can never be allowed is as far off as the field can say. */
function seconds(ms: number): number {
  return Number.isFinite(ms) ? Math.ceil(ms / 1000) : 999_999_999_999_999;
}

/** `20ms`, `2s`, `6m0s`, `1h0m0s`: Go's form, which OpenAI's fields have. */
function duration(ms: number): string {
  if (!Number.isFinite(ms)) return "0s";
  if (ms < 1000) return `${Math.ceil(ms)}ms`;
  const whole = Math.ceil(ms / 1000);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${hours > 0 ? `${hours}h` : ""}${whole >= 60 ? `${minutes}m` : ""}${whole % 60}s`;
}
