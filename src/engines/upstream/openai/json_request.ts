// JSON request: a POST of fields of ours and, where the settings let them through, of fields that only one engine knows.
import type { JsonValue } from "../../../encoding/canonical_json.ts";
import type { WireRequest } from "../wire.ts";

/** Fields by name; one that is undefined is not sent, and still ours. */
export type RequestFields = Readonly<Record<string, unknown>>;

/** @param extra sent besides; a name that is ours never comes from here, whether we send that field or not */
export function jsonRequest(
  path: string,
  accept: readonly string[],
  fields: RequestFields,
  extra: Readonly<Record<string, JsonValue>> = {},
): WireRequest {
  const others = Object.entries(extra).filter(([name]) => !Object.hasOwn(fields, name));
  return {
    method: "POST",
    path,
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(others.length === 0 ? fields : { ...fields, ...Object.fromEntries(others) }),
    accept,
  };
}

/** What an answer that comes whole is. */
export const JSON_ONLY: readonly string[] = ["application/json"];
/** What an answer that comes as events is. */
export const EVENTS_ONLY: readonly string[] = ["text/event-stream"];
