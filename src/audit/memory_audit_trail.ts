// Memory audit trail: the twin for tests; keeps events in an array and fails when told to.
import { Fault } from "../faults/fault.ts";
import type { AuditEvent } from "./audit_event.ts";
import type { AuditTrail } from "./audit_trail.ts";
import { eventText } from "./trail/event_text.ts";

/** An audit trail without a disk. */
export interface MemoryAuditTrail extends AuditTrail {
  /** What was recorded, in order. */
  readonly events: readonly AuditEvent[];
  /** From now on every record fails, or no longer. */
  setFailing(failing: boolean): void;
}

/** Opens an empty trail in memory. */
export function memoryAuditTrail(): MemoryAuditTrail {
  const events: AuditEvent[] = [];
  let failing = false;
  let closed = false;
  async function recordAll(recorded: readonly AuditEvent[]): Promise<void> {
    recorded.forEach(eventText); // refuses what the trail on disk refuses
    await Promise.resolve(); // never durable before the caller's turn is over, like a disk
    if (closed || failing) {
      throw new Fault(
        "unavailable",
        `Cannot record in the audit trail: ${closed ? "it is closed" : "told to fail"}`,
      );
    }
    events.push(...recorded);
  }
  return {
    events,
    setFailing(value) {
      failing = value;
    },
    record: (event) => recordAll([event]),
    recordAll,
    healthy: () => !failing && !closed,
    close() {
      closed = true;
      return Promise.resolve();
    },
  };
}
