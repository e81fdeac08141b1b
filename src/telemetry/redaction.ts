// Redaction: the last net under the log. Nothing secret should get this far; what looks secret is masked all the same.
const SECRET_NAME = /password|passwd|secret|authorization|cookie|token|api[_-]?key|private/i;
const JWT_LIKE = /\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*/g;
const BEARER_LIKE = /\b(Bearer|Basic|DPoP)\s+[A-Za-z0-9._~+/=-]{8,}/gi;
const PEM_LIKE = /-----BEGIN [A-Z ]+-----[\s\S]*?(-----END [A-Z ]+-----|$)/g;

/** What stands in place of a masked value. */
export const REDACTED = "[redacted]";

/** The value to write for a field: masked when its name or its form says that it is secret. */
export function redact(name: string, value: unknown): unknown {
  if (SECRET_NAME.test(name)) return typeof value === "number" || value === null ? value : REDACTED;
  if (typeof value !== "string") return value;
  // Each pattern needs one of these; most log values have none.
  if (!value.includes("eyJ") && !/\s/.test(value)) return value;
  return value.replace(JWT_LIKE, REDACTED).replace(BEARER_LIKE, `$1 ${REDACTED}`).replace(PEM_LIKE, REDACTED);
}
