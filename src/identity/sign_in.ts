// Sign-in: a name and a password to an account, with one answer in one time whatever is wrong (ASVS V6.3.8).
import { encodeBase64url } from "../encoding/base64url.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import { hashPassword, verifyPassword } from "./password_hash.ts";
import type { User, Users } from "./users.ts";

/** Checks credentials. The reason is for the audit trail; the caller is told the same for both. */
export type SignIn = (
  username: string,
  password: string,
) => Promise<Outcome<User, "unknown_user" | "wrong_password">>;

/** Prepares sign-in: makes the hash that stands in for unknown users. */
export async function openSignIn(users: Users): Promise<SignIn> {
  const decoyHash = await hashPassword(encodeBase64url(crypto.getRandomValues(new Uint8Array(32))));
  return async (username, password) => {
    const user = await users.find(username);
    // An unknown user costs a whole verification too.
    const matches = await verifyPassword(password, user?.passwordHash ?? decoyHash);
    if (user === undefined) return no("unknown_user");
    return matches ? ok(user) : no("wrong_password");
  };
}
