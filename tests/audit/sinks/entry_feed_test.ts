// Tests of the feed of entries over real trails: sealed ones, thinned ones, and positions that belong to another.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { openEntryFeed } from "../../../src/audit/sinks/entry_feed.ts";
import { listSegments } from "../../../src/audit/trail/segment_files.ts";
import { mixedUpTo, thin } from "../thinned_trail.ts";
import { numberedUpTo, TRAIL_KEYS, TrailFolder } from "../trail_folder.ts";

const NO_KEYS = { known: () => new Map<string, Uint8Array>(), refresh: () => Promise.resolve() };

function feedOf({ directory, checkpointDirectory }: TrailFolder, keys = NO_KEYS) {
  return openEntryFeed({ directory, checkpointDirectory, keys, classes: undefined });
}

Deno.test("entries of a sealed trail are given opened, also when their key was made a moment ago; without a key they are given closed", async () => {
  await using folder = new TrailFolder();
  const sealing = { id: "akey_one", raw: crypto.getRandomValues(new Uint8Array(32)) };
  folder.write(numberedUpTo(2), undefined, { sealed: true, keys: { ...TRAIL_KEYS, sealing } });
  let known = new Map<string, Uint8Array>();
  let asked = 0;
  const feed = feedOf(folder, {
    known: () => known,
    refresh() {
      asked++;
      known = new Map([[sealing.id, sealing.raw]]);
      return Promise.resolve();
    },
  });
  const { items } = await feed.read(feed.start("start"), 10);
  deepStrictEqual(items.map(({ type, line }) => [type, JSON.parse(line).event.reason]), [
    ["server.stopped", "1"],
    ["server.stopped", "2"],
  ]);
  strictEqual(asked, 1);
  const closed = await feedOf(folder).read(feed.start("start"), 10);
  deepStrictEqual(closed.items.map(({ type, class: eventClass }) => [type, eventClass]), [
    ["sealed", "security"],
    ["sealed", "security"],
  ]);
});

Deno.test("entries that were taken out before they were given are counted, and a kept position survives the thinning of its segment", async () => {
  await using folder = new TrailFolder();
  folder.write(mixedUpTo(40), 3_000);
  const feed = feedOf(folder);
  const some = await feed.read(feed.start("start"), 5);
  deepStrictEqual(some.items.map(({ seq }) => seq), [1, 2, 3, 4, 5]);
  thin(folder, 1, ["activity"]);
  const kept = feedOf(folder).resume(JSON.parse(JSON.stringify(some.next)));
  deepStrictEqual(kept, some.next);
  const rest = await feed.read(some.next, 1000);
  const given = rest.items.map(({ seq }) => seq);
  strictEqual(given.at(-1), 40);
  strictEqual(rest.gone, 35 - given.length);
  strictEqual(rest.gone > 0, true);
});

Deno.test("a position of another trail, or from beyond the end, is none; one from before the first entry is good", async () => {
  await using folder = new TrailFolder();
  await using other = new TrailFolder();
  const early = feedOf(folder);
  folder.write(numberedUpTo(6));
  other.write(numberedUpTo(9));
  const { next } = await feedOf(folder).read(early.start("start"), 4);
  strictEqual(feedOf(other).resume(next), undefined);
  strictEqual(feedOf(folder).resume({ ...next, seq: 7 }), undefined);
  // The same trail, but a copy that went on differently.
  const last = next.last === null ? null : { ...next.last, hash: "0".repeat(64) };
  strictEqual(feedOf(folder).resume({ ...next, last }), undefined);
  for (const wrong of [null, [], "x", {}, { ...next, seq: -1 }, { ...next, last: {} }]) {
    strictEqual(feedOf(folder).resume(wrong), undefined);
  }
  const start = early.start("start");
  deepStrictEqual(feedOf(folder).resume(start), start);
});

Deno.test("a feed that begins now gives what comes from now on, in whichever segment", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(50), 3_000);
  const feed = feedOf(folder);
  const start = feed.start("now");
  deepStrictEqual((await feed.read(start, 10)).items, []);
  folder.write(numberedUpTo(70, 51), 3_000);
  const { items } = await feed.read(start, 100);
  deepStrictEqual(items.map(({ seq }) => seq), Array.from({ length: 20 }, (_, index) => 51 + index));
});

Deno.test("a position is none in a trail that was put back and has grown past it, also where its segment was thinned since", async () => {
  for (const segmentBytesMax of [1_000_000, 3_000]) {
    for (const isThinned of [false, true]) {
      await using folder = new TrailFolder();
      folder.write(mixedUpTo(10), segmentBytesMax);
      const backup = `${folder.root}/backup`;
      copyTrail(folder.root, backup);
      folder.write(numberedUpTo(30, 11), segmentBytesMax);
      const feed = feedOf(folder);
      const { next } = await feed.read(feed.start("start"), 1000);
      strictEqual(next.seq, 30);
      deepStrictEqual(feedOf(folder).resume(next), next);
      for (const name of TRAIL_FOLDERS) Deno.removeSync(`${folder.root}/${name}`, { recursive: true });
      copyTrail(backup, folder.root);
      folder.write(mixedUpTo(60, 11), segmentBytesMax);
      // A segment that is still written is never thinned.
      if (isThinned && segmentBytesMax === 3_000) thin(folder, next.segment, ["activity"]);
      strictEqual(feedOf(folder).resume(next), undefined);
    }
  }
});

Deno.test("a position survives that its entry was taken out, moved, or went with its segment", async () => {
  for (const seq of [4, 5]) {
    await using folder = new TrailFolder();
    folder.write(mixedUpTo(40), 3_000);
    const feed = feedOf(folder);
    const { next } = await feed.read(feed.start("start"), seq);
    thin(folder, 1, ["activity"]);
    deepStrictEqual(feedOf(folder).resume(next), next);
    thin(folder, 1, ["activity", "security"]);
    strictEqual(listSegments(folder.directory)[0], 2);
    deepStrictEqual(feedOf(folder).resume(next), next);
  }
});

const TRAIL_FOLDERS = ["trail", "checkpoint"];

function copyTrail(from: string, to: string): void {
  for (const name of TRAIL_FOLDERS) {
    Deno.mkdirSync(`${to}/${name}`, { recursive: true });
    for (const file of Deno.readDirSync(`${from}/${name}`)) {
      Deno.copyFileSync(`${from}/${name}/${file.name}`, `${to}/${name}/${file.name}`);
    }
  }
}
