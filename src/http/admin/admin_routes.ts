// Admin: every route that looks after people, programs, roles, teams, signing keys and bans.
import type { AnyRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";
import { auditRoutes } from "./audit_routes.ts";
import { banRoutes } from "./ban_routes.ts";
import { changeClientRoute } from "./change_client_route.ts";
import { changeUserRoute } from "./change_user_route.ts";
import { clientRoutes } from "./client_routes.ts";
import { createClientRoute } from "./create_client_route.ts";
import { createUserRoute } from "./create_user_route.ts";
import { modelRoutes } from "./model_routes.ts";
import { payloadRoutes } from "./payload_routes.ts";
import { roleRoutes } from "./role_routes.ts";
import { signingKeyRoutes } from "./signing_key_routes.ts";
import { teamRoutes } from "./team_routes.ts";
import { usageRoutes } from "./usage_routes.ts";
import { userRoutes } from "./user_routes.ts";
import { userSessionRoutes } from "./user_session_routes.ts";
import { vaultRoutes } from "./vault_routes.ts";
import { writeRoleRoute } from "./write_role_route.ts";

/** What the routes need. */
export type { AdminParts } from "./admin_parts.ts";

/** Every route below `/v1/users`, `/v1/clients`, `/v1/roles`, `/v1/teams`, `/v1/signing-keys` and `/v1/bans`. */
export function adminRoutes(parts: AdminParts): AnyRoute[] {
  return [
    createUserRoute(parts),
    ...userRoutes(parts),
    changeUserRoute(parts),
    ...userSessionRoutes(parts),
    createClientRoute(parts),
    ...clientRoutes(parts),
    changeClientRoute(parts),
    ...roleRoutes(parts),
    writeRoleRoute(parts),
    ...teamRoutes(parts),
    ...signingKeyRoutes(parts),
    ...modelRoutes(parts),
    ...banRoutes(parts),
    ...usageRoutes(parts),
    ...auditRoutes(parts),
    ...payloadRoutes(parts),
    ...vaultRoutes(parts),
  ];
}
