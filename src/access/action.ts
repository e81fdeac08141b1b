// Actions: what can be done, as a closed set. Every route that is not public names one.

/** Every action. */
export const ACTIONS = ["model:read", "model:infer", "session:end", "upstream:read"] as const;

/** What a route demands. */
export type Action = typeof ACTIONS[number];
