// Tests of users: found by their exact name only, and unreadable in the store.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { verifyPassword } from "../../src/identity/password_hash.ts";
import { openUserAccounts } from "./open_identity.ts";

const ADA = { username: "Ada.Lovelace", password: "violet kettle 31", roles: ["operator", "auditor"] };

function isFault(kind: string): (thrown: unknown) => true {
  return (thrown) => {
    ok(thrown instanceof Fault, String(thrown));
    strictEqual(thrown.kind, kind);
    return true;
  };
}

Deno.test("a created user is found with id, roles, birth and a hash of the password", async () => {
  const { users, clock } = await openUserAccounts();
  strictEqual(await users.isEmpty(), true);
  const created = await users.create(ADA);
  strictEqual(await users.isEmpty(), false);
  const found = await users.find("Ada.Lovelace");
  deepStrictEqual(found, created);
  match(created.id, /^usr_[0-9a-z]{26}$/);
  deepStrictEqual([created.username, created.roles, created.createdAtMs], [
    ADA.username,
    ADA.roles,
    clock.now(),
  ]);
  strictEqual(await verifyPassword(ADA.password, created.passwordHash), true);
});

Deno.test("a user is found by the exact name only: no case, form, space or prefix is folded", async () => {
  const { users } = await openUserAccounts();
  await users.create({ ...ADA, username: "Ådá" });
  for (
    const name of [
      "ådá",
      "ÅDÁ",
      "A\u030ada\u0301",
      "Ådá ",
      " Ådá",
      "Åd",
      "Ådáa",
      "",
      "%",
      "*",
      "Ådá\u0000",
      "A\u030adá",
    ]
  ) {
    strictEqual(await users.find(name), undefined, JSON.stringify(name));
  }
  ok(await users.find("Ådá"));
});

Deno.test("a name is taken once, also when two ask at once, and the first account stays as it was", async () => {
  const { users } = await openUserAccounts();
  const results = await Promise.allSettled([users.create(ADA), users.create({ ...ADA, roles: ["admin"] })]);
  const made = results.filter((result) => result.status === "fulfilled");
  strictEqual(made.length, 1);
  const refused = results.find((result) => result.status === "rejected");
  isFault("request_invalid")(refused?.reason);
  strictEqual(refused?.reason.details.detail, "The user name is taken.");
  deepStrictEqual(await users.find(ADA.username), made[0]?.value);
});

Deno.test("ASVS V14.2.6: nothing of a user can be read in the store: no name, role, id, password or hash", async () => {
  const { users, store } = await openUserAccounts();
  const user = await users.create(ADA);
  const records = await store.list("users", { limit: 10 });
  strictEqual(records.length, 1);
  const text = records.map(({ key, value }) => key + new TextDecoder("latin1").decode(value)).join();
  for (
    const word of [
      "Ada",
      "ada",
      "Lovelace",
      ADA.password,
      "operator",
      "auditor",
      "argon2",
      user.id,
      user.passwordHash,
    ]
  ) ok(!text.includes(word), word);
});

Deno.test("an account's record under another account's key is a fault, not that account", async () => {
  const { users, store } = await openUserAccounts();
  await users.create(ADA);
  const [ada] = await store.list("users", { limit: 1 });
  await users.create({ ...ADA, username: "mallory", roles: ["user"] });
  const mallory = (await store.list("users", { limit: 2 })).find(({ key }) => key !== ada?.key);
  ok(ada && mallory);
  await store.put("users", mallory.key, ada.value);
  await rejects(users.find("mallory"), isFault("unavailable"));
});

Deno.test("a sealed record that has no user's form is a fault", async () => {
  const { users, table, keyRing } = await openUserAccounts();
  const user = await users.create(ADA);
  const whole = { ...user, roles: [...user.roles] };
  const { id: _, ...withoutId } = whole;
  for (
    const record of [null, [], "text", 1, withoutId, { ...whole, roles: "admin" }, { ...whole, roles: [1] }, {
      ...whole,
      passwordHash: null,
    }, { ...whole, createdAtMs: "now" }]
  ) {
    await table.put(keyRing.pseudonym("account", ADA.username), record);
    await rejects(users.find(ADA.username), isFault("unavailable"), JSON.stringify(record));
  }
});
