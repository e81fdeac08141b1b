// Tests of the master key: 32 random bytes in base64url, and nothing else.
import { deepStrictEqual, match, ok, strictEqual, throws } from "node:assert/strict";
import { Fault } from "../../src/faults/fault.ts";
import { generateMasterKey, MASTER_KEY_BYTES, parseMasterKey } from "../../src/vault/master_key.ts";

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
