// Roles: the closed set of the built-in ones. What each may do stands in `decide.ts`.

/** Every role, from most to least. */
export const ROLES = ["admin", "operator", "auditor", "user"] as const;

/** A built-in role. */
export type Role = typeof ROLES[number];

/** Whether a text names a role. */
export function isRole(text: unknown): text is Role {
  return (ROLES as readonly unknown[]).includes(text);
}
