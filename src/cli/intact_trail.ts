// Intact trail: what a backup and a restore demand of a copy of the audit trail.
import type { ChainVerdict } from "../audit/verify/verify_chain.ts";
import { Fault } from "../faults/fault.ts";

/**
 * Demands that nothing is wrong with it. One that nobody has signed proves nothing: a server signs its first entries at once.
 *
 * @throws Fault `unavailable` with what is wrong
 */
export function requireIntact({ finding }: ChainVerdict, what: string): void {
  if (finding !== undefined) throw new Fault("unavailable", `${what} is not intact: ${finding.words}`);
}
