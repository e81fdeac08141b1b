// Tests of the run queue: what goes into one run, and whose turn it is.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { type RunBudget, RunQueue } from "../../../src/engines/onnx/run_queue.ts";

const padded: RunBudget = {
  textsMax: 4,
  costMax: 40,
  cost: (texts, longest) => texts * Math.max(longest, 1),
  costOfRun: 3,
};

const taken = (queue: RunQueue<string>) => queue.take().map(({ owner, index }) => `${owner}${index}`);

Deno.test("an empty run queue gives an empty run", () => {
  deepStrictEqual(new RunQueue<string>(padded).take(), []);
});

Deno.test("a run joins texts of several owners, in turn, up to the number of texts", () => {
  const queue = new RunQueue<string>(padded);
  queue.add("a", [5, 5, 5]);
  queue.add("b", [5]);
  queue.add("c", [5]);
  deepStrictEqual(taken(queue), ["a0", "b0", "c0", "a1"]);
  deepStrictEqual(taken(queue), ["a2"]);
  deepStrictEqual(taken(queue), []);
});

Deno.test("an owner of many texts does not hold up an owner of one", () => {
  const queue = new RunQueue<string>(padded);
  queue.add("many", Array(100).fill(10));
  strictEqual(queue.take().length, 4);
  queue.add("one", [40]);
  strictEqual(queue.take().length, 4);
  deepStrictEqual(taken(queue), ["one0"]);
});

Deno.test("a text joins a run only where its padding costs less than a run of its own", () => {
  const queue = new RunQueue<string>(padded);
  queue.add("a", [5]);
  queue.add("b", [9]);
  queue.add("c", [7]);
  deepStrictEqual(taken(queue), ["a0", "c0"]);
  deepStrictEqual(taken(queue), ["b0"]);
});

Deno.test("an owner's texts leave short before long, each with the index that it came with", () => {
  const queue = new RunQueue<string>(padded);
  queue.add("a", [30, 2, 30, 3]);
  deepStrictEqual(taken(queue), ["a1", "a3"]);
  deepStrictEqual(taken(queue), ["a0"]);
  deepStrictEqual(taken(queue), ["a2"]);
});

Deno.test("a text beyond the budget runs alone, and empty texts count as one row each", () => {
  const queue = new RunQueue<string>(padded);
  queue.add("long", [500]);
  queue.add("empty", [0, 0, 0, 0, 0]);
  deepStrictEqual(taken(queue), ["long0"]);
  deepStrictEqual(taken(queue), ["empty0", "empty1", "empty2", "empty3"]);
  deepStrictEqual(taken(queue), ["empty4"]);
});

Deno.test("a dropped owner's texts are never taken", () => {
  const queue = new RunQueue<string>(padded);
  queue.add("a", [5, 5]);
  queue.add("b", [5]);
  ok(queue.has("a"));
  queue.drop("a");
  ok(!queue.has("a"));
  deepStrictEqual(taken(queue), ["b0"]);
});

Deno.test("whatever is added, dropped and taken in whatever order: each live text is taken exactly once, within the budget, and nobody starves", () => {
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ add: fc.array(fc.nat(60), { minLength: 1, maxLength: 12 }) }) },
    { weight: 1, arbitrary: fc.record({ drop: fc.nat(20) }) },
    { weight: 4, arbitrary: fc.constant("take" as const) },
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const queue = new RunQueue<number>(padded);
    const left = new Map<number, Set<number>>(); // what each live owner still has
    const sizes = new Map<number, readonly number[]>();
    const runsWaited = new Map<number, number>();
    let owners = 0;
    const take = () => {
      const run = queue.take();
      strictEqual(run.length === 0, left.size === 0);
      const longest = Math.max(0, ...run.map(({ size }) => size));
      ok(run.length <= padded.textsMax);
      ok(run.length <= 1 || padded.cost(run.length, longest, 0) <= padded.costMax);
      for (const owner of left.keys()) runsWaited.set(owner, (runsWaited.get(owner) ?? 0) + 1);
      for (const { owner, index, size } of run) {
        ok(left.get(owner)?.delete(index), "taken twice, or after its owner was dropped");
        strictEqual(size, sizes.get(owner)?.[index]);
        if (left.get(owner)?.size === 0) left.delete(owner);
        runsWaited.set(owner, 0);
      }
      for (const [owner, waited] of runsWaited) ok(!left.has(owner) || waited <= owners);
      return run.length;
    };
    for (const act of steps) {
      if (act === "take") take();
      else if ("drop" in act) {
        queue.drop(act.drop);
        left.delete(act.drop);
      } else {
        sizes.set(owners, act.add);
        left.set(owners, new Set(act.add.keys()));
        queue.add(owners++, act.add);
      }
    }
    while (take() > 0);
    strictEqual(left.size, 0);
  }));
});
