// Rate tiers: the named limits of the gate and the step that takes from them.
import { Fault } from "../../faults/fault.ts";
import type { Rate, RateDecision } from "../../limits/gcra.ts";
import type { RateCells } from "../../limits/rate_cells.ts";

/** One named limit. */
export interface RateTier {
  readonly name: "address" | "sign-in" | "token" | "user";
  readonly rate: Rate;
}

/** The tiers of the settings. */
export interface RateTiers {
  readonly address: RateTier;
  readonly signIn: RateTier;
  readonly token: RateTier;
  readonly user: RateTier;
}

/** Requests a minute, from the settings. */
export interface RateSettings {
  readonly rateAddressPerMinute: number;
  readonly rateSignInPerMinute: number;
  readonly rateTokenPerMinute: number;
  readonly rateUserPerMinute: number;
}

/** The tiers of the settings. */
export function rateTiers(settings: RateSettings): RateTiers {
  const perMinute = (name: RateTier["name"], quota: number): RateTier => ({
    name,
    rate: { quota, windowMs: 60_000 },
  });
  return {
    address: perMinute("address", settings.rateAddressPerMinute),
    signIn: perMinute("sign-in", settings.rateSignInPerMinute),
    token: perMinute("token", settings.rateTokenPerMinute),
    user: perMinute("user", settings.rateUserPerMinute),
  };
}

/**
 * Takes one request from each tier for a client, all or none, and puts the fields into the answer's headers.
 *
 * @throws Fault `rate_limited` with the seconds until the last refusing tier allows one again
 */
export async function takeRates(
  cells: RateCells,
  tiers: readonly RateTier[],
  client: string,
  answerHeaders: Record<string, string>,
): Promise<void> {
  const taken = cells.take(tiers.map((tier) => ({ key: `${tier.name}:${client}`, rate: tier.rate })));
  // Cells in memory answer at once: the hot path skips a turn of the event loop.
  const decisions = taken instanceof Promise ? await taken : taken;
  addRateFields(answerHeaders, tiers, decisions);
  const refused = decisions.filter((decision) => !decision.allowed);
  if (refused.length === 0) return;
  const names = tiers.filter((_, index) => decisions[index]?.allowed === false).map((tier) => tier.name);
  const retryAfterSeconds = Math.max(
    1,
    ...refused.map((decision) => Math.ceil(decision.retryAfterMs / 1000)),
  );
  throw new Fault("rate_limited", `Cannot pass a request: limit ${names.join(" and ")} is used up`, {
    detail: `The limit "${names.join('" and "')}" is used up. Try again in ${retryAfterSeconds} s.`,
    retryAfterSeconds,
  });
}

/**
 * Adds `RateLimit-Policy` and `RateLimit` for each tier, in order (draft-ietf-httpapi-ratelimit-headers-10). On a refusal `t` is the whole seconds until the next
 * request is allowed, the same as Retry-After; else until the whole quota is there again.
 */
function addRateFields(
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
