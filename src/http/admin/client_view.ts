// Client view: how a program's account looks from outside, and to whom.
import { z } from "@hono/zod-openapi";
import type { Action } from "../../access/action.ts";
import type { Client } from "../../identity/clients.ts";
import type { Kept } from "../../identity/kept.ts";
import { ALGORITHMS, thumbprint } from "../../identity/public_key.ts";
import type { UntrustedObject } from "../../identity/strict_jws.ts";
import { accountResource, idInPath, inSeconds, inSecondsOrNull } from "../administer.ts";
import { type Exchange, principalOf } from "../exchange.ts";
import { boundedList } from "../middleware/bounded_list.ts";
import { seconds } from "../object_fields.ts";
import { objectNotFound, requireAccess } from "../require_access.ts";
import type { AdminParts } from "./admin_parts.ts";

const member = z.string().max(1024).optional();

// A public key in a body. Private members are unknown to it, and refused.
const publicJwk = z.strictObject({
  kty: z.string().max(8),
  alg: z.enum(ALGORITHMS),
  crv: member,
  x: member,
  y: member,
  n: member,
  e: member,
  kid: z.string().max(255).optional(),
  use: z.literal("sig").optional(),
});

/** The keys of a client in a body. */
export const publicJwks = boundedList(z.array(publicJwk).max(8));

/** The same as what the checks of keys take: JSON has no member that is `undefined`. */
export function untrustedJwks(sent: z.infer<typeof publicJwks>): readonly UntrustedObject[] {
  return sent as readonly UntrustedObject[];
}

/** A client, without its secret. */
export const clientSchema = z.strictObject({
  id: z.string(),
  name: z.string(),
  team: z.string(),
  roles: z.array(z.string()),
  authentication: z.enum(["secret", "private_key_jwt"]),
  keys: z.array(z.record(z.string(), z.string())).describe("Public JWKs (RFC 7517)."),
  disabled: z.boolean(),
  created_at: seconds,
  secret_rotated_at: seconds.nullable(),
  previous_until: seconds.nullable().describe("Until when the secret before the last rotation still passes."),
});

/** A client whose secret was just made: the only time that it is told. */
export const newClientSchema = clientSchema.extend({
  secret: z.string().nullable().describe("It cannot be read again; null for a client with keys."),
});

/** The client, without anything secret. */
export function clientView(client: Client): z.infer<typeof clientSchema> {
  const { id, name, team, roles, authentication, keys, disabled } = client;
  return {
    id,
    name,
    team,
    roles: [...roles],
    authentication,
    keys: keys.map((key) => ({ ...key })),
    disabled,
    created_at: inSeconds(client.createdAtMs),
    secret_rotated_at: inSecondsOrNull(client.secretRotatedAtMs),
    previous_until: inSecondsOrNull(client.previousUntilMs),
  };
}

/** What stands of a client in the audit trail; of keys, their thumbprints (RFC 7638). */
export async function recordedClient(
  { name, team, roles, authentication, keys, disabled }: Pick<
    Client,
    "name" | "team" | "roles" | "authentication" | "keys" | "disabled"
  >,
) {
  const prints = await Promise.all(keys.map(thumbprint));
  return {
    name,
    team,
    roles,
    authentication,
    keys: prints.map((print) => print.ok ? print.value : print.reason),
    disabled,
  };
}

/** The client in the path, for a caller who may do this to it. */
export async function requireClient(
  { clients, issuer }: AdminParts,
  exchange: Exchange,
  action: Action,
): Promise<Kept<Client>> {
  const found = await clients.read(idInPath(exchange, "cli"));
  if (found === undefined) throw objectNotFound("no such client");
  requireAccess(principalOf(exchange), action, accountResource(issuer, found.value.id, found.value.team));
  return found;
}
