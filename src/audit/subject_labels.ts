// Subject labels: how subjects stand in the audit trail, plain or as keyed pseudonyms, also where a change names one.
import type { JsonValue } from "../encoding/canonical_json.ts";

/** How subjects stand in events of requests. */
export interface SubjectLabels {
  /** The label of an identity. */
  subject(issuer: string, subject: string): string;
  /** A value of an event, with the label in place of each id of an account of this server, in names of members as well. */
  within<Value extends JsonValue>(value: Value): Value;
}

/** Subjects as they are. */
export const PLAIN_SUBJECTS: SubjectLabels = {
  subject: (_, subject) => subject,
  within: (value) => value,
};

const ACCOUNT_IDS = /(?<![0-9A-Za-z])(?:usr|cli)_[0-9a-hjkmnp-tv-z]{26}(?![0-9A-Za-z])/g;
/** The same few come at every request. */
const KNOWN_MAX = 10_000;

/** What a pseudonym of an identity is made of: one text for each pair. */
export function identityText(issuer: string, subject: string): string {
  // No issuer holds a NUL: it is an address.
  return `${issuer}\0${subject}`;
}

/**
 * Subjects as keyed pseudonyms.
 *
 * @param pseudonym of an `identityText`
 * @param ownIssuer of the accounts of this server
 */
export function pseudonymousSubjects(pseudonym: (text: string) => string, ownIssuer: string): SubjectLabels {
  const known = new Map<string, string>();
  function subjectLabel(issuer: string, subject: string): string {
    const text = identityText(issuer, subject);
    let label = known.get(text);
    if (label === undefined) {
      if (known.size >= KNOWN_MAX) known.clear();
      label = pseudonym(text);
      known.set(text, label);
    }
    return label;
  }
  const labelledText = (text: string): string =>
    text.replace(ACCOUNT_IDS, (id) => subjectLabel(ownIssuer, id));
  function labelled(value: JsonValue): JsonValue {
    if (typeof value === "string") return labelledText(value);
    if (typeof value !== "object" || value === null) return value;
    if (Array.isArray(value)) return value.map(labelled);
    return Object.fromEntries(
      Object.entries(value).map(([name, member]) => [labelledText(name), labelled(member)]),
    );
  }
  return {
    subject: subjectLabel,
    within: <Value extends JsonValue>(value: Value) => labelled(value) as Value,
  };
}
