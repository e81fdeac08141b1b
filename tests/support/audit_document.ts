// Audit document: the section of docs/audit.md that lists every event with every field, as the code's own table has it.
import { AUDIT_EVENTS, type EventField, type EventRow, REQUESTER } from "../../src/audit/audit_event.ts";
import { classOf } from "../../src/audit/event_class.ts";

/** The lists of fields and of events, as they stand in the page. */
export function eventLists(): string {
  const parts = ["### Every event of a request", "", ...rowsOf(REQUESTER)];
  for (const [type, { meaning, fields }] of Object.entries(AUDIT_EVENTS) as [string, EventRow][]) {
    const own = Object.fromEntries(Object.entries(fields).filter(([name]) => !(name in REQUESTER)));
    // One that only shares a name with them, such as an address that was banned, is no event of a request.
    const isOfRequest = Object.entries(REQUESTER).every(([name, field]) => fields[name] === field);
    const listed = isOfRequest ? own : fields;
    parts.push("", `### \`${type}\``, "", `${meaning} Class: ${classOf(type)}.`);
    if (isOfRequest) parts.push("With the fields of every event of a request.");
    if (Object.keys(listed).length > 0) parts.push("", ...rowsOf(listed));
  }
  return parts.join("\n");
}

function rowsOf(fields: Readonly<Record<string, EventField>>): string[] {
  const rows = Object.entries(fields).map(([name, { form, meaning }]) =>
    `| \`${name}\` | ${form.replaceAll("|", "\\|")} | ${meaning} |`
  );
  return ["| field | value | meaning |", "|---|---|---|", ...rows];
}
