// Account: sign-in, sign-out, and what is one's own.
import type { AnyRoute } from "../route.ts";
import type { AccountParts } from "./account_parts.ts";
import { createKeyRoute } from "./create_key_route.ts";
import { keyRoutes } from "./key_routes.ts";
import { loginRoute } from "./login_route.ts";
import { passwordRoute } from "./password_route.ts";
import { sessionRoutes } from "./session_routes.ts";
import { usageRoutes } from "./usage_routes.ts";

/** What the routes need. */
export type { AccountParts } from "./account_parts.ts";

/** Every route below `/v1/auth` and `/v1/keys`, and `/v1/usage`. */
export function accountRoutes(parts: AccountParts): AnyRoute[] {
  return [
    loginRoute(parts),
    ...sessionRoutes(parts),
    passwordRoute(parts),
    ...keyRoutes(parts),
    createKeyRoute(parts),
    ...usageRoutes(parts),
  ];
}
