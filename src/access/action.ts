// Actions: what can be done, as a closed set. Every route that is not public names one.

/**
 * Every action, and what it is done to: `model`, a model; `object`, something that belongs to somebody and to a team;
 * `system`, the server as a whole.
 */
export const ACTIONS = {
  "model:read": "model",
  "model:infer": "model",
  "upstream:read": "system",
  "session:read": "object",
  "session:end": "object",
  "password:write": "object",
  "key:read": "object",
  "key:write": "object",
  "user:read": "object",
  "user:write": "object",
  "client:read": "object",
  "client:write": "object",
  "role:read": "object",
  "role:write": "object",
  "team:read": "object",
  "team:write": "object",
  "token:introspect": "object",
  "signing_key:rotate": "system",
  "usage:read": "object",
  "ban:read": "system",
  "ban:write": "system",
  "audit:read": "system",
  "payload:read": "system",
  "payload:destroy": "system",
  "vault:rotate": "system",
  "model:write": "system",
} as const;

/** What a route demands. */
export type Action = keyof typeof ACTIONS;

/** Whether a text names an action. */
export function isAction(text: string): text is Action {
  return Object.hasOwn(ACTIONS, text);
}

/** The action whose refusal means that an object must look as if it did not exist. */
export function readingOf(action: Action): Action {
  const reading = action === "password:write" ? "user:read" : `${action.split(":")[0]}:read`;
  return isAction(reading) ? reading : action;
}
