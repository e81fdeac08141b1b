// Strikes in memory: for one instance, and the model of what Redis must do.
import type { Clock } from "../time/clock.ts";
import type { BanTrigger } from "./ban_list.ts";
import { RecentMap } from "./recent_map.ts";
import type { Strikes, StrikeThresholds } from "./strikes.ts";

/** Of each trigger; beyond it the longest unseen are forgotten. Whoever has so many networks to strike from needs no more. */
const NETWORKS_MAX = 100_000;
/** Times of each trigger: 40 MB. */
const TIMES_MAX = 5_000_000;

/** Opens a count of nothing. */
export function openMemoryStrikes(clock: Clock, thresholds: StrikeThresholds): Strikes {
  const byTrigger: Readonly<Record<BanTrigger, RecentMap<number[]>>> = {
    credentials: timesOf("credentials"),
    validation: timesOf("validation"),
    probes: timesOf("probes"),
  };
  function timesOf(trigger: BanTrigger): RecentMap<number[]> {
    return new RecentMap(Math.min(NETWORKS_MAX, Math.floor(TIMES_MAX / thresholds[trigger].count)));
  }

  return {
    add(trigger, network) {
      const { count, seconds } = thresholds[trigger];
      const times = byTrigger[trigger];
      const nowMs = clock.monotonic();
      const within = (times.get(network) ?? []).filter((ms) => nowMs - ms < seconds * 1000);
      within.push(nowMs);
      if (within.length < count) {
        times.set(network, within);
        return false;
      }
      times.delete(network);
      return true;
    },
  };
}
