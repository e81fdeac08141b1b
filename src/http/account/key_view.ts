// Key view: how an API key looks from outside, and to whom it is there.
import { z } from "@hono/zod-openapi";
import type { Action } from "../../access/action.ts";
import type { Resource } from "../../access/decide.ts";
import type { ApiKey } from "../../identity/api_keys.ts";
import type { Kept } from "../../identity/kept.ts";
import { accountResource, idInPath, inSeconds, inSecondsOrNull } from "../administer.ts";
import { type Exchange, principalOf } from "../exchange.ts";
import { seconds } from "../object_fields.ts";
import { objectNotFound, requireAccess } from "../require_access.ts";
import type { AccountParts } from "./account_parts.ts";
import { ownerOf } from "./owner.ts";

/** A key without its secret. */
export const keySchema = z.strictObject({
  id: z.string(),
  name: z.string(),
  owner: z.string().describe("The user or client for whom it speaks."),
  scopes: z.array(z.string()).describe("What it is narrowed to."),
  addresses: z.array(z.string()).describe("Ranges of addresses that it works from; none: from all."),
  dpop_jkt: z.string().nullable().describe("Thumbprint of the key that has to be proved with it (RFC 9449)."),
  created_at: seconds,
  expires_at: seconds,
  last_used_at: seconds.nullable().describe("To the minute."),
  rotated_at: seconds.nullable(),
  previous_until: seconds.nullable().describe("Until when the secret before the last rotation still passes."),
});

/** A key as it was just made: the only time that its text is told. */
export const newKeySchema = keySchema.extend({
  key: z.string().describe("Send it as Authorization: Bearer. It cannot be read again."),
});

/** The key, without anything secret. */
export function keyView(key: ApiKey): z.infer<typeof keySchema> {
  return {
    id: key.id,
    name: key.name,
    owner: key.ownerId,
    scopes: [...key.scopes],
    addresses: [...key.addresses],
    dpop_jkt: key.boundTo,
    created_at: inSeconds(key.createdAtMs),
    expires_at: inSeconds(key.expiresAtMs),
    last_used_at: inSecondsOrNull(key.lastUsedAtMs),
    rotated_at: inSecondsOrNull(key.rotatedAtMs),
    previous_until: inSecondsOrNull(key.previousUntilMs),
  };
}

/** What stands of a key in the audit trail; of addresses, how many there are. */
export function recordedKey(
  { name, ownerId, scopes, addresses, boundTo, expiresAtMs }: Pick<
    ApiKey,
    "name" | "ownerId" | "scopes" | "addresses" | "boundTo" | "expiresAtMs"
  >,
) {
  return {
    name,
    owner: ownerId,
    scopes,
    address_ranges: addresses.length,
    dpop_jkt: boundTo,
    expires_at: inSeconds(expiresAtMs),
  };
}

/** A key as something that is asked for: it belongs to its owner, and to the owner's team. */
export async function keyResource(parts: AccountParts, { ownerId }: ApiKey): Promise<Resource> {
  return accountResource(parts.issuer, ownerId, (await ownerOf(parts, ownerId))?.team ?? null);
}

/** The key in the path, for a caller who may do this with it. */
export async function requireKey(
  parts: AccountParts,
  exchange: Exchange,
  action: Action,
): Promise<Kept<ApiKey>> {
  const found = await parts.apiKeys.read(idInPath(exchange, "pck"));
  if (found === undefined) throw objectNotFound("no such key");
  requireAccess(principalOf(exchange), action, await keyResource(parts, found.value));
  return found;
}
