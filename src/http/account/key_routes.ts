// Key routes: see, rotate and delete API keys.
import { z } from "@hono/zod-openapi";
import { decide } from "../../access/decide.ts";
import { changedMeanwhile, isOneself, seesOthers } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { grantsIn } from "../../access/grant.ts";
import { graceSeconds, OBJECT_BYTES_MAX } from "../object_fields.ts";
import { pageOf, pageQuery, pageSchema, readPage } from "../page.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AccountParts } from "./account_parts.ts";
import { requireNoKey, requireSecretGivable, requireStillGivable } from "./key_limits.ts";
import { keyResource, keySchema, keyView, newKeySchema, recordedKey, requireKey } from "./key_view.ts";
import { ownerOf, requireOwnerNotStronger } from "./owner.ts";

/** `GET /v1/keys`, `GET` and `DELETE /v1/keys/{id}`, and `POST /v1/keys/{id}/rotate`. */
export function keyRoutes(parts: AccountParts): AnyRoute[] {
  const { apiKeys, issuer } = parts;
  const common = { dialect: problemDialect, rated: true } as const;
  const read = { ...common, method: "GET", policy: { kind: "action", action: "key:read" } } as const;
  const write = { ...common, policy: { kind: "action", action: "key:write" } } as const;
  return [
    defineRoute({
      ...read,
      path: "/v1/keys",
      summary: "API keys that the caller may see",
      query: pageQuery,
      answers: { 200: { description: "A page of keys.", schema: pageSchema(keySchema) } },
      faults: ["request_invalid"],
      async handle(exchange) {
        const principal = principalOf(exchange);
        const owner = seesOthers(principal, "key:read") ? {} : { ownerId: principal.subject };
        const page = await readPage(
          pageOf(exchange.query as z.infer<typeof pageQuery>),
          async (range) => {
            const keys = await apiKeys.list({ ...range, ...owner });
            return await Promise.all(
              keys.map(async (key) => ({ key, resource: await keyResource(parts, key) })),
            );
          },
          ({ key }) => key.id,
          ({ resource }) => decide(principal, "key:read", resource).ok,
        );
        await exchange.record.allowed("key:read", null);
        return { status: 200, body: { data: page.data.map(({ key }) => keyView(key)), next: page.next } };
      },
    }),
    defineRoute({
      ...read,
      path: "/v1/keys/{id}",
      summary: "One API key",
      answers: { 200: { description: "The key.", schema: keySchema } },
      faults: ["not_found"],
      async handle(exchange) {
        const { value: key } = await requireKey(parts, exchange, "key:read");
        await exchange.record.allowed("key:read", `key/${key.id}`);
        return { status: 200, body: keyView(key) };
      },
    }),
    defineRoute({
      ...write,
      method: "POST",
      path: "/v1/keys/{id}/rotate",
      summary: "Give an API key a new secret",
      body: z.strictObject({ grace_seconds: graceSeconds }),
      bodyBytesMax: OBJECT_BYTES_MAX,
      answers: { 200: { description: "The key, with its new text.", schema: newKeySchema } },
      faults: ["not_found", "conflict"],
      async handle(exchange, { grace_seconds: grace }) {
        const principal = principalOf(exchange);
        requireNoKey(principal);
        const found = await requireKey(parts, exchange, "key:write");
        const { id, ownerId, scopes } = found.value;
        const owner = await ownerOf(parts, ownerId);
        const told = { ownerId, owner, scope: grantsIn(scopes) };
        requireSecretGivable(parts, principal, told);
        await exchange.record.changing("key:write", `key/${id}`, recordedKey(found.value), {
          ...recordedKey(found.value),
          secret: "rotated",
          grace_seconds: grace,
        });
        const by = isOneself(principal, issuer, ownerId) ? "owner" : "other";
        const rotated = await apiKeys.rotate(found, grace, by);
        if (rotated === undefined) throw changedMeanwhile("a key");
        await requireStillGivable(parts, principal, told);
        return { status: 200, body: { ...keyView(rotated.key), key: rotated.text } };
      },
    }),
    defineRoute({
      ...write,
      method: "DELETE",
      path: "/v1/keys/{id}",
      summary: "Delete an API key",
      answers: { 204: { description: "The key is worthless from now on." } },
      faults: ["not_found", "conflict"],
      async handle(exchange) {
        const found = await requireKey(parts, exchange, "key:write");
        await requireOwnerNotStronger(parts, principalOf(exchange), found.value.ownerId);
        await exchange.record.changing("key:write", `key/${found.value.id}`, recordedKey(found.value), null);
        if (!await apiKeys.remove(found)) throw changedMeanwhile("a key");
        return { status: 204 };
      },
    }),
  ];
}
