// Find a token: which live token of this server a text is. Revocation and introspection ask the same of what they are sent.
import { hash } from "node:crypto";
import { z } from "@hono/zod-openapi";
import type { AccessTokenClaims, AccessTokens } from "../../identity/access_token.ts";
import type { Session, Sessions } from "../../identity/sessions.ts";
import { isOverFor, type Standings } from "../../identity/standings.ts";
import { parseJws } from "../../identity/strict_jws.ts";

/** What tokens are found by. */
export interface FindTokenParts {
  readonly accessTokens: AccessTokens;
  readonly sessions: Sessions;
  readonly standings: Standings;
}

/** A live token. */
export type FoundToken =
  | { readonly kind: "access_token"; readonly claims: AccessTokenClaims }
  | { readonly kind: "refresh_token"; readonly session: Session };

/** The parameters of a form about a token. Its kind shows in itself: the hint may be sent and changes nothing (RFC 7009 §2.1). */
export const tokenFields = {
  token: z.string({ error: "is missing" }),
  token_type_hint: z.string().optional(),
};

/** undefined: none of ours, or none that is worth anything now. */
export async function findToken(
  { accessTokens, sessions, standings }: FindTokenParts,
  text: string,
): Promise<FoundToken | undefined> {
  const jws = parseJws(text);
  if (jws.ok) {
    const verified = await accessTokens.verify(jws.value, hash("sha256", text, "base64"));
    if (!verified.ok) return undefined;
    const { value: claims } = verified;
    const standing = await standings.load(claims.subject);
    const isOver = standing !== undefined && isOverFor(standing, claims.issuedAtSeconds);
    return isOver ? undefined : { kind: "access_token", claims };
  }
  const session = await sessions.inspect(text);
  return session === undefined ? undefined : { kind: "refresh_token", session };
}
