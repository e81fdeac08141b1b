// Paths of the OAuth 2 endpoints, as the routes serve them and the metadata names them.

/** RFC 6749 §3.2. */
export const TOKEN_PATH = "/oauth2/token";
/** RFC 7009. */
export const REVOKE_PATH = "/oauth2/revoke";
/** RFC 7662. */
export const INTROSPECT_PATH = "/oauth2/introspect";
