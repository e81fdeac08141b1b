// Tests of turns: nothing is left out or mixed up, and others get theirs.
import { deepStrictEqual } from "node:assert/strict";
import { inTurns } from "../../src/limits/next_turn.ts";

Deno.test("items come in order, each once, and others have their turn after every so many", async () => {
  let turns = 0;
  let isOver = false;
  const others = (async () => {
    while (!isOver) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      turns++;
    }
  })();
  const seen: number[] = [];
  const turnsBefore: number[] = [];
  for await (const item of inTurns(new Set([1, 2, 3, 4, 5, 6, 7]), 3)) {
    seen.push(item);
    turnsBefore.push(turns);
  }
  isOver = true;
  await others;
  deepStrictEqual(seen, [1, 2, 3, 4, 5, 6, 7]);
  // Nobody comes in between within a portion, somebody does between two.
  const portions = [turnsBefore.slice(0, 3), turnsBefore.slice(3, 6), turnsBefore.slice(6)];
  deepStrictEqual(portions.map((portion) => new Set(portion).size), [1, 1, 1]);
  deepStrictEqual(new Set(turnsBefore).size, 3);
});

Deno.test("of nothing there is nothing", async () => {
  for await (const item of inTurns([])) deepStrictEqual(item, "none");
});
