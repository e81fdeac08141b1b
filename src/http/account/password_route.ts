// Password route: a user changes the own password, by proving to know the old one.
import { z } from "@hono/zod-openapi";
import { Fault, toFault } from "../../faults/fault.ts";
import { checkPassword, PASSWORD_WORDS } from "../../identity/password_rules.ts";
import { changedMeanwhile, fieldRefused } from "../administer.ts";
import { principalOf } from "../exchange.ts";
import { guessDigest } from "../middleware/guessed_credential.ts";
import { problemDialect } from "../problem.ts";
import { objectNotFound } from "../require_access.ts";
import { type AnyRoute, defineRoute } from "../route.ts";
import type { AccountParts } from "./account_parts.ts";
import { readStandingAccount } from "./standing_account.ts";

const passwords = z.strictObject({
  current_password: z.string().min(1).max(1024),
  new_password: z.string().min(1).max(1024),
});

/** Two of the longest passwords, with each character escaped, and some room. */
const PASSWORDS_BYTES_MAX = 16 * 1024;

/** `POST /v1/auth/password`. */
export function passwordRoute(parts: AccountParts): AnyRoute {
  const { users, signIn, sessions, labelAccount } = parts;
  return defineRoute({
    method: "POST",
    path: "/v1/auth/password",
    summary: "Change the own password, and end all other sessions",
    policy: { kind: "action", action: "password:write" },
    dialect: problemDialect,
    rated: true,
    body: passwords,
    bodyBytesMax: PASSWORDS_BYTES_MAX,
    answers: { 204: { description: "The new password holds, and no other session is left." } },
    faults: ["sign_in_refused", "not_found", "conflict"],
    async handle(exchange, { current_password: current, new_password: next }) {
      const principal = principalOf(exchange);
      const { record, clientNetwork: network } = exchange;
      const { subject, credential } = principal;
      if (principal.kind !== "user") {
        throw new Fault("forbidden", "Cannot change a password: the caller is no user of this server", {
          detail: "Only users of this server have a password here.",
        });
      }
      const account = (await users.read(subject))?.value;
      if (account === undefined) throw objectNotFound("the caller's account is gone");
      const { username } = account;
      const checked = await checkPassword(next, username);
      if (!checked.ok) throw fieldRefused("/new_password", PASSWORD_WORDS[checked.reason]);

      // As at sign-in, so that a stolen token is no way to guess the password faster.
      const proved = await signIn({ username, password: current, network }).catch(async (thrown) => {
        await record.sessionRefused(labelAccount(username), toFault(thrown).kind);
        throw thrown;
      });
      if (!proved.ok) {
        await record.sessionRefused(labelAccount(username), proved.reason);
        throw new Fault("sign_in_refused", `Cannot change a password: ${proved.reason}`, {
          detail: "The current password is wrong.",
          guess: guessDigest(username, current),
        });
      }
      const found = await readStandingAccount(users, proved.value, current);
      if (found === undefined) throw changedMeanwhile("a password");
      await record.changing("password:write", `user/${subject}`, null, { password: "changed" });
      if (!await users.setPassword(found, next)) throw changedMeanwhile("a password");
      for (const session of await sessions.list(subject)) {
        if (session.id !== credential.session) await sessions.end(session);
      }
      return { status: 204 };
    },
  });
}
