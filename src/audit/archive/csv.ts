// CSV: records as RFC 4180 has them, which spreadsheets open without running what is in them. Pure.

const LINE_END = "\r\n";

/** One record. */
export function csvRecord(cells: readonly (string | number | null)[]): string {
  return cells.map(csvCell).join(",") + LINE_END;
}

/** A spreadsheet takes what begins so for a formula (OWASP, CSV injection; ASVS V1.2.10). */
const FORMULA = /^[=+\-@\t\r\n]/;
/** RFC 4180 §2.6. */
const QUOTED = /[",\r\n']/;

function csvCell(value: string | number | null): string {
  if (value === null) return "";
  if (typeof value === "number") return String(value);
  const text = FORMULA.test(value) ? `'${value}` : value;
  return QUOTED.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
