// Session view: how a session looks from outside, to whom it belongs and to those who administer.
import { z } from "@hono/zod-openapi";
import type { JsonValue } from "../encoding/canonical_json.ts";
import type { Session } from "../identity/sessions.ts";
import { inSeconds } from "./administer.ts";
import { seconds } from "./object_fields.ts";

/** One session. */
export const sessionSchema = z.strictObject({
  id: z.string(),
  user: z.string(),
  created_at: seconds,
  last_used_at: seconds,
  expires_at: seconds,
  network: z.string().describe("The client's network at the last use."),
  bound: z.boolean().describe("Whether it is worth something only together with a proof (RFC 9449)."),
  current: z.boolean().describe("Whether the token that was sent belongs to it."),
});

/** A list of sessions: there are at most 100 of one user. */
export const sessionListSchema = z.strictObject({ data: z.array(sessionSchema) });

/** @param currentId the session of the token that was sent; null where it has none */
export function sessionView(session: Session, currentId: string | null): z.infer<typeof sessionSchema> {
  const { id, userId, createdAtMs, lastUsedAtMs, expiresAtMs, network, boundTo } = session;
  return {
    id,
    user: userId,
    created_at: inSeconds(createdAtMs),
    last_used_at: inSeconds(lastUsedAtMs),
    expires_at: inSeconds(expiresAtMs),
    network,
    bound: boundTo !== null,
    current: id === currentId,
  };
}

/** A session in the audit trail, where addresses stand in a place of their own. */
export function recordedSession({ userId, createdAtMs, expiresAtMs }: Session): JsonValue {
  return { user: userId, created_at: inSeconds(createdAtMs), expires_at: inSeconds(expiresAtMs) };
}
