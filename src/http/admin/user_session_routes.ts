// User session routes: where a user is signed in, to end that, and to let the user try again after too many failures.
import { z } from "@hono/zod-openapi";
import { isOneself, notOneself } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { sessionListSchema, sessionView } from "../session_view.ts";
import type { AdminParts } from "./admin_parts.ts";
import { requireNotStronger } from "./role_limits.ts";
import { requireUser } from "./user_view.ts";

/** `GET` and `DELETE /v1/users/{id}/sessions`, and `POST /v1/users/{id}/unlock`. */
export function userSessionRoutes(parts: AdminParts): AnyRoute[] {
  const { sessions, signIn, roleBook, issuer } = parts;
  const common = { dialect: problemDialect, rated: true } as const;
  return [
    defineRoute({
      ...common,
      method: "GET",
      path: "/v1/users/{id}/sessions",
      summary: "Sessions of a user",
      policy: { kind: "action", action: "session:read" },
      answers: { 200: { description: "The sessions, the oldest first.", schema: sessionListSchema } },
      faults: ["not_found"],
      async handle(exchange) {
        const { value: { id } } = await requireUser(parts, exchange, "session:read");
        const theirs = await sessions.list(id);
        await exchange.record.allowed("session:read", `user/${id}`);
        const current = principalOf(exchange).credential.session;
        return { status: 200, body: { data: theirs.map((session) => sessionView(session, current)) } };
      },
    }),
    defineRoute({
      ...common,
      method: "DELETE",
      path: "/v1/users/{id}/sessions",
      summary: "End all sessions of a user",
      policy: { kind: "action", action: "session:end" },
      answers: {
        200: {
          description: "None of the user's sessions is left.",
          schema: z.strictObject({ ended: z.int().describe("How many sessions there were.") }),
        },
      },
      faults: ["not_found"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const { value: user } = await requireUser(parts, exchange, "session:end");
        const { id } = user;
        if (!isOneself(principal, issuer, id)) requireNotStronger(roleBook, principal, user);
        const theirs = await sessions.list(id);
        await exchange.record.changing(
          "session:end",
          `user/${id}`,
          { sessions: theirs.map((session) => session.id) },
          { sessions: [] },
        );
        return { status: 200, body: { ended: await sessions.endAll(id) } };
      },
    }),
    defineRoute({
      ...common,
      method: "POST",
      path: "/v1/users/{id}/unlock",
      summary: "Forget a user's failed attempts to sign in",
      policy: { kind: "action", action: "user:write" },
      answers: {
        200: {
          description: "The user can try again at once.",
          schema: z.strictObject({ unlocked: z.boolean().describe("Whether there was anything to forget.") }),
        },
      },
      faults: ["not_found", "conflict"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const { value: user } = await requireUser(parts, exchange, "user:write");
        // Otherwise somebody could go on guessing at a password: the own one with a stolen token, or that of one who can do more.
        if (isOneself(principal, issuer, user.id)) throw notOneself("a user");
        requireNotStronger(roleBook, principal, user);
        await exchange.record.changing("user:write", `user/${user.id}`, null, { failures: "forgotten" });
        return { status: 200, body: { unlocked: await signIn.unlock(user.username) } };
      },
    }),
  ];
}
