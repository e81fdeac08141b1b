// Payload policy: of which inferences the trail keeps what was asked and answered. Pure; by default of none.
import { matchesPattern } from "../../encoding/wildcard.ts";
import type { PayloadPart } from "./payload_seal.ts";

/** One policy; all that is named has to fit. */
export interface PayloadPolicy {
  /** Models, with `*` for any characters; absent: all. */
  readonly models?: readonly string[] | undefined;
  /** Roles, with `*`, of which the caller has one; absent: everybody. */
  readonly roles?: readonly string[] | undefined;
  readonly parts: readonly PayloadPart[];
}

/** What is kept of a caller's inferences of a model: whatever one of the policies says. */
export function keptParts(
  policies: readonly PayloadPolicy[],
  model: string,
  roles: readonly string[],
): readonly PayloadPart[] {
  const parts = new Set<PayloadPart>();
  for (const policy of policies) {
    const fits = (policy.models?.some((pattern) => matchesPattern(pattern, model)) ?? true) &&
      (policy.roles?.some((pattern) => roles.some((role) => matchesPattern(pattern, role))) ?? true);
    if (fits) { for (const part of policy.parts) parts.add(part); }
  }
  return [...parts];
}
