// Create key: a new API key, for oneself or for an account that the caller looks after.
import { z } from "@hono/zod-openapi";
import type { Principal } from "../../access/principal.ts";
import { parseAddressRange } from "../../encoding/ip_address.ts";
import { Fault } from "../../faults/fault.ts";
import { isThumbprint } from "../../identity/confirmation.ts";
import { accountResource, isOneself } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { boundedList } from "../middleware/bounded_list.ts";
import { grantsIn } from "../../access/grant.ts";
import { grantTexts, OBJECT_BYTES_MAX, objectName } from "../object_fields.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound, requireAccess } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AccountParts } from "./account_parts.ts";
import {
  requireNoKey,
  requireOwnerCovers,
  requireRoomForKey,
  requireSecretGivable,
  requireStillGivable,
} from "./key_limits.ts";
import { keyView, newKeySchema, recordedKey } from "./key_view.ts";
import { ownerOf } from "./owner.ts";

const DAY_SECONDS = 86_400;

const addressRange = z.string().max(64).refine(
  (text) => parseAddressRange(text).ok,
  "is no IP address and no CIDR range",
);

const keyOrder = z.strictObject({
  name: objectName,
  scopes: grantTexts.default(["model:read", "model:infer"]),
  expires_in: z.int().min(1).max(366 * DAY_SECONDS).default(90 * DAY_SECONDS).describe("Seconds."),
  addresses: boundedList(z.array(addressRange).max(32)).default([]).describe("None: from everywhere."),
  dpop_jkt: z.string().refine(isThumbprint, "is no SHA-256 thumbprint in base64url (RFC 7638)").optional(),
  owner: z.string().regex(/^(?:usr|cli)_[0-9a-hjkmnp-tv-z]{26}$/, "is no id of a user or client").optional()
    .describe("Default: the caller."),
});

/** `POST /v1/keys`. */
export function createKeyRoute(parts: AccountParts): AnyRoute {
  const { issuer, apiKeys, clock } = parts;
  return defineRoute({
    method: "POST",
    path: "/v1/keys",
    summary: "Make an API key",
    policy: { kind: "action", action: "key:write" },
    dialect: problemDialect,
    rated: true,
    body: keyOrder,
    bodyBytesMax: OBJECT_BYTES_MAX,
    answers: { 201: { description: "The key, with its text.", schema: newKeySchema } },
    faults: ["not_found", "conflict"],
    async handle(exchange, body) {
      const principal = principalOf(exchange);
      requireNoKey(principal);
      const ownerId = body.owner ?? ownAccount(principal);
      const owner = await ownerOf(parts, ownerId);
      if (owner === undefined) throw objectNotFound("no such owner");
      const isOwn = isOneself(principal, issuer, ownerId);
      if (!isOwn) {
        requireAccess(principal, "key:write", accountResource(issuer, ownerId, owner.team));
      }
      const scope = grantsIn(body.scopes);
      requireSecretGivable(parts, principal, { ownerId, owner, scope });
      requireOwnerCovers(parts, owner, scope);
      await requireRoomForKey(parts, ownerId);
      const order = {
        name: body.name,
        ownerId,
        scopes: body.scopes,
        addresses: body.addresses,
        boundTo: body.dpop_jkt ?? null,
        expiresAtMs: clock.now() + body.expires_in * 1000,
        seenByOthers: !isOwn,
      };
      await exchange.record.changing("key:write", "key/new", null, recordedKey(order));
      const { key, text } = await apiKeys.create(order);
      await requireStillGivable(parts, principal, { ownerId, owner, scope });
      // Its id is known only now; without the record nobody is told the key.
      await exchange.record.allowed("key:write", `key/${key.id}`);
      return { status: 201, body: { ...keyView(key), key: text } };
    },
  });
}

function ownAccount({ kind, subject }: Principal): string {
  if (kind !== "external") return subject;
  throw new Fault("forbidden", "Cannot make a key: the caller has no account here", {
    detail: "Only accounts of this server can own keys. Name one as the owner.",
  });
}
