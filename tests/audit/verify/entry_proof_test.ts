// Tests of proofs for single entries: every entry of every small trail, with entries taken out, and every change of a proof.
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import { checkProof, proveEntry } from "../../../src/audit/verify/entry_proof.ts";
import { Fault } from "../../../src/faults/fault.ts";
import { mixedUpTo, thin } from "../thinned_trail.ts";
import {
  numberedUpTo,
  rotatedKeys,
  signingKeyOf,
  TIME_MS,
  TRAIL_KEYS,
  TrailFolder,
  unwritten,
} from "../trail_folder.ts";

const TRUSTED = [{ name: TRAIL_KEYS.name, publicKey: TRAIL_KEYS.signing.publicKey }];

/** Writes segments of so many entries each. */
function writeSegments(folder: TrailFolder, counts: readonly number[]): void {
  const writer = folder.openWriter();
  let next = 1;
  for (const [day, count] of counts.entries()) {
    for (const event of mixedUpTo(next + count - 1, next)) {
      writer.append([unwritten(event, TIME_MS + day * 86_400_000)]);
    }
    next += count;
  }
  writer.sign();
  writer.close();
}

function isProven(folder: TrailFolder, seq: number): boolean {
  const proven = checkProof(proveEntry({ ...folder, seq }), TRUSTED);
  return proven.ok && proven.value.entry.seq === seq;
}

function refusal(act: () => unknown): string {
  try {
    act();
    return "none";
  } catch (thrown) {
    return thrown instanceof Fault ? thrown.kind : "no Fault";
  }
}

Deno.test("every entry is proven in trails of all sizes and segments", async () => {
  for (
    const counts of [[1], [2], [3], [1, 1], [3, 2], [4, 4], [5, 1, 7], [1, 2, 3, 4, 5], [16, 1], [8, 9, 8]]
  ) {
    await using folder = new TrailFolder();
    writeSegments(folder, counts);
    const size = counts.reduce((sum, count) => sum + count, 0);
    for (let seq = 1; seq <= size; seq++) ok(isProven(folder, seq), `${seq} of ${counts.join("+")}`);
    strictEqual(refusal(() => proveEntry({ ...folder, seq: size + 1 })), "not_found");
  }
});

Deno.test("what is left is proven whatever was taken out, and what was taken out is said to be so", async () => {
  await using folder = new TrailFolder();
  writeSegments(folder, [5, 6, 4, 3]);
  thin(folder, 3, ["activity", "security"], false);
  thin(folder, 2, ["activity"]);
  thin(folder, 1, ["activity"]);
  const check = (gone: (seq: number) => boolean): void => {
    for (let seq = 1; seq <= 18; seq++) {
      if (gone(seq)) strictEqual(refusal(() => proveEntry({ ...folder, seq })), "not_found", `${seq}`);
      else ok(isProven(folder, seq), `${seq}`);
    }
  };
  check((seq) => (seq <= 11 && seq % 2 === 0) || (seq > 11 && seq <= 15));
  thin(folder, 1, ["activity", "security"]);
  check((seq) => seq <= 5 || (seq <= 11 && seq % 2 === 0) || (seq > 11 && seq <= 15));
});

Deno.test("a proof of an entry behind the newest signed checkpoint is refused until there is one", async () => {
  await using folder = new TrailFolder();
  folder.write(numberedUpTo(3));
  folder.writeAndDie(numberedUpTo(5, 4));
  ok(isProven(folder, 3));
  strictEqual(refusal(() => proveEntry({ ...folder, seq: 4 })), "not_found");
  const writer = folder.openWriter();
  writer.sign();
  writer.close();
  ok(isProven(folder, 5));
});

Deno.test("a proof holds with every key that signed before, for it has the vouchers, and with no other", async () => {
  await using folder = new TrailFolder();
  const second = rotatedKeys(TRAIL_KEYS, 2);
  const fourth = rotatedKeys(rotatedKeys(second, 3), 4);
  folder.write(numberedUpTo(2));
  folder.write(numberedUpTo(3, 3), undefined, { keys: second });
  for (const number of [4, 5]) folder.write(numberedUpTo(number, number), undefined, { keys: fourth });
  const proof = proveEntry({ ...folder, seq: 2 });
  const check = (seed: number): string => {
    const checked = checkProof(proof, [{ name: TRAIL_KEYS.name, publicKey: signingKeyOf(seed).publicKey }]);
    return checked.ok ? `entry ${checked.value.entry.seq}` : checked.reason;
  };
  deepStrictEqual([1, 2, 3, 4, 5].map(check), [
    ...[1, 2, 3, 4].map(() => "entry 2"),
    "unknown_key",
  ]);
});

Deno.test("no proof is given from a trail that was tampered with", async () => {
  await using folder = new TrailFolder();
  writeSegments(folder, [4, 4]);
  const lines = folder.lines(2);
  folder.setLines(lines.toSpliced(2, 1), 2);
  strictEqual(refusal(() => proveEntry({ ...folder, seq: 2 })), "unavailable");
  folder.setLines(lines.slice(0, 3), 2);
  strictEqual(refusal(() => proveEntry({ ...folder, seq: 2 })), "unavailable");
  folder.setLines(lines.with(0, (lines[0] ?? "").replace(/"range":\["..../, '"range":["0000')), 2);
  strictEqual(refusal(() => proveEntry({ ...folder, seq: 6 })), "unavailable");
});

Deno.test("a proof with any character changed proves nothing, or the same", async () => {
  await using folder = new TrailFolder();
  writeSegments(folder, [5, 6]);
  const proof = proveEntry({ ...folder, seq: 4 });
  strictEqual(checkProof(proof, TRUSTED).ok, true);
  fc.assert(
    fc.property(fc.nat(proof.length - 1), fc.constantFrom("0", "A", "b", "=", "\n", " "), (at, character) => {
      const changed = proof.slice(0, at) + character + proof.slice(at + 1);
      return changed === proof || !checkProof(changed, TRUSTED).ok;
    }),
    { numRuns: 500 },
  );
  strictEqual(checkProof(`${proof}\n`, TRUSTED).ok, false);
  const other = [{ name: TRAIL_KEYS.name, publicKey: signingKeyOf(9).publicKey }];
  const refused = checkProof(proof, other);
  strictEqual(!refused.ok && refused.reason, "unknown_key");
  throws(() => proveEntry({ ...folder, seq: 0 }));
});
