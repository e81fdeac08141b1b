// Known event: whether an event of a trail is one of the table's, with all its fields and none besides.
import { AUDIT_EVENTS, type EventRow } from "../../src/audit/audit_event.ts";

/** What is wrong with an event; undefined: nothing is. */
export function eventMistake(event: Readonly<Record<string, unknown>>): string | undefined {
  const { type, ...fields } = event;
  const rows: Readonly<Record<string, EventRow>> = AUDIT_EVENTS;
  const row = Object.hasOwn(rows, String(type)) ? rows[String(type)] : undefined;
  if (row === undefined) return `${type} is no type of event`;
  for (const [name, field] of Object.entries(row.fields)) {
    if (!Object.hasOwn(fields, name)) return `${type} lacks ${name}`;
    if (!field.fits(fields[name])) {
      return `${type} has in ${name} ${JSON.stringify(fields[name])}, which is not: ${field.form}`;
    }
  }
  const unknown = Object.keys(fields).find((name) => !Object.hasOwn(row.fields, name));
  return unknown === undefined ? undefined : `${type} has ${unknown}, which nobody knows`;
}
