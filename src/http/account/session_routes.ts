// Session routes: sign out, see where one is signed in, and sign out there.
import { z } from "@hono/zod-openapi";
import { Fault } from "../../faults/fault.ts";
import { externalTokenName } from "../../identity/authenticate.ts";
import { accountResource, idInPath } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound, requireAccess } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { recordedSession, sessionListSchema, sessionView } from "../session_view.ts";
import type { AccountParts } from "./account_parts.ts";
import { ownerOf, requireOwnerNotStronger } from "./owner.ts";

const common = { dialect: problemDialect, rated: true } as const;
const END = { kind: "action", action: "session:end" } as const;

/** For so long after its end an external token may still pass. */
const LEEWAY_MS_MAX = 60_000;

const endedSchema = z.strictObject({ ended: z.int().describe("How many sessions there were.") });

/**
 * `POST /v1/auth/logout` and `/v1/auth/sessions`. What is one's own, every grant of an action reaches: where the caller is
 * the owner, the gate has decided all there is to decide.
 */
export function sessionRoutes(parts: AccountParts): AnyRoute[] {
  const { issuer, sessions } = parts;
  return [
    logoutRoute(parts),
    defineRoute({
      ...common,
      method: "GET",
      path: "/v1/auth/sessions",
      summary: "The caller's own sessions",
      policy: { kind: "action", action: "session:read" },
      answers: { 200: { description: "The sessions, the oldest first.", schema: sessionListSchema } },
      faults: [],
      async handle(exchange) {
        const principal = principalOf(exchange);
        await exchange.record.allowed("session:read", null);
        // Another issuer's subject is nobody here, whatever it is called.
        const own = principal.issuer === issuer ? await sessions.list(principal.subject) : [];
        return {
          status: 200,
          body: { data: own.map((session) => sessionView(session, principal.credential.session)) },
        };
      },
    }),
    defineRoute({
      ...common,
      method: "DELETE",
      path: "/v1/auth/sessions",
      summary: "Sign out everywhere",
      policy: END,
      answers: { 200: { description: "None of the caller's own sessions is left.", schema: endedSchema } },
      faults: [],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const { subject } = principal;
        const own = principal.issuer === issuer ? await sessions.list(subject) : [];
        await exchange.record.changing(
          "session:end",
          `user/${subject}`,
          { sessions: own.map(({ id }) => id) },
          { sessions: [] },
        );
        return { status: 200, body: { ended: own.length === 0 ? 0 : await sessions.endAll(subject) } };
      },
    }),
    defineRoute({
      ...common,
      method: "DELETE",
      path: "/v1/auth/sessions/{id}",
      summary: "End one session",
      policy: END,
      answers: { 204: { description: "Its tokens are worthless from now on." } },
      faults: ["not_found"],
      async handle(exchange) {
        const session = await sessions.read(idInPath(exchange, "ses"));
        if (session === undefined) throw objectNotFound("no such session");
        const { userId } = session;
        const principal = principalOf(exchange);
        const team = (await ownerOf(parts, userId))?.team ?? null;
        requireAccess(principal, "session:end", accountResource(issuer, userId, team));
        await requireOwnerNotStronger(parts, principal, userId);
        await exchange.record.changing(
          "session:end",
          `session/${session.id}`,
          recordedSession(session),
          null,
        );
        await sessions.end(session);
        return { status: 204 };
      },
    }),
  ];
}

function logoutRoute({ sessions, revocations }: AccountParts): AnyRoute {
  return defineRoute({
    ...common,
    method: "POST",
    path: "/v1/auth/logout",
    summary: "End the session of the access token that is sent",
    policy: END,
    answers: { 204: { description: "The session, or a token that has none, is worthless from now on." } },
    faults: ["request_invalid"],
    async handle(exchange) {
      const principal = principalOf(exchange);
      const { id, session: sessionId, expiresAtSeconds } = principal.credential;
      if (expiresAtSeconds === null) {
        throw new Fault("request_invalid", "Cannot end a session: the credential is an API key", {
          detail: "An API key has no session: delete it.",
        });
      }
      await exchange.record.sessionEnded(sessionId);
      const session = sessionId === null ? undefined : await sessions.read(sessionId);
      // A token may outlive its session by a little.
      if (session !== undefined) await sessions.end(session);
      else if (principal.kind !== "external") await revocations.revoke(id, expiresAtSeconds * 1000);
      else {await revocations.revoke(
          externalTokenName(principal.issuer, id),
          expiresAtSeconds * 1000 + LEEWAY_MS_MAX,
        );}
      return { status: 204 };
    },
  });
}
