// Canonical JSON (RFC 8785): one text for each value, so that hashes of it can be compared.

/** A value that JSON can hold. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | {
  readonly [name: string]: JsonValue;
};

/**
 * The canonical text of a value: members sorted by UTF-16 code units, no white space, ECMAScript's number form.
 *
 * @throws TypeError when a number is not finite or a string is not well-formed Unicode (RFC 8785 §3.2.2)
 */
export function canonicalJson(value: JsonValue): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new TypeError("Cannot write canonical JSON: a number is not finite");
    return JSON.stringify(value);
  }
  if (typeof value === "string") return quote(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const object = value as { readonly [name: string]: JsonValue };
  let members = "";
  for (const name of Object.keys(object).sort()) {
    members += `${members === "" ? "" : ","}${quote(name)}:${canonicalJson(object[name] ?? null)}`;
  }
  return `{${members}}`;
}

/** Printable ASCII without quote and backslash: most strings, and they stand for themselves. */
const PLAIN = /^[ !#-[\]-~]*$/;

function quote(text: string): string {
  if (PLAIN.test(text)) return `"${text}"`;
  if (!text.isWellFormed()) throw new TypeError("Cannot write canonical JSON: a string has a lone surrogate");
  return JSON.stringify(text);
}

/**
 * Whether a text is the canonical text of the value that was parsed from it: as `canonicalJson(value) === text`, at a third of the cost.
 *
 * @param value what `JSON.parse` gave for the text
 */
export function isCanonicalJson(text: string, value: JsonValue): boolean {
  try {
    // ECMAScript writes numbers and strings canonically, and members once, in the order in which it has read them. What is left to
    // check is that order, and that no lone surrogate is escaped.
    return (JSON.stringify(value) === text && !text.includes("\\ud") && areMembersSorted(value)) ||
      canonicalJson(value) === text;
  } catch {
    return false; // a lone surrogate, or nested too deep
  }
}

function areMembersSorted(value: JsonValue): boolean {
  if (typeof value !== "object" || value === null) return true;
  if (Array.isArray(value)) return value.every(areMembersSorted);
  const object = value as { readonly [name: string]: JsonValue };
  let before: string | undefined;
  for (const name of Object.keys(object)) {
    if (before !== undefined && before > name) return false;
    if (!areMembersSorted(object[name] ?? null)) return false;
    before = name;
  }
  return true;
}
