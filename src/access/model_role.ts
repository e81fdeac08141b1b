// Model roles: the built-in roles that models' cards and the caps of a request name.

/** Every one of them, from most to least. */
export const MODEL_ROLES = ["admin", "operator", "auditor", "user"] as const;

/** One of them. */
export type ModelRole = typeof MODEL_ROLES[number];

/** Whether a text names one of them. */
export function isModelRole(text: unknown): text is ModelRole {
  return (MODEL_ROLES as readonly unknown[]).includes(text);
}
