// Tests of the choice among replicas.
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import fc from "fast-check";
import { createReplicaChooser } from "../../../src/engines/upstream/choose_replica.ts";

const all = () => true;
const idle = () => 0;

Deno.test("weighted: replicas take turns by their weights, spread out and not in bursts", () => {
  const chooser = createReplicaChooser([5, 1, 1], "weighted");
  deepStrictEqual(Array.from({ length: 7 }, () => chooser.choose(all, idle)), [0, 0, 1, 0, 2, 0, 0]);
});

Deno.test("weighted: over any number of whole rounds each replica gets exactly its share", () => {
  fc.assert(fc.property(
    fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 6 }),
    fc.integer({ min: 1, max: 5 }),
    (weights, rounds) => {
      const chooser = createReplicaChooser(weights, "weighted");
      const got = weights.map(() => 0);
      const sum = weights.reduce((total, weight) => total + weight, 0);
      for (let turn = 0; turn < sum * rounds; turn++) {
        const index = chooser.choose(all, idle) ?? -1;
        got[index] = (got[index] ?? NaN) + 1;
      }
      deepStrictEqual(got, weights.map((weight) => weight * rounds));
    },
  ));
});

Deno.test("a replica that may not take a request never gets one; without any there is none", () => {
  fc.assert(fc.property(
    fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 }),
    fc.constantFrom("weighted" as const, "least-busy" as const),
    fc.array(fc.nat(31), { minLength: 1, maxLength: 40 }),
    (weights, routing, masks) => {
      const chooser = createReplicaChooser(weights, routing);
      for (const mask of masks) {
        const mayTake = (index: number) => (mask >> index & 1) === 1;
        const index = chooser.choose(mayTake, idle);
        if (index === undefined) ok(!weights.some((_, other) => mayTake(other)));
        else ok(mayTake(index));
      }
    },
  ));
});

Deno.test("a replica that was away is not flooded when it comes back", () => {
  const chooser = createReplicaChooser([1, 1], "weighted");
  for (let turn = 0; turn < 100; turn++) strictEqual(chooser.choose((index) => index === 0, idle), 0);
  const later = Array.from({ length: 10 }, () => chooser.choose(all, idle));
  strictEqual(later.filter((index) => index === 1).length, 5);
});

Deno.test("least-busy: the fewest requests for the weight win", () => {
  const chooser = createReplicaChooser([1, 4, 1], "least-busy");
  const under = (loads: readonly number[]) => chooser.choose(all, (index) => loads[index] ?? 0);
  strictEqual(under([1, 3, 1]), 1);
  strictEqual(under([1, 5, 2]), 0);
  strictEqual(under([3, 13, 2]), 2);
});

Deno.test("least-busy: among equals the weights decide", () => {
  const chooser = createReplicaChooser([3, 1], "least-busy");
  const got = Array.from({ length: 8 }, () => chooser.choose(all, idle));
  strictEqual(got.filter((index) => index === 0).length, 6);
});
