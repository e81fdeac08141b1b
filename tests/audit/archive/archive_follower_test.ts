// Tests of the archive over real trails: it follows them through starts, damage, thinning and restored copies, and gives entries as they are.
import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { ArchiveFollower } from "../../../src/audit/archive/archive_follower.ts";
import { exportPiece, findPage } from "../../../src/audit/archive/archive_search.ts";
import { ALL_ENTRIES, type AuditQuery } from "../../../src/audit/archive/audit_query.ts";
import type { AuditEvent } from "../../../src/audit/audit_event.ts";
import { newId } from "../../../src/encoding/ids.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { systemClock } from "../../../src/time/clock.ts";
import { mixedUpTo, thin } from "../thinned_trail.ts";
import { numbered, numberedUpTo, TIME_MS, TRAIL_KEYS, TrailFolder, unwritten } from "../trail_folder.ts";

const KEY = new Uint8Array(32).fill(3);

/** A follower over a trail folder, which frees its files. */
function openFollower(folder: TrailFolder, keys: ReadonlyMap<string, Uint8Array> = new Map(), key = KEY) {
  const { directory, checkpointDirectory, root } = folder;
  const indexDirectory = `${root}/index`;
  Deno.mkdirSync(indexDirectory, { recursive: true });
  const follower = new ArchiveFollower({ directory, checkpointDirectory, indexDirectory }, key, keys);
  return Object.assign(follower, { [Symbol.dispose]: () => follower.close() });
}

/** Works until there is nothing more to do. */
function catchUp(follower: ArchiveFollower): void {
  for (let idle = 0; idle < 150;) idle = follower.step() === "idle" ? idle + 1 : 0;
}

function numbersOf(follower: ArchiveFollower, query: AuditQuery = ALL_ENTRIES, limit = 7): number[] {
  const numbers: number[] = [];
  for (let after: number | undefined = Infinity; after !== undefined;) {
    const page = findPage(
      follower,
      query,
      { after: after === Infinity ? undefined : after, limit },
      systemClock,
    );
    numbers.push(...page.entries.filter(({ state }) => state !== "removed").map(({ seq }) => seq));
    after = page.next;
  }
  return numbers;
}

function exported(follower: ArchiveFollower, query: AuditQuery, form: "jsonl" | "csv"): string {
  let text = "";
  for (let after: number | undefined = 0; after !== undefined;) {
    const piece = exportPiece(follower, query, { form, after, last: follower.indexedTo() }, systemClock);
    text += new TextDecoder().decode(piece.text);
    after = piece.next;
  }
  return text;
}

const down = (last: number, first = 1): number[] =>
  Array.from({ length: last - first + 1 }, (_, index) => last - index);

Deno.test("all entries of all segments are found, the newest first, with the event, the time and the hash that the trail has", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(60), 4000);
  using follower = openFollower(folder);
  catchUp(follower);
  deepStrictEqual(numbersOf(follower), down(60));
  const [newest] = findPage(follower, ALL_ENTRIES, { after: undefined, limit: 1 }, systemClock).entries;
  const { seq, time, hash, event } = folder.entries().at(-1) ?? {};
  deepStrictEqual(newest, { seq, time, hash, event, state: "whole", count: 1 });
});

Deno.test("a trail that grows is followed from where the index ends, also by another process later", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(10));
  {
    using follower = openFollower(folder);
    catchUp(follower);
    folder.write(numberedUpTo(25, 11), 3000);
    catchUp(follower);
    deepStrictEqual(numbersOf(follower), down(25));
  }
  folder.write(numberedUpTo(30, 26), 3000);
  using again = openFollower(folder);
  again.step();
  strictEqual(again.indexedTo(), 30); // one step from 25, not from 0
  deepStrictEqual(numbersOf(again), down(30));
});

Deno.test("what is not durable is not indexed", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(5));
  const checkpoint = Deno.readFileSync(folder.checkpointPath);
  folder.write(numberedUpTo(9, 6));
  Deno.writeFileSync(folder.checkpointPath, checkpoint);
  using follower = openFollower(folder);
  catchUp(follower);
  deepStrictEqual(numbersOf(follower), down(5));
});

const SPOILED: Readonly<Record<string, (file: string) => void>> = {
  missing: (file) => Deno.removeSync(file),
  empty: (file) => Deno.writeFileSync(file, new Uint8Array()),
  "no database": (file) => Deno.writeTextFileSync(file, "x".repeat(10_000)),
  "damaged behind its first page": (file) => {
    const bytes = Deno.readFileSync(file);
    Deno.writeFileSync(file, bytes.map((byte, at) => at < 4096 ? byte : byte ^ 0x5a));
  },
};

for (const [state, spoil] of Object.entries(SPOILED)) {
  Deno.test(`an index that is ${state} is made anew`, async () => {
    await using folder = new TrailFolder();
    folder.write(numberedUpTo(40));
    {
      using follower = openFollower(folder);
      catchUp(follower);
    }
    spoil(`${folder.root}/index/index.db`);
    using follower = openFollower(folder);
    catchUp(follower);
    deepStrictEqual(numbersOf(follower), down(40));
  });
}

Deno.test("an index of another trail, of another key, or of a trail that went another way since is made anew", async () => {
  await using first = new TrailFolder();
  await using second = new TrailFolder();
  await using third = new TrailFolder();
  first.write(numberedUpTo(20));
  second.write(numberedUpTo(30, 11));
  {
    using follower = openFollower(first);
    catchUp(follower);
  }
  // Another trail, of the same length.
  Deno.copyFileSync(`${first.root}/index/index.db`, `${second.root}/index.db`);
  Deno.mkdirSync(`${second.root}/index`);
  Deno.renameSync(`${second.root}/index.db`, `${second.root}/index/index.db`);
  {
    using follower = openFollower(second);
    catchUp(follower);
    const { entries } = findPage(follower, ALL_ENTRIES, { after: undefined, limit: 1 }, systemClock);
    deepStrictEqual(entries[0]?.event?.reason, "30");
  }
  // Another key: words would not be found.
  {
    using follower = openFollower(first, new Map(), new Uint8Array(32).fill(4));
    catchUp(follower);
    deepStrictEqual(numbersOf(follower, { words: { type: ["server.stopped"] } }), down(20));
  }
  // A copy that was restored and went on: the same origin, and another entry 15.
  third.write(numberedUpTo(10));
  copyTrail(third, `${third.root}/copy`);
  third.write(numberedUpTo(15, 11));
  {
    using follower = openFollower(third);
    catchUp(follower);
  }
  restoreTrail(third, `${third.root}/copy`);
  third.write(numberedUpTo(125, 111));
  using follower = openFollower(third);
  catchUp(follower);
  const { entries } = findPage(follower, ALL_ENTRIES, { after: 16, limit: 1 }, systemClock);
  deepStrictEqual(entries[0]?.event?.reason, "115");
});

Deno.test("an index that is ahead of its trail is made anew, also while it is open", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(10));
  copyTrail(folder, `${folder.root}/copy`);
  folder.write(numberedUpTo(20, 11));
  using follower = openFollower(folder);
  catchUp(follower);
  restoreTrail(folder, `${folder.root}/copy`);
  catchUp(follower);
  deepStrictEqual(numbersOf(follower), down(10));
});

function copyTrail({ directory, checkpointDirectory }: TrailFolder, to: string): void {
  Deno.mkdirSync(to);
  for (const [name, from] of [["trail", directory], ["checkpoint", checkpointDirectory]]) {
    Deno.mkdirSync(`${to}/${name}`);
    for (const file of Deno.readDirSync(`${from}`)) {
      Deno.copyFileSync(`${from}/${file.name}`, `${to}/${name}/${file.name}`);
    }
  }
}

function restoreTrail({ directory, checkpointDirectory }: TrailFolder, from: string): void {
  for (const [name, to] of [["trail", directory], ["checkpoint", checkpointDirectory]]) {
    Deno.removeSync(`${to}`, { recursive: true });
    Deno.renameSync(`${from}/${name}`, `${to}`);
  }
}

Deno.test("entries that are taken out are found no more; who asks for everything is told how many they were", async () => {
  await using folder = new TrailFolder();
  folder.write(mixedUpTo(60), 3000);
  using follower = openFollower(folder);
  catchUp(follower);
  const models = { words: { type: ["model.accepted"] } };
  strictEqual(numbersOf(follower, models).length, 30);
  thin(folder, 1, ["activity"]);
  catchUp(follower);
  const kept = numbersOf(follower);
  ok(kept.includes(1) && !kept.includes(2) && kept.includes(3));
  const left = folder.entries().filter(({ event }) => event?.type === "model.accepted").map(({ seq }) => seq);
  ok(left.length > 0 && left.length < 30);
  deepStrictEqual(numbersOf(follower, models), left.reverse());
  const { entries } = findPage(follower, ALL_ENTRIES, { after: 4, limit: 5 }, systemClock);
  deepStrictEqual(entries.map(({ seq, state, count }) => [seq, state, count]), [
    [3, "whole", 1],
    [2, "removed", 1],
    [1, "whole", 1],
  ]);
  // An index that is made from the thinned trail says the same.
  follower.close();
  Deno.removeSync(`${folder.root}/index/index.db`);
  catchUp(follower);
  deepStrictEqual(numbersOf(follower), kept);
});

Deno.test("a segment that goes as a whole is one run of removed entries", async () => {
  await using folder = new TrailFolder();
  folder.write(mixedUpTo(60), 3000);
  using follower = openFollower(folder);
  catchUp(follower);
  const first = folder.lines(1).length - 1;
  thin(folder, 1, ["activity", "security"]);
  catchUp(follower);
  deepStrictEqual(numbersOf(follower), down(60, first + 1));
  const { entries } = findPage(follower, ALL_ENTRIES, { after: first + 2, limit: 5 }, systemClock);
  deepStrictEqual(entries.map(({ seq, state, count }) => [seq, state, count]), [
    [first + 1, "whole", 1],
    [first, "removed", first],
  ]);
  const lines = exported(follower, ALL_ENTRIES, "jsonl").split("\n");
  strictEqual(lines[0], `{"removed":${first},"seq":1}`);
});

Deno.test("a page that is asked for right after a thinning has the kept entries, though the index does not know of it yet", async () => {
  await using folder = new TrailFolder();
  folder.write(mixedUpTo(60), 6000);
  using follower = openFollower(folder);
  catchUp(follower);
  thin(folder, 1, ["activity"]);
  const { entries } = findPage(follower, ALL_ENTRIES, { after: 8, limit: 5 }, systemClock);
  deepStrictEqual(entries.filter(({ state }) => state === "whole").map(({ seq }) => seq), [7, 5, 3]);
});

Deno.test("a sealed trail: nothing is indexed before its key is there or given up, and what is opened is given plain", async () => {
  await using folder = new TrailFolder();
  const sealing = { id: "akey_one", raw: new Uint8Array(32).fill(9) };
  folder.write(numberedUpTo(5), undefined, { sealed: true, keys: { ...TRAIL_KEYS, sealing } });
  const byType = { words: { type: ["server.stopped"] } };
  {
    using follower = openFollower(folder);
    deepStrictEqual(follower.step(), { keyLacking: "akey_one" });
    strictEqual(follower.indexedTo(), 0);
    follower.useKeys(new Map([[sealing.id, sealing.raw]]));
    catchUp(follower);
    deepStrictEqual(numbersOf(follower, byType), down(5));
    const [line = ""] = exported(follower, byType, "jsonl").split("\n");
    deepStrictEqual(JSON.parse(line).event, { type: "server.stopped", reason: "1" });
    deepStrictEqual(Object.keys(JSON.parse(line)), ["event", "hash", "previous", "seq", "time"]);
    // The key is gone: the entry is found, and says why it has no event.
    follower.useKeys(new Map());
    const [entry] = findPage(follower, byType, { after: 2, limit: 1 }, systemClock).entries;
    deepStrictEqual([entry?.seq, entry?.state, entry?.event], [1, "unreadable", null]);
    const [sealed] = exported(follower, byType, "jsonl").split("\n");
    strictEqual(sealed, folder.lines(1)[1]);
  }
  Deno.removeSync(`${folder.root}/index`, { recursive: true });
  using follower = openFollower(folder);
  follower.step();
  follower.giveKeyUp("akey_one");
  catchUp(follower);
  deepStrictEqual([numbersOf(follower), numbersOf(follower, byType)], [down(5), []]);
});

Deno.test("JSON lines are the trail's own lines, and pieces of an export hold each entry once", async () => {
  await using folder = new TrailFolder();
  const writer = folder.openWriter(50_000);
  for (let first = 1; first < 2500; first += 100) {
    writer.append(numberedUpTo(first + 99, first).map((event) => unwritten(event)));
  }
  writer.close();
  using follower = openFollower(folder);
  catchUp(follower);
  const lines = exported(follower, ALL_ENTRIES, "jsonl");
  const segments = [...Deno.readDirSync(folder.directory)].map((_, index) =>
    folder.lines(index + 1).slice(1)
  );
  strictEqual(lines, `${segments.flat().join("\n")}\n`);
  const last = { form: "jsonl", after: 2490, last: 2495 } as const;
  const { text, next } = exportPiece(follower, ALL_ENTRIES, last, systemClock);
  strictEqual(new TextDecoder().decode(text).split("\n").length, 6);
  strictEqual(next, undefined);
});

Deno.test("CSV has a heading, a record for each entry, and no formula that a client could have written", async () => {
  await using folder = new TrailFolder();
  const evil: AuditEvent = { type: "server.stopped", reason: '=HYPERLINK("http://x","y")' };
  folder.write([numbered(1), evil]);
  using follower = openFollower(folder);
  catchUp(follower);
  const [head = "", one = "", two = "", rest] = exported(follower, ALL_ENTRIES, "csv").split("\r\n");
  match(head, /^seq,time,state,count,type,request,issuer,subject,.*,reason,hash,event$/);
  match(one, /^1,2026-01-02T03:04:05.006Z,whole,1,server\.stopped,,,/);
  ok(two.includes(`,"'=HYPERLINK(""http://x"",""y"")",`), two);
  strictEqual(rest, "");
  strictEqual(exported(follower, { words: { type: ["nothing"] } }, "csv"), `${head}\r\n`);
});

Deno.test("of requests whose numbers meet, each is found alone", async () => {
  await using folder = new TrailFolder();
  const id = newId("req", TIME_MS);
  // The same up to what the number holds.
  const twin = id.slice(0, -5) + (id.endsWith("00000") ? "11111" : "00000");
  folder.write([id, twin, id].map((request) => ({
    type: "address.banned",
    ban: "ban_1",
    address: "a",
    trigger: "probes",
    request,
    untilSeconds: null,
  })));
  using follower = openFollower(folder);
  catchUp(follower);
  deepStrictEqual(numbersOf(follower, { request: id, words: {} }), [3, 1]);
  deepStrictEqual(numbersOf(follower, { request: twin, words: {} }), [2]);
});

Deno.test("long entries make a short page, and the rest comes with the next", async () => {
  await using folder = new TrailFolder();
  const events = numberedUpTo(60).map((event) => ({ ...event, reason: "x".repeat(60_000) }) as AuditEvent);
  folder.write(events, 2_000_000);
  using follower = openFollower(folder);
  catchUp(follower);
  const page = findPage(follower, ALL_ENTRIES, { after: undefined, limit: 200 }, systemClock);
  ok(page.entries.length > 10 && page.entries.length < 60);
  deepStrictEqual(numbersOf(follower, ALL_ENTRIES, 200), down(60));
});

Deno.test("a trail that cannot be read is no reason to throw the index away", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(10));
  {
    using follower = openFollower(folder);
    catchUp(follower);
  }
  const before = Deno.statSync(`${folder.root}/index/index.db`).ino;
  Deno.renameSync(folder.checkpointPath, `${folder.root}/away`);
  using follower = openFollower(folder);
  await rejects(
    async () => await follower.step(),
    (thrown) => thrown instanceof Fault && thrown.kind === "unavailable",
  );
  Deno.renameSync(`${folder.root}/away`, folder.checkpointPath);
  catchUp(follower);
  deepStrictEqual(numbersOf(follower), down(10));
  strictEqual(Deno.statSync(`${folder.root}/index/index.db`).ino, before);
});

Deno.test("the index is for its owner alone", async () => {
  await using folder = new TrailFolder();
  folder.write([numbered(1)]);
  using follower = openFollower(folder);
  catchUp(follower);
  for (const { name } of Deno.readDirSync(`${folder.root}/index`)) {
    strictEqual((Deno.statSync(`${folder.root}/index/${name}`).mode ?? 0) & 0o777, 0o600, name);
  }
});
