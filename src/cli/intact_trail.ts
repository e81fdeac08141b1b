// Intact trail: what a backup and a restore demand of a copy of the audit trail.
import type { ChainVerdict } from "../audit/verify_chain.ts";
import { Fault } from "../faults/fault.ts";

/** Whether nothing is wrong with it. One so young that it has no signed checkpoint yet proves less, and is whole all the same. */
export function isIntact({ finding }: ChainVerdict): boolean {
  return finding === undefined || finding.kind === "unsigned";
}

/**
 * Demands it.
 *
 * @param isYoung whether it can be so young
 * @throws Fault `unavailable` with what is wrong
 */
export function requireIntact(verdict: ChainVerdict, what: string, isYoung = true): void {
  if (!isIntact(verdict) || (verdict.finding !== undefined && !isYoung)) {
    throw new Fault("unavailable", `${what} is not intact: ${verdict.finding?.words ?? "unknown"}`);
  }
}
