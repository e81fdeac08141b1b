// Limit fault: what a caller is told when limits refuse.
import { Fault } from "../faults/fault.ts";
import { COST_SCALE, type LimitView } from "./limit_policy.ts";

/** The fault of the limit that refuses for longest; undefined where all allow. */
export function limitFault(views: readonly LimitView[]): Fault | undefined {
  let worst: LimitView | undefined;
  for (const view of views) {
    if (view.decision.allowed) continue;
    if (worst === undefined || view.decision.retryAfterMs > worst.decision.retryAfterMs) worst = view;
  }
  return worst === undefined ? undefined : faultOf(worst);
}

function faultOf({ limit: { name, cell, unit, windowSeconds }, decision }: LimitView): Fault {
  const reason = `Cannot pass a request: limit ${name} is used up`;
  if (cell.kind === "place") {
    return new Fault("rate_limited", reason, {
      detail: `At most ${cell.quota} requests may be under way at once (limit "${name}").`,
      retryAfterSeconds: retrySeconds(decision.retryAfterMs),
    });
  }
  const quota = unit === "cost" ? cell.quota / COST_SCALE : cell.quota;
  const kind = cell.kind === "count" ? "budget_exhausted" : "rate_limited";
  if (cell.amount > cell.quota) {
    const amount = unit === "cost" ? cell.amount / COST_SCALE : cell.amount;
    return new Fault(kind, `${reason} by one request: ${amount} of ${quota}`, {
      detail:
        `This request alone may take ${amount} (${unit}); the limit "${name}" is ${quota}. Ask for less: a shorter ` +
        "input, or a smaller bound on the output.",
    });
  }
  const retryAfterSeconds = retrySeconds(decision.retryAfterMs);
  const per = windowSeconds === 60 ? "a minute" : windowSeconds === 86_400 ? "a day" : "a month";
  return new Fault(kind, reason, {
    detail: `The limit "${name}" (${quota} ${unit} ${per}) is used up. Try again in ${retryAfterSeconds} s.`,
    retryAfterSeconds,
  });
}

function retrySeconds(retryAfterMs: number): number {
  return Math.max(1, Math.ceil(retryAfterMs / 1000));
}
