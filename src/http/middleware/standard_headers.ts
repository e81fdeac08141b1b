// Standard headers: what every answer carries, errors included, and who may read it across origins.

/** Makes the header sets of a server. */
export interface StandardHeaders {
  /** A fresh set for one answer. */
  forAnswer(requestId: string, origin: string | null): Record<string, string>;
  /** The answer to a preflight (Fetch §4.9), or undefined where the origin may not call. */
  forPreflight(
    origin: string | null,
    requestedMethod: string | null,
  ): Readonly<Record<string, string>> | undefined;
}

/**
 * @param publicUrl HSTS (RFC 6797) is sent where it is https
 * @param corsOrigins exact origins; none is ever reflected that is not listed (ASVS V3.4.2)
 */
export function standardHeaders(publicUrl: string, corsOrigins: readonly string[]): StandardHeaders {
  const fixed: Readonly<Record<string, string>> = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": corsOrigins.length > 0 ? "cross-origin" : "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    ...(publicUrl.startsWith("https:")
      ? { "Strict-Transport-Security": "max-age=63072000; includeSubDomains" }
      : {}),
    ...(corsOrigins.length > 0 ? { "Vary": "Origin" } : {}),
  };
  return {
    forAnswer(requestId, origin) {
      const headers: Record<string, string> = { ...fixed, "X-Request-Id": requestId };
      if (origin !== null && corsOrigins.includes(origin)) {
        headers["Access-Control-Allow-Origin"] = origin;
        headers["Access-Control-Expose-Headers"] =
          "DPoP-Nonce, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id, Inference-Header-Content-Length";
      }
      return headers;
    },
    forPreflight(origin, requestedMethod) {
      if (origin === null || requestedMethod === null || !corsOrigins.includes(origin)) return undefined;
      return {
        "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers":
          "authorization, content-type, dpop, x-api-key, anthropic-version, inference-header-content-length",
        "Access-Control-Max-Age": "600",
      };
    },
  };
}
