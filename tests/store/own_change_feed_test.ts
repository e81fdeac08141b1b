// Tests of the own change feed: it is not current until everybody knows what became of what was in doubt.
import { deepStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { openOwnChangeFeed } from "../../src/store/own_change_feed.ts";
import { isFault } from "../identity/is_fault.ts";
import { manualClock } from "../support/manual_clock.ts";

function openFeed() {
  const clock = manualClock();
  const faults: string[] = [];
  const told: string[] = [];
  const feed = openOwnChangeFeed(clock, (fault) => faults.push(fault.message));
  return { clock, faults, told, feed };
}

const untilCurrent = async (feed: { isCurrent(): boolean }) => {
  while (!feed.isCurrent()) await new Promise((resolve) => setTimeout(resolve, 5));
};

Deno.test("own change feed: the followers of a table are told of the records in doubt, and the feed is current when all were", async () => {
  const { feed, told } = openFeed();
  feed.follow("a", (key) => void told.push(`one ${key}`));
  feed.follow("a", (key) => void told.push(`two ${key}`));
  feed.follow("b", (key) => void told.push(`b ${key}`));
  strictEqual(feed.isCurrent(), true);
  feed.doubt([{ table: "a", key: "k" }, { table: "a", key: "l" }]);
  strictEqual(feed.isCurrent(), false);
  await untilCurrent(feed);
  deepStrictEqual(told.sort(), ["one k", "one l", "two k", "two l"]);
  await feed.close();
});

Deno.test("own change feed: what nobody follows is of no matter", async () => {
  const { feed } = openFeed();
  feed.follow("a", () => {});
  feed.doubt([{ table: "b", key: "k" }]);
  strictEqual(feed.isCurrent(), true);
  await feed.close();
});

Deno.test("own change feed: a follower that fails is told again until it does not; the failure is told once a minute", async () => {
  const { feed, told, faults, clock } = openFeed();
  let failures = 3;
  feed.follow("a", (key) => {
    if (failures-- > 0) throw new Fault("unavailable", "Cannot read: the disk hangs");
    told.push(String(key));
  });
  feed.doubt([{ table: "a", key: "k" }]);
  await rejects(feed.catchUp(), isFault("unavailable"));
  strictEqual(feed.isCurrent(), false);
  await rejects(feed.catchUp(), isFault("unavailable"));
  deepStrictEqual(faults.length, 1);
  clock.advance(60_000);
  await rejects(feed.catchUp(), isFault("unavailable"));
  deepStrictEqual(faults.length, 2);
  await untilCurrent(feed);
  deepStrictEqual(told, ["k"]);
  await feed.close();
});

Deno.test("own change feed: what comes into doubt again while it is told is told once more", async () => {
  const { feed, told } = openFeed();
  const { promise, resolve } = Promise.withResolvers<void>();
  feed.follow("a", async (key) => {
    told.push(String(key));
    if (told.length === 1) await promise;
  });
  feed.doubt([{ table: "a", key: "k" }]);
  const telling = feed.catchUp();
  feed.doubt([{ table: "a", key: "k" }]);
  resolve();
  await telling;
  strictEqual(feed.isCurrent(), true);
  deepStrictEqual(told, ["k", "k"]);
  await feed.close();
});

Deno.test("own change feed: closed, it tells nobody any more", async () => {
  const { feed, told } = openFeed();
  feed.follow("a", (key) => void told.push(String(key)));
  feed.doubt([{ table: "a", key: "k" }]);
  await feed.close();
  feed.doubt([{ table: "a", key: "l" }]);
  await rejects(feed.catchUp(), isFault("unavailable"));
  deepStrictEqual(told, []);
});
