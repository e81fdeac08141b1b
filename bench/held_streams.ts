// Held streams: many open streams on one server, from a thread of its own.
import type { HoldOrder, HoldReport } from "./hold_worker.ts";
import { encodeRequests, type LoadTarget } from "./load_generator.ts";

export interface HeldStreams {
  /** Leaves all of them; the events that came since all had begun. */
  leave(): Promise<number>;
}

/**
 * Resolves when every stream has begun.
 *
 * @throws Error when one does not begin, or ends before it is left
 */
export async function holdStreams(target: LoadTarget, streams: number): Promise<HeldStreams> {
  const worker = new Worker(new URL("./hold_worker.ts", import.meta.url), { type: "module" });
  const order = async (message: HoldOrder): Promise<number> => {
    const { promise, resolve, reject } = Promise.withResolvers<HoldReport>();
    worker.onmessage = ({ data }: MessageEvent<HoldReport>) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(`Cannot hold streams on ${target.path}: ${event.message}`));
    };
    worker.postMessage(message);
    const { pieces, broken } = await promise;
    if (broken > 0) throw new Error(`Cannot trust held streams: ${broken} of ${streams} did not last`);
    return pieces;
  };
  const [request] = encodeRequests(target);
  if (request === undefined) throw new Error("Cannot hold streams on a server: there is no request");
  try {
    await order({ kind: "open", port: target.port, request, streams });
  } catch (thrown) {
    worker.terminate();
    throw thrown;
  }
  return {
    async leave() {
      try {
        return await order({ kind: "close" });
      } finally {
        worker.terminate();
      }
    },
  };
}
