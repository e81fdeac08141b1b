// `POST /oauth2/revoke`: tokens that their holders want to be over (RFC 7009).
import { z } from "@hono/zod-openapi";
import { OWN_CLIENT } from "../../identity/access_token.ts";
import type { Client } from "../../identity/clients.ts";
import type { Revocations } from "../../identity/revocation.ts";
import type { Exchange } from "../exchange.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import {
  authenticateClient,
  type ClientAuthenticationParts,
  clientFields,
  clientRefused,
} from "./client_authentication.ts";
import { findToken, type FindTokenParts, type FoundToken, tokenFields } from "./find_token.ts";
import { FORM_BYTES_MAX, formBody } from "./form_body.ts";
import { oauthDialect } from "./oauth_error.ts";
import { REVOKE_PATH } from "./oauth_paths.ts";

/** What the route needs. */
export interface RevokeParts extends ClientAuthenticationParts, FindTokenParts {
  readonly revocations: Revocations;
}

const revokeFields = z.object({ ...tokenFields, ...clientFields });

/** The route. */
export function revokeRoute(parts: RevokeParts): AnyRoute {
  return defineRoute<z.infer<typeof revokeFields>>({
    method: "POST",
    path: REVOKE_PATH,
    summary: "End a token, or a session by its refresh token (RFC 7009)",
    policy: { kind: "client" },
    dialect: oauthDialect,
    rated: true,
    bodyForm: formBody(revokeFields),
    bodyBytesMax: FORM_BYTES_MAX,
    answers: { 200: { description: "The token is worthless now, if it was one of the caller's." } },
    faults: [],
    async handle(exchange, fields) {
      const client = await authenticateClient(parts, exchange, REVOKE_PATH, fields);
      const found = await findToken(parts, fields.token);
      if (found !== undefined && isOf(found, client)) await end(parts, exchange, found);
      // RFC 7009 §2.2: nothing to end is no error. Nor is somebody else's token, of which nothing is said.
      else await exchange.record.allowed("token:revoke", null);
      return { status: 200 };
    },
  });
}

/**
 * RFC 7009 §2.1: whether the token was issued to the client that asks. Those of our own client, which has no secret, are
 * whose hands they are in, also where they are bound to a key: no proof is asked for to end one.
 *
 * @throws Fault `client_refused` where a client's token comes without that client's proof: it must not think that it is over
 */
function isOf(found: FoundToken, client: Client | undefined): boolean {
  const issuedTo = found.kind === "access_token" ? found.claims.clientId : OWN_CLIENT;
  if (issuedTo === OWN_CLIENT) return client === undefined;
  if (client === undefined) throw clientRefused("not_authenticated");
  return issuedTo === client.id;
}

/** Ends it. The record is durable before. */
async function end(
  { issuer, sessions, standings, revocations }: RevokeParts,
  { record }: Exchange,
  found: FoundToken,
): Promise<void> {
  const isSession = found.kind === "refresh_token";
  const subject = isSession ? found.session.userId : found.claims.subject;
  const credential = isSession ? found.session.id : found.claims.tokenId;
  const team = (await standings.load(subject))?.team;
  // Of an account that is deleted there is no more to say than the session.
  if (team !== undefined) record.identify({ issuer, subject, team, credential });
  await record.sessionEnded(isSession ? found.session.id : null);
  if (isSession) await sessions.end(found.session);
  else await revocations.revoke(found.claims.tokenId, found.claims.expiresAtSeconds * 1000);
}
