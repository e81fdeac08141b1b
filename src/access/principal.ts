// Principal: who is asking, once it is proved, and what that one may do at this moment.
import type { Grant } from "./grant.ts";

/** Whom something belongs to. The pair is the identity; a name or an e-mail address never is (OIDC Core §5.7). */
export interface Owner {
  readonly issuer: string;
  /** Unique and never given again within the issuer. */
  readonly subject: string;
}

/** An authenticated caller. */
export interface Principal extends Owner {
  /** A user or a client of this server, or someone whom an external issuer vouches for. */
  readonly kind: "user" | "client" | "external";
  readonly team: string;
  /** Names of roles: from the store or from the issuer's claim, never from the request. */
  readonly roles: readonly string[];
  /** What those roles give at this moment. */
  readonly grants: readonly Grant[];
  /** What the credential is narrowed to; null: to nothing less than the roles give. */
  readonly scope: readonly Grant[] | null;
  readonly credential: Credential;
}

/** What proved the identity. */
export interface Credential {
  readonly kind: "access_token" | "api_key";
  /** The token's `jti`, or the key's id. Not secret. */
  readonly id: string;
  /** Whole seconds since 1970; null for a key, which is looked up each time. */
  readonly expiresAtSeconds: number | null;
  /** The session that the token belongs to; null where there is none. */
  readonly session: string | null;
  /** RFC 7638 thumbprint of the key whose possession was proved with it (RFC 9449); null for a bearer credential. */
  readonly boundTo: string | null;
}
