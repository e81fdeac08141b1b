// Event class: for how long an event is kept, by its type.
import type { EventClass } from "./audit_event.ts";

const ACTIVITY: ReadonlySet<string> = new Set(["request.allowed", "model.accepted", "trail.thinned"]);

/** The class of a type of event. A type that nobody knows (any more) is kept for the longer time. */
export function classOf(type: string): EventClass {
  return ACTIVITY.has(type) || type.startsWith("inference.") ? "activity" : "security";
}
