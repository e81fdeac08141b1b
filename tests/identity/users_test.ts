// Tests of users: found by their id and by their exact name only, changed by one at a time, and unreadable in the store.
import { deepStrictEqual, match, notStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import type { JsonValue } from "../../src/encoding/canonical_json.ts";
import { verifyPassword } from "../../src/identity/password_hash.ts";
import { DEFAULT_TEAM } from "../../src/identity/teams.ts";
import { isUsername, userStanding } from "../../src/identity/users.ts";
import { isFault } from "./is_fault.ts";
import { openIdentityParts, openWatchedParts } from "./open_identity.ts";

const ADA = {
  username: "Ada.Lovelace",
  password: "violet kettle 31",
  roles: ["operator", "auditor"],
  team: DEFAULT_TEAM,
};
const RED = { id: "red", description: "", createdAtMs: 1 };

async function openPartsWithAda() {
  const parts = await openWatchedParts();
  const ada = await parts.users.create(ADA);
  const found = await parts.users.read(ada.id);
  ok(found);
  return { ...parts, ada, found };
}

Deno.test("a created user is found by id and name, with team, roles, birth and a hash of the password", async () => {
  const { users, clock } = await openIdentityParts();
  strictEqual(await users.isEmpty(), true);
  const created = await users.create(ADA);
  strictEqual(await users.isEmpty(), false);
  deepStrictEqual((await users.read(created.id))?.value, created);
  deepStrictEqual(await users.findByName(ADA.username), created);
  match(created.id, /^usr_[0-9a-z]{26}$/);
  const { id: _, passwordHash, ...rest } = created;
  deepStrictEqual(rest, {
    username: ADA.username,
    team: DEFAULT_TEAM,
    roles: ADA.roles,
    disabled: false,
    createdAtMs: clock.now(),
  });
  strictEqual(await verifyPassword(ADA.password, passwordHash), true);
});

Deno.test("an id that is nobody's finds nobody, whatever it looks like", async () => {
  const { users, ada, keyRing } = await openPartsWithAda();
  for (
    const id of [
      "",
      "usr_",
      ada.id.toUpperCase(),
      `${ada.id}0`,
      `${ada.id}\u0000`,
      "usr_0".padEnd(30, "0"),
      "*",
    ]
      .concat(ada.username, keyRing.pseudonym("account", ada.username), "cli_0".padEnd(30, "0"))
  ) strictEqual(await users.read(id), undefined, JSON.stringify(id));
});

Deno.test("a user is found by the exact name only: no case, form, space or prefix is folded", async () => {
  const { users } = await openIdentityParts();
  await users.create({ ...ADA, username: "Ådá" });
  const others = ["ådá", "ÅDÁ", "A\u030ada\u0301", "Ådá ", " Ådá", "Åd", "Ådáa", "", "%", "*", "Ådá\u0000"];
  for (const name of [...others, "A\u030adá", "\u212bdá", "Ådá\u200b"]) {
    strictEqual(await users.findByName(name), undefined, JSON.stringify(name));
  }
  ok(await users.findByName("Ådá"));
});

Deno.test("names that differ in case are different accounts", async () => {
  const { users } = await openIdentityParts();
  const [upper, lower] = [
    await users.create({ ...ADA, username: "Ada" }),
    await users.create({ ...ADA, username: "ada" }),
  ];
  notStrictEqual(upper.id, lower.id);
  strictEqual((await users.findByName("ada"))?.id, lower.id);
});

Deno.test("a name is 1 to 128 visible letters, digits and . _ @ + - in Unicode's form C; no other can be given", async () => {
  const { users } = await openIdentityParts();
  for (
    const name of ["a", "7", ".", "ada@example.com", "a+b_c-d", "Ådá", "李雷", "٣", "𐐀", "x".repeat(128)]
  ) {
    strictEqual(isUsername(name), true, name);
  }
  for (
    const name of [
      "",
      "x".repeat(129),
      "a b",
      "a/b",
      "a:b",
      "a\n",
      "a\u0000",
      "a*",
      "<b>",
      "a\ud800",
      "A\u030ada", // a combining mark
      "\u212bda", // Ångström's sign, which is Å in form C
      "\u1100\u1161", // two Jamo, which are one syllable in form C
      "ad\u200ba", // zero-width space
      "ad\u3164a", // Hangul filler: a letter that is not seen
      "ad\u202ea", // right to left
      "ad\u00ada", // soft hyphen
      "👩",
    ]
  ) {
    strictEqual(isUsername(name), false, JSON.stringify(name));
    await rejects(users.create({ ...ADA, username: name }), isFault("fields_invalid"), JSON.stringify(name));
  }
  strictEqual(await users.isEmpty(), true);
});

Deno.test("a name is taken once, also when two ask at once, and the first account stays as it was", async () => {
  const { users, ada } = await openPartsWithAda();
  const taken = isFault("conflict", "The user name is taken.");
  await rejects(users.create({ ...ADA, roles: ["admin"] }), taken);
  const results = await Promise.allSettled(
    [["user"], ["admin"]].map((roles) => users.create({ ...ADA, username: "eve", roles })),
  );
  const made = results.filter((result) => result.status === "fulfilled");
  strictEqual(made.length, 1);
  taken(results.find((result) => result.status === "rejected")?.reason);
  deepStrictEqual(await users.findByName("eve"), made[0]?.value);
  deepStrictEqual(await users.findByName(ADA.username), ada);
  strictEqual((await users.list({ limit: 10 })).length, 2);
});

Deno.test("many users of one team are made at once: none is lost to the others", async () => {
  const { users } = await openIdentityParts();
  const names = Array.from({ length: 8 }, (_, index) => `user${index}`);
  await Promise.all(names.map((username) => users.create({ ...ADA, username })));
  deepStrictEqual((await users.list({ limit: 20 })).map(({ username }) => username).toSorted(), names);
});

Deno.test("users are listed in pages by their ids, which is by age", async () => {
  const { users, clock } = await openIdentityParts();
  const made = [];
  for (const username of ["c", "a", "b"]) {
    made.push(await users.create({ ...ADA, username }));
    clock.advance(1);
  }
  deepStrictEqual(await users.list({ limit: 10 }), made);
  deepStrictEqual(await users.list({ limit: 2 }), made.slice(0, 2));
  deepStrictEqual(await users.list({ after: made[0]?.id ?? "", limit: 1 }), made.slice(1, 2));
});

Deno.test("ASVS V15.4.2: of two who change what they read, one does, and whoever comes later does not", async () => {
  const { users, ada, found } = await openPartsWithAda();
  const changes = [{ ...ada, roles: [] }, { ...ada, disabled: true }];
  const made = await Promise.all(changes.map((next) => users.replace(found, next)));
  deepStrictEqual(made.toSorted(), [false, true]);
  const changed = changes[made.indexOf(true)];
  strictEqual(await users.replace(found, ada), false);
  strictEqual(await users.remove(found), false);
  deepStrictEqual(await users.findByName(ADA.username), changed);
});

Deno.test("a changed user keeps id and name, whatever is given", async () => {
  const { users, ada, found } = await openPartsWithAda();
  const next = { ...ada, id: "usr_other", username: "eve", roles: ["user"], disabled: true };
  strictEqual(await users.replace(found, next), true);
  deepStrictEqual(await users.findByName(ADA.username), { ...next, id: ada.id, username: ADA.username });
  strictEqual(await users.findByName("eve"), undefined);
  strictEqual((await users.list({ limit: 10 })).length, 1);
});

Deno.test("nobody is made in, or moved to, a team that does not exist", async () => {
  const { users, ada, found } = await openPartsWithAda();
  const refused = isFault("conflict", "There is no such team.");
  for (const team of ["red", "", "*", "Default"]) {
    await rejects(users.create({ ...ADA, username: "eve", team }), refused);
    await rejects(users.replace(found, { ...ada, team }), refused);
  }
  deepStrictEqual(await users.list({ limit: 10 }), [ada]);
});

Deno.test("a move waits out a change of the team, and fails when the user changed meanwhile", async () => {
  const { users, teams, ada, found, store } = await openPartsWithAda();
  await teams.create(RED);
  store.beforeNextWrite(async () => {
    const red = await teams.read("red");
    ok(red);
    strictEqual(await teams.replace(red, { ...RED, description: "new" }), true);
  });
  strictEqual(await users.replace(found, { ...ada, team: "red" }), true);
  const moved = await users.read(ada.id);
  ok(moved);
  strictEqual(moved.value.team, "red");
  store.beforeNextWrite(async () => void await users.replace(moved, { ...moved.value, roles: [] }));
  strictEqual(await users.replace(moved, { ...moved.value, team: DEFAULT_TEAM }), false);
  deepStrictEqual((await users.read(ada.id))?.value, { ...ada, team: "red", roles: [] });
});

Deno.test("a new password is the only one that is right, and is not set over another change", async () => {
  const { users, ada, found } = await openPartsWithAda();
  strictEqual(await users.setPassword(found, "harvest lantern 8"), true);
  const changed = await users.findByName(ADA.username);
  ok(changed);
  strictEqual(await verifyPassword("harvest lantern 8", changed.passwordHash), true);
  strictEqual(await verifyPassword(ADA.password, changed.passwordHash), false);
  deepStrictEqual({ ...changed, passwordHash: ada.passwordHash }, ada);
  strictEqual(await users.setPassword(found, "third of them 77"), false);
  deepStrictEqual(await users.findByName(ADA.username), changed);
});

Deno.test("a removed user is found by nothing, and whoever takes the name is somebody else", async () => {
  const { users, ada, found, clock } = await openPartsWithAda();
  strictEqual(await users.remove(found), true);
  strictEqual(await users.read(ada.id), undefined);
  strictEqual(await users.findByName(ADA.username), undefined);
  deepStrictEqual(await users.list({ limit: 10 }), []);
  strictEqual(await users.isEmpty(), true);
  clock.advance(1);
  const other = await users.create(ADA);
  notStrictEqual(other.id, ada.id);
  strictEqual(await users.remove(found), false, "that one is gone already");
  deepStrictEqual(await users.findByName(ADA.username), other);
});

Deno.test("ASVS V7.4.2: a change of a user holds for the gate at once, also where its outcome is not known", async () => {
  const { users, standings, ada, found, store } = await openPartsWithAda();
  deepStrictEqual(await standings.load(ada.id), {
    kind: "user",
    team: DEFAULT_TEAM,
    roles: ADA.roles,
    active: true,
  });
  await users.replace(found, { ...ada, disabled: true });
  strictEqual(standings.known(ada.id), undefined);
  strictEqual((await standings.load(ada.id))?.active, false);
  const disabled = await users.read(ada.id);
  ok(disabled);
  store.beforeNextWrite(() => Promise.reject(new Error("no disk")));
  await rejects(users.remove(disabled), /no disk/);
  strictEqual(standings.known(ada.id), undefined);
  await standings.load(ada.id);
  await users.remove(disabled);
  strictEqual(standings.known(ada.id), undefined);
  strictEqual(await standings.load(ada.id), undefined);
  strictEqual(userStanding(undefined), undefined);
});

Deno.test("ASVS V14.2.6: nothing of a user was ever readable in the store: no name, role, password or hash", async () => {
  const { users, ada, found, store } = await openPartsWithAda();
  await users.setPassword(found, "harvest lantern 8");
  const changed = await users.findByName(ADA.username);
  const text = store.everWritten();
  ok(text.includes("user_names"));
  for (
    const word of [
      "Lovelace",
      ADA.password,
      "harvest",
      "operator",
      "auditor",
      "argon2",
      ada.passwordHash,
      changed?.passwordHash ?? "",
    ]
  ) ok(!text.includes(word), word);
});

Deno.test("an account's record under another account's id is a fault, not that account", async () => {
  const { users, ada, store } = await openPartsWithAda();
  const eve = await users.create({ ...ADA, username: "eve", roles: [] });
  await store.put("users", eve.id, (await store.get("users", ada.id)) ?? new Uint8Array());
  await rejects(users.findByName("eve"), isFault("unavailable"));
});

Deno.test("a sealed record that has no user's form is a fault", async () => {
  const { users, ada, sealed, keyRing } = await openPartsWithAda();
  const whole = { ...ada, roles: [...ada.roles] };
  const { id: _, ...withoutId } = whole;
  for (
    const record of [
      null,
      [],
      "text",
      1,
      withoutId,
      { ...whole, roles: "admin" },
      { ...whole, roles: [1] },
      { ...whole, team: null },
      { ...whole, disabled: 0 },
      { ...whole, passwordHash: null },
      { ...whole, createdAtMs: "now" },
    ]
  ) {
    await sealed("users").put(ada.id, record);
    await rejects(users.findByName(ADA.username), isFault("unavailable"), JSON.stringify(record));
    await rejects(users.list({ limit: 10 }), isFault("unavailable"));
  }
  await sealed("user_names").put(keyRing.pseudonym("account", ADA.username), { id: 7 });
  await rejects(users.findByName(ADA.username), isFault("unavailable"));
});

/** Accounts as version 0.1 kept them. */
async function openPartsWithOldAccounts(usernames: readonly string[]) {
  const parts = await openWatchedParts();
  const old: JsonValue[] = [];
  for (const username of usernames) {
    const { id, roles, passwordHash, createdAtMs } = await parts.users.create({ ...ADA, username });
    const record = { id, username, roles, passwordHash, createdAtMs };
    const key = parts.keyRing.pseudonym("account", username);
    await parts.store.delete("users", id);
    await parts.store.delete("user_names", key);
    await parts.sealed("users").put(key, record);
    old.push(record);
  }
  return { ...parts, old };
}

Deno.test("accounts in the form of version 0.1 are moved when the users are opened, once, beside new ones", async () => {
  const before = await openPartsWithOldAccounts(["admin", "Ådá", "z", "0"]);
  const fresh = await before.users.create({ ...ADA, username: "fresh" });
  for (let opening = 0; opening < 2; opening++) {
    const { users, store } = await openIdentityParts(before);
    for (const record of before.old) {
      const { username, ...rest } = record as { readonly username: string };
      const user = await users.findByName(username);
      deepStrictEqual(user, { ...rest, username, team: DEFAULT_TEAM, disabled: false });
      deepStrictEqual((await users.read(user?.id ?? ""))?.value, user);
    }
    deepStrictEqual(await users.findByName("fresh"), fresh);
    strictEqual((await users.list({ limit: 10 })).length, 5);
    ok((await store.list("users", { limit: 10 })).every(({ key }) => key.startsWith("usr_")));
    await rejects(users.create({ ...ADA, username: "admin" }), isFault("conflict"));
  }
});

Deno.test("two instances that move old accounts at the same time move each once", async () => {
  const before = await openPartsWithOldAccounts(["admin", "ada"]);
  const opened = await Promise.all([openIdentityParts(before), openIdentityParts(before)]);
  for (const { users } of opened) strictEqual((await users.list({ limit: 10 })).length, 2);
});

Deno.test("an old account that cannot be moved is a fault at the opening, and stays where it is", async () => {
  const taken = await openPartsWithOldAccounts(["admin"]);
  const key = taken.keyRing.pseudonym("account", "admin");
  await taken.sealed("user_names").put(key, { id: "usr_other" });
  await rejects(openIdentityParts(taken), isFault("unavailable"));
  ok(await taken.store.get("users", key));
  const broken = await openWatchedParts();
  for (const record of [null, "text", { id: "usr_1" }]) {
    await broken.sealed("users").put(key, record);
    await rejects(openIdentityParts(broken), isFault("unavailable"));
  }
});

Deno.test("what one user changes of another holds only while the one is as it was read", async () => {
  const { users, ada, found, store } = await openPartsWithAda();
  const eve = await users.create({ ...ADA, username: "eve" });
  const by = await users.read(eve.id);
  ok(by);
  const changeEve = async (): Promise<void> => {
    const now = await users.read(eve.id);
    ok(now && await users.replace(now, { ...now.value, disabled: !now.value.disabled }));
  };
  store.beforeNextWrite(changeEve);
  strictEqual(await users.replace(found, { ...ada, roles: [] }, by), false);
  strictEqual(await users.remove(found, by), false);
  deepStrictEqual((await users.read(ada.id))?.value, ada);
  const now = await users.read(eve.id);
  ok(now);
  strictEqual(await users.replace(found, { ...ada, roles: [] }, now), true);
  // It was looked at and not changed.
  deepStrictEqual((await users.read(eve.id))?.version, now.version);
  const changed = await users.read(ada.id);
  ok(changed && await users.remove(changed, now));
  ok(await users.remove(now));
  strictEqual(await users.isEmpty(), true);
});

Deno.test("of two users who remove each other at the same moment, one is left", async () => {
  const { users, ada, found } = await openPartsWithAda();
  const eve = await users.create({ ...ADA, username: "eve" });
  const other = await users.read(eve.id);
  ok(other);
  const removed = await Promise.all([users.remove(other, found), users.remove(found, other)]);
  deepStrictEqual(removed.toSorted(), [false, true]);
  strictEqual((await users.list({ limit: 10 })).length, 1);
  // Of oneself it is one record, which goes.
  const last = await users.read(removed[0] ? ada.id : eve.id);
  ok(last && await users.remove(last, last));
});
