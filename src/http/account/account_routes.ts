// Account: sign in with name and password, sign out.
import { z } from "@hono/zod-openapi";
import { Fault } from "../../faults/fault.ts";
import type { AccessTokens } from "../../identity/access_token.ts";
import type { Revocations } from "../../identity/revocation.ts";
import type { SignIn } from "../../identity/sign_in.ts";
import { principalOf } from "../exchange.ts";
import { problemDialect } from "../problem.ts";
import { type AnyRoute, defineRoute } from "../route.ts";

/** What sign-in and sign-out need. */
export interface AccountParts {
  readonly signIn: SignIn;
  readonly accessTokens: AccessTokens;
  readonly revocations: Revocations;
  /** A keyed pseudonym of an account's name, for the audit trail. */
  readonly labelAccount: (username: string) => string;
}

const credentials = z.strictObject({
  username: z.string().min(1).max(256),
  password: z.string().min(1).max(1024),
});

/** Strangers send it: the longest name and password, with each character escaped, and some room. */
const CREDENTIALS_BYTES_MAX = 8 * 1024;

const token = z.strictObject({
  access_token: z.string().describe("A JWT (RFC 9068). Send it as Authorization: Bearer."),
  token_type: z.literal("Bearer"),
  expires_in: z.int().describe("Seconds."),
});

/** `POST /v1/auth/login` and `POST /v1/auth/logout`. */
export function accountRoutes({ signIn, accessTokens, revocations, labelAccount }: AccountParts): AnyRoute[] {
  return [
    defineRoute({
      method: "POST",
      path: "/v1/auth/login",
      summary: "Sign in with name and password",
      policy: { kind: "sign_in" },
      dialect: problemDialect,
      rated: true,
      body: credentials,
      bodyBytesMax: CREDENTIALS_BYTES_MAX,
      answers: { 200: { description: "An access token.", schema: token } },
      faults: ["sign_in_refused", "overloaded"],
      async handle({ record }, { username, password }) {
        const signedIn = await signIn(username, password);
        if (!signedIn.ok) {
          await record.sessionRefused(labelAccount(username), signedIn.reason);
          throw new Fault("sign_in_refused", `Cannot sign in: ${signedIn.reason}`);
        }
        const issued = await accessTokens.issue(signedIn.value);
        record.identify(signedIn.value.id, issued.id);
        // Durable before the token leaves: no session without its record.
        await record.sessionStarted(issued.expiresAtSeconds);
        return {
          status: 200,
          body: { access_token: issued.token, token_type: "Bearer", expires_in: accessTokens.ttlSeconds },
        };
      },
    }),
    defineRoute({
      method: "POST",
      path: "/v1/auth/logout",
      summary: "End the session of the access token that is sent",
      policy: { kind: "action", action: "session:end" },
      dialect: problemDialect,
      rated: true,
      answers: { 204: { description: "The token is worthless from now on." } },
      faults: [],
      async handle(exchange) {
        const { credential } = principalOf(exchange);
        await exchange.record.sessionEnded();
        await revocations.revoke(credential.id, credential.expiresAtSeconds * 1000);
        return { status: 204 };
      },
    }),
  ];
}
