// Rate tiers: the rates of the gate itself, with settings of their own, and the step that takes from them.
import type { Rate } from "../../limits/gcra.ts";
import { limitFault } from "../../limits/limit_fault.ts";
import { type LimitView, requestLimit } from "../../limits/limit_policy.ts";
import type { StoreFailurePolicy } from "../../limits/guarded_cell.ts";
import type { Limiter } from "../../limits/limiter.ts";

/** One rate. */
export interface RateTier {
  readonly name: "address" | "sign-in" | "token" | "user";
  readonly rate: Rate;
  readonly whenStoreFails: StoreFailurePolicy;
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

/** The tiers of the settings. Where passwords and secrets are tried, nobody passes uncounted. */
export function rateTiers(settings: RateSettings): RateTiers {
  const perMinute = (
    name: RateTier["name"],
    quota: number,
    whenStoreFails: StoreFailurePolicy,
  ): RateTier => ({
    name,
    rate: { quota, windowMs: 60_000 },
    whenStoreFails,
  });
  return {
    address: perMinute("address", settings.rateAddressPerMinute, "degraded"),
    signIn: perMinute("sign-in", settings.rateSignInPerMinute, "closed"),
    token: perMinute("token", settings.rateTokenPerMinute, "closed"),
    user: perMinute("user", settings.rateUserPerMinute, "degraded"),
  };
}

/**
 * Takes one request from each tier for a client, all or none.
 *
 * @param views what was decided is put behind what is there, for the answer's headers
 * @throws Fault `rate_limited` with the seconds until the last refusing tier allows one again · `unavailable`
 */
export async function takeRates(
  limiter: Limiter,
  tiers: readonly RateTier[],
  client: string,
  views: LimitView[],
): Promise<void> {
  const limits = tiers.map(({ name, rate, whenStoreFails }) =>
    requestLimit(name, client, rate, whenStoreFails)
  );
  const taken = limiter.take(null, limits);
  // A store in memory answers at once: the hot path skips a turn of the event loop.
  const decisions = taken instanceof Promise ? await taken : taken;
  const here = limits.flatMap((limit, index) => {
    const decision = decisions[index];
    return decision === undefined ? [] : [{ limit, decision }];
  });
  views.push(...here);
  const refused = limitFault(here);
  if (refused !== undefined) throw refused;
}

/**
 * For a rate that is taken later: refuses at once whom it has just refused.
 *
 * @throws Fault `rate_limited`
 */
export function requireNotRefused(
  limiter: Limiter,
  { name, rate, whenStoreFails }: RateTier,
  client: string,
  views: LimitView[],
): void {
  const limit = requestLimit(name, client, rate, whenStoreFails);
  const decision = limiter.refusal(limit);
  if (decision === undefined) return;
  const view = { limit, decision };
  views.push(view);
  throw limitFault([view]);
}
