// Operations: probes that say nothing about the inside, and the public keys of our tokens.
import { z } from "@hono/zod-openapi";
import type { PublicJwk } from "../../identity/signing_keys.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";

/** What the routes need. */
export interface OperationsParts {
  /** Whether the server takes inferences now. */
  readonly isReady: () => boolean;
  /** How many models can be served now, of how many. */
  readonly modelCounts: () => { readonly ready: number; readonly total: number };
  /** The public keys at this moment. */
  readonly jwks: () => { readonly keys: readonly PublicJwk[] };
}

const status = z.strictObject({ status: z.enum(["ok", "unavailable"]) });
const readiness = z.strictObject({
  status: z.enum(["ok", "unavailable"]),
  models: z.strictObject({ ready: z.int(), total: z.int() }).describe(
    "How many can be served now; GET /v1/models tells which, to those who may know of them.",
  ),
});
const jwk = z.strictObject({
  kty: z.string(),
  crv: z.string(),
  x: z.string(),
  kid: z.string(),
  use: z.string(),
  alg: z.string(),
});

/** `GET /healthz`, `GET /readyz` and `GET /.well-known/jwks.json`. */
export function operationsRoutes({ isReady, modelCounts, jwks }: OperationsParts): AnyRoute[] {
  const open = { method: "GET", policy: { kind: "public" }, dialect: problemDialect, faults: [] } as const;
  return [
    defineRoute({
      ...open,
      path: "/healthz",
      summary: "Whether the process answers",
      rated: false,
      answers: { 200: { description: "It does.", schema: status } },
      handle: () => ({ status: 200, body: { status: "ok" } }),
    }),
    defineRoute({
      ...open,
      path: "/readyz",
      summary: "Whether the server takes inferences",
      rated: false,
      answers: {
        200: { description: "It does.", schema: readiness },
        503: { description: "Not now.", schema: readiness },
      },
      handle: () =>
        isReady()
          ? { status: 200, body: { status: "ok", models: modelCounts() } }
          : { status: 503, body: { status: "unavailable", models: modelCounts() } },
    }),
    defineRoute({
      ...open,
      path: "/.well-known/jwks.json",
      summary: "Public keys that verify our access tokens (RFC 7517)",
      rated: true,
      answers: { 200: { description: "The key set.", schema: z.strictObject({ keys: z.array(jwk) }) } },
      handle: () => ({ status: 200, body: jwks(), headers: { "Cache-Control": "public, max-age=300" } }),
    }),
  ];
}
