import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import {
  CheckpointFile,
  decodeCheckpoint,
  encodeCheckpoint,
  readCheckpoint,
} from "../../../src/audit/trail/checkpoint.ts";

const CHECKPOINT = { seq: 12, hash: "ab".repeat(32), root: "cd".repeat(32), segment: "audit-000003.jsonl" };

Deno.test("a checkpoint reads back as it was written, always in as many bytes", () => {
  for (const checkpoint of [CHECKPOINT, { ...CHECKPOINT, seq: Number.MAX_SAFE_INTEGER }]) {
    const bytes = encodeCheckpoint(checkpoint);
    strictEqual(bytes.length, 512);
    deepStrictEqual(decodeCheckpoint(bytes), { ok: true, value: checkpoint });
  }
});

Deno.test("a checkpoint with any byte changed is unreadable", () => {
  const bytes = encodeCheckpoint(CHECKPOINT);
  fc.assert(fc.property(fc.nat({ max: 511 }), fc.integer({ min: 1, max: 255 }), (index, mask) => {
    const changed = bytes.with(index, (bytes[index] ?? 0) ^ mask);
    deepStrictEqual(decodeCheckpoint(changed), { ok: false, reason: "unreadable" });
  }));
});

Deno.test("a mix of two checkpoints, as a reader may meet it, is unreadable", () => {
  const old = encodeCheckpoint(CHECKPOINT);
  const next = encodeCheckpoint({ ...CHECKPOINT, seq: 13, hash: "ef".repeat(32), root: "01".repeat(32) });
  for (let border = 1; border < 512; border++) {
    const mix = old.slice();
    mix.set(next.subarray(0, border));
    const decoded = decodeCheckpoint(mix);
    // Behind the last byte in which they differ, the mix is the new one.
    const whole = mix.every((byte, index) => byte === next[index]) ||
      mix.every((byte, index) => byte === old[index]);
    strictEqual(decoded.ok, whole);
  }
});

Deno.test("what stands in the checkpoint's place is not read where it is a link, too large or no file", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/checkpoint.json`;
  const refused = (words: RegExp) => {
    deepStrictEqual(readCheckpoint(folder), { ok: false, reason: "unreadable" });
    throws(() => new CheckpointFile(folder, false), words);
  };
  try {
    deepStrictEqual(readCheckpoint(folder), { ok: false, reason: "missing" });
    Deno.mkdirSync(path);
    refused(/Cannot use the audit checkpoint/);
    Deno.removeSync(path);
    Deno.writeFileSync(`${folder}/other`, encodeCheckpoint(CHECKPOINT));
    Deno.symlinkSync(`${folder}/other`, path);
    refused(/it is no regular file/);
    Deno.removeSync(path);
    Deno.createSync(path).close();
    Deno.truncateSync(path, 2 ** 40); // sparse
    refused(/it is larger than 512 bytes/);
    Deno.removeSync(path);
    Deno.copyFileSync(`${folder}/other`, path);
    deepStrictEqual(readCheckpoint(folder), { ok: true, value: CHECKPOINT });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a short, empty or zeroed checkpoint is unreadable", () => {
  const bytes = encodeCheckpoint(CHECKPOINT);
  for (const damaged of [bytes.subarray(0, 511), new Uint8Array(), new Uint8Array(512)]) {
    deepStrictEqual(decodeCheckpoint(damaged), { ok: false, reason: "unreadable" });
  }
});
