// Assembly of limits: where they are counted, what happens while that fails, bans, and pressure.
import type { Config } from "../config/config.ts";
import { type AddressRange, parseAddressRange } from "../encoding/ip_address.ts";
import { Fault } from "../faults/fault.ts";
import { BAN_TABLE, type BanList, openBanList } from "../limits/ban_list.ts";
import { openEmbeddedLimitStore } from "../limits/embedded_limit_store.ts";
import { readyPolicies, type ReadyPolicy } from "../limits/limit_policy.ts";
import type { LimitStore } from "../limits/limit_store.ts";
import { type Limiter, openLimiter } from "../limits/limiter.ts";
import { openMemoryStrikes } from "../limits/memory_strikes.ts";
import { openMemoryLimitStore } from "../limits/memory_limit_store.ts";
import { openRedisLimitStore } from "../limits/redis_limit_store.ts";
import { openRedisStrikes } from "../limits/redis_strikes.ts";
import type { Strikes } from "../limits/strikes.ts";
import type { Log } from "../telemetry/log.ts";
import type { Clock } from "../time/clock.ts";
import { sealedTable } from "../vault/sealed_store.ts";
import type { Opened, Trust } from "./trust.ts";

/** What limits the work of this server. */
export interface Limits {
  readonly limiter: Limiter;
  readonly policies: readonly ReadyPolicy[];
  readonly bans: BanList;
  /** undefined: the server bans nobody by itself. */
  readonly strikes: Strikes | undefined;
}

/** What is still to be settled gets so long at the end. */
const CLOSING_MS = 1000;

/** Opens the limiter over the store that the settings name, and the bans over the one of records. */
export async function openLimits(
  trust: Trust,
  config: Config,
  clock: Clock,
  log: Log,
  opened: Opened,
): Promise<Limits> {
  const { store, keyRing, feed, redis } = trust;
  const limiter = openLimiter({
    store: openStore(trust, clock),
    local: openMemoryLimitStore(clock),
    degradedFraction: config.degradedPercent / 100,
    clock,
    log,
  });
  opened.push(() => limiter.close(CLOSING_MS));
  const { enabled, firstSeconds, secondSeconds, ...thresholds } = config.bans;
  const labelNetwork = (network: string): string => keyRing.pseudonym("address", network);
  const bans = await openBanList({
    store,
    table: sealedTable(store, keyRing, BAN_TABLE),
    feed,
    clock,
    log,
    exempt: addressRanges([...config.trustedProxies, ...config.banExempt]),
    firstSeconds,
    secondSeconds,
    labelNetwork,
  });
  const strikes = redis === undefined
    ? openMemoryStrikes(clock, thresholds)
    : openRedisStrikes(redis, thresholds, labelNetwork);
  return { limiter, policies: readyPolicies(config.limits), bans, strikes: enabled ? strikes : undefined };
}

/** Ranges of the settings, which have been checked. */
export function addressRanges(texts: readonly string[]): readonly AddressRange[] {
  return texts.flatMap((text) => {
    const range = parseAddressRange(text);
    return range.ok ? [range.value] : [];
  });
}

function openStore({ redis, sums }: Trust, clock: Clock): LimitStore {
  if (redis !== undefined) return openRedisLimitStore(redis);
  if (sums === undefined) throw new Fault("internal", "Cannot count: no store of sums is open");
  return openEmbeddedLimitStore(openMemoryLimitStore(clock), sums);
}
