// Client agent: what a client calls itself, as it may stand in the audit trail. Whatever it sends, it is one short line without secrets.
import { redact, REDACTED } from "../telemetry/redaction.ts";

/** UTF-16 code units. */
export const AGENT_CHARACTERS_MAX = 200;
/** So much of the header is looked at. */
const READ_CHARACTERS_MAX = 4096;
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]+/gu;
/** Names and versions of programs have a dot, a slash or a space before this; tokens, keys and digests have none. */
const SECRET_LIKE = /[A-Za-z0-9_+=~-]{32,}/g;

/**
 * The `User-Agent` (RFC 9110 §10.1.5) for the trail.
 *
 * @returns null where none was sent, or nothing of it can be seen
 */
export function clientAgent(header: string | null): string | null {
  if (header === null) return null;
  const line = header.slice(0, READ_CHARACTERS_MAX).toWellFormed().replace(INVISIBLE, " ").trim();
  const masked = String(redact("agent", line)).replace(SECRET_LIKE, REDACTED);
  // A pair that would be cut in two goes as a whole.
  const agent = masked.slice(0, AGENT_CHARACTERS_MAX).replace(/[\ud800-\udbff]$/, "").trim();
  return agent === "" ? null : agent;
}
