// Revocation: tokens that are over before they expire. Known in memory, kept in the store so that a restart forgets none and
// other instances learn of each.
import type { ChangeFeed } from "../store/change_feed.ts";
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";

/** The tokens that were ended early. */
export interface Revocations {
  /** Synchronous: it is asked at every request. */
  isRevoked(tokenId: string): boolean;
  /**
   * When it resolves, the revocation is durable and holds in this process. Until then it holds nowhere: where the write fails,
   * nothing is over, and whoever tries again finds what is to be ended.
   *
   * @param also changes that expect nothing, made together with it or not at all
   * @throws Fault `unavailable` when the store fails; where only its answer was lost, the feed tells of the revocation
   */
  revoke(tokenId: string, expiresAtMs: number, also?: readonly RecordChange[]): Promise<void>;
}

const TABLE = "revoked_tokens";
const PAGE = 1000;
const SWEEP_SIZE = 1000;

/**
 * Reads what is stored; records whose token has expired anyway are not among them.
 *
 * @param feed tells of what others revoke
 */
export async function openRevocations(
  store: RecordStore,
  clock: Clock,
  feed: Pick<ChangeFeed, "follow">,
): Promise<Revocations> {
  const expiresAtMsById = new Map<string, number>();
  let sweepAt = SWEEP_SIZE;

  function add(tokenId: string, expiresAtMs: number): void {
    expiresAtMsById.set(tokenId, expiresAtMs);
    if (expiresAtMsById.size < sweepAt) return;
    for (const [id, expiryMs] of expiresAtMsById) if (expiryMs <= clock.now()) expiresAtMsById.delete(id);
    sweepAt = Math.max(SWEEP_SIZE, 2 * expiresAtMsById.size);
  }
  async function addStored(): Promise<void> {
    let after: string | undefined;
    for (;;) {
      const page = await store.list(TABLE, after === undefined ? { limit: PAGE } : { after, limit: PAGE });
      for (const { key, value } of page) add(key, expiryIn(value));
      after = page.at(-1)?.key;
      if (page.length < PAGE) return;
    }
  }

  // Nothing is ever taken back: whatever is read, and whenever, it is added.
  feed.follow(TABLE, async (tokenId) => {
    if (tokenId === undefined) return await addStored();
    const value = await store.get(TABLE, tokenId);
    if (value !== undefined) add(tokenId, expiryIn(value));
  });
  await addStored();

  return {
    isRevoked: (tokenId) => expiresAtMsById.has(tokenId),
    async revoke(tokenId, expiresAtMs, also = []) {
      const value = new Uint8Array(8);
      new DataView(value.buffer).setFloat64(0, expiresAtMs);
      await store.write([{ table: TABLE, key: tokenId, value, lifetime: { expiresAtMs } }, ...also]);
      // Not before: what holds here alone could never be ended elsewhere, for here there is nothing left to end.
      add(tokenId, expiresAtMs);
    },
  };
}

function expiryIn(value: Uint8Array<ArrayBuffer>): number {
  return new DataView(value.buffer, value.byteOffset, value.byteLength).getFloat64(0);
}
