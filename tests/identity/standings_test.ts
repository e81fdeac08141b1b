// Tests of standings: at hand when they were read, gone when they changed, and never more than so many.
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { openStandings, type Standing } from "../../src/identity/standings.ts";
import { NO_OTHERS } from "../../src/store/change_feed.ts";
import { ManualFeed } from "../support/manual_feed.ts";

function standing(others: Partial<Standing> = {}): Standing {
  return { kind: "user", team: "default", roles: ["user"], active: true, ...others };
}

/** A store whose reads wait until they are let go; each takes what stands when it begins. */
function slowStore(accounts: Map<string, Standing>) {
  const waiting: (() => void)[] = [];
  const asked: string[] = [];
  return {
    asked,
    read(subject: string): Promise<Standing | undefined> {
      asked.push(subject);
      const found = accounts.get(subject);
      return new Promise((resolve) => waiting.push(() => resolve(found)));
    },
    letGo: () => waiting.shift()?.(),
  };
}

Deno.test("a standing is asked for once and is at hand from then on", async () => {
  const asked: string[] = [];
  const standings = openStandings((subject) => {
    asked.push(subject);
    return Promise.resolve(standing());
  }, NO_OTHERS);
  strictEqual(standings.known("usr_1"), undefined);
  deepStrictEqual(await standings.load("usr_1"), standing());
  deepStrictEqual(standings.known("usr_1"), standing());
  deepStrictEqual(standings.known("usr_1"), standing());
  strictEqual(standings.known("usr_2"), undefined);
  deepStrictEqual(asked, ["usr_1"]);
});

Deno.test("ASVS V8.3.2: what was forgotten is not at hand, and is what the store has from then on", async () => {
  const accounts = new Map([["usr_1", standing()], ["usr_2", standing()]]);
  const standings = openStandings((subject) => Promise.resolve(accounts.get(subject)), NO_OTHERS);
  await standings.load("usr_1");
  await standings.load("usr_2");
  accounts.set("usr_1", standing({ active: false, roles: [] }));
  standings.forget("usr_1");
  strictEqual(standings.known("usr_1"), undefined);
  deepStrictEqual(standings.known("usr_2"), standing());
  deepStrictEqual(await standings.load("usr_1"), standing({ active: false, roles: [] }));
  deepStrictEqual(standings.known("usr_1"), standing({ active: false, roles: [] }));
  standings.forget("usr_3");
});

Deno.test("an account that does not exist is not kept: it may be made at any moment", async () => {
  const accounts = new Map<string, Standing>();
  const standings = openStandings((subject) => Promise.resolve(accounts.get(subject)), NO_OTHERS);
  strictEqual(await standings.load("usr_1"), undefined);
  strictEqual(standings.known("usr_1"), undefined);
  accounts.set("usr_1", standing());
  deepStrictEqual(await standings.load("usr_1"), standing());
});

Deno.test("ASVS V8.3.2: a read that began before a change is not kept after it", async () => {
  const accounts = new Map([["usr_1", standing({ roles: ["admin"] })]]);
  const store = slowStore(accounts);
  const standings = openStandings(store.read, NO_OTHERS);
  const before = standings.load("usr_1");
  accounts.set("usr_1", standing({ roles: [] }));
  standings.forget("usr_1");
  const after = standings.load("usr_1");
  store.letGo();
  deepStrictEqual((await before)?.roles, ["admin"]);
  strictEqual(standings.known("usr_1"), undefined);
  store.letGo();
  await after;
  deepStrictEqual(standings.known("usr_1")?.roles, []);
});

Deno.test("ASVS V8.3.2: nor where the later read came back first", async () => {
  const accounts = new Map([["usr_1", standing({ roles: ["admin"] })]]);
  const answers: ((found: Standing | undefined) => void)[] = [];
  const standings = openStandings(() => new Promise((resolve) => answers.push(resolve)), NO_OTHERS);
  const early = standings.load("usr_1");
  standings.forget("usr_1");
  const late = standings.load("usr_1");
  answers[1]?.(standing({ roles: [] }));
  await late;
  answers[0]?.(accounts.get("usr_1"));
  await early;
  deepStrictEqual(standings.known("usr_1")?.roles, []);
});

Deno.test("a read that fails is told to who asked, and nothing is kept", async () => {
  let fails = true;
  const standings = openStandings(
    () => fails ? Promise.reject(new Error("disk")) : Promise.resolve(standing()),
    NO_OTHERS,
  );
  await rejects(standings.load("usr_1"), /disk/);
  strictEqual(standings.known("usr_1"), undefined);
  fails = false;
  deepStrictEqual(await standings.load("usr_1"), standing());
});

Deno.test("a hundred thousand standings are at hand at most; the one that was read first goes first", async () => {
  const standings = openStandings(
    (subject) => Promise.resolve(subject === "usr_none" ? undefined : standing()),
    NO_OTHERS,
  );
  for (let at = 0; at < 100_000; at++) await standings.load(`usr_${at}`);
  deepStrictEqual(standings.known("usr_0"), standing());
  // Who does not exist takes no room.
  await standings.load("usr_none");
  deepStrictEqual(standings.known("usr_0"), standing());
  await standings.load("usr_100000");
  strictEqual(standings.known("usr_0"), undefined);
  deepStrictEqual(standings.known("usr_1"), standing());
  deepStrictEqual(standings.known("usr_100000"), standing());
  // Read anew, what is there already pushes nothing out.
  await standings.load("usr_100000");
  deepStrictEqual(standings.known("usr_1"), standing());
});

Deno.test("what another instance changes is not at hand once it is told, of users and of clients, of one or of all", async () => {
  const accounts = new Map([["usr_1", standing()], ["cli_1", standing({ kind: "client" })]]);
  const feed = new ManualFeed();
  const standings = openStandings((subject) => Promise.resolve(accounts.get(subject)), feed);
  const ids = ["usr_1", "cli_1"];
  const atHand = (): boolean[] => ids.map((id) => standings.known(id) !== undefined);
  const loadAll = (): Promise<unknown> => Promise.all(ids.map((id) => standings.load(id)));
  await loadAll();
  deepStrictEqual(atHand(), [true, true]);
  await feed.tell("users", "usr_1");
  deepStrictEqual(atHand(), [false, true]);
  await feed.tell("clients", "cli_1");
  deepStrictEqual(atHand(), [false, false]);
  for (const table of ["users", "clients"]) {
    await loadAll();
    await feed.tell(table, undefined);
    deepStrictEqual(atHand(), [false, false]);
  }
});

Deno.test("ASVS V8.3.2: a read that began before the telling is not kept after it, be it of one or of all", async () => {
  for (const told of ["usr_1", undefined]) {
    const accounts = new Map([["usr_1", standing({ roles: ["admin"] })]]);
    const store = slowStore(accounts);
    const feed = new ManualFeed();
    const standings = openStandings(store.read, feed);
    const before = standings.load("usr_1");
    accounts.set("usr_1", standing({ roles: [] }));
    await feed.tell("users", told);
    store.letGo();
    await before;
    strictEqual(standings.known("usr_1"), undefined);
  }
});
