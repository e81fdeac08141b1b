// `POST /oauth2/introspect`: what a token is worth at this moment, for clients that are sent it (RFC 7662).
import { z } from "@hono/zod-openapi";
import { decide } from "../../access/decide.ts";
import { formatGrant } from "../../access/grant.ts";
import { type AccessTokenClaims, OWN_CLIENT } from "../../identity/access_token.ts";
import { API_KEY_PREFIX, type ApiKeys } from "../../identity/api_keys.ts";
import { type CurrentFeed, requireCurrent } from "../../identity/require_current.ts";
import type { Session } from "../../identity/sessions.ts";
import { requireAccess } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import { type AccountPrincipalParts, clientPrincipal } from "./account_principal.ts";
import { type ClientAuthenticationParts, clientFields, requireClient } from "./client_authentication.ts";
import { findToken, type FindTokenParts, tokenFields } from "./find_token.ts";
import { FORM_BYTES_MAX, formBody } from "./form_body.ts";
import { oauthDialect } from "./oauth_error.ts";
import { INTROSPECT_PATH } from "./oauth_paths.ts";

/** What the route needs. */
export interface IntrospectParts extends ClientAuthenticationParts, AccountPrincipalParts, FindTokenParts {
  readonly apiKeys: ApiKeys;
  readonly feed: CurrentFeed;
}

const introspectFields = z.object({ ...tokenFields, ...clientFields });

/** RFC 7662 §2.2. */
const activeToken = z.strictObject({
  active: z.literal(true),
  iss: z.string(),
  sub: z.string(),
  aud: z.string().optional(),
  client_id: z.string().optional(),
  exp: z.int(),
  iat: z.int(),
  jti: z.string().optional(),
  token_type: z.enum(["Bearer", "DPoP"]).optional(),
  scope: z.string().optional().describe(
    "Where it is narrowed: to what. Without it: to nothing less than its subject has.",
  ),
  sid: z.string().optional(),
  cnf: z.strictObject({ jkt: z.string() }).optional(),
});
const INACTIVE = { active: false };

type Claims = Omit<z.infer<typeof activeToken>, "active" | "iss">;

/** The route. */
export function introspectRoute(parts: IntrospectParts): AnyRoute {
  return defineRoute<z.infer<typeof introspectFields>>({
    method: "POST",
    path: INTROSPECT_PATH,
    summary: "Ask what a token is worth (RFC 7662)",
    policy: { kind: "client" },
    dialect: oauthDialect,
    rated: true,
    bodyForm: formBody(introspectFields),
    bodyBytesMax: FORM_BYTES_MAX,
    answers: {
      200: {
        description:
          "What it says; of one that is worth nothing, or that the client may not know of, nothing.",
        schema: z.union([activeToken, z.strictObject({ active: z.literal(false) })]),
      },
    },
    faults: ["forbidden"],
    async handle(exchange, fields) {
      const { issuer, standings } = parts;
      // What is said here is believed elsewhere: nothing of what may be over.
      requireCurrent(parts.feed);
      // RFC 7662 §2.1: nobody asks who has not proved to be somebody; else tokens could be tried out here.
      const client = await requireClient(parts, exchange, INTROSPECT_PATH, fields);
      const principal = clientPrincipal(parts, client);
      requireAccess(principal, "token:introspect");
      const claims = await claimsOf(parts, fields.token);
      const standing = claims === undefined ? undefined : await standings.load(claims.sub);
      const isTheirs = claims !== undefined && standing !== undefined &&
        decide(principal, "token:introspect", {
          kind: "object",
          owner: { issuer, subject: claims.sub },
          team: standing.team,
        }).ok;
      const object = isTheirs ? `${standing.kind}/${claims.sub}` : null;
      await exchange.record.allowed("token:introspect", object);
      // RFC 7662 §2.2: nothing is said of why one is not active.
      const isActive = isTheirs && standing.active;
      return { status: 200, body: isActive ? { active: true, iss: issuer, ...claims } : INACTIVE };
    },
  });
}

async function claimsOf(parts: IntrospectParts, text: string): Promise<Claims | undefined> {
  if (text.startsWith(API_KEY_PREFIX)) return await claimsOfKey(parts, text);
  const found = await findToken(parts, text);
  if (found === undefined) return undefined;
  return found.kind === "access_token"
    ? claimsOfAccessToken(found.claims, parts.issuer)
    : claimsOfSession(found.session);
}

function claimsOfAccessToken(claims: AccessTokenClaims, issuer: string): Claims {
  const { subject, clientId, tokenId, session, scope, issuedAtSeconds, expiresAtSeconds, boundTo } = claims;
  return {
    sub: subject,
    aud: issuer,
    client_id: clientId,
    exp: expiresAtSeconds,
    iat: issuedAtSeconds,
    jti: tokenId,
    ...(scope === null ? {} : { scope: scope.map(formatGrant).join(" ") }),
    ...(session === null ? {} : { sid: session }),
    ...confirmation(boundTo),
  };
}

/** A refresh token is for our own token endpoint: no audience and no type of access token are said of it. */
function claimsOfSession({ id, userId, createdAtMs, expiresAtMs, boundTo }: Session): Claims {
  return {
    sub: userId,
    client_id: OWN_CLIENT,
    exp: Math.floor(expiresAtMs / 1000),
    iat: Math.floor(createdAtMs / 1000),
    sid: id,
    ...(boundTo === null ? {} : { cnf: { jkt: boundTo } }),
  };
}

async function claimsOfKey({ apiKeys, issuer }: IntrospectParts, text: string): Promise<Claims | undefined> {
  const verified = await apiKeys.verify(text);
  if (!verified.ok) return undefined;
  const { id, ownerId, scope, addressRanges, boundTo } = verified.value;
  // Where it holds from some addresses only: whoever asks cannot be told from where it was sent, and would take it from anywhere.
  const key = addressRanges.length > 0 ? undefined : (await apiKeys.read(id))?.value;
  if (key === undefined) return undefined;
  return {
    sub: ownerId,
    aud: issuer,
    exp: Math.floor(key.expiresAtMs / 1000),
    iat: Math.floor(key.createdAtMs / 1000),
    jti: id,
    scope: scope.map(formatGrant).join(" "),
    ...confirmation(boundTo),
  };
}

/** RFC 9449 §6.2. */
function confirmation(boundTo: string | null): Pick<Claims, "token_type" | "cnf"> {
  return boundTo === null ? { token_type: "Bearer" } : { token_type: "DPoP", cnf: { jkt: boundTo } };
}
