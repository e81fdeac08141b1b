// Rate fields: what an answer says of the limits that were asked (draft-ietf-httpapi-ratelimit-headers-10).
import type { RateDecision } from "../../limits/gcra.ts";
import type { RateTier } from "./rate_tiers.ts";

/**
 * Adds `RateLimit-Policy` and `RateLimit` for each tier, in order. On a refusal `t` is the whole seconds until the next
 * request is allowed, the same as Retry-After; else until the whole quota is there again.
 */
export function addRateFields(
  headers: Record<string, string>,
  tiers: readonly RateTier[],
  decisions: readonly RateDecision[],
): void {
  tiers.forEach((tier, index) => {
    const decision = decisions[index];
    if (decision === undefined) return;
    const seconds = Math.ceil(
      (decision.remaining === 0 ? decision.retryAfterMs : decision.resetAfterMs) / 1000,
    );
    append(headers, "RateLimit-Policy", `"${tier.name}";q=${tier.rate.quota};w=${tier.rate.windowMs / 1000}`);
    append(headers, "RateLimit", `"${tier.name}";r=${decision.remaining};t=${seconds}`);
  });
}

function append(headers: Record<string, string>, name: string, item: string): void {
  const list = headers[name];
  headers[name] = list === undefined ? item : `${list}, ${item}`;
}
