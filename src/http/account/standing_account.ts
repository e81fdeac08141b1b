// Standing account: whether what a password has just proved is still so, once time has passed.
import type { Kept } from "../../identity/kept.ts";
import { verifyPassword } from "../../identity/password_hash.ts";
import type { User, Users } from "../../identity/users.ts";

/**
 * The account as it stands now; undefined when it was disabled, deleted or given another password since it was read.
 * Whoever does that ends the sessions that are there at that moment: what opens just then has to look again itself.
 */
export async function readStandingAccount(
  users: Users,
  { id, passwordHash }: User,
  password: string,
): Promise<Kept<User> | undefined> {
  const now = await users.read(id);
  if (now === undefined || now.value.disabled) return undefined;
  // Another hash may be of the same password, made anew because its cost went up.
  const holds = now.value.passwordHash === passwordHash ||
    await verifyPassword(password, now.value.passwordHash);
  return holds ? now : undefined;
}
