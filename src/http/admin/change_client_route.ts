// Change client: name, roles, keys, and whether the account works.
import { z } from "@hono/zod-openapi";
import { checkClientKeys } from "../../identity/client_record.ts";
import { changedMeanwhile, isOneself, notOneself } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { OBJECT_BYTES_MAX, objectName, roleNames } from "../object_fields.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";
import {
  clientSchema,
  clientView,
  publicJwks,
  recordedClient,
  requireClient,
  untrustedJwks,
} from "./client_view.ts";
import { requireGivableRoles, requireNotStronger } from "./role_limits.ts";
import { changeWithoutSeenKeys, givesMore, hasSeenKeys } from "./seen_keys.ts";

const change = z.strictObject({
  name: objectName.optional(),
  roles: roleNames.optional(),
  disabled: z.boolean().optional(),
  keys: publicJwks.optional(),
}).refine((fields) => Object.keys(fields).length > 0, "holds nothing to change");

/** `PATCH /v1/clients/{id}`. */
export function changeClientRoute(parts: AdminParts): AnyRoute {
  const { clients, roleBook, issuer } = parts;
  return defineRoute({
    method: "PATCH",
    path: "/v1/clients/{id}",
    summary: "Change a client: what is absent stays",
    policy: { kind: "action", action: "client:write" },
    dialect: problemDialect,
    rated: true,
    body: change,
    bodyBytesMax: OBJECT_BYTES_MAX,
    answers: { 200: { description: "The client as it is now.", schema: clientSchema } },
    faults: ["not_found", "conflict"],
    async handle(exchange, { name, roles, disabled, keys }) {
      const principal = principalOf(exchange);
      const found = await requireClient(parts, exchange, "client:write");
      const client = found.value;
      const demotes = roles !== undefined || disabled !== undefined;
      if (demotes && isOneself(principal, issuer, client.id)) throw notOneself("a client");
      requireNotStronger(roleBook, principal, client);
      if (roles !== undefined) requireGivableRoles(roleBook, principal, client.team, roles);
      const next = {
        ...client,
        name: name ?? client.name,
        roles: roles ?? client.roles,
        disabled: disabled ?? client.disabled,
        keys: keys === undefined
          ? client.keys
          : await checkClientKeys(client.authentication, untrustedJwks(keys)),
      };
      const grows = givesMore(parts, client, next);
      await exchange.record.changing(
        "client:write",
        `client/${client.id}`,
        await recordedClient(client),
        {
          ...await recordedClient(next),
          ...(grows && await hasSeenKeys(parts, client.id) ? { api_keys: "ended" } : {}),
        },
      );
      const write = () => clients.replace(found, next);
      const isMade = grows ? await changeWithoutSeenKeys(parts, client.id, write) : await write();
      if (!isMade) throw changedMeanwhile("a client");
      return { status: 200, body: clientView(next) };
    },
  });
}
