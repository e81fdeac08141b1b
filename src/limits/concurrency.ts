// Concurrency: how many requests of one client may be under way at once.
import { Fault } from "../faults/fault.ts";

/** Counts what is under way. */
export interface ConcurrencyLimit {
  /**
   * Takes a place for a client.
   *
   * @returns gives the place back; to be called once, whatever became of the request
   * @throws Fault `rate_limited` when the client has all its places in use
   */
  take(client: string): () => void;
}

/** Makes a limit of `placesMax` for each client. Clients without a request under way take no memory. */
export function openConcurrencyLimit(placesMax: number): ConcurrencyLimit {
  const underWay = new Map<string, number>();
  return {
    take(client) {
      const count = underWay.get(client) ?? 0;
      if (count >= placesMax) {
        throw new Fault("rate_limited", `Cannot take another request: ${count} of the caller are under way`, {
          detail: `You have ${count} requests under way; at most ${placesMax} are allowed at once.`,
          retryAfterSeconds: 1,
        });
      }
      underWay.set(client, count + 1);
      return () => {
        const left = (underWay.get(client) ?? 1) - 1;
        if (left > 0) underWay.set(client, left);
        else underWay.delete(client);
      };
    },
  };
}
