// Limit policy: from named policies of how much is allowed to whom, to the cells that one piece of work takes from.
import { matchesPattern } from "../encoding/wildcard.ts";
import type { Rate } from "./gcra.ts";
import type { LimitCell, LimitDecision } from "./limit_store.ts";
import type { GuardedCell, StoreFailurePolicy } from "./guarded_cell.ts";

/** Whose use a policy counts: each of these has a limit of its own. */
export type LimitSubject = "address" | "user" | "key" | "team" | "model";

/** What can be limited. Costs are in the currency of the prices. */
export interface LimitQuotas {
  readonly requestsPerMinute?: number | undefined;
  readonly tokensPerMinute?: number | undefined;
  readonly requestsAtOnce?: number | undefined;
  readonly requestsPerDay?: number | undefined;
  readonly requestsPerMonth?: number | undefined;
  readonly tokensPerDay?: number | undefined;
  readonly tokensPerMonth?: number | undefined;
  readonly costPerDay?: number | undefined;
  readonly costPerMonth?: number | undefined;
}

/** One policy. */
export interface LimitPolicy extends LimitQuotas {
  readonly name: string;
  readonly subject: LimitSubject;
  /** Whom and what it is about; all that is named has to fit. Models are patterns in which `*` stands for any characters. */
  readonly for: {
    readonly roles?: readonly string[] | undefined;
    readonly teams?: readonly string[] | undefined;
    readonly keys?: readonly string[] | undefined;
    readonly models?: readonly string[] | undefined;
  };
  /** Absent: rates and places are degraded, days and months closed. */
  readonly whenStoreFails?: StoreFailurePolicy | undefined;
}

/** Who asks for what, as far as policies speak of it. */
export interface LimitedWork {
  /** Text of the client's network. */
  readonly address: string;
  /** Issuer and subject in one text. */
  readonly user: string;
  readonly team: string;
  readonly roles: readonly string[];
  /** The API key's id; null where another credential was used. */
  readonly key: string | null;
  readonly model: string;
}

/** How much a piece of work asks for, or has used. */
export interface WorkAmounts {
  readonly requests: number;
  readonly tokens: number;
  /** Billionths of the currency of the prices, whole. */
  readonly cost: number;
}

/** In what a limit counts. */
export type LimitUnit = "requests" | "tokens" | "cost" | "places";

/** One limit that applies, with what people have to know of it. */
export interface NamedLimit extends GuardedCell {
  /** As answers name it, such as `free` or `free:tokensPerDay` where the policy limits more than one thing. */
  readonly name: string;
  readonly unit: LimitUnit;
  /** Others use it up as well, whose use is nobody's business: answers tell of it only where it refuses. */
  readonly isShared: boolean;
  /** Of a rate or period; 0 of places. */
  readonly windowSeconds: number;
}

/** A limit and what was decided on it. */
export interface LimitView {
  readonly limit: NamedLimit;
  readonly decision: LimitDecision;
}

/** A rate of requests, as the gate and the act have it. */
export function requestLimit(
  name: string,
  whose: string,
  { quota, windowMs }: Rate,
  whenStoreFails: StoreFailurePolicy,
): NamedLimit {
  return {
    name,
    unit: "requests",
    isShared: false,
    windowSeconds: windowMs / 1000,
    whenStoreFails,
    fixed: true,
    cell: { kind: "rate", key: `${name}/${whose}`, quota, windowMs, amount: 1 },
  };
}

/** Billionths of a unit of currency: what costs are counted in. */
export const COST_SCALE = 1e9;

type QuotaName = keyof LimitQuotas;

/** Which quotas count what, and over which time. */
const QUOTAS: Readonly<
  Record<QuotaName, { readonly unit: LimitUnit; readonly period: "minute" | "day" | "month" | null }>
> = {
  requestsPerMinute: { unit: "requests", period: "minute" },
  tokensPerMinute: { unit: "tokens", period: "minute" },
  requestsAtOnce: { unit: "places", period: null },
  requestsPerDay: { unit: "requests", period: "day" },
  requestsPerMonth: { unit: "requests", period: "month" },
  tokensPerDay: { unit: "tokens", period: "day" },
  tokensPerMonth: { unit: "tokens", period: "month" },
  costPerDay: { unit: "cost", period: "day" },
  costPerMonth: { unit: "cost", period: "month" },
};
const QUOTA_NAMES = Object.keys(QUOTAS) as QuotaName[];
const MINUTE_MS = 60_000;

/** A policy that was looked at once, so that a request need not. */
export interface ReadyPolicy {
  readonly policy: LimitPolicy;
  readonly quotas: readonly { readonly quota: QuotaName; readonly max: number; readonly name: string }[];
  /** Whether the tokens of a request have to be known before it runs. */
  readonly countsTokens: boolean;
}

/** Prepares policies. */
export function readyPolicies(policies: readonly LimitPolicy[]): readonly ReadyPolicy[] {
  return policies.map((policy) => {
    const named = QUOTA_NAMES.filter((quota) => policy[quota] !== undefined);
    return {
      policy,
      quotas: named.map((quota) => ({
        quota,
        max: QUOTAS[quota].unit === "cost"
          ? Math.round((policy[quota] ?? 0) * COST_SCALE)
          : policy[quota] ?? 0,
        name: named.length === 1 ? policy.name : `${policy.name}:${quota}`,
      })),
      countsTokens: named.some((quota) => QUOTAS[quota].unit === "tokens" || QUOTAS[quota].unit === "cost"),
    };
  });
}

/** Whether a policy is about a piece of work. */
export function applies({ policy }: ReadyPolicy, work: LimitedWork): boolean {
  const { subject, for: { roles, teams, keys, models } } = policy;
  if (subject === "key" && work.key === null) return false;
  return (roles === undefined || roles.some((role) => work.roles.includes(role))) &&
    (teams === undefined || teams.includes(work.team)) &&
    (keys === undefined || (work.key !== null && keys.includes(work.key))) &&
    (models === undefined || models.some((pattern) => matchesPattern(pattern, work.model)));
}

/**
 * The limits of a policy that applies. Of tokens and money at least 1 is asked for: what is used up refuses also work of which
 * nobody can say before what it takes.
 *
 * @param heldMs after so long a place is free again whatever became of its taker
 * @param nowMs wall time: days and months are those of UTC
 */
export function limitsOf(
  { policy, quotas }: ReadyPolicy,
  work: LimitedWork,
  amounts: WorkAmounts,
  heldMs: number,
  nowMs: number,
): readonly NamedLimit[] {
  const { subject } = policy;
  const key = work[subject] ?? "";
  const isShared = subject === "model" || subject === "address";
  return quotas.map(({ quota, max, name }) => {
    const { unit, period } = QUOTAS[quota];
    const whenStoreFails = policy.whenStoreFails ??
      (period === "day" || period === "month" ? "closed" : "degraded");
    const about = { name, unit, isShared, whenStoreFails, fixed: unit === "requests" };
    if (unit === "places") {
      return {
        ...about,
        windowSeconds: 0,
        cell: { kind: "place", key: `${policy.name}/${key}`, quota: max, heldMs },
      };
    }
    const amount = unit === "requests" ? amounts.requests : Math.max(1, amounts[unit]);
    if (period === "minute") {
      const cell: LimitCell = {
        kind: "rate",
        key: `${policy.name}/${quota}/${key}`,
        quota: max,
        windowMs: MINUTE_MS,
        amount,
      };
      return { ...about, windowSeconds: 60, cell };
    }
    const { name: of, endMs, startMs } = period === "day" ? dayOf(nowMs) : monthOf(nowMs);
    return {
      ...about,
      windowSeconds: (endMs - startMs) / 1000,
      cell: {
        kind: "count",
        book: `${policy.name}/${quota}/${of}`,
        key,
        quota: max,
        amount,
        endsInMs: endMs - nowMs,
      },
    };
  });
}

/** A period of the calendar, in UTC. */
export interface Period {
  /** `2026-11-22` or `2026-11`. */
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

const DAY_MS = 86_400_000;

/** The day of a moment. */
export function dayOf(nowMs: number): Period {
  // Asked at each request, and the same for a day.
  if (nowMs >= lastDay.startMs && nowMs < lastDay.endMs) return lastDay;
  const startMs = Math.floor(nowMs / DAY_MS) * DAY_MS;
  lastDay = { name: new Date(startMs).toISOString().slice(0, 10), startMs, endMs: startMs + DAY_MS };
  return lastDay;
}

let lastDay: Period = { name: "", startMs: Infinity, endMs: -Infinity };

/** The month of a moment. */
export function monthOf(nowMs: number): Period {
  const date = new Date(nowMs);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  const startMs = Date.UTC(year, month, 1);
  return { name: new Date(startMs).toISOString().slice(0, 7), startMs, endMs: Date.UTC(year, month + 1, 1) };
}
