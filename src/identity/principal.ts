// Principal: who is asking, once it is proved.

/** An authenticated caller. The pair (issuer, subject) is the identity; a name or an e-mail address never is. */
export interface Principal {
  readonly issuer: string;
  /** Unique and never given again within the issuer. */
  readonly subject: string;
  /** Names of roles; `access` says what they mean. Only from a verified credential, never from the request. */
  readonly roles: readonly string[];
  readonly credential: Credential;
}

/** What proved the identity. */
export interface Credential {
  readonly kind: "access_token";
  /** The token's `jti`. Not secret. */
  readonly id: string;
  /** Whole seconds since 1970. */
  readonly expiresAtSeconds: number;
}
