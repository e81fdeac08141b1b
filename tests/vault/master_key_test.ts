// Tests of the master key: 32 random bytes in base64url and nothing else; what it wraps, and how one takes the place of another.
import { deepStrictEqual, match, ok, rejects, strictEqual, throws } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { importSealingKey, seal } from "../../src/vault/aead.ts";
import {
  generateMasterKey,
  localMasterKey,
  MASTER_KEY_BYTES,
  masterKeyFrom,
  parseMasterKey,
  parseMasterKeys,
} from "../../src/vault/master_key.ts";

Deno.test("a generated master key is 43 characters, reads back to 32 bytes, and is another each time", () => {
  const keys = Array.from({ length: 100 }, generateMasterKey);
  strictEqual(new Set(keys).size, 100);
  for (const key of keys) {
    match(key, /^[A-Za-z0-9_-]{43}$/);
    strictEqual(parseMasterKey(key).length, MASTER_KEY_BYTES);
  }
});

Deno.test("white space around a master key, as a file's last line end, does not count", () => {
  const key = generateMasterKey();
  deepStrictEqual(parseMasterKey(` ${key}\n`), parseMasterKey(key));
});

Deno.test("what is not 32 bytes in base64url is a fault that repeats none of it", () => {
  const key = generateMasterKey();
  const wrong = [
    "",
    key.slice(1),
    `${key}A`,
    `${key}=`,
    key.replace(/.$/, "B"), // trailing bits that are not zero
    `${key.slice(0, 20)} ${key.slice(21)}`,
    "+".repeat(43),
    "secret-but-too-short",
  ];
  for (const text of wrong) {
    throws(() => parseMasterKey(text), (thrown) => {
      ok(thrown instanceof Fault);
      strictEqual(thrown.kind, "unavailable");
      strictEqual(thrown.message, "Cannot read the master key: it is not 32 bytes in base64url");
      return true;
    });
  }
});

const RAW = crypto.getRandomValues(new Uint8Array(32));
const newKey = () => parseMasterKey(generateMasterKey());

Deno.test("several master keys stand in one text, separated by any white space, the one that wraps first", () => {
  const [first, second, third] = [generateMasterKey(), generateMasterKey(), generateMasterKey()];
  deepStrictEqual(
    parseMasterKeys(` ${first}\r\n${second}\t${third}\n`),
    [parseMasterKey(first), parseMasterKey(second), parseMasterKey(third)],
  );
  for (const wrong of ["", " ", `${first},${second}`, `${first} short`]) {
    throws(() => parseMasterKeys(wrong), Fault);
  }
});

Deno.test("the first key wraps, all of them unwrap, and what is wrapped says which it is under", async () => {
  const [old, current] = [newKey(), newKey()];
  const before = localMasterKey(old);
  const wrapped = await before.wrap("p", RAW);
  const after = localMasterKey(current, [old]);
  deepStrictEqual(await after.unwrap("p", wrapped), RAW);
  strictEqual(await after.isCurrent(wrapped), false);
  strictEqual(await before.isCurrent(wrapped), true);
  const rewrapped = await after.wrap("p", RAW);
  strictEqual(await after.isCurrent(rewrapped), true);
  const alone = localMasterKey(current);
  deepStrictEqual(await alone.unwrap("p", rewrapped), RAW);
  await rejects(alone.unwrap("p", wrapped), (thrown: Fault) => {
    strictEqual(thrown.kind, "unavailable");
    return thrown.message.includes(before.id) && thrown.message.includes(alone.id);
  });
  await rejects(after.unwrap("q", rewrapped), Fault);
});

Deno.test("the id of a key is the same in every process, and none of its bits", () => {
  const key = newKey();
  strictEqual(localMasterKey(key).id, localMasterKey(key).id);
  match(localMasterKey(key).id, /^master_[A-Za-z0-9_-]{12}$/);
  ok(!localMasterKey(key).id.includes(key.toBase64({ alphabet: "base64url" }).slice(0, 6)));
});

Deno.test("a key that was wrapped when there could be one master key only still unwraps, and counts as under an older one", async () => {
  const [old, current] = [newKey(), newKey()];
  const wrapped = await seal(await importSealingKey("master", old), "p", RAW);
  const keys = localMasterKey(current, [newKey(), old]);
  deepStrictEqual(await keys.unwrap("p", wrapped), RAW);
  strictEqual(await keys.isCurrent(wrapped), false);
  strictEqual(await localMasterKey(old).isCurrent(wrapped), false);
  await rejects(localMasterKey(current).unwrap("p", wrapped), Fault);
});

Deno.test("a new key in the file is taken up by renew, and by whoever meets what another instance has wrapped under it", async () => {
  const [old, current] = [newKey(), newKey()];
  let file: [Uint8Array<ArrayBuffer>, ...Uint8Array<ArrayBuffer>[]] = [old];
  const open = () => {
    const read = () => file;
    return masterKeyFrom({
      read,
      renew: () => Promise.resolve(read()),
      settle: () => Promise.resolve(read()),
    });
  };
  const [one, two] = [open(), open()];
  const wrapped = await one.wrap("p", RAW);
  // The operator forgot the old one: what is wrapped under it has to be unwrapped once more all the same.
  file = [current];
  strictEqual(await one.isCurrent(wrapped), true);
  await one.renew();
  strictEqual(await one.isCurrent(wrapped), false);
  const rewrapped = await one.wrap("p", await one.unwrap("p", wrapped));
  deepStrictEqual(await two.unwrap("p", rewrapped), RAW);
  deepStrictEqual(await two.unwrap("p", wrapped), RAW);
  strictEqual(two.id, one.id);
  await one.settle();
  await rejects(one.unwrap("p", wrapped), Fault);
});
