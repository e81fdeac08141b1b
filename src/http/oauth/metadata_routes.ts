// Metadata: what clients have to know of this server before they ask anything else of it (RFC 8414, RFC 9728).
import { z } from "@hono/zod-openapi";
import { ACTIONS } from "../../access/action.ts";
import { ALGORITHMS } from "../../identity/public_key.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { CLIENT_AUTHENTICATION_METHODS } from "./client_authentication.ts";
import { INTROSPECT_PATH, REVOKE_PATH, TOKEN_PATH } from "./oauth_paths.ts";
import { GRANT_TYPES } from "./token_route.ts";

/** What the routes need. */
export interface MetadataParts {
  /** The public origin of this server; never the Host header. */
  readonly issuer: string;
  /** Of whom tokens are accepted besides. */
  readonly externalIssuers: readonly string[];
}

const texts = z.array(z.string());
const authorizationServer = z.strictObject({
  issuer: z.string(),
  token_endpoint: z.string(),
  jwks_uri: z.string(),
  scopes_supported: texts,
  response_types_supported: texts,
  grant_types_supported: texts,
  token_endpoint_auth_methods_supported: texts,
  token_endpoint_auth_signing_alg_values_supported: texts,
  revocation_endpoint: z.string(),
  revocation_endpoint_auth_methods_supported: texts,
  revocation_endpoint_auth_signing_alg_values_supported: texts,
  introspection_endpoint: z.string(),
  introspection_endpoint_auth_methods_supported: texts,
  introspection_endpoint_auth_signing_alg_values_supported: texts,
  dpop_signing_alg_values_supported: texts,
  protected_resources: texts,
});
const protectedResource = z.strictObject({
  resource: z.string(),
  resource_name: z.string(),
  authorization_servers: texts,
  scopes_supported: texts,
  bearer_methods_supported: texts,
  dpop_signing_alg_values_supported: texts,
  dpop_bound_access_tokens_required: z.boolean(),
});

/** `GET /.well-known/oauth-authorization-server` and `GET /.well-known/oauth-protected-resource`. */
export function metadataRoutes({ issuer, externalIssuers }: MetadataParts): AnyRoute[] {
  const scopes = Object.keys(ACTIONS);
  const open = {
    method: "GET",
    policy: { kind: "public" },
    dialect: problemDialect,
    rated: true,
    faults: [],
  } as const;
  const headers = { "Cache-Control": "public, max-age=300" };
  const server: z.infer<typeof authorizationServer> = {
    issuer,
    token_endpoint: `${issuer}${TOKEN_PATH}`,
    jwks_uri: `${issuer}/.well-known/jwks.json`,
    scopes_supported: scopes,
    // RFC 8414 §2 requires it; nothing here has an authorization endpoint.
    response_types_supported: [],
    grant_types_supported: [...GRANT_TYPES],
    token_endpoint_auth_methods_supported: [...CLIENT_AUTHENTICATION_METHODS, "none"],
    token_endpoint_auth_signing_alg_values_supported: [...ALGORITHMS],
    revocation_endpoint: `${issuer}${REVOKE_PATH}`,
    revocation_endpoint_auth_methods_supported: [...CLIENT_AUTHENTICATION_METHODS, "none"],
    revocation_endpoint_auth_signing_alg_values_supported: [...ALGORITHMS],
    introspection_endpoint: `${issuer}${INTROSPECT_PATH}`,
    introspection_endpoint_auth_methods_supported: [...CLIENT_AUTHENTICATION_METHODS],
    introspection_endpoint_auth_signing_alg_values_supported: [...ALGORITHMS],
    dpop_signing_alg_values_supported: [...ALGORITHMS],
    protected_resources: [issuer],
  };
  const resource: z.infer<typeof protectedResource> = {
    resource: issuer,
    resource_name: "Portcullis",
    authorization_servers: [issuer, ...externalIssuers],
    scopes_supported: scopes,
    bearer_methods_supported: ["header"],
    dpop_signing_alg_values_supported: [...ALGORITHMS],
    dpop_bound_access_tokens_required: false,
  };
  return [
    defineRoute({
      ...open,
      path: "/.well-known/oauth-authorization-server",
      summary: "Who gives tokens here, and how (RFC 8414)",
      answers: { 200: { description: "The metadata.", schema: authorizationServer } },
      handle: () => ({ status: 200, body: server, headers }),
    }),
    defineRoute({
      ...open,
      path: "/.well-known/oauth-protected-resource",
      summary: "Whose tokens are accepted here, and how (RFC 9728)",
      answers: { 200: { description: "The metadata.", schema: protectedResource } },
      handle: () => ({ status: 200, body: resource, headers }),
    }),
  ];
}
