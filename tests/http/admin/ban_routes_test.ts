// Tests of the ban routes: who sees bans, what can be banned, and what is on record of it.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { Principal } from "../../../src/access/principal.ts";
import { NOBODY, openWorld, refusalOf, typesOf, type World } from "./handler_under_test.ts";

const PATH = "/v1/bans";
/** Where the calls of these tests come from. */
const OWN_ADDRESS = "192.0.2.1";

const as = (world: World, role: string): Principal =>
  world.as({ id: `usr_${NOBODY}`, team: "red", roles: [role] });

async function openBans(): Promise<{ readonly world: World; readonly admin: Principal }> {
  const world = await openWorld();
  return { world, admin: as(world, "admin") };
}

Deno.test("an admin bans an address, sees it, and lifts the ban, each with its record before it", async () => {
  const { world, admin } = await openBans();
  const made = await world.call(admin, "POST", PATH, {
    address: "198.51.100.7",
    seconds: 3600,
    note: "a scanner",
  });
  const createdAt = world.clock.now() / 1000;
  strictEqual(made.status, 201);
  deepStrictEqual({ ...made.body, id: "" }, {
    id: "",
    address: "198.51.100.7",
    reason: "manual",
    note: "a scanner",
    created_at: createdAt,
    until: createdAt + 3600,
    count: 1,
    actor: `${world.issuer} ${admin.subject}`,
  });
  const address = world.labelAddress("198.51.100.7");
  deepStrictEqual(
    made.events.map((event) =>
      event.type === "object.changed"
        ? [event.action, event.object, event.before, event.after]
        : event.type === "request.allowed"
        ? [event.action, event.object]
        : event.type
    ),
    [
      ["ban:write", "ban/new", null, { address, seconds: 3600, note: "a scanner" }],
      ["ban:write", `ban/${made.body.id}`],
    ],
  );
  strictEqual(world.bans.find("198.51.100.7")?.id, made.body.id);

  const list = await world.call(admin, "GET", PATH);
  deepStrictEqual(list.body, { data: [made.body], next: null });
  deepStrictEqual(typesOf(list), ["request.allowed"]);

  const lifted = await world.call(admin, "DELETE", `${PATH}/${made.body.id}`);
  strictEqual(lifted.status, 204);
  const [event, ...others] = lifted.events;
  deepStrictEqual(others, []);
  ok(event?.type === "object.changed");
  deepStrictEqual([event.object, event.before, event.after], [
    `ban/${made.body.id}`,
    { address, reason: "manual", count: 1, until: createdAt + 3600 },
    { lifted: true, forgotten: false },
  ]);
  strictEqual(world.bans.find("198.51.100.7"), undefined);
  for (const id of [made.body.id, `ban_${NOBODY}`, `usr_${NOBODY}`, "198.51.100.7"]) {
    deepStrictEqual(refusalOf(await world.call(admin, "DELETE", `${PATH}/${id}`)), [404, "not_found"], id);
  }
});

Deno.test("a ban does not hold where its record cannot be kept, and is not lifted either", async () => {
  const { world, admin } = await openBans();
  const order = { address: "198.51.100.7", seconds: null };
  world.trail.setFailing(true);
  deepStrictEqual(refusalOf(await world.call(admin, "POST", PATH, order)), [503, "unavailable"]);
  strictEqual(world.bans.find("198.51.100.7"), undefined);
  world.trail.setFailing(false);
  const { body } = await world.call(admin, "POST", PATH, order);
  world.trail.setFailing(true);
  deepStrictEqual(refusalOf(await world.call(admin, "DELETE", `${PATH}/${body.id}`)), [503, "unavailable"]);
  strictEqual(world.bans.find("198.51.100.7")?.id, body.id);
});

Deno.test("of an IPv6 address its whole /64 is banned, however it is written; a ban for good has no end", async () => {
  for (
    const address of ["2001:db8:0:1::7", "2001:DB8:0:1::/64", "2001:db8:0:1:ffff::", "2001:db8:0:1::1/128"]
  ) {
    const { world, admin } = await openBans();
    const { body } = await world.call(admin, "POST", PATH, { address, seconds: null });
    deepStrictEqual([body.address, body.until], ["2001:db8:0:1::/64", null], address);
    // As it is listed it can be sent again.
    await world.call(admin, "DELETE", `${PATH}/${body.id}`);
    const again = await world.call(admin, "POST", PATH, { address: body.address, seconds: null });
    deepStrictEqual([again.status, again.body.count], [201, 2]);
  }
  const { world, admin } = await openBans();
  const mapped = await world.call(admin, "POST", PATH, { address: "::ffff:198.51.100.7", seconds: 1 });
  strictEqual(mapped.body.address, "198.51.100.7");
});

Deno.test("what is no single address, and what no ban can last, is refused with its field", async () => {
  const { world, admin } = await openBans();
  const good = { address: "198.51.100.7", seconds: 60 };
  const wrong = [
    ...[
      "",
      "x",
      "198.51.100.0/24",
      "198.51.100.7:80",
      "2001:db8::/48",
      "2001:db8::/65",
      "0198.51.100.7",
      " 1.2.3.4",
    ]
      .map((address) => [{ ...good, address }, "/address"] as const),
    [{ ...good, seconds: 0 }, "/seconds"] as const,
    [{ ...good, seconds: 1.5 }, "/seconds"] as const,
    [{ ...good, seconds: 1e12 }, "/seconds"] as const,
    [{ address: good.address }, "/seconds"] as const,
    [{ ...good, note: "two\nlines" }, "/note"] as const,
    [{ ...good, actor: "me" }, "/actor"] as const,
  ];
  for (const [body, field] of wrong) {
    const refused = await world.call(admin, "POST", PATH, body);
    deepStrictEqual(refusalOf(refused), [422, "fields_invalid", field], JSON.stringify(body));
    deepStrictEqual(refused.events, []);
  }
});

Deno.test("nobody bans the address that they come from, one that is exempt, or one that is banned already", async () => {
  const { world, admin } = await openBans();
  const own = await world.call(admin, "POST", PATH, { address: OWN_ADDRESS, seconds: 60 });
  deepStrictEqual([...refusalOf(own), own.detail], [409, "conflict", "You come from this address yourself."]);
  deepStrictEqual(own.events, []);
  const exempt = await world.call(admin, "POST", PATH, { address: "127.0.0.1", seconds: 60 });
  deepStrictEqual([...refusalOf(exempt), exempt.detail], [
    409,
    "conflict",
    "This address is one that is never banned.",
  ]);
  const order = { address: "198.51.100.7", seconds: 60 };
  strictEqual((await world.call(admin, "POST", PATH, order)).status, 201);
  const twice = await world.call(admin, "POST", PATH, order);
  deepStrictEqual([...refusalOf(twice), twice.detail], [409, "conflict", "This address is banned already."]);
  strictEqual(world.bans.find(OWN_ADDRESS), undefined);
});

Deno.test("a ban that is lifted with forget=true leaves nothing to count on", async () => {
  const { world, admin } = await openBans();
  const order = { address: "198.51.100.7", seconds: 60 };
  for (const [query, count] of [["", 1], ["?forget=false", 2], ["?forget=true", 3], ["", 1]] as const) {
    const { body } = await world.call(admin, "POST", PATH, order);
    strictEqual(body.count, count);
    strictEqual((await world.call(admin, "DELETE", `${PATH}/${body.id}${query}`)).status, 204);
  }
});

Deno.test("a ban that became another one meanwhile is not lifted", async () => {
  const { world, admin } = await openBans();
  const { body } = await world.call(admin, "POST", PATH, { address: "198.51.100.7", seconds: 60 });
  const ban = world.bans.read(body.id);
  ok(ban);
  world.changeMeanwhile(async () => {
    const [record] = await world.memory.list("bans", { limit: 1 });
    ok(record);
    await world.memory.delete("bans", record.key);
  });
  deepStrictEqual(refusalOf(await world.call(admin, "DELETE", `${PATH}/${body.id}`)), [409, "conflict"]);
});

Deno.test("pages of the list go on where the one before ended", async () => {
  const { world, admin } = await openBans();
  for (let host = 1; host <= 5; host++) {
    await world.call(admin, "POST", PATH, { address: `198.51.100.${host}`, seconds: 60 });
    world.clock.advance(1);
  }
  const found: string[] = [];
  for (let after = ""; after !== "end";) {
    const { body } = await world.call(admin, "GET", `${PATH}?limit=2${after}`);
    found.push(...body.data.map(({ address }: { address: string }) => address));
    after = body.next === null ? "end" : `&after=${body.next}`;
  }
  deepStrictEqual(found, [1, 2, 3, 4, 5].map((host) => `198.51.100.${host}`));
});

Deno.test("operators ban and lift, auditors see, and nobody else knows of bans", async () => {
  const { world, admin } = await openBans();
  const { body } = await world.call(admin, "POST", PATH, { address: "198.51.100.7", seconds: 60 });
  const order = { address: "198.51.100.8", seconds: 60 };
  for (
    const [role, expected] of [
      ["auditor", [200, 403, 403]],
      ["user", [403, 403, 403]],
      ["team-admin", [403, 403, 403]],
      ["operator", [200, 201, 204]],
    ] as const
  ) {
    const caller = as(world, role);
    deepStrictEqual(
      [
        (await world.call(caller, "GET", PATH)).status,
        (await world.call(caller, "POST", PATH, order)).status,
        (await world.call(caller, "DELETE", `${PATH}/${body.id}`)).status,
      ],
      expected,
      role,
    );
  }
});
