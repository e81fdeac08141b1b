// Sign-in: a name and a password to an account, with one answer in one time whatever is wrong (ASVS V6.3.8).
import { encodeBase64url } from "../encoding/base64url.ts";
import { Fault } from "../faults/fault.ts";
import { no, ok, type Outcome } from "../faults/outcome.ts";
import type { Lockout } from "../limits/lockout.ts";
import type { Clock } from "../time/clock.ts";
import type { KeyRing } from "../vault/key_ring.ts";
import type { SealedTable } from "../vault/sealed_store.ts";
import { hashPassword, needsRehash, verifyPassword } from "./password_hash.ts";
import type { User, Users } from "./users.ts";

/** Why not; for the audit trail. The caller is told the same for all of them. */
export type SignInRefusal = "unknown_user" | "wrong_password" | "disabled";

/** What somebody brings to sign in. */
export interface SignInAttempt {
  readonly username: string;
  readonly password: string;
  /** Text of the client's network. */
  readonly network: string;
}

/** Checks credentials. */
export interface SignIn {
  /** Throws Fault `rate_limited` when too many attempts failed before, `overloaded` when too many wait, `unavailable` when the store fails. */
  (attempt: SignInAttempt): Promise<Outcome<User, SignInRefusal>>;
  /** Forgets the failures of an account; whether there were any. */
  unlock(username: string): Promise<boolean>;
}

/** For so long after a success an account's network is one that others cannot lock out. */
const KNOWN_FOR_MS = 90 * 86_400_000;

/** Prepares sign-in: makes the hash that stands in for unknown users. */
export async function openSignIn(options: {
  readonly users: Users;
  readonly lockout: Lockout;
  readonly sealed: (table: string) => SealedTable;
  readonly keyRing: KeyRing;
  readonly clock: Clock;
}): Promise<SignIn> {
  const { users, lockout, sealed, keyRing, clock } = options;
  const knownNetworks = sealed("known_networks");
  const decoyHash = await hashPassword(encodeBase64url(crypto.getRandomValues(new Uint8Array(32))));
  const labelAccount = (username: string): string => keyRing.pseudonym("account", username);

  /** A hash that would cost more by now is made anew while the password is at hand. Returns the account as it is then. */
  async function rehash(user: User, password: string): Promise<User> {
    const found = await users.read(user.id);
    // Not where the password was changed meanwhile: the old one would come back.
    if (found?.value.passwordHash !== user.passwordHash) return user;
    const next = { ...found.value, passwordHash: await hashPassword(password) };
    return await users.replace(found, next) ? next : user;
  }

  async function signIn(
    { username, password, network }: SignInAttempt,
  ): Promise<Outcome<User, SignInRefusal>> {
    const account = labelAccount(username);
    const knownKey = keyRing.pseudonym("address", `${account} ${network}`);
    const isKnown = await knownNetworks.get(knownKey) !== undefined;
    const taken = await lockout.take(account, keyRing.pseudonym("address", network), isKnown);
    if (!taken.ok) {
      throw new Fault("rate_limited", "Cannot sign in: too many attempts failed", {
        detail: "Too many attempts to sign in failed. Try again later.",
        retryAfterSeconds: Math.ceil(taken.retryAfterMs / 1000),
      });
    }
    // Counted as failed until it has succeeded, also where this throws.
    const user = await users.findByName(username);
    // An unknown user costs a whole verification too, and a disabled one is told from the others only after it.
    const matches = await verifyPassword(password, user?.passwordHash ?? decoyHash, { isKnown }).catch(
      async (thrown) => {
        // Too many wait for the hash: that is not the caller's failure. Where this cannot be written, it stays counted.
        await taken.attempt.withdrawn().catch(() => {});
        throw thrown;
      },
    );
    if (user === undefined) return no("unknown_user");
    if (!matches) return no("wrong_password");
    if (user.disabled) return no("disabled");
    await taken.attempt.succeeded();
    await knownNetworks.put(knownKey, {}, { expiresAtMs: clock.now() + KNOWN_FOR_MS });
    // Nobody is kept out because it does not work out: there is another sign-in.
    return ok(needsRehash(user.passwordHash) ? await rehash(user, password).catch(() => user) : user);
  }

  return Object.assign(signIn, { unlock: (username: string) => lockout.unlock(labelAccount(username)) });
}
