// Tests of sign-in: the right password alone opens, and an unknown name costs what a known one costs.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { hashPassword } from "../../src/identity/password_hash.ts";
import { openSignIn } from "../../src/identity/sign_in.ts";
import { openUserAccounts } from "./open_identity.ts";

const ADA = { username: "ada", password: "violet kettle 31", roles: ["user"] };

Deno.test("sign-in gives the account to its name and password, and a private reason to all else", async () => {
  const { users } = await openUserAccounts();
  const ada = await users.create(ADA);
  const signIn = await openSignIn(users);
  deepStrictEqual(await signIn("ada", ADA.password), { ok: true, value: ada });
  deepStrictEqual(await signIn("ada", "Violet kettle 31"), { ok: false, reason: "wrong_password" });
  deepStrictEqual(await signIn("ada", ""), { ok: false, reason: "wrong_password" });
  deepStrictEqual(await signIn("Ada", ADA.password), { ok: false, reason: "unknown_user" });
  deepStrictEqual(await signIn("", ""), { ok: false, reason: "unknown_user" });
});

Deno.test("ASVS V6.3.8: an unknown name takes a turn at the password hash as a known one does", async () => {
  const { users } = await openUserAccounts();
  const signIn = await openSignIn(users);
  // All turns are taken: who needs one is refused, and who needs none would be answered.
  const pending = Array.from({ length: 52 }, () => hashPassword("x", { memoryKib: 8, passes: 1 }));
  await rejects(signIn("nobody", ADA.password), (thrown) => {
    ok(thrown instanceof Fault);
    strictEqual(thrown.kind, "overloaded");
    return true;
  });
  await Promise.all(pending);
  deepStrictEqual(await signIn("nobody", ADA.password), { ok: false, reason: "unknown_user" });
});

Deno.test("a store that fails is a fault, not an unknown user", async () => {
  const { users, store, keyRing } = await openUserAccounts();
  await users.create(ADA);
  const signIn = await openSignIn(users);
  await store.put("users", keyRing.pseudonym("account", "ada"), Uint8Array.of(1, 2, 3));
  await rejects(
    signIn("ada", ADA.password),
    (thrown) => thrown instanceof Fault && thrown.kind === "unavailable",
  );
});
