// Strikes: the port where misdeeds of a network are counted until there are enough of them for a ban.
import type { BanTrigger } from "./ban_list.ts";

/** So many within so long. */
export interface StrikeThreshold {
  /** 1 to 1000. */
  readonly count: number;
  readonly seconds: number;
}

/** The threshold of each trigger. */
export type StrikeThresholds = Readonly<Record<BanTrigger, StrikeThreshold>>;

/** Counts strikes. */
export interface Strikes {
  /**
   * Counts one. The window slides, so that no count starts anew at a border: a strike is in it until the threshold's seconds
   * have passed since. What reaches the threshold clears the count.
   *
   * @returns whether this strike is the one that reaches the threshold
   * @throws Fault `unavailable` when the store fails
   */
  add(trigger: BanTrigger, network: string): Promise<boolean> | boolean;
}
