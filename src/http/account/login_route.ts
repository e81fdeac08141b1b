// Login: a name and a password to a session, bound to a key where its possession is proved (RFC 9449 §5).
import { z } from "@hono/zod-openapi";
import { Fault, toFault } from "../../faults/fault.ts";
import { inSeconds } from "../administer.ts";
import { guessDigest } from "../middleware/guessed_credential.ts";
import { problemDialect } from "../problem.ts";
import { proveKey } from "../prove_key.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AccountParts } from "./account_parts.ts";
import { readStandingAccount } from "./standing_account.ts";

const PATH = "/v1/auth/login";

const credentials = z.strictObject({
  username: z.string().min(1).max(256),
  password: z.string().min(1).max(1024),
});

/** Strangers send it: the longest name and password, with each character escaped, and some room. */
const CREDENTIALS_BYTES_MAX = 8 * 1024;

const tokens = z.strictObject({
  access_token: z.string().describe("A JWT (RFC 9068). Send it as Authorization: token_type."),
  token_type: z.enum(["Bearer", "DPoP"]),
  expires_in: z.int().describe("Seconds."),
  refresh_token: z.string().describe("For POST /oauth2/token; each can be used once."),
  refresh_expires_in: z.int().describe("Seconds."),
});

/** `POST /v1/auth/login`. */
export function loginRoute(parts: AccountParts): AnyRoute {
  const { issuer, users, signIn, sessions, accessTokens, proofs, clock, labelAccount } = parts;
  return defineRoute({
    method: "POST",
    path: PATH,
    summary: "Sign in with name and password",
    policy: { kind: "sign_in" },
    dialect: problemDialect,
    rated: true,
    body: credentials,
    bodyBytesMax: CREDENTIALS_BYTES_MAX,
    answers: { 200: { description: "An access token and a refresh token.", schema: tokens } },
    faults: ["sign_in_refused", "proof_refused", "proof_nonce_needed", "overloaded"],
    async handle(exchange, { username, password }) {
      const { record, clientNetwork: network } = exchange;
      // Before the password, which costs more.
      const boundTo = await proveKey(exchange, proofs, PATH);
      const refused = async (reason: string): Promise<Fault> => {
        await record.sessionRefused(labelAccount(username), reason);
        return new Fault("sign_in_refused", `Cannot sign in: ${reason}`, {
          guess: guessDigest(username, password),
        });
      };
      const signedIn = await signIn({ username, password, network }).catch(async (thrown) => {
        // Also what was not even tried is on record with its account: too many failures, too many in the queue.
        await record.sessionRefused(labelAccount(username), toFault(thrown).kind);
        throw thrown;
      });
      if (!signedIn.ok) throw await refused(signedIn.reason);
      const user = signedIn.value;
      const { session, refreshToken, displaced } = await sessions.open({ userId: user.id, network, boundTo });
      if (await readStandingAccount(users, user, password) === undefined) {
        await sessions.end(session);
        throw await refused("changed_meanwhile");
      }
      const issued = await accessTokens.issue({
        subject: user.id,
        session: session.id,
        scope: null,
        boundTo,
      });
      record.identify({
        issuer,
        subject: user.id,
        team: user.team,
        credential: issued.id,
      });
      // Durable before the tokens leave: no session without its record.
      await record.sessionStarted({
        session: session.id,
        displaced,
        expiresAtSeconds: inSeconds(session.expiresAtMs),
      });
      return {
        status: 200,
        body: {
          access_token: issued.token,
          token_type: boundTo === null ? "Bearer" : "DPoP",
          expires_in: accessTokens.ttlSeconds,
          refresh_token: refreshToken,
          refresh_expires_in: inSeconds(session.expiresAtMs - clock.now()),
        },
      };
    },
  });
}
