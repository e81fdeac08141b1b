// Merkle tree: hashes, roots and proofs over a list of leaves (RFC 6962 §2.1, RFC 9162 §2.1). Pure; hashes are lower-case hexadecimal.
import { hash } from "node:crypto";

/** The root of a tree without leaves. */
export const EMPTY_ROOT: string = hash("sha256", "", "hex");

const SHA256_HEX = /^[0-9a-f]{64}$/;

/** Whether a text is a SHA-256 digest as it stands in the trail. */
export function isSha256Hex(value: unknown): value is string {
  return typeof value === "string" && SHA256_HEX.test(value);
}

/** The hash of a leaf: SHA-256 over a zero byte and the data. */
export function leafHash(data: string): string {
  // U+0000 is one zero byte in UTF-8.
  return hash("sha256", `\0${data}`, "hex");
}

// One buffer for all: hashing is synchronous, and making buffers would cost more than the hash.
const node = Uint8Array.of(1, ...new Uint8Array(64));
const nodeLeft = node.subarray(1, 33);
const nodeRight = node.subarray(33);

/** The hash over two subtrees: SHA-256 over a one byte and both hashes. */
export function nodeHash(left: string, right: string): string {
  nodeLeft.setFromHex(left);
  nodeRight.setFromHex(right);
  return hash("sha256", node, "hex");
}

/**
 * A tree that can grow, in as little as it takes: the hashes of its full subtrees, the largest first, one for each one bit of
 * its size.
 */
export class CompactRange {
  #hashes: string[];
  #size: number;

  /** @throws RangeError when there are more or fewer hashes than the size has one bits */
  constructor(size = 0, hashes: readonly string[] = []) {
    if (hashes.length !== oneBits(size)) {
      throw new RangeError(`Cannot make a tree of ${size} leaves: it has ${hashes.length} subtrees`);
    }
    this.#size = size;
    this.#hashes = [...hashes];
  }

  get size(): number {
    return this.#size;
  }

  /** Of the full subtrees, the largest first. */
  get hashes(): readonly string[] {
    return this.#hashes;
  }

  /** @param leaf the leaf's hash */
  append(leaf: string): void {
    let hash = leaf;
    // Each one bit at the end of the size is a subtree as large as the one that just became full.
    for (let rest = this.#size; rest % 2 === 1; rest = (rest - 1) / 2) {
      hash = nodeHash(this.#hashes.pop() ?? "", hash);
    }
    this.#hashes.push(hash);
    this.#size++;
  }

  root(): string {
    return this.#hashes.reduceRight((right, left) => right === "" ? left : nodeHash(left, right), "") ||
      EMPTY_ROOT;
  }

  /** Another one that grows by itself. */
  copy(): CompactRange {
    return new CompactRange(this.#size, this.#hashes);
  }
}

function oneBits(size: number): number {
  let count = 0;
  for (let rest = size; rest > 0; rest = Math.floor(rest / 2)) count += rest % 2;
  return count;
}

/** Leaves from `start`, before `end`. */
interface LeafRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Proof that a leaf is in a tree: the hashes beside its way to the root, from the leaf up (RFC 9162 §2.1.3.1).
 *
 * @param leaves hashes of all leaves of the tree, in order; read once and not kept
 * @param index of the leaf, from 0
 * @throws RangeError when the tree has no such leaf, or `leaves` has fewer than `size`
 */
export function inclusionProof(leaves: Iterable<string>, index: number, size: number): string[] {
  if (!(index >= 0 && index < size)) {
    throw new RangeError(`Cannot prove leaf ${index}: the tree has ${size} leaves`);
  }
  const beside: LeafRange[] = [];
  let [start, end] = [0, size];
  while (end - start > 1) {
    const middle = start + splitOf(end - start);
    if (index < middle) {
      beside.unshift({ start: middle, end });
      end = middle;
    } else {
      beside.unshift({ start, end: middle });
      start = middle;
    }
  }
  return rootsOf(leaves, beside);
}

/**
 * Proof that a tree is the beginning of a larger one (RFC 9162 §2.1.4.1).
 *
 * @param leaves hashes of all leaves of the larger tree, in order; read once and not kept
 * @throws RangeError when the smaller one is empty or larger, or `leaves` has fewer than `size`
 */
export function consistencyProof(leaves: Iterable<string>, smaller: number, size: number): string[] {
  if (!(smaller > 0 && smaller <= size)) {
    throw new RangeError(`Cannot prove that ${smaller} leaves are the beginning of ${size}`);
  }
  const parts: LeafRange[] = [];
  let [start, end] = [0, size];
  // Until what is left is a whole subtree of the smaller tree.
  while (end > smaller) {
    const middle = start + splitOf(end - start);
    if (smaller <= middle) {
      parts.unshift({ start: middle, end });
      end = middle;
    } else {
      parts.unshift({ start, end: middle });
      start = middle;
    }
  }
  // Where that is the whole of the smaller tree, whoever verifies has it.
  if (start > 0) parts.unshift({ start, end });
  return rootsOf(leaves, parts);
}

/** Whether a proof shows that a leaf is in the tree with this root (RFC 9162 §2.1.3.2). */
export function verifyInclusion(
  leaf: string,
  index: number,
  size: number,
  proof: readonly string[],
  root: string,
): boolean {
  if (!(Number.isSafeInteger(index) && Number.isSafeInteger(size) && index >= 0 && index < size)) {
    return false;
  }
  if (!proof.every(isSha256Hex) || !isSha256Hex(leaf)) return false;
  let [at, last, hash] = [index, size - 1, leaf];
  for (const beside of proof) {
    if (last === 0) return false;
    if (at % 2 === 1 || at === last) {
      hash = nodeHash(beside, hash);
      while (at % 2 === 0 && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      hash = nodeHash(hash, beside);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && hash === root;
}

/** Whether a proof shows that the tree with the smaller root is the beginning of the other (RFC 9162 §2.1.4.2). */
export function verifyConsistency(
  smaller: number,
  smallerRoot: string,
  size: number,
  root: string,
  proof: readonly string[],
): boolean {
  if (!(Number.isSafeInteger(smaller) && Number.isSafeInteger(size) && smaller > 0 && smaller <= size)) {
    return false;
  }
  if (!proof.every(isSha256Hex) || !isSha256Hex(smallerRoot)) return false;
  if (smaller === size) return proof.length === 0 && smallerRoot === root;
  let [at, last] = [smaller - 1, size - 1];
  while (at % 2 === 1) [at, last] = [half(at), half(last)];
  // A smaller tree that is a whole subtree is its own first hash.
  const [first, ...rest] = at === 0 ? [smallerRoot, ...proof] : proof;
  if (first === undefined) return false;
  let [older, newer] = [first, first];
  for (const beside of rest) {
    if (last === 0) return false;
    if (at % 2 === 1 || at === last) {
      [older, newer] = [nodeHash(beside, older), nodeHash(beside, newer)];
      while (at % 2 === 0 && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      newer = nodeHash(newer, beside);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && older === smallerRoot && newer === root;
}

/** The roots of ranges that do not overlap, in the order in which the ranges are given. */
function rootsOf(leaves: Iterable<string>, ranges: readonly LeafRange[]): string[] {
  const roots = new Map<LeafRange, string>();
  const ordered = ranges.toSorted((left, right) => left.start - right.start).values();
  let range = ordered.next().value;
  let tree = new CompactRange();
  let index = 0;
  if (range !== undefined) {
    for (const leaf of leaves) {
      if (index >= range.start) tree.append(leaf);
      index++;
      if (index < range.end) continue;
      roots.set(range, tree.root());
      range = ordered.next().value;
      if (range === undefined) break;
      tree = new CompactRange();
    }
  }
  if (range !== undefined) throw new RangeError(`Cannot prove: there are only ${index} leaves`);
  return ranges.map((each) => roots.get(each) ?? "");
}

/** The largest power of two below a size (RFC 9162 §2.1.1); the size is at least 2. */
function splitOf(size: number): number {
  let split = 1;
  while (split * 2 < size) split *= 2;
  return split;
}

// Shifts would cut at 32 bits.
function half(number: number): number {
  return Math.floor(number / 2);
}
