// Paths of the OAuth 2 endpoints, as the routes serve them and the metadata names them.
export const TOKEN_PATH = "/oauth2/token";
export const REVOKE_PATH = "/oauth2/revoke";
export const INTROSPECT_PATH = "/oauth2/introspect";
