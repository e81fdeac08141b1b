// Object fields: the rules of fields that many bodies and answers have in common.
import { z } from "@hono/zod-openapi";
import { GRANT_GRAMMAR, parseGrant } from "../access/grant.ts";
import { TEAM_PATTERN } from "../identity/teams.ts";
import { boundedList } from "./middleware/bounded_list.ts";

/** For routes whose bodies are small: names, lists of roles and grants, public keys. */
export const OBJECT_BYTES_MAX = 32 * 1024;

/** A moment in answers. */
export const seconds = z.int().describe("Seconds since 1970.");

/** What people call a thing. */
export const objectName = z.string().min(1).max(64).refine(
  isLine,
  "holds what cannot be seen, or begins or ends with a space",
);

/** What people say of a thing. */
export const objectDescription = z.string().max(256).refine(
  isLine,
  "holds what cannot be seen, or begins or ends with a space",
);

/** A team, as its members name it. */
export const teamId = z.string().regex(
  TEAM_PATTERN,
  "is no team's id (1 to 32 lower-case letters, digits and - between them)",
);

/** The same grammar as the settings have for roles that issuers give. */
export const roleName = z.string().regex(
  /^[a-z][a-z0-9-]{0,63}$/,
  "is no role's name (1 to 64 lower-case letters, digits and -, a letter first)",
);

/** Roles of somebody. */
export const roleNames = boundedList(z.array(roleName).max(16).refine(isSet, "holds something twice"));

/** Grants as they are written. */
export const grantTexts = boundedList(
  z.array(z.string().max(160).refine((text) => parseGrant(text).ok, `is no grant: ${GRANT_GRAMMAR}`))
    .min(1).max(32).refine(isSet, "holds something twice"),
);

/** How long an old secret still passes beside the new one. */
export const graceSeconds = z.int().min(0).max(604_800).default(0).describe(
  "Seconds for which the old secret still passes; 0: it ends at once.",
);

/** Well-formed, on one line, nothing invisible. */
function isLine(text: string): boolean {
  return /^[^\p{C}\p{Zl}\p{Zp}]*$/u.test(text) && text === text.trim();
}

function isSet(items: readonly string[]): boolean {
  return new Set(items).size === items.length;
}
