// Open intents: inferences of which the trail knows the beginning and not the end.
import { canonicalJson, type JsonValue } from "../../encoding/canonical_json.ts";
import type { AuditEvent } from "../audit_event.ts";

/** What an event says about the intent of a request. */
export interface IntentStep {
  readonly request: string;
  /** True: it is the intent. False: it is the outcome. */
  readonly opens: boolean;
}

/** An intent without an outcome. */
export interface OpenIntent {
  /** The number of its entry. */
  readonly seq: number;
  /** Its event; undefined where nobody can read it any more. */
  readonly event: { readonly [name: string]: JsonValue } | undefined;
}

/** The step that an event is; undefined for most. */
export function intentStepOf(
  event: { readonly type?: unknown; readonly request?: unknown },
): IntentStep | undefined {
  switch (event.type) {
    case "inference.started":
      return { request: String(event.request), opens: true };
    case "inference.finished":
    case "inference.interrupted":
      return { request: String(event.request), opens: false };
    default:
      return undefined;
  }
}

/** Why an intent has no outcome. */
export type InterruptionReason = "server_ended" | "not_acknowledged";

/** The event that says of an intent that it has no outcome, and why; undefined where nobody can tell whose it was. */
export function interruptionOf(
  { seq, event }: OpenIntent,
  reason: InterruptionReason,
): AuditEvent | undefined {
  if (event === undefined) return undefined;
  const text = (name: string): string =>
    typeof event[name] === "string" ? event[name] : canonicalJson(event[name] ?? null);
  const textOrNull = (name: string): string | null =>
    event[name] === undefined || event[name] === null ? null : text(name);
  return {
    type: "inference.interrupted",
    request: text("request"),
    issuer: textOrNull("issuer"),
    subject: textOrNull("subject"),
    team: textOrNull("team"),
    credential: textOrNull("credential"),
    address: text("address"),
    route: text("route"),
    model: text("model"),
    intent: seq,
    reason,
  };
}
