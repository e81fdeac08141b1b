// Bench trail: the server's own trail, the same without waiting for the disk, and one in memory.
import { type AuditTrailOptions, type DurableAuditTrail, openAuditTrail } from "../src/audit/audit_trail.ts";
import { memoryAuditTrail } from "../src/audit/memory_audit_trail.ts";

/** All of them. */
export const BENCH_TRAILS = ["durable", "unsynced", "memory"] as const;

/** One of them. */
export type BenchTrail = typeof BENCH_TRAILS[number];

/** Opens one in the way in which a server opens its own. */
export function benchTrailOpener(
  kind: BenchTrail,
): (options: AuditTrailOptions) => Promise<DurableAuditTrail> {
  switch (kind) {
    case "durable":
      return openAuditTrail;
    case "unsynced":
      return (options) =>
        openAuditTrail(
          options,
          () => new Worker(new URL("./unsynced_audit_worker.ts", import.meta.url), { type: "module" }),
        );
    case "memory":
      return () => Promise.resolve(forgetful());
  }
}

/** Keeps nothing, or a bench of minutes would be one of the garbage collector. */
function forgetful(): DurableAuditTrail {
  const trail = memoryAuditTrail();
  return {
    ...trail,
    async record(event) {
      await trail.record(event);
      (trail.events as unknown[]).length = 0;
    },
    batchCount: () => 0,
    useKeys() {},
  };
}
