// Soak load: all callers of a soak at work, from a thread of its own.
import { encodeRequests } from "./load_generator.ts";
import type { SoakGate } from "./soak_gate.ts";
import type { SoakCounts, SoakModel, SoakOrder, SoakReport } from "./soak_worker.ts";
import { chatBody } from "./stub_answers.ts";

export interface SoakLoad {
  /** So far, or in all, in the order of the callers. */
  counts(): readonly SoakCounts[];
  /** Rejects when a caller cannot go on; never resolves. */
  readonly failed: Promise<never>;
  /** Resolves when each connection has ended its last request. */
  stop(): Promise<void>;
  /** At once, whatever is under way. */
  close(): void;
}

export function startSoakLoad({ server: { port }, callers }: SoakGate): SoakLoad {
  const worker = new Worker(new URL("./soak_worker.ts", import.meta.url), { type: "module" });
  const ended = Promise.withResolvers<void>();
  const failed = Promise.withResolvers<never>();
  // Whoever waits for it hears of it; nobody may wait at that moment.
  failed.promise.catch(() => {});
  let counts: readonly SoakCounts[] = [];
  worker.onmessage = ({ data }: MessageEvent<SoakReport>) => {
    counts = data.counts;
    if (data.isLast) ended.resolve();
  };
  worker.onerror = (event) => {
    event.preventDefault();
    failed.reject(new Error(`Cannot keep the load up: ${event.message}`));
  };
  const order = (message: SoakOrder) => worker.postMessage(message);
  order({
    kind: "start",
    port,
    callers: callers.map(({ bearer, connections }) => {
      const encode = (model: SoakModel, stream: boolean): Uint8Array => {
        const bodies = [chatBody(model, stream)];
        const [request] = encodeRequests({ port, path: "/v1/chat/completions", token: bearer, bodies });
        if (request === undefined) throw new Error("Cannot put load on a server: there is no request");
        return request;
      };
      const requests = {
        whole: encode("stub-burst", false),
        stream: encode("stub-burst", true),
        endless: encode("stub-endless", true),
      };
      return { requests, connections };
    }),
  });
  return {
    counts: () => counts,
    failed: failed.promise,
    async stop() {
      order({ kind: "stop" });
      await Promise.race([ended.promise, failed.promise]);
    },
    close: () => worker.terminate(),
  };
}
