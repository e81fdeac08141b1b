// User routes: see users, and delete them with all that is theirs.
import type { z } from "@hono/zod-openapi";
import { decide } from "../../access/decide.ts";
import { accountResource, changedMeanwhile, isOneself, listFor, notOneself } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { pageOf, pageQuery, pageSchema, readPage } from "../page.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { actingUser } from "./acting_user.ts";
import type { AdminParts } from "./admin_parts.ts";
import { requireNotStronger } from "./role_limits.ts";
import { recordedUser, requireUser, userSchema, userView } from "./user_view.ts";

/** `GET /v1/users`, and `GET` and `DELETE /v1/users/{id}`. */
export function userRoutes(parts: AdminParts): AnyRoute[] {
  const { users, sessions, apiKeys, roleBook, issuer } = parts;
  const common = { dialect: problemDialect, rated: true } as const;
  const read = { ...common, method: "GET", policy: { kind: "action", action: "user:read" } } as const;
  return [
    defineRoute({
      ...read,
      path: "/v1/users",
      summary: "Users that the caller may see",
      query: pageQuery,
      answers: { 200: { description: "A page of users.", schema: pageSchema(userSchema) } },
      faults: ["request_invalid"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const page = await readPage(
          pageOf(exchange.query as z.infer<typeof pageQuery>),
          (range) => listFor(users, principal, "user:read", range),
          ({ id }) => id,
          ({ id, team }) => decide(principal, "user:read", accountResource(issuer, id, team)).ok,
        );
        await exchange.record.allowed("user:read", null);
        return { status: 200, body: { data: page.data.map(userView), next: page.next } };
      },
    }),
    defineRoute({
      ...read,
      path: "/v1/users/{id}",
      summary: "One user",
      answers: { 200: { description: "The user.", schema: userSchema } },
      faults: ["not_found"],
      async handle(exchange) {
        const { value: user } = await requireUser(parts, exchange, "user:read");
        await exchange.record.allowed("user:read", `user/${user.id}`);
        return { status: 200, body: userView(user) };
      },
    }),
    defineRoute({
      ...common,
      method: "DELETE",
      path: "/v1/users/{id}",
      summary: "Delete a user, with all sessions and keys",
      policy: { kind: "action", action: "user:write" },
      answers: { 204: { description: "The user is gone; the id is never given again." } },
      faults: ["not_found", "conflict"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const found = await requireUser(parts, exchange, "user:write");
        const { id } = found.value;
        if (isOneself(principal, issuer, id)) throw notOneself("a user");
        requireNotStronger(roleBook, principal, found.value);
        const by = await actingUser(parts, principal);
        await exchange.record.changing("user:write", `user/${id}`, recordedUser(parts, found.value), null);
        if (!await users.remove(found, by)) throw changedMeanwhile("a user");
        // From here on the account is nobody's; what is left of it works no more, and goes.
        await sessions.endAll(id);
        await apiKeys.removeAllOf(id);
        return { status: 204 };
      },
    }),
  ];
}
