// Create client: a program's account, with roles that whoever makes it has too.
import { z } from "@hono/zod-openapi";
import { checkClientKeys } from "../../identity/client_record.ts";
import { fieldRefused, teamResource } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { OBJECT_BYTES_MAX, objectName, roleNames, teamId } from "../object_fields.ts";
import { problemDialect } from "../problem.ts";
import { requireAccess } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";
import { clientView, newClientSchema, publicJwks, recordedClient, untrustedJwks } from "./client_view.ts";
import { requireGivableRoles } from "./role_limits.ts";

const account = z.strictObject({
  name: objectName,
  team: teamId.optional().describe("Default: the caller's."),
  roles: roleNames,
  authentication: z.enum(["secret", "private_key_jwt"]),
  keys: publicJwks.default([]).describe("1 to 8 public keys for private_key_jwt; none for secret."),
});

/** `POST /v1/clients`. */
export function createClientRoute({ clients, teams, roleBook }: AdminParts): AnyRoute {
  return defineRoute({
    method: "POST",
    path: "/v1/clients",
    summary: "Make a client (OAuth 2.0)",
    policy: { kind: "action", action: "client:write" },
    dialect: problemDialect,
    rated: true,
    body: account,
    bodyBytesMax: OBJECT_BYTES_MAX,
    answers: { 201: { description: "The client, with its secret.", schema: newClientSchema } },
    faults: ["not_found", "conflict"],
    async handle(exchange, { team: teamOrNone, keys: sent, ...fields }) {
      const principal = principalOf(exchange);
      const team = teamOrNone ?? principal.team;
      requireAccess(principal, "client:write", teamResource(team));
      if (await teams.read(team) === undefined) throw fieldRefused("/team", "is no team");
      requireGivableRoles(roleBook, principal, team, fields.roles);
      const order = {
        ...fields,
        team,
        keys: await checkClientKeys(fields.authentication, untrustedJwks(sent)),
      };
      await exchange.record.changing(
        "client:write",
        "client/new",
        null,
        await recordedClient({ ...order, disabled: false }),
      );
      const { client, secret } = await clients.create(order);
      // The id is known only now; without the record nobody is told the secret.
      await exchange.record.allowed("client:write", `client/${client.id}`);
      return { status: 201, body: { ...clientView(client), secret } };
    },
  });
}
