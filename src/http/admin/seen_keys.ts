// Seen keys: an account's API keys that somebody else has seen must not come to do more with the account.
import { canGive } from "../../access/give.ts";
import type { AdminParts } from "./admin_parts.ts";
import { someOfAll } from "./some_of_all.ts";

/** An account, as far as it counts here. */
interface Account {
  readonly team: string;
  readonly roles: readonly string[];
}

/** Whether an account comes to do anything that it could not do: in another team, or by its roles. */
export function givesMore({ roleBook }: AdminParts, before: Account, next: Account): boolean {
  const { team } = before;
  const held = { team, grants: roleBook.grantsOf(team, before.roles), scope: null };
  return next.team !== team || !canGive(held, roleBook.grantsOf(team, next.roles), team);
}

/** Whether an account has keys that somebody else has seen. */
export async function hasSeenKeys({ apiKeys }: AdminParts, ownerId: string): Promise<boolean> {
  return await someOfAll(
    (page) => apiKeys.list({ ...page, ownerId }),
    ({ seenByOthers }) => seenByOthers,
  );
}

/**
 * Makes a change of their owner that such keys must not outlive. They go before it, so that no failure leaves one that does
 * more; and again after it, for those that were made meanwhile.
 *
 * @param change whether it was made
 */
export async function changeWithoutSeenKeys(
  { apiKeys }: AdminParts,
  ownerId: string,
  change: () => Promise<boolean>,
): Promise<boolean> {
  await apiKeys.removeSeenByOthers(ownerId);
  const isMade = await change();
  if (isMade) await apiKeys.removeSeenByOthers(ownerId);
  return isMade;
}
