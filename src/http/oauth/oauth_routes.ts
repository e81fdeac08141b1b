// The OAuth 2 door: tokens for clients and sessions, their end, what they are worth, and where all of that is.
import type { AnyRoute } from "../route.ts";
import { type IntrospectParts, introspectRoute } from "./introspect_route.ts";
import { type MetadataParts, metadataRoutes } from "./metadata_routes.ts";
import { type RevokeParts, revokeRoute } from "./revoke_route.ts";
import { type TokenParts, tokenRoute } from "./token_route.ts";

/** What the routes need. */
export interface OauthParts extends TokenParts, RevokeParts, IntrospectParts, MetadataParts {}

/** `POST /oauth2/token` · `/oauth2/revoke` · `/oauth2/introspect`, and their metadata. */
export function oauthRoutes(parts: OauthParts): AnyRoute[] {
  return [tokenRoute(parts), revokeRoute(parts), introspectRoute(parts), ...metadataRoutes(parts)];
}
