// Tests of the master key that the server holds itself: made once, replaced in steps of which any may be the last.
import { deepStrictEqual, notStrictEqual, rejects, strictEqual } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { openOwnMasterKey } from "../../src/vault/own_master_key.ts";

const RAW = crypto.getRandomValues(new Uint8Array(32));

async function withFile(act: (file: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await act(`${folder}/master.key`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const keysIn = (file: string): readonly string[] => Deno.readTextFileSync(file).split("\n");

Deno.test("it is made at the first start, for its owner only, and the same at the next", () =>
  withFile(async (file) => {
    const wrapped = await (await openOwnMasterKey(file)).wrap("p", RAW);
    strictEqual((Deno.statSync(file).mode ?? 0) & 0o777, 0o600);
    const again = await openOwnMasterKey(file);
    deepStrictEqual(await again.unwrap("p", wrapped), RAW);
    strictEqual(await again.isCurrent(wrapped), true);
    Deno.chmodSync(file, 0o644);
    await rejects(openOwnMasterKey(file), Fault);
  }));

Deno.test("at each step of a replacement the file opens what was wrapped before it and in it; at the end only the new key is there", () =>
  withFile(async (file) => {
    const key = await openOwnMasterKey(file);
    const old = await key.wrap("p", RAW);
    const oldId = key.id;
    await key.renew();
    strictEqual(keysIn(file).length, 2);
    // As after a crash here, and after another one in the next try.
    const crashed = await openOwnMasterKey(file);
    strictEqual(crashed.id, key.id);
    deepStrictEqual(await crashed.unwrap("p", old), RAW);
    strictEqual(await crashed.isCurrent(old), false);
    // However often it is tried again.
    for (let tries = 0; tries < 3; tries++) await crashed.renew();
    strictEqual(crashed.id, key.id);
    strictEqual(keysIn(file).length, 2);
    const rewrapped = await crashed.wrap("p", await crashed.unwrap("p", old));
    await crashed.settle();
    strictEqual(keysIn(file).length, 1);
    strictEqual((Deno.statSync(file).mode ?? 0) & 0o777, 0o600);
    const after = await openOwnMasterKey(file);
    deepStrictEqual(await after.unwrap("p", rewrapped), RAW);
    await rejects(after.unwrap("p", old), (thrown: Fault) => thrown.message.includes(oldId));
    await after.settle();
    strictEqual(keysIn(file).length, 1);
    await after.renew();
    notStrictEqual(after.id, key.id, "the next replacement has a key of its own");
  }));
