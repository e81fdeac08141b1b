// Client routes: see clients, give them new secrets, and delete them with their keys.
import { z } from "@hono/zod-openapi";
import { decide } from "../../access/decide.ts";
import { accountResource, changedMeanwhile, isOneself, listFor, notOneself } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { graceSeconds, OBJECT_BYTES_MAX } from "../object_fields.ts";
import { pageOf, pageQuery, pageSchema, readPage } from "../page.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";
import { clientSchema, clientView, newClientSchema, recordedClient, requireClient } from "./client_view.ts";
import { requireNotStronger } from "./role_limits.ts";

/** `GET /v1/clients`, `GET` and `DELETE /v1/clients/{id}`, and `POST /v1/clients/{id}/rotate`. */
export function clientRoutes(parts: AdminParts): AnyRoute[] {
  const { clients, apiKeys, roleBook, issuer } = parts;
  const common = { dialect: problemDialect, rated: true } as const;
  const read = { ...common, method: "GET", policy: { kind: "action", action: "client:read" } } as const;
  const write = { ...common, policy: { kind: "action", action: "client:write" } } as const;
  return [
    defineRoute({
      ...read,
      path: "/v1/clients",
      summary: "Clients that the caller may see",
      query: pageQuery,
      answers: { 200: { description: "A page of clients.", schema: pageSchema(clientSchema) } },
      faults: ["request_invalid"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const page = await readPage(
          pageOf(exchange.query as z.infer<typeof pageQuery>),
          (range) => listFor(clients, principal, "client:read", range),
          ({ id }) => id,
          ({ id, team }) => decide(principal, "client:read", accountResource(issuer, id, team)).ok,
        );
        await exchange.record.allowed("client:read", null);
        return { status: 200, body: { data: page.data.map(clientView), next: page.next } };
      },
    }),
    defineRoute({
      ...read,
      path: "/v1/clients/{id}",
      summary: "One client",
      answers: { 200: { description: "The client.", schema: clientSchema } },
      faults: ["not_found"],
      async handle(exchange) {
        const { value: client } = await requireClient(parts, exchange, "client:read");
        await exchange.record.allowed("client:read", `client/${client.id}`);
        return { status: 200, body: clientView(client) };
      },
    }),
    defineRoute({
      ...write,
      method: "POST",
      path: "/v1/clients/{id}/rotate",
      summary: "Give a client a new secret",
      body: z.strictObject({ grace_seconds: graceSeconds }),
      bodyBytesMax: OBJECT_BYTES_MAX,
      answers: { 200: { description: "The client, with its new secret.", schema: newClientSchema } },
      faults: ["not_found", "conflict"],
      async handle(exchange, { grace_seconds: grace }) {
        const found = await requireClient(parts, exchange, "client:write");
        // Whoever learns the secret can be the client.
        requireNotStronger(roleBook, principalOf(exchange), found.value);
        const before = await recordedClient(found.value);
        const after = { ...before, secret: "rotated", grace_seconds: grace };
        await exchange.record.changing("client:write", `client/${found.value.id}`, before, after);
        const rotated = await clients.rotateSecret(found, grace);
        if (rotated === undefined) throw changedMeanwhile("a client");
        return { status: 200, body: { ...clientView(rotated.client), secret: rotated.secret } };
      },
    }),
    defineRoute({
      ...write,
      method: "DELETE",
      path: "/v1/clients/{id}",
      summary: "Delete a client, with all its keys",
      answers: { 204: { description: "The client is gone; the id is never given again." } },
      faults: ["not_found", "conflict"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const found = await requireClient(parts, exchange, "client:write");
        const { id } = found.value;
        if (isOneself(principal, issuer, id)) throw notOneself("a client");
        requireNotStronger(roleBook, principal, found.value);
        await exchange.record.changing(
          "client:write",
          `client/${id}`,
          await recordedClient(found.value),
          null,
        );
        if (!await clients.remove(found)) throw changedMeanwhile("a client");
        await apiKeys.removeAllOf(id);
        return { status: 204 };
      },
    }),
  ];
}
