// Tests of teams: named by a grammar, changed by one at a time, and never removed under somebody's feet.
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { DEFAULT_TEAM, TEAM_PATTERN } from "../../src/identity/teams.ts";
import { isFault } from "./is_fault.ts";
import { openIdentityParts, openWatchedParts } from "./open_identity.ts";

const RED = { id: "red", description: "The red ones", createdAtMs: 1 };
const ADA = { username: "ada", password: "violet kettle 31", roles: [], team: "red" };

Deno.test("the default team is there from the start, keeps its birth over restarts, and cannot be removed", async () => {
  const parts = await openIdentityParts();
  const born = { id: DEFAULT_TEAM, description: "", createdAtMs: parts.clock.now() };
  parts.clock.advance(1000);
  const { teams } = await openIdentityParts(parts);
  const found = await teams.read(DEFAULT_TEAM);
  deepStrictEqual(found?.value, born);
  ok(found);
  await rejects(teams.remove(found), isFault("conflict", "The default team stays."));
  deepStrictEqual(await teams.list({ limit: 10 }), [born]);
});

Deno.test("a team is made once, read, listed in pages by id, changed and removed", async () => {
  const { teams } = await openIdentityParts();
  strictEqual(await teams.read("red"), undefined);
  strictEqual(await teams.create(RED), true);
  strictEqual(await teams.create({ ...RED, description: "Others" }), false);
  strictEqual(await teams.create({ ...RED, id: "blue" }), true);
  const red = await teams.read("red");
  deepStrictEqual(red?.value, RED);
  deepStrictEqual((await teams.list({ limit: 2 })).map(({ id }) => id), ["blue", "default"]);
  deepStrictEqual(await teams.list({ after: "default", limit: 2 }), [RED]);
  ok(red);
  strictEqual(await teams.replace(red, { ...RED, id: "blue", description: "Still red" }), true);
  deepStrictEqual((await teams.read("red"))?.value, { ...RED, description: "Still red" });
  const changed = await teams.read("red");
  ok(changed);
  strictEqual(await teams.remove(changed), true);
  strictEqual(await teams.read("red"), undefined);
});

Deno.test("ASVS V15.4.2: of two who change or remove what they read, one does", async () => {
  const { teams } = await openIdentityParts();
  await teams.create(RED);
  const red = await teams.read("red");
  ok(red);
  const results = await Promise.all([
    teams.replace(red, { ...RED, description: "1" }),
    teams.replace(red, { ...RED, description: "2" }),
    teams.remove(red),
  ]);
  strictEqual(results.filter((made) => made).length, 1);
});

Deno.test("a team's id is 1 to 32 of a-z, 0-9 and inner hyphens; no other can be made", async () => {
  const { teams } = await openIdentityParts();
  for (const id of ["a", "0", "a-b", "a--b", "a".repeat(32)]) strictEqual(TEAM_PATTERN.test(id), true, id);
  for (
    const id of ["", "-a", "a-", "A", "ä", "a b", "a.b", "a/b", "*", "a\n", "a\u0000", "a".repeat(33)]
  ) {
    await rejects(teams.create({ ...RED, id }), isFault("fields_invalid"), JSON.stringify(id));
    strictEqual(await teams.read(id), undefined);
  }
});

Deno.test("a team that somebody joined since it was read is not removed", async () => {
  const { teams, users } = await openIdentityParts();
  await teams.create(RED);
  const before = await teams.read("red");
  deepStrictEqual(await users.list({ limit: 10 }), []); // nobody in it, says the handler
  const ada = await users.create(ADA);
  ok(before);
  strictEqual(await teams.remove(before), false);
  deepStrictEqual((await users.read(ada.id))?.value, ada);
});

Deno.test("a team that somebody moved to since it was read is not removed", async () => {
  const { teams, users } = await openIdentityParts();
  await teams.create(RED);
  const ada = await users.create({ ...ADA, team: DEFAULT_TEAM });
  const before = await teams.read("red");
  const found = await users.read(ada.id);
  ok(before && found);
  strictEqual(await users.replace(found, { ...ada, team: "red" }), true);
  strictEqual(await teams.remove(before), false);
});

Deno.test("a team that is removed while somebody joins it: they do not join, and their name stays free", async () => {
  const { teams, users, store } = await openWatchedParts();
  await teams.create(RED);
  store.beforeNextWrite(async () => {
    const red = await teams.read("red");
    ok(red);
    strictEqual(await teams.remove(red), true);
  });
  await rejects(users.create(ADA), isFault("conflict", "There is no such team."));
  strictEqual(await users.isEmpty(), true);
  ok(await users.create({ ...ADA, team: DEFAULT_TEAM }));
});

Deno.test("a sealed record that has no team's form is a fault", async () => {
  const { teams, sealed } = await openIdentityParts();
  for (const record of [null, [], "text", { description: "x" }, { description: 1, createdAtMs: 1 }]) {
    await sealed("teams").put("red", record);
    await rejects(teams.read("red"), isFault("unavailable"), JSON.stringify(record));
    await rejects(teams.list({ limit: 10 }), isFault("unavailable"));
  }
});
