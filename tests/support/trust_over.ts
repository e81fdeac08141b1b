// Trust over a store: what identity rests on in tests, of an instance that is alone unless it is told of others.
import type { Trust } from "../../src/assembly/trust.ts";
import { NO_OTHERS } from "../../src/store/change_feed.ts";

/** Nothing of it needs to be closed. */
export function trustOver(
  parts: Pick<Trust, "store" | "keyRing" | "trail"> & { readonly feed?: Trust["feed"] | undefined },
): Trust {
  const { feed = NO_OTHERS } = parts;
  return { ...parts, feed, redis: undefined, sums: undefined, alone: (act) => act() };
}
