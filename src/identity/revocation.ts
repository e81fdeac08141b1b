// Revocation: tokens that are over before they expire. Known in memory, kept in the store so that a restart forgets none.
import type { RecordChange, RecordStore } from "../store/record_store.ts";
import type { Clock } from "../time/clock.ts";

/** The tokens that were ended early. */
export interface Revocations {
  /** Synchronous: it is asked at every request. */
  isRevoked(tokenId: string): boolean;
  /**
   * Resolves when the revocation is durable; it holds in this process from the call on.
   *
   * @param also changes that expect nothing, made together with it or not at all
   */
  revoke(tokenId: string, expiresAtMs: number, also?: readonly RecordChange[]): Promise<void>;
}

const TABLE = "revoked_tokens";
const PAGE = 1000;
const SWEEP_SIZE = 1000;

/** Reads what is stored; records whose token has expired anyway are not among them. */
export async function openRevocations(store: RecordStore, clock: Clock): Promise<Revocations> {
  const expiresAtMsById = new Map<string, number>();
  let after: string | undefined;
  for (;;) {
    const page = await store.list(TABLE, after === undefined ? { limit: PAGE } : { after, limit: PAGE });
    for (const { key, value } of page) expiresAtMsById.set(key, new DataView(value.buffer).getFloat64(0));
    after = page.at(-1)?.key;
    if (page.length < PAGE) break;
  }
  let sweepAt = SWEEP_SIZE;

  return {
    isRevoked: (tokenId) => expiresAtMsById.has(tokenId),
    async revoke(tokenId, expiresAtMs, also = []) {
      expiresAtMsById.set(tokenId, expiresAtMs);
      if (expiresAtMsById.size >= sweepAt) {
        for (const [id, expiryMs] of expiresAtMsById) if (expiryMs <= clock.now()) expiresAtMsById.delete(id);
        sweepAt = Math.max(SWEEP_SIZE, 2 * expiresAtMsById.size);
      }
      const value = new Uint8Array(8);
      new DataView(value.buffer).setFloat64(0, expiresAtMs);
      await store.write([{ table: TABLE, key: tokenId, value, lifetime: { expiresAtMs } }, ...also]);
    },
  };
}
