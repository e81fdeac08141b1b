// Signing key routes: the keys that sign our own tokens, and a new one.
import { z } from "@hono/zod-openapi";
import { inSeconds, inSecondsOrNull } from "../administer.ts";
import { seconds } from "../object_fields.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AdminParts } from "./admin_parts.ts";

const keyList = z.strictObject({
  data: z.array(z.strictObject({
    key_id: z.string().describe("RFC 7638 thumbprint; the `kid` of tokens."),
    state: z.enum(["active", "retired"]),
    created_at: seconds,
    retired_at: seconds.nullable(),
    public_key: z.record(z.string(), z.string()).nullable()
      .describe("The JWK, while it verifies anything (RFC 8037)."),
  })),
});

/** `GET /v1/signing-keys` and `POST /v1/signing-keys/rotate`. */
export function signingKeyRoutes({ signingKeys }: AdminParts): AnyRoute[] {
  const common = {
    policy: { kind: "action", action: "signing_key:rotate" },
    dialect: problemDialect,
    rated: true,
  } as const;
  return [
    defineRoute({
      ...common,
      method: "GET",
      path: "/v1/signing-keys",
      summary: "Public halves of the keys that sign access tokens",
      answers: { 200: { description: "The keys, the newest first.", schema: keyList } },
      faults: [],
      async handle({ record }) {
        const { keys } = signingKeys.jwks();
        await record.allowed("signing_key:rotate", null);
        const data = signingKeys.list().map(({ keyId, state, createdAtMs, retiredAtMs }) => ({
          key_id: keyId,
          state,
          created_at: inSeconds(createdAtMs),
          retired_at: inSecondsOrNull(retiredAtMs),
          public_key: keys.find(({ kid }) => kid === keyId) ?? null,
        }));
        return { status: 200, body: { data } };
      },
    }),
    defineRoute({
      ...common,
      method: "POST",
      path: "/v1/signing-keys/rotate",
      summary: "Sign with a new key from now on; tokens of the old one stay good until they expire",
      answers: {
        201: { description: "The new key.", schema: z.strictObject({ key_id: z.string() }) },
      },
      faults: ["conflict"],
      async handle({ record }) {
        const before = signingKeys.list().find(({ state }) => state === "active")?.keyId ?? null;
        await record.changing("signing_key:rotate", "signing_key/new", { active: before }, null);
        const keyId = await signingKeys.rotate();
        // The id is known only now.
        await record.allowed("signing_key:rotate", `signing_key/${keyId}`);
        return { status: 201, body: { key_id: keyId } };
      },
    }),
  ];
}
