// Tests of the Merkle tree, against the reference tree of Certificate Transparency and against the definitions of RFC 6962 §2.1.
import { deepStrictEqual, notStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { hash } from "node:crypto";
import fc from "fast-check";
import {
  CompactRange,
  consistencyProof,
  EMPTY_ROOT,
  inclusionProof,
  leafHash,
  nodeHash,
  verifyConsistency,
  verifyInclusion,
} from "../../../src/audit/trail/merkle_tree.ts";

// The tree of 8 leaves that the implementations of Certificate Transparency share as their test vector.
const LEAVES = ["", "\0", "\x10", "\x20\x21", "\x30\x31", "@ABC", "PQRSTUVW", "`abcdefghijklmno"].map(
  leafHash,
);
const ROOTS = [
  "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
  "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
  "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
  "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
  "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
  "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
  "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
  "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
const INCLUSIONS: [index: number, size: number, proof: string[]][] = [
  [0, 1, []],
  [0, 8, [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
  ]],
  [5, 8, [
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
  ]],
  [2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]],
];
const CONSISTENCIES: [smaller: number, size: number, proof: string[]][] = [
  [1, 1, []],
  [1, 8, [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
  ]],
  [6, 8, [
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
  ]],
  [2, 5, [
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
  ]],
];

function treeOf(leaves: readonly string[]): CompactRange {
  const tree = new CompactRange();
  for (const leaf of leaves) tree.append(leaf);
  return tree;
}

Deno.test("the roots of the reference tree come out, from no leaf to eight", () => {
  strictEqual(new CompactRange().root(), EMPTY_ROOT);
  strictEqual(EMPTY_ROOT, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  deepStrictEqual(LEAVES.map((_, index) => treeOf(LEAVES.slice(0, index + 1)).root()), ROOTS);
});

Deno.test("the proofs of the reference tree come out, and are accepted", () => {
  for (const [index, size, proof] of INCLUSIONS) {
    deepStrictEqual(inclusionProof(LEAVES, index, size), proof);
    ok(verifyInclusion(LEAVES[index] ?? "", index, size, proof, ROOTS[size - 1] ?? ""));
  }
  for (const [smaller, size, proof] of CONSISTENCIES) {
    deepStrictEqual(consistencyProof(LEAVES, smaller, size), proof);
    ok(verifyConsistency(smaller, ROOTS[smaller - 1] ?? "", size, ROOTS[size - 1] ?? "", proof));
  }
});

// --- The definitions of RFC 6962 §2.1, word for word ----------------------------------------------------------------

function splitOf(size: number): number {
  return 2 ** (Math.ceil(Math.log2(size)) - 1);
}

function rootByDefinition(leaves: readonly string[]): string {
  if (leaves.length === 0) return hash("sha256", "", "hex");
  if (leaves.length === 1) return leaves[0] ?? "";
  const k = splitOf(leaves.length);
  return nodeHash(rootByDefinition(leaves.slice(0, k)), rootByDefinition(leaves.slice(k)));
}

function pathByDefinition(index: number, leaves: readonly string[]): string[] {
  if (leaves.length === 1) return [];
  const k = splitOf(leaves.length);
  const [left, right] = [leaves.slice(0, k), leaves.slice(k)];
  return index < k
    ? [...pathByDefinition(index, left), rootByDefinition(right)]
    : [...pathByDefinition(index - k, right), rootByDefinition(left)];
}

function subproofByDefinition(smaller: number, leaves: readonly string[], whole: boolean): string[] {
  if (smaller === leaves.length) return whole ? [] : [rootByDefinition(leaves)];
  const k = splitOf(leaves.length);
  const [left, right] = [leaves.slice(0, k), leaves.slice(k)];
  return smaller <= k
    ? [...subproofByDefinition(smaller, left, whole), rootByDefinition(right)]
    : [...subproofByDefinition(smaller - k, right, false), rootByDefinition(left)];
}

const someLeaves = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => leafHash(`${index}`));
/** A size from 1 and another up to it. */
const sizes = fc.integer({ min: 1, max: 140 }).chain((size) =>
  fc.tuple(fc.integer({ min: 1, max: size }), fc.constant(size))
);

Deno.test("roots and proofs of any tree are those of the definitions, and are accepted", () => {
  fc.assert(fc.property(sizes, ([smaller, size]) => {
    const leaves = someLeaves(size);
    const root = rootByDefinition(leaves);
    strictEqual(treeOf(leaves).root(), root);
    const inclusion = inclusionProof(leaves, smaller - 1, size);
    deepStrictEqual(inclusion, pathByDefinition(smaller - 1, leaves));
    ok(verifyInclusion(leaves[smaller - 1] ?? "", smaller - 1, size, inclusion, root));
    const consistency = consistencyProof(leaves, smaller, size);
    deepStrictEqual(consistency, subproofByDefinition(smaller, leaves, true));
    const smallerRoot = rootByDefinition(leaves.slice(0, smaller));
    ok(verifyConsistency(smaller, smallerRoot, size, root, consistency));
  }));
});

Deno.test("a proof of anything else is refused", () => {
  const other = leafHash("other");
  fc.assert(fc.property(sizes, fc.nat(), ([smaller, size], nat) => {
    const leaves = someLeaves(size);
    const [root, smallerRoot] = [rootByDefinition(leaves), rootByDefinition(leaves.slice(0, smaller))];
    const leaf = leaves[smaller - 1] ?? "";
    const inclusion = inclusionProof(leaves, smaller - 1, size);
    const consistency = consistencyProof(leaves, smaller, size);
    const spoilt = (proof: readonly string[]) => [
      [...proof, other],
      ...proof.length === 0
        ? []
        : [proof.slice(1), proof.slice(0, -1), proof.with(nat % proof.length, other)],
    ];
    for (const proof of spoilt(inclusion)) ok(!verifyInclusion(leaf, smaller - 1, size, proof, root));
    ok(!verifyInclusion(other, smaller - 1, size, inclusion, root));
    ok(!verifyInclusion(leaf, smaller - 1, size, inclusion, other));
    ok(!verifyInclusion(leaf, size, size, inclusion, root));
    for (const proof of spoilt(consistency)) {
      ok(!verifyConsistency(smaller, smallerRoot, size, root, proof));
    }
    ok(!verifyConsistency(smaller, other, size, root, consistency));
    ok(!verifyConsistency(smaller, smallerRoot, size, other, consistency));
    ok(!verifyConsistency(size + 1, smallerRoot, size, root, consistency));
    ok(!verifyConsistency(0, EMPTY_ROOT, size, root, []));
  }));
});

Deno.test("text that is no hash is refused in a proof", () => {
  const [proof, root] = [inclusionProof(LEAVES, 5, 8), ROOTS[7] ?? ""];
  for (const text of ["", "zz".repeat(32), `${proof[0]}00`, proof[0]?.toUpperCase() ?? ""]) {
    ok(!verifyInclusion(LEAVES[5] ?? "", 5, 8, proof.with(0, text), root));
    ok(!verifyInclusion(text, 5, 8, proof, root));
    ok(!verifyConsistency(6, ROOTS[5] ?? "", 8, root, consistencyProof(LEAVES, 6, 8).with(0, text)));
  }
});

Deno.test("a compact range goes on from its size and hashes, and a copy by itself", () => {
  fc.assert(fc.property(fc.nat({ max: 100 }), fc.nat({ max: 40 }), (before, more) => {
    const leaves = someLeaves(before + more);
    const first = treeOf(leaves.slice(0, before));
    const root = first.root();
    const again = new CompactRange(first.size, first.hashes);
    const copy = first.copy();
    for (const leaf of leaves.slice(before)) [again, copy].forEach((tree) => tree.append(leaf));
    strictEqual(again.root(), rootByDefinition(leaves));
    strictEqual(copy.root(), again.root());
    strictEqual(first.root(), root);
    if (more > 0) notStrictEqual(copy.root(), root);
  }));
});

Deno.test("a compact range is refused where its hashes do not go with its size", () => {
  throws(() => new CompactRange(3, [ROOTS[0] ?? ""]), RangeError);
  throws(() => new CompactRange(4, [ROOTS[0] ?? "", ROOTS[1] ?? ""]), RangeError);
  strictEqual(new CompactRange(2 ** 40, [ROOTS[0] ?? ""]).size, 2 ** 40);
});

Deno.test("no proof is made of what is not there", () => {
  throws(() => inclusionProof(LEAVES, 8, 8), RangeError);
  throws(() => inclusionProof(LEAVES.slice(0, 5), 3, 8), RangeError);
  throws(() => consistencyProof(LEAVES, 0, 8), RangeError);
  throws(() => consistencyProof(LEAVES.slice(0, 5), 3, 8), RangeError);
});
