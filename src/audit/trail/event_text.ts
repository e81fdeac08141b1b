// Event text: an audit event as canonical JSON, whatever its strings hold.
import { canonicalJson, type JsonValue } from "../../encoding/canonical_json.ts";
import { Fault } from "../../faults/fault.ts";
import type { AuditEvent } from "../audit_event.ts";

/** UTF-16 code units of one event's text. Events hold ids, codes and short reasons: more is a mistake of ours. */
export const EVENT_CHARACTERS_MAX = 65_536;

/**
 * The canonical JSON of an event. Lone surrogates, which UTF-8 cannot carry, become U+FFFD.
 *
 * @throws Fault `internal` when a number is not finite or the text is too long
 */
export function eventText(event: AuditEvent): string {
  let text: string;
  try {
    text = canonical(event as JsonValue);
  } catch (thrown) {
    throw new Fault("internal", `Cannot record ${event.type}: it is not JSON`, { cause: thrown });
  }
  if (text.length > EVENT_CHARACTERS_MAX) {
    throw new Fault(
      "internal",
      `Cannot record ${event.type}: its text has ${text.length} characters, more than ${EVENT_CHARACTERS_MAX}`,
    );
  }
  return text;
}

function canonical(value: JsonValue): string {
  try {
    return canonicalJson(value);
  } catch {
    return canonicalJson(wellFormed(value)); // rare, so the hot path does not look for it
  }
}

function wellFormed(value: JsonValue): JsonValue {
  if (typeof value === "string") return value.toWellFormed();
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(wellFormed);
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, wellFormed(member)]));
}
