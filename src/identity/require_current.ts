// Require current: what is kept at hand is believed only while it is known what other instances changed.
import { Fault } from "../faults/fault.ts";
import type { ChangeFeed } from "../store/change_feed.ts";

/** What says whether it is known. */
export type CurrentFeed = Pick<ChangeFeed, "isCurrent">;

/** Throws Fault `unavailable` while it is not: a credential that was ended elsewhere would still work. */
export function requireCurrent(feed: CurrentFeed): void {
  if (feed.isCurrent()) return;
  throw new Fault("unavailable", "Cannot recognise the caller: what other instances changed is not known", {
    retryAfterSeconds: 1,
  });
}
