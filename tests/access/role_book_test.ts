// Tests of the role book: custom roles that rest sealed, mean one thing in a team, and hold from the next request on.
import { deepStrictEqual, ok as isTrue, rejects, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { formatGrant } from "../../src/access/grant.ts";
import { BUILT_IN_ROLES, OWN_GRANTS, type Role } from "../../src/access/role.ts";
import { openRoleBook, type RoleBook } from "../../src/access/role_book.ts";
import { Fault } from "../../src/faults/fault.ts";
import { NO_OTHERS } from "../../src/store/change_feed.ts";
import { openMemoryRecordStore } from "../../src/store/memory_record_store.ts";
import type { RecordStore } from "../../src/store/record_store.ts";
import { openKeyRing } from "../../src/vault/key_ring.ts";
import { generateMasterKey, localMasterKey, parseMasterKey } from "../../src/vault/master_key.ts";
import { sealedTable } from "../../src/vault/sealed_store.ts";
import { ManualFeed } from "../support/manual_feed.ts";
import { manualClock } from "../support/manual_clock.ts";
import { grantsOf } from "./principal_of.ts";

async function openMatter() {
  const clock = manualClock();
  const store = openMemoryRecordStore(clock);
  const keyRing = await openKeyRing(store, localMasterKey(parseMasterKey(generateMasterKey())), clock);
  const table = sealedTable(store, keyRing, "roles");
  return { store, table, open: (over: RecordStore = store) => openRoleBook(over, table, NO_OTHERS) };
}

function role(team: string | null, name: string, ...grants: readonly string[]): Role {
  return {
    name,
    team,
    description: "For tests.",
    grants: grantsOf(...grants),
    builtIn: false,
    createdAtMs: 1_750_000_000_000,
  };
}

const isFault = (kind: string, detail?: string) => (thrown: unknown): true => {
  isTrue(thrown instanceof Fault);
  strictEqual(thrown.kind, kind, thrown.message);
  if (detail !== undefined) strictEqual(thrown.details.detail, detail);
  return true;
};
const isTaken = isFault("conflict", "The name means another role already.");
const isChanged = isFault("conflict", "The role was changed meanwhile. Read it again.");

/** What roles give, as texts. */
const givenBy = (book: RoleBook, team: string, ...names: readonly string[]) =>
  book.grantsOf(team, names).filter((grant) => !OWN_GRANTS.includes(grant)).map(formatGrant);

Deno.test("an empty book has the built-in roles, for every team and for the whole server", async () => {
  const book = await (await openMatter()).open();
  deepStrictEqual(book.list(), [...BUILT_IN_ROLES.values()]);
  for (const [name, builtIn] of BUILT_IN_ROLES) {
    strictEqual(book.find("red", name), builtIn);
    strictEqual(book.find(null, name), builtIn);
    deepStrictEqual(book.grantsOf("red", [name]), builtIn.grants);
  }
});

Deno.test("a custom role gives what it says from its making to its removal, to its own team alone", async () => {
  const book = await (await openMatter()).open();
  deepStrictEqual(givenBy(book, "red", "labs"), []);
  await book.put(role("red", "labs", "model:infer/lab-*", "key:read/own"), undefined);
  deepStrictEqual(givenBy(book, "red", "labs"), ["model:infer/lab-*", "key:read/own"]);
  deepStrictEqual(givenBy(book, "blue", "labs"), []);
  strictEqual(book.find("blue", "labs"), undefined);
  strictEqual(book.find(null, "labs"), undefined);

  const made = book.find("red", "labs");
  isTrue(made);
  await book.put(role("red", "labs", "user:read/own"), made);
  deepStrictEqual(givenBy(book, "red", "labs"), ["user:read/own"]);

  const replaced = book.find("red", "labs");
  isTrue(replaced);
  await book.remove(replaced);
  deepStrictEqual(givenBy(book, "red", "labs"), []);
  strictEqual(book.find("red", "labs"), undefined);
  strictEqual(book.list().length, BUILT_IN_ROLES.size);
});

Deno.test("a role for the whole server holds in every team", async () => {
  const book = await (await openMatter()).open();
  await book.put(role(null, "helpers", "session:end/team"), undefined);
  for (const team of ["red", "blue", "*", ""]) {
    deepStrictEqual(givenBy(book, team, "helpers"), ["session:end/team"]);
  }
  strictEqual(book.find("red", "helpers"), book.find(null, "helpers"));
});

Deno.test("roles of one name live side by side in different teams", async () => {
  const book = await (await openMatter()).open();
  await book.put(role("red", "labs", "model:infer/red-*"), undefined);
  await book.put(role("blue", "labs", "model:infer/blue-*"), undefined);
  deepStrictEqual(givenBy(book, "red", "labs"), ["model:infer/red-*"]);
  deepStrictEqual(givenBy(book, "blue", "labs"), ["model:infer/blue-*"]);
  deepStrictEqual(book.list().slice(BUILT_IN_ROLES.size).map(({ team }) => team), ["red", "blue"]);
});

Deno.test("roles give together what each of them gives; a name that is no role of the team gives nothing", async () => {
  const book = await (await openMatter()).open();
  await book.put(role("red", "labs", "model:infer/lab-*"), undefined);
  const user = BUILT_IN_ROLES.get("user")?.grants.map(formatGrant) ?? [];
  deepStrictEqual(givenBy(book, "red", "labs", "user"), ["model:infer/lab-*", ...user]);
  deepStrictEqual(givenBy(book, "red"), []);
  for (const name of ["", "Labs", "labs ", "gone", "*", "__proto__", "toString", "red/labs", "labs/user"]) {
    deepStrictEqual(givenBy(book, "red", name), [], name);
    deepStrictEqual(givenBy(book, "red", name, "labs"), ["model:infer/lab-*"], name);
  }
});

Deno.test("a name that is built in stays so", async () => {
  const book = await (await openMatter()).open();
  for (const [name, builtIn] of BUILT_IN_ROLES) {
    for (const team of [null, "red"]) {
      await rejects(book.put(role(team, name, "role:write"), undefined), isTaken);
      await rejects(book.put(role(team, name, "role:write"), builtIn), isTaken);
    }
    await rejects(book.remove(builtIn), isChanged);
    strictEqual(book.find("red", name), builtIn);
  }
});

Deno.test("no role hides another one: a name is either the server's or the teams'", async () => {
  const book = await (await openMatter()).open();
  await book.put(role("red", "labs", "model:infer/lab-*"), undefined);
  await rejects(book.put(role(null, "labs"), undefined), isTaken);
  await book.put(role(null, "helpers", "session:end/team"), undefined);
  await rejects(book.put(role("red", "helpers", "role:write/team"), undefined), isTaken);
  await rejects(book.put(role("red", "helpers", "role:write/team"), book.find("red", "helpers")), isTaken);
  deepStrictEqual(givenBy(book, "red", "helpers", "labs"), ["session:end/team", "model:infer/lab-*"]);
  // Once it is gone the name is free.
  const labs = book.find("red", "labs");
  isTrue(labs);
  await book.remove(labs);
  await book.put(role(null, "labs", "model:read"), undefined);
  deepStrictEqual(givenBy(book, "red", "labs"), ["model:read"]);
});

Deno.test("ASVS V15.4.2: of changes of one name at the same time one is made, and no two roles hide each other by it", async () => {
  const { open } = await openMatter();
  const book = await open();
  const outcomes = await Promise.allSettled([
    book.put(role("red", "labs", "model:infer/a"), undefined),
    book.put(role("red", "labs", "model:infer/b"), undefined),
    book.put(role(null, "labs", "model:infer/c"), undefined),
  ]);
  deepStrictEqual(outcomes.map(({ status }) => status), ["fulfilled", "rejected", "rejected"]);
  deepStrictEqual(givenBy(book, "red", "labs"), ["model:infer/a"]);
  strictEqual(book.find(null, "labs"), undefined);
  deepStrictEqual((await open()).list(), book.list());
});

Deno.test("ASVS V15.4.2: a change that was decided on a role as it no longer is is refused", async () => {
  const book = await (await openMatter()).open();
  await book.put(role("red", "labs", "model:infer/a"), undefined);
  const first = book.find("red", "labs");
  isTrue(first);
  await rejects(book.put(role("red", "labs", "model:infer/x"), undefined), isChanged);
  await book.put(role("red", "labs", "model:infer/b"), first);
  await rejects(book.put(role("red", "labs", "model:infer/x"), first), isChanged);
  await rejects(book.remove(first), isChanged);
  deepStrictEqual(givenBy(book, "red", "labs"), ["model:infer/b"]);
  const second = book.find("red", "labs");
  isTrue(second);
  await book.remove(second);
  await rejects(book.remove(second), isChanged);
  await rejects(book.put(role("red", "labs", "model:infer/x"), second), isChanged);
  deepStrictEqual(givenBy(book, "red", "labs"), []);
});

Deno.test("custom roles are the same after a restart", async () => {
  const { open } = await openMatter();
  const book = await open();
  await book.put(role(null, "helpers", "session:end/team", "model:infer/a*b"), undefined);
  await book.put(role("red", "labs"), undefined);
  await book.put({ ...role("blue", "labs", "user:read"), builtIn: true }, undefined);
  const again = await open();
  const byPlace = ({ team: left }: Role, { team: right }: Role) => `${left}`.localeCompare(`${right}`);
  deepStrictEqual(
    [...again.list()].slice(BUILT_IN_ROLES.size).sort(byPlace),
    [...book.list()].slice(BUILT_IN_ROLES.size).sort(byPlace),
  );
  deepStrictEqual(givenBy(again, "red", "helpers"), ["session:end/team", "model:infer/a*b"]);
  const labs = again.find("red", "labs");
  isTrue(labs);
  deepStrictEqual(labs, role("red", "labs"));
  // The versions too: what was read can be changed.
  await again.put(role("red", "labs", "key:read/own"), labs);
  deepStrictEqual(givenBy(await open(), "red", "labs"), ["key:read/own"]);
});

Deno.test("of two instances over one store the later one is refused, and knows then what stands", async () => {
  const { open } = await openMatter();
  const [one, two] = [await open(), await open()];
  await one.put(role("red", "labs", "model:infer/a"), undefined);
  // Asked before, so that the answer is at hand.
  deepStrictEqual(givenBy(two, "red", "labs"), []);
  await rejects(two.put(role("red", "labs", "model:infer/b"), undefined), isChanged);
  deepStrictEqual(givenBy(two, "red", "labs"), ["model:infer/a"]);

  await two.put(role("red", "labs", "model:infer/b"), two.find("red", "labs"));
  await rejects(one.put(role("red", "labs", "model:infer/c"), one.find("red", "labs")), isChanged);
  deepStrictEqual(givenBy(one, "red", "labs"), ["model:infer/b"]);

  const last = one.find("red", "labs");
  isTrue(last);
  await one.remove(last);
  const stale = two.find("red", "labs");
  isTrue(stale);
  await rejects(two.remove(stale), isChanged);
  strictEqual(two.find("red", "labs"), undefined);
  deepStrictEqual(givenBy(two, "red", "labs"), []);
  strictEqual((await open()).find("red", "labs"), undefined);
});

Deno.test("a change that the store did not take is none, and the next one is not held up by it", async () => {
  const { store, open } = await openMatter();
  let fails = true;
  const flaky: RecordStore = {
    ...store,
    write: (changes) =>
      fails ? Promise.reject(new Fault("unavailable", "Cannot write: a test says so")) : store.write(changes),
  };
  const book = await open(flaky);
  await rejects(book.put(role("red", "labs", "model:infer"), undefined), isFault("unavailable"));
  deepStrictEqual(givenBy(book, "red", "labs"), []);
  fails = false;
  await book.put(role("red", "labs", "model:infer"), undefined);
  const made = book.find("red", "labs");
  isTrue(made);
  fails = true;
  await rejects(book.remove(made), isFault("unavailable"));
  deepStrictEqual(givenBy(book, "red", "labs"), ["model:infer"]);
  strictEqual(book.find("red", "labs"), made);
});

Deno.test("grants of another version of the server give nothing here; those beside them do", async () => {
  const { table, open } = await openMatter();
  await (await open()).put(role("red", "labs", "model:infer/lab-*"), undefined);
  const [record] = await table.list({ limit: 1 });
  isTrue(record);
  const unknown = ["model:train", "user:write/everyone", "model:infer/?", "*", "", "__proto__", 7, null, [
    "key:read",
  ]];
  await table.put(record.key, {
    ...record.value as Record<string, never>,
    grants: [...unknown.slice(0, 6), "user:read/own", ...unknown.slice(6)],
  });
  const book = await open();
  deepStrictEqual(givenBy(book, "red", "labs"), ["user:read/own"]);
});

Deno.test("a record that is no role keeps the book shut", async () => {
  const { table, open } = await openMatter();
  await (await open()).put(role("red", "labs", "model:infer/lab-*"), undefined);
  const [record] = await table.list({ limit: 1 });
  isTrue(record);
  const good = record.value as Record<string, never>;
  const { team: _, ...teamless } = good;
  const bad = [null, 1, "x", [], {}, teamless, { ...good, team: 1 }, { ...good, grants: "model:infer" }];
  for (const value of [...bad, { ...good, name: null }, { ...good, createdAtMs: "0" }]) {
    await table.put(record.key, value);
    await rejects(open(), isFault("unavailable"), JSON.stringify(value));
  }
});

Deno.test("a grant that holds to cards is none of a custom role: stored, it would open what is past them", async () => {
  const { open } = await openMatter();
  const book = await open();
  const copied = { ...role("red", "copy"), grants: BUILT_IN_ROLES.get("user")?.grants ?? [] };
  await rejects(book.put(copied, undefined), isFault("internal"));
  strictEqual(book.find("red", "copy"), undefined);
});

Deno.test("property: whatever teams and roles are called, none is taken for another one", async () => {
  const word = fc.constantFrom("a", "b", "a/b", "b/a", "*", "", "/", 'a","b', "null", "[", "a\0b", "ä");
  const places = fc.uniqueArray(fc.tuple(fc.option(word), word), {
    minLength: 1,
    maxLength: 8,
    selector: ([team, name]) => JSON.stringify([team, name]),
  });
  await fc.assert(
    fc.asyncProperty(
      places,
      fc.array(fc.tuple(word, fc.array(word, { maxLength: 3 }))),
      async (all, asked) => {
        const { open } = await openMatter();
        const book = await open();
        const made = new Map<string, string>();
        for (const [at, [team, name]] of all.entries()) {
          const isGiven = await book.put(role(team, name, `model:infer/m${at}`), undefined).then(
            () => true,
            () => false,
          );
          if (isGiven) made.set(JSON.stringify([team, name]), `model:infer/m${at}`);
        }
        for (const each of [book, await open()]) {
          strictEqual(each.list().length - BUILT_IN_ROLES.size, made.size);
          for (const [team, names] of asked) {
            const expected = names.map((name) =>
              made.get(JSON.stringify([null, name])) ?? made.get(JSON.stringify([team, name]))
            ).filter((text) => text !== undefined);
            deepStrictEqual(givenBy(each, team, ...names), expected);
          }
        }
      },
    ),
    { numRuns: 50 },
  );
});

Deno.test("a team has at most a thousand roles, and takes no room from another one; all are there after a restart", async () => {
  const { open } = await openMatter();
  const book = await open();
  for (let at = 0; at < 1000; at++) await book.put(role("red", `role-${at}`, "key:read/own"), undefined);
  const tooMany = isFault("conflict", "There are as many roles as there can be.");
  await rejects(book.put(role("red", "more"), undefined), tooMany);
  await book.put(role("blue", "more"), undefined);
  await book.put(role(null, "helpers"), undefined);
  await book.put(role("red", "role-7", "user:read/own"), book.find("red", "role-7"));
  const again = await open();
  strictEqual(again.list().length, BUILT_IN_ROLES.size + 1002);
  deepStrictEqual(givenBy(again, "red", "role-7", "role-999"), ["user:read/own", "key:read/own"]);
  await rejects(again.put(role("red", "more"), undefined), tooMany);
  const oldest = again.find("red", "role-0");
  isTrue(oldest);
  await again.remove(oldest);
  await again.put(role("red", "more"), undefined);
});

Deno.test("what is written together with a role is written with it or not at all", async () => {
  const { store, open } = await openMatter();
  const book = await open();
  const value = new Uint8Array([1]);
  const also = (expects: "nothing" | Uint8Array<ArrayBuffer>) => [
    { table: "teams", key: "red", value, expects },
  ];
  await rejects(book.put(role("red", "labs", "model:infer"), undefined, also(value)), isChanged);
  strictEqual(book.find("red", "labs"), undefined);
  strictEqual(await store.get("teams", "red"), undefined);

  await book.put(role("red", "labs", "model:infer"), undefined, also("nothing"));
  const made = book.find("red", "labs");
  isTrue(made);
  deepStrictEqual(await store.get("teams", "red"), value);
  await rejects(book.put(role("red", "labs", "key:read/own"), made, also("nothing")), isChanged);
  // The role itself was not changed: it can be, by the next one.
  const stands = book.find("red", "labs");
  isTrue(stands);
  deepStrictEqual(givenBy(book, "red", "labs"), ["model:infer"]);
  await book.put(role("red", "labs", "key:read/own"), stands, also(value));
  deepStrictEqual(givenBy(await open(), "red", "labs"), ["key:read/own"]);
});

Deno.test("whoever has a custom role looks after what is their own with it; a name that is no role gives not even that", async () => {
  const book = await (await openMatter()).open();
  await book.put(role("red", "labs", "model:infer/lab-*"), undefined);
  deepStrictEqual(book.grantsOf("red", ["labs"]).map(formatGrant), [
    "model:infer/lab-*",
    "user:read/own",
    "password:write/own",
    "session:read/own",
    "session:end/own",
    "key:read/own",
    "key:write/own",
    "usage:read/own",
  ]);
  deepStrictEqual(book.grantsOf("blue", ["labs"]), []);
});

/** Two instances over one store; what one changes the other is told by hand. */
async function openTwo() {
  const { store, table } = await openMatter();
  const feed = new ManualFeed();
  const here = await openRoleBook(store, table, NO_OTHERS);
  return { store, table, feed, here, there: await openRoleBook(store, table, feed) };
}

Deno.test("ASVS V8.3.2: what one instance does to a role holds at the others once they are told, of it or of all", async () => {
  for (const key of ['["red","labs"]', undefined]) {
    const { here, there, feed } = await openTwo();
    const names = ["labs"];
    const givenThere = (): string[] => givenBy(there, "red", ...names);
    await here.put(role("red", "labs", "model:infer/lab-*"), undefined);
    deepStrictEqual(givenThere(), []);
    await feed.tell("roles", key);
    deepStrictEqual(givenBy(here, "red", "labs"), ["model:infer/lab-*"]);
    deepStrictEqual(there.grantsOf("red", names), here.grantsOf("red", names));
    await here.put(role("red", "labs"), here.find("red", "labs"));
    isTrue(there.grantsOf("red", names).length > OWN_GRANTS.length, "it is still at hand");
    await feed.tell("roles", key);
    // By the very list of names that was asked for before.
    deepStrictEqual(there.grantsOf("red", names), OWN_GRANTS);
    const found = here.find("red", "labs");
    isTrue(found);
    await here.remove(found);
    await feed.tell("roles", key);
    deepStrictEqual(there.grantsOf("red", names), []);
    strictEqual(there.find("red", "labs"), undefined);
  }
});

Deno.test("what an instance is told of its own change takes nothing from whoever goes on to change the role", async () => {
  const { there, feed } = await openTwo();
  await there.put(role("red", "labs", "model:read"), undefined);
  const found = there.find("red", "labs");
  for (const key of ['["red","labs"]', undefined]) await feed.tell("roles", key);
  await there.put(role("red", "labs", "model:infer/lab-*"), found);
  deepStrictEqual(givenBy(there, "red", "labs"), ["model:infer/lab-*"]);
});

Deno.test("a read that began before a change is not kept after it, be it of one role or of all", async () => {
  for (const key of ['["red","labs"]', undefined]) {
    const { store, table } = await openMatter();
    const feed = new ManualFeed();
    const steps: (() => Promise<void>)[] = [];
    /** What was read is handed over only after the next step. */
    const late = async <T>(found: T): Promise<T> => {
      await steps.shift()?.();
      return found;
    };
    const slow = {
      ...table,
      read: async (key: string) => await late(await table.read(key)),
      list: async (page: Parameters<typeof table.list>[0]) => await late(await table.list(page)),
    };
    const book = await openRoleBook(store, slow, feed);
    await book.put(role("red", "labs", "model:infer/lab-*"), undefined);
    steps.push(() => book.put(role("red", "labs", "model:read"), book.find("red", "labs")));
    await feed.tell("roles", key);
    deepStrictEqual(givenBy(book, "red", "labs"), ["model:read"]);
  }
});

Deno.test("an own change is not kept where another instance changed the role after it, and this was told first", async () => {
  const { store, table } = await openMatter();
  const feed = new ManualFeed();
  const elsewhere = await openRoleBook(store, table, NO_OTHERS);
  const state = { meanwhile: () => Promise.resolve() };
  const book = await openRoleBook(
    {
      ...store,
      async write(changes) {
        const made = await store.write(changes);
        await state.meanwhile();
        return made;
      },
    },
    table,
    feed,
  );
  state.meanwhile = async () => {
    const later = await openRoleBook(store, table, NO_OTHERS);
    await later.put(role("red", "labs"), later.find("red", "labs"));
    await feed.tell("roles", '["red","labs"]');
  };
  await book.put(role("red", "labs", "model:infer/lab-*"), undefined);
  deepStrictEqual(givenBy(book, "red", "labs"), []);
  deepStrictEqual(elsewhere.list().length, BUILT_IN_ROLES.size);
});

Deno.test("of two instances that make a role of one name at once, for the server and for a team, one makes it", async () => {
  for (let round = 0; round < 20; round++) {
    const { here, there, table } = await openTwo();
    const makers = [
      () => here.put(role(null, "labs", "model:read"), undefined),
      () => there.put(role("red", "labs", "model:read"), undefined),
    ];
    const outcomes = await Promise.allSettled(
      (round % 2 === 0 ? makers : makers.reverse()).map(async (make, at) => {
        for (let wait = 0; wait < (at === 0 ? 0 : round); wait++) await Promise.resolve();
        await make();
      }),
    );
    strictEqual(outcomes.filter(({ status }) => status === "fulfilled").length, 1, `round ${round}`);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") isFault("conflict")(outcome.reason);
    }
    strictEqual((await table.list({ limit: 10 })).length, 1);
  }
});

Deno.test("a name that means a role at another instance is taken, also before that is told", async () => {
  for (const [first, second] of [[null, "red"], ["red", null]] as const) {
    const { here, there } = await openTwo();
    await here.put(role(first, "labs", "model:read"), undefined);
    await rejects(there.put(role(second, "labs", "model:read"), undefined), isFault("conflict"));
    await there.put(role("blue", "other", "model:read"), undefined);
    // Teams do not stand in each other's way.
    await here.put(role("green", "other", "model:read"), undefined);
  }
});
