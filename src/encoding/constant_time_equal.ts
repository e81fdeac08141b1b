// Comparison of secrets whose time does not depend on where they differ (ASVS V11.2.4).
import { timingSafeEqual } from "node:crypto";

/** Whether two byte strings are equal. Only their lengths may show in the time it takes. */
export function constantTimeEqual(left: Uint8Array, right: Uint8Array): boolean {
  return left.byteLength === right.byteLength && timingSafeEqual(left, right);
}
