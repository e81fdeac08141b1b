// Tests of the feed of signed checkpoints over real ones: every one once, and positions that belong to others.
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { openNoteFeed } from "../../../src/audit/sinks/note_feed.ts";
import { numberedUpTo, TrailFolder } from "../trail_folder.ts";

Deno.test("checkpoints are given once and in order, from the first or from now on, and a position is known again by the next process", async () => {
  await using folder = new TrailFolder();
  const { checkpointDirectory } = folder;
  for (let last = 1; last <= 5; last++) folder.write(numberedUpTo(last, last));
  const all = openNoteFeed(checkpointDirectory);
  const now = all.start("now");
  const given: string[] = [];
  let at = all.start("start");
  for (let piece = 0; piece < 6; piece++) {
    const position = openNoteFeed(checkpointDirectory).resume(JSON.parse(JSON.stringify(at)));
    deepStrictEqual(position, at);
    const { items, next } = await all.read(at, 1);
    given.push(...items);
    at = next;
  }
  deepStrictEqual(given, folder.notes());
  strictEqual(given.length, 5);
  deepStrictEqual(at, now);
  folder.write(numberedUpTo(6, 6));
  deepStrictEqual((await all.read(now, 10)).items, folder.notes().slice(5));
});

Deno.test("a position is none where other checkpoints stand before it, though there are as many bytes and more", async () => {
  await using folder = new TrailFolder();
  await using other = new TrailFolder();
  folder.write(numberedUpTo(3));
  for (let last = 1; last <= 5; last++) other.write(numberedUpTo(last, last));
  const feed = openNoteFeed(folder.checkpointDirectory);
  const { next } = await feed.read(feed.start("start"), 10);
  deepStrictEqual(openNoteFeed(folder.checkpointDirectory).resume(next), next);
  const others = openNoteFeed(other.checkpointDirectory);
  strictEqual(others.resume(next), undefined);
  // In the midst of a line, and behind the end.
  strictEqual(feed.resume({ ...next, offset: next.offset - 1 }), undefined);
  strictEqual(feed.resume({ ...next, offset: next.offset + 1 }), undefined);
  for (const wrong of [null, [], "x", {}, { file: next.file, offset: 0 }, { ...next, last: null }]) {
    strictEqual(feed.resume(wrong), undefined);
  }
});

Deno.test("a feed that begins now where nothing but half a checkpoint is gives that one when it is whole", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  const text = Deno.readTextFileSync(folder.signedPath);
  Deno.writeTextFileSync(folder.signedPath, text.slice(0, 40));
  const feed = openNoteFeed(folder.checkpointDirectory);
  const now = feed.start("now");
  Deno.writeTextFileSync(folder.signedPath, text);
  deepStrictEqual((await feed.read(now, 10)).items, folder.notes());
});
