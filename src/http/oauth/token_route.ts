// `POST /oauth2/token`: access tokens for clients, and new ones for sessions (RFC 6749 §4.4, §5 and §6; RFC 9449 §5).
import { z } from "@hono/zod-openapi";
import { formatGrant, type Grant } from "../../access/grant.ts";
import type { Principal } from "../../access/principal.ts";
import { Fault } from "../../faults/fault.ts";
import type { AccessTokens } from "../../identity/access_token.ts";
import type { DpopProofs } from "../../identity/dpop_proof.ts";
import type { Refreshed, Session, Sessions } from "../../identity/sessions.ts";
import type { Standings } from "../../identity/standings.ts";
import type { Exchange } from "../exchange.ts";
import { proveKey } from "../prove_key.ts";
import { type Answer, type AnyRoute, defineRoute } from "../route.ts";
import {
  accountPrincipal,
  type AccountPrincipalParts,
  clientPrincipal,
  narrowScope,
} from "./account_principal.ts";
import {
  authenticateClient,
  type ClientAuthenticationParts,
  clientFields,
  requireClient,
} from "./client_authentication.ts";
import { FORM_BYTES_MAX, formBody } from "./form_body.ts";
import { oauthDialect } from "./oauth_error.ts";
import { TOKEN_PATH } from "./oauth_paths.ts";

/** What the route needs. */
export interface TokenParts extends ClientAuthenticationParts, AccountPrincipalParts {
  readonly accessTokens: AccessTokens;
  readonly sessions: Sessions;
  readonly standings: Standings;
  readonly proofs: DpopProofs;
}

/** What a token is given for. */
export const GRANT_TYPES = ["client_credentials", "refresh_token"] as const;

const tokenFields = z.object({
  grant_type: z.string({ error: "is missing" }),
  scope: z.string().optional().describe("Grants, with a space between; without it, all that the roles give."),
  refresh_token: z.string().optional(),
  ...clientFields,
});
type TokenFields = z.infer<typeof tokenFields>;

/** RFC 6749 §5.1. */
const tokenAnswer = z.strictObject({
  access_token: z.string().describe("A JWT (RFC 9068)."),
  token_type: z.enum(["Bearer", "DPoP"]).describe("The scheme to send it by."),
  expires_in: z.int().describe("Seconds."),
  refresh_token: z.string().optional().describe("The next one; the one that was sent is used up."),
  scope: z.string().optional().describe("Where the token is narrowed: to what."),
});

/** The route. */
export function tokenRoute(parts: TokenParts): AnyRoute {
  return defineRoute<TokenFields>({
    method: "POST",
    path: TOKEN_PATH,
    summary: "Get an access token (RFC 6749)",
    policy: { kind: "client" },
    dialect: oauthDialect,
    rated: true,
    bodyForm: formBody(tokenFields),
    bodyBytesMax: FORM_BYTES_MAX,
    answers: { 200: { description: "The token.", schema: tokenAnswer } },
    faults: [
      "grant_refused",
      "grant_type_unsupported",
      "scope_refused",
      "proof_refused",
      "proof_nonce_needed",
    ],
    async handle(exchange, fields) {
      // RFC 9449 §8: who proves is given the nonce, be it for the next time.
      if (exchange.request.headers.has("dpop")) exchange.answerHeaders["DPoP-Nonce"] = parts.proofs.nonce();
      switch (fields.grant_type) {
        case "client_credentials":
          return await grantToClient(parts, exchange, fields);
        case "refresh_token":
          return await grantToSession(parts, exchange, fields);
        default:
          throw new Fault("grant_type_unsupported", "Cannot give a token: the grant type is not supported");
      }
    },
  });
}

/** RFC 6749 §4.4. */
async function grantToClient(parts: TokenParts, exchange: Exchange, fields: TokenFields): Promise<Answer> {
  const client = await requireClient(parts, exchange, TOKEN_PATH, fields);
  const principal = clientPrincipal(parts, client);
  const scope = narrowScope(principal, fields.scope);
  const boundTo = await proveKey(exchange, parts.proofs, TOKEN_PATH);
  return await giveToken(parts, exchange, principal, {
    grant: "client_credentials",
    clientId: client.id,
    issuedAfterSeconds: client.tokensNotBeforeSeconds,
    session: null,
    scope,
    boundTo,
  });
}

/** RFC 6749 §6. Whatever else is wrong is found before the refresh token is used up. */
async function grantToSession(parts: TokenParts, exchange: Exchange, fields: TokenFields): Promise<Answer> {
  const { sessions } = parts;
  const { refresh_token: presented } = fields;
  if (presented === undefined) {
    throw new Fault("request_invalid", "Cannot refresh a session: there is no refresh token", {
      detail: "The parameter refresh_token is missing.",
    });
  }
  const client = await authenticateClient(parts, exchange, TOKEN_PATH, fields);
  // RFC 6749 §10.4: sessions are those of our own public client.
  if (client !== undefined) throw grantRefused("it was issued to another client");
  const live = await sessions.inspect(presented);
  const principal = live === undefined ? undefined : await activeUser(parts, live.userId);
  const scope = principal === undefined ? null : narrowScope(principal, fields.scope);
  const proved = await proveKey(exchange, parts.proofs, TOKEN_PATH);

  if (live === undefined || principal === undefined || live.boundTo !== proved) {
    // Asked all the same: one that was used before has to end its session.
    const refreshed = await sessions.refresh(presented, { network: exchange.clientNetwork, proved });
    return await refuse(parts, exchange, live, refreshed.ok ? "unknown" : refreshed);
  }
  // The record before the rotation: where it cannot be kept, the client still has a token that works.
  const order = { grant: "refresh_token", session: live.id, scope, boundTo: live.boundTo } as const;
  const answer = await giveToken(parts, exchange, principal, order);
  const refreshed = await sessions.refresh(presented, { network: exchange.clientNetwork, proved });
  if (!refreshed.ok) return await refuse(parts, exchange, live, refreshed);
  return { ...answer, body: { ...answer.body, refresh_token: refreshed.value.refreshToken } };
}

/** Whose token it was stands in the record; the caller learns nothing of it. */
async function refuse(
  { standings, issuer }: TokenParts,
  { record }: Exchange,
  live: Session | undefined,
  refused: "unknown" | Extract<Refreshed, { readonly ok: false }>,
): Promise<never> {
  const isReused = refused !== "unknown" && refused.reason === "reused";
  const session = isReused ? refused.session : live;
  if (session !== undefined) {
    const team = (await standings.load(session.userId))?.team ?? null;
    record.identify({ issuer, subject: session.userId, team, credential: session.id });
  }
  if (isReused) await record.reuseDetected(refused.session.id);
  throw grantRefused(refused === "unknown" ? refused : refused.reason);
}

async function activeUser(parts: TokenParts, userId: string): Promise<Principal> {
  const standing = await parts.standings.load(userId);
  if (standing?.active !== true) throw grantRefused("subject_inactive");
  return accountPrincipal(parts, userId, standing);
}

interface TokenOrder {
  readonly grant: typeof GRANT_TYPES[number];
  readonly clientId?: string;
  readonly issuedAfterSeconds?: number | null;
  readonly session: string | null;
  readonly scope: readonly Grant[] | null;
  readonly boundTo: string | null;
}

async function giveToken(
  { accessTokens }: TokenParts,
  { record }: Exchange,
  { issuer, subject, team }: Principal,
  { grant, ...order }: TokenOrder,
): Promise<Answer & { readonly body: Readonly<Record<string, unknown>> }> {
  const { session, scope, boundTo } = order;
  const { token, id, expiresAtSeconds } = await accessTokens.issue({ subject, ...order });
  record.identify({ issuer, subject, team, credential: id });
  // Durable before the token leaves.
  await record.tokenIssued({ grant, session, expiresAtSeconds, bound: boundTo !== null });
  return {
    status: 200,
    // RFC 6749 §5.1; `Cache-Control: no-store` is on every answer.
    headers: { "Pragma": "no-cache" },
    body: {
      access_token: token,
      token_type: boundTo === null ? "Bearer" : "DPoP",
      expires_in: accessTokens.ttlSeconds,
      ...(scope === null ? {} : { scope: scope.map(formatGrant).join(" ") }),
    },
  };
}

function grantRefused(state: string): Fault {
  return new Fault("grant_refused", `Cannot refresh a session: ${state}`);
}
