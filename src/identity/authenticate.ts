// Authenticate: the single entrance. Whatever a request brings to prove who it is, it becomes a Principal here or nowhere.
import { no, type Outcome } from "../faults/outcome.ts";
import type { AccessTokens, TokenRefusal } from "./access_token.ts";
import type { Principal } from "./principal.ts";

/** Why nobody was recognised. `missing`: no credential was sent at all. */
export type AuthenticationRefusal = "missing" | "scheme_unknown" | TokenRefusal;

/** From the `Authorization` header (null where there is none) to a Principal. */
export type Authenticate = (
  authorization: string | null,
) => Promise<Outcome<Principal, AuthenticationRefusal>>;

// RFC 9110 §11.1: the scheme is case-insensitive. RFC 6750 §2.1: b64token. Two joined headers hold a comma and do not match.
const BEARER = /^bearer +([A-Za-z0-9._~+/=-]+)$/i;

/** Makes the entrance over its ways in. */
export function openAuthenticate(accessTokens: AccessTokens): Authenticate {
  return (authorization) => {
    if (authorization === null) return Promise.resolve(no("missing"));
    const token = BEARER.exec(authorization)?.[1];
    return token === undefined ? Promise.resolve(no("scheme_unknown")) : accessTokens.verify(token);
  };
}
